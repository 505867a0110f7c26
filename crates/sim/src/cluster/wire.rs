//! Messages between replicas as bytes, in the code that real members use.

use bowline_node::{NodeMessage, wire};
use bytes::BytesMut;

/// A field that no message of this version has, number 127: what a later version may add.
pub(crate) const UNKNOWN_FIELD: &[u8] = &[0xf8, 0x07, 1];

/// A message as it arrives: written by the sender, and read by the receiver. Every other sender is of a later version.
/// `None` if it can't be read, as that of somebody who writes what no replica does.
pub(crate) fn arrived(from: usize, message: &NodeMessage) -> Option<NodeMessage> {
    let extension = if from % 2 == 1 { UNKNOWN_FIELD } else { &[] };
    let mut bytes = BytesMut::new();
    wire::encode_extended(message, extension, &mut bytes);
    wire::decode(bytes.freeze()).ok().flatten()
}
