//! Headers and revisions.

use bowline_api::etcdserverpb as pb;
use pb::cluster_client::ClusterClient;
use pb::lease_client::LeaseClient;
use pb::response_op::Response;

use crate::line::{Line, line};
use crate::requests::*;
use crate::site::{Site, revision};

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line!(Fresh, h01_every_header_has_ids_and_a_term_that_outlive_a_restart),
        line!(Fresh, h02_a_fresh_store_is_at_1_and_the_first_write_at_2),
        line!(Fresh, h03_the_cluster_service_has_no_revision_and_the_others_have_the_current_one),
        line!(Fresh, h04_some_responses_have_no_header_and_inner_ones_only_a_revision),
        line!(Fresh, h05_a_write_that_changes_nothing_takes_no_revision),
        line!(Fresh, h06_a_put_of_the_same_value_takes_a_revision),
        line!(Fresh, h07_the_writes_of_a_txn_share_one_revision),
        line!(Fresh, h08_revisions_have_no_gap_and_are_never_shared),
        line!(Fresh, h09_a_compaction_takes_no_revision),
        line!(Fresh, h09_a_lease_takes_no_revision_and_its_end_takes_one),
        line!(Shared, h10_a_key_starts_again_after_it_was_deleted),
        line!(Fresh, h11_a_range_in_the_past_shows_the_current_revision),
        line!(Fresh, h12_the_revision_never_decreases_over_restarts_and_compactions),
        line!(Members, h12_the_revision_never_decreases_from_member_to_member),
        Line::untested("h13_ids_of_new_members", "members can't be added yet"),
    ]
}

async fn h01_every_header_has_ids_and_a_term_that_outlive_a_restart(mut site: Site) {
    let mut seen = Vec::new();
    for round in 0..2 {
        let key = site.key("k");
        seen.push(site.put("k", "v").await.header);
        seen.push(site.range(get(&key)).await.header);
        seen.push(site.txn(all(vec![op_put(&key, "w")])).await.header);
        seen.push(site.delete("k").await.header);
        let at = site.revision().await;
        seen.push(site.compact(at).await.header);
        seen.push(site.status().await.header);
        seen.push(site.hash(0).await.expect("told").header);
        if !site.is_3_4() {
            let alarms = site.maintenance().alarm(pb::AlarmRequest::default()).await.expect("told");
            seen.push(alarms.into_inner().header);
        }
        let mut members = ClusterClient::new(site.channel());
        seen.push(members.member_list(pb::MemberListRequest::default()).await.expect("told").into_inner().header);
        if round == 0 {
            site.restart().await;
        }
    }
    let seen: Vec<pb::ResponseHeader> = seen.into_iter().map(|header| header.expect("a header")).collect();
    let ids = (seen[0].cluster_id, seen[0].member_id);
    for header in seen {
        assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0, "{header:?}");
        assert_eq!((header.cluster_id, header.member_id), ids);
    }
}

async fn h02_a_fresh_store_is_at_1_and_the_first_write_at_2(site: Site) {
    assert_eq!(site.revision().await, 1);
    assert_eq!(revision(&site.put("k", "v").await.header), 2);
}

async fn h03_the_cluster_service_has_no_revision_and_the_others_have_the_current_one(site: Site) {
    let at = revision(&site.put("k", "v").await.header);
    let list = ClusterClient::new(site.channel()).member_list(pb::MemberListRequest::default()).await.expect("told");
    assert_eq!(revision(&list.into_inner().header), 0);
    assert_eq!(revision(&site.status().await.header), at);
    assert_eq!(revision(&site.hash(0).await.expect("told").header), at);
    // That of alarms has no header in 3.4.
    if !site.is_3_4() {
        let alarms = site.maintenance().alarm(pb::AlarmRequest::default()).await.expect("told");
        assert_eq!(revision(&alarms.into_inner().header), at);
    }
}

async fn h04_some_responses_have_no_header_and_inner_ones_only_a_revision(site: Site) {
    let mut maintenance = site.maintenance();
    let defragmented = maintenance.defragment(pb::DefragmentRequest {}).await.expect("done").into_inner();
    assert_eq!(defragmented.header, None);
    let leader = site.status().await.leader;
    let moved = maintenance.move_leader(pb::MoveLeaderRequest { target_id: leader }).await.expect("it leads already");
    assert_eq!(moved.into_inner().header, None);

    let at = site.revision().await;
    let (key, other) = (site.key("k"), site.key("other"));
    let inner = all(vec![op_get(&key)]);
    let done = site.txn(all(vec![op_put(&key, "v"), op_get(&key), op_txn(inner), op_delete(&other, "")])).await;
    assert_eq!(revision(&done.header), at + 1);
    let only = |revision| Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() });
    let headers: Vec<_> = done.responses.iter().map(|op| inner_header(op.response.as_ref().expect("one"))).collect();
    assert_eq!(headers, [only(at + 1), only(at + 1), only(0), only(at + 1)]);
    let within = &transacted(&done.responses[2]).responses;
    assert_eq!(ranged(&within[0]).header, only(at + 1));
}

fn inner_header(response: &Response) -> Option<pb::ResponseHeader> {
    match response {
        Response::ResponseRange(response) => response.header,
        Response::ResponsePut(response) => response.header,
        Response::ResponseDeleteRange(response) => response.header,
        Response::ResponseTxn(response) => response.header,
    }
}

