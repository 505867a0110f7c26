//! What a host may choose. The values are checked once, at the start. Nothing that safety depends on can be switched
//! off: pre-vote, check-quorum, leader stickiness and both restrictions are always on.

use std::time::Duration;

use crate::types::NodeId;

/// Bound on how far the clocks of two replicas may drift apart, in parts per million of the elapsed time. Leases are
/// shortened by this bound; with a greater drift they would be unsafe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DriftBound {
    parts_per_million: u32,
}

impl DriftBound {
    /// A bound of this many parts per million, at most 200,000 (a fifth).
    ///
    /// # Errors
    /// The value is greater than that.
    pub fn new(parts_per_million: u32) -> Result<DriftBound, ConfigError> {
        if parts_per_million > 200_000 {
            return Err(ConfigError::OutOfRange {
                field: "clock_drift",
                value: format!("{parts_per_million} ppm"),
                allowed: "0 to 200,000 ppm",
            });
        }
        Ok(DriftBound { parts_per_million })
    }

    /// The longest span on the leader's clock that surely ends no later than `promise` on any follower's clock:
    /// `promise * (1 - drift) / (1 + drift)`, rounded down.
    #[must_use]
    pub fn shorten(self, promise: Duration) -> Duration {
        let million = 1_000_000_u128;
        let drift = u128::from(self.parts_per_million);
        let nanos = promise.as_nanos() * (million - drift) / (million + drift);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Default for DriftBound {
    /// 1 % (10,000 ppm): a hundred times the drift of quartz clocks.
    fn default() -> DriftBound {
        DriftBound { parts_per_million: 10_000 }
    }
}

/// The tunable parts of the core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// The identity of this replica.
    pub id: NodeId,
    /// Seed of the timeouts; must differ between replicas and between starts of one replica.
    pub seed: u64,
    /// Shortest election timeout (5.2); also how long a replica refuses votes after it has heard from a leader.
    pub election_timeout_min: Duration,
    /// Longest election timeout; a leader that hears no quorum for this long steps down.
    pub election_timeout_max: Duration,
    /// Longest time between two messages of a leader to a follower.
    pub heartbeat_interval: Duration,
    /// How long an AppendEntries may stay unanswered before it is sent again.
    pub retry_after: Duration,
    /// Most entries in one message.
    pub max_message_entries: usize,
    /// Most bytes of entries in one message; one entry alone may be larger.
    pub max_message_bytes: usize,
    /// Most unanswered messages with entries to one follower (pipelining).
    pub max_inflight_messages: usize,
    /// Most unanswered bytes of entries to one follower.
    pub max_inflight_bytes: usize,
    /// Most bytes of entries that are not committed yet; beyond it, proposals are refused.
    pub max_uncommitted_bytes: usize,
    /// Most bytes of entries that are handed to the state machine and not applied yet.
    pub max_applying_bytes: usize,
    /// Most bytes of entries kept for followers after a snapshot holds them.
    pub max_retained_bytes: usize,
    /// Most reads that wait at once; beyond it, reads are refused.
    pub max_waiting_reads: usize,
    /// How far behind a learner may be, in entries, to be promoted.
    pub max_promotion_lag: u64,
    /// Whether reads may be answered under a lease without asking a quorum (thesis 6.4.1).
    pub lease_reads: bool,
    /// Bound on the drift between clocks that leases rely on.
    pub clock_drift: DriftBound,
    /// Send new entries at once only to a bare majority, and to the others with their next heartbeat. The value is
    /// how long a member of that majority may be silent before another one replaces it.
    pub thrifty: Option<Duration>,
    /// Whether a starting replica first asks its peers whether they remember more of it than its disk does, as
    /// after a restore from an old image (D14). It has no vote before a quorum has answered, or, after two election
    /// timeouts, any one peer. All replicas of a cluster must have the same value.
    pub return_check: bool,
    /// Tell the followers at once that entries are committed, not only with the next message.
    pub eager_commit: bool,
}

/// Why a configuration or a recovered state is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A field is outside its range.
    #[error("{field} is {value}; allowed: {allowed}")]
    OutOfRange {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// The state that the host recovered contradicts itself.
    #[error("the recovered state contradicts itself: {0}")]
    Recovered(String),
}

impl Config {
    /// The paper's timing (5.6, 9.3): elections after 150 to 300 ms, a heartbeat every 50 ms.
    #[must_use]
    pub fn new(id: NodeId, seed: u64) -> Config {
        Config {
            id,
            seed,
            election_timeout_min: Duration::from_millis(150),
            election_timeout_max: Duration::from_millis(300),
            heartbeat_interval: Duration::from_millis(50),
            retry_after: Duration::from_millis(50),
            max_message_entries: 1024,
            max_message_bytes: 1 << 20,
            max_inflight_messages: 64,
            max_inflight_bytes: 8 << 20,
            max_uncommitted_bytes: 64 << 20,
            max_applying_bytes: 16 << 20,
            max_retained_bytes: 16 << 20,
            max_waiting_reads: 65_536,
            max_promotion_lag: 64,
            lease_reads: true,
            clock_drift: DriftBound::default(),
            thrifty: None,
            return_check: false,
            eager_commit: false,
        }
    }

