//! The commands `lease ...`.

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
  bowline lease grant 60                     grant a lease of one minute
  bowline put --lease 694d77aa9e38260f k v   attach a key to it
  bowline lease keep-alive 694d77aa9e38260f  keep it alive until Ctrl-C
  bowline lease timetolive 694d77aa9e38260f --keys

Lease IDs are hexadecimal.";

/// The commands for leases.
#[derive(Subcommand, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) enum LeaseCommand {
    /// Grants a lease.
    Grant(Once<GrantArgs>),
    /// Revokes a lease and deletes its keys.
    Revoke(Once<RevokeArgs>),
    /// Keeps a lease alive until interrupted.
    KeepAlive(Once<KeepAliveArgs>),
    /// Shows the remaining time to live of a lease.
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

/// Parses the id of a lease, as etcdctl writes it.
pub(crate) fn parse_id(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let number = u64::from_str_radix(digits, 16).ok().filter(|number| *number != 0 && !digits.starts_with('+'));
    number.map(u64::cast_signed).ok_or_else(|| "allowed: up to 16 hexadecimal digits, not all 0".to_owned())
}

pub(crate) fn format_id(id: i64) -> String {
    format!("{id:016x}")
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Exit codes: 0 done; 1 failed, outcome unknown, or done but not printed; 2 bad input.")]
pub(crate) struct GrantArgs {
    /// Time to live in seconds. The server may grant more, so that the lease outlives an election.
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
#[command(after_help = "Exit codes: 0 done; 1 no such lease, failed, outcome unknown, or done but not printed; \
2 bad input.")]
pub(crate) struct RevokeArgs {
    /// ID of the lease.
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
#[command(after_help = "Renews the lease after each third of its time to live, and prints a line each time.

Exit codes: 0 renewed (with --once); 1 the lease is gone, or no member answers; 2 bad input.")]
pub(crate) struct KeepAliveArgs {
    /// ID of the lease.
    #[arg(value_parser = parse_id)]
    id: i64,
    /// Renew the lease once, then exit.
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
            // A reader of the output must see each line at once.
            out.flush()?;
            if ttl <= 0 || self.once {
                return Ok(Exit::of(ttl > 0));
            }
            tokio::time::sleep(Duration::from_secs(ttl.unsigned_abs()) / 3).await;
        }
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Exit codes: 0 the lease exists; 1 no such lease, or no member answers; 2 bad input.")]
pub(crate) struct TimeToLiveArgs {
    /// ID of the lease.
    #[arg(value_parser = parse_id)]
    id: i64,
    /// Also print the keys that are attached to the lease.
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
#[command(after_help = "Exit codes: 0 printed, even if there are no leases; 1 no member answers; 2 bad input.")]
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
