//! Bringing a snapshot to a follower in pieces, over a network that loses and doubles messages.
//!
//! One piece is sent at a time. The receiver answers with how many bytes it has, and the sender continues from there,
//! so a lost, duplicated or late message changes nothing. The leader's term and a session name each transfer: pieces
//! of two snapshots are never mixed.
//!
//! This module only tracks the transfers. The host has the bytes, perhaps on a disk, and may do its jobs much later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bowline_raft::probe::{Probe, hit};
use bowline_raft::{Index, Input, NodeId, Session, SnapshotHeader, Term, Time};

use crate::job::{ConductorEffect, Job};
use crate::message::{Piece, SnapshotChunk, SnapshotChunkReply, SnapshotTransfer};

/// How often a silent receiver's retry delay doubles at most.
const MAX_BACKOFF_SHIFT: u32 = 5;

/// A snapshot that the host keeps ready to be sent.
#[derive(Clone, Debug)]
struct Ready {
    header: SnapshotHeader,
    total: u64,
}

/// The transfers that a leader is carrying out, at most one for each follower.
#[derive(Debug)]
pub(crate) struct Outgoing {
    chunk_bytes: usize,
    retry_after: Duration,
    senders: BTreeMap<NodeId, Sender>,
    /// The followers that wait for the snapshot that the host is making.
    wanted: BTreeMap<NodeId, Session>,
    making: bool,
    latest: Option<Ready>,
    /// The snapshots that the host keeps until it is told to release them.
    held: BTreeSet<Index>,
}

#[derive(Debug)]
struct Sender {
    session: Session,
    snapshot: Ready,
    offset: u64,
    /// When the current piece is to be sent, for the first time or again.
    due: Time,
    tries: u32,
}

impl Outgoing {
    pub(crate) fn new(chunk_bytes: usize, retry_after: Duration) -> Outgoing {
        Outgoing {
            chunk_bytes: chunk_bytes.max(1),
            retry_after,
            senders: BTreeMap::new(),
            wanted: BTreeMap::new(),
            making: false,
            latest: None,
            held: BTreeSet::new(),
        }
    }

    /// A follower needs a snapshot that reaches up to the log's `base`. Returns the header of the snapshot that the
    /// host must make for it; `None` if one is ready or being made.
    ///
    /// # Errors
    /// None is ready, and `header` says that none can be made now.
    pub(crate) fn fetch(
        &mut self,
        to: NodeId,
        session: Session,
        base: Index,
        header: impl FnOnce() -> Option<SnapshotHeader>,
    ) -> Result<Option<SnapshotHeader>, ()> {
        self.stop(to);
        if let Some(latest) = self.latest.clone().filter(|latest| latest.header.position.index >= base) {
            self.start(to, session, latest);
            return Ok(None);
        }
        let header = if self.making { None } else { Some(header().ok_or(())?) };
        self.making = true;
        self.wanted.insert(to, session);
        Ok(header)
    }

    fn start(&mut self, to: NodeId, session: Session, snapshot: Ready) {
        self.senders.insert(to, Sender { session, snapshot, offset: 0, due: Time::ZERO, tries: 0 });
    }

    fn stop(&mut self, to: NodeId) {
        self.senders.remove(&to);
        self.wanted.remove(&to);
    }

    /// The host keeps this snapshot ready from now on: every follower that waits for one gets it.
    pub(crate) fn ready(&mut self, header: SnapshotHeader, total: u64, base: Index) -> Vec<Input> {
        self.held.insert(header.position.index);
        let snapshot = Ready { header, total };
        let reaches = snapshot.header.position.index >= base;
        if self.latest.as_ref().is_none_or(|latest| latest.header.position.index <= snapshot.header.position.index) {
            self.latest = Some(snapshot.clone());
        }
        if !reaches {
            // The log was compacted beyond it meanwhile.
            return self.not_made();
        }
        self.making = false;
        for (to, session) in std::mem::take(&mut self.wanted) {
            self.start(to, session, snapshot.clone());
        }
        Vec::new()
    }

    /// No snapshot could be made: the transfers that wait for it have failed.
    pub(crate) fn not_made(&mut self) -> Vec<Input> {
        self.making = false;
        let wanted = std::mem::take(&mut self.wanted).into_iter();
        wanted.map(|(to, session)| Input::SnapshotSent { to, session, delivered: false }).collect()
    }

    /// A snapshot that the host keeps can't be read: its transfers have failed.
    pub(crate) fn unreadable(&mut self, index: Index) -> Vec<Input> {
        self.latest.take_if(|latest| latest.header.position.index == index);
        let broken = self.senders.extract_if(.., |_, sender| sender.snapshot.header.position.index == index);
        broken.map(|(to, sender)| Input::SnapshotSent { to, session: sender.session, delivered: false }).collect()
    }

    /// Ends all transfers.
    pub(crate) fn clear(&mut self) {
        self.senders.clear();
        self.wanted.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.senders.is_empty() && self.wanted.is_empty()
    }

    /// Bytes of the latest snapshot; 0 if there is none.
    pub(crate) fn latest_bytes(&self) -> u64 {
        self.latest.as_ref().map_or(0, |latest| latest.total)
    }

    pub(crate) fn next_deadline(&self) -> Time {
        self.senders.values().map(|sender| sender.due).min().unwrap_or(Time::NEVER)
    }

