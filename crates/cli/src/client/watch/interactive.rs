//! `watch --interactive`: watches that are read from standard input.

use bowline_client::{Client, Watcher};
use clap::{Parser, Subcommand};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, StreamMap};

use super::{Display, LOOK, WatchArgs};
use crate::client::Notation;
use crate::client::lines::{Line, Lines, Stdin, Wanted};
use crate::client::output::Format;
use crate::client::shell::parse;
use crate::exit::{self, Exit};
use crate::out::{self, Out};

/// A line of standard input.
#[derive(Parser)]
#[command(no_binary_name = true, name = "", disable_help_flag = true)]
struct InputLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watches a key or a range.
    Watch(WatchArgs),
    /// Prints for each watch the revision up to which all its events were printed.
    Progress,
}

/// The running watches, and how the items of each are shown.
#[derive(Default)]
struct Watches {
    watchers: StreamMap<usize, Watcher>,
    displays: Vec<Display>,
}

/// Runs watches until the input ends. As in etcdctl, a line that can't be parsed is reported and skipped.
pub(super) async fn run(client: &Client, notation: Notation, format: Format, out: &mut Out) -> anyhow::Result<Exit> {
    let (mut lines, mut watches) = (read_lines(), Watches::default());
    let (mut failed, mut bad) = (false, false);
    loop {
        let done = tokio::select! {
            line = lines.recv() => match line {
                Some(line) => watches.obey(line, client, notation, format).await,
                None => break,
            },
            Some((number, item)) = watches.watchers.next() => match item {
                Ok(item) => {
                    watches.displays[number].show(item, out).await?;
                    Ok(())
                }
                Err(error) => Err(error.into()),
            },
            () = tokio::time::sleep(LOOK) => {
                out::is_read()?;
                Ok(())
            }
        };
        if let Err(error) = done {
            exit::complain(&error);
            let is_bad = exit::is_bad_input(&error);
            (failed, bad) = (failed || !is_bad, bad || is_bad);
        }
    }
    Ok(if bad { Exit::BadInput } else { Exit::of(!failed) })
}

impl Watches {
    async fn obey(
        &mut self,
        line: anyhow::Result<Line>,
        client: &Client,
        notation: Notation,
        format: Format,
    ) -> anyhow::Result<()> {
        let line = line?;
        let Some(InputLine { command }) = line.locate(parse(&line.text))? else { return Ok(()) };
        match command {
            Command::Watch(watch) => {
                let watch = line.locate(watch.on_a_line())?;
                let (watcher, display) = line.locate(watch.start(client, notation, format).await)?;
                self.watchers.insert(self.displays.len(), watcher);
                self.displays.push(display);
            }
            Command::Progress => self.watchers.values().for_each(Watcher::request_progress),
        }
        Ok(())
    }
}

/// Reads standard input on a thread, because a read of it can't be interrupted.
fn read_lines() -> mpsc::Receiver<anyhow::Result<Line>> {
    let (send, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut stdin = Lines::of(Stdin { prompts: false });
        while let Some(line) = stdin.next(Wanted::Command).transpose() {
            let is_last = line.is_err();
            if send.blocking_send(line).is_err() || is_last {
                return;
            }
        }
    });
    lines
}
