//! The configuration of a server, from flags, the environment and a file, checked once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bowline_node::NodeConfig;
use bowline_node::raft::{Config, MAX_MEMBERS, NodeId, ReadKind};
use bowline_tls::Settings as TlsSettings;

use crate::auth::TokenKind;
use crate::founding;
use crate::peer::Protocol;
pub use bowline_kv::compaction::Retention;

mod layers;
mod tls;
mod values;

pub use layers::{Layers, SETTINGS, Setting};
pub use values::{Allowed, Url, parse_duration, parse_size};

/// An error in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value is not allowed.
    #[error("{field} is {value:?}; allowed: {allowed}")]
    Value {
        /// The setting as the user wrote it: the flag, the variable, or the key in the file.
        field: String,
        /// Its value.
        value: String,
        /// The allowed values.
        allowed: String,
    },
    /// A value is missing.
    #[error("{field} is missing: {needed}")]
    Missing {
        /// The flag.
        field: String,
        /// Why it is needed.
        needed: &'static str,
    },
    /// Two values contradict each other or the core's bounds.
    #[error("{0}")]
    Together(String),
    /// The file can't be read.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
}

/// The format of the log. The server only emits events; the program around it writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// A founding member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founder {
    /// Its name, 1 to 128 bytes.
    pub name: String,
    /// The address of its peer port.
    pub url: Url,
}

/// A server's configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// The id of this member, if it is a founding one.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its data folder.
    pub data_dir: PathBuf,
    /// Where to listen for clients: at least one address.
    pub listen_client: Vec<Url>,
    /// Where else to serve the pages, such as `/metrics`, without the API.
    pub listen_metrics: Vec<Url>,
    /// The address that clients are told. With port 0, it gets the port of the first listener.
    pub advertise_client: Url,
    /// Host and port to listen on for other members.
    pub listen_peer: String,
    /// The address that other members are told.
    pub advertise_peer: Url,
    /// The founding members, including this one.
    pub initial_cluster: BTreeMap<NodeId, Founder>,
    /// Whether the ids of the founding members were given, not derived from their addresses.
    pub numbered: bool,
    /// Whether an empty data folder means a founding member. If not, it means a member that joins, or one whose data
    /// was lost.
    pub may_found: bool,
    /// Distinguishes clusters that have the same members.
    pub cluster_token: String,
    /// Shortest election timeout.
    pub election_min: Duration,
    /// Longest election timeout.
    pub election_max: Duration,
    /// Interval of a leader's heartbeats.
    pub heartbeat: Duration,
    /// Size of the log, in bytes, at which the state is made durable and the log before it is removed.
    pub snapshot_bytes: usize,
    /// Size of the state's file, in bytes, from which it is rewritten if less than half of it is in use.
    pub shrink_bytes: usize,
    /// Maximum number of client connections; `None`: as many as the limit of open files allows.
    pub max_connections: Option<usize>,
    /// Maximum number of client connections from one address; `None`: half of all, and at least 16.
    pub max_connections_per_address: Option<usize>,
    /// Most bytes of the headers of a request.
    pub max_header_bytes: usize,
    /// Largest request, in bytes.
    pub max_request_bytes: usize,
    /// Most operations, or comparisons, of a transaction.
    pub max_txn_ops: usize,
    /// Most requests and streams that may be open on one connection of a client.
    pub max_concurrent_streams: u32,
    /// How much history automatic compaction keeps; `None`: there is no automatic compaction.
    pub auto_compaction: Option<Retention>,
    /// Size of the state's file, in bytes, at which no more data is accepted; negative: there is no such size.
    pub quota_backend_bytes: i64,
    /// How often quiet watchers that asked for it are told how far they have come.
    pub watch_progress_interval: Duration,
    /// Time between a write and the next comparison of the members' states.
    pub compare_interval: Duration,
    /// TLS for clients, at the addresses with `https://`.
    pub client_tls: Option<TlsSettings>,
    /// TLS between members; `None`: they talk in plain text.
    pub peer_tls: Option<TlsSettings>,
    /// Which tokens clients get for their passwords.
    pub tokens: TokenKind,
    /// Whether the API is served over JSON and HTTP too.
    pub gateway: bool,
    /// The origins of the web pages that may use the server.
    pub cors: Allowed,
    /// The host names under which requests over HTTP without TLS are answered.
    pub host_whitelist: Allowed,
    /// How reads are made linearizable.
    pub read_kind: ReadKind,
    /// The format of the log.
    pub log_format: LogFormat,
    /// The lowest level that is logged.
    pub log_level: tracing::Level,
    /// The peer protocol. It is not a setting, but a property of the program.
    pub protocol: Protocol,
}

impl ServerConfig {
    /// The id of the cluster: the same for all members with the same token and founders.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        if !self.numbered {
            return founding::cluster_id(self.initial_cluster.keys().copied());
        }
        let mut text = format!("{}\n", self.cluster_token);
        for (id, founder) in &self.initial_cluster {
            text.push_str(&format!("{}={}\n", id.0, founder.url.authority()));
        }
        fnv1a(text.as_bytes()).max(1)
    }

    /// The configuration of the replica. `seed` must differ between members and between starts.
    #[must_use]
    pub fn node(&self, id: NodeId, seed: u64) -> NodeConfig {
        let mut raft = Config::new(id, seed);
        raft.election_timeout_min = self.election_min;
        raft.election_timeout_max = self.election_max;
        raft.heartbeat_interval = self.heartbeat;
        // TCP loses data only with its connection, and the next heartbeat notices that. So don't send twice what is
        // merely slow, as a disk may be.
        raft.retry_after = self.heartbeat * 3;
        raft.max_retained_bytes = self.snapshot_bytes / 2;
        raft.lease_reads = self.read_kind == ReadKind::Lease;
        // A follower's clients wait until it has applied their writes, so it must learn of a commit before the next
        // heartbeat.
        raft.eager_commit = true;
        // Its folder may have been restored from a backup.
        raft.return_check = true;
        NodeConfig { snapshot_at_bytes: self.snapshot_bytes, ..NodeConfig::new(raft) }
    }

    /// Time limit of a request: as in etcd, 5 s and two election timeouts.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(5) + self.election_max * 2
    }

    /// The shortest time to live of a lease, in seconds: as in etcd, one and a half election timeouts, and at least 2,
    /// so that a lease outlives an election.
    #[must_use]
    pub fn min_lease_ttl(&self) -> i64 {
        let seconds = (self.election_max * 3).as_nanos().div_ceil(2_000_000_000);
        i64::try_from(seconds).unwrap_or(i64::MAX).max(2)
    }

    /// Checks the values against each other.
    fn check(self) -> Result<ServerConfig, ConfigError> {
        let members = self.initial_cluster.len();
        if members > MAX_MEMBERS {
            return Err(ConfigError::Together(format!(
                "--initial-cluster has {members} members; allowed: at most {MAX_MEMBERS}"
            )));
        }
        if !self.initial_cluster.contains_key(&self.id) {
            let ids: Vec<String> = self.initial_cluster.keys().map(|id| id.0.to_string()).collect();
            let (id, ids) = (self.id.0, ids.join(", "));
            return Err(ConfigError::Together(format!("--id is {id}; allowed: a member of --initial-cluster ({ids})")));
        }
        self.node(self.id, 0).raft.validate().map_err(|error| ConfigError::Together(error.to_string()))?;
        Ok(self)
    }
}

/// The FNV-1a hash, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
