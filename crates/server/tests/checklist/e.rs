//! What goes wrong, in etcd's words.

use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use pb::cluster_client::ClusterClient;
use pb::compare::TargetUnion;
use pb::request_op::Request;
use pb::watch_client::WatchClient;
use tonic::{Code, Status};

use crate::line::{Line, line};
use crate::requests::*;
use crate::site::{Site, bytes, refused, revision};

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line!(Fresh, e01_a_refused_reconfiguration_has_the_code_unknown),
        line!(Shared, e02_a_request_that_is_too_large_is_told_so_in_two_ways),
        line!(Members, e03_without_a_quorum_every_refusal_tells_clients_to_try_elsewhere),
        line!(Members, e04_a_request_ends_in_time_without_a_quorum),
        Line::untested("e05_too_many_requests", "needs thousands that wait; tested in crates/member/src/queue.rs"),
        line!(Shared, e06_malformed_requests_are_refused_and_nobody_dies)
            .not_on_etcd("etcd has released versions that such a request ends"),
        line!(Shared, e07_metadata_of_clients_is_accepted),
        line!(Fresh, e_each_text_is_written_as_etcd_writes_it),
        line!(Members, e07_whoever_insists_on_a_leader_is_told_that_there_is_none),
    ]
}

async fn e01_a_refused_reconfiguration_has_the_code_unknown(site: Site) {
    let mut members = ClusterClient::new(site.channel());
    let mut add = async |url: &str| {
        members.member_add(pb::MemberAddRequest { peer_ur_ls: vec![url.to_owned()], is_learner: false }).await
    };
    add("http://127.0.0.1:1").await.expect("one may become two");
    let text = "etcdserver: re-configuration failed due to not enough started members";
    refused(add("http://127.0.0.1:3").await, Code::Unknown, text);
}

async fn e02_a_request_that_is_too_large_is_told_so_in_two_ways(site: Site) {
    let sized = |length: usize| site.try_put(put(&site.key("k"), &"x".repeat(length)));
    sized(1_500_000).await.expect("it fits");
    refused(sized(1_600_000).await, Code::InvalidArgument, "etcdserver: request is too large");
    let too_long = put(&site.key("k"), &"x".repeat(2_200_000));
    let length = bowline_api::Message::encoded_len(&too_long);
    let text = format!("grpc: received message larger than max ({length} vs. 2097152)");
    refused(site.try_put(too_long).await, Code::ResourceExhausted, &text);
    assert_eq!(site.get("k").await.expect("the first").value.len(), 1_500_000);
}

async fn e04_a_request_ends_in_time_without_a_quorum(mut site: Site) {
    site.put("k", "v").await;
    for id in [2, 3] {
        site.members().kill(id);
    }
    let started = Instant::now();
    // Ours says more than etcd, where it knows more: "no leader" means that nothing was done.
    let texts = ["etcdserver: no leader", "etcdserver: request timed out"];
    let timely = |error: Status| {
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert!(texts.iter().any(|text| error.message().starts_with(text)), "{error}");
    };
    let (written, read) = tokio::join!(site.try_put(put(&site.key("k"), "w")), site.try_range(get(&site.key("k"))));
    timely(written.expect_err("no quorum"));
    timely(read.expect_err("no quorum"));
    assert!(started.elapsed() < Duration::from_secs(8), "it took {:?}", started.elapsed());
}

async fn e06_malformed_requests_are_refused_and_nobody_dies(site: Site) {
    let key = site.key("k");
    site.put("k", "v").await;
    let never = |outcome: Result<(), Status>, what: &str| {
        let error = outcome.expect_err(what);
        let allowed = [Code::InvalidArgument, Code::OutOfRange, Code::NotFound];
        assert!(allowed.contains(&error.code()), "{what}: {error}");
        assert!(error.message().starts_with("etcdserver: "), "{what}: {error}");
    };
    for number in [-1, 5, 99, i32::MAX, i32::MIN] {
        let ranges = [
            pb::RangeRequest { sort_target: number, ..site.all() },
            pb::RangeRequest { sort_order: number, ..site.all() },
        ];
        for request in ranges {
            never(site.try_range(request).await.map(|_| ()), "an unknown order");
        }
        let unknown_result = pb::Compare { result: number, ..value_is(&key, "v") };
        let unknown_target = pb::Compare { target: number, ..value_is(&key, "v") };
        for compare in [unknown_result, unknown_target] {
            let guarded = branches(vec![compare], vec![op_put(&key, "then")], vec![op_put(&key, "else")]);
            never(site.try_txn(guarded).await.map(|_| ()), "a comparison that nobody understands guards no write");
        }
    }
    never(site.try_range(pb::RangeRequest { revision: i64::MAX, ..site.all() }).await.map(|_| ()), "far ahead");
    never(site.try_compact(i64::MAX).await.map(|_| ()), "far ahead");
    never(site.try_put(pb::PutRequest { lease: i64::MIN, ..put(&key, "v") }).await.map(|_| ()), "no lease");
    never(site.try_txn(all(vec![pb::RequestOp { request: None }])).await.map(|_| ()), "nothing to do");
    let nested = (0..60).fold(pb::TxnRequest::default(), |inner, _| all(vec![op_txn(inner)]));
    assert_eq!(site.try_txn(nested).await.expect_err("too deep").code(), Code::InvalidArgument);
    // These are strange, but mean something.
    let numbers = [i64::MIN, -1, i64::MAX];
    for number in numbers {
        let bounds =
            pb::RangeRequest { limit: number, min_mod_revision: number, max_create_revision: number, ..site.all() };
        site.try_range(bounds).await.expect("bounds that admit little");
        site.holds(compare(&key, LESS, TargetUnion::ModRevision(number))).await;
    }
    let backwards = pb::RangeRequest { range_end: bytes(&site.key("a")), ..get(&key) };
    site.try_txn(all(vec![op(Request::RequestRange(backwards))])).await.expect("an empty range");
    assert_eq!(&site.get("k").await.expect("it lives").value[..], b"v");
}

