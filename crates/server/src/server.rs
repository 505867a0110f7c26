//! A whole member: starts and stops its threads and listeners.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::response::Response;
use bowline_api::etcdserverpb::auth_server::AuthServer;
use bowline_api::etcdserverpb::cluster_server::ClusterServer;
use bowline_api::etcdserverpb::kv_server::KvServer;
use bowline_api::etcdserverpb::lease_server::LeaseServer;
use bowline_api::etcdserverpb::maintenance_server::MaintenanceServer;
use bowline_api::etcdserverpb::watch_server::WatchServer;
use bowline_api::healthpb::health_server::HealthServer;
use bowline_api::v3electionpb::election_server::ElectionServer;
use bowline_api::v3lockpb::lock_server::LockServer;
use bowline_kv::compaction::REVISIONS_PAUSE;
use bowline_kv::store::{Limits, Member, PENDING_RECORDS};
use bowline_member::{DutySettings, Quota, Settings, State};
use bowline_node::raft::{NodeId, Recovered};
use bowline_storage::{Log, RealDisk};
use bowline_tls::{Keeper, TlsError};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tonic::codec::CompressionEncoding::Gzip;
use tonic::service::Routes;
use tracing::{info, warn};

use crate::accept::{Acceptor, Listener};
use crate::browsers::Browsers;
use crate::client_connection::{self, Bounds};
use crate::clock::Clock;
use crate::config::{Allowed, ConfigError, ServerConfig, Url};
use crate::descriptors::{self, TooFew};
use crate::duties;
use crate::gateway;
use crate::grpc::{
    AuthService, ClusterService, Context, Counts, ElectionService, Gate, HealthService, KvService, LeaseService,
    LockService, MaintenanceService, SnapshotSender, WatchService, attend,
};
use crate::http;
use crate::instruments::Gauge;
use crate::limits::{Addresses, HeaderLimit, Reached};
use crate::peer::{Directory, Forwarder, Identity, Inbound, Introduction, Outbox, answer_member, hex};
use crate::random::random;
use crate::replica::{Replica, Start, StopReason, Threads};
use crate::secure::{Door, Tls, answer_client};
use crate::sessions::Sessions;

/// Bytes that a message may have beyond the largest request, as in etcd.
const OVERHEAD_BYTES: usize = 512 << 10;

/// Connections to the addresses that are for metrics only.
const READERS: usize = 16;

/// Connections that one address may have at least, unless a setting says otherwise.
const FEW_PER_ADDRESS: usize = 16;

/// Records that one step of removing compacted revisions looks at.
const TIDY_RECORDS: usize = 1_024;

/// How long a stopping server waits for its clients.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why a server can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It can't listen on a port.
    #[error("can't listen on {address}: {why}")]
    Listen {
        /// Host and port.
        address: String,
        /// The system's error.
        why: io::Error,
    },
    /// The system refused threads or sockets.
    #[error("can't start threads: {0}")]
    Threads(io::Error),
    /// The limit of open files is too low.
    #[error(transparent)]
    Descriptors(#[from] TooFew),
    /// A file with a certificate, a key, a CA or a list of revoked certificates can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address has another scheme than the settings of TLS allow.
    #[error(transparent)]
    Scheme(#[from] ConfigError),
    /// The configuration, or the data on the disk, contradicts itself.
    #[error(transparent)]
    Replica(#[from] bowline_node::raft::ConfigError),
}

/// The opened data of a member.
pub struct Disk<L: bowline_storage::Disk> {
    /// Whose it is.
    pub identity: Identity,
    /// Host and port of the peer port of the members that are known without the state, this one among them.
    pub known: BTreeMap<NodeId, String>,
    /// What was recovered from the log.
    pub recovered: Recovered,
    /// The log.
    pub log: Log<L>,
    /// The state machine and its files.
    pub state: State<RealDisk>,
}

impl<L: bowline_storage::Disk> std::fmt::Debug for Disk<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("identity", &self.identity).field("state", &self.state).finish_non_exhaustive()
    }
}

impl<L: bowline_storage::Disk> Disk<L> {
    /// How many other members are known.
    fn expected_peers(&self) -> usize {
        self.state.machine.members().iter().count().max(self.known.len()) - 1
    }
}

/// The ports of a member.
#[derive(Debug)]
pub struct Listeners {
    /// For clients: at least one.
    pub client: Vec<TcpListener>,
    /// For other members.
    pub peer: TcpListener,
    /// For the pages, such as `/metrics`, without the API.
    pub metrics: Vec<TcpListener>,
}

