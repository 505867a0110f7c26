//! Leases while members die and stop.

use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use pb::lease_client::LeaseClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};

use crate::harness::{Cluster, get, put};

/// The shortest time to live, in seconds.
const TTL: i64 = 2;

/// An election, and what a busy machine adds to it.
const SLACK: Duration = Duration::from_secs(30);

struct KeepAlive {
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    answers: Streaming<pb::LeaseKeepAliveResponse>,
}

impl KeepAlive {
    async fn open(client: &mut LeaseClient<Channel>, insists: bool) -> KeepAlive {
        let (requests, waiting) = mpsc::channel(1);
        let mut request = Request::new(ReceiverStream::new(waiting));
        if insists {
            request.metadata_mut().insert("hasleader", "true".parse().expect("a good value"));
        }
        let answers = client.lease_keep_alive(request).await.expect("a stream").into_inner();
        KeepAlive { requests, answers }
    }

    /// Its time to live after that.
    async fn renew(&mut self, id: i64) -> i64 {
        self.requests.send(pb::LeaseKeepAliveRequest { id }).await.expect("the stream is open");
        self.answers.message().await.expect("no error").expect("an answer").ttl
    }

    async fn end(&mut self) -> (Code, String) {
        let error = self.answers.message().await.expect_err("it ends");
        (error.code(), error.message().to_owned())
    }
}

async fn grant(client: &mut LeaseClient<Channel>) -> i64 {
    client.lease_grant(pb::LeaseGrantRequest { ttl: TTL, id: 0 }).await.expect("granted").into_inner().id
}

#[tokio::test]
async fn a_lease_that_is_kept_alive_outlives_its_leader_and_another_does_not() {
    let mut cluster = Cluster::start(3, &[]);
    let (leader, survivor) = (cluster.leader().await, cluster.follower().await);
    let (mut leases, mut kv) = (cluster.leases(survivor).await, cluster.client(survivor).await);
    // On a busy machine the election may take longer than whoever insists on a leader would wait.
    let mut stream = KeepAlive::open(&mut leases, false).await;
    let (kept, left) = (grant(&mut leases).await, grant(&mut leases).await);
    for (key, lease) in [("kept", kept), ("left", left)] {
        kv.put(pb::PutRequest { lease, ..put(key, "v") }).await.expect("written");
    }
    assert_eq!(stream.renew(left).await, TTL);
    let renewed = Instant::now();
    cluster.kill(leader);
    let mut is_there = async |key| kv.range(get(key)).await.expect("read").into_inner().count == 1;
    loop {
        assert_eq!(stream.renew(kept).await, TTL, "whoever leads");
        assert!(is_there("kept").await);
        if !is_there("left").await {
            break;
        }
        assert!(renewed.elapsed() < Duration::from_secs(TTL.unsigned_abs()) + SLACK, "it never goes");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(renewed.elapsed() >= Duration::from_secs(TTL.unsigned_abs()), "it went after {:?}", renewed.elapsed());
    assert_eq!((stream.renew(left).await, stream.renew(kept).await), (0, TTL));
    // Nobody keeps it any more.
    let renewed = Instant::now();
    while is_there("kept").await {
        assert!(renewed.elapsed() < Duration::from_secs(TTL.unsigned_abs()) + SLACK, "it never goes");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn leases_outlive_all_members() {
    let mut cluster = Cluster::start(3, &[]);
    let mut leases = cluster.leases(cluster.leader().await).await;
    let lease = leases.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 }).await.expect("granted").into_inner().id;
    let attached = pb::PutRequest { lease, ..put("k", "v") };
    cluster.client(1).await.put(attached).await.expect("written");
    (1..=3).for_each(|id| cluster.kill(id));
    (1..=3).for_each(|id| cluster.restart(id));
    cluster.leader().await;
    for id in 1..=3 {
        let mut leases = cluster.leases(id).await;
        let request = pb::LeaseTimeToLiveRequest { id: lease, keys: true };
        let told = leases.lease_time_to_live(request).await.expect("told").into_inner();
        assert_eq!((told.granted_ttl, told.keys.len()), (60, 1), "at member {id}");
        assert!(told.ttl > 50);
    }
    let revoked = cluster.leases(2).await.lease_revoke(pb::LeaseRevokeRequest { id: lease }).await;
    assert_eq!(revoked.expect("revoked").into_inner().header.expect("a header").revision, 3);
}

// With a thread for the clients' side while the server stops: they close their connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_with_the_server_and_with_the_majority() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader().await;
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let (mut stays, mut stops) = (cluster.leases(others[0]).await, cluster.leases(others[1]).await);
    let (mut insists, mut quiet) = (KeepAlive::open(&mut stays, true).await, KeepAlive::open(&mut stops, false).await);
    let lease = grant(&mut stays).await;
    assert_eq!((insists.renew(lease).await, quiet.renew(lease).await), (TTL, TTL));

    let (asked, stopped) = (Instant::now(), cluster.stop(others[1]));
    assert_eq!(stopped, bowline_server::replica::StopReason::Told);
    assert!(asked.elapsed() < Duration::from_millis(1_900), "an open stream does not hold it up");
    assert_eq!(quiet.end().await, (Code::Unavailable, "etcdserver: server stopped".to_owned()));

    cluster.kill(leader);
    assert_eq!(insists.end().await, (Code::Unavailable, "etcdserver: no leader".to_owned()));
}