    /// Sends every piece whose time has come. A silent follower is tried less and less often.
    pub(crate) fn send_due(&mut self, now: Time, term: Term, out: &mut Vec<ConductorEffect>) {
        for (to, sender) in self.senders.iter_mut().filter(|(_, sender)| sender.due <= now) {
            sender.due = now.after(self.retry_after * (1 << sender.tries.min(MAX_BACKOFF_SHIFT)));
            sender.tries += 1;
            let Ready { header, total } = &sender.snapshot;
            let left = usize::try_from(total - sender.offset).unwrap_or(usize::MAX);
            let piece = Piece {
                term,
                session: sender.session,
                header: header.clone(),
                total: *total,
                offset: sender.offset,
                length: left.min(self.chunk_bytes),
            };
            out.push(ConductorEffect::Do(Job::Send { to: *to, piece }));
        }
    }

    /// Lets the host release the snapshots that no transfer needs, now or later. A later one needs a snapshot that
    /// reaches the log's `base`.
    pub(crate) fn release(&mut self, base: Index, out: &mut Vec<ConductorEffect>) {
        if self.held.is_empty() {
            return;
        }
        self.latest.take_if(|latest| latest.header.position.index < base);
        let latest = self.latest.as_ref().map(|latest| latest.header.position.index);
        let sent = self.senders.values().map(|sender| sender.snapshot.header.position.index);
        let needed: BTreeSet<Index> = sent.chain(latest).collect();
        for index in self.held.extract_if(.., |index| !needed.contains(index)) {
            out.push(ConductorEffect::Do(Job::Release { index }));
        }
    }

    /// Takes a receiver's answer. Returns an input for the core if the transfer is complete. An answer from an
    /// earlier term names a session of that term, which may have the same number.
    pub(crate) fn answered(
        &mut self,
        now: Time,
        term: Term,
        from: NodeId,
        reply: &SnapshotChunkReply,
    ) -> Option<Input> {
        let answers = |sender: &&mut Sender| (term, sender.session) == (reply.term, reply.session);
        let sender = self.senders.get_mut(&from).filter(answers)?;
        let total = sender.snapshot.total;
        let received = Some(reply.received).filter(|received| *received <= total)?;
        if received == total {
            self.senders.remove(&from);
            return Some(Input::SnapshotSent { to: from, session: reply.session, delivered: true });
        }
        if received < sender.offset {
            hit(Probe::ChunkRestarted);
        }
        if received != sender.offset {
            // The receiver has more bytes, or has restarted: the next piece is sent at once. A duplicate answer to
            // the current piece changes nothing.
            sender.offset = received;
            sender.due = now;
            sender.tries = 0;
        }
        None
    }
}

/// A snapshot that is arriving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The transfer in which it arrives.
    pub transfer: SnapshotTransfer,
    /// Its header.
    pub header: SnapshotHeader,
    /// Bytes of the whole snapshot.
    pub total: u64,
    /// Bytes that the host has, without a gap.
    pub received: u64,
    pub(crate) stage: Stage,
}

/// What the host is doing with an arriving snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing: it waits for the next piece.
    Open,
    /// It is adding a piece.
    Adding,
    /// All pieces have arrived: it is restoring a state machine from them.
    Restoring,
    /// The state machine was restored, and the core was told.
    Finished,
}

/// What to do with a piece.
pub(crate) enum Taken {
    /// The host is to add it.
    Add(SnapshotChunk),
    /// It is not the next one: this reply tells the sender.
    Reply(SnapshotChunkReply),
    /// Nothing: the answer to the piece before is still to come.
    Nothing,
}

impl Incoming {
    /// A transfer of which the host has kept `received` bytes from before a restart.
    #[must_use]
    pub fn kept(transfer: SnapshotTransfer, header: SnapshotHeader, total: u64, received: u64) -> Incoming {
        Incoming { transfer, header, total, received, stage: Stage::Open }
    }

    pub(crate) fn new(from: NodeId, chunk: &SnapshotChunk) -> Incoming {
        Incoming::kept(chunk.transfer(from), chunk.header.clone(), chunk.total, 0)
    }

    /// Whether a piece belongs to this transfer.
    pub(crate) fn is_continued_by(&self, from: NodeId, chunk: &SnapshotChunk) -> bool {
        (self.transfer, self.total) == (chunk.transfer(from), chunk.total) && self.header == chunk.header
    }

    /// Takes a piece if it is the next one.
    pub(crate) fn take(&mut self, chunk: SnapshotChunk) -> Taken {
        let end = chunk.offset.checked_add(chunk.data.len() as u64);
        let fits = chunk.offset == self.received && end.is_some_and(|end| end <= self.total);
        match self.stage {
            Stage::Open if fits => {
                self.stage = Stage::Adding;
                Taken::Add(chunk)
            }
            Stage::Open | Stage::Finished => {
                hit(Probe::ChunkRepeated);
                Taken::Reply(self.reply())
            }
            Stage::Adding | Stage::Restoring => Taken::Nothing,
        }
    }

    /// The reply to the sender.
    pub(crate) fn reply(&self) -> SnapshotChunkReply {
        let SnapshotTransfer { term, session, .. } = self.transfer;
        SnapshotChunkReply { term, session, received: self.received }
    }
}
