//! The versions of the cluster that introduced commands. No member writes such a command before every member
//! understands it, which the version of the cluster in the state tells.

/// [`Command::Alarm`](crate::store::Command::Alarm).
pub const ALARMS: u32 = 5;

/// [`Command::Member`](crate::store::Command::Member), and members that join.
pub const MEMBERS: u32 = 6;

/// [`Command::Compare`](crate::store::Command::Compare).
pub const COMPARISON: u32 = 7;

/// [`Command::Auth`](crate::store::Command::Auth).
pub const USERS: u32 = 8;
