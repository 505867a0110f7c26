//! `bowline check`: is this history linearizable?

use std::fs::File;
use std::io::{BufReader, IsTerminal, stdin};
use std::path::PathBuf;

use anyhow::Context;
use bowline_sim::linearizability::{Operation, Options, Verdict as Word, check, read_history};
use clap::Args;
use serde_json::json;

use crate::exit::Verdict;

#[derive(Args)]
#[command(after_help = "Examples:
  bowline lan run --history run.jsonl && bowline check run.jsonl
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

impl CheckCommand {
    pub(crate) fn run(self) -> anyhow::Result<Verdict> {
        let name = self.history.display().to_string();
        let history = self.read().with_context(|| name)?;
        let mut options = Options::default();
        if let Some(max_steps) = self.max_steps {
            options.max_steps = max_steps;
        }
        let (word, explanation) = match check(&history, &options) {
            Word::Linearizable => ("linearizable", None),
            Word::Violation(violation) => ("violated", Some(violation.to_string())),
            Word::Undecided(undecided) => ("undecided", Some(undecided.to_string())),
        };
        if self.json {
            anstream::println!(
                "{}",
                json!({ "operations": history.len(), "verdict": word, "explanation": explanation })
            );
        } else {
            anstream::println!("{word}: {} operations", history.len());
            if let Some(explanation) = explanation {
                anstream::println!("{explanation}");
            }
        }
        Ok(Verdict::of(word == "linearizable"))
    }

    fn read(&self) -> anyhow::Result<Vec<Operation>> {
        if self.history.as_os_str() == "-" {
            if stdin().is_terminal() {
                anstream::eprintln!("reading a history from the terminal; end it with Ctrl-D");
            }
            return Ok(read_history(stdin().lock())?);
        }
        Ok(read_history(BufReader::new(File::open(&self.history)?))?)
    }
}
