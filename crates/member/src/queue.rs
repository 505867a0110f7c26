//! The input of a member's consensus: three queues, the most urgent first.
//!
//! First, events of the other workers. They are few and never refused, because those workers must not wait for the
//! consensus, which may be waiting for one of them. Then messages of peers, then requests of clients, both bounded. Each
//! round takes a portion of each queue, so that under load one round serves many.

use std::collections::VecDeque;

use bowline_kv::store::{Lease, LeaseChange};
use bowline_node::raft::{Body, Entry, MembershipChange, Message, NodeId, PersistId, SnapshotHeader, Time, Token};
use bowline_node::{Failure, NodeMessage, Report, Response, Unknown};
use bytes::Bytes;

/// Maximum number of waiting messages of peers.
const MAX_PEER_MESSAGES: usize = 16_384;

/// Maximum number of waiting requests; further ones are refused.
pub const MAX_REQUESTS: usize = 8_192;

/// Maximum number of peers' messages and of requests in a portion, so that each kind gets its turn.
const PORTION: usize = 512;

/// The body of a request of a client or an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestBody {
    /// A command for the state machine.
    Write(Bytes),
    /// Tell when the state may be read; the caller then reads it itself.
    Read,
    /// The remaining time of a lease, which only the leader knows.
    Lease {
        /// The id of the lease.
        id: i64,
        /// Whether to renew it.
        renew: bool,
    },
    /// Transfer the leadership, to the most suitable member if none is named.
    TransferLeadership(Option<NodeId>),
    /// Change the configuration by one step.
    ChangeMembership(MembershipChange),
    /// Rewrite the state's file.
    Shrink,
}

impl RequestBody {
    fn weight(&self) -> usize {
        match self {
            RequestBody::Write(bytes) => bytes.len() + 64,
            RequestBody::Read
            | RequestBody::Lease { .. }
            | RequestBody::TransferLeadership(_)
            | RequestBody::ChangeMembership(_)
            | RequestBody::Shrink => 64,
        }
    }
}

/// A request. `R` tells where its answer goes.
#[derive(Debug)]
pub struct Request<R> {
    /// What is wanted.
    pub body: RequestBody,
    /// After this time, the request is answered as expired.
    pub deadline: Time,
    /// Where its answer goes.
    pub reply: R,
}

/// An event of the other workers of a member.
#[derive(Debug)]
pub enum Event<R> {
    /// All writes up to this one are durable.
    Persisted(PersistId),
    /// The state that this header describes is durable, so the log before it may be removed.
    StateStored(SnapshotHeader),
    /// The report on a job.
    Report(Report),
    /// Applied entries have changed these leases. Sent before the report on the entries.
    Leases(Vec<LeaseChange>),
    /// A snapshot has replaced the state and has these leases. Sent before the report on the snapshot.
    LeasesReset(Vec<Lease>),
    /// A request is answered.
    Answered(Token, Response),
    /// The facts have changed.
    Facts,
    /// The answer to a request that the core does not handle.
    Done(R, Response),
}

/// A portion of the queues.
#[derive(Debug)]
pub struct Portion<R> {
    /// Events of the other workers.
    pub events: VecDeque<Event<R>>,
    /// Messages of peers.
    pub peers: VecDeque<(NodeId, NodeMessage)>,
    /// Requests.
    pub requests: VecDeque<Request<R>>,
    /// Whether the queues are closed and empty: the member is to stop.
    pub closed: bool,
}

/// How many bytes may wait. One message or request is always let in, however large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueBytes {
    /// Of messages of peers.
    pub peers: usize,
    /// Of requests.
    pub requests: usize,
}

impl Default for QueueBytes {
    /// 64 MiB of each.
    fn default() -> QueueBytes {
        QueueBytes { peers: 64 << 20, requests: 64 << 20 }
    }
}

/// The queues.
#[derive(Debug)]
pub struct Queue<R> {
    most: QueueBytes,
    events: VecDeque<Event<R>>,
    peers: VecDeque<(NodeId, NodeMessage)>,
    peer_bytes: usize,
    requests: VecDeque<Request<R>>,
    request_bytes: usize,
    closed: bool,
}

impl<R> Default for Queue<R> {
    fn default() -> Queue<R> {
        Queue::with_room(QueueBytes::default())
    }
}

impl<R> Queue<R> {
    /// Empty queues with this room.
    #[must_use]
    pub fn with_room(most: QueueBytes) -> Queue<R> {
        Queue {
            most,
            events: VecDeque::new(),
            peers: VecDeque::new(),
            peer_bytes: 0,
            requests: VecDeque::new(),
            request_bytes: 0,
            closed: false,
        }
    }

    /// Adds an event of another worker.
    pub fn push_event(&mut self, event: Event<R>) {
        self.events.push_back(event);
    }