async fn e07_metadata_of_clients_is_accepted(site: Site) {
    let mut request = tonic::Request::new(put(&site.key("k"), "v"));
    for (name, value) in [("client-api-version", "3.6.0"), ("hasleader", "true"), ("hasleader", "true")] {
        request.metadata_mut().append(name, value.parse().expect("plain"));
    }
    site.kv().put(request).await.expect("written");
    let mut request = tonic::Request::new(get(&site.key("k")));
    request.metadata_mut().insert("client-api-version", "3.4.0".parse().expect("plain"));
    assert_eq!(site.kv().range(request).await.expect("read").into_inner().count, 1);
}

async fn e07_whoever_insists_on_a_leader_is_told_that_there_is_none(mut site: Site) {
    for id in [2, 3] {
        site.members().kill(id);
    }
    let insisting = |request: pb::PutRequest| {
        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert("hasleader", "true".parse().expect("plain"));
        request
    };
    let until = Instant::now() + Duration::from_secs(5);
    while site.status().await.leader != 0 {
        assert!(Instant::now() < until, "it still believes in a leader");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let started = Instant::now();
    let outcome = site.kv().put(insisting(put(&site.key("k"), "v"))).await;
    refused(outcome, Code::Unavailable, "etcdserver: no leader");
    assert!(started.elapsed() < Duration::from_secs(2), "it is told at once");
}

/// Go's client repeats only what is Unavailable, and ends watches at any other code. (The rest of E3 is about that client.)
async fn e03_without_a_quorum_every_refusal_tells_clients_to_try_elsewhere(mut site: Site) {
    site.put("k", "v").await;
    for id in [2, 3] {
        site.members().kill(id);
    }
    let until = Instant::now() + Duration::from_secs(15);
    while site.status().await.leader != 0 {
        assert!(Instant::now() < until, "it still believes in a leader");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (key, mut leases) = (site.key("k"), site.member_leases(0).await);
    let mut others = (leases.clone(), leases.clone(), leases.clone());
    let mut watches = WatchClient::new(site.channel());
    let mut watch = tonic::Request::new(tokio_stream::pending::<pb::WatchRequest>());
    watch.metadata_mut().insert("hasleader", "true".parse().expect("plain"));
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 0 };
    let live = pb::LeaseTimeToLiveRequest { id: 7, keys: false };
    let beats = tokio_stream::StreamExt::chain(
        tokio_stream::iter([pb::LeaseKeepAliveRequest { id: 7 }]),
        tokio_stream::pending(),
    );
    let outcomes: [Result<(), Status>; 9] = {
        let all = tokio::join!(
            site.try_put(put(&key, "w")),
            site.try_range(get(&key)),
            site.try_delete(delete(&key)),
            site.try_txn(all(vec![op_put(&key, "w")])),
            site.try_compact(1),
            leases.lease_grant(grant),
            others.0.lease_revoke(pb::LeaseRevokeRequest { id: 7 }),
            others.1.lease_time_to_live(live),
            async {
                let mut answers = others.2.lease_keep_alive(beats).await?.into_inner();
                answers.message().await.map(|_| ())
            },
        );
        [
            all.0.map(|_| ()),
            all.1.map(|_| ()),
            all.2.map(|_| ()),
            all.3.map(|_| ()),
            all.4.map(|_| ()),
            all.5.map(|_| ()),
            all.6.map(|_| ()),
            all.7.map(|_| ()),
            all.8,
        ]
    };
    for (place, outcome) in outcomes.into_iter().enumerate() {
        let error = outcome.expect_err("there is no quorum");
        assert_eq!(error.code(), Code::Unavailable, "request {place}: {error}");
        assert!(error.message().starts_with("etcdserver: "), "request {place}: {error}");
    }
    let refused_watch = async { watches.watch(watch).await?.into_inner().message().await.map(|_| ()) };
    refused(refused_watch.await, Code::Unavailable, "etcdserver: no leader");
}

/// The texts that a request can bring about here, each with its code. Those of a member without a leader, or of a follower,
/// have lines of their own (e04, e07, x08), and what a request alone can't bring about is in the table of
/// `grpc/errors.rs`.
async fn e_each_text_is_written_as_etcd_writes_it(site: Site) {
    let mut wrong = Vec::new();
    let mut expect = |outcome: Result<(), Status>, code: Code, text: &str| match outcome {
        Err(error) if (error.code(), error.message()) == (code, &format!("etcdserver: {text}")) => {}
        other => wrong.push(format!("{text}: {other:?}")),
    };
    let (key, none) = (site.key("k"), site.key("none"));
    let written = site.put("k", "v").await;
    let leases = site.member_leases(0).await;
    let grant = async |id, ttl| leases.clone().lease_grant(pb::LeaseGrantRequest { ttl, id }).await.map(|_| ());
    let puts = async |request: pb::PutRequest| site.try_put(request).await.map(|_| ());
    let txns = async |request: pb::TxnRequest| site.try_txn(request).await.map(|_| ());
    let ranges = async |request: pb::RangeRequest| site.try_range(request).await.map(|_| ());

    expect(puts(put("", "v")).await, Code::InvalidArgument, "key is not provided");
    expect(puts(pb::PutRequest { ignore_value: true, ..put(&none, "") }).await, Code::InvalidArgument, "key not found");
    let kept = pb::PutRequest { ignore_value: true, ..put(&key, "v") };
    expect(puts(kept).await, Code::InvalidArgument, "value is provided");
    let kept = pb::PutRequest { ignore_lease: true, lease: 7, ..put(&key, "v") };
    expect(puts(kept).await, Code::InvalidArgument, "lease is provided");
    let many = all((0..129).map(|_| op_get(&key)).collect());
    expect(txns(many).await, Code::InvalidArgument, "too many operations in txn request");
    let twice = all(vec![op_put(&key, "1"), op_put(&key, "2")]);
    expect(txns(twice).await, Code::InvalidArgument, "duplicate key given in txn request");
    let order = pb::RangeRequest { sort_target: 9, ..get(&key) };
    if !site.is_etcd() {
        // etcd ends the connection.
        expect(ranges(order).await, Code::InvalidArgument, "invalid sort option");
    }
    let large = puts(put(&key, &"x".repeat(1_600_000))).await;
    expect(large, Code::InvalidArgument, "request is too large");

    let future = pb::RangeRequest { revision: 1 << 40, ..get(&key) };
    expect(ranges(future).await, Code::OutOfRange, "mvcc: required revision is a future revision");
    site.put("k", "w").await;
    let compacted = revision(&written.header) + 1;
    site.compact(compacted).await;
    let past = pb::RangeRequest { revision: compacted - 1, ..get(&key) };
    expect(ranges(past).await, Code::OutOfRange, "mvcc: required revision has been compacted");
    let again = site.try_compact(compacted).await.map(|_| ());
    expect(again, Code::OutOfRange, "mvcc: required revision has been compacted");

    expect(grant(1, 9_000_000_001).await, Code::OutOfRange, "too large lease TTL");
    let leased = pb::PutRequest { lease: 4_711, ..put(&key, "v") };
    expect(puts(leased).await, Code::NotFound, "requested lease not found");
    let revoked = leases.clone().lease_revoke(pb::LeaseRevokeRequest { id: 4_711 }).await.map(|_| ());
    expect(revoked, Code::NotFound, "requested lease not found");
    grant(42, 600).await.expect("granted");
    expect(grant(42, 600).await, Code::FailedPrecondition, "lease already exists");
    let target = pb::MoveLeaderRequest { target_id: 4_711 };
    let moved = site.maintenance().move_leader(target).await.map(|_| ());
    expect(moved, Code::FailedPrecondition, "bad leader transferee");

    site.alarm(AlarmAction::Activate, 7, pb::AlarmType::Nospace).await;
    let full = "mvcc: database space exceeded";
    expect(puts(put(&key, "v")).await, Code::ResourceExhausted, full);
    expect(txns(all(vec![op_put(&key, "v")])).await, Code::ResourceExhausted, full);
    expect(grant(43, 600).await, Code::ResourceExhausted, full);
    site.alarm(AlarmAction::Deactivate, 7, pb::AlarmType::Nospace).await;
    site.alarm(AlarmAction::Activate, 7, pb::AlarmType::Corrupt).await;
    expect(puts(put(&key, "v")).await, Code::DataLoss, "corrupt cluster");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
