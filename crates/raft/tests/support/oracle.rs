//! What must hold in every run, whatever happens (Figure 3 of the paper, and what clients are told).

use std::collections::{BTreeMap, BTreeSet};

use bowline_raft::{AppendOutcome, Body, Entry, Index, Message, NodeId, Outcome, Payload, Position, Raft, Term, Write};

use super::host::Host;
use super::simulation::LogOnDisk;

/// Remembers everything that was promised, and panics at the first broken promise.
#[derive(Default)]
pub(crate) struct Oracle {
    leaders: BTreeMap<Term, NodeId>,
    /// Every entry ever created, by its position, with the term before it: by induction, two logs
    /// that share a position share all before it (Log Matching).
    created: BTreeMap<Position, (Payload, Option<Term>)>,
    /// What was ever known to be committed.
    pub(crate) committed: BTreeMap<Index, Term>,
    /// What each state machine has applied must be the same.
    applied: BTreeMap<Index, Entry>,
    /// Votes that left over the wire.
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// The latest acknowledgements that left over the wire, by the term in which they did.
    acks: BTreeMap<(NodeId, Term), Position>,
    /// The greatest index that a finished request has seen.
    finished: Index,
    /// Commands that were said not to take effect.
    refused: BTreeSet<Vec<u8>>,
    /// How many requests ended well.
    pub(crate) done: usize,
    pub(crate) readable: usize,
}

/// A request without an answer.
pub(crate) struct Request {
    pub(crate) name: String,
    command: Option<Vec<u8>>,
    /// What must be visible to it when it ends.
    floor: Index,
}

impl Oracle {
    /// A request that is asked now.
    pub(crate) fn request(&self, name: &str, command: Option<&[u8]>) -> Request {
        Request { name: name.to_owned(), command: command.map(<[u8]>::to_vec), floor: self.finished }
    }

    pub(crate) fn answered(&mut self, host: &Host, request: &Request, outcome: &Outcome) {
        match outcome {
            Outcome::Done { position } => {
                self.done += 1;
                self.finished = self.finished.max(position.index.min(host.applied()));
                if let Some(command) = &request.command {
                    let entry = &self.applied[&position.index];
                    assert_eq!(entry.payload, Payload::Command(command.clone().into()), "another command was done");
                    assert_eq!(entry.position(), *position);
                }
            }
            Outcome::Readable { index } => {
                self.readable += 1;
                assert!(host.applied() >= *index, "{} reads before it has applied {index}", host.id);
                assert!(*index >= request.floor, "{}: a read at {index} misses {}", host.id, request.floor);
                self.finished = self.finished.max(*index);
            }
            Outcome::Expired => {}
            Outcome::NotLeader { .. } | Outcome::Overloaded { .. } | Outcome::Superseded | Outcome::Refused(_) => {
                let Some(command) = &request.command else { return };
                let applied =
                    self.applied.values().any(|entry| entry.payload == Payload::Command(command.clone().into()));
                assert!(!applied, "{} says that an applied command had no effect: {outcome}", host.id);
                self.refused.insert(command.clone());
            }
        }
    }

    pub(crate) fn applied(&mut self, id: NodeId, entry: &Entry) {
        let known = self.applied.entry(entry.index).or_insert_with(|| entry.clone());
        assert_eq!(known, entry, "{id} applies another entry (State Machine Safety)");
        if let Payload::Command(command) = &entry.payload {
            assert!(!self.refused.contains(&command[..]), "{id} applies a command that was said to have no effect");
        }
    }

    pub(crate) fn written(&mut self, before: Position, write: &Write) {
        let Write::Append(entries) = write else { return };
        let mut previous = before.term;
        for entry in entries {
            let fact = (entry.payload.clone(), Some(previous));
            let known = self.created.entry(entry.position()).or_insert_with(|| fact.clone());
            assert_eq!(known, &fact, "two entries at {} (Log Matching)", entry.position());
            previous = entry.term;
        }
    }

    /// Entries are taken back. None of them can be one that was acknowledged in the same term: its leader
    /// never overwrites its own (I2, I9).
    pub(crate) fn truncated(&self, host: &Host, from: Index) {
        let term = host.raft().term();
        let acknowledged = self.acks.get(&(host.id, term)).map_or(Index(0), |position| position.index);
        assert!(acknowledged < from, "{} takes back {acknowledged}, which it acknowledged in {term} (I9)", host.id);
    }

