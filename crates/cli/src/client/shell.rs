//! The command `shell`: runs client commands line by line.

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use bowline_client::Client;
use bowline_emulator::harness::Interrupts;
use clap::{Args, CommandFactory, Parser, Subcommand};
use rustyline::Editor;
use rustyline::config::{CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use tokio::runtime::Runtime;

use super::completion::Helper;
use super::lines::{CONTINUED, Line, Lines, Source, Stdin, Wanted};
use super::output::{Format, OutputArgs};
use super::{
    AlarmListArgs, Cluster, CompactArgs, DelArgs, DisarmArgs, ElectArgs, GetArgs, HashKvArgs, LockArgs, MemberAddArgs,
    MemberListArgs, MemberPromoteArgs, MemberRemoveArgs, MemberReplaceArgs, MemberUpdateArgs, MoveLeaderArgs, Notation,
    PutArgs, Request, StatusArgs, TxnArgs,
};
use super::{AuthDisableArgs, AuthEnableArgs, AuthStatusArgs};
use super::{GrantArgs, KeepAliveArgs, ListArgs, RevokeArgs, TimeToLiveArgs, WatchArgs, words};
use super::{GrantPermissionArgs, RevokePermissionArgs, RoleAddArgs, RoleDeleteArgs, RoleGetArgs, RoleListArgs};
use super::{
    UserAddArgs, UserDeleteArgs, UserGetArgs, UserGrantRoleArgs, UserListArgs, UserPasswdArgs, UserRevokeRoleArgs,
};
use crate::exit::{self, Exit};
use crate::out::{self, Out, Unprinted, remark, tell};

const PROMPT: &str = "bowline> ";

/// How often a request that runs until Ctrl-C looks for it.
const LOOK: Duration = Duration::from_millis(50);

/// Number of lines in the history.
const HISTORY: usize = 2_000;

#[derive(Args, Debug)]
#[command(
    after_help = "Commands: get, put, del, txn, watch, lease, lock, elect, compact, alarm, member, move-leader, \
hashkv, status, user, role, auth, mode, help and exit, with the options of the command line; `help get` lists those of get. Ctrl-C ends \
watch, lock, elect and lease keep-alive. Text in quotes may contain line breaks. In double quotes, \\n, \\r, \\t, \\0, \
\\\\, \\\" and \\xNN are escapes. A line that begins with # is a comment. Tab completes commands and keys. The history \
is kept in $BOWLINE_HISTORY, or else ~/.bowline_history.

Lines from a pipe run one by one. The first line that can't be parsed is reported and ends the \
shell, unless --keep-going is given. A command that fails does not end it.

Examples:
  bowline shell
  printf 'put a 1\\nget a\\n' | bowline shell -o json
  bowline shell --keep-going <commands.txt

Exit codes: 0 done; 1 a line from a pipe failed, or its result could not be printed; 2 bad input."
)]
pub(crate) struct ShellCommand {
    /// Skip lines from a pipe that can't be parsed.
    #[arg(long)]
    keep_going: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: Cluster,
}

/// A line of the shell.
#[derive(Parser)]
#[command(no_binary_name = true, name = "", disable_help_flag = true)]
pub(super) struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Simple(Simple),
    /// Compares keys and runs one of two lists of operations, atomically.
    Txn(TxnArgs),
}

