//! A replica's writes, drawn from a seed, and what must be found of them after a restart.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeSet;

use bowline_raft::{
    Entry, Group, HardState, Index, Membership, NodeId, Payload, Position, Random, SnapshotHeader, Term, Write,
};
use bowline_storage::{ClusterId, Disk, Identity, OpenError, Opened, Options, Recovery, create, open};
use bytes::Bytes;

pub(crate) const IDENTITY: Identity = Identity { cluster: ClusterId(0xc0ffee), replica: NodeId(2), incarnation: 77 };

pub(crate) fn options(segment_bytes: u64) -> Options {
    Options::new(segment_bytes, 512, 2)
}

pub(crate) fn founders() -> Membership {
    Membership::simple(Group::of_voters([1, 2, 3].map(NodeId)))
}

pub(crate) fn make<D: Disk>(disk: &D, options: &Options) {
    create(disk, &IDENTITY, Some(founders()), options).expect("an empty folder");
}

pub(crate) fn reopen<D: Disk>(disk: &D, options: &Options) -> Result<Opened<D>, OpenError> {
    open(disk, IDENTITY.cluster, IDENTITY.replica, options)
}

pub(crate) fn entry(index: u64, term: u64, size: usize) -> Entry {
    let mut bytes = format!("{index}@{term} ").into_bytes();
    bytes.resize(bytes.len().max(size), b'.');
    Entry { index: Index(index), term: Term(term), payload: Payload::Command(Bytes::from(bytes)) }
}

pub(crate) fn append(index: u64, term: u64) -> Write {
    Write::Append(vec![entry(index, term, 0)])
}

pub(crate) fn vote(term: u64, candidate: u64) -> Write {
    Write::HardState(HardState { term: Term(term), voted_for: Some(NodeId(candidate)) })
}

pub(crate) fn header(index: u64, term: u64) -> SnapshotHeader {
    SnapshotHeader { position: Position::new(Index(index), Term(term)), membership: founders() }
}

/// What the writes so far add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) hard_state: HardState,
    pub(crate) base: SnapshotHeader,
    pub(crate) entries: Vec<Entry>,
}

impl Model {
    pub(crate) fn founding() -> Model {
        Model { hard_state: HardState::default(), base: header(0, 0), entries: Vec::new() }
    }

    pub(crate) fn last(&self) -> Position {
        self.entries.last().map_or(self.base.position, Entry::position)
    }

    pub(crate) fn apply(&mut self, write: &Write) {
        match write {
            Write::HardState(hard_state) => self.hard_state = *hard_state,
            Write::Truncate { from } => self.entries.retain(|entry| entry.index < *from),
            Write::Append(entries) => self.entries.extend(entries.iter().cloned()),
            Write::Repaired | Write::Suspect { .. } => {}
            Write::Snapshot(header) => {
                self.entries.clear();
                self.base = header.clone();
            }
        }
    }

    pub(crate) fn compact(&mut self, header: &SnapshotHeader) {
        self.entries.retain(|entry| entry.index > header.position.index);
        self.base = header.clone();
    }

    /// Whether a recovery shows this log: from this base, or from a later snapshot within it.
    pub(crate) fn shows_log(&self, recovery: &Recovery) -> bool {
        let recovered = &recovery.recovered;
        let Some(snapshot) = &recovered.snapshot else { return false };
        let held = snapshot.position == self.base.position
            || self.entries.iter().any(|entry| entry.position() == snapshot.position);
        let after: Vec<&Entry> = self.entries.iter().filter(|entry| entry.index > snapshot.position.index).collect();
        held && after == recovered.entries.iter().collect::<Vec<_>>()
    }
}

/// One step of a trace.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Write(Write),
    Sync,
    /// Store a snapshot of this, and let the log go.
    Compact(SnapshotHeader),
    /// Store a leader's snapshot, and replace the log by it.
    Install(SnapshotHeader),
    Restart,
}

/// Draws the next step of a replica whose writes have led to `model`.
pub(crate) fn draw(random: &mut Random, model: &Model, segment_bytes: u64) -> Step {
    let mut below = |bound: u64| random.next_u64() % bound;
    let last = model.last();
    let term = model.hard_state.term.0;
    match below(100) {
        0..40 => {
            let sizes = [0, 10, 60, 200, 500, 900];
            let term = term.max(1);
            let huge = below(60) == 0;
            let count = 1 + below(4);
            let entries = (1..=count).map(|offset| {
                let size = sizes[below(6) as usize];
                let size = if huge { size + segment_bytes as usize } else { size };
                match below(12) {
                    0 => Entry { index: Index(last.index.0 + offset), term: Term(term), payload: Payload::Blank },
                    1 => Entry {
                        index: Index(last.index.0 + offset),
                        term: Term(term),
                        payload: Payload::Membership(founders()),
                    },
                    _ => entry(last.index.0 + offset, term, size),
                }
            });
            Step::Write(Write::Append(entries.collect()))
        }
        40..80 => Step::Sync,
        80..88 => Step::Write(vote(term + below(2) + u64::from(term == 0), 1 + below(3))),
        88..92 if last.index > model.base.position.index => {
            let count = model.entries.len() as u64;
            Step::Write(Write::Truncate { from: Index(last.index.0 - below(count.min(6))) })
        }
        92..97 if !model.entries.is_empty() => {
            let at = &model.entries[below(model.entries.len() as u64) as usize];
            Step::Compact(SnapshotHeader { position: at.position(), membership: founders() })
        }
        97 => Step::Install(header(last.index.0 + 1 + below(5), term.max(1))),
        98 => Step::Restart,
        _ => Step::Sync,
    }
}

/// The same writes, each split to what may become durable by itself.
pub(crate) fn split(write: &Write) -> Vec<Write> {
    match write {
        Write::Append(entries) => entries.iter().map(|entry| Write::Append(vec![entry.clone()])).collect(),
        other => vec![other.clone()],
    }
}

pub(crate) fn indexes(entries: &[Entry]) -> BTreeSet<u64> {
    entries.iter().map(|entry| entry.index.0).collect()
}
