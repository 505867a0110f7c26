//! The Watch service.
//!
//! Each stream has a task. It reads requests, and sends messages as fast as the client takes them. What the client
//! does not take waits in the stream's mailbox, or stays in the history.

use std::sync::Arc;
use std::time::Duration;

use bowline_api::Message as _;
use bowline_api::etcdserverpb as pb;
use bowline_api::mvccpb;
use bowline_kv::store::{KvError, Principal};
use bowline_kv::watch::{Body, Event, EventKind, Message, PortionLimits, Stream, WatchRequest};
use pb::watch_create_request::FilterType;
use pb::watch_request::RequestUnion;
use pb::watch_server::Watch as WatchApi;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Context, convert, errors};
use crate::random::random;

type Responses = ReceiverStream<Result<pb::WatchResponse, Status>>;

/// Number of responses that may wait for a slow client.
const AHEAD: usize = 4;

/// Number of messages that may wait in a stream before its next requests are read.
const UNSENT: usize = 1_024;

/// The answer to a request of a kind that only a newer client knows.
const UNKNOWN: &str = "bowline: this member does not know this kind of watch request";

/// What fragments may have beyond the largest request, in bytes. As in etcd.
const FRAGMENT_OVERHEAD: usize = 512 << 10;

#[derive(Clone, Debug)]
pub(crate) struct WatchService {
    pub(crate) context: Context,
    /// How long a stream that requires a leader lasts without one.
    pub(crate) leaderless: Duration,
    /// How often quiet watchers that asked for it are told how far they have come.
    pub(crate) progress_interval: Duration,
}

/// A stream in its task. Dropping it closes it.
pub(super) struct Serving {
    context: Context,
    /// Who has opened the stream.
    by: Principal,
    stream: Stream,
    waker: Arc<Notify>,
    /// Fragments of a message that is being sent.
    fragments: std::collections::VecDeque<pb::WatchResponse>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.context.replica.watches().close(self.stream.id());
    }
}

impl Serving {
    pub(super) fn new(context: Context, by: Principal) -> Serving {
        let (stream, waker) = context.replica.watches().open();
        Serving { context, by, stream, waker, fragments: std::collections::VecDeque::new() }
    }

    fn handle(&mut self, request: pb::WatchRequest) {
        let replica = self.context.replica.clone();
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(watch_request(request)),
            Some(RequestUnion::CancelRequest(request)) => {
                replica.watches().with(|hub| self.stream.cancel(hub, request.watch_id));
            }
            Some(RequestUnion::ProgressRequest(_)) => self.stream.request_progress(),
            None => replica.watches().with(|hub| self.stream.refuse_unknown(hub)),
        }
        // There may be history to read, or progress to tell.
        self.waker.notify_one();
    }

    /// Creates a watcher, or has a message that says why not.
    pub(super) fn create(&mut self, request: WatchRequest) {
        self.context.replica.watches().with(|hub| self.stream.create(hub, &self.by, request));
        // There may be history to read.
        self.waker.notify_one();
    }

    /// Waits for the next message.
    pub(super) async fn message(&mut self) -> Result<Message, Status> {
        loop {
            if let Some(message) = self.stream.next_message() {
                return Ok(message);
            }
            self.waker.notified().await;
            self.advance().await?;
        }
    }

    /// Takes what there is for the stream, and reads a portion of history.
    async fn advance(&mut self) -> Result<(), Status> {
        let replica = self.context.replica.clone();
        let watches = replica.watches();
        watches.with(|hub| self.stream.take(hub));
        replica.advance(&mut self.stream, &PortionLimits::default()).await.map_err(errors::of_request)?;
        watches.with(|hub| self.stream.settle(hub));
        if self.stream.is_lagging() {
            self.waker.notify_one();
        }
        Ok(())
    }

    /// The next response to send.
    fn next_response(&mut self) -> Option<pb::WatchResponse> {
        if let Some(fragment) = self.fragments.pop_front() {
            return Some(fragment);
        }
        let message = self.stream.next_message()?;
        let fragment = matches!(message.body, Body::Events { fragment: true, .. });
        let response = response(&self.context, message);
        if !fragment {
            return Some(response);
        }
        let limit = self.context.limits.max_request_bytes + FRAGMENT_OVERHEAD;
        self.fragments = fragments(response, limit).into();
        self.fragments.pop_front()
    }
}

fn watch_request(request: pb::WatchCreateRequest) -> WatchRequest {
    let has = |filter: FilterType| request.filters.contains(&(filter as i32));
    WatchRequest {
        no_put: has(FilterType::Noput),
        no_delete: has(FilterType::Nodelete),
        key: request.key,
        range_end: request.range_end,
        start_revision: request.start_revision,
        watch_id: request.watch_id,
        prev_kv: request.prev_kv,
        progress_notify: request.progress_notify,
        fragment: request.fragment,
    }
}

