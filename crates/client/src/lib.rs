//! A client of a Bowline cluster, or of any other server of the etcd v3 API.
//!
//! | to | use | example |
//! |---|---|---|
//! | read, set and delete keys | [`Client::get`], [`Client::put`], [`Client::delete`]; with options, [`Op`] | `keys` |
//! | change keys only if others have not changed | [`Client::txn`] | `transaction` |
//! | hear of each change | [`Client::watch`] | `watch` |
//! | have keys deleted when this program dies | [`Client::lease`] | `lease` |
//! | let only one program work at a time | [`Lock`] | `lock` |
//! | choose a leader that everybody knows | [`Election`] | `election` |
//! | log in, and manage users and roles | [`Client::with_user`], [`Client::user_add`], [`Client::role_add`] | - |
//!
//! The examples are in the folder `examples`: `cargo run -p bowline-client --example lock -- 127.0.0.1:2379`.
//!
//! ```no_run
//! use std::time::Duration;
//! use bowline_client::{Client, Compare, Op};
//!
//! # async fn run() -> Result<(), bowline_client::ClientError> {
//! // Name all members, so that requests still work when one of them is down.
//! let mut client = Client::new(&["127.0.0.1:2379", "127.0.0.1:2381", "127.0.0.1:2383"], Duration::from_secs(5))?;
//! let revision = client.put("greeting", "hello").await?;
//! if let Some(kv) = client.get("greeting").await? {
//!     println!("{:?}, set at revision {}", kv.value, kv.mod_revision);
//! }
//! let unchanged = Compare::mod_revision("greeting").eq(revision);
//! let answer = client.txn().when(unchanged).then(Op::put("greeting", "hi")).commit().await?;
//! println!("nobody was faster: {}", answer.succeeded);
//! # Ok(())
//! # }
//! ```
//!
//! Keys and values are bytes: a `&'static str`, a [`String`], a [`Vec<u8>`] and [`Bytes`] will do.
//!
//! # What happens when a member fails
//!
//! The client gets a list of endpoints and uses the first that answers.
//!
//! - A failed read is repeated at other endpoints, until the client's patience ends. So is what is harmless to do twice,
//!   such as the renewal of a lease.
//! - A write that may have taken effect is never repeated: only the caller knows whether doing it twice is harmless. Its
//!   error is [`ClientError::Unknown`]. A write that was certainly not done is sent again, and if that does not help, its
//!   error is [`ClientError::Refused`] or [`ClientError::Unreachable`]. [`Txn::repeatable`] is the exception for those who
//!   know better.
//! - A watch resumes at another endpoint, and delivers each event once. A lease is renewed at another endpoint.
//!
//! Methods take `&mut self`, because they may have to connect to another endpoint. For requests at the same time, clone
//! the client: that is cheap, and clones share a connection.
//!
//! # TLS
//!
//! [`Client::with_tls`] connects with TLS, and with a certificate of this client if it has one:
//!
//! ```no_run
//! # use std::time::Duration;
//! # use bowline_client::{Client, ClientFiles};
//! # fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let files = ClientFiles {
//!     ca: Some("certs/ca.crt".into()),
//!     identity: Some(("certs/client.crt".into(), "certs/client.key".into())),
//!     ..ClientFiles::default()
//! };
//! let client = Client::with_tls(&["10.0.0.1:2379"], Duration::from_secs(5), &files.load()?)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Users
//!
//! [`Client::with_user`] makes a client that logs in as a user: at its first call, and again when its token has expired or
//! is outdated. A call that was refused because of its token was not done, so it is repeated, once. Calls that fail
//! together share one login. If the cluster has no users, or they are not enabled, the client works without a token.
//!
//! A wrong password is [`ClientError::WrongPassword`]. It is not tried again: later calls of the client and its clones fail
//! in the same way. Without TLS, passwords and tokens cross the network in plain text.
//!
//! The client needs a Tokio runtime.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
/// A key with its value and its revisions.
pub use bowline_api::mvccpb::KeyValue;
pub use bytes::Bytes;
use login::{Login, with_login};
use pb::alarm_request::AlarmAction;
use pb::kv_client::KvClient;
use pb::maintenance_client::MaintenanceClient;
use tonic::{Code, Status};
use transport::Place;

