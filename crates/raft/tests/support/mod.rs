//! What the tests share: a bench for one replica, and a cluster for many.
//!
//! Each test binary uses a part of it.
#![allow(dead_code)]

pub(crate) mod bench;
pub(crate) mod cluster;
pub(crate) mod drills;
pub(crate) mod host;
pub(crate) mod invariants;
pub(crate) mod narrate;
pub(crate) mod oracle;
pub(crate) mod schedule;
pub(crate) mod script;
pub(crate) mod simulation;
