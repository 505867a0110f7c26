//! The replicated key-value state of the etcd API: [`store`] is a multi-version store, as etcd's v3 KV API requires;
//! [`watch`] tells clients of its writes.

pub mod store;
pub mod watch;
