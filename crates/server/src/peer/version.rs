//! The version of the peer protocol, and how a cluster gets to the next one.
//!
//! A program speaks its own version and the one before it, so members can be upgraded one by one, and rolled back as
//! long as one of them has the old version. The members agree on the version of the *cluster* through the log. The
//! leader raises it once every member speaks it. Only then may members use new commands and fields, which an older
//! member would not understand. From then on, older programs can't take part.

/// The peer protocol of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Its version.
    pub version: u32,
    /// The oldest version that it also speaks.
    pub oldest_version: u32,
    /// Encoded protobuf fields that the program adds to each message, and to each command once the cluster has its
    /// version. Empty, except in tests of upgrades, which need a program with unknown fields.
    pub extension: &'static [u8],
}

impl Protocol {
    /// The protocol of this program. Version 4 was the first one in protobuf, version 5 introduced alarms, version 6
    /// changes of the members, version 7 the comparison of their states, version 8 users and roles.
    pub const CURRENT: Protocol = Protocol { version: 8, oldest_version: 7, extension: &[] };
}
