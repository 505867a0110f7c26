//! Polls the status of every member.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bowline_api::etcdserverpb as pb;
use pb::maintenance_client::MaintenanceClient;
use tonic::transport::Endpoint;

/// The polling interval, and the time limit of an answer.
const EVERY: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_millis(400);

/// The last status of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) leads: bool,
    pub(super) term: u64,
    pub(super) committed: u64,
    pub(super) applied: u64,
    pub(super) revision: i64,
}

/// The last status of all members; `None` for one that does not answer.
#[derive(Clone)]
pub(super) struct Watcher(Arc<Mutex<Vec<Option<Seen>>>>);

impl Watcher {
    pub(super) fn start(endpoints: &[String]) -> anyhow::Result<Watcher> {
        let watcher = Watcher(Arc::new(Mutex::new(vec![None; endpoints.len()])));
        for (place, endpoint) in endpoints.iter().enumerate() {
            let endpoint = Endpoint::from_shared(format!("http://{endpoint}"))?.connect_timeout(PATIENCE);
            let mut maintenance = MaintenanceClient::new(endpoint.connect_lazy());
            let shared = Arc::clone(&watcher.0);
            tokio::spawn(async move {
                loop {
                    let status = tokio::time::timeout(PATIENCE, maintenance.status(pb::StatusRequest {})).await;
                    let seen = status.ok().and_then(Result::ok).map(|status| seen(&status.into_inner()));
                    shared.lock().unwrap_or_else(PoisonError::into_inner)[place] = seen;
                    tokio::time::sleep(EVERY).await;
                }
            });
        }
        Ok(watcher)
    }

    pub(super) fn all(&self) -> Vec<Option<Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The place of the leader: of the members that claim to lead, the one with the highest term.
    pub(super) fn leader(&self) -> Option<usize> {
        let all = self.all().into_iter().enumerate();
        let leaders = all.filter_map(|(place, seen)| seen.filter(|seen| seen.leads).map(|seen| (seen.term, place)));
        leaders.max().map(|(_, place)| place)
    }
}

fn seen(status: &pb::StatusResponse) -> Seen {
    let header = status.header.unwrap_or_default();
    Seen {
        leads: status.leader != 0 && status.leader == header.member_id,
        term: status.raft_term,
        committed: status.raft_index,
        applied: status.raft_applied_index,
        revision: header.revision,
    }
}
