//! What clients are served.

use bowline_api::etcdserverpb as pb;
use pb::cluster_client::ClusterClient;
use pb::maintenance_client::MaintenanceClient;
use tonic::Code;

use crate::harness::{Cluster, PATIENCE, get, http, prefix, put, values};

#[tokio::test]
async fn every_member_serves_writes_and_reads() {
    let cluster = Cluster::start(3, &[]);
    cluster.leader().await;
    for id in 1..=3 {
        let mut client = cluster.client(id).await;
        let response = client.put(put("key", &format!("from {id}"))).await.expect("written").into_inner();
        let header = response.header.expect("a header");
        let expected = i64::try_from(id).expect("small") + 1;
        assert_eq!((header.member_id, header.revision), (id, expected), "the first write makes revision 2");
        assert_eq!(header.cluster_id, cluster.configs[&id].cluster_id());
        assert!(header.raft_term > 0);
        // What a client wrote through a member, it sees there, even without asking the leader.
        let local = pb::RangeRequest { serializable: true, ..get("key") };
        let seen = client.range(local).await.expect("read").into_inner();
        assert_eq!(values(&seen), [format!("from {id}")]);
        // And everywhere, asking it.
        for other in 1..=3 {
            let seen = cluster.client(other).await.range(get("key")).await.expect("read").into_inner();
            assert_eq!(values(&seen), [format!("from {id}")], "at member {other}");
            assert_eq!(seen.header.expect("a header").revision, expected);
        }
    }
}

#[tokio::test]
async fn transactions_deletions_and_compactions_go_through_a_follower() {
    let cluster = Cluster::start(3, &[]);
    let mut client = cluster.client(cluster.follower().await).await;
    client.put(put("a", "1")).await.expect("written");
    let compare = |value: &str| pb::Compare {
        key: "a".into(),
        target: pb::compare::CompareTarget::Value as i32,
        target_union: Some(pb::compare::TargetUnion::Value(value.to_owned().into())),
        ..pb::Compare::default()
    };
    let op = |request| pb::RequestOp { request: Some(request) };
    let txn = |value: &str| pb::TxnRequest {
        compare: vec![compare(value)],
        success: vec![op(pb::request_op::Request::RequestPut(put("b", "then")))],
        failure: vec![op(pb::request_op::Request::RequestRange(get("a")))],
    };
    let done = client.txn(txn("1")).await.expect("done").into_inner();
    assert!(done.succeeded && done.responses.len() == 1);
    assert_eq!(done.header.expect("a header").revision, 3);
    let done = client.txn(txn("2")).await.expect("done").into_inner();
    assert!(!done.succeeded);
    assert_eq!(done.header.expect("a header").revision, 3, "nothing was written");
    let deletion = pb::DeleteRangeRequest { key: "a".into(), prev_kv: true, ..pb::DeleteRangeRequest::default() };
    let deleted = client.delete_range(deletion).await.expect("deleted").into_inner();
    assert_eq!((deleted.deleted, deleted.prev_kvs.len()), (1, 1));
    let old = pb::RangeRequest { revision: 2, ..get("a") };
    assert_eq!(values(client.range(old.clone()).await.expect("read").get_ref()), ["1"]);
    client.compact(pb::CompactionRequest { revision: 4, physical: true }).await.expect("compacted");
    let error = client.range(old).await.expect_err("it is gone");
    assert_eq!(
        (error.code(), error.message()),
        (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
    );
}

#[tokio::test]
async fn errors_have_the_codes_and_texts_of_etcd() {
    let cluster = Cluster::start(3, &[]);
    let mut client = cluster.client(cluster.leader().await).await;
    let error = client.put(put("", "x")).await.expect_err("no key");
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "etcdserver: key is not provided"));
    let error = client.put(pb::PutRequest { lease: 7, ..put("k", "x") }).await.expect_err("no lease");
    assert_eq!((error.code(), error.message()), (Code::NotFound, "etcdserver: requested lease not found"));
    let error = client.range(pb::RangeRequest { revision: 99, ..get("k") }).await.expect_err("not yet");
    let text = "etcdserver: mvcc: required revision is a future revision";
    assert_eq!((error.code(), error.message()), (Code::OutOfRange, text));
    let error = client.range(pb::RangeRequest { sort_target: 9, ..get("k") }).await.expect_err("no such target");
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "etcdserver: invalid sort option"));
}