/// The commands that take one line.
#[derive(Subcommand)]
enum Simple {
    /// Prints the value of a key, or the keys and values of a range.
    Get(GetArgs),
    /// Sets a key.
    Put(PutArgs),
    /// Deletes a key or a range.
    Del(DelArgs),
    /// Prints the writes of a key or a range as they happen, until Ctrl-C.
    Watch(WatchArgs),
    /// Manages leases, which delete their keys when they expire.
    #[command(subcommand)]
    Lease(Lease),
    /// Holds a lock, and runs a command meanwhile.
    Lock(LockArgs),
    /// Takes part in an election, or prints its leaders.
    Elect(ElectArgs),
    /// Removes the history before a revision.
    #[command(alias = "compaction")]
    Compact(CompactArgs),
    /// Lists alarms, which make members refuse requests, and deactivates them.
    #[command(subcommand)]
    Alarm(Alarm),
    /// Lists the members, and changes them.
    #[command(subcommand)]
    Member(Member),
    /// Hands the leadership to another member.
    MoveLeader(MoveLeaderArgs),
    /// Compares the states of the members by checksum.
    Hashkv(HashKvArgs),
    /// Shows the state of each member.
    Status(StatusArgs),
    /// Manages users.
    #[command(subcommand)]
    User(User),
    /// Manages roles: what users may do.
    #[command(subcommand)]
    Role(Role),
    /// Enables and disables the users of the cluster.
    #[command(subcommand)]
    Auth(Auth),
    /// Sets the output format.
    Mode {
        /// The format.
        #[arg(value_enum)]
        form: Format,
    },
    /// Ends the shell.
    #[command(alias = "quit")]
    Exit,
}

/// The commands for leases.
#[derive(Subcommand)]
enum Lease {
    /// Grants a lease.
    Grant(GrantArgs),
    /// Revokes a lease and deletes its keys.
    Revoke(RevokeArgs),
    /// Keeps a lease alive until interrupted.
    KeepAlive(KeepAliveArgs),
    /// Shows the remaining time to live of a lease.
    Timetolive(TimeToLiveArgs),
    /// Lists all leases.
    List(ListArgs),
}

/// The commands for alarms.
#[derive(Subcommand)]
enum Alarm {
    /// Lists the active alarms.
    List(AlarmListArgs),
    /// Deactivates all alarms.
    Disarm(DisarmArgs),
}

/// The commands for members.
#[derive(Subcommand)]
enum Member {
    /// Lists the members and what each is doing.
    List(MemberListArgs),
    /// Adds a member, which is to be started then.
    Add(MemberAddArgs),
    /// Removes a member.
    Remove(MemberRemoveArgs),
    /// Makes a learner a voter.
    Promote(MemberPromoteArgs),
    /// Changes the address of a member for other members.
    Update(MemberUpdateArgs),
    /// Adds a member, waits until it votes, and removes another one.
    Replace(MemberReplaceArgs),
}

/// The commands for users.
#[derive(Subcommand)]
enum User {
    /// Adds a user.
    Add(UserAddArgs),
    /// Shows the roles of a user.
    Get(UserGetArgs),
    /// Lists the users.
    List(UserListArgs),
    /// Deletes a user.
    Delete(UserDeleteArgs),
    /// Changes the password of a user.
    Passwd(UserPasswdArgs),
    /// Gives a role to a user.
    GrantRole(UserGrantRoleArgs),
    /// Takes a role from a user.
    RevokeRole(UserRevokeRoleArgs),
}

/// The commands for roles.
#[derive(Subcommand)]
enum Role {
    /// Adds a role, without permissions.
    Add(RoleAddArgs),
    /// Shows the permissions of a role.
    Get(RoleGetArgs),
    /// Lists the roles.
    List(RoleListArgs),
    /// Deletes a role, and takes it from all users.
    Delete(RoleDeleteArgs),
    /// Allows a role to read or write keys.
    GrantPermission(GrantPermissionArgs),
    /// Takes a permission from a role.
    RevokePermission(RevokePermissionArgs),
}

/// The commands that enable and disable the users.
#[derive(Subcommand)]
enum Auth {
    /// Enables the users: each command needs one then.
    Enable(AuthEnableArgs),
    /// Disables the users: everybody may do everything. Users and roles are kept.
    Disable(AuthDisableArgs),
    /// Says whether the users are enabled.
    Status(AuthStatusArgs),
}

/// The state that the lines of a shell share.
pub(super) struct Session {
    pub(super) runtime: Runtime,
    pub(super) client: Client,
    output: OutputArgs,
}