    /// Adds a peer's message, or returns it if there is no room now.
    pub fn push_peer(&mut self, from: NodeId, message: NodeMessage) -> Option<NodeMessage> {
        let weight = weight(&message);
        let full = self.peers.len() >= MAX_PEER_MESSAGES
            || (self.peer_bytes > 0 && self.peer_bytes + weight > self.most.peers);
        if full {
            return Some(message);
        }
        self.peer_bytes += weight;
        self.peers.push_back((from, message));
        None
    }

    /// Adds a request, or returns it with the reason if there is no room or the member has stopped.
    pub fn push_request(&mut self, request: Request<R>) -> Result<(), (R, Failure)> {
        let weight = request.body.weight();
        let full = self.requests.len() >= MAX_REQUESTS
            || (self.request_bytes > 0 && self.request_bytes + weight > self.most.requests);
        if self.closed {
            return Err((request.reply, Unknown::Stopped.into()));
        }
        if full {
            return Err((request.reply, Failure::overloaded("waiting requests")));
        }
        self.request_bytes += weight;
        self.requests.push_back(request);
        Ok(())
    }

    /// Closes the queues: no request is taken any more. The consensus ends when it has taken everything.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Whether the queues are closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether there is nothing to take, not even the end.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.peers.is_empty() && self.requests.is_empty() && !self.closed
    }

    /// Takes a portion: all events, and up to 512 messages and requests.
    pub fn take(&mut self) -> Portion<R> {
        self.take_at_most(PORTION)
    }

    /// Takes all events, and up to `count` messages and requests.
    pub fn take_at_most(&mut self, count: usize) -> Portion<R> {
        let peers: VecDeque<_> = self.peers.drain(..self.peers.len().min(count)).collect();
        let requests: VecDeque<_> = self.requests.drain(..self.requests.len().min(count)).collect();
        self.peer_bytes -= peers.iter().map(|(_, message)| weight(message)).sum::<usize>();
        self.request_bytes -= requests.iter().map(|request| request.body.weight()).sum::<usize>();
        let closed = self.closed && self.peers.is_empty() && self.requests.is_empty();
        Portion { events: std::mem::take(&mut self.events), peers, requests, closed }
    }
}

/// Bytes of the entries that a message carries.
#[must_use]
pub fn entries_bytes(message: &NodeMessage) -> usize {
    match message {
        NodeMessage::Raft(Message { body: Body::AppendEntries(append), .. }) => {
            append.entries.iter().map(Entry::size).sum()
        }
        _ => 0,
    }
}

/// The size of a message for the bounds, in bytes.
#[must_use]
pub fn weight(message: &NodeMessage) -> usize {
    let data = match message {
        NodeMessage::Chunk(chunk) => chunk.data.len(),
        other => entries_bytes(other),
    };
    data + 64
}

#[cfg(test)]
mod tests {
    use bowline_node::NotDone;
    use bowline_node::raft::Term;

    use super::*;

    fn request(bytes: usize) -> Request<usize> {
        Request { body: RequestBody::Write(Bytes::from(vec![0; bytes])), deadline: Time::NEVER, reply: bytes }
    }

    fn overloaded(refused: Result<(), (usize, Failure)>) -> bool {
        matches!(refused, Err((_, Failure::NotDone(NotDone::Overloaded { .. }))))
    }

    #[test]
    fn requests_beyond_the_bound_are_refused_at_once() {
        let mut queue = Queue::default();
        for _ in 0..MAX_REQUESTS {
            assert_eq!(queue.push_request(request(10)), Ok(()));
        }
        assert!(overloaded(queue.push_request(request(10))));
        assert_eq!(queue.take().requests.len(), PORTION);
        assert_eq!(queue.push_request(request(10)), Ok(()));
    }

    #[test]
    fn bytes_count_too_but_one_large_request_is_let_in() {
        let mut queue = Queue::default();
        assert_eq!(queue.push_request(request(QueueBytes::default().requests + 1)), Ok(()));
        assert!(overloaded(queue.push_request(request(1))));
        assert_eq!(queue.take().requests.len(), 1);
        assert_eq!(queue.push_request(request(1)), Ok(()), "what was taken no longer counts");
    }

    #[test]
    fn closed_queues_are_emptied_before_the_end() {
        let mut queue = Queue::default();
        for _ in 0..=PORTION {
            assert_eq!(queue.push_request(request(1)), Ok(()));
        }
        queue.close();
        assert!(!queue.take().closed);
        let last = queue.take();
        assert!(last.closed && last.requests.len() == 1);
        assert_eq!(queue.push_request(request(1)), Err((1, Unknown::Stopped.into())));
    }

    #[test]
    fn peers_wait_when_there_is_no_room() {
        let mut queue = Queue::<()>::default();
        let message = || NodeMessage::Raft(Message { term: Term(1), body: Body::TimeoutNow });
        for _ in 0..MAX_PEER_MESSAGES {
            assert_eq!(queue.push_peer(NodeId(2), message()), None);
        }
        assert_eq!(queue.push_peer(NodeId(2), message()), Some(message()));
        assert_eq!(queue.take().peers.len(), PORTION);
        assert_eq!(queue.push_peer(NodeId(2), message()), None);
    }
}
