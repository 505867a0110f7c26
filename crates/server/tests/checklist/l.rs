//! Leases.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use pb::lease_client::LeaseClient;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::line::{Line, line};
use crate::requests::*;
use crate::site::{Site, refused, revision};

/// A short time to live, in seconds: no server here has longer elections.
const SHORT: i64 = 2;

/// How long an end may take beyond its time.
const SLACK: Duration = Duration::from_secs(8);

const NOT_FOUND: &str = "etcdserver: requested lease not found";
const EXISTS: &str = "etcdserver: lease already exists";
const TOO_LARGE: &str = "etcdserver: too large lease TTL";

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line!(Shared, l01_an_identity_is_picked_or_chosen_and_is_one_leases),
        line!(Shared, l02_a_time_to_live_has_bounds),
        line!(Shared, l03_keep_alives_are_answered_in_order_and_an_unknown_lease_has_no_time),
        line!(Shared, l04_what_is_told_of_a_lease),
        line!(Shared, l05_what_is_unknown_cannot_be_revoked),
        line!(Fresh, l06_an_expired_lease_goes_with_its_keys_at_one_revision),
        line!(Members, l07_another_leader_gives_each_lease_its_whole_time),
        line!(Shared, l08_every_member_is_asked_alike),
        line!(Fresh, l09_a_keep_alive_names_the_revision_of_before),
        line!(Fresh, l10_leases_that_end_all_at_once_do_not_hold_up_writes),
        line!(Fresh, l11_all_leases_are_listed),
    ]
}

impl Site {
    fn leases(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel())
    }

    async fn try_grant(&self, id: i64, ttl: i64) -> Result<pb::LeaseGrantResponse, Status> {
        self.leases().lease_grant(pb::LeaseGrantRequest { ttl, id }).await.map(tonic::Response::into_inner)
    }

    async fn grant(&self, ttl: i64) -> i64 {
        self.try_grant(0, ttl).await.expect("granted").id
    }

    async fn try_revoke(&self, id: i64) -> Result<pb::LeaseRevokeResponse, Status> {
        self.leases().lease_revoke(pb::LeaseRevokeRequest { id }).await.map(tonic::Response::into_inner)
    }

    async fn attach(&self, name: &str, lease: i64) -> i64 {
        let request = pb::PutRequest { lease, ..put(&self.key(name), "v") };
        revision(&self.try_put(request).await.expect("written").header)
    }

    /// Its time to live now, the one that was granted, and its keys by their names, in order.
    async fn told(&self, id: i64, keys: bool) -> (i64, i64, Vec<String>) {
        let request = pb::LeaseTimeToLiveRequest { id, keys };
        let told = self.leases().lease_time_to_live(request).await.expect("told").into_inner();
        assert_eq!(told.id, id);
        let name = |key: &bytes::Bytes| String::from_utf8_lossy(key).trim_start_matches(&self.key("")).to_owned();
        let mut keys: Vec<String> = told.keys.iter().map(name).collect();
        keys.sort();
        (told.ttl, told.granted_ttl, keys)
    }

    async fn stream(&self, ids: &[i64]) -> KeepAlive {
        KeepAlive::open(self.leases(), ids).await
    }
}

/// A stream of keep-alives.
struct KeepAlive {
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    answers: Streaming<pb::LeaseKeepAliveResponse>,
}

impl KeepAlive {
    /// Etcd answers nothing before it is asked: these are the first requests.
    async fn open(mut client: LeaseClient<Channel>, ids: &[i64]) -> KeepAlive {
        let (requests, waiting) = mpsc::channel(16);
        for id in ids {
            requests.send(pb::LeaseKeepAliveRequest { id: *id }).await.expect("there is room");
        }
        let answers = client.lease_keep_alive(ReceiverStream::new(waiting)).await.expect("a stream").into_inner();
        KeepAlive { requests, answers }
    }

    async fn answer(&mut self) -> pb::LeaseKeepAliveResponse {
        self.answers.message().await.expect("no error").expect("an answer")
    }

    async fn ask(&mut self, id: i64) -> pb::LeaseKeepAliveResponse {
        self.requests.send(pb::LeaseKeepAliveRequest { id }).await.expect("the stream is open");
        self.answer().await
    }
}

