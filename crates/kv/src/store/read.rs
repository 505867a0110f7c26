//! Reads: the store as one reader sees it.

use std::cell::OnceCell;
use std::cmp::Ordering;

use super::KvError;
use super::engine::{Engine, EngineError, Records, Revision};
use super::index::{History, KeyIndex, Version};
use super::leases::LeaseBook;
use super::record::Record;
use super::types::{KeyValue, RangeRequest, RangeResponse, SortOrder, SortTarget};

/// Why a request failed: it was refused, as on every replica, or this replica's engine is broken.
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

/// The store at one moment, possibly within a transaction.
pub(crate) struct View<'a, E: Engine> {
    pub(crate) index: &'a KeyIndex,
    pub(crate) book: &'a LeaseBook,
    pub(crate) engine: &'a E,
    /// Created when the first record is needed: most writes need none.
    pub(crate) reader: OnceCell<E::Reader<'a>>,
    /// Applied, but not in the engine yet.
    pub(crate) pending: &'a [(Revision, Record)],
    /// Writes of the transaction under way; a write's sub-revision is its place in this list.
    pub(crate) staged: &'a [Record],
    /// The store's revision before that transaction.
    pub(crate) base: i64,
    /// The oldest readable revision.
    pub(crate) compacted: i64,
}

impl<E: Engine> View<'_, E> {
    /// The latest revision that is visible here.
    pub(crate) fn revision(&self) -> i64 {
        if self.staged.is_empty() { self.base } else { self.base + 1 }
    }

    /// The value of a key now.
    pub(crate) fn current(&self, key: &[u8]) -> Result<Option<KeyValue>, EngineError> {
        let version = self.index.get(key).and_then(|history| history.visible(self.revision()));
        version.map(|version| self.load(version.at)).transpose()
    }

    /// The keys of a range that exist now.
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
            None => Err(EngineError::new("find a record", format!("there is none at revision {}/{}", at.main, at.sub))),
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
        request.sorting()?;
        let revision = self.revision();
        if request.revision > revision {
            return Err(KvError::FutureRevision.into());
        }
        let at = if request.revision <= 0 { revision } else { request.revision };
        if at < self.compacted {
            return Err(KvError::Compacted.into());
        }
        let mut selection = Selection::of(request);
        let mut keys = self.index.range(&request.key, &request.range_end);
        let mut take = |(_, history): (&[u8], &History)| match history.visible(at) {
            Some(version) => selection.take(version, |at| self.load(at)),
            None => Ok(()),
        };
        if request.is_backwards() {
            keys.rev().try_for_each(&mut take)?
        } else {
            keys.try_for_each(&mut take)?
        }
        let (count, more) = (selection.count, selection.admitted > selection.limit);
        let mut kvs = selection.finish(|at| self.load(at))?;
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        Ok(RangeResponse { revision, kvs, more, count })
    }
}

/// Selects the keys that a range shows. The index knows everything that a range is sorted or filtered by, except
/// the values. So only the shown records are read, unless the range is sorted by value.
struct Selection<'a> {
    request: &'a RangeRequest,
    /// Most keys to show.
    limit: usize,
    /// How many keys the range holds.
    count: i64,
    /// How many of them satisfy the bounds on revisions.
    admitted: usize,
    /// Candidates for the result, not always sorted; never more than twice the limit.
    found: Vec<Found>,
}

struct Found {
    version: Version,
    /// The record, if the range is sorted by value.
    kv: Option<Box<KeyValue>>,
}

impl Found {
    fn value(&self) -> Option<&[u8]> {
        self.kv.as_ref().map(|kv| &kv.value[..])
    }
}

impl Selection<'_> {
    fn of(request: &RangeRequest) -> Selection<'_> {
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        Selection { request, limit, count: 0, admitted: 0, found: Vec::new() }
    }

    /// How many of the admitted keys to consider, from the first one on.
    fn enough(&self) -> usize {
        match self.request.sort_target() {
            SortTarget::Key => self.limit,
            // In this case etcd takes the first keys, one more than the limit, and sorts only those.
            _ if self.request.sort_order() == SortOrder::None && !self.request.is_filtered() => {
                self.limit.saturating_add(1)
            }
            _ => usize::MAX,
        }
    }

    /// Considers the next key of the range.
    fn take(
        &mut self,
        version: &Version,
        load: impl FnOnce(Revision) -> Result<KeyValue, EngineError>,
    ) -> Result<(), EngineError> {
        self.count += 1;
        if self.request.count_only || !self.request.admits(version) {
            return Ok(());
        }
        self.admitted += 1;
        if self.admitted > self.enough() {
            return Ok(());
        }
        let by_value = self.request.sort_target() == SortTarget::Value;
        let kv = if by_value { Some(Box::new(load(version.at)?)) } else { None };
        self.found.push(Found { version: *version, kv });
        if self.found.len() / 2 >= self.limit {
            self.cut();
        }
        Ok(())
    }

    fn cut(&mut self) {
        // The sort is stable: equal keys keep their order.
        self.found.sort_by(|one, other| self.request.compare(one, other));
        self.found.truncate(self.limit);
    }

    /// The result.
    fn finish(
        mut self,
        load: impl Fn(Revision) -> Result<KeyValue, EngineError>,
    ) -> Result<Vec<KeyValue>, EngineError> {
        self.cut();
        let shown = |Found { version, kv }: Found| kv.map_or_else(|| load(version.at), |kv| Ok(*kv));
        self.found.into_iter().map(shown).collect()
    }
}

impl RangeRequest {
    /// Whether it has bounds on revisions.
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

    /// Whether the keys are shown from the last to the first.
    fn is_backwards(&self) -> bool {
        self.sort_target() == SortTarget::Key && self.sort_order() == SortOrder::Descend
    }

    /// Which of two is shown first. A sort by key needs no comparison: the keys are visited in the right order.
    fn compare(&self, one: &Found, other: &Found) -> Ordering {
        let (version, rival) = (&one.version, &other.version);
        let ascending = match self.sort_target() {
            SortTarget::Key => Ordering::Equal,
            SortTarget::Version => version.version.cmp(&rival.version),
            SortTarget::Create => version.create_revision.cmp(&rival.create_revision),
            SortTarget::Mod => version.at.main.cmp(&rival.at.main),
            SortTarget::Value => one.value().cmp(&other.value()),
        };
        if self.sort_order() == SortOrder::Descend { ascending.reverse() } else { ascending }
    }
}
