//! Moving to another engine while the store goes on: how the space that a file has grown by is given back.
//!
//! Records never change: they are added behind all others, or removed. So the new engine gets, in steps, the
//! records that were there at the beginning, each step from a fresh view, and every batch that the old engine has
//! got since, in their order. A view shows all batches that were noted before it: what one of them removed
//! is not copied after it. No view is held for long, so the old engine does not grow.
//!
//! The new engine has no note before all is copied, and no label before [`Store::finish_rewrite`]: until then it
//! is nothing.

use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::Store;
use super::engine::{Batch, Engine, EngineError, EngineSize, Records, Revision};
use super::leases::LeaseChange;
use super::record::Record;

/// What a batch that is noted takes beyond its records, each of them, and each of its deletions, in bytes.
const OVERHEAD_BYTES: usize = 64;

/// Why a rewrite comes to nothing. The store is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// The store is another one than at the beginning, or was told to forget it.
    #[error("another state has taken its place meanwhile")]
    Cancelled,
    /// The bound on what may wait was reached.
    #[error("more was written meanwhile than may wait for it")]
    TooMuch,
    /// The new engine does not hold what the old one does.
    #[error("the new engine does not hold what the old one does")]
    Different,
    /// One of the engines failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A batch that the old engine has got.
#[derive(Debug)]
struct Change {
    puts: Vec<(Revision, Record)>,
    deletes: Vec<Revision>,
    leases: Vec<LeaseChange>,
    meta: Bytes,
}

/// What the old engine gets while there is a rewrite.
#[derive(Debug, Default)]
pub(super) struct Tee(Mutex<Noted>);

#[derive(Debug, Default)]
enum Noted {
    /// There is no rewrite.
    #[default]
    Nothing,
    /// Since the last part was taken.
    Changes { changes: Vec<Change>, bytes: usize, bound: usize },
    /// More than the bound.
    TooMuch,
}

impl Tee {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        // Every change is complete before the lock is given back, panic or not.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, bound: usize) {
        *self.noted() = Noted::Changes { changes: Vec::new(), bytes: 0, bound };
    }

    /// A batch that the engine has taken.
    pub(super) fn note(&self, batch: &Batch<'_>, meta: &Bytes) {
        let mut noted = self.noted();
        let Noted::Changes { changes, bytes, bound } = &mut *noted else { return };
        let records: usize = batch.puts.iter().map(|(_, record)| record.stored().len() + OVERHEAD_BYTES).sum();
        *bytes += records + (batch.deletes.len() + batch.leases.len() + 1) * OVERHEAD_BYTES;
        if *bytes > *bound {
            *noted = Noted::TooMuch;
            return;
        }
        changes.push(Change {
            puts: batch.puts.to_vec(),
            deletes: batch.deletes.to_vec(),
            leases: batch.leases.to_vec(),
            meta: meta.clone(),
        });
    }

    fn take(&self) -> Result<Vec<Change>, RewriteError> {
        match &mut *self.noted() {
            Noted::Nothing => Err(RewriteError::Cancelled),
            Noted::TooMuch => Err(RewriteError::TooMuch),
            Noted::Changes { changes, bytes, .. } => {
                *bytes = 0;
                Ok(std::mem::take(changes))
            }
        }
    }
}

/// What a step of a rewrite needs of the store.
pub struct Part<V> {
    /// What the old engine has got since the part before.
    changes: Vec<Change>,
    /// What it holds now, all of that included.
    view: V,
}

impl<V> Part<V> {
    /// How much was written since the part before, in bytes, about.
    #[must_use]
    pub fn waited(&self) -> usize {
        let records = self.changes.iter().flat_map(|change| &change.puts);
        records.map(|(_, record)| record.stored().len()).sum()
    }
}

/// An engine that is to take the place of a store's. It does not need the store between two steps.
#[derive(Debug)]
pub struct Rewrite<E> {
    engine: E,
    /// Where the copying goes on; `None`: all is copied.
    cursor: Option<Revision>,
    /// Whether the leases are copied: all at once, with the first records.
    leases_copied: bool,
    /// Behind what was there at the beginning.
    until: Revision,
    /// The store's note, as of the last part.
    meta: Bytes,
}

/// An engine that holds what a store's does, durably.
#[derive(Debug)]
pub struct Rewritten<E>(E);