async fn l01_an_identity_is_picked_or_chosen_and_is_one_leases(site: Site) {
    let (one, other) = (site.grant(60).await, site.grant(60).await);
    assert!(one > 0 && other > 0 && one != other);
    refused(site.try_grant(one, 30).await, Code::FailedPrecondition, EXISTS);
    assert_eq!(site.told(one, false).await.1, 60);
    site.try_revoke(one).await.expect("revoked");
    let again = site.try_grant(one, 30).await.expect("it is free again");
    assert_eq!((again.id, again.ttl, again.error.as_str()), (one, 30, ""));
    // Any number but 0 will do.
    let negative = site.try_grant(-other, 30).await.expect("granted");
    assert_eq!((negative.id, site.told(-other, false).await.1), (-other, 30));
    for id in [one, other, -other] {
        site.try_revoke(id).await.expect("revoked");
    }
}

async fn l02_a_time_to_live_has_bounds(site: Site) {
    let longest = 9_000_000_000;
    let lease = site.try_grant(0, i64::MIN).await.expect("granted");
    site.try_revoke(lease.id).await.expect("revoked");
    // One and a half of the longest election; ours is never below the 2 of etcd's default.
    let shortest = lease.ttl;
    assert!(shortest == SHORT || site.is_etcd() && shortest == 1, "{shortest}");
    let cases = [(-1, shortest), (0, shortest), (1, shortest), (2, 2), (3, 3), (longest, longest)];
    for (asked, granted) in cases {
        let lease = site.try_grant(0, asked).await.expect("granted");
        assert_eq!(lease.ttl, granted, "for {asked}");
        site.try_revoke(lease.id).await.expect("revoked");
    }
    for ttl in [longest + 1, i64::MAX] {
        refused(site.try_grant(0, ttl).await, Code::OutOfRange, TOO_LARGE);
    }
}

async fn l03_keep_alives_are_answered_in_order_and_an_unknown_lease_has_no_time(site: Site) {
    let (one, other, gone) = (site.grant(60).await, site.grant(30).await, site.grant(60).await);
    site.try_revoke(gone).await.expect("revoked");
    let order = [(one, 60), (gone, 0), (other, 30), (0, 0), (one, 60), (-one, 0), (other, 30)];
    let mut stream = site.stream(&order.map(|(id, _)| id)).await;
    for (id, ttl) in order {
        let answer = stream.answer().await;
        assert_eq!((answer.id, answer.ttl), (id, ttl));
        assert!(answer.header.is_some_and(|header| header.raft_term > 0));
    }
    // It goes on.
    assert_eq!(stream.ask(one).await.ttl, 60);
    site.try_revoke(one).await.expect("revoked");
    assert_eq!(stream.ask(one).await.ttl, 0);
    drop(stream.requests);
    assert_eq!(stream.answers.message().await.expect("no error"), None, "it ends when the client has enough");
    site.try_revoke(other).await.expect("revoked");
}

async fn l04_what_is_told_of_a_lease(site: Site) {
    let lease = site.grant(60).await;
    let (ttl, granted, keys) = site.told(lease, true).await;
    assert!((55..60).contains(&ttl), "whole seconds of less than a minute: {ttl}");
    assert_eq!((granted, keys.len()), (60, 0));
    for name in ["b", "a", "c"] {
        site.attach(name, lease).await;
    }
    site.delete("c").await;
    assert_eq!(site.told(lease, true).await.2, ["a", "b"]);
    assert_eq!(site.told(lease, false).await.2.len(), 0, "nobody asked");
    site.try_revoke(lease).await.expect("revoked");
    for keys in [false, true] {
        assert_eq!(site.told(lease, keys).await, (-1, 0, vec![]));
        assert_eq!(site.told(0, keys).await, (-1, 0, vec![]));
    }
}

async fn l05_what_is_unknown_cannot_be_revoked(site: Site) {
    let lease = site.grant(60).await;
    site.attach("k", lease).await;
    site.put("other", "v").await;
    site.try_revoke(lease).await.expect("revoked");
    assert_eq!(site.get("k").await, None);
    assert!(site.get("other").await.is_some());
    for id in [lease, -lease, 0] {
        refused(site.try_revoke(id).await, Code::NotFound, NOT_FOUND);
    }
}

