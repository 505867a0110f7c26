//! A replica whose state is in a file: the conductor, and a worker that does its jobs like the server's threads, but
//! each at once. Only checkpoints take simulated time: see [`OnDiskNode::checkpoint`].

use std::collections::VecDeque;

use bowline_kv::store::{EngineError, RestoreError, TxnRequest};
use bowline_member::{NewState, StateFiles};
use bowline_node::{
    Conductor, ConductorEffect, HeldSnapshots, Job, NodeConfig, NodeEffect, NodeInput, NodeMessage, Report,
    SnapshotTransfer, StateMachine, StoredSnapshot, Witness, recalled,
};
use bowline_raft::{ConfigError, Entry, Index, Payload, Raft, Recovered, SnapshotHeader, Time};
use bowline_storage::SimDisk;
use bytes::Bytes;

use crate::cluster::disk::FoundState;
use crate::cluster::machine::{Machine, parts};

/// The process: the conductor and the state.
#[derive(Debug)]
pub(crate) struct OnDiskNode {
    conductor: Conductor,
    worker: Worker,
    work: Vec<ConductorEffect>,
    reports: VecDeque<Report>,
}

impl OnDiskNode {
    /// Starts a replica with the state that belongs to `recovered`.
    ///
    /// # Errors
    /// As [`Conductor::new`].
    pub(crate) fn new(
        config: NodeConfig,
        found: FoundState,
        recovered: Recovered,
        now: Time,
    ) -> Result<OnDiskNode, ConfigError> {
        let conductor = Conductor::new(config, recovered, now)?;
        let worker = Worker::new(found);
        Ok(OnDiskNode { conductor, worker, work: Vec::new(), reports: VecDeque::new() })
    }

    /// Handles one input and appends the effects to `out`. After a [`OnDiskNode::fault`] none of them may be carried
    /// out.
    pub(crate) fn handle(&mut self, now: Time, input: NodeInput, out: &mut Vec<NodeEffect>) {
        self.worker.look_for_room();
        self.conductor.handle(now, input, &mut self.work);
        self.settle(now, out);
        self.conductor.tend(now, &mut self.work);
        self.settle(now, out);
    }

    fn settle(&mut self, now: Time, out: &mut Vec<NodeEffect>) {
        while self.worker.fault.is_none() {
            for effect in self.work.drain(..) {
                match effect {
                    ConductorEffect::Persist { id, write } => out.push(NodeEffect::Persist { id, write }),
                    ConductorEffect::Send { to, message, after } => out.push(NodeEffect::Send { to, message, after }),
                    ConductorEffect::Respond { token, response } => out.push(NodeEffect::Respond { token, response }),
                    ConductorEffect::Do(job) => self.worker.run(job, out, &mut self.reports),
                    ConductorEffect::Halt { fault } => out.push(NodeEffect::Halt { fault }),
                }
            }
            let Some(report) = self.reports.pop_front() else { return };
            self.conductor.report(now, report, &mut self.work);
        }
    }

    /// Makes the current state durable, with a header that describes it.
    ///
    /// # Errors
    /// The state may not be durable, so the process must stop.
    pub(crate) fn checkpoint(&mut self, header: &SnapshotHeader) -> Result<(), EngineError> {
        self.worker.machine.in_file().map_or(Ok(()), |store| store.checkpoint(header))
    }

    /// Whether the disk has room for what is to be made durable.
    pub(crate) fn has_room(&mut self) -> bool {
        self.worker.has_room()
    }

    /// The answer to a client's read; see [`Machine::look`].
    pub(crate) fn look(&mut self, key: &str, query: &TxnRequest) -> Bytes {
        let seen = self.worker.machine.look(key, query);
        self.worker.watch();
        seen
    }

    /// Why the state can't be read or written any more, if so. The process must then stop and answer nobody.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.worker.fault.as_deref()
    }

    /// The leader's snapshot that has replaced the state since the last call, if there is one.
    pub(crate) fn take_installed(&mut self) -> Option<Index> {
        self.worker.installed.take()
    }

    pub(crate) fn set_witness(&mut self, witness: Witness) {
        self.conductor.set_witness(witness);
    }

    pub(crate) fn next_deadline(&self) -> Time {
        self.conductor.next_deadline()
    }

    pub(crate) fn raft(&self) -> &Raft {
        self.conductor.raft()
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.worker.machine
    }

    pub(crate) fn is_in_transfer(&self) -> bool {
        self.conductor.is_in_transfer()
    }

    pub(crate) fn snapshot_bytes(&self) -> usize {
        self.worker.machine.snapshot().len()
    }

    pub(crate) fn unrestored_snapshots(&self) -> u64 {
        self.worker.unrestored
    }
}

/// A state in a second file, with the index of the last command in it and the digest after that.
type Restored = (NewState<SimDisk>, (u64, u64));

/// Does the conductor's jobs.
#[derive(Debug)]
struct Worker {
    machine: Machine,
    files: StateFiles<SimDisk>,
    held: HeldSnapshots,
    /// A state from a leader, in a second file, until the core decides about it.
    restored: Option<(SnapshotTransfer, SnapshotHeader, Restored)>,
    /// A state that the core has accepted, until its mark in the log is durable.
    accepted: Option<(SnapshotHeader, Restored)>,
    unrestored: u64,
    fault: Option<String>,
    installed: Option<Index>,
}

