//! The replicated key-value state of the etcd API: [`store`] is a multi-version store, as etcd's v3 KV API requires.

pub mod store;
