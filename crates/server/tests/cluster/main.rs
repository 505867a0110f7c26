//! Whole members in one process: real sockets, real threads, real files.

mod authority;
mod comparison;
mod compression;
mod deadlines;
mod failures;
mod full_disk;
mod harness;
mod health;
mod hostile;
mod leases;
mod malformed;
mod members;
mod metrics;
mod permissions;
mod raw;
mod reflection;
mod service;
mod space;
mod state;
mod tls;
mod versions;
mod watches;
