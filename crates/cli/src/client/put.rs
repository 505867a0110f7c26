//! The command `put`.

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::time::Instant;

use anyhow::{Context, bail};
use bowline_api::etcdserverpb::PutRequest;
use bowline_client::Client;
use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::lease::parse_id;
use super::output::{Format, OutputArgs, Shown, pair, write_json, write_plain};
use super::{Notation, Request};
use crate::exit::Exit;
use crate::out::{Out, remark};

/// Most bytes that are read from standard input. A server does not accept as much.
const MAX_INPUT: u64 = 64 << 20;

#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Without VALUE, put reads the value from standard input, byte for byte, even with --hex or --base64. \
It refuses empty input, which may be a mistake in a script, unless VALUE is -. In the shell and in \
transactions, - is an ordinary value.

Examples:
  bowline put k v
  bowline put k \"\"           an empty value
  bowline put k -- -1        a value that begins with a hyphen
  bowline put k <file
  command | bowline put k -  the output of a command, even if it is empty
  bowline put --hex ff00 0a  key and value in hexadecimal

Exit codes: 0 done; 1 failed, outcome unknown, or done but not printed; 2 bad input."
)]
pub(crate) struct PutArgs {
    /// The key.
    key: OsString,
    /// The value; read from standard input if not given.
    value: Option<OsString>,
    /// Also print the previous key and value.
    #[arg(long)]
    prev_kv: bool,
    /// Lease to attach the key to; the key is deleted when the lease ends.
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    lease: Option<i64>,
    #[command(flatten)]
    notation: Notation,
}

impl PutArgs {
    /// The put of a line of the shell or of a transaction, which has no standard input.
    ///
    /// # Errors
    /// The value is missing, or an argument is not in its notation, which is `default` if none was chosen.
    pub(crate) fn on_a_line(&self, default: Notation) -> anyhow::Result<Put> {
        let value = self.value.as_ref().context("VALUE is missing; allowed: put KEY VALUE, where VALUE may be \"\"")?;
        let notation = self.notation.or(default);
        self.with(notation.read("VALUE", value)?, notation)
    }

    fn with(&self, value: Bytes, notation: Notation) -> anyhow::Result<Put> {
        let (key, lease) = (notation.read("KEY", &self.key)?, self.lease.unwrap_or(0));
        let request = PutRequest { key, value, prev_kv: self.prev_kv, lease, ..PutRequest::default() };
        Ok(Put { request, notation })
    }
}

impl Request for PutArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let explicit = self.value.as_ref().is_some_and(|value| value == "-");
        let put = match &self.value {
            Some(_) if !explicit => self.on_a_line(self.notation)?,
            _ => {
                // Check the key before reading the value.
                let mut put = self.with(Bytes::new(), self.notation)?;
                put.request.value = input(explicit)?;
                put
            }
        };
        put.run(client, output, out).await
    }
}

/// Reads a value from standard input. Empty input may be a mistake, as under cron, so it must be allowed explicitly.
fn input(may_be_empty: bool) -> anyhow::Result<Bytes> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        remark!("reading the value from the terminal; end it with Ctrl-D");
    }
    let mut value = Vec::new();
    stdin.lock().take(MAX_INPUT + 1).read_to_end(&mut value).context("can't read the value from standard input")?;
    if value.len() as u64 > MAX_INPUT {
        bail!("the value on standard input is longer than {MAX_INPUT} bytes");
    }
    if value.is_empty() && !may_be_empty {
        bail!("VALUE is missing, and standard input is empty; for an empty value, pass \"\" or -");
    }
    Ok(value.into())
}

/// A put that is ready to be sent.
pub(crate) struct Put {
    pub(crate) request: PutRequest,
    notation: Notation,
}

impl Request for Put {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let started = Instant::now();
        let response = client.put_request(self.request.clone()).await?;
        out.done();
        let revision = response.header.map_or(0, |header| header.revision);
        match output.format() {
            Format::Json => {
                let mut answer = json!({ "revision": revision });
                if let Some(kv) = &response.prev_kv {
                    answer["prev_kv"] = pair(kv, self.notation);
                }
                write_json(&answer, out)?;
            }
            Format::Raw => out.write_all(&response.prev_kv.unwrap_or_default().value)?,
            Format::Plain | Format::Table => {
                writeln!(out, "OK  revision {revision}  {:.1} ms", started.elapsed().as_secs_f64() * 1e3)?;
                write_plain(response.prev_kv.as_slice(), Shown::Both, self.notation, out)?;
            }
        }
        Ok(Exit::Passed)
    }
}