impl Worker {
    fn new(found: FoundState) -> Worker {
        Worker {
            machine: found.machine,
            files: found.files,
            held: HeldSnapshots::default(),
            restored: None,
            accepted: None,
            unrestored: 0,
            fault: None,
            installed: None,
        }
    }

    fn has_room(&mut self) -> bool {
        self.machine.in_file().is_some_and(|store| store.has_room())
    }

    /// On a full disk applied changes wait in memory.
    fn look_for_room(&mut self) {
        let room = self.has_room();
        self.machine.set_room(room);
    }

    fn run(&mut self, job: Job, out: &mut Vec<NodeEffect>, reports: &mut VecDeque<Report>) {
        if self.fault.is_some() {
            return;
        }
        match job {
            Job::Apply { entries } => reports.extend(self.apply(&entries)),
            Job::Recall { token, command, proposed_at, contains } => {
                let recall = self.machine.recall(&command, proposed_at);
                out.push(NodeEffect::Respond { token, response: recalled(recall, proposed_at, contains) });
            }
            // The host makes it durable later, and reports that.
            Job::StoreState { header } => out.push(store(header)),
            Job::Dump { header } => {
                let data = self.machine.snapshot();
                self.watch();
                reports.push_back(Report::Ready { bytes: data.len() as u64, header: header.clone() });
                self.held.hold(header.position.index, data);
            }
            Job::Send { to, piece } => match self.held.bytes_of(&piece) {
                Some(data) => {
                    let message = NodeMessage::Chunk(piece.filled(data));
                    out.push(NodeEffect::Send { to, message, after: None });
                }
                // A received snapshot is not held; a new one is made when it is needed.
                None => reports.push_back(Report::Unreadable { index: piece.header.position.index }),
            },
            Job::Release { index } => self.held.release(index),
            Job::Add { from, chunk } => reports.push_back(self.held.add(from, &chunk)),
            Job::Restore { transfer, header } => reports.push_back(self.restore(transfer, header)),
            Job::Discard { transfer } => {
                // This removes its file.
                drop(self.restored.take_if(|(of, ..)| *of == transfer));
            }
            Job::Accept { header } => {
                let (_, restored, new) = self.restored.take().expect("the core takes what has just arrived");
                assert_eq!(header, restored, "the core takes what has just arrived");
                // It was durable before the core knew of it.
                out.push(store(header.clone()));
                self.accepted = Some((header, new));
            }
            Job::Install { header } => reports.extend(self.install(&header)),
        }
    }

    /// Notices a fault of the state machine.
    fn watch(&mut self) {
        if self.fault.is_none() {
            self.fault = self.machine.fault().map(ToString::to_string);
        }
    }

    fn apply(&mut self, entries: &[Entry]) -> Option<Report> {
        let mut responses = Vec::with_capacity(entries.len());
        for entry in entries {
            match &entry.payload {
                Payload::Command(command) => responses.push((entry.index, self.machine.apply(entry.index, command))),
                Payload::Blank | Payload::Membership(_) => self.machine.pass_over(entry),
            }
        }
        self.watch();
        entries.last().map(|last| Report::Applied { index: last.index, responses })
    }

    fn restore(&mut self, transfer: SnapshotTransfer, header: SnapshotHeader) -> Report {
        let data = self.held.take(transfer);
        self.restored = None;
        // A snapshot that can't be restored, or has no room, is requested again.
        let restored = data.ok_or_else(|| invalid("its pieces are not there")).and_then(|data| {
            let (last, digest, state) = parts(&data).map_err(|error| invalid(&error.to_string()))?;
            let [b's', state @ ..] = state else { return Err(invalid("it is not a store's")) };
            Ok((self.files.restore(&header, &mut &state[..])?, (last, digest)))
        });
        let whole = restored.is_ok();
        self.unrestored += u64::from(matches!(restored, Err(RestoreError::Invalid(_) | RestoreError::Read(_))));
        self.restored = restored.ok().map(|new| (transfer, header, new));
        Report::Restored { transfer, whole }
    }

    fn install(&mut self, header: &SnapshotHeader) -> Option<Report> {
        let (accepted, new) = self.accepted.take().expect("the core installs what it has decided for");
        assert_eq!(*header, accepted, "the core installs what it has decided for");
        let (new, witness) = new;
        match new.install() {
            Ok(machine) => {
                self.machine = Machine::on_disk(machine, witness);
                let index = header.position.index;
                self.installed = Some(index);
                Some(Report::Applied { index, responses: Vec::new() })
            }
            Err(error) => {
                self.fault = Some(format!("can't take a snapshot in use: {error}"));
                None
            }
        }
    }
}

/// The effect that asks for the state described by `header` to be durable. It carries no data, because the state is in
/// a file already.
fn store(header: SnapshotHeader) -> NodeEffect {
    NodeEffect::StoreSnapshot { snapshot: StoredSnapshot { header, data: Bytes::new() } }
}

fn invalid(why: &str) -> RestoreError {
    RestoreError::Invalid(why.to_owned())
}