#[tokio::test]
async fn a_streamed_range_merges_to_the_same_range() {
    let cluster = Cluster::start(3, &[]);
    let mut client = cluster.client(cluster.follower().await).await;
    for portion in 0..4 {
        let puts = (0..100).map(|number| {
            let request =
                pb::request_op::Request::RequestPut(put(&format!("s/{portion}/{number:03}"), &"v".repeat(300)));
            pb::RequestOp { request: Some(request) }
        });
        let puts: Vec<_> = puts.collect();
        for half in puts.chunks(50) {
            let txn = pb::TxnRequest { success: half.to_vec(), ..pb::TxnRequest::default() };
            client.txn(txn).await.expect("written");
        }
    }
    for limit in [0, 1, 64, 100, 399, 400, 401] {
        let request = pb::RangeRequest { limit, ..prefix("s/") };
        let whole = client.range(request.clone()).await.expect("read").into_inner();
        let mut stream = client.range_stream(request).await.expect("a stream").into_inner();
        let mut merged = pb::RangeResponse::default();
        while let Some(piece) = stream.message().await.expect("a piece") {
            let piece = piece.range_response.expect("it is one");
            merged.kvs.extend(piece.kvs);
            merged.header = piece.header.or(merged.header);
            (merged.more, merged.count) = (merged.more || piece.more, merged.count.max(piece.count));
        }
        assert_eq!(merged, whole, "with limit {limit}");
    }
    let sorted = pb::RangeRequest { sort_target: 1, ..prefix("s/") };
    let error = client.range_stream(sorted).await.expect_err("not in order of keys");
    assert_eq!(error.code(), Code::Unimplemented);
}

#[tokio::test]
async fn members_and_their_status_are_told() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader_of_all().await;
    cluster.client(leader).await.put(put("k", "v")).await.expect("written");
    let url = |id| format!("http://{}", cluster.server(id).client_address());
    let mut members = ClusterClient::connect(url(leader)).await.expect("it listens");
    let list = members.member_list(pb::MemberListRequest { linearizable: true }).await.expect("told").into_inner();
    assert_eq!(list.header.expect("a header").revision, 0, "the store has no part in it");
    let told: Vec<_> = list.members.iter().map(|member| (member.id, member.client_ur_ls.clone())).collect();
    assert_eq!(told, (1..=3).map(|id| (id, vec![url(id)])).collect::<Vec<_>>());
    let mut hashes = Vec::new();
    for id in 1..=3 {
        let mut maintenance = MaintenanceClient::connect(url(id)).await.expect("it listens");
        let status = maintenance.status(pb::StatusRequest {}).await.expect("told").into_inner();
        assert_eq!((status.leader, status.errors.len()), (leader, 0));
        assert!(status.version.split('.').all(|part| part.parse::<u32>().is_ok()), "{}", status.version);
        // A linearizable read first: then this member has the write.
        cluster.client(id).await.range(get("k")).await.expect("read");
        let hash = maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.expect("told").into_inner();
        hashes.push((hash.hash, hash.hash_revision));
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]) && hashes[0].1 == 2, "{hashes:?}");
}

#[tokio::test]
async fn what_is_not_there_yet_says_so() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let url = format!("http://{}", cluster.server(leader).client_address());
    let channel = tonic::transport::Channel::from_shared(url).expect("an address").connect().await.expect("it listens");
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.expect("it is connected");
    let codec = tonic_prost::ProstCodec::<pb::RangeRequest, pb::RangeResponse>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/etcdserverpb.New/New");
    let error = client.unary(tonic::Request::new(get("k")), path, codec).await.expect_err("not yet");
    assert_eq!(error.code(), Code::Unimplemented);
}

