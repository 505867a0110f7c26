//! The timing of a LAN replica.

use std::time::Duration;

use bowline_node::NodeConfig;
use bowline_node::raft::{Config, NodeId};

/// The most bytes of entries or of a snapshot in one message. With framing, and a third more in base
/// 64, such a message stays below the 16,000 bytes that every harness accepts.
const MAX_MESSAGE_PAYLOAD: usize = 9_000;

/// A set of timing parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Few messages: entries go to a bare majority at once, and to the others with the next heartbeat.
    /// Heartbeats are rare, so a dead leader is replaced only after about two seconds.
    #[default]
    Frugal,
    /// The paper's timing: election timeouts of 150 to 300 ms, and a heartbeat every 50 ms.
    Paper,
}

impl Profile {
    /// Every profile, with its name on the command line.
    pub const ALL: [(&'static str, Profile); 2] = [("frugal", Profile::Frugal), ("paper", Profile::Paper)];

    /// The profile with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Profile> {
        Profile::ALL.iter().find(|(known, _)| *known == name).map(|(_, profile)| *profile)
    }

    /// The configuration of replica `id`. Each replica needs a different `seed` at each start.
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
