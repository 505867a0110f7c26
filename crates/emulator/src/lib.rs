//! An emulated, hostile LAN that runs any replica program of the protocol, judges it, and reports.
//!
//! What decides is pure: [`scenario`] reads what shall happen, [`emulation`] makes it happen and records it,
//! [`history`] is the record as the checker of linearizability wants it, [`statistics`] counts, [`judge`] judges,
//! [`report`] tells. [`virtual_run`] joins the emulation and our own replicas in virtual time, and [`mixture`] draws
//! what to run there. All chance comes from [`random`].
//!
//! What touches the operating system is in two places: [`harness`] starts programs and gives the emulation the real time, and
//! [`switch`] is the network's end of their sockets.

pub mod emulation;
#[cfg(test)]
mod fakes;
pub mod harness;
pub mod history;
pub mod judge;
pub mod mixture;
pub mod random;
pub mod report;
pub mod scenario;
mod seconds;
pub mod statistics;
pub mod switch;
pub mod virtual_run;