impl<E: Engine> Rewrite<E> {
    /// Writes what has changed since the last step, then copies so many bytes of records, at least one record. Says
    /// whether all is copied.
    ///
    /// # Errors
    /// One of the engines failed.
    pub fn step(&mut self, part: &Part<E::View>, bytes: usize) -> Result<bool, EngineError> {
        for change in &part.changes {
            self.meta = change.meta.clone();
            let (puts, deletes, leases) = (&change.puts[..], &change.deletes[..], &change.leases[..]);
            self.engine.write(&Batch { puts, deletes, leases, meta: self.note(), ..Batch::default() })?;
        }
        let Some(cursor) = self.cursor else { return Ok(true) };
        let (mut records, mut copied) = (Vec::new(), 0);
        part.view.scan(cursor, self.until, &mut |at, record| {
            copied += record.stored().len();
            records.push((at, record));
            if copied >= bytes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        self.cursor = records.last().filter(|_| copied >= bytes).map(|(at, _)| at.next());
        // What has changed until now is in the view, too.
        let leases = if std::mem::replace(&mut self.leases_copied, true) { Vec::new() } else { part.view.leases()? };
        let leases: Vec<LeaseChange> = leases.into_iter().map(LeaseChange::Granted).collect();
        self.engine.write(&Batch { puts: &records, leases: &leases, meta: self.note(), ..Batch::default() })?;
        Ok(self.cursor.is_none())
    }

    /// Makes what it holds durable, so that little is left for the end.
    ///
    /// # Errors
    /// The new engine failed.
    pub fn sync(&mut self) -> Result<(), EngineError> {
        self.engine.checkpoint(None)
    }

    /// Whether the new engine has room for so many bytes.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        self.engine.has_room(bytes)
    }

    /// How large the new engine is.
    #[must_use]
    pub fn size(&self) -> EngineSize {
        self.engine.size()
    }

    fn note(&self) -> Bytes {
        if self.cursor.is_none() { self.meta.clone() } else { Bytes::new() }
    }
}

impl<E: Engine> Store<E> {
    /// Begins to move to another engine, of which nothing is kept. From now on what the store's own gets is noted,
    /// up to `bound` bytes between two parts. An earlier rewrite is forgotten.
    ///
    /// # Errors
    /// The new engine failed, or there is a [`Store::fault`].
    pub fn begin_rewrite(&self, mut engine: E, bound: usize) -> Result<Rewrite<E>, EngineError> {
        self.check_fault()?;
        engine.write(&Batch { clear: true, ..Batch::default() })?;
        self.tee.begin(bound);
        let until = Revision::start_of(self.flushed.revision.saturating_add(1));
        let (cursor, meta) = (Some(Revision::default()), self.flushed.encode());
        Ok(Rewrite { engine, cursor, leases_copied: false, until, meta })
    }

    /// What the next step of the rewrite needs.
    ///
    /// # Errors
    /// The rewrite comes to nothing: see [`RewriteError`].
    pub fn rewrite_part(&self) -> Result<Part<E::View>, RewriteError> {
        self.check_fault()?;
        // Nothing is written between the two: that needs the store for itself.
        let changes = self.tee.take()?;
        Ok(Part { changes, view: self.engine.view()? })
    }

    /// Nothing is noted any more: a rewrite comes to nothing.
    pub fn forget_rewrite(&self) {
        *self.tee.noted() = Noted::Nothing;
    }

    /// Writes all that is left to the new engine, and makes it durable with the label of the old one: from now on a
    /// start may find either.
    ///
    /// # Errors
    /// The rewrite comes to nothing: see [`RewriteError`].
    pub fn finish_rewrite(&self, mut rewrite: Rewrite<E>) -> Result<Rewritten<E>, RewriteError> {
        let part = self.rewrite_part()?;
        rewrite.step(&part, usize::MAX)?;
        let same = |new: &E, old: &E| -> Result<bool, EngineError> {
            Ok(new.meta()? == old.meta()? && new.size().in_use == old.size().in_use)
        };
        if !same(&rewrite.engine, &self.engine)? {
            return Err(RewriteError::Different);
        }
        rewrite.engine.checkpoint(Some(&self.engine.label()?))?;
        Ok(Rewritten(rewrite.engine))
    }

    /// Goes on with the new engine, and gives the old one back. Views of that stay as they are.
    ///
    /// # Panics
    /// Something was written since [`Store::finish_rewrite`].
    pub fn move_to(&mut self, rewritten: Rewritten<E>) -> E {
        let noted = std::mem::take(&mut *self.tee.noted());
        let nothing = matches!(&noted, Noted::Changes { changes, .. } if changes.is_empty());
        assert!(nothing, "nothing is written between the end of a rewrite and the move");
        std::mem::replace(&mut self.engine, rewritten.0)
    }
}
