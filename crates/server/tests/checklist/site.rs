//! Who is asked: our own server, or a real etcd.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bowline_api::etcdserverpb as pb;
use bytes::Bytes;
use pb::alarm_request::AlarmAction;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::cluster::Cluster;
use crate::etcd::Etcd;
use crate::line::Place;
use crate::requests;

/// Settings of members that have nothing else to do than to answer a test.
const QUICK: [(&str, &str); 4] =
    [("election_min", "60ms"), ("election_max", "120ms"), ("heartbeat", "20ms"), ("watch_progress_interval", "200ms")];

/// Whom the tests are pointed at.
pub(crate) struct Target {
    /// The server that all share.
    shared: Vec<String>,
    running: Mutex<Option<Running>>,
    /// To start others like it; none if it is our own, or if nobody said where it is.
    etcd: Option<PathBuf>,
    /// What it says to be; our own server is none.
    version: Option<String>,
    /// Tells this run's keys from those of others.
    run: String,
}

enum Running {
    Ours(Cluster),
    Etcd(Etcd),
}

impl Target {
    pub(crate) fn from_environment() -> Target {
        let endpoint = std::env::var("BOWLINE_CHECKLIST_ENDPOINT").ok().filter(|text| !text.is_empty());
        let etcd = std::env::var_os("BOWLINE_CHECKLIST_ETCD").filter(|text| !text.is_empty()).map(PathBuf::from);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let run = format!("{}-{}", std::process::id(), since.as_nanos());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there are threads");
        runtime.block_on(async {
            let (shared, running) = match (endpoint, &etcd) {
                (Some(url), _) => (vec![url], None),
                (None, Some(program)) => {
                    let etcd = Etcd::start(program, &[]).await;
                    (vec![etcd.url().to_owned()], Some(Running::Etcd(etcd)))
                }
                (None, None) => {
                    let cluster = Cluster::start(3, &[]);
                    cluster.leader().await;
                    (urls(&cluster), Some(Running::Ours(cluster)))
                }
            };
            let ours = matches!(running, Some(Running::Ours(_)));
            let version = if ours { None } else { Some(version(&shared[0]).await) };
            Target { shared, running: Mutex::new(running), etcd, version, run }
        })
    }

    pub(crate) fn name(&self) -> String {
        match &self.version {
            None => "our own server".to_owned(),
            Some(version) => format!("etcd {version} at {}", self.shared[0]),
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.version.is_none()
    }

    pub(crate) fn is_3_4(&self) -> bool {
        self.version.as_ref().is_some_and(|version| version.starts_with("3.4."))
    }

    /// Why a line can't be tried there.
    pub(crate) fn lacks(&self, place: Place) -> Option<&'static str> {
        match place {
            Place::Fresh if !self.is_ours() && self.etcd.is_none() => {
                Some("needs a store of its own: BOWLINE_CHECKLIST_ETCD would name a program to start")
            }
            Place::Members if !self.is_ours() => Some("stops and compares members of ours"),
            _ => None,
        }
    }

    /// A place for one line.
    pub(crate) async fn site(&self, place: Place, settings: &[(&str, &str)], name: &str) -> Site {
        let running = match (place, &self.etcd) {
            (Place::Shared, _) => None,
            (Place::Fresh, Some(program)) => Some(Running::Etcd(Etcd::start(program, settings).await)),
            (Place::Fresh, None) => Some(Running::Ours(Cluster::start(1, &[&QUICK, settings].concat()))),
            (Place::Members, _) => {
                Some(Running::Ours(Cluster::start(3, &[&[("snapshot_bytes", "64KiB")], settings].concat())))
            }
        };
        let urls = match &running {
            None => self.shared.clone(),
            Some(Running::Etcd(etcd)) => vec![etcd.url().to_owned()],
            Some(Running::Ours(cluster)) => {
                cluster.leader().await;
                urls(cluster)
            }
        };
        let (version, prefix) = (self.version.clone(), format!("{}/{name}/", self.run));
        Site { channel: connect(&urls[0]).await, urls, version, prefix, running }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Nobody ends them otherwise: what is static is never dropped, but this is.
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn urls(cluster: &Cluster) -> Vec<String> {
    cluster.configs.keys().map(|id| format!("http://{}", cluster.server(*id).client_address())).collect()
}

async fn connect(url: &str) -> Channel {
    let endpoint = Channel::from_shared(url.to_owned()).expect("a good address");
    endpoint.connect().await.unwrap_or_else(|error| panic!("{url}: {error}"))
}

async fn version(url: &str) -> String {
    let mut client = MaintenanceClient::new(connect(url).await);
    client.status(pb::StatusRequest {}).await.expect("it has a status").into_inner().version
}

/// A server as one line's test sees it.
pub(crate) struct Site {
    urls: Vec<String>,
    version: Option<String>,
    prefix: String,
    channel: Channel,
    running: Option<Running>,
}

impl Site {
    /// The first member's address.
    pub(crate) fn url(&self) -> &str {
        &self.urls[0]
    }

    pub(crate) fn is_etcd(&self) -> bool {
        self.version.is_some()
    }

    pub(crate) fn is_3_4(&self) -> bool {
        self.version.as_ref().is_some_and(|version| version.starts_with("3.4."))
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Another connection, to another member where there are several.
    pub(crate) async fn channel_to(&self, number: usize) -> Channel {
        connect(&self.urls[number % self.urls.len()]).await
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel()).max_decoding_message_size(64 << 20).max_encoding_message_size(64 << 20)
    }

    /// Another member, where there are several; each time its own connection.
    pub(crate) async fn member(&self, number: usize) -> KvClient<Channel> {
        KvClient::new(self.channel_to(number).await)
    }

    /// The same, for leases.
    pub(crate) async fn member_leases(&self, number: usize) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel_to(number).await)
    }