mod auth;
mod election;
mod lease;
mod lock;
mod login;
mod members;
mod op;
mod queue;
mod snapshot;
mod transport;
mod txn;
mod watch;

pub use auth::{Access, AuthStatus, Keys, Permission};
/// The requests and responses of the API, for what [`Op`] can't express.
pub use bowline_api::etcdserverpb;
/// The TLS of a client, and the files from which it is made.
pub use bowline_tls::{ClientFiles, ClientTls, TlsError};
pub use election::{Election, Leadership, Observer};
pub use lease::{Lease, LeaseEnd, LeaseStatus};
pub use lock::{Lock, LockGuard};
pub use login::{Channel, Password};
pub use op::{Delete, Get, Op, OpResponse, Put, SortBy};
pub use snapshot::Snapshot;
pub use txn::{Branches, Compare, Operand, Txn, TxnResponse};
pub use watch::{EventKind, WatchEvent, WatchItem, WatchRequest, Watcher};

/// Time limit for connecting.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// Pause between attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// A connection of a task on which nothing comes is tested so often.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A connection is lost if a test of it is not answered in this time.
const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(5);

/// Largest response, in bytes.
const MAX_RESPONSE: usize = 1 << 30;

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// An endpoint is not an address.
    #[error("{0:?} is not an endpoint; allowed: host:port, http://host:port or https://host:port")]
    Endpoint(String),
    /// An endpoint is with TLS, but the client has none.
    #[error("{0} is with TLS, but this client was made without")]
    NoTls(String),
    /// No endpoint was given.
    #[error("no endpoint was given")]
    NoEndpoint,
    /// No endpoint can be reached; nothing was done.
    #[error("can't reach any endpoint ({tried}): {why}")]
    Unreachable {
        /// The endpoints that were tried.
        tried: String,
        /// The error of the last one.
        why: String,
    },
    /// A server refused the request.
    #[error("{endpoint}: {} ({:?})", status.message(), status.code())]
    Refused {
        /// The server's endpoint.
        endpoint: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// The user, or a client without one, has no permission for the request.
    #[error(
        "{endpoint} refuses this to {}: permission denied; {}",
        match user { Some(user) => format!("the user {user}"), None => "a client without a user".to_owned() },
        if user.is_some() { "a role of this user must grant it" } else { "log in as a user whose role grants it" },
    )]
    PermissionDenied {
        /// The server's endpoint.
        endpoint: String,
        /// The user of [`Client::with_user`].
        user: Option<String>,
    },
    /// The user does not exist, or has another password.
    #[error("{endpoint} does not let the user {user} in: there is no such user, or the password is wrong")]
    WrongPassword {
        /// The server's endpoint.
        endpoint: String,
        /// The user of [`Client::with_user`].
        user: String,
    },
    /// The connection was lost after a write was sent, or the answer took too long: the write may or may not have taken
    /// effect.
    #[error("{endpoint}: the write may or may not have taken effect: {why}")]
    Unknown {
        /// The endpoint that it was sent to.
        endpoint: String,
        /// What went wrong.
        why: String,
    },
    /// The next events of a watch are removed from the history.
    #[error("can't watch from revision {next} on: the history before revision {compact_revision} is compacted")]
    Compacted {
        /// The revision of which the watch would have delivered the events next.
        next: i64,
        /// The oldest revision from which it can be watched.
        compact_revision: i64,
    },
    /// The name of a lock or an election is empty.
    #[error("the name of the lock or the election is empty")]
    NoName,
    /// The lease holds this lock already, leads this election, or waits for it.
    #[error("{key} is in use: a lease can have each lock only once; release it first, or use another lease")]
    InUse {
        /// The key in the queue of the lock or the election.
        key: String,
    },
    /// A lock or an election is lost, or was lost before it was got.
    #[error("{key} is not held any more: {why}")]
    NotHeld {
        /// The key in the queue of the lock or the election.
        key: String,
        /// What went wrong.
        why: String,
    },
}

