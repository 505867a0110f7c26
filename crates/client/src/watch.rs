//! Watches.
//!
//! Each [`Watcher`] has a task with a connection of its own, so that a caller that does not read its events delays no
//! other request. What the task asks for, and what it delivers, is decided by [`Cursor`], which does no I/O.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_api::mvccpb::KeyValue;
use bytes::Bytes;
use pb::watch_client::WatchClient;
use pb::watch_create_request::FilterType;
use pb::watch_request::RequestUnion;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};

use super::op::prefix_end;
use super::{Channel, Client, ClientError, MAX_RESPONSE, PAUSE, is_refusal, login, reason};

mod cursor;

use cursor::Cursor;

/// Number of items that may wait for the caller. Then the task stops reading, and the member keeps what comes.
const AHEAD: usize = 16;

/// Longest pause between attempts to resume.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What to watch.
#[derive(Clone, Debug)]
pub struct WatchRequest {
    create: pb::WatchCreateRequest,
    delivers_progress: bool,
    reports_connection: bool,
}

impl WatchRequest {
    /// Watches the keys from `key` up to, but not including, `range_end`, as in the API: an empty `range_end` means
    /// `key` alone, and one zero byte means all keys from `key` on.
    #[must_use]
    pub fn range(key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> WatchRequest {
        let (key, range_end) = (key.into(), range_end.into());
        let create = pb::WatchCreateRequest {
            key,
            range_end,
            fragment: true,
            // A quiet watch must know how far it has come: else it could not resume after a compaction.
            progress_notify: true,
            ..pb::WatchCreateRequest::default()
        };
        WatchRequest { create, delivers_progress: false, reports_connection: false }
    }

    /// Watches one key.
    #[must_use]
    pub fn key(key: impl Into<Bytes>) -> WatchRequest {
        WatchRequest::range(key, Bytes::new())
    }

    /// Watches all keys that begin with `prefix`; an empty one means all keys.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> WatchRequest {
        let prefix = prefix.into();
        let end = prefix_end(&prefix);
        WatchRequest::range(prefix, end)
    }

    /// Begins with the events of this revision, which may be in the past or in the future; 0, the default, begins after
    /// the revision at which the watch is created.
    #[must_use]
    pub fn start_revision(mut self, revision: i64) -> WatchRequest {
        self.create.start_revision = revision;
        self
    }

    /// Adds to each event the key as it was before, unless that is compacted.
    #[must_use]
    pub fn prev_kv(mut self) -> WatchRequest {
        self.create.prev_kv = true;
        self
    }

    /// Delivers only events of this kind.
    #[must_use]
    pub fn only(mut self, kind: EventKind) -> WatchRequest {
        let unwanted = match kind {
            EventKind::Put => FilterType::Nodelete,
            EventKind::Delete => FilterType::Noput,
        };
        self.create.filters = vec![unwanted.into()];
        self
    }

    /// Delivers [`WatchItem::Progress`] now and then while there are no events; the server decides how often.
    #[must_use]
    pub fn progress_notify(mut self) -> WatchRequest {
        self.delivers_progress = true;
        self
    }

    /// Delivers [`WatchItem::Lost`] and [`WatchItem::Resumed`].
    #[must_use]
    pub fn report_connection(mut self) -> WatchRequest {
        self.reports_connection = true;
        self
    }
}

/// Whether a key was set or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The key was set.
    Put,
    /// The key was deleted, or its lease has ended.
    Delete,
}

/// A write of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchEvent {
    /// Whether the key was set or deleted.
    pub kind: EventKind,
    /// The key as it was set. Of a deletion: the key, and the revision of the deletion as `mod_revision`.
    pub kv: KeyValue,
    /// The key as it was before, if the request asked for it; `None` if there was no such key, or if that is compacted.
    pub prev_kv: Option<KeyValue>,
}

