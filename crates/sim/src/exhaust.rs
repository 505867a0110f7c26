//! Exhaustive search over every order in which messages, timeouts, crashes and requests can happen to a few replicas of
//! the real core, within bounds.
//!
//! The search has no time: a timeout may happen at any moment, and nothing else depends on a clock. So what is safe
//! here is safe with every timing. Leases and reads depend on time; other tests cover them. Pre-votes and their answers
//! arrive at once: they promise nothing, and a search in which they could be lost or late would only be slower. Every
//! state is checked against the five properties of Figure 3, and every message against the sender's disk.

mod interner;
mod replica;
mod search;
mod space;
mod starts;
mod trace;

use bowline_raft::{Config, NodeId};

pub use starts::{STARTS, Start};

use space::Space;
use starts::Script;

/// The bounds of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Number of founding replicas, at most 9.
    pub replicas: usize,
    /// The highest term in which a replica may stand for election.
    pub terms: u64,
    /// Maximum length of a log, in entries; each term begins with one entry.
    pub entries: usize,
    /// Maximum number of commands of clients.
    pub commands: u8,
    /// Maximum number of crashes.
    pub crashes: u8,
    /// Maximum number of changes of the membership that an operator asks for.
    pub changes: u8,
    /// Maximum number of messages that arrive twice.
    pub doubles: u8,
    /// Maximum number of messages that are lost, not counting those that just stay on their way.
    pub drops: u8,
    /// Maximum number of messages on their way at once.
    pub in_flight: usize,
    /// Whether a write is on disk as soon as it is written.
    pub instant_disk: bool,
    /// Whether a message carries at most one entry.
    pub one_entry_messages: bool,
    /// Whether states that differ only in the names of replicas count as one.
    pub symmetry: bool,
}

impl Default for Bounds {
    /// Three replicas, three terms, two commands, one crash, one change.
    fn default() -> Bounds {
        Bounds {
            replicas: 3,
            terms: 3,
            entries: 5,
            commands: 2,
            crashes: 1,
            changes: 1,
            doubles: 1,
            drops: 1,
            in_flight: 5,
            instant_disk: true,
            one_entry_messages: false,
            symmetry: true,
        }
    }
}

impl Bounds {
    fn config(&self, id: NodeId) -> Config {
        let mut config = Config::new(id, 0);
        // Equal, so that a heartbeat is also the time to send again.
        config.retry_after = config.heartbeat_interval;
        if self.one_entry_messages {
            config.max_message_entries = 1;
        }
        config
    }
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of distinct states reached.
    pub states: u64,
    /// Number of steps taken between them.
    pub steps: u64,
    /// Number of steps that led beyond the bounds.
    pub beyond_bounds: u64,
    /// All states within this many steps from the start were searched.
    pub depth: u32,
    /// The largest number of states at the same distance from the start.
    pub widest: u64,
    /// Whether there are no more states within the bounds.
    pub exhausted: bool,
    /// Number of distinct states of a single replica.
    pub replica_states: u64,
    /// Number of distinct messages.
    pub messages: u64,
    /// Bytes of the search's own tables.
    pub table_bytes: u64,
    /// The first broken rule, on one of the shortest paths.
    pub violation: Option<Counterexample>,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterexample {
    /// The rule.
    pub rule: String,
    /// Number of steps to the violation.
    pub steps: usize,
    /// The path to the violation, one line for each event.
    pub trace: Vec<String>,
}

/// Searches from `start` until `most` distinct states were reached. `watch` is called now and then with the number of
/// states and the depth. It may end the search by returning `false`, for example after a time limit.
pub fn explore(start: &Start, most: u64, watch: &mut dyn FnMut(u64, u32) -> bool) -> Report {
    let mut bounds = Bounds::default();
    (start.bounds)(&mut bounds);
    let mut space = Space::new(bounds);
    let state = space.fresh();
    let mut script = Script { space: &mut space, state };
    let played = (start.script)(&mut script);
    let state = script.state;
    match played {
        Ok(()) => search::search(&mut space, &state, most, watch),
        Err(rule) => {
            let trace = trace::trace(&mut space, &state, &[]);
            Report { violation: Some(Counterexample { rule, steps: 0, trace }), ..Report::default() }
        }
    }
}

#[cfg(test)]
mod tests;
