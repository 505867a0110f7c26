//! Sends messages between replicas as bytes, with the code that real members use.

use bowline_node::{NodeMessage, wire};
use bytes::BytesMut;

/// A field, number 127, that no message of this version has but a later version may add.
pub(crate) const UNKNOWN_FIELD: &[u8] = &[0xf8, 0x07, 1];

/// Encodes a message like the sender and decodes it like the receiver. Every other sender has a later version. `None`
/// if it can't be decoded, for example a message that no replica would send.
pub(crate) fn arrived(from: usize, message: &NodeMessage) -> Option<NodeMessage> {
    let extension = if from % 2 == 1 { UNKNOWN_FIELD } else { &[] };
    let mut bytes = BytesMut::new();
    wire::encode_extended(message, extension, &mut bytes);
    wire::decode(bytes.freeze()).ok().flatten()
}