impl Listeners {
    /// Listens on the ports of a configuration.
    ///
    /// # Errors
    /// See [`StartError::Listen`].
    pub fn bind(config: &ServerConfig) -> Result<Listeners, StartError> {
        let bind = |address: &str| {
            TcpListener::bind(address).map_err(|why| StartError::Listen { address: address.to_owned(), why })
        };
        let all = |urls: &[Url]| urls.iter().map(|url| bind(url.authority())).collect::<Result<Vec<_>, _>>();
        Ok(Listeners {
            client: all(&config.listen_client)?,
            peer: bind(&config.listen_peer)?,
            metrics: all(&config.listen_metrics)?,
        })
    }
}

/// A running member.
#[derive(Debug)]
pub struct Server {
    runtime: Runtime,
    replica: Replica,
    threads: Threads,
    directory: Directory,
    client_address: SocketAddr,
    stop_serving: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Starts a member. If it can't go on, it calls `on_failure` once. The process must end then, and no request
    /// without an answer counts as done.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start<L: bowline_storage::Disk>(
        config: &ServerConfig,
        disk: Disk<L>,
        listeners: Listeners,
        on_failure: impl Fn(String) + Send + Clone + 'static,
    ) -> Result<Server, StartError> {
        config.check_schemes()?;
        let tls = Tls::load(config)?;
        let limit = descriptors::current_limit();
        let (identity, own) = (disk.identity, disk.identity.replica);
        let shares = descriptors::share(limit, disk.expected_peers(), config.max_connections)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(StartError::Threads)?;
        // Tasks and sockets belong to the runtime that is entered.
        let entered = runtime.enter();
        let clock = Clock::start();
        let client_address = listeners.client[0].local_addr().map_err(StartError::Threads)?;
        let advertised = match config.advertise_client.port() {
            0 => config.advertise_client.with_port(client_address.port()),
            _ => config.advertise_client.clone(),
        };
        let introduction = Introduction::new(&config.name, &advertised.to_string(), config.protocol);
        let introduction = introduction.at(&config.advertise_peer.to_string());
        let record = Member {
            id: own.0,
            name: introduction.name.clone(),
            client_urls: vec![introduction.client_url.clone()],
            incarnation: identity.incarnation,
            ..Member::default()
        };
        let Disk { known, recovered, log, state, .. } = disk;
        let directory = Directory::new(identity, config.protocol, introduction, known, tls.members.clone());
        let (outbox, forwarder) = (Arc::new(Outbox::new()), Forwarder::new(clock));
        let sessions = Arc::new(Sessions::new(&config.tokens, clock));
        let node = config.node(own, random());
        directory.set_cluster_version(state.machine.facts().cluster_version);
        let (read_kind, shrink_bytes) = (config.read_kind, config.shrink_bytes as u64);
        let version = config.protocol.version;
        let settings =
            Settings { read_kind, version, shrink_bytes, flush_records: PENDING_RECORDS, tidy_records: TIDY_RECORDS };
        let start = Start { config: node, settings, recovered, log, state };
        let patience = config.patience();
        let (replica, threads) = Replica::start(
            start,
            clock,
            (Arc::clone(&outbox), forwarder.clone()),
            Arc::clone(&sessions),
            patience,
            on_failure,
        )?;

        let (peer, clients) = (listening(listeners.peer, tls.members.as_ref())?, tls.clients.as_ref());
        let client = all_listening(listeners.client, &config.listen_client, clients)?;
        let metrics = all_listening(listeners.metrics, &config.listen_metrics, clients)?;
        tls.follow();
        let learner = Arc::<AtomicBool>::default();
        let quota = Quota(config.quota_backend_bytes);
        let duties = DutySettings {
            own: Some(record),
            version,
            comparison: Some(config.compare_interval),
            quota,
            retention: config.auto_compaction,
            revisions_pause: REVISIONS_PAUSE,
        };
        duties::keep(&replica, duties, clock, (&directory, &outbox, &forwarder), Arc::clone(&learner));
        let inbound = Inbound { directory: directory.clone(), inbox: Arc::clone(replica.inbox()), clock };
        let bound = format!("{limit} open files");
        let door = (Door::new("member"), answer_member as fn(_) -> _);
        let peers = Acceptor::new(vec![peer], shares.peers, ("members", bound.clone()), door);
        tokio::spawn(Arc::new(inbound).listen(peers));
        let bound = match config.max_connections {
            Some(wanted) if wanted == shares.clients => "--max-connections".to_owned(),
            _ => bound,
        };
        // Whoever reads metrics must not be kept out by clients.
        let readers = if metrics.is_empty() { 0 } else { READERS.min(shares.clients / 2) };
        let door = || (Door::new("client"), answer_client as fn(_) -> _);
        let counts = Arc::<Counts>::default();
        let most = shares.clients - readers;
        let of_address = config.max_connections_per_address.unwrap_or((most / 2).max(FEW_PER_ADDRESS));
        let addresses = Addresses::new(of_address, Reached::new(counts.limits.clone()));
        let clients = Acceptor::new(client, most, ("clients", bound.clone()), door()).with_addresses(addresses);
        let readers = Acceptor::new(metrics, readers.max(1), ("--listen-metrics", bound), door());
        let limits = Limits { max_request_bytes: config.max_request_bytes, max_txn_ops: config.max_txn_ops };
        let open = counts.connections.clone();
        let (stop_serving, stopping) = watch::channel(false);
        let stopped = stopping.clone();
        let (cluster_id, protocol) = (identity.cluster, config.protocol);
        let known = directory.clone();
        let context = Context {
            replica: replica.clone(),
            cluster_id,
            protocol,
            limits,
            quota,
            counts,
            sessions,
            learner,
            stopping,
        };
        let (sockets, mut all_closed) = mpsc::channel(1);
        let (routers, pages) = routes(context, directory, outbox, config, sockets);
        let bounds = Bounds { streams: config.max_concurrent_streams, header_bytes: config.max_header_bytes };
        let served = tokio::spawn(async move {
            let pages = (pages.clone(), pages);
            let readers = client_connection::serve(pages, readers, bounds, Gauge::default(), stopped.clone());
            tokio::join!(client_connection::serve(routers, clients, bounds, open, stopped), readers);
            // Web sockets outlive their connections.
            let _ = all_closed.recv().await;
        });
        log_leaders(&replica);
        drop(entered);
        Ok(Server { runtime, replica, threads, directory: known, client_address, stop_serving, served })
    }

    /// The replica.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The identity of the member.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.directory.own()
    }

    /// Whether the member was removed from the cluster: then it must stop.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        let (status, own) = (self.replica.status(), self.replica.id());
        let applied = status.members.is_removed(own.0) && !status.membership.contains(own);
        applied || self.directory.is_removed()
    }

    /// The address on which it listens for clients.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    /// Stops cleanly: transfers the leadership, finishes open requests, and makes the log durable.
    #[must_use]
    pub fn stop(self) -> StopReason {
        let Server { runtime, replica, threads, stop_serving, served, .. } = self;
        runtime.block_on(async {
            if replica.status().is_leader {
                // Stop even if no other member can take it.
                let _ = tokio::time::timeout(GOODBYE, replica.transfer(None)).await;
            }
            let _ = stop_serving.send(true);
            let _ = tokio::time::timeout(GOODBYE, served).await;
        });
        let reason = threads.stop();
        // Tasks that still wait hold the state: its file can be opened again when they are gone.
        runtime.shutdown_timeout(GOODBYE);
        reason
    }

    /// Stops at once, as if the process were killed.
    pub fn kill(self) {
        let Server { runtime, threads, .. } = self;
        runtime.shutdown_timeout(GOODBYE);
        let _ = threads.stop();
    }
}

