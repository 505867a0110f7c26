//! `txn`: compare, then do one list of operations or the other, all at once.

use std::io::{BufRead, IsTerminal, Read, Write};

use anyhow::Context;
use bowline_api::etcdserverpb as pb;
use bowline_client::Client;
use clap::Args;
use pb::response_op::Response;
use serde_json::{Value, json};

use super::output::{Format, OutputArgs, Shown, pair, pairs, write_json, write_plain};
use super::{Request, txn_text};
use crate::exit::Verdict;
use crate::out::Out;

/// The longest line of a transaction, in bytes: more than a server takes.
const MAX_LINE: u64 = 16 << 20;

const BLOCKS: [&str; 3] = ["compares:", "success requests (get, put, del):", "failure requests (get, put, del):"];

#[derive(Args, Clone, Debug)]
#[command(after_help = "Without --if, --then and --else the transaction is read from standard input: compares, a blank
line, what to do if all of them hold, a blank line, what to do if not.

Examples:
  bowline txn --if 'version(lock) = 0' --then 'put lock me' --else 'get lock'
  printf 'value(\"k\") = \"v\"\\n\\nput k w\\n\\nget k\\n' | bowline txn

Exit codes: 0 the compares held, 1 they did not, or the outcome is not known, 2 bad input.")]
pub(crate) struct TxnArgs {
    /// A compare: TARGET(KEY) OP VALUE, where TARGET is version, create, mod, value or lease; OP =, !=, < or >.
    #[arg(long = "if", value_name = "COMPARE")]
    compares: Vec<String>,
    /// What to do if all compares hold: a get, put or del as on the command line.
    #[arg(long = "then", value_name = "OPERATION")]
    success: Vec<String>,
    /// What to do if not.
    #[arg(long = "else", value_name = "OPERATION")]
    failure: Vec<String>,
    /// Say what is expected, as on a terminal.
    #[arg(short, long)]
    interactive: bool,
}

/// Where the lines of a transaction come from. `None` is the end.
pub(super) trait Lines {
    fn line(&mut self, prompt: &str) -> anyhow::Result<Option<String>>;
}

/// Standard input; `prompts` on standard error.
struct Stdin {
    prompts: bool,
}

impl Lines for Stdin {
    fn line(&mut self, prompt: &str) -> anyhow::Result<Option<String>> {
        if self.prompts && !prompt.is_empty() {
            anstream::eprintln!("{prompt}");
        }
        let mut line = String::new();
        let read = std::io::stdin().lock().take(MAX_LINE).read_line(&mut line).context("can't read the transaction")?;
        Ok((read > 0).then_some(line))
    }
}

impl TxnArgs {
    fn is_on_the_line(&self) -> bool {
        !(self.compares.is_empty() && self.success.is_empty() && self.failure.is_empty())
    }

    /// The transaction, from the flags or else from lines.
    pub(super) fn request(&self, lines: &mut dyn Lines) -> anyhow::Result<pb::TxnRequest> {
        let blocks = if self.is_on_the_line() {
            [self.compares.clone(), self.success.clone(), self.failure.clone()]
        } else {
            let [compares, success, failure] = BLOCKS;
            [block(lines, compares)?, block(lines, success)?, block(lines, failure)?]
        };
        let [compares, success, failure] = blocks;
        let operations = |lines: &[String]| -> anyhow::Result<Vec<_>> {
            lines.iter().map(|line| txn_text::operation(line)).collect()
        };
        Ok(pb::TxnRequest {
            compare: compares.iter().map(|line| txn_text::compare(line)).collect::<anyhow::Result<_>>()?,
            success: operations(&success)?,
            failure: operations(&failure)?,
        })
    }
}

/// The lines up to a blank one.
fn block(lines: &mut dyn Lines, title: &str) -> anyhow::Result<Vec<String>> {
    let mut block = Vec::new();
    let mut prompt = title;
    while let Some(line) = lines.line(prompt)? {
        let line = line.trim();
        if line.is_empty() {
            break;
        }
        block.push(line.to_owned());
        prompt = "";
    }
    Ok(block)
}

impl Request for TxnArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Verdict> {
        let prompts = self.interactive || std::io::stdin().is_terminal();
        let request = self.request(&mut Stdin { prompts })?;
        run(request, client, output, out).await
    }
}

/// Asks, and writes the answer.
pub(super) async fn run(
    request: pb::TxnRequest,
    client: &mut Client,
    output: OutputArgs,
    out: &mut Out,
) -> anyhow::Result<Verdict> {
    let answer = client.txn(request).await?;
    if answer.responses.iter().filter_map(|response| response.response.as_ref()).any(changes) {
        out.done();
    }
    let responses = answer.responses.iter().filter_map(|response| response.response.as_ref());
    match output.format() {
        Format::Json => {
            let revision = answer.header.map_or(0, |header| header.revision);
            let responses: Vec<Value> = responses.map(to_json).collect();
            write_json(&json!({ "revision": revision, "succeeded": answer.succeeded, "responses": responses }), out)?;
        }
        Format::Raw => {
            for response in responses {
                if let Response::ResponseRange(range) = response {
                    range.kvs.iter().try_for_each(|kv| out.write_all(&kv.value))?;
                }
            }
        }
        Format::Plain | Format::Table => {
            writeln!(out, "{}", if answer.succeeded { "SUCCESS" } else { "FAILURE" })?;
            for response in responses {
                writeln!(out)?;
                write_response(response, out)?;
            }
        }
    }
    Ok(Verdict::of(answer.succeeded))
}

fn write_response(response: &Response, out: &mut dyn Write) -> std::io::Result<()> {
    match response {
        Response::ResponsePut(put) => {
            writeln!(out, "OK")?;
            write_plain(put.prev_kv.as_slice(), Shown::Both, out)
        }
        Response::ResponseRange(range) if range.kvs.is_empty() && range.count > 0 => writeln!(out, "{}", range.count),
        Response::ResponseRange(range) => write_plain(&range.kvs, Shown::Both, out),
        Response::ResponseDeleteRange(del) => {
            writeln!(out, "{}", del.deleted)?;
            write_plain(&del.prev_kvs, Shown::Both, out)
        }
        Response::ResponseTxn(txn) => writeln!(out, "{}", if txn.succeeded { "SUCCESS" } else { "FAILURE" }),
    }
}

/// Whether the operation that was answered like this has changed something.
fn changes(response: &Response) -> bool {
    match response {
        Response::ResponsePut(_) => true,
        Response::ResponseDeleteRange(del) => del.deleted > 0,
        Response::ResponseRange(_) | Response::ResponseTxn(_) => false,
    }
}

fn to_json(response: &Response) -> Value {
    match response {
        Response::ResponsePut(put) => json!({ "put": { "prev_kv": put.prev_kv.as_ref().map(pair) } }),
        Response::ResponseRange(range) => {
            json!({ "get": { "count": range.count, "more": range.more, "kvs": pairs(&range.kvs) } })
        }
        Response::ResponseDeleteRange(del) => {
            json!({ "del": { "deleted": del.deleted, "prev_kvs": pairs(&del.prev_kvs) } })
        }
        Response::ResponseTxn(txn) => json!({ "txn": { "succeeded": txn.succeeded } }),
    }
}
