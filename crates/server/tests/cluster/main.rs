//! Whole members in one process: real sockets, real threads, real files.

mod failures;
mod full_disk;
mod harness;
mod hostile;
mod leases;
mod malformed;
mod service;
mod space;
mod state;
