//! The queue of the raft thread, which waits for it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bowline_member::{Event, Portion, Queue, Request};
use bowline_node::raft::NodeId;
use bowline_node::{NodeMessage, Response};
use tokio::sync::oneshot;

/// Where the answer to a request goes.
pub(crate) type Reply = oneshot::Sender<Response>;

/// The queue, shared with those who put something in.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    queue: Mutex<Queue<Reply>>,
    ready: Condvar,
}

impl Inbox {
    /// Adds an event of another thread of the replica.
    pub(crate) fn push_event(&self, event: Event<Reply>) {
        self.lock().push_event(event);
        self.ready.notify_one();
    }

    /// Adds a peer's message, or returns it if there is no room now.
    pub(crate) fn push_peer(&self, from: NodeId, message: NodeMessage) -> Option<NodeMessage> {
        let refused = self.lock().push_peer(from, message);
        self.ready.notify_one();
        refused
    }

    /// Adds a request, or refuses it if there is no room or the replica has stopped.
    pub(crate) fn push_request(&self, request: Request<Reply>) {
        let pushed = self.lock().push_request(request);
        match pushed {
            Ok(()) => self.ready.notify_one(),
            // The receiver may have given up.
            Err((reply, refusal)) => drop(reply.send(Err(refusal))),
        }
    }

    /// Closes the inbox. The raft thread ends when it has taken everything.
    pub(crate) fn close(&self) {
        self.lock().close();
        self.ready.notify_one();
    }

    /// Whether the inbox is closed: the raft thread has ended or is about to.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed()
    }

    /// Waits for input, with a time limit, and takes a portion of it.
    pub(crate) fn wait(&self, at_most: Option<Duration>) -> Portion<Reply> {
        let mut queue = self.lock();
        if queue.is_empty() {
            queue = match at_most {
                Some(time) => self.ready.wait_timeout(queue, time).unwrap_or_else(PoisonError::into_inner).0,
                None => self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
        queue.take()
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Reply>> {
        // Every change of the queue is complete before the lock is released, even after a panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