    /// How long a lease lasts, counted from the moment its confirming messages were sent.
    #[must_use]
    pub fn lease_duration(&self) -> Duration {
        self.clock_drift.shorten(self.election_timeout_min)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is out of its range, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let hour = Duration::from_hours(1);
        let spans = [
            ("election_timeout_min", self.election_timeout_min),
            ("election_timeout_max", self.election_timeout_max),
            ("heartbeat_interval", self.heartbeat_interval),
            ("retry_after", self.retry_after),
            ("thrifty", self.thrifty.unwrap_or(self.retry_after)),
        ];
        for (field, span) in spans {
            if span.is_zero() || span > hour {
                return Err(out_of_range(field, span, "more than 0, at most 1 h"));
            }
        }
        if self.election_timeout_max <= self.election_timeout_min {
            let allowed = "more than election_timeout_min, or split votes would never end";
            return Err(out_of_range("election_timeout_max", self.election_timeout_max, allowed));
        }
        if self.heartbeat_interval >= self.election_timeout_min {
            let allowed = "less than election_timeout_min, or followers would give up on a live leader";
            return Err(out_of_range("heartbeat_interval", self.heartbeat_interval, allowed));
        }
        let counts = [
            ("max_message_entries", self.max_message_entries),
            ("max_message_bytes", self.max_message_bytes),
            ("max_inflight_messages", self.max_inflight_messages),
            ("max_inflight_bytes", self.max_inflight_bytes),
            ("max_uncommitted_bytes", self.max_uncommitted_bytes),
            ("max_applying_bytes", self.max_applying_bytes),
            ("max_waiting_reads", self.max_waiting_reads),
        ];
        match counts.iter().find(|(_, count)| *count == 0) {
            Some((field, count)) => Err(out_of_range(field, count, "at least 1")),
            None => Ok(()),
        }
    }
}

fn out_of_range(field: &'static str, value: impl std::fmt::Debug, allowed: &'static str) -> ConfigError {
    ConfigError::OutOfRange { field, value: format!("{value:?}"), allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(Config::new(NodeId(1), 0).validate(), Ok(()));
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_allowed() {
        let mut config = Config::new(NodeId(1), 0);
        config.heartbeat_interval = Duration::from_secs(2);
        let message = config.validate().expect_err("too slow a heartbeat").to_string();
        assert_eq!(
            message,
            "heartbeat_interval is 2s; allowed: less than election_timeout_min, or followers would give up on a live leader"
        );
        let mut config = Config::new(NodeId(1), 0);
        config.max_inflight_messages = 0;
        let message = config.validate().expect_err("no message allowed").to_string();
        assert_eq!(message, "max_inflight_messages is 0; allowed: at least 1");
        assert!(DriftBound::new(200_001).is_err());
    }

    #[test]
    fn a_lease_is_over_before_any_promise_is() {
        let drift = DriftBound::new(100_000).expect("a tenth is allowed");
        // The leader's clock runs slow by a tenth, the follower's fast by a tenth.
        let lease = drift.shorten(Duration::from_secs(11));
        assert_eq!(lease, Duration::from_secs(9));
    }
}