async fn l06_an_expired_lease_goes_with_its_keys_at_one_revision(site: Site) {
    let begun = Instant::now();
    let (lease, stays) = (site.grant(SHORT).await, site.grant(60).await);
    site.attach("stays", stays).await;
    site.attach("b", lease).await;
    let last = site.attach("a", lease).await;
    let whole = Duration::from_secs(SHORT.unsigned_abs());
    let seen = loop {
        let seen = site.range(site.all()).await;
        if revision(&seen.header) > last {
            break seen;
        }
        assert_eq!(seen.count, 3);
        assert!(begun.elapsed() < whole + SLACK, "it never goes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(begun.elapsed() >= whole, "it went after {:?}", begun.elapsed());
    assert_eq!((revision(&seen.header), site.names(&seen.kvs)), (last + 1, vec!["stays".to_owned()]));
    assert_eq!(site.told(lease, true).await, (-1, 0, vec![]));
    assert_eq!(site.stream(&[lease]).await.answer().await.ttl, 0);
    refused(site.try_revoke(lease).await, Code::NotFound, NOT_FOUND);
    assert_eq!(site.told(stays, true).await.2, ["stays"]);
}

async fn l07_another_leader_gives_each_lease_its_whole_time(mut site: Site) {
    let lease = site.grant(60).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(site.told(lease, false).await.0 <= 58);
    let cluster = site.members();
    let leader = cluster.leader().await;
    cluster.kill(leader);
    cluster.leader().await;
    cluster.restart(leader);
    let mut at_another = site.member_leases(usize::try_from(leader).expect("a small number")).await;
    let request = pb::LeaseTimeToLiveRequest { id: lease, keys: false };
    let told = at_another.lease_time_to_live(request).await.expect("told").into_inner();
    assert!(told.ttl >= 59 && told.granted_ttl == 60, "{told:?}");
}

async fn l08_every_member_is_asked_alike(site: Site) {
    let lease = site.grant(60).await;
    site.attach("k", lease).await;
    for number in 0..3 {
        let mut leases = site.member_leases(number).await;
        let request = pb::LeaseTimeToLiveRequest { id: lease, keys: true };
        let told = leases.lease_time_to_live(request).await.expect("told").into_inner();
        assert_eq!((told.granted_ttl, told.keys.len()), (60, 1));
        let mut stream = KeepAlive::open(leases.clone(), &[lease]).await;
        assert_eq!((stream.answer().await.ttl, stream.ask(-lease).await.ttl), (60, 0));
        let own = leases.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await.expect("granted").into_inner().id;
        assert_eq!(stream.ask(own).await.ttl, 60);
        site.try_revoke(own).await.expect("revoked");
        assert_eq!(stream.ask(own).await.ttl, 0);
    }
    site.member_leases(1).await.lease_revoke(pb::LeaseRevokeRequest { id: lease }).await.expect("revoked");
    assert_eq!(site.get("k").await, None);
}

async fn l09_a_keep_alive_names_the_revision_of_before(site: Site) {
    let lease = site.grant(60).await;
    let at = site.attach("k", lease).await;
    let mut stream = site.stream(&[lease]).await;
    assert_eq!(revision(&stream.answer().await.header), at);
    let revoked = revision(&site.try_revoke(lease).await.expect("revoked").header);
    assert_eq!(revoked, at + 1);
    let gone = stream.ask(lease).await;
    assert_eq!((gone.ttl, revision(&gone.header)), (0, revoked));
}

async fn l10_leases_that_end_all_at_once_do_not_hold_up_writes(site: Site) {
    let mut grants = JoinSet::new();
    for _ in 0..700 {
        let mut leases = site.leases();
        grants.spawn(async move { leases.lease_grant(pb::LeaseGrantRequest { ttl: SHORT, id: 0 }).await });
    }
    let granted = grants.join_all().await.into_iter().filter(Result::is_ok).count();
    assert_eq!(granted, 700);
    let begun = Instant::now();
    loop {
        site.put("k", "v").await;
        let list = site.leases().lease_leases(pb::LeaseLeasesRequest {}).await.expect("told").into_inner();
        if list.leases.is_empty() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(SHORT.unsigned_abs()) + SLACK, "{} stay", list.leases.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn l11_all_leases_are_listed(site: Site) {
    let list = async || {
        let list = site.leases().lease_leases(pb::LeaseLeasesRequest {}).await.expect("told").into_inner();
        assert_eq!(revision(&list.header), site.revision().await);
        let ids: BTreeSet<i64> = list.leases.iter().map(|lease| lease.id).collect();
        assert_eq!(ids.len(), list.leases.len());
        ids
    };
    assert_eq!(list().await, BTreeSet::new());
    let mut granted = BTreeSet::new();
    for ttl in [30, 90, 60] {
        granted.insert(site.grant(ttl).await);
        assert_eq!(list().await, granted);
    }
    let gone = granted.pop_first().expect("there are three");
    site.try_revoke(gone).await.expect("revoked");
    assert_eq!(list().await, granted);
}
