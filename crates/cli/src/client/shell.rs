//! `shell`: the commands of a client, one a line.

use std::cell::RefCell;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::rc::Rc;

use bowline_client::Client;
use clap::{Args, CommandFactory, Parser, Subcommand};
use rustyline::Editor;
use rustyline::config::{CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use tokio::runtime::Runtime;

use super::completion::Helper;
use super::output::{Format, OutputArgs};
use super::txn::{self, Lines};
use super::{Cluster, CompactArgs, DelArgs, GetArgs, HashKvArgs, PutArgs, Request, StatusArgs, TxnArgs, words};
use super::{GrantArgs, KeepAliveArgs, ListArgs, RevokeArgs, TimeToLiveArgs};
use crate::exit::{self, Verdict};
use crate::out::{self, Out, Unprinted, remark, tell};

const PROMPT: &str = "bowline> ";

/// How many lines are remembered.
const HISTORY: usize = 2_000;

#[derive(Args, Debug)]
#[command(
    after_help = "Commands: get, put, del, txn, lease, compact, hashkv, status, mode, help, exit; with the flags of the
command line, e.g. `help get`. Tab completes commands and keys. Lines are remembered in
$BOWLINE_HISTORY, or ~/.bowline_history. Lines from a pipe are carried out one by one.

Exit codes: 0 ended, 1 a line from a pipe failed, 2 bad input."
)]
pub(crate) struct ShellCommand {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: Cluster,
}

/// A line of the shell.
#[derive(Parser)]
#[command(no_binary_name = true, name = "", disable_help_flag = true)]
pub(super) struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints the value of a key, or keys and values of a range.
    Get(GetArgs),
    /// Sets a key.
    Put(PutArgs),
    /// Deletes a key, or a range.
    Del(DelArgs),
    /// Compares, and then does one thing or another, all at once.
    Txn(TxnArgs),
    /// Keys that live as long as somebody keeps them alive.
    #[command(subcommand)]
    Lease(Lease),
    /// Gives up what was overwritten or deleted before a revision.
    #[command(alias = "compaction")]
    Compact(CompactArgs),
    /// Compares the members' states.
    Hashkv(HashKvArgs),
    /// Shows how each member is.
    Status(StatusArgs),
    /// The form of the answers from now on: plain, table, json or raw.
    Mode {
        #[arg(value_enum)]
        form: Format,
    },
    /// Leaves.
    #[command(alias = "quit")]
    Exit,
}

/// What a line says of leases.
#[derive(Subcommand)]
enum Lease {
    /// Makes a lease.
    Grant(GrantArgs),
    /// Ends a lease, and deletes its keys.
    Revoke(RevokeArgs),
    /// Keeps a lease alive until it is interrupted.
    KeepAlive(KeepAliveArgs),
    /// Shows how long a lease still lives.
    Timetolive(TimeToLiveArgs),
    /// Lists all leases.
    List(ListArgs),
}

/// What the lines of a shell share.
pub(super) struct Session {
    pub(super) runtime: Runtime,
    pub(super) client: Client,
    output: OutputArgs,
}

/// How a line ended.
enum Ended {
    Line(Verdict),
    Shell,
}

impl ShellCommand {
    pub(crate) fn run(self) -> anyhow::Result<Verdict> {
        let session = Session { runtime: super::runtime()?, client: self.cluster.client()?, output: self.output };
        let session = Rc::new(RefCell::new(session));
        if std::io::stdin().is_terminal() {
            converse(&session)?;
            return Ok(Verdict::Passed);
        }
        let mut lines = Pipe;
        let mut well = true;
        while let Some(line) = lines.line("")? {
            out::is_read()?;
            match session.borrow_mut().carry_out(&line, &mut lines) {
                Ok(Ended::Line(verdict)) => well &= verdict == Verdict::Passed,
                Ok(Ended::Shell) => break,
                Err(error) if Unprinted::of(&error).is_some() => return Err(error),
                Err(error) => {
                    well = false;
                    exit::complain(&error);
                }
            }
        }
        Ok(Verdict::of(well))
    }
}

/// Standard input, of which no line is asked for.
struct Pipe;

impl Lines for Pipe {
    fn line(&mut self, _prompt: &str) -> anyhow::Result<Option<String>> {
        let mut line = String::new();
        Ok((std::io::stdin().lock().read_line(&mut line)? > 0).then_some(line))
    }
}

/// A person.
struct Person<'a>(&'a mut Editor<Helper, FileHistory>);

