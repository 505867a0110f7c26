//! Messages of members with another version.

use super::{Mutant, replace};

const WIRE: &str = "crates/node/src/wire.rs";

/// The mutants. None is from the list, which predates mixed versions.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "UnknownFieldDropped",
        origin: "upgrades",
        breaks: "A command loses, on its way to a follower, the field that only members of a later version know.",
        edits: &[replace(
            WIRE,
            "pb::Payload::Command(command) => ",
            "Payload::Command(command)",
            r#"{
                let known = command.strip_suffix(&[0xf8, 0x07, 1]).map(|known| command.slice_ref(known));
                Payload::Command(known.unwrap_or(command))
            }"#,
        )],
    },
    Mutant {
        name: "UnknownFieldRefused",
        origin: "upgrades",
        breaks: "A message with a field that only members of a later version know is refused.",
        edits: &[replace(
            WIRE,
            "let PeerMessage { term, body } = ",
            "PeerMessage::decode_length_delimited(&mut bytes)?",
            r#"{
        let before = bytes.len();
        let message = PeerMessage::decode_length_delimited(&mut bytes)?;
        let known = message.encoded_len();
        if before - bytes.len() > prost::length_delimiter_len(known) + known {
            return Err(WireError::Unknown("a field"));
        }
        message
    }"#,
        )],
    },
];
