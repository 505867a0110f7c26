//! The state machine of the simulated replicas: the production one, with a witness at its side.

use std::cell::RefCell;

use bowline_kv::{Command, Map, Query};
use bowline_node::{InvalidSnapshot, Recall, StateMachine};
use bowline_raft::Index;
use bytes::Bytes;

use crate::world::oracle::mix;

/// What one command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) index: u64,
    /// The client's operation.
    pub(crate) op: u64,
    /// The operation whose value the key holds now.
    pub(crate) holds: Option<u64>,
    /// Chain over everything that was applied so far, and what it did.
    pub(crate) digest: u64,
}

/// The production state with a running digest of how it came about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    map: Map,
    last: u64,
    digest: u64,
    /// What was applied since the oracle last looked.
    news: RefCell<Vec<Applied>>,
}

impl Machine {
    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// Index of the last command, and the digest after it.
    pub(crate) fn witness(&self) -> (u64, u64) {
        (self.last, self.digest)
    }

    /// Moves what was applied since the last call into `into`.
    pub(crate) fn take_news(&self, into: &mut Vec<Applied>) {
        into.append(&mut self.news.borrow_mut());
    }
}

/// The value that an operation writes: its number, and as many dots as make up the size.
pub(crate) fn value_of(op: u64, bytes: usize) -> String {
    let mut value = op.to_string();
    value.extend(std::iter::repeat_n('.', bytes.saturating_sub(value.len())));
    value
}

/// The operation that wrote this value; `None` for the empty start.
pub(crate) fn writer_of(value: &str) -> Option<u64> {
    value.trim_end_matches('.').parse().ok()
}

/// The operation and the key of a command, read in place: the state machine has checked it already.
fn parse(command: &[u8]) -> Option<(u64, &str)> {
    let mut rest = std::str::from_utf8(command).ok()?;
    let mut field = || {
        let (length, tail) = rest.split_once(':')?;
        let (text, tail) = tail.split_at_checked(length.parse().ok()?)?;
        rest = tail.strip_prefix(',')?;
        Some(text)
    };
    let (_kind, origin, key) = (field()?, field()?, field()?);
    Some((origin.parse().ok()?, key))
}

impl StateMachine for Machine {
    fn apply(&mut self, index: Index, command: &[u8]) -> Bytes {
        let response = self.map.apply(index, command);
        let (op, holds) = match parse(command) {
            Some((op, key)) => (op, writer_of(self.map.get(key))),
            None => (u64::MAX, None),
        };
        self.digest = mix(mix(mix(self.digest, index.0), op), holds.unwrap_or(u64::MAX));
        self.last = index.0;
        self.news.borrow_mut().push(Applied { index: index.0, op, holds, digest: self.digest });
        response
    }

    fn query(&self, query: &[u8]) -> Bytes {
        self.map.query(query)
    }

    fn recall(&self, command: &[u8], proposed_at: Index) -> Recall {
        self.map.recall(command, proposed_at)
    }

    fn snapshot(&self) -> Bytes {
        let mut out = Vec::new();
        out.extend_from_slice(&self.last.to_le_bytes());
        out.extend_from_slice(&self.digest.to_le_bytes());
        out.extend_from_slice(&self.map.snapshot());
        out.into()
    }

    fn restore(snapshot: &[u8]) -> Result<Machine, InvalidSnapshot> {
        let word = |at: usize| {
            let bytes = snapshot.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u64::from_le_bytes).ok_or_else(|| InvalidSnapshot("cut short".to_owned()))
        };
        let (last, digest) = (word(0)?, word(8)?);
        let map = Map::restore(&snapshot[16..])?;
        Ok(Machine { map, last, digest, news: RefCell::default() })
    }
}

/// The query for a key.
pub(crate) fn query_of(key: &str) -> Bytes {
    Query::Get { key: key.to_owned() }.encode()
}

/// The command of an operation. Its number is the origin, so that a second try changes nothing.
pub(crate) fn command_of(op: u64, key: &str, bytes: usize) -> Bytes {
    Command::Put { origin: op.to_string(), key: key.to_owned(), value: value_of(op, bytes) }.encode()
}
