//! The command `del`.

use std::io::{IsTerminal, Write};

use bowline_api::etcdserverpb::{DeleteRangeRequest, RangeRequest};
use bowline_client::Client;
use clap::Args;
use serde_json::json;

use super::output::{Format, OutputArgs, Shown, pairs, write_json, write_plain, write_table};
use super::{Notation, RangeArgs, Request};
use crate::exit::{Exit, NotDone};
use crate::out::{self, Out};

#[derive(Args, Clone, Debug)]
#[command(after_help = "Prints the number of deleted keys. On a terminal, del asks before it deletes a range.

Exit codes: 0 done; 1 failed, outcome unknown, or done but not printed; 2 bad input.")]
pub(crate) struct DelArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// Also print the deleted keys and values.
    #[arg(long)]
    prev_kv: bool,
    /// Delete a range without asking.
    #[arg(short, long)]
    yes: bool,
    /// Only print how many keys would be deleted.
    #[arg(long)]
    dry_run: bool,
}

impl DelArgs {
    /// The request of the API.
    pub(crate) fn request(&self, default: Notation) -> anyhow::Result<DeleteRangeRequest> {
        let (key, range_end) = self.range.bounds(default)?;
        Ok(DeleteRangeRequest { key, range_end, prev_kv: self.prev_kv })
    }

    async fn count(&self, client: &mut Client) -> anyhow::Result<i64> {
        let (key, range_end) = self.range.bounds(Notation::default())?;
        let request = RangeRequest { key, range_end, count_only: true, ..RangeRequest::default() };
        Ok(client.range(request).await?.count)
    }

    /// Asks for confirmation, on a terminal only.
    async fn is_meant(&self, client: &mut Client) -> anyhow::Result<bool> {
        if self.yes || !self.range.is_many() || !std::io::stdin().is_terminal() {
            return Ok(true);
        }
        let count = self.count(client).await?;
        if count == 0 {
            return Ok(true);
        }
        out::whisper(format_args!("delete {count} {}? [y/N] ", self.range.describe()?));
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

impl Request for DelArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        if self.dry_run {
            let count = self.count(client).await?;
            match output.format() {
                Format::Json => write_json(&json!({ "would_delete": count }), out)?,
                _ => writeln!(out, "{count}")?,
            }
            return Ok(Exit::Passed);
        }
        if !self.is_meant(client).await? {
            return Err(NotDone("nothing was deleted".to_owned()).into());
        }
        let response = client.delete_request(self.request(Notation::default())?).await?;
        out.done();
        let notation = self.range.notation;
        match output.format() {
            Format::Json => {
                let revision = response.header.map_or(0, |header| header.revision);
                let mut answer = json!({ "revision": revision, "deleted": response.deleted });
                if self.prev_kv {
                    answer["prev_kvs"] = pairs(&response.prev_kvs, notation);
                }
                write_json(&answer, out)?;
            }
            Format::Raw => {
                for kv in &response.prev_kvs {
                    out.write_all(&kv.value)?;
                }
            }
            form => {
                writeln!(out, "{}", response.deleted)?;
                if form == Format::Table && self.prev_kv {
                    write_table(&response.prev_kvs, notation, out)?;
                } else {
                    write_plain(&response.prev_kvs, Shown::Both, notation, out)?;
                }
            }
        }
        Ok(Exit::Passed)
    }
}
