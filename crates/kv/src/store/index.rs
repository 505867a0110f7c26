//! The index in memory: the revisions of each key.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use super::engine::{EngineError, Revision};
use super::record::Record;
use super::types::KeyValue;

/// One write of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) at: Revision,
    /// As in [`KeyValue`](super::KeyValue); 0 for a deletion.
    pub(crate) create_revision: i64,
    /// As in [`KeyValue`](super::KeyValue); 0 for a deletion.
    pub(crate) version: i64,
}

impl Version {
    pub(crate) fn tombstone(at: Revision) -> Version {
        Version { at, create_revision: 0, version: 0 }
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.version == 0
    }

    /// The content of a record (for a tombstone, only the key), and its version.
    pub(crate) fn of(at: Revision, record: &Record) -> Result<(KeyValue, Version), EngineError> {
        let kv = record.key_value()?;
        let version = if record.is_tombstone() {
            Version::tombstone(at)
        } else {
            Version { at, create_revision: kv.create_revision, version: kv.version }
        };
        Ok((kv, version))
    }
}

/// The writes of a key, oldest first. Each holds everything that a reader at its revision needs, so, unlike in etcd,
/// there are no generations. Compactions remove writes at the front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History(VecDeque<Version>);

impl History {
    /// The newest write up to a revision; it may be a deletion.
    pub(crate) fn newest(&self, up_to: i64) -> Option<&Version> {
        // Almost every read wants the latest version.
        let last = self.0.back()?;
        if last.at.main <= up_to {
            return Some(last);
        }
        self.0.partition_point(|version| version.at.main <= up_to).checked_sub(1).map(|place| &self.0[place])
    }

    /// What a reader at a revision sees.
    pub(crate) fn visible(&self, at: i64) -> Option<&Version> {
        self.newest(at).filter(|version| !version.is_tombstone())
    }

    /// The write before the one at a revision.
    pub(crate) fn before(&self, at: Revision) -> Option<&Version> {
        self.0.partition_point(|version| version.at < at).checked_sub(1).map(|place| &self.0[place])
    }
}

/// Builds an index from writes in the order of their revisions. Sorting them at the end takes
/// half as long as inserting each into the index.
#[derive(Default)]
pub(crate) struct IndexBuilder(Vec<(Box<[u8]>, Version)>);

impl IndexBuilder {
    pub(crate) fn push(&mut self, key: Box<[u8]>, version: Version) {
        self.0.push((key, version));
    }

    pub(crate) fn build(mut self) -> KeyIndex {
        // Stable: the writes of a key stay in order.
        self.0.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut histories: Vec<(Box<[u8]>, History)> = Vec::new();
        let mut live = 0;
        for (key, version) in self.0 {
            match histories.last_mut() {
                Some((last, history)) if *last == key => history.0.push_back(version),
                _ => histories.push((key, History(VecDeque::from([version])))),
            }
        }
        for (_, history) in &histories {
            live += u64::from(history.visible(i64::MAX).is_some());
        }
        KeyIndex { keys: histories.into_iter().collect(), live }
    }
}

/// Every key with its history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyIndex {
    keys: BTreeMap<Box<[u8]>, History>,
    /// How many of the keys exist now.
    live: u64,
}

impl KeyIndex {
    /// How many keys exist now.
    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&History> {
        self.keys.get(key)
    }

    /// The keys of a range that have a history, in order. `range_end` is as in a request.
    pub(crate) fn range<'a>(
        &'a self,
        key: &'a [u8],
        range_end: &'a [u8],
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a History)> {
        let bounds = match range_end {
            [] => Some((Bound::Included(key), Bound::Included(key))),
            [0] => Some((Bound::Included(key), Bound::Unbounded)),
            // With such bounds, the map would panic.
            _ if range_end <= key => None,
            _ => Some((Bound::Included(key), Bound::Excluded(range_end))),
        };
        bounds
            .into_iter()
            .flat_map(|bounds| self.keys.range::<[u8], _>(bounds))
            .map(|(key, history)| (key.as_ref(), history))
    }

    /// Adds a put as the latest write of a key, and returns its version, which continues the key's history.
    pub(crate) fn put(&mut self, key: &[u8], at: Revision) -> Version {
        let created = Version { at, create_revision: at.main, version: 1 };
        let Some(history) = self.keys.get_mut(key) else {
            self.keys.insert(key.into(), History(VecDeque::from([created])));
            self.live += 1;
            return created;
        };
        let version = match history.0.back().filter(|last| !last.is_tombstone()) {
            Some(last) => Version { at, create_revision: last.create_revision, version: last.version + 1 },
            None => created,
        };
        self.live += u64::from(version.version == 1);
        history.0.push_back(version);
        version
    }

    /// Adds a deletion as the latest write of an existing key.
    pub(crate) fn delete(&mut self, key: &[u8], at: Revision) {
        let history = self.keys.get_mut(key).expect("a key that is there has a history");
        history.0.push_back(Version::tombstone(at));
        self.live -= 1;
    }

    /// Removes the latest write of a key again.
    pub(crate) fn pop(&mut self, key: &[u8]) {
        let Some(history) = self.keys.get_mut(key) else { return };
        let was_live = history.0.pop_back().is_some_and(|last| !last.is_tombstone());
        let is_live = history.0.back().is_some_and(|last| !last.is_tombstone());
        match (was_live, is_live) {
            (false, true) => self.live += 1,
            (true, false) => self.live -= 1,
            _ => {}
        }
        if history.0.is_empty() {
            self.keys.remove(key);
        }
    }

    /// Forgets the writes of a key before `before`, and calls `tell` for each. The caller knows that a later write
    /// stays, or that the last forgotten one is a deletion.
    pub(crate) fn forget(&mut self, key: &[u8], before: Revision, mut tell: impl FnMut(Revision)) {
        let Some(history) = self.keys.get_mut(key) else { return };
        while let Some(oldest) = history.0.pop_front_if(|oldest| oldest.at < before) {
            tell(oldest.at);
        }
        if history.0.is_empty() {
            self.keys.remove(key);
        }
    }

    /// Whether any key exists at a revision.
    pub(crate) fn any_visible(&self, at: i64) -> bool {
        self.keys.values().any(|history| history.visible(at).is_some())
    }
}
