//! The command `lock`.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use anyhow::bail;
use bowline_client::{Client, Lock, LockGuard};
use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::hold::{Held, TtlArgs};
use super::lease::format_id;
use super::output::{Format, OutputArgs, Shown, key, write_json, write_plain};
use super::{Notation, Request};
use crate::exit::Exit;
use crate::out::Out;

#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Waits until the lock is held, prints its key, and holds it until Ctrl-C. With COMMAND, runs it \
while the lock is held, with ETCD_LOCK_KEY and ETCD_LOCK_REV in its environment. The lock is released in every case; if \
this program is killed, that happens when its lease ends.

ETCD_LOCK_REV is the fencing token, the key's create revision: it is higher than that of any holder before. Locks are \
advisory: a holder that is suspended for long may lose the lock without noticing. So let the resource that the lock \
protects refuse lower tokens, or write in transactions that compare it: create(\"KEY\") = TOKEN.

SIGTERM and SIGHUP are passed on to COMMAND, and so is SIGINT unless a terminal has sent it. If the lease is lost, \
COMMAND gets SIGTERM. `etcdctl lock` and the mutex of etcd's Go package concurrency wait for the same locks.

Examples:
  bowline lock backup -- ./backup.sh
  bowline lock backup -- sh -c 'bowline txn --if \"create($ETCD_LOCK_KEY) = $ETCD_LOCK_REV\" --then \"put last ok\"'
  bowline lock --ttl 30 backup        hold it until Ctrl-C
  bowline get --prefix --keys-only backup/ -o table   who holds it, and who waits

Exit codes: COMMAND's, or 0 released after Ctrl-C; 1 failed; 2 bad input; 75 the lease was lost; 128 plus its number if a \
signal ended the waiting, or COMMAND."
)]
pub(crate) struct LockArgs {
    /// Name of the lock.
    name: OsString,
    /// Command to run while the lock is held.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    #[command(flatten)]
    ttl: TtlArgs,
    #[command(flatten)]
    notation: Notation,
    /// Whether standard input belongs to the shell.
    #[arg(skip)]
    without_input: bool,
}

impl LockArgs {
    /// The lock of a line of the shell: COMMAND must not read the next lines.
    pub(super) fn on_a_line(self) -> LockArgs {
        LockArgs { without_input: true, ..self }
    }

    async fn hold(&self, held: &Held<LockGuard>, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let guard = &held.guard;
        if let Some((program, arguments)) = self.command.split_first() {
            let mut command = Command::new(program);
            command.args(arguments);
            command.env("ETCD_LOCK_KEY", OsStr::from_bytes(guard.key()));
            command.env("ETCD_LOCK_REV", guard.fencing_token().to_string());
            if self.without_input {
                command.stdin(Stdio::null());
            }
            return held.run(command).await;
        }
        match output.format() {
            Format::Json => {
                let mut answer = key(guard.key(), self.notation);
                answer["revision"] = json!(guard.fencing_token());
                answer["lease"] = json!(format_id(guard.lease().id()));
                write_json(&answer, out)?;
            }
            _ => {
                let kv = bowline_client::KeyValue { key: guard.key().clone(), ..Default::default() };
                write_plain(&[kv], Shown::Keys, self.notation, out)?;
            }
        }
        // A reader of the output must see it at once.
        out.flush()?;
        Ok(held.until_interrupted().await)
    }
}

impl Request for LockArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let lock = Lock::new(client, named(&self.name, self.notation)?);
        let wait = async |lease| lock.acquire(&lease).await;
        self.ttl.hold(client, wait, async |held| self.hold(held, output, out).await).await
    }
}

/// The name of a lock or an election.
///
/// # Errors
/// It is not in its notation, or empty.
pub(super) fn named(name: &OsStr, notation: Notation) -> anyhow::Result<Bytes> {
    let name = notation.read("NAME", name)?;
    if name.is_empty() {
        bail!("NAME is empty; allowed: at least one byte");
    }
    Ok(name)
}
