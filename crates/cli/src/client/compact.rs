//! The command `compact`.

use std::io::Write;

use bowline_client::Client;
use clap::Args;
use serde_json::json;

use super::Request;
use super::output::{Format, OutputArgs, write_json};
use crate::exit::Exit;
use crate::out::Out;

#[derive(Args, Clone, Debug)]
#[command(after_help = "Exit codes: 0 done; 1 failed, outcome unknown, or done but not printed; 2 bad input.")]
pub(crate) struct CompactArgs {
    /// Oldest revision to keep; earlier ones can't be read any more.
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    revision: i64,
    /// Wait until the old values are removed from the store.
    #[arg(long)]
    physical: bool,
}

impl Request for CompactArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        client.compact(self.revision, self.physical).await?;
        out.done();
        match output.format() {
            Format::Json => write_json(&json!({ "compacted": self.revision }), out)?,
            _ => writeln!(out, "compacted revision {}", self.revision)?,
        }
        Ok(Exit::Passed)
    }
}