/// A client. A clone uses the same connection until one of the two has to connect to another endpoint.
#[derive(Clone, Debug)]
pub struct Client {
    endpoints: Vec<Place>,
    patience: Duration,
    tls: Option<ClientTls>,
    login: Option<Arc<Login>>,
    /// The connection in use, and the place of its endpoint.
    connected: Option<(usize, Channel)>,
}

impl Client {
    /// A client of these endpoints, without TLS. It connects at the first request. `patience` is the time limit of a whole
    /// request.
    ///
    /// # Errors
    /// There is no endpoint, or one is not an address.
    pub fn new<S: AsRef<str>>(endpoints: &[S], patience: Duration) -> Result<Client, ClientError> {
        Client::of(endpoints, patience, None)
    }

    /// The same with TLS, except at endpoints that begin with `http://`.
    ///
    /// # Errors
    /// There is no endpoint, or one is not an address.
    pub fn with_tls<S: AsRef<str>>(
        endpoints: &[S],
        patience: Duration,
        tls: &ClientTls,
    ) -> Result<Client, ClientError> {
        Client::of(endpoints, patience, Some(tls))
    }

    fn of<S: AsRef<str>>(endpoints: &[S], patience: Duration, tls: Option<&ClientTls>) -> Result<Client, ClientError> {
        let places = endpoints.iter().map(|text| Place::new(text.as_ref(), tls));
        let endpoints = places.collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(ClientError::NoEndpoint);
        }
        Ok(Client { endpoints, patience, tls: tls.cloned(), login: None, connected: None })
    }

    /// The same client, but one that logs in as this user. It logs in when it is used. Clones share the login.
    ///
    /// # Example
    /// ```no_run
    /// # use std::time::Duration;
    /// # use bowline_client::Client;
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let password = std::fs::read_to_string("password.txt")?;
    /// let client = Client::new(&["127.0.0.1:2379"], Duration::from_secs(5))?;
    /// let mut client = client.with_user("alice", password.trim_end());
    /// client.put("app/greeting", "hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_user(self, user: impl Into<String>, password: impl Into<Password>) -> Client {
        let login = Some(Arc::new(Login::new(user.into(), password.into())));
        Client { login, connected: None, ..self }
    }

    /// A client of other endpoints of the same cluster, with the same TLS and user, if there are any.
    ///
    /// # Errors
    /// There is no endpoint, or one is not an address.
    pub fn elsewhere<S: AsRef<str>>(&self, endpoints: &[S], patience: Duration) -> Result<Client, ClientError> {
        let login = self.login.clone();
        Ok(Client { login, ..Client::of(endpoints, patience, self.tls.as_ref())? })
    }

    /// The TLS of the client, if there is one.
    #[must_use]
    pub fn tls(&self) -> Option<&ClientTls> {
        self.tls.as_ref()
    }

    /// A connection to one address, made on use, for services for which this client has no method.
    ///
    /// # Errors
    /// It is not an address.
    pub fn lazy_channel(&self, endpoint: &str) -> Result<Channel, ClientError> {
        Ok(self.with_token(Place::new(endpoint, self.tls.as_ref())?.lazy()))
    }

    /// The endpoints, beginning with the one that is used next.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().map(|place| place.url.as_str())
    }

    /// Reads a range: an [`Op::get`] or a request of the API. If there are other endpoints, the client gives up on a
    /// silent one before its patience ends.
    ///
    /// # Errors
    /// See [`ClientError`].
    ///
    /// # Example
    /// ```no_run
    /// # use bowline_client::{Client, ClientError, Op};
    /// # async fn run(client: &mut Client) -> Result<(), ClientError> {
    /// for kv in client.range(Op::get("jobs/").prefix().limit(10)).await?.kvs {
    ///     println!("{:?} = {:?}", kv.key, kv.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn range(&mut self, request: impl Into<pb::RangeRequest>) -> Result<pb::RangeResponse, ClientError> {
        let request = request.into();
        self.read_at(|channel| {
            let (mut kv, request) = (kv(channel), request.clone());
            async move { kv.range(request).await }
        })
        .await
    }

    /// The latest value of a key.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get(&mut self, key: impl Into<Bytes>) -> Result<Option<KeyValue>, ClientError> {
        let request = pb::RangeRequest { key: key.into(), ..pb::RangeRequest::default() };
        Ok(self.range(request).await?.kvs.into_iter().next())
    }

    /// Sets a key. Returns the revision.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<i64, ClientError> {
        let request = pb::PutRequest { key: key.into(), value: value.into(), ..pb::PutRequest::default() };
        let response = self.put_request(request).await?;
        Ok(response.header.map_or(0, |header| header.revision))
    }

    /// Sets a key, with options: an [`Op::put`] or a request of the API.
    ///
    /// # Errors
    /// See [`ClientError`].
    ///
    /// # Example
    /// ```no_run
    /// # use bowline_client::{Client, ClientError, Op};
    /// # async fn run(client: &mut Client) -> Result<(), ClientError> {
    /// let before = client.put_request(Op::put("state", "running").prev_kv()).await?.prev_kv;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_request(&mut self, request: impl Into<pb::PutRequest>) -> Result<pb::PutResponse, ClientError> {
        let request = request.into();
        self.write(|mut kv| {
            let request = request.clone();
            async move { kv.put(request).await }
        })
        .await
    }

    /// Deletes a key, or the keys from it to before `range_end`. Returns the number of deleted keys.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&mut self, key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> Result<i64, ClientError> {
        let request = pb::DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..pb::DeleteRangeRequest::default()
        };
        Ok(self.delete_request(request).await?.deleted)
    }

    /// Deletes keys, with options: an [`Op::delete`] or a request of the API.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_request(
        &mut self,
        request: impl Into<pb::DeleteRangeRequest>,
    ) -> Result<pb::DeleteRangeResponse, ClientError> {
        let request = request.into();
        self.write(|mut kv| {
            let request = request.clone();
            async move { kv.delete_range(request).await }
        })
        .await
    }

    /// Removes the history before a revision. With `physical`, waits until it is removed from the store.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn compact(&mut self, revision: i64, physical: bool) -> Result<pb::CompactionResponse, ClientError> {
        let request = pb::CompactionRequest { revision, physical };
        self.write(|mut kv| async move { kv.compact(request).await }).await
    }

    /// The status of each endpoint.
    pub async fn status(&self) -> Vec<(String, Result<pb::StatusResponse, String>)> {
        let ask = |channel| async move { MaintenanceClient::new(channel).status(pb::StatusRequest {}).await };
        self.each(CONNECT_PATIENCE, ask).await
    }

    /// Each endpoint's checksum of its own state at a revision; 0 means its latest.
    pub async fn hash_kv(&self, revision: i64) -> Vec<(String, Result<pb::HashKvResponse, String>)> {
        let request = pb::HashKvRequest { revision };
        // The member reads its whole state, which may take a while.
        let ask = move |channel| async move { MaintenanceClient::new(channel).hash_kv(request).await };
        self.each(self.patience, ask).await
    }

    /// The active alarms of all members.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn alarms(&mut self) -> Result<Vec<pb::AlarmMember>, ClientError> {
        let ask = |channel| async move { MaintenanceClient::new(channel).alarm(pb::AlarmRequest::default()).await };
        Ok(self.read_at(ask).await?.alarms)
    }

    /// Deactivates an alarm. Returns whether it was active.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn disarm(&mut self, alarm: pb::AlarmMember) -> Result<bool, ClientError> {
        let pb::AlarmMember { member_id, alarm } = alarm;
        let request = pb::AlarmRequest { action: AlarmAction::Deactivate.into(), member_id, alarm };
        let ask = |channel| async move { MaintenanceClient::new(channel).alarm(request).await };
        Ok(!self.write_at(ask).await?.alarms.is_empty())
    }

    /// Transfers the leadership to a member. Only the leader can do this, so only the endpoint in use is asked.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn move_leader(&mut self, target_id: u64) -> Result<(), ClientError> {
        let (endpoint, channel) = self.channel().await?;
        let request = pb::MoveLeaderRequest { target_id };
        let ask = || {
            let mut maintenance = MaintenanceClient::new(channel.clone());
            async move { maintenance.move_leader(request).await }
        };
        let moved = tokio::time::timeout(self.patience, with_login(self.login.as_deref(), ask)).await;
        let moved = moved.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        moved.map(|_| ()).map_err(|status| self.refused(endpoint, status))
    }

    /// Makes so many connections, in turn to each of the endpoints, for requests of the API that need connections of their
    /// own, such as those of a load generator. One that breaks is made again by itself.
    ///
    /// # Errors
    /// One of these endpoints can't be reached.
    pub async fn connections(&self, count: usize) -> Result<Vec<Channel>, ClientError> {
        let mut channels = Vec::new();
        for place in self.endpoints.iter().cycle().take(count) {
            let unreachable = |error| ClientError::Unreachable { tried: place.url.clone(), why: cause(&error) };
            channels.push(self.with_token(place.connect().await.map_err(unreachable)?));
        }
        Ok(channels)
    }

    /// Asks all endpoints at the same time. `patience` is the time limit of each answer.
    async fn each<T, F, A>(&self, patience: Duration, ask: F) -> Vec<(String, Result<T, String>)>
    where
        T: Send + 'static,
        F: Fn(Channel) -> A + Clone + Send + 'static,
        A: Future<Output = Result<tonic::Response<T>, Status>> + Send + 'static,
    {
        let mut asked = Vec::new();
        for place in &self.endpoints {
            // This connects on use, so the time limit covers connecting, too.
            let (channel, place) = (self.with_token(place.lazy()), place.clone());
            let (url, login, ask) = (place.url.clone(), self.login.clone(), ask.clone());
            let task = async move {
                let answer = with_login(login.as_deref(), move || ask(channel.clone()));
                match tokio::time::timeout(patience, answer).await {
                    Ok(Ok(response)) => Ok(response.into_inner()),
                    Ok(Err(status)) => Err(place.refusal().unwrap_or_else(|| reason(&status))),
                    Err(_) => Err("no answer".to_owned()),
                }
            };
            asked.push((url, tokio::spawn(task)));
        }
        let mut all = Vec::new();
        for (url, task) in asked {
            all.push((url, task.await.unwrap_or_else(|error| Err(error.to_string()))));
        }
        all
    }

    /// Tries one endpoint after the other: a read may be repeated.
    async fn read_at<T, A>(&mut self, mut ask: impl FnMut(Channel) -> A) -> Result<T, ClientError>
    where
        A: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let until = Instant::now() + self.patience;
        let share = self.share();
        let mut refusals = 0;
        loop {
            let (endpoint, channel) = self.channel().await?;
            let left = until.saturating_duration_since(Instant::now());
            let answer = with_login(self.login.as_deref(), || ask(channel.clone()));
            let status = match tokio::time::timeout(left.min(share), answer).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            if let Some(why) = self.refusal(&endpoint, &status) {
                refusals += 1;
                self.after_refusal(why, refusals)?;
                continue;
            }
            if !is_worth_another_read(status.code()) || Instant::now() + PAUSE >= until {
                self.try_next_after(&status);
                return Err(self.refused(endpoint, status));
            }
            self.try_next();
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Time limit of an attempt at one endpoint, if the request may be repeated at the others.
    fn share(&self) -> Duration {
        self.patience / u32::try_from(self.endpoints.len()).unwrap_or(u32::MAX)
    }

    /// Sends a write once, and again only if it was certainly not done.
    async fn write<T, A>(&mut self, mut send: impl FnMut(KvClient<Channel>) -> A) -> Result<T, ClientError>
    where
        A: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        self.write_at(|channel| send(kv(channel))).await
    }

    /// The same for any service.
    async fn write_at<T, A>(&mut self, mut send: impl FnMut(Channel) -> A) -> Result<T, ClientError>
    where
        A: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let until = Instant::now() + self.patience;
        let mut refusals = 0;
        loop {
            let (endpoint, channel) = self.channel().await?;
            let left = until.saturating_duration_since(Instant::now());
            let answer = with_login(self.login.as_deref(), || send(channel.clone()));
            let Ok(answer) = tokio::time::timeout(left, answer).await else {
                // A silent endpoint may stay silent: the next request goes to another one.
                self.try_next();
                return Err(ClientError::Unknown { endpoint, why: "no answer in time".to_owned() });
            };
            let status = match answer {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            if let Some(why) = self.refusal(&endpoint, &status) {
                refusals += 1;
                self.after_refusal(why, refusals)?;
                continue;
            }
            let refused = is_refusal(status.code());
            let nothing_done = !refused && (status.message() == "etcdserver: no leader" || login::has_failed(&status));
            if nothing_done && Instant::now() + PAUSE < until {
                self.try_next();
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            self.try_next_after(&status);
            return Err(if nothing_done || refused {
                self.refused(endpoint, status)
            } else {
                ClientError::Unknown { endpoint, why: reason(&status) }
            });
        }
    }

    /// The connection in use, or a new one to the first endpoint that can be reached.
    async fn channel(&mut self) -> Result<(String, Channel), ClientError> {
        if let Some((place, channel)) = &self.connected {
            let url = &self.endpoints[place % self.endpoints.len()].url;
            return Ok((url.clone(), channel.clone()));
        }
        self.connect(0).await
    }

    /// Uses another endpoint from now on if this status tells that this one has a problem.
    fn try_next_after(&mut self, status: &Status) {
        if is_worth_another_read(status.code()) {
            self.try_next();
        }
    }

    async fn connect(&mut self, first: usize) -> Result<(String, Channel), ClientError> {
        let mut why = String::new();
        for place in (0..self.endpoints.len()).map(|offset| (first + offset) % self.endpoints.len()) {
            match self.endpoints[place].connect().await {
                Ok(channel) => {
                    let channel = self.with_token(channel);
                    self.connected = Some((place, channel.clone()));
                    return Ok((self.endpoints[place].url.clone(), channel));
                }
                Err(error) => why = cause(&error),
            }
        }
        Err(self.unreachable(why))
    }

    /// A connection whose calls carry the token of this client's user, if it has one.
    fn with_token(&self, channel: tonic::transport::Channel) -> Channel {
        Channel::new(channel, self.login.clone())
    }

    /// The error of a call that a server has refused.
    fn refused(&self, endpoint: String, status: Status) -> ClientError {
        login::refused(self.login.as_deref(), endpoint, status)
    }

    /// The same error, in the terms of [`Client::refused`].
    fn clarified(&self, error: ClientError) -> ClientError {
        match error {
            ClientError::Refused { endpoint, status } => self.refused(endpoint, *status),
            other => other,
        }
    }

    fn unreachable(&self, why: String) -> ClientError {
        ClientError::Unreachable { tried: self.endpoints().collect::<Vec<_>>().join(", "), why }
    }

    /// Why a server refused the connection before it read any request, if a request failed because of that.
    fn refusal(&self, endpoint: &str, status: &Status) -> Option<String> {
        let place = self.endpoints.iter().find(|place| place.url == endpoint)?;
        // The code of HTTP/2's INADEQUATE_SECURITY.
        let closed = is_worth_another_read(status.code()) || status.code() == Code::PermissionDenied;
        place.refusal().filter(|_| closed)
    }

    /// Uses another endpoint from now on, because the server refused the connection. It read no request, so one may be
    /// sent elsewhere.
    ///
    /// # Errors
    /// All endpoints refused it.
    fn after_refusal(&mut self, why: String, refusals: usize) -> Result<(), ClientError> {
        self.try_next();
        if refusals < self.endpoints.len() { Ok(()) } else { Err(self.unreachable(why)) }
    }

    /// Drops the connection, or gives up connecting; the next one is made to another endpoint, if there is one.
    fn try_next(&mut self) {
        let place = self.connected.take().map_or(0, |(place, _)| place);
        let next = (place + 1) % self.endpoints.len();
        self.endpoints.rotate_left(next);
    }

    /// A client of the same endpoints, without a connection yet, for a task of its own. It begins with the endpoint that
    /// this one uses, and notices when a member no longer answers.
    fn apart(&self) -> Client {
        let mut endpoints = self.endpoints.clone();
        if let Some((place, _)) = self.connected {
            endpoints.rotate_left(place);
        }
        for place in &mut endpoints {
            let tested = place.endpoint.clone().http2_keep_alive_interval(KEEP_ALIVE);
            place.endpoint = tested.keep_alive_timeout(KEEP_ALIVE_PATIENCE);
        }
        let (tls, login) = (self.tls.clone(), self.login.clone());
        Client { endpoints, patience: self.patience, tls, login, connected: None }
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(MAX_RESPONSE)
}

/// Whether a read that ended with this code may succeed at another endpoint.
fn is_worth_another_read(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::DeadlineExceeded)
}

