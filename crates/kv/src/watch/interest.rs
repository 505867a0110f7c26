//! Who watches which keys.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use super::event::{End, KeyRange};
use super::intervals::IntervalTree;

/// Watchers by what they watch. Most watch one key, which a hash finds; the others watch a range.
#[derive(Debug)]
pub(crate) struct Interest<W> {
    /// Only looked up, never iterated over: its order is not the same in two processes.
    keys: HashMap<Bytes, BTreeSet<W>>,
    ranges: IntervalTree<W>,
}

impl<W: Copy + Ord> Interest<W> {
    /// Nobody watches anything. The seed is for the tree of ranges.
    pub(crate) fn new(seed: u64) -> Interest<W> {
        Interest { keys: HashMap::new(), ranges: IntervalTree::new(seed) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.len() == 0
    }

    /// Adds a watcher, which must not be there.
    pub(crate) fn insert(&mut self, range: &KeyRange, watcher: W) {
        match &range.end {
            End::Single => {
                self.keys.entry(range.start.clone()).or_default().insert(watcher);
            }
            End::Before(end) => self.ranges.insert(range.start.clone(), Some(end.clone()), watcher),
            End::Unbounded => self.ranges.insert(range.start.clone(), None, watcher),
        }
    }

    /// Removes a watcher with the range that it was added with.
    pub(crate) fn remove(&mut self, range: &KeyRange, watcher: W) {
        if range.end != End::Single {
            self.ranges.remove(&range.start, watcher);
            return;
        }
        let Some(watchers) = self.keys.get_mut(&range.start) else { return };
        watchers.remove(&watcher);
        if watchers.is_empty() {
            self.keys.remove(&range.start);
        }
    }

    /// Calls `found` with each watcher of a key.
    pub(crate) fn find(&self, key: &[u8], found: &mut dyn FnMut(W)) {
        self.keys.get(key).into_iter().flatten().for_each(|watcher| found(*watcher));
        self.ranges.find(key, found);
    }
}
