//! What waits for the replica's thread: three queues with bounds, in the order of their urgency.
//!
//! First what the replica's other threads say (never many, never refused: they must not wait for the
//! replica's, which may be waiting for one of them), then what peers say, then what clients want. The thread takes a
//! portion of all that waits, so that under load one round of it serves many.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline_kv::store::{Lease, LeaseChange};
use bowline_node::raft::{NodeId, PersistId, SnapshotHeader, Time, Token};
use bowline_node::{Failure, NodeMessage, Report, Response, Unknown};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::peer::weight;

/// Most messages of peers that wait.
const MAX_PEER_MESSAGES: usize = 16_384;

/// Most bytes of those.
const MAX_PEER_BYTES: usize = 64 << 20;

/// Most requests that wait. One more is refused.
pub const MAX_REQUESTS: usize = 8_192;

/// Most bytes of those.
const MAX_REQUEST_BYTES: usize = 64 << 20;

/// Most of each kind that are taken at once: between two portions the others get their turn.
const PORTION: usize = 512;

/// What a client or an operator wants.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// A command for the state machine.
    Write(Bytes),
    /// A question to the state machine, which whoever asked puts by itself, as soon as it may.
    Read,
    /// How long a lease still lives. Only the leader knows.
    Lease {
        /// Its identity.
        id: i64,
        /// Whether it is to be given its whole time anew.
        renew: bool,
    },
    /// Another leader; whoever is best if none is named.
    TransferLeadership(Option<NodeId>),
    /// The state's file written anew.
    Shrink,
}

impl RequestBody {
    fn weight(&self) -> usize {
        match self {
            RequestBody::Write(bytes) => bytes.len() + 64,
            RequestBody::Read
            | RequestBody::Lease { .. }
            | RequestBody::TransferLeadership(_)
            | RequestBody::Shrink => 64,
        }
    }
}

/// A request, and who waits for its answer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) body: RequestBody,
    pub(crate) deadline: Time,
    pub(crate) reply: oneshot::Sender<Response>,
}

/// What the replica's other threads say.
#[derive(Debug)]
pub(crate) enum Event {
    /// Everything up to here is durable.
    Persisted(PersistId),
    /// The state that this describes is durable: the log before it may go.
    StateStored(SnapshotHeader),
    /// What became of a job.
    Report(Report),
    /// What was applied has changed these leases. Told before the report that it is applied.
    Leases(Vec<LeaseChange>),
    /// A snapshot has taken the state's place, with these leases. Told likewise.
    LeasesReset(Vec<Lease>),
    /// A request is answered.
    Answered(Token, Response),
    /// Something changed that only the facts tell.
    Facts,
    /// What the core knows nothing of is done, or is not.
    Done(oneshot::Sender<Response>, Response),
}

/// A portion of what waited.
#[derive(Debug, Default)]
pub(crate) struct Portion {
    pub(crate) events: VecDeque<Event>,
    pub(crate) peers: Vec<(NodeId, NodeMessage)>,
    pub(crate) requests: Vec<Request>,
    /// Nothing comes any more: the replica is to stop.
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
    /// Tells what happened elsewhere in the replica.
    pub(crate) fn push_event(&self, event: Event) {
        self.lock().events.push_back(event);
        self.ready.notify_one();
    }

    /// Takes a peer's message; gives it back if there is no room now.
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

    /// Takes a request, or answers it at once if there is no room or the replica has stopped.
    pub(crate) fn push_request(&self, request: Request) {
        let weight = request.body.weight();
        let mut state = self.lock();
        let full = state.requests.len() >= MAX_REQUESTS
            || (state.request_bytes > 0 && state.request_bytes + weight > MAX_REQUEST_BYTES);
        if full || state.closed {
            let why = if state.closed { Unknown::Stopped.into() } else { Failure::overloaded("waiting requests") };
            drop(state);
            // Who no longer waits needs no answer.
            let _ = request.reply.send(Err(why));
            return;
        }
        state.request_bytes += weight;
        state.requests.push_back(request);
        drop(state);
        self.ready.notify_one();
    }

    /// Ends the replica's thread when it has taken what is there.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    /// Whether the replica's thread has ended, or is about to.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits until something is there, at most so long, and takes a portion of it.
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
        // Every change of the queues is complete before the lock is given back, panic or not.
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
