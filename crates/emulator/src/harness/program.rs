//! The program that replicas run, and how it is started.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that can be a replica, started as
/// `<command> <prefix_arguments> [<port>] <own id> <peer id>...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// A path, or a name without a slash, which is looked up in `PATH`.
    pub command: PathBuf,
    /// Arguments before the positional ones, such as a script for an interpreter.
    pub prefix_arguments: Vec<OsString>,
}

impl Program {
    /// A program without prefix arguments.
    pub fn new(command: impl Into<PathBuf>) -> Program {
        Program { command: command.into(), prefix_arguments: Vec::new() }
    }

    /// The same program with one more prefix argument.
    #[must_use]
    pub fn with_argument(mut self, argument: impl Into<OsString>) -> Program {
        self.prefix_arguments.push(argument.into());
        self
    }

    /// The command that starts the program, in `folder` if given. The command and the prefix arguments
    /// that name existing files are then made absolute, so that they keep their meaning.
    pub(super) fn to_command(&self, folder: Option<&Path>) -> Command {
        let is_bare_name = self.command.components().count() == 1 && !self.command.has_root();
        let mut command = match folder {
            Some(_) if !is_bare_name => Command::new(absolute(&self.command)),
            _ => Command::new(&self.command),
        };
        for argument in &self.prefix_arguments {
            let is_file = folder.is_some() && Path::new(argument).exists();
            match is_file {
                true => command.arg(absolute(Path::new(argument))),
                false => command.arg(argument),
            };
        }
        if let Some(folder) = folder {
            command.current_dir(folder);
        }
        command
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [self.command.as_os_str()].into_iter().chain(self.prefix_arguments.iter().map(OsString::as_os_str));
        for (index, word) in words.enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{}", shown(word))?;
        }
        Ok(())
    }
}

fn shown(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    match text.chars().any(|c| c.is_whitespace() || c.is_control()) || text.is_empty() {
        true => format!("{text:?}"),
        false => text.into_owned(),
    }
}

/// Does not resolve links: an interpreter may find its environment by the name it was called with.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_another_folder_paths_keep_their_meaning() {
        let program = Program::new("./python").with_argument("Cargo.toml").with_argument("-x");
        let command = program.to_command(Some(Path::new("/tmp")));
        let here = std::env::current_dir().unwrap();
        assert_eq!(Path::new(command.get_program()), here.join("python"));
        let arguments: Vec<&OsStr> = command.get_args().collect();
        assert_eq!(arguments, [here.join("Cargo.toml").as_os_str(), OsStr::new("-x")]);
        assert_eq!(command.get_current_dir(), Some(Path::new("/tmp")));
    }

    #[test]
    fn a_bare_name_is_left_to_the_path_variable() {
        let command = Program::new("python3").to_command(Some(Path::new("/tmp")));
        assert_eq!(command.get_program(), "python3");
        assert_eq!(Program::new("a b").with_argument("c").to_string(), "\"a b\" c");
    }
}