fn listening(socket: TcpListener, tls: Option<&Arc<Keeper>>) -> Result<Listener, StartError> {
    socket.set_nonblocking(true).map_err(StartError::Threads)?;
    let socket = tokio::net::TcpListener::from_std(socket).map_err(StartError::Threads)?;
    Ok(Listener { socket, tls: tls.cloned() })
}

/// The ports of these addresses; those with `https://` are with TLS.
fn all_listening(
    sockets: Vec<TcpListener>,
    urls: &[Url],
    tls: Option<&Arc<Keeper>>,
) -> Result<Vec<Listener>, StartError> {
    let all = sockets.into_iter().zip(urls);
    all.map(|(socket, url)| listening(socket, tls.filter(|_| url.is_https()))).collect()
}

/// What clients are served without and with TLS, and the pages alone. Each open web socket has a copy of `sockets`.
fn routes(
    context: Context,
    directory: Directory,
    outbox: Arc<Outbox>,
    config: &ServerConfig,
    sockets: mpsc::Sender<()>,
) -> ((Router, Router), Router) {
    // The limit applies to the decompressed message.
    let limit = context.limits.max_request_bytes + OVERHEAD_BYTES;
    // As in etcd: three election timeouts.
    let leaderless = config.election_max * 3;
    let progress_interval = config.watch_progress_interval;
    let watch = WatchService { context: context.clone(), leaderless, progress_interval };
    let maintenance = MaintenanceService { context: context.clone(), snapshots: SnapshotSender::new(&config.data_dir) };
    let lease = LeaseService { context: context.clone(), min_ttl: config.min_lease_ttl(), leaderless };
    let (known, queues) = (directory.clone(), Arc::clone(&outbox));
    let cluster = ClusterService { context: context.clone(), directory: known, outbox: queues };
    let browsers = Browsers { origins: config.cors.clone(), hosts: config.host_whitelist.clone() };
    let (counts, learner) = (Arc::clone(&context.counts), Arc::clone(&context.learner));
    let headers = HeaderLimit::new(config.max_header_bytes, Reached::new(counts.limits.clone()));
    let gate = Gate { counts, learner, headers, browsers };
    /// Settings that all services share.
    macro_rules! service {
        ($server:ident, $service:expr) => {
            $server::new($service).max_decoding_message_size(limit).accept_compressed(Gzip).send_compressed(Gzip)
        };
    }
    let grpc = Routes::new(service!(KvServer, KvService { context: context.clone() }))
        .add_service(service!(LeaseServer, lease))
        .add_service(service!(WatchServer, watch))
        .add_service(service!(ClusterServer, cluster))
        .add_service(service!(MaintenanceServer, maintenance))
        .add_service(service!(AuthServer, AuthService { context: context.clone() }))
        .add_service(service!(LockServer, LockService { context: context.clone(), leaderless }))
        .add_service(service!(ElectionServer, ElectionService { context: context.clone(), leaderless }))
        // Not compressed: its answers have two bytes.
        .add_service(
            HealthServer::new(HealthService { context: context.clone() })
                .max_decoding_message_size(limit)
                .accept_compressed(Gzip),
        )
        .add_service(reflection().build_v1().expect(OWN_DESCRIPTORS))
        .add_service(reflection().build_v1alpha().expect(OWN_DESCRIPTORS))
        .prepare();
    let attended = |gate: Gate| axum::middleware::from_fn_with_state(Arc::new(gate), attend);
    let (api, pages) = (grpc.into_axum_router(), http::router(context, directory, outbox));
    let mut all = api.clone().merge(pages.clone()).fallback(unknown);
    if config.gateway {
        // It calls the services behind the same layer as clients do.
        all = all.merge(gateway::router(api.layer(attended(gate.clone())), limit, sockets));
    }
    // A page can't pretend to be a server with a certificate.
    let secure = Gate { browsers: Browsers { hosts: Allowed::All, ..gate.browsers.clone() }, ..gate.clone() };
    let routers = (all.clone().layer(attended(gate)), all.layer(attended(secure)));
    (routers, pages.fallback(async || http::not_found()))
}

