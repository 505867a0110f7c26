//! The first part of a rewrite of the state's file: copies the state to a new file, in steps.

use std::fmt;

use bowline_kv::store::{Engine, EngineError, RedbEngine, Rewrite, RewriteError};
use bowline_storage::DiskError;

use crate::disk::StateDisk;
use crate::shared::Shared;
use crate::state_files::{NewFile, StateFiles};

/// Bytes of records that one step copies.
const STEP_BYTES: usize = 512 << 10;

/// Bytes after which the file is synced. A larger sync would delay those of the log.
const SYNC_BYTES: usize = 8 << 20;

/// Maximum bytes of changes of the state that may wait for the rewrite, which takes them in every step.
const WAITING_BYTES: usize = 64 << 20;

/// Remaining bytes at which the worker of the state finishes the rewrite.
const REST_BYTES: usize = 256 << 10;

/// Maximum number of rounds over the rest, if it does not get small.
const MOST_ROUNDS: u32 = 16;

/// Bytes to leave on the disk for others, especially for the log; twice as many must be free.
const SPARED_BYTES: usize = 8 << 20;

/// Why a rewrite was given up. Its file is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// The disk has no room for a second file.
    NoRoom,
    /// Any other reason.
    Because(String),
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GivenUp::NoRoom => f.write_str("the disk is too full for a second file"),
            GivenUp::Because(why) => f.write_str(why),
        }
    }
}

impl From<RewriteError> for GivenUp {
    fn from(error: RewriteError) -> GivenUp {
        GivenUp::Because(error.to_string())
    }
}

impl From<EngineError> for GivenUp {
    fn from(error: EngineError) -> GivenUp {
        GivenUp::Because(error.to_string())
    }
}

impl From<DiskError> for GivenUp {
    fn from(error: DiskError) -> GivenUp {
        GivenUp::Because(error.to_string())
    }
}

/// A rewrite of the state to a new file.
#[derive(Debug)]
pub(crate) struct Rewriting<D: StateDisk> {
    rewrite: Rewrite<RedbEngine>,
    /// Declared after the rewrite, so that the engine is dropped before its file.
    file: NewFile<D>,
    unsynced: usize,
    /// How often the copying was complete.
    rounds: u32,
}

impl<D: StateDisk> Rewriting<D> {
    /// Begins.
    ///
    /// # Errors
    /// It can't begin now; no file is left.
    pub(crate) fn begin(files: &mut StateFiles<D>, shared: &Shared<D>) -> Result<Rewriting<D>, GivenUp> {
        let file = files.new_file()?;
        let engine = files.engine(file.path())?;
        // `has_room` wants twice the bytes to be free.
        if !engine.has_room(shared.facts().db_size_in_use / 2 + SPARED_BYTES as u64) {
            return Err(GivenUp::NoRoom);
        }
        let rewrite = shared.read().begin_rewrite(engine, WAITING_BYTES)?;
        Ok(Rewriting { rewrite, file, unsynced: 0, rounds: 0 })
    }

    /// Does one step. Returns whether the worker of the state may do the rest.
    ///
    /// # Errors
    /// It is given up.
    pub(crate) fn step(&mut self, shared: &Shared<D>) -> Result<bool, GivenUp> {
        self.try_step(shared).inspect_err(|_| shared.read().forget_rewrite())
    }

    fn try_step(&mut self, shared: &Shared<D>) -> Result<bool, GivenUp> {
        let part = shared.read().rewrite_part()?;
        let waited = part.waited();
        if !self.rewrite.has_room((waited + STEP_BYTES + SPARED_BYTES) as u64) {
            return Err(GivenUp::NoRoom);
        }
        let copied = self.rewrite.step(&part, STEP_BYTES)?;
        drop(part);
        self.unsynced += waited + STEP_BYTES;
        if copied || self.unsynced >= SYNC_BYTES {
            self.rewrite.sync()?;
            self.unsynced = 0;
        }
        self.rounds += u32::from(copied);
        // In the first round, many changes may have come during a long sync.
        Ok(self.rounds > 1 && waited <= REST_BYTES || self.rounds >= MOST_ROUNDS)
    }

    /// The rewrite and its file.
    pub(crate) fn into_parts(self) -> (Rewrite<RedbEngine>, NewFile<D>) {
        (self.rewrite, self.file)
    }
}