/// What a [`Watcher`] delivers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum WatchItem {
    /// All events of one revision, in the order of its transaction.
    Events {
        /// The revision, higher than that of any item before.
        revision: i64,
        /// The events; at least one.
        events: Vec<WatchEvent>,
    },
    /// All events up to a revision were delivered.
    Progress {
        /// The revision.
        revision: i64,
    },
    /// The connection was lost, or the member has no leader any more. The watcher tries to resume until it succeeds or
    /// is refused. Delivered only with [`WatchRequest::report_connection`], and once for all attempts.
    Lost {
        /// The endpoint, and what went wrong.
        why: String,
    },
    /// The watch goes on where it was. Delivered only with [`WatchRequest::report_connection`].
    Resumed {
        /// The endpoint of the member that serves it now.
        endpoint: String,
    },
}

/// A running watch, which ends when it is dropped. It is also a [`Stream`].
///
/// It delivers each event once, in the order of revisions. If it loses its member, it resumes at the same or at another
/// one, for as long as that takes. At most 16 items wait for the caller, and about two mebibytes in the connection; the
/// rest waits at the member.
#[derive(Debug)]
pub struct Watcher {
    items: mpsc::Receiver<Result<WatchItem, ClientError>>,
    wanted: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// The next item; `None` after an error. It may be called in `tokio::select!`: nothing is lost if it is cancelled.
    ///
    /// # Errors
    /// The watch has ended: the next events are compacted ([`ClientError::Compacted`]), or a member refuses the watch
    /// ([`ClientError::Refused`]).
    pub async fn next(&mut self) -> Option<Result<WatchItem, ClientError>> {
        self.items.recv().await
    }

    /// Asks for a [`WatchItem::Progress`]. A member of Bowline sends it as soon as all events up to a revision were
    /// sent; etcd ignores the request while there is history to send.
    pub fn request_progress(&self) {
        self.wanted.notify_one();
    }
}

impl Stream for Watcher {
    type Item = Result<WatchItem, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_recv(context)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // The task's stream is dropped with it, which tells the member.
        self.task.abort();
    }
}

