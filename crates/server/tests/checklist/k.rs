//! The Lock and Election services.

use std::time::Duration;

use bowline_api::etcdserverpb as pb;
use bowline_api::{v3electionpb as elections, v3lockpb as locks};
use elections::election_client::ElectionClient;
use locks::lock_client::LockClient;
use pb::lease_client::LeaseClient;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::line::{Line, line};
use crate::requests::*;
use crate::site::{Site, bytes, refused, revision};

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line!(Shared, k01_a_lock_is_a_key_under_its_name_and_lease),
        line!(Shared, k01_without_a_lease_the_server_makes_one),
        line!(Shared, k02_the_same_lease_gets_the_same_lock_again),
        line!(Shared, k03_who_waits_gets_the_lock_in_the_order_of_creation),
        line!(Shared, k03_a_waiter_whose_key_is_gone_does_not_get_the_lock)
            .not_on_3_4("it does not look again, as later ones do"),
        line!(Shared, k03_a_client_that_goes_away_leaves_the_queue),
        line!(Members, k03_a_waiter_outlives_the_leader),
        line!(Shared, k04_a_lock_is_given_up_and_an_unknown_one_too),
        line!(Shared, k05_who_campaigns_leads_after_those_before),
        line!(Shared, k05_a_second_campaign_of_a_lease_has_a_new_value),
        line!(Shared, k06_without_a_leader_there_are_errors),
        line!(Shared, k07_every_proclamation_is_observed_in_order),
        line!(Members, k07_observers_outlive_the_leader_of_the_cluster),
        line!(Shared, k08_an_unknown_lease_is_told),
        line!(Shared, k09_each_holder_has_a_greater_fencing_token),
        line!(Shared, k09_locks_are_documented_as_advisory),
    ]
}

async fn grant(site: &Site) -> i64 {
    let request = pb::LeaseGrantRequest { ttl: 600, ..pb::LeaseGrantRequest::default() };
    LeaseClient::new(site.channel()).lease_grant(request).await.expect("granted").into_inner().id
}

async fn revoke(site: &Site, id: i64) {
    let request = pb::LeaseRevokeRequest { id };
    LeaseClient::new(site.channel()).lease_revoke(request).await.expect("revoked");
}

async fn try_lock(channel: Channel, name: String, lease: i64) -> Result<locks::LockResponse, Status> {
    let request = locks::LockRequest { name: name.into(), lease };
    LockClient::new(channel).lock(request).await.map(tonic::Response::into_inner)
}

async fn lock(site: &Site, name: &str, lease: i64) -> locks::LockResponse {
    try_lock(site.channel(), site.key(name), lease).await.expect("locked")
}

async fn unlock(site: &Site, key: bytes::Bytes) -> i64 {
    let unlocked = LockClient::new(site.channel()).unlock(locks::UnlockRequest { key }).await.expect("unlocked");
    revision(&unlocked.into_inner().header)
}

type Waiting = JoinHandle<Result<locks::LockResponse, Status>>;

