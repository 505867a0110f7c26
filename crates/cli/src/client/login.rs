//! As whom a command logs in, and where passwords come from.

use std::convert::Infallible;
use std::io::{BufRead, IsTerminal};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use bowline_client::{Client, Password};
use clap::Args;
use rustix::stdio::stdin;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::tls::variable;
use crate::exit::NotDone;
use crate::out;

/// Longest password, in bytes: a file with a longer first line is another file.
const LONGEST: usize = 4096;

/// The user of a command.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LoginArgs {
    // Requests have arguments such as `user`, so the ids differ from the names.
    /// Log in as this user, with the password of --password-file, $BOWLINE_PASSWORD or $ETCDCTL_PASSWORD, else the
    /// terminal is asked. With :PASSWORD, as in etcdctl, others on this machine can see the password [default:
    /// $BOWLINE_USER, $ETCDCTL_USER, or no user]
    #[arg(id = "login_user", long = "user", value_name = "NAME[:PASSWORD]")]
    user: Option<Named>,
    /// File whose first line is the password of the user; - is standard input.
    #[arg(id = "login_password_file", long = "password-file", value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// The user at a second cluster.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct DestLoginArgs {
    /// Log in to TO as this user [default: as to FROM]
    #[arg(long, value_name = "NAME[:PASSWORD]")]
    dest_user: Option<Named>,
    /// File whose first line is the password of --dest-user; - is standard input. Without it, the terminal is asked.
    #[arg(long, value_name = "FILE", requires = "dest_user")]
    dest_password_file: Option<PathBuf>,
}

/// A user, perhaps with a password. `NAME:PASSWORD` is cut at the first colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) password: Option<Password>,
}

impl FromStr for Named {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Named, Infallible> {
        let (name, password) = match text.split_once(':') {
            Some((name, password)) => (name, Some(Password::from(password))),
            None => (text, None),
        };
        Ok(Named { name: name.to_owned(), password })
    }
}

/// A user with the password; `None` if a command does not log in.
#[derive(Clone, Debug)]
pub(crate) struct Credentials(Option<(String, Password)>);

impl Credentials {
    /// A client that logs in, or the same client.
    pub(crate) fn apply(self, client: Client) -> Client {
        match self.0 {
            Some((name, password)) => client.with_user(name, password),
            None => client,
        }
    }
}

impl LoginArgs {
    /// Finds the user and the password, and asks the terminal if the password is given nowhere.
    ///
    /// # Errors
    /// A password is missing or given twice, or the file can't be read.
    pub(crate) fn credentials(&self) -> anyhow::Result<Credentials> {
        let told = |name| match variable(name).map(std::ffi::OsString::into_string) {
            Some(Err(_)) => bail!("BOWLINE_{name} or ETCDCTL_{name} is not UTF-8"),
            Some(Ok(value)) => Ok(Some(value)),
            None => Ok(None),
        };
        let user = match &self.user {
            Some(user) => Some(user.clone()),
            None => told("USER")?.map(|text| text.parse().unwrap_or_else(|never: Infallible| match never {})),
        };
        let Some(user) = user else {
            match &self.password_file {
                Some(_) => bail!("--password-file is given without a user; name it with --user or BOWLINE_USER"),
                None => return Ok(Credentials(None)),
            }
        };
        let variable = told("PASSWORD")?.map(Password::from);
        of(user, self.password_file.as_deref(), "--password-file", variable)
    }
}

impl DestLoginArgs {
    /// The user at the second cluster: `first` if no other one is given.
    ///
    /// # Errors
    /// As for [`LoginArgs::credentials`].
    pub(crate) fn over(&self, first: &Credentials) -> anyhow::Result<Credentials> {
        match &self.dest_user {
            Some(user) => of(user.clone(), self.dest_password_file.as_deref(), "--dest-password-file", None),
            None => Ok(first.clone()),
        }
    }
}

fn of(user: Named, file: Option<&Path>, option: &str, variable: Option<Password>) -> anyhow::Result<Credentials> {
    let Named { name, password } = user;
    if name.is_empty() {
        bail!("the name of the user is empty; allowed: NAME or NAME:PASSWORD");
    }
    let password = match (password, file, variable) {
        (Some(_), Some(_), _) => bail!("the password of {name} is given twice: leave :PASSWORD or {option} out"),
        (Some(password), None, _) => password,
        (None, Some(file), _) => from_file(file, option)?,
        (None, None, Some(password)) => password,
        (None, None, None) if std::io::stdin().is_terminal() => ask(&format!("password of {name}: "))?,
        (None, None, None) => bail!(
            "the password of {name} is missing: give {option} FILE, or set BOWLINE_PASSWORD; on a terminal, it is asked \
             for"
        ),
    };
    Ok(Credentials(Some((name, password))))
}

