//! `bowline check` decides whether a history is linearizable.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, stdin};
use std::path::PathBuf;

use anyhow::Context;
use bowline_checker::history::MAX_LINE_BYTES;
use bowline_checker::registers::Options;
use bowline_checker::{MAX_STEPS, Verdict, keys, registers};
use clap::Args;
use serde_json::json;

use crate::exit::Exit;
use crate::out::{remark, tell};

#[derive(Args)]
#[command(after_help = "Examples:
  bowline lan run --history run.jsonl && bowline check run.jsonl
  bowline chaos --history run.jsonl; bowline check run.jsonl
  bowline check - < run.jsonl

Each line of a history is one operation, as a JSON object.

Exit codes: 0 linearizable; 1 not linearizable, or not decided; 2 bad input.")]
pub(crate) struct CheckCommand {
    /// File with the history, one JSON object per line; `-` is standard input.
    history: PathBuf,
    /// Give up after this many search steps; the history then counts as not decided.
    #[arg(long)]
    max_steps: Option<u64>,
    /// Print the verdict as JSON.
    #[arg(long)]
    json: bool,
}

/// A history of either kind.
enum History {
    /// Reads and writes of registers.
    Registers(Vec<registers::Operation>),
    /// Operations on a key-value store.
    Keys(Vec<keys::Operation>),
}

impl CheckCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let name = self.history.display().to_string();
        let history = self.read().with_context(|| name)?;
        let max_steps = self.max_steps.unwrap_or(MAX_STEPS);
        let (operations, word, explanation) = match &history {
            History::Registers(history) => {
                told(history, &registers::check(history, &Options { max_steps, hint: None }))
            }
            History::Keys(history) => told(history, &keys::check_within(history, max_steps)),
        };
        if self.json {
            tell!("{}", json!({ "operations": operations, "verdict": word, "explanation": explanation }))?;
        } else {
            tell!("{word}: {operations} operations")?;
            if let Some(explanation) = explanation {
                tell!("{explanation}")?;
            }
        }
        Ok(Exit::of(word == "linearizable"))
    }

    fn read(&self) -> anyhow::Result<History> {
        if self.history.as_os_str() == "-" {
            if stdin().is_terminal() {
                remark!("reading a history from the terminal; end it with Ctrl-D");
            }
            return read(stdin().lock());
        }
        read(BufReader::new(File::open(&self.history)?))
    }
}

/// Reads a history; its first line tells the kind.
fn read(mut input: impl BufRead) -> anyhow::Result<History> {
    let mut first = Vec::new();
    (&mut input).take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut first)?;
    let line: Option<serde_json::Value> = serde_json::from_slice(&first).ok();
    let is_keys = line.is_some_and(|line| line.get("request").is_some());
    let whole = std::io::Cursor::new(first).chain(input);
    Ok(match is_keys {
        true => History::Keys(keys::read_history(whole)?),
        false => History::Registers(registers::read_history(whole)?),
    })
}

/// The number of operations, the verdict, and its explanation.
fn told<O, V: Display>(history: &[O], verdict: &Verdict<V>) -> (usize, &'static str, Option<String>) {
    (history.len(), verdict.word(), verdict.explanation())
}