/// How a line ended.
enum Ended {
    Line(Exit),
    Shell,
}

impl ShellCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let session = Session { runtime: super::runtime()?, client: self.cluster.client()?, output: self.output };
        let session = Rc::new(RefCell::new(session));
        if std::io::stdin().is_terminal() {
            converse(&session)?;
            return Ok(Exit::Passed);
        }
        self.carry_out_all(&session)
    }

    /// Runs the lines of a pipe.
    fn carry_out_all(&self, session: &RefCell<Session>) -> anyhow::Result<Exit> {
        let mut lines = Lines::of(Stdin { prompts: false });
        let (mut failed, mut bad) = (false, false);
        while let Some(line) = lines.next(Wanted::Command)? {
            out::is_read()?;
            match carry_out(session, &line, &mut lines) {
                Ok(Ended::Line(verdict)) => failed |= verdict != Exit::Passed,
                Ok(Ended::Shell) => break,
                Err(error) if Unprinted::of(&error).is_some() => return Err(error),
                Err(error) if exit::is_bad_input(&error) => {
                    exit::complain(&error);
                    bad = true;
                    // The lines of a transaction must never be taken for commands.
                    if error.is::<Unread>() {
                        remark!("  the lines after it were not run, because they may belong to the transaction");
                        break;
                    }
                    if !self.keep_going {
                        remark!("  the lines after it were not run; --keep-going skips lines that can't be parsed");
                        break;
                    }
                }
                Err(error) => {
                    exit::complain(&error);
                    failed = true;
                }
            }
        }
        Ok(if bad { Exit::BadInput } else { Exit::of(!failed) })
    }
}

/// A person at a terminal.
struct Person(Editor<Helper, FileHistory>);

impl Source for Person {
    const NUMBERED: bool = false;

