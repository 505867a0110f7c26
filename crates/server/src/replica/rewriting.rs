//! Writing the state to a file of its own, in steps: the part of the snapshots' thread in giving space back.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use bowline_kv::store::{Engine, EngineError, RedbEngine, Rewrite, RewriteError};

use super::shared::Shared;
use crate::machine::KvMachine;
use crate::state_files::{NewFile, StateFiles};

/// Bytes of records that a step copies.
const STEP_BYTES: usize = 512 << 10;

/// What is written is synced when it is so much: a sync of much more would hold up that of the log.
const SYNC_BYTES: usize = 8 << 20;

/// What the state's file gets meanwhile may wait up to here, in bytes. It is asked for in every step.
const WAITING_BYTES: usize = 64 << 20;

/// If no more than this is left, the apply thread does it, in bytes.
const REST_BYTES: usize = 256 << 10;

/// How often the rest is written here at most, while it doesn't get small.
const MOST_ROUNDS: u32 = 16;

/// What is to be left for others on the disk, the log before all, in bytes; twice of it must be free.
const SPARED_BYTES: usize = 8 << 20;

/// Longest pause between two steps.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Why a rewrite came to nothing. Its file is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// The disk has no room for another file.
    NoRoom,
    /// Anything else, in words.
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

impl From<io::Error> for GivenUp {
    fn from(error: io::Error) -> GivenUp {
        GivenUp::Because(error.to_string())
    }
}

/// The state, on its way to another file.
#[derive(Debug)]
pub(crate) struct Rewriting {
    rewrite: Rewrite<RedbEngine>,
    /// After the engine in it.
    file: NewFile,
    unsynced: usize,
    /// How often all was written.
    rounds: u32,
    /// How long the last step took.
    took: Duration,
}

impl Rewriting {
    pub(crate) fn begin(files: &mut StateFiles, shared: &Shared) -> Result<Rewriting, GivenUp> {
        let file = files.new_file()?;
        let engine = KvMachine::make_engine(file.path())?;
        // Twice of what is asked for must be there.
        if !engine.has_room(shared.facts().db_size_in_use / 2 + SPARED_BYTES as u64) {
            return Err(GivenUp::NoRoom);
        }
        let rewrite = shared.read().begin_rewrite(engine, WAITING_BYTES)?;
        Ok(Rewriting { rewrite, file, unsynced: 0, rounds: 0, took: Duration::ZERO })
    }

    /// How long to leave others the disk before the next step.
    pub(crate) fn pause(&self) -> Duration {
        self.took.min(MAX_PAUSE)
    }

    /// Does a little. Says whether the apply thread may do the rest.
    pub(crate) fn step(&mut self, shared: &Shared) -> Result<bool, GivenUp> {
        let begun = Instant::now();
        let done = self.try_step(shared);
        self.took = begun.elapsed();
        done.inspect_err(|_| shared.read().forget_rewrite())
    }

    fn try_step(&mut self, shared: &Shared) -> Result<bool, GivenUp> {
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
        // The first time, much may have come while much was synced.
        Ok(self.rounds > 1 && waited <= REST_BYTES || self.rounds >= MOST_ROUNDS)
    }

    pub(crate) fn into_parts(self) -> (Rewrite<RedbEngine>, NewFile) {
        (self.rewrite, self.file)
    }
}