    /// A message leaves a host.
    pub(crate) fn sent(&mut self, from: NodeId, to: NodeId, message: &Message, disk: &LogOnDisk, raft: &Raft) {
        let term = message.term;
        assert!(term <= raft.term());
        match &message.body {
            Body::RequestVote { .. } => self.voted(from, term, from, disk),
            Body::RequestVoteReply { granted: true } => self.voted(from, term, to, disk),
            Body::AppendEntriesReply(reply) => {
                assert!(disk.hard_state.term >= term, "{from} answers in a term that it could forget");
                if let AppendOutcome::Accepted { match_index } = reply.outcome {
                    self.acknowledged(from, term, match_index, disk);
                }
            }
            _ => {}
        }
    }

    fn voted(&mut self, voter: NodeId, term: Term, candidate: NodeId, disk: &LogOnDisk) {
        let vote = self.votes.entry((voter, term)).or_insert(candidate);
        assert_eq!(*vote, candidate, "{voter} votes twice in {term}");
        let state = disk.hard_state;
        let durable = state.term > term || (state.term == term && state.voted_for == Some(candidate));
        assert!(durable, "{voter} tells a vote that it could forget");
    }

    fn acknowledged(&mut self, follower: NodeId, term: Term, index: Index, disk: &LogOnDisk) {
        assert!(
            disk.last().index >= index || disk.hard_state.term > term,
            "{follower} acknowledges before it is durable"
        );
        let held = disk.entries.iter().find(|entry| entry.index == index).map(Entry::position);
        if let Some(position) = held.filter(|_| disk.hard_state.term == term) {
            let newest = self.acks.entry((follower, term)).or_insert(position);
            *newest = (*newest).max(position);
        }
    }

    /// A replica comes back: it remembers what it promised.
    pub(crate) fn restarted(&self, host: &Host) {
        let (id, state) = (host.id, host.disk.hard_state);
        for ((_, term), vote) in self.votes.range((id, state.term)..).take_while(|((voter, _), _)| *voter == id) {
            assert_eq!(*term, state.term, "{id} forgot {term}");
            assert_eq!(state.voted_for, Some(*vote), "{id} forgot its vote");
        }
        if let Some(position) = self.acks.get(&(id, state.term)) {
            assert!(host.holds(*position), "{id} forgot {position}, which it had acknowledged in {}", state.term);
        }
    }

    /// The disk of a replica has lost entries, and will say so: nobody counts on its word any more.
    pub(crate) fn damaged(&mut self, id: NodeId) {
        self.acks.retain(|(acknowledger, _), _| *acknowledger != id);
    }

    /// After an input.
    pub(crate) fn check(&mut self, host: &Host) {
        let Some(raft) = &host.replica else { return };
        if raft.is_leader() {
            let leader = *self.leaders.entry(raft.term()).or_insert(raft.id());
            assert_eq!(leader, raft.id(), "two leaders in {} (Election Safety)", raft.term());
        }
        let log = raft.log();
        for index in (1..=raft.commit_index().0).rev().map(Index) {
            let Some(term) = log.term_at(index) else { break };
            match self.committed.insert(index, term) {
                None => {}
                Some(known) => {
                    assert_eq!(known, term, "{} commits another entry at {index}", host.id);
                    break;
                }
            }
        }
    }

    /// A replica has just become leader: it has everything that was committed (Leader Completeness).
    pub(crate) fn elected(&self, raft: &Raft) {
        let log = raft.log();
        for (index, term) in self.committed.range(log.base().index..) {
            let held = log.term_at(*index);
            assert!(
                held == Some(*term) || *index < log.base().index || self.leads_late(raft),
                "{} leads without the committed entry {index}@{}",
                raft.id(),
                term.0
            );
        }
    }

    /// A leader of a term that is over already owes nothing to the entries of later terms.
    fn leads_late(&self, raft: &Raft) -> bool {
        self.leaders.keys().next_back().is_some_and(|newest| *newest > raft.term())
    }
}
