//! The history as watchers read it: by revision.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::engine::{Engine, EngineError, Revision};
use super::types::KeyValue;
use super::{AuthBook, Record, Store};
use crate::watch::{Event, History, Portion, PortionLimits};

impl<E: Engine> Store<E> {
    /// From now on, [`Store::take_writes`] returns the writes.
    pub fn note_writes(&mut self) {
        self.noted.get_or_insert_default();
    }

    /// The writes since the last call, in order; none if they are not noted.
    pub fn take_writes(&mut self) -> Vec<(Revision, Record)> {
        self.noted.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl<E: Engine> History for Store<E> {
    fn revision(&self) -> i64 {
        Store::revision(self)
    }

    fn compacted_revision(&self) -> i64 {
        Store::compacted_revision(self)
    }

    fn auth(&self) -> Arc<AuthBook> {
        Arc::clone(Store::auth(self))
    }

    fn events(
        &self,
        from: i64,
        limits: &PortionLimits,
        watchers: &mut dyn FnMut(&[u8]) -> usize,
    ) -> Result<Portion, EngineError> {
        let mut portion = Portion { events: Vec::new(), through: self.meta.revision };
        let (mut records, mut revisions, mut bytes) = (0, 0, 0);
        // The revision of the last record, and whether it has an event.
        let (mut current, mut counted) = (from - 1, false);
        let mut failed = None;
        let until = Revision::start_of(self.meta.revision + 1);
        let outcome = self.scan(Revision::start_of(from), until, &mut |at, record| {
            if at.main > current {
                if revisions >= limits.revisions || records >= limits.records || bytes >= limits.bytes {
                    portion.through = current;
                    return ControlFlow::Break(());
                }
                (current, counted) = (at.main, false);
            }
            records += 1;
            match Event::of(at, &record) {
                Ok(event) => {
                    let count = watchers(&event.kv.key);
                    if count > 0 {
                        revisions += usize::from(!counted);
                        counted = true;
                        bytes += event.size() * count;
                        portion.events.push(event);
                    }
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        self.watch(outcome.and_then(|()| failed.map_or(Ok(portion), Err)))
    }

    fn before(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, EngineError> {
        let at = revision - 1;
        if at < self.meta.compacted {
            return Ok(None);
        }
        let view = self.view();
        let version = view.index.get(key).and_then(|history| history.visible(at));
        self.watch(version.map(|version| view.load(version.at)).transpose())
    }
}
