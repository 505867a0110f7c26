//! Counters of the traffic with another member.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::frame::HEADER_BYTES;

/// The traffic with one other member, since the start.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes sent to it, without handshakes.
    pub sent_bytes: AtomicU64,
    /// Bytes received from it, without handshakes.
    pub received_bytes: AtomicU64,
    /// Frames from it that could not be read.
    pub received_failures: AtomicU64,
    /// How often the control connection to it was lost.
    pub disconnections: AtomicU64,
}

impl Traffic {
    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts a received frame with this body.
    pub(super) fn received(&self, body: &[u8]) {
        self.received_bytes.fetch_add((HEADER_BYTES + body.len()) as u64, Relaxed);
    }
}
