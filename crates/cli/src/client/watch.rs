//! The command `watch`.

use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::bail;
use bowline_client::{Client, EventKind, WatchEvent, WatchItem, WatchRequest, Watcher};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::output::{Format, OutputArgs, Shown, key, pair, write_json, write_plain};
use super::{Notation, RangeArgs, Request, words};
use crate::exit::{Exit, NotDone};
use crate::out::{self, Out, remark};

mod go;
mod interactive;

/// How often a quiet watch looks whether its output still has a reader.
const LOOK: Duration = Duration::from_secs(1);

/// The kind of events to print.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Filter {
    /// Only puts.
    #[value(alias = "nodelete")]
    Put,
    /// Only deletions.
    #[value(alias = "noput")]
    Delete,
}

#[derive(Args, Clone, Debug)]
#[command(
    mut_arg("key", |key| key.required(false).required_unless_present("interactive")),
    after_help = "Prints PUT or DELETE, the key and the value of each event, each on a line of its own; the value of a \
deletion is empty. With -o json, each event is one JSON object on one line. Watches until Ctrl-C. If the \
connection is lost, watch says so and resumes at any member; no event is lost or repeated.

COMMAND runs once for each event, with ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY and \
ETCD_WATCH_VALUE in its environment. As in etcdctl, the last three are quoted like Go strings: \"PUT\", \"a\\nb\", \
\"\\xff\". If COMMAND fails, watch says so and goes on.

With --interactive, each line of standard input is `watch`, with these options, or `progress`. The end of the \
input ends all watches.

Examples:
  bowline watch k
  bowline watch --prefix app/ --rev 5            begin with the events of revision 5
  bowline watch --prefix '' -o json --prev-kv
  bowline watch k -- sh -c 'printf \"%s\\n\" \"$ETCD_WATCH_VALUE\"'
  bowline watch --hex 2d78                       the key -x: a key can't follow --

Exit codes: 1 compacted, refused, no member answers, or not printed; 2 bad input. With --interactive, 0 all was \
done until the end of the input."
)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// Begin with the events of this revision [default: the next one]
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..), hide_default_value = true)]
    rev: i64,
    /// Also print the key and the value before each event.
    #[arg(long)]
    prev_kv: bool,
    /// Print only events of this kind.
    #[arg(long, value_enum)]
    filter: Option<Filter>,
    /// Print now and then the revision up to which all events were printed.
    #[arg(long)]
    progress_notify: bool,
    /// Read watches from standard input, one a line.
    #[arg(short, long, conflicts_with_all = ["key", "rev", "prev_kv", "filter", "progress_notify", "command"])]
    interactive: bool,
    /// Command to run for each event.
    #[arg(index = 3, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl WatchArgs {
    /// The watch of a line, which can't read standard input.
    ///
    /// # Errors
    /// It would.
    pub(super) fn on_a_line(self) -> anyhow::Result<WatchArgs> {
        if self.interactive {
            bail!("--interactive can't be used on a line; allowed: on the command line of bowline");
        }
        Ok(self)
    }

    async fn start(self, client: &Client, default: Notation, format: Format) -> anyhow::Result<(Watcher, Display)> {
        let (key, range_end) = self.range.bounds(default)?;
        let mut request = WatchRequest::range(key, range_end).start_revision(self.rev).report_connection();
        if self.prev_kv {
            request = request.prev_kv();
        }
        if self.progress_notify {
            request = request.progress_notify();
        }
        request = match self.filter {
            None => request,
            Some(Filter::Put) => request.only(EventKind::Put),
            Some(Filter::Delete) => request.only(EventKind::Delete),
        };
        let display = Display { notation: self.range.notation.or(default), format, command: self.command };
        Ok((client.watch(request).await?, display))
    }
}

impl Request for WatchArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let (notation, format) = (self.range.notation, output.format());
        if self.interactive {
            return interactive::run(client, notation, format, out).await;
        }
        let (mut watcher, display) = self.clone().start(client, notation, format).await?;
        loop {
            let item = tokio::select! {
                item = watcher.next() => item,
                () = tokio::time::sleep(LOOK) => {
                    out::is_read()?;
                    continue;
                }
            };
            let Some(item) = item else { bail!(NotDone("the watch has ended".to_owned())) };
            display.show(item?, out).await?;
        }
    }
}

/// How the items of a watch are shown.
struct Display {
    notation: Notation,
    format: Format,
    command: Vec<OsString>,
}

impl Display {
    async fn show(&self, item: WatchItem, out: &mut Out) -> anyhow::Result<()> {
        match item {
            WatchItem::Events { revision, events } => {
                for event in events {
                    self.print(revision, &event, out)?;
                    // A reader of the output must see each event at once.
                    out.flush()?;
                    self.run(revision, &event).await?;
                }
            }
            WatchItem::Progress { revision } => {
                match self.format {
                    Format::Json => write_json(&json!({ "type": "PROGRESS", "revision": revision }), out)?,
                    Format::Raw => {}
                    Format::Plain | Format::Table => writeln!(out, "progress notify: {revision}")?,
                }
                out.flush()?;
            }
            WatchItem::Lost { why } => remark!("the connection was lost: {why}; trying to resume"),
            WatchItem::Resumed { endpoint } => remark!("the watch has resumed at {endpoint}"),
            _ => {}
        }
        Ok(())
    }

    fn print(&self, revision: i64, event: &WatchEvent, out: &mut Out) -> std::io::Result<()> {
        let WatchEvent { kind, kv, prev_kv } = event;
        match self.format {
            Format::Json => {
                let shown = match kind {
                    EventKind::Put => pair(kv, self.notation),
                    EventKind::Delete => key(&kv.key, self.notation),
                };
                let mut line = json!({ "type": name(*kind), "revision": revision, "kv": shown });
                if let Some(kv) = prev_kv {
                    line["prev_kv"] = pair(kv, self.notation);
                }
                write_json(&line, out)
            }
            Format::Raw => out.write_all(&kv.value),
            Format::Plain | Format::Table => {
                writeln!(out, "{}", name(*kind))?;
                write_plain(prev_kv.as_slice(), Shown::Both, self.notation, out)?;
                write_plain(std::slice::from_ref(kv), Shown::Both, self.notation, out)
            }
        }
    }

    /// Runs the command of an event, and says if it fails.
    async fn run(&self, revision: i64, event: &WatchEvent) -> anyhow::Result<()> {
        let Some((program, arguments)) = self.command.split_first() else { return Ok(()) };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        command.env("ETCD_WATCH_REVISION", revision.to_string());
        command.env("ETCD_WATCH_EVENT_TYPE", go::quoted(name(event.kind).as_bytes()));
        command.env("ETCD_WATCH_KEY", go::quoted(&event.kv.key));
        command.env("ETCD_WATCH_VALUE", go::quoted(&event.kv.value));
        // On another thread, so that the connection is served meanwhile.
        let failed = match tokio::task::spawn_blocking(move || command.status()).await? {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let key = words::shortened(&event.kv.key);
        remark!("the command {program:?} failed for key {key} at revision {revision}: {failed}");
        Ok(())
    }
}

fn name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Put => "PUT",
        EventKind::Delete => "DELETE",
    }
}
