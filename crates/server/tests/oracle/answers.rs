//! Asking a server, and what of its answers can be compared.

use bowline_api::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::maintenance_client::MaintenanceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::draw::Request;
use crate::etcd::Etcd;

/// Who is asked.
pub(crate) struct Asked {
    kv: KvClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    /// Ends with this.
    _process: Option<Etcd>,
}

/// An answer without what no two servers have in common: ids, and the term.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    Delete(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    /// Revision, checksum, and what is compacted.
    Hash(i64, u32, i64),
}

/// An answer, or code and text of a refusal.
pub(crate) type Outcome = Result<Answer, (Code, String)>;

impl Answer {
    /// The revision in its header.
    pub(crate) fn revision(&self) -> i64 {
        let header = match self {
            Answer::Range(response) => response.header,
            Answer::Put(response) => response.header,
            Answer::Delete(response) => response.header,
            Answer::Txn(response) => response.header,
            Answer::Compact(response) => response.header,
            Answer::Hash(revision, ..) => return *revision,
        };
        header.map_or(0, |header| header.revision)
    }
}

impl Asked {
    pub(crate) async fn connect(url: &str) -> Asked {
        let endpoint = Channel::from_shared(url.to_owned()).expect("a good address");
        let channel = endpoint.connect().await.expect("it listens");
        Asked { kv: KvClient::new(channel.clone()), maintenance: MaintenanceClient::new(channel), _process: None }
    }

    pub(crate) fn keeping(self, process: Etcd) -> Asked {
        Asked { _process: Some(process), ..self }
    }

    /// The version that it says to be.
    pub(crate) async fn version(&self) -> String {
        let told = self.maintenance.clone().status(pb::StatusRequest {}).await;
        told.expect("it has a status").into_inner().version
    }

    /// A read of the latest state: what it answers next is not older.
    pub(crate) async fn read_something(&self) {
        let request = pb::RangeRequest { key: "k".into(), ..pb::RangeRequest::default() };
        self.kv.clone().range(request).await.expect("read");
    }
}

pub(crate) async fn ask(asked: &Asked, request: &Request) -> Outcome {
    let mut kv = asked.kv.clone();
    let outcome = match request.clone() {
        Request::Range(request) => kv.range(request).await.map(|response| Answer::Range(response.into_inner())),
        Request::Put(request) => kv.put(request).await.map(|response| Answer::Put(response.into_inner())),
        Request::Delete(request) => {
            kv.delete_range(request).await.map(|response| Answer::Delete(response.into_inner()))
        }
        Request::Txn(request) => kv.txn(request).await.map(|response| Answer::Txn(response.into_inner())),
        Request::Compact(request) => kv.compact(request).await.map(|response| Answer::Compact(response.into_inner())),
        Request::Hash(revision) => {
            let told = asked.maintenance.clone().hash_kv(pb::HashKvRequest { revision }).await;
            told.map(tonic::Response::into_inner).map(|told| {
                let revision = told.header.map_or(0, |header| header.revision);
                Answer::Hash(revision, told.hash, told.compact_revision)
            })
        }
    };
    outcome.map(comparable).map_err(|status: Status| (status.code(), status.message().to_owned()))
}

fn comparable(mut answer: Answer) -> Answer {
    let header = match &mut answer {
        Answer::Range(response) => &mut response.header,
        Answer::Put(response) => &mut response.header,
        Answer::Delete(response) => &mut response.header,
        Answer::Txn(response) => &mut response.header,
        Answer::Compact(response) => &mut response.header,
        Answer::Hash(..) => return answer,
    };
    if let Some(header) = header {
        assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0, "{header:?}");
        *header = pb::ResponseHeader { revision: header.revision, ..pb::ResponseHeader::default() };
    }
    answer
}