/// Waits until a name has so many keys.
async fn queue(site: &Site, name: &str, length: i64) {
    for _ in 0..1_000 {
        if site.range(prefix(&site.key(&format!("{name}/")))).await.count == length {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} does not get {length} keys");
}

/// Somebody who waits for a lock, behind `before` others.
async fn waiting(site: &Site, name: &str, lease: i64, before: i64) -> Waiting {
    let waiting = tokio::spawn(try_lock(site.channel(), site.key(name), lease));
    queue(site, name, before + 1).await;
    waiting
}

async fn k01_a_lock_is_a_key_under_its_name_and_lease(site: Site) {
    let lease = grant(&site).await;
    let locked = lock(&site, "l", lease).await;
    assert_eq!(locked.key, site.key(&format!("l/{lease:x}")));
    let kv = site.get(&format!("l/{lease:x}")).await.expect("it is there");
    assert_eq!((&kv.value[..], kv.lease), (&b""[..], lease));
    // The lock ends with its lease.
    revoke(&site, lease).await;
    queue(&site, "l", 0).await;
}

async fn k01_without_a_lease_the_server_makes_one(site: Site) {
    let locked = lock(&site, "l", 0).await;
    let kv = site.range(get(&String::from_utf8_lossy(&locked.key))).await.kvs.pop().expect("it is there");
    assert_eq!(locked.key, site.key(&format!("l/{:x}", kv.lease)));
    let request = pb::LeaseTimeToLiveRequest { id: kv.lease, keys: false };
    let lease = LeaseClient::new(site.channel()).lease_time_to_live(request).await.expect("told").into_inner();
    assert_eq!(lease.granted_ttl, 60);
    revoke(&site, kv.lease).await;
}

async fn k02_the_same_lease_gets_the_same_lock_again(site: Site) {
    let lease = grant(&site).await;
    let first = lock(&site, "l", lease).await;
    let again = lock(&site, "l", lease).await;
    assert_eq!(first.key, again.key);
    assert_eq!(site.get(&format!("l/{lease:x}")).await.expect("it is there").version, 1);
}

async fn k03_who_waits_gets_the_lock_in_the_order_of_creation(site: Site) {
    let (mut leases, mut waiters) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        leases.push(grant(&site).await);
    }
    let mut held = lock(&site, "l", leases[0]).await;
    // The order of the keys' names is another one.
    for (place, lease) in (1..).zip(leases[1..].iter().rev()) {
        waiters.push(waiting(&site, "l", *lease, place).await);
    }
    for waiter in waiters {
        assert!(!waiter.is_finished(), "the lock is held");
        unlock(&site, held.key).await;
        held = waiter.await.expect("it goes on").expect("locked");
        let first = site.range(prefix(&site.key("l/"))).await.kvs.into_iter().min_by_key(|kv| kv.create_revision);
        assert_eq!(held.key, first.expect("the holder's").key);
    }
}

async fn k03_a_waiter_whose_key_is_gone_does_not_get_the_lock(site: Site) {
    let (holder, ended) = (grant(&site).await, grant(&site).await);
    let held = lock(&site, "l", holder).await;
    let waiter = waiting(&site, "l", ended, 1).await;
    revoke(&site, ended).await;
    unlock(&site, held.key).await;
    refused(waiter.await.expect("it goes on"), Code::Unknown, "mutex: session is expired");
    queue(&site, "l", 0).await;
}

async fn k03_a_client_that_goes_away_leaves_the_queue(site: Site) {
    let (holder, other) = (grant(&site).await, grant(&site).await);
    let held = lock(&site, "l", holder).await;
    for lease in [other, 0] {
        let waiter = waiting(&site, "l", lease, 1).await;
        waiter.abort();
        if site.is_etcd() && lease == 0 {
            // It keeps that key until its lease ends.
            break;
        }
        queue(&site, "l", 1).await;
    }
    assert_eq!(lock(&site, "l", holder).await.key, held.key);
}

async fn k03_a_waiter_outlives_the_leader(mut site: Site) {
    let (holder, other) = (grant(&site).await, grant(&site).await);
    let held = lock(&site, "l", holder).await;
    let leader = site.members().leader().await;
    let follower = site.members().follower().await;
    let channel = site.members().channel(follower).await;
    let waiter = tokio::spawn(try_lock(channel.clone(), site.key("l"), other));
    queue(&site, "l", 2).await;
    site.members().kill(leader);
    site.members().leader().await;
    let unlocked = LockClient::new(channel).unlock(locks::UnlockRequest { key: held.key }).await;
    unlocked.expect("there is a leader again");
    let next = waiter.await.expect("it goes on").expect("locked");
    assert_eq!(next.key, site.key(&format!("l/{other:x}")));
}

async fn k04_a_lock_is_given_up_and_an_unknown_one_too(site: Site) {
    let lease = grant(&site).await;
    let locked = lock(&site, "l", lease).await;
    let at = revision(&locked.header);
    assert_eq!(unlock(&site, locked.key.clone()).await, at + 1);
    assert_eq!(site.get(&format!("l/{lease:x}")).await, None);
    unlock(&site, locked.key).await;
    assert_eq!(lock(&site, "l", lease).await.key, site.key(&format!("l/{lease:x}")));
}

