//! Bringing a snapshot to a follower in pieces, over a network that loses and doubles messages.
//!
//! One piece at a time: the receiver answers with how far it is, and the sender goes on from there,
//! so a lost, doubled or late message changes nothing and a restarted receiver starts over. Each
//! transfer is named by the leader's term and a session: pieces of two snapshots are never mixed.

use std::collections::BTreeMap;
use std::time::Duration;

use bowline_raft::probe::{Probe, hit};
use bowline_raft::{Input, NodeId, Session, SnapshotHeader, Term, Time};
use bytes::{Bytes, BytesMut};

use crate::node::{NodeEffect, NodeMessage};

/// How often a silent receiver's retry delay doubles, at most.
const MAX_BACKOFF_SHIFT: u32 = 5;

/// A snapshot with its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// What it says of itself.
    pub header: SnapshotHeader,
    /// The state machine's bytes.
    pub data: Bytes,
}

/// A piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// The leader's term.
    pub term: Term,
    /// The transfer.
    pub session: Session,
    /// Which snapshot.
    pub header: SnapshotHeader,
    /// Bytes of the whole snapshot.
    pub total: u64,
    /// Where this piece begins.
    pub offset: u64,
    /// The piece.
    pub data: Bytes,
}

/// How far a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotChunkReply {
    /// The term of the piece that this answers.
    pub term: Term,
    /// The transfer.
    pub session: Session,
    /// Bytes received without a gap.
    pub received: u64,
}

/// The transfers that a leader is carrying out, at most one for each follower.
#[derive(Debug)]
pub(crate) struct Senders {
    chunk_bytes: usize,
    retry_after: Duration,
    by_peer: BTreeMap<NodeId, Sender>,
}

#[derive(Debug)]
struct Sender {
    session: Session,
    snapshot: StoredSnapshot,
    offset: usize,
    /// When the current piece is to be sent, for the first time or again.
    due: Time,
    tries: u32,
}

impl Senders {
    pub(crate) fn new(chunk_bytes: usize, retry_after: Duration) -> Senders {
        Senders { chunk_bytes: chunk_bytes.max(1), retry_after, by_peer: BTreeMap::new() }
    }

    /// Starts a transfer, in place of an earlier one to the same follower.
    pub(crate) fn start(&mut self, to: NodeId, session: Session, snapshot: StoredSnapshot) {
        self.by_peer.insert(to, Sender { session, snapshot, offset: 0, due: Time::ZERO, tries: 0 });
    }

    pub(crate) fn clear(&mut self) {
        self.by_peer.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_peer.is_empty()
    }

    pub(crate) fn next_deadline(&self) -> Time {
        self.by_peer.values().map(|sender| sender.due).min().unwrap_or(Time::NEVER)
    }

    /// Sends every piece whose time has come. A silent follower is tried less and less often.
    pub(crate) fn send_due(&mut self, now: Time, term: Term, out: &mut Vec<NodeEffect>) {
        for (to, sender) in self.by_peer.iter_mut().filter(|(_, sender)| sender.due <= now) {
            sender.due = now.after(self.retry_after * (1 << sender.tries.min(MAX_BACKOFF_SHIFT)));
            sender.tries += 1;
            let StoredSnapshot { header, data } = &sender.snapshot;
            let end = data.len().min(sender.offset + self.chunk_bytes);
            let chunk = SnapshotChunk {
                term,
                session: sender.session,
                header: header.clone(),
                total: data.len() as u64,
                offset: sender.offset as u64,
                data: data.slice(sender.offset..end),
            };
            out.push(NodeEffect::Send { to: *to, message: NodeMessage::Chunk(chunk), after: None });
        }
    }

    /// Takes a receiver's answer; returns what to tell the core if the transfer is complete. An
    /// answer to an earlier term names a session of that term, which may have the same number.
    pub(crate) fn answered(
        &mut self,
        now: Time,
        term: Term,
        from: NodeId,
        reply: &SnapshotChunkReply,
    ) -> Option<Input> {
        let answers = |sender: &&mut Sender| (term, sender.session) == (reply.term, reply.session);
        let sender = self.by_peer.get_mut(&from).filter(answers)?;
        let total = sender.snapshot.data.len();
        let received = usize::try_from(reply.received).ok().filter(|received| *received <= total)?;
        if received == total {
            self.by_peer.remove(&from);
            return Some(Input::SnapshotSent { to: from, session: reply.session, delivered: true });
        }
        if received < sender.offset {
            hit(Probe::ChunkRestarted);
        }
        if received != sender.offset {
            // It went on, or has started over: the next piece at once. A doubled answer to the
            // current piece changes nothing.
            sender.offset = received;
            sender.due = now;
            sender.tries = 0;
        }
        None
    }
}

/// A snapshot that is arriving.
#[derive(Debug)]
pub(crate) struct Incoming {
    from: NodeId,
    term: Term,
    session: Session,
    header: SnapshotHeader,
    total: u64,
    data: BytesMut,
    /// The whole of it was handed over already.
    finished: bool,
}

/// What a piece brought.
pub(crate) enum Received {
    /// More is to come, or nothing new.
    Nothing,
    /// The last piece.
    Complete { term: Term, session: Session, snapshot: StoredSnapshot },
}

impl Incoming {
    pub(crate) fn new(from: NodeId, chunk: &SnapshotChunk) -> Incoming {
        Incoming {
            from,
            term: chunk.term,
            session: chunk.session,
            header: chunk.header.clone(),
            total: chunk.total,
            data: BytesMut::new(),
            finished: false,
        }
    }

    /// Whether a piece belongs to this transfer.
    pub(crate) fn is_continued_by(&self, from: NodeId, chunk: &SnapshotChunk) -> bool {
        let own = (self.from, self.term, self.session, self.total);
        own == (from, chunk.term, chunk.session, chunk.total) && self.header == chunk.header
    }

    /// Takes a piece if it is the next one, and says how far it is now.
    pub(crate) fn take(&mut self, chunk: SnapshotChunk) -> (SnapshotChunkReply, Received) {
        let have = if self.finished { self.total } else { self.data.len() as u64 };
        let fits = !self.finished && chunk.offset == have && have + chunk.data.len() as u64 <= self.total;
        if fits {
            // Memory grows with what has arrived, never with what was announced.
            self.data.extend_from_slice(&chunk.data);
        }
        let received = if self.finished { self.total } else { self.data.len() as u64 };
        let reply = SnapshotChunkReply { term: self.term, session: self.session, received };
        if !fits {
            hit(Probe::ChunkRepeated);
        }
        if !fits || received < self.total {
            return (reply, Received::Nothing);
        }
        self.finished = true;
        let data = std::mem::take(&mut self.data).freeze();
        let snapshot = StoredSnapshot { header: self.header.clone(), data };
        (reply, Received::Complete { term: self.term, session: self.session, snapshot })
    }
}