impl Client {
    /// Watches a key or a range. Returns when a member has created the watch: events of later writes will be delivered,
    /// whatever happens to the member.
    ///
    /// # Errors
    /// No endpoint can be reached, no member has created the watch within the client's patience, or a member refuses
    /// it, for example because the range is empty.
    ///
    /// # Example
    /// ```no_run
    /// use std::time::Duration;
    /// use bowline_client::{Client, EventKind, WatchItem, WatchRequest};
    ///
    /// # async fn run() -> Result<(), bowline_client::ClientError> {
    /// let client = Client::new(&["127.0.0.1:2379", "127.0.0.1:2381"], Duration::from_secs(5))?;
    /// let mut watcher = client.watch(WatchRequest::prefix("jobs/").only(EventKind::Put)).await?;
    /// while let Some(item) = watcher.next().await {
    ///     if let WatchItem::Events { revision, events } = item? {
    ///         for event in events {
    ///             println!("{revision}: {:?} = {:?}", event.kv.key, event.kv.value);
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn watch(&self, request: WatchRequest) -> Result<Watcher, ClientError> {
        let until = Instant::now() + self.patience;
        let (items, delivered) = mpsc::channel(AHEAD);
        let wanted = Arc::<Notify>::default();
        let mut task = Task {
            client: self.apart(),
            cursor: Cursor::new(request.create.start_revision),
            request,
            items,
            wanted: Arc::clone(&wanted),
            owes_progress: false,
        };
        let mut refusals = 0;
        let opened = loop {
            match task.open().await {
                Ok(opened) => break opened,
                Err(error) => {
                    if let ClientError::Refused { endpoint, status } = &error
                        && let Some(why) = task.client.refusal(endpoint, status)
                    {
                        refusals += 1;
                        if refusals >= self.endpoints.len() {
                            return Err(self.unreachable(why));
                        }
                    }
                    let unreachable = matches!(error, ClientError::Unreachable { .. });
                    if unreachable || is_final(&error) || Instant::now() + PAUSE >= until {
                        return Err(error);
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        };
        Ok(Watcher { items: delivered, wanted, task: tokio::spawn(task.run(opened)) })
    }
}

/// Whether no member would serve the watch, or what waits for it, after this error.
pub(crate) fn is_final(error: &ClientError) -> bool {
    match error {
        ClientError::Refused { status, .. } => is_refusal(status.code()) && status.code() != Code::ResourceExhausted,
        ClientError::Unreachable { .. } | ClientError::Unknown { .. } => false,
        _ => true,
    }
}

/// Whether a member refuses it for lack of a permission.
fn is_denial(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { status, .. } if status.code() == Code::PermissionDenied)
}

/// What went wrong, without what every error of this kind has in common.
fn why(error: &ClientError) -> String {
    match error {
        ClientError::Refused { endpoint, status } => format!("{endpoint}: {}", reason(status)),
        other => other.to_string(),
    }
}

/// A watch at a member.
struct Opened {
    endpoint: String,
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl Opened {
    fn failed(&self, status: Status) -> ClientError {
        ClientError::Refused { endpoint: self.endpoint.clone(), status: Box::new(status) }
    }

    async fn next(&mut self) -> Result<pb::WatchResponse, ClientError> {
        let response = self.responses.message().await.map_err(|status| self.failed(status))?;
        response.ok_or_else(|| self.failed(Status::unavailable("the member has ended the stream")))
    }
}

/// The task of a watcher.
struct Task {
    client: Client,
    request: WatchRequest,
    cursor: Cursor,
    items: mpsc::Sender<Result<WatchItem, ClientError>>,
    /// The caller asks for progress.
    wanted: Arc<Notify>,
    /// Whether the caller has asked for progress and was not told yet.
    owes_progress: bool,
}

impl Task {
    /// Delivers until a member refuses the watch, or the watcher is dropped.
    async fn run(mut self, mut opened: Opened) {
        loop {
            let error = match self.deliver(&mut opened).await {
                Ok(()) => return,
                Err(error) => error,
            };
            let lost = WatchItem::Lost { why: why(&error) };
            if is_final(&error) && !self.needs_login(&error) {
                return self.end(self.client.clarified(error)).await;
            }
            self.report(lost).await;
            self.client.try_next();
            self.cursor.interrupt();
            opened = match self.reopen().await {
                Ok(opened) => opened,
                Err(error) => return self.end(error).await,
            };
            self.report(WatchItem::Resumed { endpoint: opened.endpoint.clone() }).await;
        }
    }

    /// Delivers what a member sends, until that fails. `Ok` if nobody listens any more.
    async fn deliver(&mut self, opened: &mut Opened) -> Result<(), ClientError> {
        let wanted = Arc::clone(&self.wanted);
        if self.owes_progress {
            ask_for_progress(opened).await;
        }
        loop {
            let response = tokio::select! {
                response = opened.next() => response?,
                () = wanted.notified() => {
                    self.owes_progress = true;
                    ask_for_progress(opened).await;
                    continue;
                }
            };
            for item in self.cursor.take(response, &opened.endpoint)? {
                if matches!(item, WatchItem::Progress { .. })
                    && !std::mem::take(&mut self.owes_progress)
                    && !self.request.delivers_progress
                {
                    continue;
                }
                if self.items.send(Ok(item)).await.is_err() {
                    return Ok(());
                }
            }
        }
    }

    async fn report(&self, item: WatchItem) {
        if self.request.reports_connection {
            // Without a receiver, the task is about to be aborted.
            let _ = self.items.send(Ok(item)).await;
        }
    }

    async fn end(&self, error: ClientError) {
        // As above.
        let _ = self.items.send(Err(error)).await;
    }

    /// Creates the watch anew, for as long as that takes.
    async fn reopen(&mut self) -> Result<Opened, ClientError> {
        let mut pause = PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            match self.open().await {
                Err(error) if !is_final(&error) => pause = (pause * 2).min(LONGEST_PAUSE),
                ended => return ended,
            }
        }
    }

    /// Whether the member has ended the watch because of the token, so that it may serve it after another login.
    fn needs_login(&self, error: &ClientError) -> bool {
        let refused = |status: &Status| login::is_outdated(status);
        self.client.login.is_some() && matches!(error, ClientError::Refused { status, .. } if refused(status))
    }

    /// Creates the watch at one member, after another login if the member refuses the token.
    async fn open(&mut self) -> Result<Opened, ClientError> {
        let login = self.client.login.clone();
        let session = login.as_ref().map_or(0, |login| login.number());
        let opened = match (self.try_to_open().await, login) {
            // etcd 3.4 says that permission is denied if it does not know the token.
            (Err(error), Some(login)) if self.needs_login(&error) || is_denial(&error) => {
                login.forget(session);
                self.try_to_open().await
            }
            (opened, _) => opened,
        };
        opened.map_err(|error| self.client.clarified(error))
    }

    /// Creates the watch at one member. If that fails, the next attempt is made at another one.
    async fn try_to_open(&mut self) -> Result<Opened, ClientError> {
        let (endpoint, channel) = self.client.channel().await?;
        let share = self.client.share();
        let opened = tokio::time::timeout(share, self.create(endpoint.clone(), channel)).await;
        let opened = opened.unwrap_or_else(|_| {
            let status = Box::new(Status::deadline_exceeded("no answer in time"));
            Err(ClientError::Refused { endpoint, status })
        });
        if opened.is_err() {
            self.client.try_next();
        }
        opened
    }

    async fn create(&mut self, endpoint: String, channel: Channel) -> Result<Opened, ClientError> {
        let (requests, waiting) = mpsc::channel(1);
        let create = pb::WatchCreateRequest { start_revision: self.cursor.next(), ..self.request.create.clone() };
        // A server may send nothing before the first request.
        requests.try_send(message(RequestUnion::CreateRequest(create))).expect("a new channel has room for one");
        let mut request = Request::new(ReceiverStream::new(waiting));
        // A member that has lost the cluster shall end the stream.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let mut member = WatchClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
        let answer = member
            .watch(request)
            .await
            .map_err(|status| ClientError::Refused { endpoint: endpoint.clone(), status: Box::new(status) })?;
        let mut opened = Opened { endpoint, requests, responses: answer.into_inner() };
        let first = opened.next().await?;
        if !first.created && !first.canceled {
            return Err(opened.failed(Status::internal("the first message does not say that the watch was created")));
        }
        self.cursor.take(first, &opened.endpoint)?;
        Ok(opened)
    }
}

fn message(request: RequestUnion) -> pb::WatchRequest {
    pb::WatchRequest { request_union: Some(request) }
}

async fn ask_for_progress(opened: &Opened) {
    // If the stream has ended, reading says so.
    let _ = opened.requests.send(message(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_ends_a_watch() {
        let refused = |code| {
            let status = Box::new(Status::new(code, "why"));
            is_final(&ClientError::Refused { endpoint: "e".to_owned(), status })
        };
        for code in [Code::InvalidArgument, Code::PermissionDenied, Code::Unauthenticated, Code::Unimplemented] {
            assert!(refused(code), "{code:?}");
        }
        for code in [Code::Unavailable, Code::Unknown, Code::Internal, Code::Cancelled, Code::ResourceExhausted] {
            assert!(!refused(code), "{code:?}");
        }
        assert!(is_final(&ClientError::Compacted { next: 1, compact_revision: 2 }));
        assert!(!is_final(&ClientError::Unreachable { tried: String::new(), why: String::new() }));
    }
}