/// Whether this code means that the server did nothing. With every other code, a write may have been done.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::ResourceExhausted
            | Code::Unimplemented
    )
}

/// The message of a status, or the root cause of a failed connection.
#[must_use]
pub fn reason(status: &Status) -> String {
    std::error::Error::source(status).map_or_else(|| status.message().to_owned(), cause)
}

/// The root cause of an error: the other levels only tell that something went wrong.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked() {
        let new =
            |endpoints: &[&str]| Client::new(endpoints, Duration::from_secs(1)).map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(new(&["127.0.0.1:2379", "http://host:1"]), Ok(()));
        assert_eq!(new(&[]), Err("no endpoint was given".to_owned()));
        let wrong = "\"ftp://host:1\" is not an endpoint; allowed: host:port, http://host:port or https://host:port";
        assert_eq!(new(&["ftp://host:1"]), Err(wrong.to_owned()));
        let without = "https://host:1 is with TLS, but this client was made without";
        assert_eq!(new(&["https://host:1"]), Err(without.to_owned()));
        assert!(new(&["host"]).is_err());
        let files = ClientFiles { skip_verification: true, ..ClientFiles::default() };
        let tls = files.load().expect("it needs no file");
        let secure = Client::with_tls(&["host:1", "http://host:2", "https://host:3"], Duration::from_secs(1), &tls);
        let secure = secure.expect("good endpoints");
        assert_eq!(secure.endpoints().collect::<Vec<_>>(), ["https://host:1", "http://host:2", "https://host:3"]);
    }

    #[tokio::test]
    async fn nobody_there_is_said_at_once() {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
        let endpoint = format!("127.0.0.1:{port}");
        let mut client = Client::new(&[&endpoint], Duration::from_secs(5)).expect("a good endpoint");
        let started = Instant::now();
        let error = client.put("k", "v").await.expect_err("nobody is there");
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
        let error = client.connections(1).await.expect_err("nobody is there");
        assert!(matches!(&error, ClientError::Unreachable { tried, .. } if tried.ends_with(&endpoint)), "{error}");
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
}
