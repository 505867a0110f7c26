//! An emulated, hostile LAN that runs any replica program of the LAN protocol, judges it, and reports the result.
//!
//! Most modules are pure: [`scenario`] reads scenario files, [`emulation`] carries a scenario out and records what
//! happens, [`history`] converts the record for the linearizability checker, [`statistics`] counts, [`judge`] judges
//! and [`report`] reports. [`virtual_run`] runs Bowline's own replicas on the emulation in virtual time, and
//! [`mixture`] draws random runs for it. All random numbers come from the core's
//! [`Random`].
//!
//! Two modules use the operating system: [`harness`] starts programs and gives the emulation the real time, and
//! [`switch`] is the network's end of their sockets.

pub mod emulation;
#[cfg(test)]
mod fakes;
pub mod harness;
pub mod history;
pub mod judge;
pub mod mixture;
pub mod report;
pub mod scenario;
mod seconds;
pub mod statistics;
pub mod switch;
pub mod virtual_run;

pub use bowline_node::raft::Random;
