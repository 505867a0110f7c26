//! The command `txn`: compares keys and runs one of two lists of operations, atomically.

use std::ffi::OsString;
use std::io::Write;

use anyhow::bail;
use bowline_api::etcdserverpb as pb;
use bowline_client::Client;
use clap::Args;
use pb::response_op::Response;
use serde_json::{Value, json};

use super::lines::{Line, Lines, Source, Stdin, Wanted};
use super::output::{Format, OutputArgs, Shown, pair, pairs, write_json, write_plain};
use super::{Notation, Request, txn_text};
use crate::exit::Exit;
use crate::out::Out;

/// The titles of the three parts, in order.
const PARTS: [&str; 3] = ["compares:", "success requests (get, put, del):", "failure requests (get, put, del):"];

#[derive(Args, Clone, Debug)]
#[command(after_help = "Without --if, --then and --else, txn reads standard input: comparisons, a blank line, the \
operations to run if all comparisons hold, a blank line, the operations to run otherwise. Text \
in quotes may contain line breaks. In double quotes, \\n, \\r, \\t, \\0, \\\\, \\\" and \\xNN are escapes.

Examples:
  bowline txn --if 'version(lock) = 0' --then 'put lock me' --else 'get lock'
  bowline txn --if 'value(\"\\xff\") = 1' --then 'del --hex ff'
  printf 'value(\"k\") = \"v\"\\n\\nput k w\\n\\nget k\\n' | bowline txn

Exit codes: 0 the comparisons held; 1 they did not, outcome unknown, or done but not printed; \
2 bad input.")]
pub(crate) struct TxnArgs {
    /// A comparison, TARGET(KEY) OP VALUE: TARGET is version, create, mod, value or lease, OP is =, !=, < or >.
    #[arg(long = "if", value_name = "COMPARISON")]
    compares: Vec<OsString>,
    /// An operation to run if all comparisons hold: get, put or del, as on the command line.
    #[arg(long = "then", value_name = "OPERATION")]
    success: Vec<OsString>,
    /// An operation to run otherwise.
    #[arg(long = "else", value_name = "OPERATION")]
    failure: Vec<OsString>,
    /// Print prompts, as on a terminal.
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    notation: Notation,
}

impl TxnArgs {
    fn is_on_the_line(&self) -> bool {
        !(self.compares.is_empty() && self.success.is_empty() && self.failure.is_empty())
    }

    /// Reads the transaction from the flags, or else from lines.
    ///
    /// # Errors
    /// There is no transaction, or a part of it can't be parsed. All its lines are consumed nevertheless, unless a
    /// quote is open.
    pub(super) fn read<S: Source>(&self, lines: &mut Lines<S>) -> anyhow::Result<Txn> {
        let [compares, success, failure] = if self.is_on_the_line() {
            [&self.compares, &self.success, &self.failure].map(|given| given.iter().map(Line::of).collect())
        } else {
            let compares = part(lines, PARTS[0])?;
            if compares.is_empty() && lines.have_ended() {
                bail!("there is no transaction; allowed: --if, --then or --else, or lines on standard input");
            }
            [compares, part(lines, PARTS[1])?, part(lines, PARTS[2])?]
        };
        let compare = |line: &Line| line.locate(txn_text::compare(line.text.trim_ascii(), self.notation));
        let operation = |line: &Line| line.locate(txn_text::operation(line.text.trim_ascii(), self.notation));
        let request = pb::TxnRequest {
            compare: compares.iter().map(compare).collect::<anyhow::Result<_>>()?,
            success: success.iter().map(operation).collect::<anyhow::Result<_>>()?,
            failure: failure.iter().map(operation).collect::<anyhow::Result<_>>()?,
        };
        Ok(Txn { request, notation: self.notation })
    }
}

/// The lines up to a blank one.
fn part<S: Source>(lines: &mut Lines<S>, title: &str) -> anyhow::Result<Vec<Line>> {
    let mut part = Vec::new();
    let mut wanted = Wanted::Part(title);
    while let Some(line) = lines.next(wanted)? {
        if line.text.trim_ascii().is_empty() {
            break;
        }
        part.push(line);
        wanted = Wanted::Part("");
    }
    Ok(part)
}

impl Request for TxnArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        self.read(&mut Lines::of(Stdin::new(self.interactive)))?.run(client, output, out).await
    }
}

/// A transaction that is ready to be sent.
pub(super) struct Txn {
    request: pb::TxnRequest,
    notation: Notation,
}

impl Request for Txn {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let answer = client.txn_request(self.request.clone()).await?;
        if answer.responses.iter().filter_map(|response| response.response.as_ref()).any(changes) {
            out.done();
        }
        let responses = answer.responses.iter().filter_map(|response| response.response.as_ref());
        match output.format() {
            Format::Json => {
                let revision = answer.header.map_or(0, |header| header.revision);
                let responses: Vec<Value> = responses.map(|response| to_json(response, self.notation)).collect();
                write_json(
                    &json!({ "revision": revision, "succeeded": answer.succeeded, "responses": responses }),
                    out,
                )?;
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
                    write_response(response, self.notation, out)?;
                }
            }
        }
        Ok(Exit::of(answer.succeeded))
    }
}

fn write_response(response: &Response, notation: Notation, out: &mut dyn Write) -> std::io::Result<()> {
    match response {
        Response::ResponsePut(put) => {
            writeln!(out, "OK")?;
            write_plain(put.prev_kv.as_slice(), Shown::Both, notation, out)
        }
        Response::ResponseRange(range) if range.kvs.is_empty() && range.count > 0 => writeln!(out, "{}", range.count),
        Response::ResponseRange(range) => write_plain(&range.kvs, Shown::Both, notation, out),
        Response::ResponseDeleteRange(del) => {
            writeln!(out, "{}", del.deleted)?;
            write_plain(&del.prev_kvs, Shown::Both, notation, out)
        }
        Response::ResponseTxn(txn) => writeln!(out, "{}", if txn.succeeded { "SUCCESS" } else { "FAILURE" }),
    }
}

/// Whether the operation with this response changed something.
fn changes(response: &Response) -> bool {
    match response {
        Response::ResponsePut(_) => true,
        Response::ResponseDeleteRange(del) => del.deleted > 0,
        Response::ResponseRange(_) | Response::ResponseTxn(_) => false,
    }
}

fn to_json(response: &Response, notation: Notation) -> Value {
    match response {
        Response::ResponsePut(put) => {
            json!({ "put": { "prev_kv": put.prev_kv.as_ref().map(|kv| pair(kv, notation)) } })
        }
        Response::ResponseRange(range) => {
            json!({ "get": { "count": range.count, "more": range.more, "kvs": pairs(&range.kvs, notation) } })
        }
        Response::ResponseDeleteRange(del) => {
            json!({ "del": { "deleted": del.deleted, "prev_kvs": pairs(&del.prev_kvs, notation) } })
        }
        Response::ResponseTxn(txn) => json!({ "txn": { "succeeded": txn.succeeded } }),
    }
}