/// The first line of a file; of standard input, if its name is `-`.
///
/// # Errors
/// It can't be read, is empty, not UTF-8, or longer than 4096 bytes.
pub(crate) fn from_file(file: &Path, option: &str) -> anyhow::Result<Password> {
    let shown = || format!("{option} is {}", file.display());
    let mut line = Vec::new();
    let most = LONGEST as u64 + 2;
    if file == Path::new("-") {
        std::io::Read::take(std::io::stdin().lock(), most).read_until(b'\n', &mut line).with_context(shown)?;
    } else {
        let file = std::fs::File::open(file).with_context(shown)?;
        let file = std::io::BufReader::new(std::io::Read::take(file, most));
        std::io::BufReader::read_until(&mut { file }, b'\n', &mut line).with_context(shown)?;
    }
    line.pop_if(|byte| *byte == b'\n');
    line.pop_if(|byte| *byte == b'\r');
    match String::from_utf8(line) {
        Ok(text) if text.len() > LONGEST => bail!("{}, whose first line is longer than {LONGEST} bytes", shown()),
        Ok(text) if text.is_empty() => bail!("{}, whose first line is empty; allowed: the password", shown()),
        Ok(text) => Ok(Password::from(text)),
        Err(_) => bail!("{}, whose first line is not UTF-8", shown()),
    }
}

/// Asks for a new password, twice.
///
/// # Errors
/// Standard input is no terminal, the two differ, or the password is empty.
pub(crate) fn ask_for_new(user: &str) -> anyhow::Result<Password> {
    if !std::io::stdin().is_terminal() {
        bail!(
            "the new password of {user} is missing: give --new-password-file FILE (- is standard input); on a terminal, \
             it is asked for"
        );
    }
    let password = ask(&format!("new password of {user}: "))?;
    if password.reveal().is_empty() {
        bail!("the new password of {user} is empty; allowed: at least one character");
    }
    if ask(&format!("again, the new password of {user}: "))? != password {
        bail!(NotDone(format!("the two passwords differ, so {user} was not changed")));
    }
    Ok(password)
}

/// Reads a password from the terminal, which does not show it.
///
/// # Errors
/// The user gives up with Ctrl-C or Ctrl-D, or the terminal can't be used.
fn ask(prompt: &str) -> anyhow::Result<Password> {
    let quiet = Quiet::enter(stdin()).context("can't hide what is typed")?;
    out::whisper(prompt);
    let mut typed = Vec::new();
    let ended = loop {
        let mut byte = [0];
        match rustix::io::read(stdin(), &mut byte) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => break Err(anyhow::Error::from(error).context("can't read the password")),
            Ok(0) => break Ok(false),
            Ok(_) => {}
        }
        match byte[0] {
            b'\r' | b'\n' => break Ok(true),
            // Ctrl-C, and Ctrl-D on an empty line.
            3 => break Ok(false),
            4 if typed.is_empty() => break Ok(false),
            // Ctrl-U
            21 => typed.clear(),
            // Backspace removes a character, which may have several bytes.
            8 | 127 => while typed.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            byte if byte.is_ascii_control() => {}
            byte if typed.len() < LONGEST => typed.push(byte),
            _ => {}
        }
    };
    drop(quiet);
    out::whisper("\n");
    if !ended? {
        bail!(NotDone("no password was given".to_owned()));
    }
    Ok(Password::from(String::from_utf8(typed).context("the password is not UTF-8")?))
}

/// A terminal that does not show what is typed, and passes each byte on at once. So a signal can't end the program while
/// the terminal is in this state: Ctrl-C is a byte.
struct Quiet {
    terminal: BorrowedFd<'static>,
    before: Termios,
}

impl Quiet {
    fn enter(terminal: BorrowedFd<'static>) -> rustix::io::Result<Quiet> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(terminal, OptionalActions::Now, &quiet)?;
        Ok(Quiet { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Nothing helps if this fails.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_may_have_a_password() {
        let named = |text: &str| text.parse::<Named>().map(|named| (named.name, named.password));
        assert_eq!(named("alice"), Ok(("alice".to_owned(), None)));
        assert_eq!(named("alice:a:b"), Ok(("alice".to_owned(), Some(Password::from("a:b")))));
        assert_eq!(named("alice:"), Ok(("alice".to_owned(), Some(Password::from("")))));
        assert!(!format!("{:?}", "alice:secret".parse::<Named>()).contains("secret"));
    }

    #[test]
    fn the_first_line_of_a_file_is_the_password() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("password");
        let read = |text: &[u8]| {
            std::fs::write(&file, text).expect("it can be written");
            from_file(&file, "--password-file").map_err(|error| error.to_string())
        };
        for text in [&b" a b"[..], b" a b\n", b" a b\r\nnext\n"] {
            assert_eq!(read(text), Ok(Password::from(" a b")));
        }
        assert_eq!(read(&[b'x'; LONGEST]).map(|password| password.reveal().len()), Ok(LONGEST));
        for (text, why) in
            [(&b""[..], "is empty"), (b"\nsecret", "is empty"), (b"\xff", "not UTF-8"), (&[b'x'; 9999], "longer than")]
        {
            let error = read(text).expect_err(why);
            assert!(error.starts_with("--password-file is ") && error.contains(why), "{error}");
        }
    }
}