async fn h05_a_write_that_changes_nothing_takes_no_revision(site: Site) {
    let at = revision(&site.put("k", "v").await.header);
    let (key, missing) = (site.key("k"), site.key("missing"));
    assert_eq!(revision(&site.delete("missing").await.header), at);
    assert_eq!(revision(&site.txn(pb::TxnRequest::default()).await.header), at);
    let ineffective = all(vec![op_delete(&missing, ""), op_get(&key)]);
    assert_eq!(revision(&site.txn(ineffective).await.header), at);
    let not_taken = branches(vec![value_is(&key, "another")], vec![op_put(&key, "w")], vec![]);
    assert_eq!(revision(&site.txn(not_taken).await.header), at);
    assert_eq!(site.revision().await, at);
}

async fn h06_a_put_of_the_same_value_takes_a_revision(site: Site) {
    let at = revision(&site.put("k", "v").await.header);
    assert_eq!(revision(&site.put("k", "v").await.header), at + 1);
    let kv = site.get("k").await.expect("it is there");
    assert_eq!((kv.mod_revision, kv.version), (at + 1, 2));
}

async fn h07_the_writes_of_a_txn_share_one_revision(site: Site) {
    let at = revision(&site.put("d", "v").await.header);
    let (a, b, d) = (site.key("a"), site.key("b"), site.key("d"));
    let done = site.txn(all(vec![op_put(&b, "1"), op_delete(&d, ""), op_put(&a, "2")])).await;
    assert_eq!(revision(&done.header), at + 1);
    for name in ["a", "b"] {
        let kv = site.get(name).await.expect("it is there");
        assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (at + 1, at + 1, 1));
    }
    assert_eq!(site.get("d").await, None);
}

async fn h08_revisions_have_no_gap_and_are_never_shared(site: Site) {
    let first = site.revision().await;
    let mut seen = Vec::new();
    for round in 0..3 {
        // Several at once, and of every kind.
        let key = site.key(&format!("k{round}"));
        let (one, other, txn) = tokio::join!(
            site.try_put(put(&key, "1")),
            site.try_put(put(&site.key("k"), "2")),
            site.try_txn(all(vec![op_put(&site.key("a"), "3"), op_put(&site.key("b"), "4")])),
        );
        seen.push(revision(&one.expect("written").header));
        seen.push(revision(&other.expect("written").header));
        seen.push(revision(&txn.expect("done").header));
        seen.push(revision(&site.try_delete(delete(&key)).await.expect("deleted").header));
    }
    seen.sort_unstable();
    assert_eq!(seen, (first + 1..=first + 12).collect::<Vec<_>>());
}

async fn h09_a_compaction_takes_no_revision(site: Site) {
    let at = revision(&site.put("k", "v").await.header);
    assert_eq!(revision(&site.compact(at).await.header), at);
    assert_eq!(site.revision().await, at);
}

async fn h09_a_lease_takes_no_revision_and_its_end_takes_one(site: Site) {
    let mut leases = LeaseClient::new(site.channel());
    let at = site.revision().await;
    let granted = leases.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await.expect("granted").into_inner();
    assert_eq!(revision(&granted.header), at);
    for name in ["b", "a"] {
        let request = pb::PutRequest { lease: granted.id, ..put(&site.key(name), "v") };
        site.try_put(request).await.expect("written");
    }
    let revoked = leases.lease_revoke(pb::LeaseRevokeRequest { id: granted.id }).await.expect("revoked");
    assert_eq!(revision(&revoked.into_inner().header), at + 3);
    assert_eq!(site.range(site.all()).await.count, 0);
}

async fn h10_a_key_starts_again_after_it_was_deleted(site: Site) {
    let created = revision(&site.put("k", "1").await.header);
    let changed = revision(&site.put("k", "2").await.header);
    let kv = site.get("k").await.expect("it is there");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (created, changed, 2));
    site.delete("k").await;
    let again = revision(&site.put("k", "3").await.header);
    let kv = site.get("k").await.expect("it is there");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (again, again, 1));
}

async fn h11_a_range_in_the_past_shows_the_current_revision(site: Site) {
    let past = revision(&site.put("k", "1").await.header);
    let now = revision(&site.put("k", "2").await.header);
    let seen = site.range(pb::RangeRequest { revision: past, ..get(&site.key("k")) }).await;
    assert_eq!((revision(&seen.header), &seen.kvs[0].value[..]), (now, &b"1"[..]));
}

async fn h12_the_revision_never_decreases_over_restarts_and_compactions(mut site: Site) {
    let mut highest = 0;
    for round in 0..3 {
        let written = revision(&site.put("k", &round.to_string()).await.header);
        assert!(written > highest, "{written} comes after {highest}");
        let deleted = revision(&site.delete("k").await.header);
        assert_eq!(revision(&site.compact(deleted).await.header), deleted);
        site.maintenance().defragment(pb::DefragmentRequest {}).await.expect("done");
        site.restart().await;
        highest = site.revision().await;
        assert!(highest >= deleted, "{highest} comes after {deleted}");
    }
}

async fn h12_the_revision_never_decreases_from_member_to_member(mut site: Site) {
    let mut highest = 0;
    for round in 0..9_usize {
        if round % 3 == 2 {
            let cluster = site.members();
            let leader = cluster.leader().await;
            cluster.kill(leader);
            cluster.leader().await;
            cluster.restart(leader);
        }
        let written = site.member(round).await.put(put(&site.key("k"), "v")).await.expect("written").into_inner();
        assert!(revision(&written.header) > highest);
        highest = revision(&written.header);
        let seen = site.member(round + 1).await.range(get(&site.key("k"))).await.expect("read").into_inner();
        assert!(revision(&seen.header) >= highest);
    }
}
