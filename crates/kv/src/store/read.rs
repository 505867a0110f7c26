//! What a range shows: the store as one reader sees it.

use std::cell::OnceCell;
use std::cmp::Ordering;

use super::KvError;
use super::engine::{Engine, EngineError, Records, Revision};
use super::index::{KeyIndex, Version};
use super::leases::LeaseBook;
use super::record::Record;
use super::types::{KeyValue, RangeRequest, RangeResponse, SortOrder, SortTarget};

/// Why a request was not done: refused, alike on every replica, or this replica's engine is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Refused(KvError),
    Broken(EngineError),
}

impl From<KvError> for Failure {
    fn from(error: KvError) -> Failure {
        Failure::Refused(error)
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Failure {
        Failure::Broken(error)
    }
}

/// The store at one moment, within a transaction perhaps.
pub(crate) struct View<'a, E: Engine> {
    pub(crate) index: &'a KeyIndex,
    pub(crate) book: &'a LeaseBook,
    pub(crate) engine: &'a E,
    /// Made when the first record is needed: most writes need none.
    pub(crate) reader: OnceCell<E::Reader<'a>>,
    /// Applied, but not in the engine yet.
    pub(crate) pending: &'a [(Revision, Record)],
    /// Writes of the transaction that is under way: their sub-revisions are their places here.
    pub(crate) staged: &'a [Record],
    /// The store's revision before that transaction.
    pub(crate) base: i64,
    /// The oldest readable revision.
    pub(crate) compacted: i64,
}

impl<E: Engine> View<'_, E> {
    /// The latest revision that is seen here.
    pub(crate) fn revision(&self) -> i64 {
        if self.staged.is_empty() { self.base } else { self.base + 1 }
    }

    /// The value of a key now.
    pub(crate) fn current(&self, key: &[u8]) -> Result<Option<KeyValue>, EngineError> {
        let version = self.index.get(key).and_then(|history| history.visible(self.revision()));
        version.map(|version| self.load(version.at)).transpose()
    }

    /// The keys of a range that are there now.
    pub(crate) fn current_range<'b>(
        &'b self,
        key: &'b [u8],
        range_end: &'b [u8],
    ) -> impl Iterator<Item = (&'b [u8], &'b Version)> {
        let now = self.revision();
        self.index.range(key, range_end).filter_map(move |(key, history)| Some((key, history.visible(now)?)))
    }

    /// The value that was written at a revision.
    pub(crate) fn load(&self, at: Revision) -> Result<KeyValue, EngineError> {
        match self.record(at)? {
            Some(record) => record.key_value(),
            None => Err(EngineError::new("find a record", format!("nothing is at revision {}/{}", at.main, at.sub))),
        }
    }

    fn record(&self, at: Revision) -> Result<Option<Record>, EngineError> {
        if at.main > self.base {
            return Ok(self.staged.get(at.sub as usize).cloned());
        }
        if self.pending.first().is_some_and(|(first, _)| *first <= at) {
            let place = self.pending.binary_search_by_key(&at, |(at, _)| *at);
            return Ok(place.ok().map(|place| self.pending[place].1.clone()));
        }
        match self.reader.get() {
            Some(reader) => reader.get(at),
            None => {
                let reader = self.engine.reader()?;
                self.reader.get_or_init(|| reader).get(at)
            }
        }
    }

    /// Answers a range.
    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Failure> {
        let revision = self.revision();
        if request.revision > revision {
            return Err(KvError::FutureRevision.into());
        }
        let at = if request.revision <= 0 { revision } else { request.revision };
        if at < self.compacted {
            return Err(KvError::Compacted.into());
        }
        // An order has to see all before a limit may cut; where none is asked for, the limit stops the reading,
        // and one more key tells whether there is more. So does etcd, even where a target without an order then
        // sorts, ascending, what was read.
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        let enough = match limit {
            _ if request.count_only => 0,
            Some(limit) if request.sort_order == SortOrder::None && !request.is_filtered() => limit.saturating_add(1),
            _ => usize::MAX,
        };
        let mut found = Vec::new();
        let mut count = 0;
        for (_, history) in self.index.range(&request.key, &request.range_end) {
            let Some(version) = history.visible(at) else { continue };
            count += 1;
            if found.len() < enough && request.admits(version) {
                found.push(version.at);
            }
        }
        let mut kvs = found.into_iter().map(|at| self.load(at)).collect::<Result<Vec<_>, _>>()?;
        request.sort(&mut kvs);
        let more = limit.is_some_and(|limit| kvs.len() > limit);
        kvs.truncate(limit.unwrap_or(usize::MAX));
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        Ok(RangeResponse { revision, kvs, more, count })
    }
}

impl RangeRequest {
    /// Whether it leaves something out by its revisions.
    fn is_filtered(&self) -> bool {
        [self.min_mod_revision, self.max_mod_revision, self.min_create_revision, self.max_create_revision]
            .iter()
            .any(|bound| *bound != 0)
    }

    fn admits(&self, version: &Version) -> bool {
        let within = |revision: i64, min: i64, max: i64| (min == 0 || revision >= min) && (max == 0 || revision <= max);
        within(version.at.main, self.min_mod_revision, self.max_mod_revision)
            && within(version.create_revision, self.min_create_revision, self.max_create_revision)
    }

    /// What is equal stays in the order of the keys.
    fn sort(&self, kvs: &mut [KeyValue]) {
        let compare = |one: &KeyValue, other: &KeyValue| -> Ordering {
            match self.sort_target {
                SortTarget::Key => one.key.cmp(&other.key),
                SortTarget::Version => one.version.cmp(&other.version),
                SortTarget::Create => one.create_revision.cmp(&other.create_revision),
                SortTarget::Mod => one.mod_revision.cmp(&other.mod_revision),
                SortTarget::Value => one.value.cmp(&other.value),
            }
        };
        match self.sort_order {
            SortOrder::Descend => kvs.sort_by(|one, other| compare(other, one)),
            _ if self.sort_target == SortTarget::Key => {}
            _ => kvs.sort_by(compare),
        }
    }
}
