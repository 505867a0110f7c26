//! `bowline check`: is this history linearizable?

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, stdin};
use std::path::PathBuf;

use anyhow::Context;
use bowline_checker::keys;
use bowline_checker::registers::{MAX_LINE_BYTES, Operation, Options, Verdict as Word, check, read_history};
use clap::Args;
use serde_json::json;

use crate::exit::Verdict;
use crate::out::{remark, tell};

#[derive(Args)]
#[command(after_help = "Examples:
  bowline lan run --history run.jsonl && bowline check run.jsonl
  bowline chaos --history run.jsonl; bowline check run.jsonl
  bowline check - < run.jsonl

Each line of a history is one operation as a JSON object. Exit codes: 0 linearizable, 1 not, 2 bad input.")]
pub(crate) struct CheckCommand {
    /// The history, one JSON object a line; `-` reads standard input.
    history: PathBuf,
    /// Give up after this many steps of the search; giving up counts as failed.
    #[arg(long)]
    max_steps: Option<u64>,
    /// Print the verdict as JSON.
    #[arg(long)]
    json: bool,
}

/// A history of either kind.
enum History {
    /// Reads and writes of registers.
    Registers(Vec<Operation>),
    /// What clients of a key-value store did.
    Keys(Vec<keys::Operation>),
}

impl CheckCommand {
    pub(crate) fn run(self) -> anyhow::Result<Verdict> {
        let name = self.history.display().to_string();
        let history = self.read().with_context(|| name)?;
        let (operations, word, explanation) = match &history {
            History::Registers(history) => {
                let mut options = Options::default();
                if let Some(max_steps) = self.max_steps {
                    options.max_steps = max_steps;
                }
                let (word, explanation) = match check(history, &options) {
                    Word::Linearizable => ("linearizable", None),
                    Word::Violation(violation) => ("violated", Some(violation.to_string())),
                    Word::Undecided(undecided) => ("undecided", Some(undecided.to_string())),
                };
                (history.len(), word, explanation)
            }
            History::Keys(history) => {
                let verdict = keys::check_within(history, self.max_steps.unwrap_or(keys::MAX_STEPS));
                let word = match verdict {
                    keys::Verdict::Linearizable => "linearizable",
                    keys::Verdict::Violation(_) | keys::Verdict::Revisions(_) => "violated",
                    keys::Verdict::Undecided { .. } => "undecided",
                };
                (history.len(), word, (word != "linearizable").then(|| verdict.to_string()))
            }
        };
        if self.json {
            tell!("{}", json!({ "operations": operations, "verdict": word, "explanation": explanation }))?;
        } else {
            tell!("{word}: {operations} operations")?;
            if let Some(explanation) = explanation {
                tell!("{explanation}")?;
            }
        }
        Ok(Verdict::of(word == "linearizable"))
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

/// Reads a history of the kind that its first line is of.
fn read(mut input: impl BufRead) -> anyhow::Result<History> {
    let mut first = Vec::new();
    (&mut input).take(MAX_LINE_BYTES as u64 + 1).read_until(b'\n', &mut first)?;
    let line: Option<serde_json::Value> = serde_json::from_slice(&first).ok();
    let is_keys = line.is_some_and(|line| line.get("request").is_some());
    let whole = std::io::Cursor::new(first).chain(input);
    Ok(if is_keys { History::Keys(keys::read_history(whole)?) } else { History::Registers(read_history(whole)?) })
}
