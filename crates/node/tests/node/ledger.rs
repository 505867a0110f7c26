//! The smallest state machine that gives its clients away: a list of every command, in order.

use bowline_node::raft::Index;
use bowline_node::{InvalidSnapshot, Recall, StateMachine};
use bytes::Bytes;

/// How many of the latest lines it recalls.
pub(crate) const RECALLED: usize = 40;

const FORMAT: &str = "ledger 1\n";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    pub(crate) lines: Vec<(Index, String)>,
}

impl Ledger {
    /// What the client of a line is told: how many lines there are with it.
    fn receipt(number: usize) -> Bytes {
        (number + 1).to_string().into()
    }
}

/// The number in a receipt, or in what a reader saw.
pub(crate) fn count(response: &Bytes) -> usize {
    std::str::from_utf8(response).unwrap().parse().unwrap()
}

impl StateMachine for Ledger {
    fn apply(&mut self, index: Index, command: &[u8]) -> Bytes {
        self.lines.push((index, String::from_utf8(command.to_vec()).unwrap()));
        Ledger::receipt(self.lines.len() - 1)
    }

    fn recall(&self, command: &[u8], proposed_at: Index) -> Recall {
        let first = self.lines.len().saturating_sub(RECALLED);
        let found = self.lines[first..].iter().position(|(_, line)| line.as_bytes() == command);
        let forgotten_through = self.lines[..first].last().map_or(Index(0), |(index, _)| *index);
        match found {
            Some(place) => Recall::Applied(Ledger::receipt(first + place)),
            None if forgotten_through < proposed_at => Recall::NotApplied,
            None => Recall::Forgotten,
        }
    }

    fn snapshot(&self) -> Bytes {
        let lines = self.lines.iter().map(|(index, line)| format!("{index} {line}\n"));
        format!("{FORMAT}{}", lines.collect::<String>()).into()
    }

    fn restore(snapshot: &[u8]) -> Result<Ledger, InvalidSnapshot> {
        let invalid = || InvalidSnapshot(String::from_utf8_lossy(snapshot).into_owned());
        let text = std::str::from_utf8(snapshot).ok().and_then(|text| text.strip_prefix(FORMAT)).ok_or_else(invalid)?;
        let line = |line: &str| {
            let (index, command) = line.split_once(' ')?;
            Some((Index(index.parse().ok()?), command.to_owned()))
        };
        let lines = text.lines().map(|text| line(text).ok_or_else(invalid)).collect::<Result<_, _>>()?;
        Ok(Ledger { lines })
    }
}
