//! All workers of a member that starts.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bowline_node::raft::{ConfigError, ReadKind, Recovered, Time};
use bowline_node::{Incoming, NodeConfig, SnapshotTransfer};
use bowline_storage::{Arrival, Arriving, Disk, Log};

use crate::apply::ApplyWorker;
use crate::consensus::Consensus;
use crate::disk::StateDisk;
use crate::instruments::Instruments;
use crate::log::LogWorker;
use crate::open::State;
use crate::shared::Shared;
use crate::snapshots::SnapshotWorker;

/// The settings of a member's workers.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How reads are made linearizable.
    pub read_kind: ReadKind,
    /// The version of the peer protocol that this program speaks.
    pub version: u32,
    /// Size of the state's file, in bytes, from which it is rewritten if less than half of it is in use.
    pub shrink_bytes: u64,
    /// Records and leases that wait to be written to the state's file together.
    pub flush_records: usize,
    /// Records that one step of removing compacted revisions looks at.
    pub tidy_records: usize,
}

/// The workers of a member, whose log and state may be on different disks. `R` tells where the answer to a request goes.
#[derive(Debug)]
pub struct Workers<L: Disk, D: StateDisk, R> {
    /// What they share.
    pub shared: Arc<Shared<D>>,
    /// The consensus.
    pub consensus: Consensus<D, R>,
    /// The worker of the log.
    pub log: LogWorker<L>,
    /// The worker of the state.
    pub apply: ApplyWorker<D, R>,
    /// The worker of the snapshots.
    pub snapshots: SnapshotWorker<D>,
    /// To be set when the member stops, so that long work is given up.
    pub ending: Arc<AtomicBool>,
}

impl<L: Disk, D: StateDisk, R> Workers<L, D, R> {
    /// For a member with this log and state.
    ///
    /// # Errors
    /// The configuration is out of range, or the recovered data contradicts itself.
    pub fn new(
        config: NodeConfig,
        settings: &Settings,
        recovered: Recovered,
        log: Log<L>,
        state: State<D>,
        instruments: &Arc<dyn Instruments>,
        now: Time,
    ) -> Result<Workers<L, D, R>, ConfigError> {
        let State { machine, files, snapshots, arriving } = state;
        let (shared, ending) = (Arc::new(Shared::new(machine)), Arc::<AtomicBool>::default());
        let (shares, measures) = (|| Arc::clone(&shared), || Arc::clone(instruments));
        let known = arriving.as_ref().map(incoming);
        Ok(Workers {
            consensus: Consensus::new(config, recovered, known, settings.read_kind, shares(), measures(), now)?,
            log: LogWorker::new(log, measures()),
            apply: ApplyWorker::new(shares(), settings, measures(), now),
            snapshots: SnapshotWorker::new(snapshots, files, arriving, shares(), Arc::clone(&ending), measures()),
            shared,
            ending,
        })
    }
}

/// What is known of a snapshot that an earlier run had received in part.
fn incoming<D: StateDisk>(arriving: &Arriving<D>) -> Incoming {
    let Arrival { from, term, session, header, total } = arriving.arrival().clone();
    Incoming::kept(SnapshotTransfer { from, term, session }, header, total, arriving.received())
}