fn election(site: &Site) -> ElectionClient<Channel> {
    ElectionClient::new(site.channel())
}

async fn campaign(channel: Channel, name: String, lease: i64, value: &str) -> Result<elections::LeaderKey, Status> {
    let request = elections::CampaignRequest { name: name.into(), lease, value: value.to_owned().into() };
    let elected = ElectionClient::new(channel).campaign(request).await?.into_inner();
    assert!(revision(&elected.header) >= elected.leader.as_ref().expect("a key").rev);
    Ok(elected.leader.expect("a key"))
}

async fn lead(site: &Site, name: &str, lease: i64, value: &str) -> elections::LeaderKey {
    campaign(site.channel(), site.key(name), lease, value).await.expect("elected")
}

async fn leader(site: &Site, name: &str) -> Result<elections::LeaderResponse, Status> {
    let request = elections::LeaderRequest { name: bytes(&site.key(name)) };
    election(site).leader(request).await.map(tonic::Response::into_inner)
}

async fn proclaim(site: &Site, key: &elections::LeaderKey, value: &str) -> Result<(), Status> {
    let request = elections::ProclaimRequest { leader: Some(key.clone()), value: bytes(value) };
    election(site).proclaim(request).await.map(drop)
}

async fn resign(site: &Site, key: &elections::LeaderKey) {
    election(site).resign(elections::ResignRequest { leader: Some(key.clone()) }).await.expect("resigned");
}

async fn observe(channel: Channel, name: String) -> Streaming<elections::LeaderResponse> {
    let request = elections::LeaderRequest { name: name.into() };
    ElectionClient::new(channel).observe(request).await.expect("a stream").into_inner()
}

async fn observed(stream: &mut Streaming<elections::LeaderResponse>) -> String {
    let next = tokio::time::timeout(Duration::from_secs(15), stream.message()).await.expect("in time");
    let kv = next.expect("no error").expect("more").kv.expect("a key");
    String::from_utf8_lossy(&kv.value).into_owned()
}

async fn k05_who_campaigns_leads_after_those_before(site: Site) {
    let (first, second) = (grant(&site).await, grant(&site).await);
    let key = lead(&site, "e", first, "one").await;
    let kv = site.get(&format!("e/{first:x}")).await.expect("it is there");
    assert_eq!((&kv.value[..], kv.lease), (&b"one"[..], first));
    let expected = elections::LeaderKey {
        name: bytes(&site.key("e")),
        key: bytes(&site.key(&format!("e/{first:x}"))),
        rev: kv.create_revision,
        lease: first,
    };
    assert_eq!(key, expected);
    let next = tokio::spawn(campaign(site.channel(), site.key("e"), second, "two"));
    queue(&site, "e", 2).await;
    assert!(!next.is_finished(), "one leads");
    assert_eq!(leader(&site, "e").await.expect("one").kv, Some(kv));
    resign(&site, &key).await;
    let next = next.await.expect("it goes on").expect("elected");
    assert!(next.rev > key.rev && next.lease == second, "{next:?}");
    // Who does not lead any more can't announce anything, and has nothing to give up.
    let error = proclaim(&site, &key, "three").await.expect_err("it does not lead");
    assert_eq!((error.code(), error.message()), (Code::Unknown, "election: not leader"));
    resign(&site, &key).await;
    assert_eq!(&leader(&site, "e").await.expect("two").kv.expect("a key").value[..], b"two");
}

async fn k05_a_second_campaign_of_a_lease_has_a_new_value(site: Site) {
    let lease = grant(&site).await;
    let key = lead(&site, "e", lease, "one").await;
    assert_eq!(lead(&site, "e", lease, "two").await, key);
    let kv = leader(&site, "e").await.expect("two").kv.expect("a key");
    assert_eq!((&kv.value[..], kv.lease, kv.create_revision), (&b"two"[..], lease, key.rev));
}

async fn k06_without_a_leader_there_are_errors(site: Site) {
    refused(leader(&site, "e").await, Code::Unknown, "election: no leader");
    let missing = "\"leader\" field must be provided";
    refused(election(&site).proclaim(elections::ProclaimRequest::default()).await, Code::Unknown, missing);
    refused(election(&site).resign(elections::ResignRequest::default()).await, Code::Unknown, missing);
}

