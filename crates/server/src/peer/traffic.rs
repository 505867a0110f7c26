//! What went to another member and what came from it, in numbers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::frame::HEADER_BYTES;

/// The traffic with one other member, since the start.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes that were written to its connections, handshakes not counted.
    pub sent_bytes: AtomicU64,
    /// Bytes that came from it, handshakes not counted.
    pub received_bytes: AtomicU64,
    /// Frames from it that could not be read.
    pub received_failures: AtomicU64,
    /// How often the connection for the small traffic to it was lost.
    pub disconnections: AtomicU64,
}

impl Traffic {
    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// A frame with this body has come.
    pub(super) fn received(&self, body: &[u8]) {
        self.received_bytes.fetch_add((HEADER_BYTES + body.len()) as u64, Relaxed);
    }
}
