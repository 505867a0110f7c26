//! `put`.

use std::io::{Read, Write};
use std::time::Instant;

use anyhow::Context;
use bowline_api::etcdserverpb::PutRequest;
use bowline_client::Client;
use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::Request;
use super::lease::parse_id;
use super::output::{Format, OutputArgs, Shown, pair, write_json, write_plain};
use crate::exit::Verdict;
use crate::out::Out;

/// The most that is read from standard input, in bytes: more than a server takes.
const MAX_INPUT: u64 = 64 << 20;

#[derive(Args, Clone, Debug)]
#[command(after_help = "Exit codes: 0 done, 1 not done, or not known, 2 bad input.")]
pub(crate) struct PutArgs {
    key: String,
    /// Read from standard input, byte for byte, if it isn't given.
    value: Option<String>,
    /// Print what was there before, too.
    #[arg(long)]
    prev_kv: bool,
    /// The lease to attach it to, in hexadecimal digits: the key goes with it.
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    lease: Option<i64>,
}

impl PutArgs {
    /// As the API has it.
    pub(crate) fn request(&self, value: impl Into<Bytes>) -> PutRequest {
        let (key, value) = (self.key.clone().into(), value.into());
        PutRequest { key, value, prev_kv: self.prev_kv, lease: self.lease.unwrap_or(0), ..PutRequest::default() }
    }

    pub(crate) fn value(&self) -> Option<&str> {
        self.value.as_deref()
    }
}

impl Request for PutArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Verdict> {
        let value = match &self.value {
            Some(value) => Bytes::from(value.clone()),
            None => {
                let mut value = Vec::new();
                std::io::stdin().take(MAX_INPUT).read_to_end(&mut value).context("can't read the value")?;
                value.into()
            }
        };
        let started = Instant::now();
        let response = client.put_request(self.request(value)).await?;
        out.done();
        let revision = response.header.map_or(0, |header| header.revision);
        match output.format() {
            Format::Json => {
                let mut answer = json!({ "revision": revision });
                if let Some(kv) = &response.prev_kv {
                    answer["prev_kv"] = pair(kv);
                }
                write_json(&answer, out)?;
            }
            Format::Raw => out.write_all(&response.prev_kv.unwrap_or_default().value)?,
            Format::Plain | Format::Table => {
                writeln!(out, "OK  revision {revision}  {:.1} ms", started.elapsed().as_secs_f64() * 1e3)?;
                write_plain(response.prev_kv.as_slice(), Shown::Both, out)?;
            }
        }
        Ok(Verdict::Passed)
    }
}
