//! The replicated key-value state of the etcd API: [`store`] is a multi-version store, as etcd's v3 KV API requires;
//! [`watch`] tells clients of its writes. [`membership`] and [`compaction`] say what a leader has to do: bring the
//! configuration of the consensus core in step with the records of the members, and give up old revisions. [`tokens`]
//! knows whose each token of a client is.

pub mod compaction;
pub mod membership;
pub mod store;
pub mod tokens;
pub mod versions;
pub mod watch;
