//! Copying to a new engine while the store is in use, to free the space that a file has grown by.
//!
//! Records never change: they are added after all others, or removed. So the new engine gets two things, in
//! steps: the records that existed at the beginning, each step from a fresh view; and every batch that the old engine
//! has taken since, in order. A view includes all batches that were noted before it, so a record that one of them
//! removed is not copied later. No view is kept for long, so the old engine does not grow.
//!
//! The new engine has no note until everything is copied, and no label until [`Store::finish_rewrite`]: until then
//! a start ignores it.

use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::Store;
use super::engine::{Batch, Engine, EngineError, EngineSize, Records, Revision};
use super::leases::LeaseChange;
use super::record::Record;

/// Bytes of overhead for a noted batch, and for each of its records, deletions and lease changes.
const OVERHEAD_BYTES: usize = 64;

/// Why a rewrite failed. The store is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// The store was replaced since the beginning, or was told to forget the rewrite.
    #[error("the state was replaced meanwhile")]
    Cancelled,
    /// More was written between two steps than may wait.
    #[error("too much was written meanwhile")]
    TooMuch,
    /// The new engine does not hold what the old one does.
    #[error("the new engine does not hold what the old one does")]
    Different,
    /// One of the engines failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A batch that the old engine has taken.
#[derive(Debug)]
struct Change {
    puts: Vec<(Revision, Record)>,
    deletes: Vec<Revision>,
    leases: Vec<LeaseChange>,
    meta: Bytes,
}

/// Notes the old engine's batches during a rewrite.
#[derive(Debug, Default)]
pub(super) struct Tee(Mutex<Noted>);

#[derive(Debug, Default)]
enum Noted {
    /// There is no rewrite.
    #[default]
    Nothing,
    /// The batches since the last part was taken.
    Changes { changes: Vec<Change>, bytes: usize, bound: usize },
    /// More than the bound.
    TooMuch,
}

impl Tee {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        // A poisoned lock is fine: every change is complete before the lock is released.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, bound: usize) {
        *self.noted() = Noted::Changes { changes: Vec::new(), bytes: 0, bound };
    }

    /// Notes a batch that the engine has taken.
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

/// What a step of a rewrite needs from the store.
pub struct Part<V> {
    /// The batches that the old engine has taken since the previous part.
    changes: Vec<Change>,
    /// The old engine's present state, with these batches.
    view: V,
}

impl<V> Part<V> {
    /// About how many bytes were written since the previous part.
    #[must_use]
    pub fn waited(&self) -> usize {
        let records = self.changes.iter().flat_map(|change| &change.puts);
        records.map(|(_, record)| record.stored().len()).sum()
    }
}

/// A rewrite under way, with the new engine. It does not need the store between two steps.
#[derive(Debug)]
pub struct Rewrite<E> {
    engine: E,
    /// The next record to copy; `None` if all are copied.
    cursor: Option<Revision>,
    /// Whether the leases are copied: all at once, with the first records.
    leases_copied: bool,
    /// The end of the records that existed at the beginning.
    until: Revision,
    /// The store's note, as of the last part.
    meta: Bytes,
}

/// A new engine that durably holds the same as the store's.
#[derive(Debug)]
pub struct Rewritten<E>(E);

impl<E: Engine> Rewrite<E> {
    /// Writes the changes since the last step, then copies about `bytes` of records, at least one record. Returns
    /// whether everything is copied.
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
        // The view includes all lease changes up to now.
        let leases = if std::mem::replace(&mut self.leases_copied, true) { Vec::new() } else { part.view.leases()? };
        let leases: Vec<LeaseChange> = leases.into_iter().map(LeaseChange::Granted).collect();
        self.engine.write(&Batch { puts: &records, leases: &leases, meta: self.note(), ..Batch::default() })?;
        Ok(self.cursor.is_none())
    }

    /// Makes the copied data durable, so that [`Store::finish_rewrite`] has little to do.
    ///
    /// # Errors
    /// The new engine failed.
    pub fn sync(&mut self) -> Result<(), EngineError> {
        self.engine.checkpoint(None)
    }

    /// Whether the new engine has room for this many bytes.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        self.engine.has_room(bytes)
    }

    /// The size of the new engine.
    #[must_use]
    pub fn size(&self) -> EngineSize {
        self.engine.size()
    }

    fn note(&self) -> Bytes {
        if self.cursor.is_none() { self.meta.clone() } else { Bytes::new() }
    }
}

impl<E: Engine> Store<E> {
    /// Begins to move to another engine, whose content is cleared. From now on the batches of the store's own engine
    /// are noted, up to `bound` bytes between two parts. An earlier rewrite is forgotten.
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

    /// Returns what the next step of the rewrite needs.
    ///
    /// # Errors
    /// The rewrite failed: see [`RewriteError`].
    pub fn rewrite_part(&self) -> Result<Part<E::View>, RewriteError> {
        self.check_fault()?;
        // No write can come between the two: writes need `&mut self`.
        let changes = self.tee.take()?;
        Ok(Part { changes, view: self.engine.view()? })
    }

    /// Whether batches are noted for a rewrite.
    #[must_use]
    pub fn is_rewriting(&self) -> bool {
        !matches!(*self.tee.noted(), Noted::Nothing)
    }

    /// Stops noting batches, which cancels a rewrite.
    pub fn forget_rewrite(&self) {
        *self.tee.noted() = Noted::Nothing;
    }

    /// Copies the rest to the new engine, and makes it durable with the label of the old one: from now on a
    /// start may use either.
    ///
    /// # Errors
    /// The rewrite failed: see [`RewriteError`].
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

    /// Switches to the new engine, and returns the old one. Views of the old engine stay valid.
    ///
    /// # Panics
    /// Something was written after [`Store::finish_rewrite`].
    pub fn move_to(&mut self, rewritten: Rewritten<E>) -> E {
        let noted = std::mem::take(&mut *self.tee.noted());
        let nothing = matches!(&noted, Noted::Changes { changes, .. } if changes.is_empty());
        assert!(nothing, "nothing is written between the end of a rewrite and the move");
        std::mem::replace(&mut self.engine, rewritten.0)
    }
}