/// What a member says of the operations that it applied: puts, deletions, reads, transactions.
async fn operations(cluster: &Cluster, id: u64) -> [u64; 4] {
    let metrics = http(cluster.server(id).client_address(), "GET /metrics").await;
    ["put", "delete", "range", "txn"].map(|what| {
        let name = format!("etcd_mvcc_{what}_total ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no {name} in {metrics}"))
    })
}

/// Waits until the members say that they applied these.
async fn have_applied(cluster: &Cluster, expected: [[u64; 4]; 3]) {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        let mut told = Vec::new();
        for id in 1..=3 {
            told.push(operations(cluster, id).await);
        }
        if told == expected {
            return;
        }
        assert!(std::time::Instant::now() < until, "{told:?} instead of {expected:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn every_member_counts_the_operations_that_it_applies() {
    let cluster = Cluster::start(3, &[]);
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let mut client = cluster.client(follower).await;
    let op_put = |key| pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put(key, "v"))) };
    let op_get = |key| pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(get(key))) };
    let txn = |success: Vec<pb::RequestOp>| pb::TxnRequest { success, ..pb::TxnRequest::default() };
    client.put(put("a", "1")).await.expect("written");
    client.txn(txn(vec![op_put("b"), op_put("c")])).await.expect("written");
    have_applied(&cluster, [[3, 0, 0, 1]; 3]).await;
    let mut client = cluster.client(leader).await;
    client.txn(txn(vec![op_put("b")])).await.expect("written");
    client.put(pb::PutRequest { prev_kv: true, ..put("a", "2") }).await.expect("written");
    let all = pb::DeleteRangeRequest { key: "b".into(), range_end: "d".into(), ..pb::DeleteRangeRequest::default() };
    assert_eq!(client.delete_range(all.clone()).await.expect("deleted").into_inner().deleted, 2);
    assert_eq!(client.delete_range(all).await.expect("deleted").into_inner().deleted, 0);
    client.put(put("", "refused")).await.expect_err("there is no key");
    have_applied(&cluster, [[5, 2, 1, 2]; 3]).await;
    // Reads count where they are served.
    let mut expected = [[5, 2, 1, 2]; 3];
    for id in 1..=3 {
        let mut client = cluster.client(id).await;
        for _ in 0..id {
            client.range(get("a")).await.expect("read");
        }
        client.txn(txn(vec![op_get("a"), op_get("b")])).await.expect("read");
        let place = usize::try_from(id).expect("small") - 1;
        expected[place][2] += id + 2;
        expected[place][3] += 1;
    }
    have_applied(&cluster, expected).await;
}

#[tokio::test]
async fn plain_http_is_served_on_the_same_port() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader().await;
    cluster.client(leader).await.put(put("k", "v")).await.expect("written");
    let address = cluster.server(leader).client_address();
    let health = http(address, "GET /health").await;
    assert!(health.starts_with("HTTP/1.1 200") && health.ends_with(r#"{"health":"true","reason":""}"#), "{health}");
    assert!(http(address, "POST /health").await.starts_with("HTTP/1.1 405"));
    let ready = http(address, "GET /readyz?verbose").await;
    assert!(ready.contains("[+]linearizable_read ok") && ready.ends_with("ok\n"), "{ready}");
    assert!(http(address, "GET /version").await.contains(r#""etcdserver":"3."#));
    let metrics = http(address, "GET /metrics").await;
    for line in ["etcd_server_is_leader 1", "etcd_server_has_leader 1", "etcd_mvcc_put_total 1"] {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line} is not in {metrics}");
    }
    assert!(http(address, "GET /nothing").await.starts_with("HTTP/1.1 404"));
    // Without a quorum this member is alive, but not ready.
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.kill(id);
    }
    cluster.without_leader(leader).await;
    let health = http(address, "GET /health").await;
    assert!(health.starts_with("HTTP/1.1 503") && health.contains("RAFT NO LEADER"), "{health}");
    assert!(http(address, "GET /livez").await.starts_with("HTTP/1.1 200"));
    assert!(http(address, "GET /readyz").await.starts_with("HTTP/1.1 503"));
}
