//! What `lock` and `elect` have in common: a lease of their own, which ends with the command in every case.

use std::future::Future;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::Context;
use bowline_client::{Client, ClientError, Lease, LeaseEnd};
use bowline_emulator::harness::Interrupts;
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};

use crate::exit::Exit;
use crate::out::remark;

/// How often a command looks for a signal, and for the end of COMMAND.
const LOOK: Duration = Duration::from_millis(20);

/// The exit code when the lease is lost: EX_TEMPFAIL in sysexits.h.
const LOST: u8 = 75;

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct TtlArgs {
    /// Time to live of the lease, in seconds. If this program dies, others wait that long. The server may grant more.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=9_000_000_000))]
    #[arg(value_name = "SECONDS")]
    ttl: u64,
}

/// A lock or a leadership that this command holds.
pub(super) struct Held<G> {
    pub(super) guard: G,
    lease: Lease,
    interrupts: Interrupts,
}

impl TtlArgs {
    /// Waits for a lock or a leadership, with a lease of its own, and does `during` while it is held. The lease is revoked
    /// whatever happens, which also releases the lock or ends the candidacy.
    pub(super) async fn hold<G, A>(
        self,
        client: &mut Client,
        wait: impl FnOnce(Lease) -> A,
        during: impl AsyncFnOnce(&Held<G>) -> anyhow::Result<Exit>,
    ) -> anyhow::Result<Exit>
    where
        A: Future<Output = Result<G, ClientError>>,
    {
        let interrupts = Interrupts::watch().context("can't watch for Ctrl-C")?;
        let lease = client.lease(Duration::from_secs(self.ttl)).await?;
        let got = tokio::select! {
            got = wait(lease.clone()) => got.map(Ok),
            signal = interrupted(&interrupts) => Ok(Err(signal)),
        };
        let mut held = None;
        let ended = match got {
            Ok(Ok(guard)) => during(held.insert(Held { guard, lease: lease.clone(), interrupts })).await,
            Ok(Err(signal)) => Ok(signalled(signal.as_raw())),
            Err(error) => Err(error.into()),
        };
        release(&lease).await;
        ended
    }
}

/// Ends the lease, so that nobody has to wait for its end.
async fn release(lease: &Lease) {
    // Of a lease that the cluster has ended, there is nothing to release.
    if lease.end() == Some(LeaseEnd::Gone) {
        return;
    }
    if let Err(error) = lease.revoke().await {
        remark!("can't release it, so others wait until its lease ends, in {:?} at most: {error}", lease.ttl());
    }
}

impl<G> Held<G> {
    /// Waits for Ctrl-C, or for the loss of the lease.
    pub(super) async fn until_interrupted(&self) -> Exit {
        tokio::select! {
            end = self.lease.lost() => lost(end),
            _ = interrupted(&self.interrupts) => Exit::Passed,
        }
    }

    /// Runs a command to its end, and passes its exit code on. If the lease is lost, the command gets SIGTERM.
    ///
    /// # Errors
    /// It can't be started.
    pub(super) async fn run(&self, mut command: Command) -> anyhow::Result<Exit> {
        let program = command.get_program().to_owned();
        let mut child = command.spawn().with_context(|| format!("can't run COMMAND {program:?}"))?;
        let (mut told, mut verdict) = (false, None);
        loop {
            if let Some(status) = child.try_wait().context("can't wait for COMMAND")? {
                return Ok(verdict.unwrap_or_else(|| exit_of(status)));
            }
            if let Some(signal) = self.interrupts.signal().and_then(Signal::from_named_raw)
                && !std::mem::replace(&mut told, true)
                // The terminal sends Ctrl-C to all programs in its foreground.
                && !(signal == Signal::INT && std::io::stdin().is_terminal())
            {
                tell(&child, signal);
            }
            if verdict.is_none()
                && let Some(end) = self.lease.end()
            {
                verdict = Some(lost(end));
                tell(&child, Signal::TERM);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Sends a signal to a command that has not been waited for.
fn tell(child: &Child, signal: Signal) {
    // One that has ended needs no signal.
    let _ = kill_process(Pid::from_child(child), signal);
}

/// The exit code of a shell for a command.
fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, signal) => signalled(signal.unwrap_or(0)),
    }
}

/// The exit code of a shell for a command that a signal has ended.
fn signalled(signal: i32) -> Exit {
    Exit::Code(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}

fn lost(end: LeaseEnd) -> Exit {
    remark!("error: the lease is lost, and what was held with it: {end}");
    Exit::Code(LOST)
}

/// Waits for Ctrl-C, or for another signal that asks the program to end.
async fn interrupted(interrupts: &Interrupts) -> Signal {
    loop {
        if let Some(signal) = interrupts.signal().and_then(Signal::from_named_raw) {
            return signal;
        }
        tokio::time::sleep(LOOK).await;
    }
}
