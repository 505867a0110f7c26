//! The Lease service.
//!
//! Grants and revocations go through the log, like writes. Only the leader knows a lease's remaining time, so every
//! member asks it.

use std::time::Duration;

use bowline_api::etcdserverpb as pb;
use bowline_kv::store::{
    KvError, Lease, LeaseGrantRequest, LeaseGrantResponse as Granted, LeaseListRequest, LeaseRenewal,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, MAX_LEASE_TTL, Task,
};
use pb::lease_server::Lease as LeaseApi;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::caller::Caller;
use super::{Context, answer, errors};
use crate::random::random;

type KeepAlives = ReceiverStream<Result<pb::LeaseKeepAliveResponse, Status>>;

/// Number of answers that may wait for a slow client of a stream.
const AHEAD: usize = 16;

/// Number of leases in a page of the list.
const PAGE: u32 = 10_000;

/// Number of attempts to choose an unused id for a lease.
const PICKS: usize = 8;

#[derive(Clone, Debug)]
pub(crate) struct LeaseService {
    pub(crate) context: Context,
    /// The shortest time to live, in seconds.
    pub(crate) min_ttl: i64,
    /// How long a stream that requires a leader lasts without one.
    pub(crate) leaderless: Duration,
}

impl LeaseService {
    fn granted(&self, granted: Granted) -> Response<pb::LeaseGrantResponse> {
        answer(pb::LeaseGrantResponse {
            header: Some(self.context.header(granted.revision)),
            id: granted.id,
            ttl: granted.ttl,
            error: String::new(),
        })
    }

    async fn keep_alive(&self, caller: &Caller<'_>, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
        let replica = &self.context.replica;
        self.context.refuse_corrupt()?;
        // The revision from before the renewal: at a later one, the lease may be gone.
        let header = Some(self.context.header(replica.status().facts.revision));
        let renewal = caller.check(LeaseRenewal { id }).await?;
        let renewed = replica.renew_lease(&renewal).await.map_err(errors::of_request)?;
        // A missing lease is not an error: the stream may serve other leases, too.
        Ok(pb::LeaseKeepAliveResponse { header, id, ttl: renewed.map_or(0, |lease| lease.granted) })
    }

    /// Answers the requests of a stream one by one, until the client or the server ends it.
    async fn keep_alives(
        &self,
        caller: &Caller<'_>,
        mut requests: Streaming<pb::LeaseKeepAliveRequest>,
        answers: &mpsc::Sender<Result<pb::LeaseKeepAliveResponse, Status>>,
    ) -> Result<(), Status> {
        loop {
            let received = requests.message().await.inspect_err(|_| {
                self.context.counts.stream_failures[0].inc();
            });
            let Some(request) = received? else { return Ok(()) };
            if answers.send(Ok(self.keep_alive(caller, request.id).await?)).await.is_err() {
                return Ok(());
            }
        }
    }
}

#[tonic::async_trait]
impl LeaseApi for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let pb::LeaseGrantRequest { ttl, id } = request.into_inner();
        if ttl > MAX_LEASE_TTL {
            return Err(errors::of_store(KvError::LeaseTtlTooLarge));
        }
        let ttl = ttl.max(self.min_ttl);
        if id != 0 {
            return Ok(self.granted(caller.write(LeaseGrantRequest { id, ttl }).await?));
        }
        let granted = grant_new(&caller, ttl).await?;
        Ok(self.granted(granted))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let id = request.into_inner().id;
        let revoked = caller.write(LeaseRevokeRequest { id }).await?;
        Ok(answer(pb::LeaseRevokeResponse { header: Some(self.context.header(revoked.revision)) }))
    }

    type LeaseKeepAliveStream = KeepAlives;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAlives>, Status> {
        let by = self.context.caller(&request).await?.principal();
        let insists = self.context.insists_on_leader(request.metadata());
        let (answers, stream) = mpsc::channel(AHEAD);
        let service = self.clone();
        tokio::spawn(async move {
            let context = &service.context;
            let caller = context.on_behalf_of(by);
            let ended = tokio::select! {
                ended = service.keep_alives(&caller, request.into_inner(), &answers) => ended,
                status = context.lost_leader(service.leaderless), if insists => Err(status),
                status = context.stopped() => Err(status),
                () = answers.closed() => Ok(()),
            };
            if let Err(status) = ended {
                // The client may be gone.
                let _ = answers.try_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        self.context.refuse_corrupt()?;
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let replica = &self.context.replica;
        let permit = caller.may(Task::LeaseTime)?;
        let mut found = replica.lease_time(&permit, id).await.map_err(errors::of_request)?;
        let (mut revision, mut named) = (replica.status().facts.revision, Vec::new());
        if keys && found.is_some() {
            let attached = caller.read(LeaseTimeToLiveRequest { id, keys: true }, false).await?;
            // The lease may have ended meanwhile.
            found = found.filter(|_| attached.lease.is_some());
            (revision, named) = (attached.revision, attached.keys);
        }
        let seconds = |left: Duration| i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        Ok(answer(pb::LeaseTimeToLiveResponse {
            header: Some(self.context.header(revision)),
            id,
            ttl: found.map_or(-1, |lease| seconds(lease.left)),
            granted_ttl: found.map_or(0, |lease| lease.granted),
            keys: named,
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        // As in etcd, a member lists the leases that it knows, even without a quorum.
        let mut list = LeaseListRequest { from: i64::MIN, limit: PAGE };
        let mut leases: Vec<pb::LeaseStatus> = Vec::new();
        loop {
            // Pages may differ in time, but a lease that exists throughout is on one of them.
            let page = caller.read(list, true).await?;
            leases.extend(page.leases.iter().map(|Lease { id, .. }| pb::LeaseStatus { id: *id }));
            match page.leases.last() {
                Some(last) if page.more => list.from = last.id.saturating_add(1),
                _ => {
                    let header = Some(self.context.header(page.revision));
                    return Ok(answer(pb::LeaseLeasesResponse { header, leases }));
                }
            }
        }
    }
}

/// Grants a lease with an id that is not in use.
pub(super) async fn grant_new(caller: &Caller<'_>, ttl: i64) -> Result<Granted, Status> {
    let taken = KvError::LeaseExists.to_string();
    let mut granted = caller.write(LeaseGrantRequest { id: random_id(), ttl }).await;
    for _ in 1..PICKS {
        if !granted.as_ref().is_err_and(|status| status.message() == taken) {
            break;
        }
        granted = caller.write(LeaseGrantRequest { id: random_id(), ttl }).await;
    }
    granted
}

/// A random id for a lease: positive, and very probably unused.
fn random_id() -> i64 {
    (random() >> 1).cast_signed().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picked_identities_are_positive_and_differ() {
        let picked: std::collections::BTreeSet<i64> = (0..1_000).map(|_| random_id()).collect();
        assert!(picked.len() == 1_000 && picked.iter().all(|id| *id > 0));
    }
}