const OWN_DESCRIPTORS: &str = "the descriptors are generated, and a test asks for them";

/// gRPC's reflection, which tells clients such as grpcurl which services and messages there are: only those that are
/// served.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    use tonic_reflection::pb::{v1, v1alpha};
    let builder = tonic_reflection::server::Builder::configure().include_reflection_service(false);
    let builder = [bowline_api::DESCRIPTORS, v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET]
        .into_iter()
        .fold(builder, |builder, set| builder.register_encoded_file_descriptor_set(set));
    Counts::services().into_iter().fold(builder, |builder, name| builder.with_service_name(name))
}

/// Answers `Unimplemented` to a gRPC client, and 404 to others.
async fn unknown(request: axum::extract::Request) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        let text = format!("bowline: there is no method {}", request.uri().path());
        return tonic::Status::unimplemented(text).into_http();
    }
    http::not_found()
}

/// Logs every change of the leader.
fn log_leaders(replica: &Replica) {
    let (mut status, own) = (replica.watch_status(), replica.id());
    tokio::spawn(async move {
        let mut told = None;
        while status.changed().await.is_ok() {
            let (leader, term) = {
                let status = status.borrow_and_update();
                (status.leader, status.term)
            };
            if leader == told {
                continue;
            }
            told = leader;
            match leader {
                Some(leader) if leader == own => info!(term, "became leader"),
                Some(leader) => info!(term, leader = %hex(leader), "following a leader"),
                None => warn!(term, "lost the leader"),
            }
        }
    });
}
