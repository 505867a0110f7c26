//! Exhaustive search: every order in which messages, timeouts, crashes and requests can happen to a few
//! replicas of the real core, within bounds.
//!
//! Time is taken out: a timeout may happen at any moment, and nothing else depends on a clock. So what is
//! found safe here is safe with every timing; leases and reads, which are made of time, are left to
//! others. Pre-votes and their answers travel in no time: they promise nothing, and a search in which
//! they are lost or late would only be slower. Every state is checked against the five properties of
//! Figure 3, and every message against the sender's disk.

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

/// How much may happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How many replicas found the cluster, at most 9.
    pub replicas: usize,
    /// The greatest term in which one may stand.
    pub terms: u64,
    /// The longest log, in entries; each term begins with one.
    pub entries: usize,
    /// Most commands of clients.
    pub commands: u8,
    /// Most crashes.
    pub crashes: u8,
    /// Most changes of the membership that an operator asks for.
    pub changes: u8,
    /// Most messages that arrive twice.
    pub doubles: u8,
    /// Most messages that are lost, beside those that never happen to arrive.
    pub drops: u8,
    /// Most messages on their way at once.
    pub in_flight: usize,
    /// Whether a write is on disk as soon as it is written.
    pub instant_disk: bool,
    /// Whether a message carries one entry at most.
    pub one_entry_messages: bool,
    /// Whether states that differ only in names are one.
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
        // Together, so that a leader's pause between heartbeats is also the time to send again.
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
    /// Distinct states that were reached.
    pub states: u64,
    /// Steps that were taken between them.
    pub steps: u64,
    /// Steps that led beyond the bounds.
    pub beyond_bounds: u64,
    /// How many steps from the start every state was looked at.
    pub depth: u32,
    /// Most states at one distance from the start.
    pub widest: u64,
    /// Whether there are no more states within the bounds.
    pub exhausted: bool,
    /// Distinct states of a single replica.
    pub replica_states: u64,
    /// Distinct messages.
    pub messages: u64,
    /// Bytes of the search's own tables.
    pub table_bytes: u64,
    /// The first rule that was broken, on one of the shortest ways.
    pub violation: Option<Counterexample>,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counterexample {
    /// Which.
    pub rule: String,
    /// After how many steps.
    pub steps: usize,
    /// How it came to that, a line for each event.
    pub trace: Vec<String>,
}

/// Searches from `start` until `most` distinct states were reached. `watch` is told now and then how
/// many states were reached and how deep, and ends the search by returning `false`: who has a clock
/// may stop by it, the search has none.
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
