//! Whole members in one process: real sockets, real threads, real files.

mod authority;
mod comparison;
mod compression;
mod deadlines;
mod failures;
mod full_disk;
mod gateway;
mod harness;
mod health;
mod hostile;
mod leases;
mod locks;
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

#[path = "../checklist/web.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod web;
