//! The queue of one connection, bounded in messages and in bytes.
//!
//! Messages are dropped if there is no room or no connection. The core repeats what matters.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bowline_node::NodeMessage;
use tokio::sync::Notify;

use bowline_member::weight;

/// A queue from the replica's threads to the task that owns a connection.
#[derive(Debug)]
pub(crate) struct Lane {
    queue: Mutex<Queue>,
    ready: Notify,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    connected: bool,
    messages: VecDeque<NodeMessage>,
    bytes: usize,
    lost: u64,
}

impl Lane {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Lane {
        Lane { queue: Mutex::default(), ready: Notify::new(), max_messages, max_bytes }
    }

    /// Adds a message if there is a connection and room. A single message may be larger than the bound.
    pub(crate) fn push(&self, message: NodeMessage) {
        let weight = weight(&message);
        let mut queue = self.lock();
        let full =
            queue.messages.len() >= self.max_messages || (queue.bytes > 0 && queue.bytes + weight > self.max_bytes);
        if !queue.connected || full {
            queue.lost += 1;
            return;
        }
        queue.bytes += weight;
        queue.messages.push_back(message);
        drop(queue);
        self.ready.notify_one();
    }

    /// Waits for messages, and takes up to `max_bytes` of them. Nothing is lost if the future is dropped before it is
    /// ready.
    pub(crate) async fn take(&self, max_bytes: usize) -> Vec<NodeMessage> {
        loop {
            let ready = self.ready.notified();
            let taken = self.lock().take(max_bytes);
            if !taken.is_empty() {
                return taken;
            }
            ready.await;
        }
    }

    /// Records that there is a connection: messages are accepted from now on.
    pub(crate) fn connected(&self) {
        self.lock().connected = true;
    }

    /// Records that the connection is lost. Drops the waiting messages, which are of no use to the next one.
    pub(crate) fn disconnected(&self) {
        let mut queue = self.lock();
        queue.lost += queue.messages.len() as u64;
        queue.connected = false;
        queue.messages.clear();
        queue.bytes = 0;
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.lock().connected
    }

    /// The number of dropped messages.
    pub(crate) fn lost(&self) -> u64 {
        self.lock().lost
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change of the queue is complete before the lock is released, even after a panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn take(&mut self, max_bytes: usize) -> Vec<NodeMessage> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(message) = self.messages.front() {
            let weight = weight(message);
            if bytes > 0 && bytes + weight > max_bytes {
                break;
            }
            bytes += weight;
            taken.extend(self.messages.pop_front());
        }
        self.bytes -= bytes;
        taken
    }
}

#[cfg(test)]
mod tests {
    use bowline_node::raft::{Body, Message, Term};

    use super::*;

    fn message(term: u64) -> NodeMessage {
        NodeMessage::Raft(Message { term: Term(term), body: Body::TimeoutNow })
    }

    #[tokio::test]
    async fn messages_come_out_in_order_and_in_bounded_portions() {
        let lane = Lane::new(10, 10_000);
        lane.connected();
        (1..=5).for_each(|term| lane.push(message(term)));
        assert_eq!(lane.take(64 * 3).await, [message(1), message(2), message(3)]);
        assert_eq!(lane.take(1).await, [message(4)], "one message is always taken");
        assert_eq!(lane.take(64).await, [message(5)]);
    }

    #[tokio::test]
    async fn what_finds_no_room_or_no_connection_is_lost_and_counted() {
        let lane = Lane::new(3, 10_000);
        lane.push(message(1));
        assert_eq!(lane.lost(), 1);
        lane.connected();
        (1..=5).for_each(|term| lane.push(message(term)));
        assert_eq!(lane.lost(), 3);
        lane.disconnected();
        assert_eq!(lane.lost(), 6);
        lane.connected();
        lane.push(message(9));
        assert_eq!(lane.take(1_000).await, [message(9)]);
    }
}
