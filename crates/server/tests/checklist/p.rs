//! Puts and deletions.

use bowline_api::etcdserverpb as pb;
use pb::lease_client::LeaseClient;
use tonic::Code;

use crate::line::{Line, line};
use crate::requests::*;
use crate::site::{Site, refused, revision};

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line!(Shared, p01_prev_kv_is_what_was_there),
        line!(Shared, p02_what_is_ignored_must_not_be_given),
        line!(Shared, p03_what_is_kept_must_be_there),
        line!(Shared, p04_ignore_value_keeps_the_value),
        line!(Shared, p04_ignore_value_alone_drops_the_lease),
        line!(Shared, p05_an_unknown_lease_is_refused),
        line!(Shared, p06_a_put_moves_the_key_from_lease_to_lease),
        line!(Shared, p07_a_deletion_counts_and_shows_what_was_there_in_order),
        line!(Shared, p08_a_deleted_key_has_no_lease),
    ]
}

async fn p01_prev_kv_is_what_was_there(site: Site) {
    let request = |value| pb::PutRequest { prev_kv: true, ..put(&site.key("k"), value) };
    let first = site.try_put(request("1")).await.expect("written");
    assert_eq!(first.prev_kv, None);
    let second = site.try_put(request("2")).await.expect("written");
    let previous = second.prev_kv.expect("there was one");
    let at = revision(&first.header);
    assert_eq!((previous.create_revision, previous.mod_revision, previous.version), (at, at, 1));
    assert_eq!((&previous.key[..], &previous.value[..]), (site.key("k").as_bytes(), &b"1"[..]));
    assert_eq!(site.put("k", "3").await.prev_kv, None, "nobody asked");
    let deletion = pb::DeleteRangeRequest { prev_kv: true, ..delete(&site.key("k")) };
    let deleted = site.try_delete(deletion.clone()).await.expect("deleted");
    assert_eq!(&deleted.prev_kvs[0].value[..], b"3");
    assert!(site.try_delete(deletion).await.expect("done").prev_kvs.is_empty());
    assert_eq!(site.try_put(request("4")).await.expect("written").prev_kv, None, "it was deleted");
}

async fn p02_what_is_ignored_must_not_be_given(site: Site) {
    site.put("k", "v").await;
    let request = pb::PutRequest { ignore_value: true, ..put(&site.key("k"), "w") };
    refused(site.try_put(request).await, Code::InvalidArgument, "etcdserver: value is provided");
    let request = pb::PutRequest { ignore_lease: true, lease: 7, ..put(&site.key("k"), "w") };
    refused(site.try_put(request).await, Code::InvalidArgument, "etcdserver: lease is provided");
}

async fn p03_what_is_kept_must_be_there(site: Site) {
    for (ignore_value, ignore_lease) in [(true, false), (false, true), (true, true)] {
        let request = pb::PutRequest { ignore_value, ignore_lease, ..put(&site.key("k"), "") };
        refused(site.try_put(request).await, Code::InvalidArgument, "etcdserver: key not found");
    }
    site.put("k", "v").await;
    site.delete("k").await;
    let request = pb::PutRequest { ignore_value: true, ..put(&site.key("k"), "") };
    refused(site.try_put(request).await, Code::InvalidArgument, "etcdserver: key not found");
}

async fn p04_ignore_value_keeps_the_value(site: Site) {
    let before = revision(&site.put("k", "v").await.header);
    let request = pb::PutRequest { ignore_value: true, ..put(&site.key("k"), "") };
    let after = revision(&site.try_put(request).await.expect("written").header);
    let kv = site.get("k").await.expect("it is there");
    assert_eq!((&kv.value[..], kv.create_revision, kv.mod_revision, kv.version), (&b"v"[..], before, after, 2));
    let request = pb::PutRequest { ignore_lease: true, ..put(&site.key("k"), "w") };
    site.try_put(request).await.expect("written");
    let kv = site.get("k").await.expect("it is there");
    assert_eq!((&kv.value[..], kv.lease, kv.version), (&b"w"[..], 0, 3));
}

