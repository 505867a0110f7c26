//! Watches: clients are sent each write of the keys that they watch (etcd's Watch service).
//!
//! Nothing here has a clock, a thread or a socket. Three parts work together:
//!
//! - The [`Hub`], one for each replica, is given the events of each batch that was applied. It knows which stream watches
//!   which key, and puts references to the events into a mailbox for each stream, bounded in bytes.
//! - A [`Stream`], one for each stream of requests, knows its watchers. It takes its mailbox when its client can take more,
//!   and makes [`Message`]s of it. A watcher that begins in the past reads [`History`] first. So do all watchers of a
//!   stream whose mailbox was full: what was in it is dropped, and read again later.
//! - The store is the [`History`]: it gives events by revision, a portion at a time.
//!
//! A watcher is *live* while it gets events from the mailbox, else it is *lagging* and reads history. It becomes live
//! again when it has read up to the revision that the hub has. So a slow client delays no write and no other stream,
//! and gets every event once, in order.

mod event;
mod hub;
mod interest;
mod intervals;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use event::End;
pub use event::{Event, EventKind, History, KeyRange, Portion, PortionLimits};
pub use hub::{Delivery, Hub, StreamId, Taken, WatchCounts};
pub use stream::{Body, Message, Stream, WatchRequest};
