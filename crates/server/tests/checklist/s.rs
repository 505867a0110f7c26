//! Limits and flags that clients and tools rely on.

use tonic::Code;

use crate::line::{Line, line};
use crate::requests::*;
use crate::site::{Site, refused};

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line!(Shared, s01_the_default_limits_are_those_of_etcd),
        line!(Fresh, s01_the_largest_transaction_is_a_setting).with(&[("max_txn_ops", "4")]),
        Line::untested("s02_flags_and_variables", "is about the command line: tested in crates/cli/tests/etcd.rs"),
    ]
}

/// A transaction with so many puts.
async fn puts(site: &Site, count: usize) -> Result<(), tonic::Status> {
    let puts = (0..count).map(|number| op_put(&site.key(&number.to_string()), "v")).collect();
    site.try_txn(all(puts)).await.map(|_| ())
}

async fn s01_the_default_limits_are_those_of_etcd(site: Site) {
    // e02 asserts that of --max-request-bytes, and crates/cli/src/etcd/tests.rs those of the times.
    puts(&site, 128).await.expect("as many as are allowed");
    refused(puts(&site, 129).await, Code::InvalidArgument, "etcdserver: too many operations in txn request");
    if !site.is_etcd() {
        // It came with 3.6.
        assert_eq!(site.status().await.db_size_quota, 2 << 30);
    }
}

async fn s01_the_largest_transaction_is_a_setting(site: Site) {
    puts(&site, 4).await.expect("as many as are allowed");
    refused(puts(&site, 5).await, Code::InvalidArgument, "etcdserver: too many operations in txn request");
}
