//! The state of the LAN protocol: a map of text, and the origins of the latest commands.

mod command;

use std::collections::{BTreeMap, VecDeque};

use bowline_node::raft::Index;
use bowline_node::{InvalidSnapshot, Recall, StateMachine};
use bytes::Bytes;

use command::{Reader, write_field};

pub use command::{Command, CommandError, MAX_FIELD_BYTES};

/// How many of the latest commands the state remembers, to apply each only once.
pub const REMEMBERED: usize = 8192;

/// First field of a snapshot: names the format.
const FORMAT: &str = "bowline-map-1";

/// A map of text keys to text values. An absent key reads as the empty string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map {
    values: BTreeMap<String, String>,
    /// Origins of the latest commands, with the indexes at which they were applied.
    applied: BTreeMap<String, Index>,
    /// The same, oldest first.
    order: VecDeque<(Index, String)>,
    /// Commands up to this index may be forgotten.
    forgotten_through: Index,
}

impl Map {
    /// The value of a key; empty if absent.
    #[must_use]
    pub fn get(&self, key: &str) -> &str {
        self.values.get(key).map_or("", String::as_str)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn remember(&mut self, origin: String, index: Index) {
        self.applied.insert(origin.clone(), index);
        self.order.push_back((index, origin));
        if self.order.len() > REMEMBERED
            && let Some((index, origin)) = self.order.pop_front()
        {
            self.applied.remove(&origin);
            self.forgotten_through = index;
        }
    }

    fn read_snapshot(bytes: &[u8]) -> Result<Map, CommandError> {
        let mut reader = Reader::new(bytes);
        let format = reader.field("format")?;
        if format != FORMAT {
            return Err(CommandError::UnknownKind(format.chars().take(20).collect()));
        }
        let mut map = Map { forgotten_through: Index(reader.number("forgotten_through")?), ..Map::default() };
        for _ in 0..reader.number("remembered")? {
            let index = Index(reader.number("index")?);
            map.remember(reader.field("origin")?.to_owned(), index);
        }
        for _ in 0..reader.number("keys")? {
            let key = reader.field("key")?.to_owned();
            map.values.insert(key, reader.field("value")?.to_owned());
        }
        reader.end()?;
        Ok(map)
    }
}

impl StateMachine for Map {
    fn apply(&mut self, index: Index, command: &[u8]) -> Bytes {
        // Every replica refuses the same bytes in the same way.
        if let Ok(Command::Put { origin, key, value }) = Command::decode(command)
            && !self.applied.contains_key(&origin)
        {
            self.values.insert(key, value);
            self.remember(origin, index);
        }
        Bytes::new()
    }

    fn recall(&self, command: &[u8], proposed_at: Index) -> Recall {
        match Command::decode(command) {
            Ok(Command::Put { origin, .. }) if self.applied.contains_key(&origin) => Recall::Applied(Bytes::new()),
            _ if self.forgotten_through < proposed_at => Recall::NotApplied,
            _ => Recall::Forgotten,
        }
    }

    fn snapshot(&self) -> Bytes {
        let mut out = Vec::new();
        write_field(&mut out, FORMAT);
        write_field(&mut out, &self.forgotten_through.to_string());
        write_field(&mut out, &self.order.len().to_string());
        for (index, origin) in &self.order {
            write_field(&mut out, &index.to_string());
            write_field(&mut out, origin);
        }
        write_field(&mut out, &self.values.len().to_string());
        for (key, value) in &self.values {
            write_field(&mut out, key);
            write_field(&mut out, value);
        }
        out.into()
    }

    fn restore(snapshot: &[u8]) -> Result<Map, InvalidSnapshot> {
        Map::read_snapshot(snapshot).map_err(|error| InvalidSnapshot(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(origin: &str, key: &str, value: &str) -> Bytes {
        Command::Put { origin: origin.to_owned(), key: key.to_owned(), value: value.to_owned() }.encode()
    }

    #[test]
    fn a_command_takes_effect_once() {
        let mut map = Map::default();
        map.apply(Index(1), &put("c/1", "k", "a"));
        map.apply(Index(2), &put("c/2", "k", "b"));
        map.apply(Index(3), &put("c/1", "k", "a"));
        assert_eq!(map.get("k"), "b");
        assert_eq!(map.get("other"), "");
    }

    #[test]
    fn it_knows_what_was_applied_until_it_must_forget() {
        let mut map = Map::default();
        for number in 1..=REMEMBERED as u64 + 1 {
            map.apply(Index(number), &put(&format!("c/{number}"), "k", "v"));
        }
        assert_eq!(map.recall(&put("c/2", "k", "v"), Index(2)), Recall::Applied(Bytes::new()));
        assert_eq!(map.recall(&put("c/1", "k", "v"), Index(1)), Recall::Forgotten);
        assert_eq!(map.recall(&put("d/1", "k", "v"), Index(5)), Recall::NotApplied);
    }

    #[test]
    fn nonsense_changes_nothing() {
        let mut map = Map::default();
        assert_eq!(map.apply(Index(1), b"nonsense"), Bytes::new());
        assert_eq!(map, Map::default());
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        let error = Map::restore(b"3:put,").expect_err("a command is no snapshot");
        assert_eq!(error.to_string(), "not a snapshot of this state machine: unknown kind \"put\"");
        let mut map = Map::default();
        map.apply(Index(1), &put("c/1", "k", "v"));
        let snapshot = map.snapshot();
        assert!((0..snapshot.len()).all(|end| Map::restore(&snapshot[..end]).is_err()));
    }

    proptest! {
        #[test]
        fn a_snapshot_holds_the_whole_state(puts in prop::collection::vec((".{0,3}", ".*", ".*"), 0..40)) {
            let mut map = Map::default();
            for (number, (origin, key, value)) in puts.iter().enumerate() {
                map.apply(Index(number as u64 + 1), &put(origin, key, value));
            }
            prop_assert_eq!(Map::restore(&map.snapshot()), Ok(map));
        }
    }
}