async fn grant(site: &Site) -> i64 {
    let granted = LeaseClient::new(site.channel()).lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await;
    granted.expect("granted").into_inner().id
}

/// The keys of a lease, by their names.
async fn attached(site: &Site, lease: i64) -> Vec<String> {
    let request = pb::LeaseTimeToLiveRequest { id: lease, keys: true };
    let told = LeaseClient::new(site.channel()).lease_time_to_live(request).await.expect("told").into_inner();
    let text = |key: bytes::Bytes| String::from_utf8_lossy(&key).trim_start_matches(&site.key("")).to_owned();
    told.keys.into_iter().map(text).collect()
}

async fn p04_ignore_value_alone_drops_the_lease(site: Site) {
    let lease = grant(&site).await;
    site.try_put(pb::PutRequest { lease, ..put(&site.key("k"), "v") }).await.expect("written");
    let keep_lease = pb::PutRequest { ignore_lease: true, ..put(&site.key("k"), "w") };
    site.try_put(keep_lease).await.expect("written");
    assert_eq!(site.get("k").await.expect("it is there").lease, lease);
    let keep_value = pb::PutRequest { ignore_value: true, ..put(&site.key("k"), "") };
    site.try_put(keep_value).await.expect("written");
    let kv = site.get("k").await.expect("it is there");
    assert_eq!((&kv.value[..], kv.lease), (&b"w"[..], 0));
}

async fn p05_an_unknown_lease_is_refused(site: Site) {
    for lease in [1, -1, 4_711, i64::MAX, i64::MIN] {
        let request = pb::PutRequest { lease, ..put(&site.key("k"), "v") };
        refused(site.try_put(request.clone()).await, Code::NotFound, "etcdserver: requested lease not found");
        let within = all(vec![op(pb::request_op::Request::RequestPut(request))]);
        refused(site.try_txn(within).await, Code::NotFound, "etcdserver: requested lease not found");
    }
    assert_eq!(site.get("k").await, None);
}

async fn p06_a_put_moves_the_key_from_lease_to_lease(site: Site) {
    let (one, other) = (grant(&site).await, grant(&site).await);
    let with = |lease| site.try_put(pb::PutRequest { lease, ..put(&site.key("k"), "v") });
    with(one).await.expect("written");
    assert_eq!((attached(&site, one).await.len(), attached(&site, other).await.len()), (1, 0));
    with(other).await.expect("written");
    assert_eq!((attached(&site, one).await.len(), attached(&site, other).await.len()), (0, 1));
    with(0).await.expect("written");
    assert_eq!((attached(&site, one).await.len(), attached(&site, other).await.len()), (0, 0));
}

async fn p07_a_deletion_counts_and_shows_what_was_there_in_order(site: Site) {
    for name in ["c", "a", "d", "b"] {
        site.put(name, name).await;
    }
    let request = pb::DeleteRangeRequest { prev_kv: true, ..delete_range(&site.key("a"), &site.key("d")) };
    let deleted = site.try_delete(request.clone()).await.expect("deleted");
    assert_eq!((deleted.deleted, site.names(&deleted.prev_kvs)), (3, vec!["a".into(), "b".into(), "c".into()]));
    let again = site.try_delete(request).await.expect("done");
    assert_eq!((again.deleted, again.prev_kvs.len()), (0, 0));
    let rest = site.delete("d").await;
    assert_eq!((rest.deleted, rest.prev_kvs.len()), (1, 0));
}

async fn p08_a_deleted_key_has_no_lease(site: Site) {
    let lease = grant(&site).await;
    site.try_put(pb::PutRequest { lease, ..put(&site.key("k"), "v") }).await.expect("written");
    assert_eq!(attached(&site, lease).await, ["k"]);
    site.delete("k").await;
    assert!(attached(&site, lease).await.is_empty());
    site.put("k", "w").await;
    LeaseClient::new(site.channel()).lease_revoke(pb::LeaseRevokeRequest { id: lease }).await.expect("revoked");
    assert!(site.get("k").await.is_some(), "it was no longer the lease's");
}