impl Lines for Person<'_> {
    fn line(&mut self, prompt: &str) -> anyhow::Result<Option<String>> {
        if !prompt.is_empty() {
            remark!("{prompt}");
        }
        match self.0.readline("... ") {
            Ok(line) => Ok(Some(line)),
            Err(ReadlineError::Eof) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Reads and carries out lines until the end.
fn converse(session: &Rc<RefCell<Session>>) -> anyhow::Result<()> {
    let config = Config::builder().max_history_size(HISTORY)?.completion_type(CompletionType::List).build();
    let mut editor = Editor::with_history(config, FileHistory::new())?;
    editor.set_helper(Some(Helper::new(Rc::clone(session))));
    let file = history_file();
    if let Some(file) = &file {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    remark!("help tells the commands, Tab completes them and keys, Ctrl-D leaves");
    loop {
        let line = match editor.readline(PROMPT) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        };
        if line.trim().is_empty() {
            continue;
        }
        editor.add_history_entry(line.as_str())?;
        // While a line is carried out nothing is completed, so nobody else borrows.
        let ended = with_session(session, &line, &mut editor);
        match ended {
            Ok(Ended::Shell) => break,
            Ok(Ended::Line(_)) => {}
            Err(error) if Unprinted::of(&error).is_some() => return Err(error),
            Err(error) => exit::complain(&error),
        }
        if let Some(Err(error)) = file.as_ref().map(|file| editor.save_history(file)) {
            remark!("the line is not remembered: {error}");
        }
    }
    Ok(())
}

/// Carries out a line. A transaction's lines are read first: while they are, keys can be completed.
fn with_session(
    session: &Rc<RefCell<Session>>,
    line: &str,
    editor: &mut Editor<Helper, FileHistory>,
) -> anyhow::Result<Ended> {
    let Some(command) = Session::parse(line)? else { return Ok(Ended::Line(Verdict::Passed)) };
    if let Command::Txn(args) = &command {
        let request = args.request(&mut Person(editor))?;
        return session.borrow_mut().txn(request);
    }
    session.borrow_mut().obey(command)
}

impl Session {
    /// The command of a line; `None` if it only asked for help, which it got.
    fn parse(line: &str) -> anyhow::Result<Option<Command>> {
        let words = words::split(line.trim())?;
        if words.is_empty() || words[0].starts_with('#') {
            return Ok(None);
        }
        match Line::try_parse_from(words) {
            Ok(line) => Ok(Some(line.command)),
            Err(error) if !error.use_stderr() => {
                tell!("{}", error.render().ansi())?;
                Ok(None)
            }
            Err(error) => anyhow::bail!("{}", in_one_line(&error)),
        }
    }

    fn carry_out(&mut self, line: &str, lines: &mut dyn Lines) -> anyhow::Result<Ended> {
        match Session::parse(line)? {
            None => Ok(Ended::Line(Verdict::Passed)),
            Some(Command::Txn(args)) => {
                let request = args.request(lines)?;
                self.txn(request)
            }
            Some(command) => self.obey(command),
        }
    }

    fn txn(&mut self, request: bowline_api::etcdserverpb::TxnRequest) -> anyhow::Result<Ended> {
        let mut out = Out::lock();
        let ended = self.runtime.block_on(txn::run(request, &mut self.client, self.output, &mut out))?;
        out.flush()?;
        Ok(Ended::Line(ended))
    }

    fn obey(&mut self, command: Command) -> anyhow::Result<Ended> {
        match command {
            Command::Get(get) => self.ask(&get),
            Command::Put(put) if put.value().is_none() => anyhow::bail!("VALUE is missing; allowed: put KEY VALUE"),
            Command::Put(put) => self.ask(&put),
            Command::Del(del) => self.ask(&del),
            Command::Txn(txn) => self.ask(&txn),
            Command::Lease(Lease::Grant(grant)) => self.ask(&grant),
            Command::Lease(Lease::Revoke(revoke)) => self.ask(&revoke),
            Command::Lease(Lease::KeepAlive(keep_alive)) => self.ask(&keep_alive),
            Command::Lease(Lease::Timetolive(time_to_live)) => self.ask(&time_to_live),
            Command::Lease(Lease::List(list)) => self.ask(&list),
            Command::Compact(compact) => self.ask(&compact),
            Command::Hashkv(hashkv) => self.ask(&hashkv),
            Command::Status(status) => self.ask(&status),
            Command::Mode { form } => {
                self.output = OutputArgs::of(form);
                Ok(Ended::Line(Verdict::Passed))
            }
            Command::Exit => Ok(Ended::Shell),
        }
    }

    fn ask(&mut self, request: &impl Request) -> anyhow::Result<Ended> {
        let mut out = Out::lock();
        let verdict = self.runtime.block_on(request.run(&mut self.client, self.output, &mut out))?;
        // Values byte for byte have no end of line of their own; the prompt comes on the next one.
        if self.output.format() == Format::Raw && std::io::stdin().is_terminal() {
            writeln!(out)?;
        }
        out.flush()?;
        if verdict == Verdict::Failed && std::io::stdin().is_terminal() {
            remark!("nothing found, or not well: the exit code of the command would be 1");
        }
        Ok(Ended::Line(verdict))
    }
}

/// The command line's own error about words of a line, in one line.
fn in_one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// The names of the commands.
pub(super) fn commands() -> Vec<String> {
    let mut names: Vec<String> =
        Line::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.push("help".to_owned());
    names
}

/// The long flags of a command.
pub(super) fn flags(command: &str) -> Vec<String> {
    let shell = Line::command();
    let Some(command) = shell.find_subcommand(command) else { return Vec::new() };
    let visible = command.get_arguments().filter(|argument| !argument.is_hide_set());
    visible.filter_map(|argument| argument.get_long()).map(|long| format!("--{long}")).collect()
}

fn history_file() -> Option<PathBuf> {
    let told = std::env::var_os("BOWLINE_HISTORY").map(PathBuf::from);
    told.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".bowline_history")))
}
