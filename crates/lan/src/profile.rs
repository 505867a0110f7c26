//! How a LAN replica is tuned.

use std::time::Duration;

use bowline_node::NodeConfig;
use bowline_node::raft::{Config, NodeId};

/// Most bytes of entries or of a snapshot in one message: with its framing, and grown by a third in
/// base 64, it stays under the 16,000 bytes that every harness can take.
const MAX_MESSAGE_PAYLOAD: usize = 9_000;

/// A choice of timings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Few messages: entries go to a bare majority at once and to the others with the next of rare
    /// heartbeats. A dead leader is replaced after two seconds or so.
    #[default]
    Frugal,
    /// The paper's timing: elections after 150 to 300 ms, a heartbeat to everyone each 50 ms.
    Paper,
}

impl Profile {
    /// Every profile, with its name on the command line.
    pub const ALL: [(&'static str, Profile); 2] = [("frugal", Profile::Frugal), ("paper", Profile::Paper)];

    /// The profile of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Profile> {
        Profile::ALL.iter().find(|(known, _)| *known == name).map(|(_, profile)| *profile)
    }

    /// The configuration of replica `id`; `seed` must differ between replicas and starts.
    #[must_use]
    pub fn config(self, id: NodeId, seed: u64) -> NodeConfig {
        let mut raft = Config::new(id, seed);
        raft.max_message_bytes = MAX_MESSAGE_PAYLOAD;
        raft.max_inflight_bytes = 16 * MAX_MESSAGE_PAYLOAD;
        raft.max_inflight_messages = 16;
        raft.max_retained_bytes = 8 << 20;
        if self == Profile::Frugal {
            raft.election_timeout_min = Duration::from_millis(1_500);
            raft.election_timeout_max = Duration::from_millis(2_500);
            raft.heartbeat_interval = Duration::from_millis(500);
            raft.retry_after = Duration::from_millis(150);
            raft.thrifty = Some(Duration::from_millis(45));
        }
        let mut config = NodeConfig::new(raft);
        config.chunk_bytes = MAX_MESSAGE_PAYLOAD;
        config.max_snapshot_bytes = 1 << 30;
        config
    }
}
