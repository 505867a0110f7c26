//! The Election service. The leader has the first place in a [queue](super::queue), and the value of its key is what it
//! has announced. Leadership is advisory: `election.proto` says how to use its fencing token.

use std::time::Duration;

use bowline_api::v3electionpb as pb;
use bowline_kv::store::{DeleteRangeRequest, KeyValue, KvError, Operation, RangeRequest};
use bowline_kv::watch::{Body, Event, EventKind, Message};
use bytes::Bytes;
use pb::election_server::Election;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::caller::Caller;
use super::queue::{Entrant, First, announcement, changes, first, guarded, wait};
use super::watches::Serving;
use super::{Context, answer, convert, errors};

/// Number of answers that may wait for a slow client of a stream.
const AHEAD: usize = 4;

type Observed = Result<pb::LeaderResponse, Status>;

#[derive(Clone, Debug)]
pub(crate) struct ElectionService {
    pub(crate) context: Context,
    /// How long a call that requires a leader of the cluster waits without one.
    pub(crate) leaderless: Duration,
}

fn proven(leader: Option<pb::LeaderKey>) -> Result<pb::LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown("\"leader\" field must be provided"))
}

/// Who leads at a revision.
struct Seen {
    leader: Option<KeyValue>,
    at: i64,
    /// The revision of the store when it was read.
    revision: i64,
}

impl ElectionService {
    /// Who leads at a revision; 0 means now.
    async fn seen(&self, caller: &Caller<'_>, name: &Bytes, at: i64) -> Result<Seen, Status> {
        let mut found = caller.range(RangeRequest { revision: at, ..first(name) }, false).await?;
        let revision = found.revision;
        Ok(Seen { leader: found.kvs.pop(), at: if at == 0 { revision } else { at }, revision })
    }

    /// Tells what each leader announces, each once and in order, until the client does not wait any more.
    async fn tell(
        &self,
        caller: &Caller<'_>,
        name: &Bytes,
        mut seen: Seen,
        answers: &mpsc::Sender<Observed>,
    ) -> Result<(), Status> {
        let mut told = None;
        loop {
            if seen.leader != told
                && let Some(leader) = &seen.leader
                && !self.announce(leader.clone(), seen.revision, answers).await
            {
                return Ok(());
            }
            told = seen.leader;
            let Some(at) = self.follow(caller, name, seen.at + 1, &mut told, answers).await? else { return Ok(()) };
            seen = match self.seen(caller, name, at).await {
                Err(status) if status.message() == KvError::Compacted.to_string() => self.seen(caller, name, 0).await?,
                found => found?,
            };
        }
    }

    /// Tells what the leader announces from a revision on. Returns the revision at which its key was deleted: who led
    /// then may have announced more since; 0 if the history is compacted, and `None` if the client does not wait any more.
    async fn follow(
        &self,
        caller: &Caller<'_>,
        name: &Bytes,
        from: i64,
        leader: &mut Option<KeyValue>,
        answers: &mpsc::Sender<Observed>,
    ) -> Result<Option<i64>, Status> {
        let mut watches = Serving::new(self.context.clone(), caller.principal());
        watches.create(changes(name, from));
        loop {
            let Message { revision, body, .. } = watches.message().await?;
            let events = match body {
                Body::Events { events, .. } => events,
                Body::Compacted { .. } => return Ok(Some(0)),
                Body::Denied(error) | Body::Revoked(error) => return Err(errors::of_store(error)),
                _ => continue,
            };
            for Event { kind, kv, .. } in events {
                match (leader.as_ref().is_none_or(|leader| leader.key == kv.key), kind) {
                    (true, EventKind::Put) => {
                        if !self.announce(kv.clone(), revision, answers).await {
                            return Ok(None);
                        }
                        *leader = Some(kv);
                    }
                    (true, EventKind::Delete) if leader.is_some() => return Ok(Some(kv.mod_revision)),
                    // Another candidate.
                    _ => {}
                }
            }
        }
    }

    /// Returns whether the client still waits.
    async fn announce(&self, kv: KeyValue, revision: i64, answers: &mpsc::Sender<Observed>) -> bool {
        let (header, kv) = (Some(self.context.header(revision)), Some(convert::key_value(kv)));
        answers.send(Ok(pb::LeaderResponse { header, kv })).await.is_ok()
    }
}

#[tonic::async_trait]
impl Election for ElectionService {
    async fn campaign(&self, request: Request<pb::CampaignRequest>) -> Result<Response<pb::CampaignResponse>, Status> {
        let pb::CampaignRequest { name, lease, value } = request.get_ref().clone();
        let entrant = Entrant { name: name.clone(), lease, value, expired: "election: session is expired" };
        let First { key, lease, created, revision } = wait(&self.context, &request, entrant, self.leaderless).await?;
        let leader = Some(pb::LeaderKey { name, key, rev: created, lease });
        Ok(answer(pb::CampaignResponse { header: Some(self.context.header(revision)), leader }))
    }

    async fn proclaim(&self, request: Request<pb::ProclaimRequest>) -> Result<Response<pb::ProclaimResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let pb::ProclaimRequest { leader, value } = request.into_inner();
        let pb::LeaderKey { key, rev, .. } = proven(leader)?;
        let done = caller.write(guarded(&key, rev, announcement(&key, value))).await?;
        if !done.succeeded {
            return Err(Status::unknown("election: not leader"));
        }
        Ok(answer(pb::ProclaimResponse { header: Some(self.context.header(done.revision)) }))
    }

    async fn leader(&self, request: Request<pb::LeaderRequest>) -> Result<Response<pb::LeaderResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let Seen { leader, revision, .. } = self.seen(&caller, &request.get_ref().name, 0).await?;
        let leader = leader.ok_or_else(|| Status::unknown("election: no leader"))?;
        let (header, kv) = (Some(self.context.header(revision)), Some(convert::key_value(leader)));
        Ok(answer(pb::LeaderResponse { header, kv }))
    }

    type ObserveStream = ReceiverStream<Observed>;

    async fn observe(&self, request: Request<pb::LeaderRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        let caller = self.context.caller(&request).await?;
        let insists = self.context.insists_on_leader(request.metadata());
        let name = request.into_inner().name;
        let seen = self.seen(&caller, &name, 0).await?;
        let (answers, stream) = mpsc::channel(AHEAD);
        let (service, by) = (self.clone(), caller.principal());
        tokio::spawn(async move {
            let context = &service.context;
            let caller = context.on_behalf_of(by);
            let ended = tokio::select! {
                ended = service.tell(&caller, &name, seen, &answers) => ended,
                status = context.lost_leader(service.leaderless), if insists => Err(status),
                status = context.stopped() => Err(status),
                () = answers.closed() => Ok(()),
            };
            if let Err(status) = ended {
                // The client may be gone.
                let _ = answers.send_timeout(Err(status), service.leaderless).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn resign(&self, request: Request<pb::ResignRequest>) -> Result<Response<pb::ResignResponse>, Status> {
        let caller = self.context.caller(&request).await?;
        let pb::LeaderKey { key, rev, .. } = proven(request.into_inner().leader)?;
        let delete = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
        // Who does not lead any more has nothing to give up.
        let done = caller.write(guarded(&key, rev, Operation::DeleteRange(delete))).await?;
        Ok(answer(pb::ResignResponse { header: Some(self.context.header(done.revision)) }))
    }
}