    fn read(&mut self, wanted: Wanted<'_>) -> anyhow::Result<Option<Vec<u8>>> {
        if let Wanted::Part(title) = wanted
            && !title.is_empty()
        {
            remark!("{title}");
        }
        match self.0.readline(if let Wanted::Command = wanted { PROMPT } else { CONTINUED }) {
            Ok(line) => Ok(Some(format!("{line}\n").into_bytes())),
            Err(ReadlineError::Eof) => Ok(None),
            Err(ReadlineError::Io(error)) => Err(error.into()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Reads and runs lines until the end.
fn converse(session: &Rc<RefCell<Session>>) -> anyhow::Result<()> {
    let config = Config::builder().max_history_size(HISTORY)?.completion_type(CompletionType::List).build();
    let mut editor = Editor::with_history(config, FileHistory::new())?;
    editor.set_helper(Some(Helper::new(Rc::clone(session))));
    let file = history_file();
    if let Some(file) = &file {
        // The first time, there is no history.
        let _ = editor.load_history(file);
    }
    remark!("help lists the commands, Tab completes commands and keys, Ctrl-D exits");
    let mut lines = Lines::of(Person(editor));
    loop {
        let line = match lines.next(Wanted::Command) {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) if is_interrupt(&error) => continue,
            Err(error) => return Err(error),
        };
        if line.text.trim_ascii().is_empty() {
            continue;
        }
        lines.source.0.add_history_entry(String::from_utf8_lossy(&line.text))?;
        match carry_out(session, &line, &mut lines) {
            Ok(Ended::Shell) => break,
            Ok(Ended::Line(_)) => {}
            Err(error) if Unprinted::of(&error).is_some() => return Err(error),
            Err(error) if is_interrupt(&error) => {}
            Err(error) => exit::complain(&error),
        }
        if let Some(Err(error)) = file.as_ref().map(|file| lines.source.0.save_history(file)) {
            remark!("can't save the history: {error}");
        }
    }
    Ok(())
}

/// Whether the user pressed Ctrl-C, which discards what was typed so far.
fn is_interrupt(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ReadlineError::Interrupted))
}

/// A line that may begin a transaction can't be parsed.
#[derive(Debug, thiserror::Error)]
#[error("the transaction can't be parsed")]
struct Unread;

/// Runs a line. The lines of a transaction come from `lines`. The session is not borrowed meanwhile, so that keys can
/// be completed.
fn carry_out<S: Source>(session: &RefCell<Session>, line: &Line, lines: &mut Lines<S>) -> anyhow::Result<Ended> {
    let command = match line.locate(parse(&line.text)) {
        Ok(Some(CommandLine { command })) => command,
        Ok(None) => return Ok(Ended::Line(Exit::Passed)),
        Err(error) if may_begin_a_transaction(&line.text) => return Err(error.context(Unread)),
        Err(error) => return Err(error),
    };
    line.locate(match command {
        // Errors in the transaction's own lines name their line themselves.
        Command::Txn(args) => {
            let txn = args.read(lines)?;
            session.borrow_mut().ask(&txn)
        }
        Command::Simple(command) => session.borrow_mut().obey(command),
    })
}

/// Whether the first word is `txn` or can't be parsed.
fn may_begin_a_transaction(line: &[u8]) -> bool {
    words::word(line.trim_ascii_start(), b"").map_or(true, |(word, _)| word == b"txn")
}

/// Parses a line; `None` if the line is empty or asked for help, which is printed.
pub(super) fn parse<P: Parser>(line: &[u8]) -> anyhow::Result<Option<P>> {
    let words = words::split(line)?;
    if words.is_empty() {
        return Ok(None);
    }
    match P::try_parse_from(words) {
        Ok(line) => Ok(Some(line)),
        Err(error) if !error.use_stderr() => {
            tell!("{}", error.render().ansi())?;
            Ok(None)
        }
        Err(error) => anyhow::bail!("{}", words::in_one_line(&error)),
    }
}

impl Session {
    fn obey(&mut self, command: Simple) -> anyhow::Result<Ended> {
        match command {
            Simple::Get(get) => self.ask(&get),
            Simple::Put(put) => self.ask(&put.on_a_line(Notation::default())?),
            Simple::Del(del) => self.ask(&del),
            Simple::Watch(watch) => self.follow(&watch.on_a_line()?),
            Simple::Lease(Lease::Grant(grant)) => self.ask(&grant),
            Simple::Lease(Lease::Revoke(revoke)) => self.ask(&revoke),
            Simple::Lease(Lease::KeepAlive(keep_alive)) => self.follow(&keep_alive),
            Simple::Lease(Lease::Timetolive(time_to_live)) => self.ask(&time_to_live),
            Simple::Lease(Lease::List(list)) => self.ask(&list),
            Simple::Lock(lock) => self.ask(&lock.on_a_line()),
            Simple::Elect(elect) if elect.listen => self.follow(&elect),
            Simple::Elect(elect) => self.ask(&elect),
            Simple::Compact(compact) => self.ask(&compact),
            Simple::Alarm(Alarm::List(list)) => self.ask(&list),
            Simple::Alarm(Alarm::Disarm(disarm)) => self.ask(&disarm),
            Simple::Member(Member::List(list)) => self.ask(&list),
            Simple::Member(Member::Add(add)) => self.ask(&add),
            Simple::Member(Member::Remove(remove)) => self.ask(&remove),
            Simple::Member(Member::Promote(promote)) => self.ask(&promote),
            Simple::Member(Member::Update(update)) => self.ask(&update),
            Simple::Member(Member::Replace(replace)) => self.follow(&replace),
            Simple::MoveLeader(to) => self.ask(&to),
            Simple::Hashkv(hashkv) => self.ask(&hashkv),
            Simple::Status(status) => self.ask(&status),
            Simple::User(user) => self.obey_user(&user),
            Simple::Role(role) => self.obey_role(&role),
            Simple::Auth(Auth::Enable(enable)) => self.ask(&enable),
            Simple::Auth(Auth::Disable(disable)) => self.ask(&disable),
            Simple::Auth(Auth::Status(status)) => self.ask(&status),
            Simple::Mode { form } => {
                self.output = OutputArgs::of(form);
                Ok(Ended::Line(Exit::Passed))
            }
            Simple::Exit => Ok(Ended::Shell),
        }
    }

