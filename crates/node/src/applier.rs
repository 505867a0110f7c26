//! Does the [`Conductor`](crate::Conductor)'s jobs for a state machine that is all in memory.

use std::collections::VecDeque;

use bowline_raft::probe::{Probe, hit};
use bowline_raft::{Entry, Index, Payload, SnapshotHeader};
use bytes::Bytes;

use crate::failure::{NotDone, Response, Unknown};
use crate::held::HeldSnapshots;
use crate::input::{NodeEffect, StoredSnapshot};
use crate::job::{Job, Report};
use crate::machine::{Recall, StateMachine};
use crate::message::{NodeMessage, SnapshotTransfer};

/// A state machine, its snapshots, and the snapshot that arrives. Each job is done before the next one starts.
#[derive(Debug)]
pub struct Applier<S> {
    machine: S,
    held: HeldSnapshots,
    unrestored: u64,
    /// A snapshot that arrived in full, with the machine that was restored from it, until the core decides about it.
    restored: Option<(SnapshotTransfer, StoredSnapshot, S)>,
    /// The same after the core has accepted it, until its record in the log is durable.
    accepted: Option<(StoredSnapshot, S)>,
}

impl<S: StateMachine> Applier<S> {
    /// An applier of a state machine, with the snapshot that the machine was restored from, if there is one.
    pub fn new(machine: S, snapshot: Option<&StoredSnapshot>) -> Applier<S> {
        let mut held = HeldSnapshots::default();
        if let Some(StoredSnapshot { header, data }) = snapshot {
            held.hold(header.position.index, data.clone());
        }
        Applier { machine, held, unrestored: 0, restored: None, accepted: None }
    }

    /// The state machine.
    #[must_use]
    pub fn machine(&self) -> &S {
        &self.machine
    }

    /// How many snapshots arrived in full but could not be restored.
    #[must_use]
    pub fn unrestored(&self) -> u64 {
        self.unrestored
    }

    /// Does a job. Effects are appended to `out`, reports for the conductor to `reports`.
    pub fn run(&mut self, job: Job, out: &mut Vec<NodeEffect>, reports: &mut VecDeque<Report>) {
        match job {
            Job::Apply { entries } => reports.extend(self.apply(&entries)),
            Job::Recall { token, command, proposed_at, contains } => {
                let recall = self.machine.recall(&command, proposed_at);
                out.push(NodeEffect::Respond { token, response: recalled(recall, proposed_at, contains) });
            }
            Job::StoreState { header } => {
                let data = self.dump(header.clone(), reports);
                out.push(NodeEffect::StoreSnapshot { snapshot: StoredSnapshot { header, data } });
            }
            Job::Dump { header } => {
                self.dump(header, reports);
            }
            Job::Send { to, piece } => match self.held.bytes_of(&piece) {
                Some(data) => {
                    let message = NodeMessage::Chunk(piece.filled(data));
                    out.push(NodeEffect::Send { to, message, after: None });
                }
                None => reports.push_back(Report::Unreadable { index: piece.header.position.index }),
            },
            Job::Release { index } => self.held.release(index),
            Job::Add { from, chunk } => reports.push_back(self.held.add(from, &chunk)),
            Job::Restore { transfer, header } => reports.push_back(self.restore(transfer, header)),
            Job::Discard { transfer } => drop(self.restored.take_if(|(of, ..)| *of == transfer)),
            Job::Accept { header } => {
                let (_, snapshot, machine) = self.restored.take().expect("the core takes what has just arrived");
                assert_eq!(header, snapshot.header, "the core takes what has just arrived");
                out.push(NodeEffect::StoreSnapshot { snapshot: snapshot.clone() });
                self.accepted = Some((snapshot, machine));
            }
            Job::Install { header } => reports.push_back(self.install(&header)),
        }
    }

    fn apply(&mut self, entries: &[Entry]) -> Option<Report> {
        let mut responses = Vec::with_capacity(entries.len());
        for entry in entries {
            if let Payload::Command(command) = &entry.payload {
                responses.push((entry.index, self.machine.apply(entry.index, command)));
            }
        }
        entries.last().map(|last| Report::Applied { index: last.index, responses })
    }

    fn dump(&mut self, header: SnapshotHeader, reports: &mut VecDeque<Report>) -> Bytes {
        let data = self.machine.snapshot();
        self.held.hold(header.position.index, data.clone());
        reports.push_back(Report::Ready { header, bytes: data.len() as u64 });
        data
    }

    fn restore(&mut self, transfer: SnapshotTransfer, header: SnapshotHeader) -> Report {
        // Bytes that can't be restored are not a snapshot.
        let restored = self.held.take(transfer).and_then(|data| Some((S::restore(&data).ok()?, data)));
        let whole = restored.is_some();
        self.unrestored += u64::from(!whole);
        self.restored = restored.map(|(machine, data)| (transfer, StoredSnapshot { header, data }, machine));
        Report::Restored { transfer, whole }
    }

    fn install(&mut self, header: &SnapshotHeader) -> Report {
        let (snapshot, machine) = self.accepted.take().expect("the core installs what it has decided for");
        assert_eq!(header, &snapshot.header, "the core installs what it has decided for");
        self.machine = machine;
        let index = header.position.index;
        self.held.hold(index, snapshot.data);
        Report::Applied { index, responses: Vec::new() }
    }
}

/// The answer to a write whose end the core can't tell, mostly because a snapshot replaced its entry. `recall` is
/// what the state machine, which contains everything up to `contains`, remembers of the write.
pub fn recalled(recall: Recall, proposed_at: Index, contains: Index) -> Response {
    match recall {
        Recall::Applied(response) => {
            hit(Probe::Recalled);
            Ok(response)
        }
        // The log is past its index, so another entry was committed there.
        Recall::NotApplied if proposed_at <= contains => Err(NotDone::Superseded.into()),
        Recall::NotApplied | Recall::Forgotten => Err(Unknown::Expired.into()),
    }
}
