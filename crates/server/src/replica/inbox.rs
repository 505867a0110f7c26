//! The input of the raft thread: three queues, the most urgent first.
//!
//! First, events of the replica's other threads. They are few and never refused, because those threads must not wait
//! for the raft thread, which may be waiting for one of them. Then messages of peers, then requests of clients, both
//! bounded. The thread takes a portion of each queue, so that under load one round serves many.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline_kv::store::{Lease, LeaseChange};
use bowline_node::raft::{MembershipChange, NodeId, PersistId, SnapshotHeader, Time, Token};
use bowline_node::{Failure, NodeMessage, Report, Response, Unknown};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::peer::weight;

/// Maximum number of waiting messages of peers.
const MAX_PEER_MESSAGES: usize = 16_384;

/// Maximum bytes of those.
const MAX_PEER_BYTES: usize = 64 << 20;

/// Maximum number of waiting requests; further ones are refused.
pub const MAX_REQUESTS: usize = 8_192;

/// Maximum bytes of those.
const MAX_REQUEST_BYTES: usize = 64 << 20;

/// Maximum number of peers' messages and of requests in a portion, so that each kind gets its turn.
const PORTION: usize = 512;

/// The body of a request of a client or an operator.
#[derive(Debug)]
pub(crate) enum RequestBody {
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

/// A request, and the channel for its answer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) body: RequestBody,
    pub(crate) deadline: Time,
    pub(crate) reply: oneshot::Sender<Response>,
}

/// An event of the replica's other threads.
#[derive(Debug)]
pub(crate) enum Event {
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
    Done(oneshot::Sender<Response>, Response),
}

/// A portion of the queues.
#[derive(Debug, Default)]
pub(crate) struct Portion {
    pub(crate) events: VecDeque<Event>,
    pub(crate) peers: Vec<(NodeId, NodeMessage)>,
    pub(crate) requests: Vec<Request>,
    /// Whether the inbox is closed and empty: the replica is to stop.
    pub(crate) closed: bool,
}

/// The queues.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    peers: VecDeque<(NodeId, NodeMessage)>,
    peer_bytes: usize,
    requests: VecDeque<Request>,
    request_bytes: usize,
    closed: bool,
}

impl Inbox {
    /// Adds an event of another thread of the replica.
    pub(crate) fn push_event(&self, event: Event) {
        self.lock().events.push_back(event);
        self.ready.notify_one();
    }

    /// Adds a peer's message, or returns it if there is no room now.
    pub(crate) fn push_peer(&self, from: NodeId, message: NodeMessage) -> Option<NodeMessage> {
        let weight = weight(&message);
        let mut state = self.lock();
        let full = state.peers.len() >= MAX_PEER_MESSAGES
            || (state.peer_bytes > 0 && state.peer_bytes + weight > MAX_PEER_BYTES);
        if full {
            return Some(message);
        }
        state.peer_bytes += weight;
        state.peers.push_back((from, message));
        drop(state);
        self.ready.notify_one();
        None
    }

    /// Adds a request, or refuses it if there is no room or the replica has stopped.
    pub(crate) fn push_request(&self, request: Request) {
        let weight = request.body.weight();
        let mut state = self.lock();
        let full = state.requests.len() >= MAX_REQUESTS
            || (state.request_bytes > 0 && state.request_bytes + weight > MAX_REQUEST_BYTES);
        if full || state.closed {
            let why = if state.closed { Unknown::Stopped.into() } else { Failure::overloaded("waiting requests") };
            drop(state);
            // The receiver may have given up.
            let _ = request.reply.send(Err(why));
            return;
        }
        state.request_bytes += weight;
        state.requests.push_back(request);
        drop(state);
        self.ready.notify_one();
    }

    /// Closes the inbox. The raft thread ends when it has taken everything.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    /// Whether the inbox is closed: the raft thread has ended or is about to.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits for input, with a time limit, and takes a portion of it.
    pub(crate) fn wait(&self, at_most: Option<Duration>) -> Portion {
        let mut state = self.lock();
        if state.is_empty() {
            state = match at_most {
                Some(time) => self.ready.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0,
                None => self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        state.take()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the queues is complete before the lock is released, even after a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.peers.is_empty() && self.requests.is_empty() && !self.closed
    }

    fn take(&mut self) -> Portion {
        let peers: Vec<_> = self.peers.drain(..self.peers.len().min(PORTION)).collect();
        let requests: Vec<_> = self.requests.drain(..self.requests.len().min(PORTION)).collect();
        self.peer_bytes -= peers.iter().map(|(_, message)| weight(message)).sum::<usize>();
        self.request_bytes -= requests.iter().map(|request| request.body.weight()).sum::<usize>();
        let closed = self.closed && self.peers.is_empty() && self.requests.is_empty();
        Portion { events: std::mem::take(&mut self.events), peers, requests, closed }
    }
}

#[cfg(test)]
mod tests {
    use bowline_node::NotDone;
    use bowline_node::raft::{Body, Message, Term};

    use super::*;

    fn request(bytes: usize) -> (Request, oneshot::Receiver<Response>) {
        let (reply, answer) = oneshot::channel();
        (Request { body: RequestBody::Write(Bytes::from(vec![0; bytes])), deadline: Time::NEVER, reply }, answer)
    }

    #[test]
    fn requests_beyond_the_bound_are_refused_at_once() {
        let inbox = Inbox::default();
        let mut answers: Vec<_> = (0..=MAX_REQUESTS)
            .map(|_| {
                let (request, answer) = request(10);
                inbox.push_request(request);
                answer
            })
            .collect();
        let last = answers.pop().expect("there is one");
        assert!(matches!(last.blocking_recv(), Ok(Err(Failure::NotDone(NotDone::Overloaded { .. })))));
        assert!(answers[0].try_recv().is_err(), "the first one waits");
    }

    #[test]
    fn bytes_count_too_but_one_large_request_is_let_in() {
        let inbox = Inbox::default();
        let (first, mut first_answer) = request(MAX_REQUEST_BYTES + 1);
        inbox.push_request(first);
        assert!(first_answer.try_recv().is_err());
        let (second, second_answer) = request(1);
        inbox.push_request(second);
        assert!(matches!(second_answer.blocking_recv(), Ok(Err(Failure::NotDone(NotDone::Overloaded { .. })))));
    }

    #[test]
    fn a_closed_inbox_is_emptied_before_it_ends() {
        let inbox = Inbox::default();
        for _ in 0..=PORTION {
            inbox.push_request(request(1).0);
        }
        inbox.close();
        assert!(!inbox.wait(None).closed);
        let last = inbox.wait(None);
        assert!(last.closed && last.requests.len() == 1);
        let (late, answer) = request(1);
        inbox.push_request(late);
        assert_eq!(answer.blocking_recv(), Ok(Err(Unknown::Stopped.into())));
    }

    #[test]
    fn peers_wait_when_there_is_no_room() {
        let inbox = Inbox::default();
        let message = || NodeMessage::Raft(Message { term: Term(1), body: Body::TimeoutNow });
        for _ in 0..MAX_PEER_MESSAGES {
            assert_eq!(inbox.push_peer(NodeId(2), message()), None);
        }
        assert_eq!(inbox.push_peer(NodeId(2), message()), Some(message()));
        assert_eq!(inbox.wait(None).peers.len(), PORTION);
        assert_eq!(inbox.push_peer(NodeId(2), message()), None);
    }
}
