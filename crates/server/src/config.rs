//! What a server is told, checked once: flags over the environment over a file.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bowline_node::NodeConfig;
use bowline_node::raft::{Config, MAX_MEMBERS, NodeId, ReadKind};

use crate::peer::Protocol;

mod layers;
mod values;

pub use layers::{Layers, SETTINGS, Setting};
pub use values::{Url, parse_duration, parse_size};

/// A value that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value is not allowed.
    #[error("{field} is {value:?}; allowed: {allowed}")]
    Value {
        /// The setting, as it was given: the flag, the variable, or the key in the file.
        field: String,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: String,
    },
    /// A value is missing.
    #[error("{field} is missing: {needed}")]
    Missing {
        /// The flag.
        field: String,
        /// What it is needed for.
        needed: &'static str,
    },
    /// Two values contradict each other, or the core's own bounds.
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

/// How a log is written. The server only emits events: the program that it runs in writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// An object on one line, for programs.
    Json,
}

/// A server's configuration, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// Who this member is.
    pub id: NodeId,
    /// How it is called.
    pub name: String,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// Where it listens for clients: host and port.
    pub listen_client: String,
    /// Where clients find it; with port 0, at the port that it gets.
    pub advertise_client: Url,
    /// Where it listens for other members: host and port.
    pub listen_peer: String,
    /// The founding members, this one among them, and where their peer sides are.
    pub initial_cluster: BTreeMap<NodeId, Url>,
    /// Whether an empty data folder is a new member's: if not, it is one that was lost.
    pub may_found: bool,
    /// Tells clusters apart that have the same members.
    pub cluster_token: String,
    /// Shortest time without a leader before a member stands for election.
    pub election_min: Duration,
    /// Longest one.
    pub election_max: Duration,
    /// How often a leader lets itself be heard.
    pub heartbeat: Duration,
    /// The state is made durable by itself, and the log before it cut, when the log's tail exceeds this many
    /// bytes.
    pub snapshot_bytes: usize,
    /// The file of the state is written anew when it has so many bytes and less than half of them are in use.
    pub shrink_bytes: usize,
    /// Most connections of clients at a time; if not given, as many as the limit of open files allows.
    pub max_connections: Option<usize>,
    /// Largest request, in bytes.
    pub max_request_bytes: usize,
    /// How a read is made linearizable.
    pub read_kind: ReadKind,
    /// How the program writes its log.
    pub log_format: LogFormat,
    /// The least important events that the program logs.
    pub log_level: tracing::Level,
    /// How it speaks with other members. No setting: it is the program's.
    pub protocol: Protocol,
}

impl ServerConfig {
    /// The cluster's identity: the same for all members that were told the same token and founders.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        let mut text = format!("{}\n", self.cluster_token);
        for (id, url) in &self.initial_cluster {
            text.push_str(&format!("{}={}\n", id.0, url.authority()));
        }
        fnv1a(text.as_bytes()).max(1)
    }

    /// The replica's part. `seed` must differ between members and between starts.
    #[must_use]
    pub fn node(&self, seed: u64) -> NodeConfig {
        let mut raft = Config::new(self.id, seed);
        raft.election_timeout_min = self.election_min;
        raft.election_timeout_max = self.election_max;
        raft.heartbeat_interval = self.heartbeat;
        // TCP loses nothing but with a connection, and the next heartbeat notices that: what is merely slow, as
        // a disk may be, is better not sent twice.
        raft.retry_after = self.heartbeat * 3;
        raft.max_retained_bytes = self.snapshot_bytes / 2;
        raft.lease_reads = self.read_kind == ReadKind::Lease;
        // A follower's clients wait until it has applied what they wrote: it must not hear of the commit
        // only with the next heartbeat.
        raft.eager_commit = true;
        // Its folder may have been brought back from a backup.
        raft.return_check = true;
        NodeConfig { snapshot_at_bytes: self.snapshot_bytes, ..NodeConfig::new(raft) }
    }

    /// How long a request may take: as etcd, 5 s and two elections.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_secs(5) + self.election_max * 2
    }

    /// The shortest time to live that a lease is granted, in seconds: as etcd, one and a half of the longest time
    /// without a leader, and not less than etcd's 2, so that a lease outlives an election.
    #[must_use]
    pub fn min_lease_ttl(&self) -> i64 {
        let seconds = (self.election_max * 3).as_nanos().div_ceil(2_000_000_000);
        i64::try_from(seconds).unwrap_or(i64::MAX).max(2)
    }

    /// Checks what the values are together.
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
        self.node(0).raft.validate().map_err(|error| ConfigError::Together(error.to_string()))?;
        Ok(self)
    }
}

/// The FNV-1a hash, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
