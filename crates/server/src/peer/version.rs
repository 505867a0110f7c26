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

    /// The version that introduced the command for alarms.
    pub const ALARMS: u32 = 5;

    /// The version that introduced the command for members, and members that join.
    pub const MEMBERS: u32 = bowline_kv::membership::SINCE_VERSION;

    /// The version that introduced the command that compares the members' states.
    pub const COMPARISON: u32 = 7;

    /// The version that introduced the commands for users and roles.
    pub const USERS: u32 = 8;
}

/// The version to which the leader can raise the cluster; `None` if it can't. `members`: the version of each member;
/// `None` for one that is unknown or can't be reached.
pub(crate) fn raised(cluster: u32, members: impl IntoIterator<Item = Option<u32>>) -> Option<u32> {
    // An unknown member may have the oldest program.
    let all = members.into_iter().map(|version| version.unwrap_or(0)).min()?;
    (all > cluster).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_has_what_all_of_its_members_speak() {
        assert_eq!(raised(4, [Some(5), Some(4), Some(5)]), None);
        assert_eq!(raised(4, [Some(5), None, Some(5)]), None, "nobody knows what the second speaks");
        assert_eq!(raised(4, [Some(6), Some(5), Some(5)]), Some(5));
        assert_eq!(raised(5, [Some(5), Some(5)]), None);
        assert_eq!(raised(5, [Some(4), Some(5)]), None, "it never goes back");
        assert_eq!(raised(0, []), None);
    }
}
