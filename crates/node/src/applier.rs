//! Does what the [`Conductor`](crate::Conductor) wants of a state machine that is all in memory.

use std::collections::{BTreeMap, VecDeque};

use bowline_raft::probe::{Probe, hit};
use bowline_raft::{Entry, Index, NodeId, Payload, SnapshotHeader, Token};
use bytes::{Bytes, BytesMut};

use crate::job::{Job, Piece, Report, Transfer};
use crate::machine::{Recall, StateMachine};
use crate::node::{NodeEffect, NodeMessage, Response};
use crate::transfer::SnapshotChunk;

/// A snapshot with its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// What it says of itself.
    pub header: SnapshotHeader,
    /// The state machine's bytes.
    pub data: Bytes,
}

/// A state machine, its snapshots, and the one that arrives. Each job is done before the next.
#[derive(Debug)]
pub struct Applier<S> {
    machine: S,
    /// Those that are held ready, by their last index.
    ready: BTreeMap<Index, Bytes>,
    arriving: BytesMut,
    /// Whose pieces those are.
    arriving_in: Option<Transfer>,
    /// A bug for the museum: pieces are added to those that are there, whosever they are.
    mixes: bool,
    unrestored: u64,
    /// A snapshot that arrived in full, with the machine restored from it, until the core decides.
    restored: Option<(Transfer, StoredSnapshot, S)>,
    /// The same, once the core has decided for it, until its mark in the log is durable.
    accepted: Option<(StoredSnapshot, S)>,
}

impl<S: StateMachine> Applier<S> {
    /// With a state machine, and the snapshot that it was restored from, if there is one.
    pub fn new(machine: S, snapshot: Option<&StoredSnapshot>) -> Applier<S> {
        let ready = snapshot.map(|snapshot| (snapshot.header.position.index, snapshot.data.clone()));
        Applier {
            machine,
            ready: ready.into_iter().collect(),
            arriving: BytesMut::new(),
            arriving_in: None,
            mixes: false,
            unrestored: 0,
            restored: None,
            accepted: None,
        }
    }

    pub(crate) fn mixing(self, mixes: bool) -> Applier<S> {
        Applier { mixes, ..self }
    }

    /// The state machine.
    #[must_use]
    pub fn machine(&self) -> &S {
        &self.machine
    }

    /// How many snapshots have arrived in full, and no state machine could be made of them.
    #[must_use]
    pub fn unrestored(&self) -> u64 {
        self.unrestored
    }

    /// Does a job. What leaves the replica is appended to `out`, what the conductor is to be told to
    /// `reports`.
    pub fn run(&mut self, job: Job, out: &mut Vec<NodeEffect>, reports: &mut VecDeque<Report>) {
        match job {
            Job::Apply { entries } => reports.extend(self.apply(&entries)),
            Job::Query { token, query } => out.push(done(token, self.machine.query(&query))),
            Job::Recall { token, command, proposed_at, contains } => {
                let recall = self.machine.recall(&command, proposed_at);
                out.push(NodeEffect::Respond { token, response: recalled(recall, proposed_at, contains) });
            }
            Job::Keep { header } => {
                let data = self.dump(header.clone(), reports);
                out.push(NodeEffect::StoreSnapshot { snapshot: StoredSnapshot { header, data } });
            }
            Job::Dump { header } => {
                self.dump(header, reports);
            }
            Job::Send { to, piece } => match self.bytes_of(&piece) {
                Some(data) => {
                    let message = NodeMessage::Chunk(piece.filled(data));
                    out.push(NodeEffect::Send { to, message, after: None });
                }
                None => reports.push_back(Report::Unreadable { index: piece.header.position.index }),
            },
            Job::Release { index } => {
                self.ready.remove(&index);
            }
            Job::Add { from, chunk } => reports.push_back(self.add(from, &chunk)),
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
        self.ready.insert(header.position.index, data.clone());
        reports.push_back(Report::Ready { header, bytes: data.len() as u64 });
        data
    }

    fn bytes_of(&self, piece: &Piece) -> Option<Bytes> {
        let data = self.ready.get(&piece.header.position.index)?;
        let start = usize::try_from(piece.offset).ok()?;
        let end = start.checked_add(piece.length).filter(|end| *end <= data.len())?;
        (data.len() as u64 == piece.total).then(|| data.slice(start..end))
    }

    fn add(&mut self, from: NodeId, chunk: &SnapshotChunk) -> Report {
        let transfer = chunk.transfer(from);
        if chunk.offset == 0 || (self.arriving_in != Some(transfer) && !self.mixes) {
            self.arriving.clear();
        }
        self.arriving_in = Some(transfer);
        // Memory grows with what has arrived, never with what was announced.
        if chunk.offset == self.arriving.len() as u64 {
            self.arriving.extend_from_slice(&chunk.data);
        }
        Report::Added { transfer, received: self.arriving.len() as u64 }
    }

    fn restore(&mut self, transfer: Transfer, header: SnapshotHeader) -> Report {
        let data = std::mem::take(&mut self.arriving).freeze();
        let is_its = self.arriving_in.take() == Some(transfer);
        // What can't be restored is no snapshot.
        let machine = if is_its { S::restore(&data).ok() } else { None };
        let whole = machine.is_some();
        self.unrestored += u64::from(!whole);
        self.restored = machine.map(|machine| (transfer, StoredSnapshot { header, data }, machine));
        Report::Restored { transfer, whole }
    }

    fn install(&mut self, header: &SnapshotHeader) -> Report {
        let (snapshot, machine) = self.accepted.take().expect("the core installs what it has decided for");
        assert_eq!(header, &snapshot.header, "the core installs what it has decided for");
        self.machine = machine;
        let index = header.position.index;
        self.ready.insert(index, snapshot.data);
        Report::Applied { index, responses: Vec::new() }
    }
}

fn done(token: Token, answer: Bytes) -> NodeEffect {
    NodeEffect::Respond { token, response: Response::Done(answer) }
}

/// The answer to a write that the core lost sight of, mostly because a snapshot took its entry's
/// place: `recall` is what the state machine, which contains everything up to `contains`, knows of it.
#[must_use]
pub fn recalled(recall: Recall, proposed_at: Index, contains: Index) -> Response {
    match recall {
        Recall::Applied(response) => {
            hit(Probe::Recalled);
            Response::Done(response)
        }
        // Its place in the log is behind, and another entry had it.
        Recall::NotApplied if proposed_at <= contains => Response::Superseded,
        Recall::NotApplied | Recall::Forgotten => Response::Expired,
    }
}