fn response(context: &Context, message: Message) -> pb::WatchResponse {
    let Message { watch_id, revision, body } = message;
    let header = Some(context.header(revision));
    let response = pb::WatchResponse { header, watch_id, ..pb::WatchResponse::default() };
    match body {
        Body::Created => pb::WatchResponse { created: true, ..response },
        Body::Refused(reason) => {
            pb::WatchResponse { created: true, canceled: true, cancel_reason: reason.to_owned(), ..response }
        }
        Body::Denied(error) => {
            pb::WatchResponse { created: true, canceled: true, cancel_reason: in_words(error), ..response }
        }
        Body::Revoked(error) => pb::WatchResponse { canceled: true, cancel_reason: in_words(error), ..response },
        Body::Unknown => pb::WatchResponse { canceled: true, cancel_reason: UNKNOWN.to_owned(), ..response },
        Body::Cancelled => pb::WatchResponse { canceled: true, ..response },
        Body::Compacted { compact_revision } => pb::WatchResponse { canceled: true, compact_revision, ..response },
        Body::Events { events, .. } => {
            pb::WatchResponse { events: events.into_iter().map(event).collect(), ..response }
        }
        Body::Progress => response,
    }
}

/// As Go's gRPC library shows a status.
fn in_words(error: KvError) -> String {
    format!("rpc error: code = {:?} desc = {error}", error.code())
}

fn event(event: Event) -> mvccpb::Event {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    mvccpb::Event {
        r#type: kind as i32,
        kv: Some(convert::key_value(event.kv)),
        prev_kv: event.prev_kv.map(convert::key_value),
    }
}

/// Splits a response whose events have more than `limit` bytes. All but the last say that more follows.
fn fragments(response: pb::WatchResponse, limit: usize) -> Vec<pb::WatchResponse> {
    if response.encoded_len() < limit {
        return vec![response];
    }
    let empty = pb::WatchResponse { events: Vec::new(), ..response.clone() };
    let (mut all, mut bytes) = (vec![empty.clone()], 0);
    for event in response.events {
        let size = event.encoded_len();
        if bytes > 0 && bytes + size >= limit {
            all.push(empty.clone());
            bytes = 0;
        }
        bytes += size;
        all.last_mut().expect("it begins with one").events.push(event);
    }
    let last = all.len() - 1;
    all[..last].iter_mut().for_each(|fragment| fragment.fragment = true);
    all
}

impl WatchService {
    async fn serve(
        &self,
        by: Principal,
        mut requests: Streaming<pb::WatchRequest>,
        responses: &mpsc::Sender<Result<pb::WatchResponse, Status>>,
    ) -> Result<(), Status> {
        let mut serving = Serving::new(self.context.clone(), by);
        let (waker, mut next) = (Arc::clone(&serving.waker), None);
        // Not all streams at the same time.
        let tenth = self.progress_interval / 10;
        let mut ticks =
            tokio::time::interval(self.progress_interval + tenth.mul_f64(random() as f64 / u64::MAX as f64));
        ticks.tick().await;
        // As in etcd, a client that has sent its last request still gets the events.
        let mut asking = true;
        loop {
            next = next.or_else(|| serving.next_response());
            let ready = next.is_none();
            tokio::select! {
                permit = responses.reserve(), if !ready => match permit {
                    Ok(permit) => permit.send(Ok(next.take().expect("there is one"))),
                    Err(_) => return Ok(()),
                },
                request = requests.message(), if asking && serving.stream.unsent() < UNSENT => match request? {
                    Some(request) => serving.handle(request),
                    None => asking = false,
                },
                () = waker.notified(), if ready => serving.advance().await?,
                _ = ticks.tick() => {
                    // Writes of other keys wake no stream, and progress must count them.
                    if ready {
                        serving.advance().await?;
                    }
                    serving.stream.tick();
                }
            }
        }
    }
}

#[tonic::async_trait]
impl WatchApi for WatchService {
    type WatchStream = Responses;

    async fn watch(&self, request: Request<Streaming<pb::WatchRequest>>) -> Result<Response<Responses>, Status> {
        let by = self.context.caller(&request).await?.principal();
        let insists = self.context.insists_on_leader(request.metadata());
        let (responses, stream) = mpsc::channel(AHEAD);
        let service = self.clone();
        tokio::spawn(async move {
            let context = &service.context;
            let ended = tokio::select! {
                ended = service.serve(by, request.into_inner(), &responses) => ended,
                status = context.lost_leader(service.leaderless), if insists => Err(status),
                status = context.stopped() => Err(status),
                () = responses.closed() => Ok(()),
            };
            if let Err(status) = ended {
                // The client may be gone.
                let _ = responses.send_timeout(Err(status), service.leaderless).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