    fn obey_user(&mut self, command: &User) -> anyhow::Result<Ended> {
        match command {
            User::Add(add) => self.ask(add),
            User::Get(get) => self.ask(get),
            User::List(list) => self.ask(list),
            User::Delete(delete) => self.ask(delete),
            User::Passwd(passwd) => self.ask(passwd),
            User::GrantRole(grant) => self.ask(grant),
            User::RevokeRole(revoke) => self.ask(revoke),
        }
    }

    fn obey_role(&mut self, command: &Role) -> anyhow::Result<Ended> {
        match command {
            Role::Add(add) => self.ask(add),
            Role::Get(get) => self.ask(get),
            Role::List(list) => self.ask(list),
            Role::Delete(delete) => self.ask(delete),
            Role::GrantPermission(grant) => self.ask(grant),
            Role::RevokePermission(revoke) => self.ask(revoke),
        }
    }

    /// Runs a request that has no end of its own. On a terminal, Ctrl-C ends it, but not the shell.
    fn follow(&mut self, request: &impl Request) -> anyhow::Result<Ended> {
        if !std::io::stdin().is_terminal() {
            return self.ask(request);
        }
        let interrupts = Interrupts::watch().context("can't watch for Ctrl-C")?;
        self.ask(&UntilInterrupted { request, interrupted: interrupts.flag() })
    }

    fn ask(&mut self, request: &impl Request) -> anyhow::Result<Ended> {
        let mut out = Out::lock();
        let verdict = self.runtime.block_on(request.run(&mut self.client, self.output, &mut out))?;
        // Raw values end without a line break; the prompt needs one.
        if self.output.format() == Format::Raw && std::io::stdin().is_terminal() {
            writeln!(out)?;
        }
        out.flush()?;
        if verdict == Exit::Failed && std::io::stdin().is_terminal() {
            remark!("not found or not successful: the exit code of this command would be 1");
        }
        Ok(Ended::Line(verdict))
    }
}

/// A request that has no end of its own, and ends with Ctrl-C.
struct UntilInterrupted<'a, R> {
    request: &'a R,
    interrupted: Arc<AtomicBool>,
}

impl<R: Request> Request for UntilInterrupted<'_, R> {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let interrupted = async {
            while !self.interrupted.load(Ordering::Relaxed) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            verdict = self.request.run(client, output, out) => verdict,
            () = interrupted => {
                // The terminal shows ^C, and the prompt needs a line of its own.
                remark!("");
                Ok(Exit::Passed)
            }
        }
    }
}

/// The names of the commands.
pub(super) fn commands() -> Vec<String> {
    let mut names: Vec<String> =
        CommandLine::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.push("help".to_owned());
    names
}

/// The names of the commands of a group, such as `lease`.
pub(super) fn subcommands(group: &str) -> Vec<String> {
    let shell = CommandLine::command();
    let group = shell.find_subcommand(group).into_iter();
    group.flat_map(clap::Command::get_subcommands).map(|command| command.get_name().to_owned()).collect()
}

/// The long flags of a command; `second` is its second word, if it belongs to a group.
pub(super) fn flags(first: &str, second: Option<&str>) -> Vec<String> {
    let shell = CommandLine::command();
    let Some(command) = shell.find_subcommand(first) else { return Vec::new() };
    let command = second.and_then(|second| command.find_subcommand(second)).unwrap_or(command);
    let visible = command.get_arguments().filter(|argument| !argument.is_hide_set());
    visible.filter_map(|argument| argument.get_long()).map(|long| format!("--{long}")).collect()
}

fn history_file() -> Option<PathBuf> {
    let told = std::env::var_os("BOWLINE_HISTORY").map(PathBuf::from);
    told.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".bowline_history")))
}