async fn k07_every_proclamation_is_observed_in_order(site: Site) {
    let (first, second) = (grant(&site).await, grant(&site).await);
    // One may begin before there is a leader; etcd answers it only then.
    let early = tokio::spawn(observe(site.channel(), site.key("e")));
    tokio::task::yield_now().await;
    let key = lead(&site, "e", first, "1").await;
    let (mut early, mut late) = (early.await.expect("it goes on"), observe(site.channel(), site.key("e")).await);
    assert_eq!(observed(&mut early).await, "1");
    assert_eq!(observed(&mut late).await, "1");
    let next = tokio::spawn(campaign(site.channel(), site.key("e"), second, "4"));
    queue(&site, "e", 2).await;
    for value in ["2", "3"] {
        proclaim(&site, &key, value).await.expect("it leads");
    }
    for stream in [&mut early, &mut late] {
        for value in ["2", "3"] {
            assert_eq!(observed(stream).await, value);
        }
    }
    resign(&site, &key).await;
    let key = next.await.expect("it goes on").expect("elected");
    assert_eq!(observed(&mut early).await, "4");
    assert_eq!(observed(&mut late).await, "4");
    if !site.is_etcd() {
        // Nothing is left out, however fast it comes.
        for value in 5..50 {
            proclaim(&site, &key, &value.to_string()).await.expect("it leads");
        }
        for value in 5..50 {
            assert_eq!(observed(&mut early).await, value.to_string());
        }
    }
}

async fn k07_observers_outlive_the_leader_of_the_cluster(mut site: Site) {
    let lease = grant(&site).await;
    let key = lead(&site, "e", lease, "1").await;
    let (leader, follower) = (site.members().leader().await, site.members().follower().await);
    let mut client = ElectionClient::new(site.members().channel(follower).await);
    let request = elections::LeaderRequest { name: bytes(&site.key("e")) };
    let mut stream = client.observe(request).await.expect("a stream").into_inner();
    assert_eq!(observed(&mut stream).await, "1");
    site.members().kill(leader);
    site.members().leader().await;
    let request = elections::ProclaimRequest { leader: Some(key), value: bytes("2") };
    client.proclaim(request).await.expect("there is a leader again");
    assert_eq!(observed(&mut stream).await, "2");
}

async fn k08_an_unknown_lease_is_told(site: Site) {
    let text = "etcdserver: requested lease not found";
    refused(try_lock(site.channel(), site.key("l"), 4_711).await, Code::Unknown, text);
    refused(campaign(site.channel(), site.key("e"), 4_711, "v").await, Code::Unknown, text);
    queue(&site, "l", 0).await;
    queue(&site, "e", 0).await;
}

async fn k09_each_holder_has_a_greater_fencing_token(site: Site) {
    let mut last = 0;
    let mut waiter: Option<Waiting> = None;
    for _ in 0..4 {
        let locked = match waiter.take() {
            Some(waiter) => waiter.await.expect("it goes on").expect("locked"),
            None => lock(&site, "l", grant(&site).await).await,
        };
        let token = revision(&locked.header);
        let kv = site.range(get(&String::from_utf8_lossy(&locked.key))).await.kvs.pop().expect("it is there");
        assert!(token > last && token >= kv.create_revision, "{token} after {last}: {kv:?}");
        last = token;
        waiter = Some(waiting(&site, "l", grant(&site).await, 1).await);
        unlock(&site, locked.key).await;
    }
    let mut last = 0;
    for value in ["1", "2", "3"] {
        let key = lead(&site, "e", grant(&site).await, value).await;
        assert!(key.rev > last, "{} after {last}", key.rev);
        last = key.rev;
        resign(&site, &key).await;
    }
}

async fn k09_locks_are_documented_as_advisory(_: Site) {
    let texts = [
        include_str!("../../../../README.md"),
        include_str!("../../../api/proto/lock.proto"),
        include_str!("../../../api/proto/election.proto"),
    ];
    for text in texts {
        assert!(text.contains("advisory") && text.contains("fencing token"), "{text}");
    }
}
