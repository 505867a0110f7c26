//! `lease`: keys that live as long as somebody keeps them alive.

use std::io::Write;
use std::time::Duration;

use bowline_client::Client;
use bowline_kv::store::MAX_LEASE_TTL;
use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{Format, OutputArgs, keys, write_json};
use super::{Notation, Once, Request, words};
use crate::exit::Exit;
use crate::out::Out;

const EXAMPLES: &str = "Examples:
  bowline lease grant 60                     a lease that lives a minute
  bowline put --lease 694d77aa9e38260f k v   a key that goes with it
  bowline lease keep-alive 694d77aa9e38260f  until Ctrl-C, so that it stays
  bowline lease timetolive 694d77aa9e38260f --keys

Identities are in hexadecimal digits.";

/// The commands for leases, each a command of its own.
#[derive(Subcommand, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) enum LeaseCommand {
    /// Makes a lease.
    Grant(Once<GrantArgs>),
    /// Ends a lease, and deletes its keys.
    Revoke(Once<RevokeArgs>),
    /// Keeps a lease alive until it is interrupted.
    KeepAlive(Once<KeepAliveArgs>),
    /// Shows how long a lease still lives.
    Timetolive(Once<TimeToLiveArgs>),
    /// Lists all leases.
    List(Once<ListArgs>),
}

impl LeaseCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            LeaseCommand::Grant(command) => command.run(),
            LeaseCommand::Revoke(command) => command.run(),
            LeaseCommand::KeepAlive(command) => command.run(),
            LeaseCommand::Timetolive(command) => command.run(),
            LeaseCommand::List(command) => command.run(),
        }
    }
}

/// A lease's identity as etcdctl writes it, and so everybody.
pub(crate) fn parse_id(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let number = u64::from_str_radix(digits, 16).ok().filter(|number| *number != 0 && !digits.starts_with('+'));
    number.map(u64::cast_signed).ok_or_else(|| "allowed: up to 16 hexadecimal digits, not all 0".to_owned())
}

pub(crate) fn format_id(id: i64) -> String {
    format!("{id:016x}")
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Exit codes: 0 done, 1 not done, not known, or done but not printed, 2 bad input.")]
pub(crate) struct GrantArgs {
    /// How long it lives if nobody keeps it alive, in seconds. A server may give it more: an election must fit.
    #[arg(value_parser = clap::value_parser!(i64).range(1..=MAX_LEASE_TTL))]
    ttl: i64,
}

impl Request for GrantArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let granted = client.lease_grant(self.ttl, 0).await?;
        out.done();
        let (id, ttl) = (format_id(granted.id), granted.ttl);
        match output.format() {
            Format::Json => write_json(&json!({ "lease": id, "ttl": ttl }), out)?,
            Format::Raw => write!(out, "{id}")?,
            Format::Plain | Format::Table => writeln!(out, "lease {id} granted with TTL({ttl}s)")?,
        }
        Ok(Exit::Passed)
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Exit codes: 0 done, 1 not done (there is none, say), not known, or done but not printed,
2 bad input.")]
pub(crate) struct RevokeArgs {
    #[arg(value_parser = parse_id)]
    id: i64,
}

impl Request for RevokeArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let revoked = client.lease_revoke(self.id).await?;
        out.done();
        let (id, revision) = (format_id(self.id), revoked.header.map_or(0, |header| header.revision));
        match output.format() {
            Format::Json => write_json(&json!({ "revoked": id, "revision": revision }), out)?,
            _ => writeln!(out, "lease {id} revoked")?,
        }
        Ok(Exit::Passed)
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "A line for each time that it was kept alive: every third of its time to live.

Exit codes: 0 kept alive (with --once), 1 it is gone, or nobody could be asked, 2 bad input.")]
pub(crate) struct KeepAliveArgs {
    #[arg(value_parser = parse_id)]
    id: i64,
    /// Once, and no more.
    #[arg(long)]
    once: bool,
}

impl Request for KeepAliveArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let id = format_id(self.id);
        loop {
            let ttl = client.lease_keep_alive_once(self.id).await?;
            match (output.format(), ttl) {
                (Format::Json, _) => write_json(&json!({ "lease": id, "ttl": ttl }), out)?,
                (_, 1..) => writeln!(out, "lease {id} keepalived with TTL({ttl})")?,
                _ => writeln!(out, "lease {id} expired or revoked.")?,
            }
            // Whoever reads along must not wait until a buffer is full.
            out.flush()?;
            if ttl <= 0 || self.once {
                return Ok(Exit::of(ttl > 0));
            }
            tokio::time::sleep(Duration::from_secs(ttl.unsigned_abs()) / 3).await;
        }
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Exit codes: 0 it lives, 1 there is none, or nobody could be asked, 2 bad input.")]
pub(crate) struct TimeToLiveArgs {
    #[arg(value_parser = parse_id)]
    id: i64,
    /// Name the keys that are attached to it.
    #[arg(long)]
    keys: bool,
    #[command(flatten)]
    notation: Notation,
}

impl Request for TimeToLiveArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let told = client.lease_time_to_live(self.id, self.keys).await?;
        let (id, lives) = (format_id(self.id), told.ttl >= 0);
        if output.format() == Format::Json {
            let mut answer = json!({ "lease": id, "ttl": told.ttl, "granted_ttl": told.granted_ttl });
            if self.keys {
                answer["keys"] = keys(&told.keys, self.notation);
            }
            write_json(&answer, out)?;
        } else if !lives {
            writeln!(out, "lease {id} already expired")?;
        } else {
            write!(out, "lease {id} granted with TTL({}s), remaining({}s)", told.granted_ttl, told.ttl)?;
            if self.keys {
                let key = |key: &bytes::Bytes| self.notation.write(key).unwrap_or_else(|| words::as_word(key));
                let keys: Vec<String> = told.keys.iter().map(key).collect();
                write!(out, ", attached keys([{}])", keys.join(" "))?;
            }
            writeln!(out)?;
        }
        Ok(Exit::of(lives))
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Exit codes: 0 told, also if there is none, 1 nobody could be asked, 2 bad input.")]
pub(crate) struct ListArgs {}

impl Request for ListArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let ids: Vec<String> = client.lease_list().await?.into_iter().map(format_id).collect();
        if output.format() == Format::Json {
            write_json(&json!({ "leases": ids }), out)?;
        } else {
            writeln!(out, "found {} leases", ids.len())?;
            ids.iter().try_for_each(|id| writeln!(out, "{id}"))?;
        }
        Ok(Exit::Passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_hexadecimal() {
        for id in [1, 0x694d_77aa_9e38_260f, i64::MAX, -1, i64::MIN] {
            assert_eq!(parse_id(&format_id(id)), Ok(id));
        }
        assert_eq!((parse_id("0x1f"), parse_id("1F")), (Ok(31), Ok(31)));
        for wrong in ["", "0", "g", "-1", "+1", "11112222333344445"] {
            assert!(parse_id(wrong).is_err(), "{wrong}");
        }
    }
}