    pub(crate) fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel())
    }

    /// A key that no other line uses.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// All keys of this line.
    pub(crate) fn all(&self) -> pb::RangeRequest {
        requests::prefix(&self.prefix)
    }

    /// The names of keys, as the test gave them.
    pub(crate) fn names(&self, kvs: &[bowline_api::mvccpb::KeyValue]) -> Vec<String> {
        let name = |key: &[u8]| String::from_utf8_lossy(key.strip_prefix(self.prefix.as_bytes()).unwrap_or(key)).into();
        kvs.iter().map(|kv| name(&kv.key)).collect()
    }

    pub(crate) async fn put(&self, name: &str, value: &str) -> pb::PutResponse {
        self.try_put(requests::put(&self.key(name), value)).await.expect("written")
    }

    pub(crate) async fn try_put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Status> {
        self.kv().put(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn get(&self, name: &str) -> Option<bowline_api::mvccpb::KeyValue> {
        self.range(requests::get(&self.key(name))).await.kvs.pop()
    }

    pub(crate) async fn range(&self, request: pb::RangeRequest) -> pb::RangeResponse {
        self.try_range(request).await.expect("read")
    }

    pub(crate) async fn try_range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        self.kv().range(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn delete(&self, name: &str) -> pb::DeleteRangeResponse {
        self.try_delete(requests::delete(&self.key(name))).await.expect("deleted")
    }

    pub(crate) async fn try_delete(&self, request: pb::DeleteRangeRequest) -> Result<pb::DeleteRangeResponse, Status> {
        self.kv().delete_range(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn txn(&self, request: pb::TxnRequest) -> pb::TxnResponse {
        self.try_txn(request).await.expect("done")
    }

    pub(crate) async fn try_txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        self.kv().txn(request).await.map(tonic::Response::into_inner)
    }

    /// Whether a comparison holds.
    pub(crate) async fn holds(&self, compare: pb::Compare) -> bool {
        self.txn(pb::TxnRequest { compare: vec![compare], ..pb::TxnRequest::default() }).await.succeeded
    }

    pub(crate) async fn compact(&self, revision: i64) -> pb::CompactionResponse {
        self.try_compact(revision).await.expect("compacted")
    }

    pub(crate) async fn try_compact(&self, revision: i64) -> Result<pb::CompactionResponse, Status> {
        let request = pb::CompactionRequest { revision, physical: false };
        self.kv().compact(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn status(&self) -> pb::StatusResponse {
        self.maintenance().status(pb::StatusRequest {}).await.expect("told").into_inner()
    }

    pub(crate) async fn hash(&self, revision: i64) -> Result<pb::HashKvResponse, Status> {
        self.maintenance().hash_kv(pb::HashKvRequest { revision }).await.map(tonic::Response::into_inner)
    }

    /// Asks for alarms, or changes one.
    pub(crate) async fn alarm(&self, action: AlarmAction, member_id: u64, kind: pb::AlarmType) -> Vec<pb::AlarmMember> {
        let request = pb::AlarmRequest { action: action as i32, member_id, alarm: kind as i32 };
        self.maintenance().alarm(request).await.expect("told").into_inner().alarms
    }

    /// A member's checksum up to a revision.
    pub(crate) async fn hash_at(&self, member: usize, revision: i64) -> (u32, i64) {
        let mut client = MaintenanceClient::new(connect(&self.urls[member]).await);
        let told = client.hash_kv(pb::HashKvRequest { revision }).await.expect("told").into_inner();
        (told.hash, told.compact_revision)
    }

    /// The store's revision now.
    pub(crate) async fn revision(&self) -> i64 {
        revision(&self.range(requests::get("nothing is here")).await.header)
    }

    /// Kills the server and starts it again.
    pub(crate) async fn restart(&mut self) {
        match self.running.as_mut().expect("a server of its own") {
            Running::Etcd(etcd) => etcd.restart().await,
            Running::Ours(cluster) => {
                for id in cluster.configs.keys().copied().collect::<Vec<_>>() {
                    cluster.kill(id);
                    cluster.restart(id);
                }
                cluster.leader().await;
            }
        }
        self.channel = connect(&self.urls[0]).await;
    }

    /// The members, where they are ours.
    pub(crate) fn members(&mut self) -> &mut Cluster {
        match &mut self.running {
            Some(Running::Ours(cluster)) => cluster,
            _ => panic!("it is a line for members of ours"),
        }
    }
}

/// A header's revision.
pub(crate) fn revision(header: &Option<pb::ResponseHeader>) -> i64 {
    header.as_ref().expect("a header").revision
}

/// An error must be this one, to the letter.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, text: &str) {
    let error = outcome.expect_err("it must be refused");
    assert_eq!((error.code(), error.message()), (code, text));
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
