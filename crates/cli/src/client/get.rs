//! The command `get`.

use std::io::Write;

use bowline_api::etcdserverpb::RangeRequest;
use bowline_api::etcdserverpb::range_request::{SortOrder, SortTarget};
use bowline_client::Client;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::output::{Format, OutputArgs, Shown, pairs, write_json, write_plain, write_table};
use super::{Notation, RangeArgs, Request};
use crate::exit::Exit;
use crate::out::Out;

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "lower")]
enum Order {
    #[value(alias = "ASCEND", alias = "asc")]
    Ascend,
    #[value(alias = "DESCEND", alias = "desc")]
    Descend,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "lower")]
enum SortBy {
    #[value(alias = "KEY")]
    Key,
    #[value(alias = "VERSION")]
    Version,
    #[value(alias = "CREATE")]
    Create,
    #[value(alias = "MODIFY")]
    Modify,
    #[value(alias = "VALUE")]
    Value,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Consistency {
    /// Linearizable.
    L,
    /// Serializable.
    S,
}

#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Prints only the value of a single key, byte for byte. For a range, prints each key and each value on \
a line of its own. On a terminal, bytes that are not text are printed in double quotes with \
escapes, which the shell and transactions can read.

Examples:
  bowline get k
  bowline get --prefix app/ --keys-only
  bowline get --prefix '' --hex --keys-only  keys for del --hex and put --hex

Exit codes: 0 found; 1 not found, failed, or not printed; 2 bad input."
)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// Read at this revision [default: the latest]
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..), hide_default_value = true)]
    rev: i64,
    /// Print at most this many keys; 0 means no limit.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..), hide_default_value = true)]
    limit: i64,
    /// Print only keys.
    #[arg(long)]
    keys_only: bool,
    /// Print only the number of keys.
    #[arg(long, conflicts_with = "keys_only")]
    count_only: bool,
    /// Print only values.
    #[arg(long, conflicts_with_all = ["keys_only", "count_only"])]
    print_value_only: bool,
    /// Sort order.
    #[arg(long, value_enum)]
    order: Option<Order>,
    /// Field to sort by.
    #[arg(long, value_enum)]
    sort_by: Option<SortBy>,
    /// Read the state of one member, which may be behind.
    #[arg(long, alias = "local")]
    serializable: bool,
    /// The option of etcdctl: `s` means --serializable.
    #[arg(long, value_enum, hide = true)]
    consistency: Option<Consistency>,
}

impl GetArgs {
    /// The request of the API.
    pub(crate) fn request(&self, default: Notation) -> anyhow::Result<RangeRequest> {
        let (key, range_end) = self.range.bounds(default)?;
        let sort_order = match self.order {
            None if self.sort_by.is_some() => SortOrder::Ascend,
            None => SortOrder::None,
            Some(Order::Ascend) => SortOrder::Ascend,
            Some(Order::Descend) => SortOrder::Descend,
        };
        let sort_target = match self.sort_by {
            None | Some(SortBy::Key) => SortTarget::Key,
            Some(SortBy::Version) => SortTarget::Version,
            Some(SortBy::Create) => SortTarget::Create,
            Some(SortBy::Modify) => SortTarget::Mod,
            Some(SortBy::Value) => SortTarget::Value,
        };
        Ok(RangeRequest {
            key,
            range_end,
            limit: self.limit,
            revision: self.rev,
            sort_order: sort_order.into(),
            sort_target: sort_target.into(),
            serializable: self.serializable || matches!(self.consistency, Some(Consistency::S)),
            keys_only: self.keys_only,
            count_only: self.count_only,
            ..RangeRequest::default()
        })
    }

    fn shown(&self) -> Shown {
        match (self.keys_only, self.print_value_only || !self.range.is_many()) {
            (true, _) => Shown::Keys,
            (false, true) => Shown::Values,
            (false, false) => Shown::Both,
        }
    }
}

impl Request for GetArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let notation = self.range.notation;
        let found = client.range(self.request(notation)?).await?;
        match output.format() {
            Format::Json => {
                let revision = found.header.map_or(0, |header| header.revision);
                let (count, more) = (found.count, found.more);
                let mut answer = json!({ "revision": revision, "count": count, "more": more });
                if !self.count_only {
                    answer["kvs"] = pairs(&found.kvs, notation);
                }
                write_json(&answer, out)?;
            }
            _ if self.count_only => writeln!(out, "{}", found.count)?,
            Format::Table => write_table(&found.kvs, notation, out)?,
            Format::Plain => write_plain(&found.kvs, self.shown(), notation, out)?,
            Format::Raw => {
                for kv in &found.kvs {
                    out.write_all(if self.keys_only { &kv.key } else { &kv.value })?;
                }
            }
        }
        Ok(Exit::of(self.count_only || !found.kvs.is_empty()))
    }
}
