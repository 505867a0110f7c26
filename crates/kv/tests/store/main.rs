//! The checklist of etcd's v3 API, line by line, as far as the state machine decides it; then the store
//! against a naive model, restarts, snapshots and hostile bytes.

mod alarms;
mod backups;
mod bench;
mod codec;
mod compactions;
mod comparisons;
mod disk;
mod hashes;
mod headers;
mod leases;
mod members;
mod model;
mod puts;
mod ranges;
mod replicas;
mod rewrites;
mod room;
mod txns;
mod users;
