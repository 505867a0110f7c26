//! What the model knows of the whole cluster: the history variables of the published specification (`elections`,
//! `allLogs`), and the part of its set of messages that the transitions need.

use std::collections::BTreeMap;

use bowline_raft::{Entry, Index, NodeId, Payload, Position, Raft, Term};

use super::rule::{Checked, Rule, check};
use super::server::Terms;

/// Facts that never change once they are true.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    /// By term: the elected leader.
    leaders: BTreeMap<Term, NodeId>,
    entries: Entries,
    /// Votes that are durable and so may have been sent, by voter and term.
    votes: BTreeMap<(NodeId, Term), NodeId>,
    /// By index: the term of the committed entry.
    committed: Vec<Option<Term>>,
}

/// By position: the entry, and the term of the entry before it. By induction, two logs that share a position share
/// everything before it (Log Matching). Most indices only ever have one entry.
#[derive(Clone, Debug, Default)]
struct Entries {
    /// By index: the first entry that was created there.
    first: Vec<Option<Known>>,
    /// Entries of other terms at the same index.
    others: BTreeMap<Position, Known>,
}

#[derive(Clone, Debug)]
struct Known {
    term: Term,
    payload: Payload,
    before: Option<Term>,
}

impl Entries {
    fn get(&self, position: Position) -> Option<&Known> {
        match self.first.get(place(position.index))? {
            Some(known) if known.term == position.term => Some(known),
            _ => self.others.get(&position),
        }
    }

    /// Adds an entry whose position is not taken.
    fn add(&mut self, entry: &Entry, before: Option<Term>) {
        let known = Known { term: entry.term, payload: entry.payload.clone(), before };
        match slot(&mut self.first, entry.index) {
            first @ None => *first = Some(known),
            Some(_) => {
                self.others.insert(entry.position(), known);
            }
        }
    }
}

fn place(index: Index) -> usize {
    usize::try_from(index.0).expect("an index of a log in memory fits")
}

fn slot<T: Clone>(list: &mut Vec<Option<T>>, index: Index) -> &mut Option<T> {
    let at = place(index);
    if list.len() <= at {
        list.resize(at + 1, None);
    }
    &mut list[at]
}

/// Whether two payloads are the same. Copies share their bytes, so comparing pointers is usually enough.
fn same(one: &Payload, other: &Payload) -> bool {
    match (one, other) {
        (Payload::Command(one), Payload::Command(other)) if one.as_ptr() == other.as_ptr() => one.len() == other.len(),
        _ => one == other,
    }
}

impl Ledger {
    pub(super) fn leader_of(&self, term: Term) -> Option<NodeId> {
        self.leaders.get(&term).copied()
    }

    pub(super) fn elected(&mut self, term: Term, id: NodeId, log: &Terms) -> Checked {
        let leader = *self.leaders.entry(term).or_insert(id);
        check(leader == id, Rule::BecomeLeader, || format!("leads in {term}, but {leader} was elected in it"))?;
        // Leader Completeness for what was committed in earlier terms. By Log Matching it is enough to check the last
        // entry.
        let earlier = self.committed.iter().enumerate().rev();
        let earlier = earlier.filter_map(|(index, at)| Some((Index(index as u64), (*at)?))).find(|(_, at)| *at < term);
        let Some((index, at)) = earlier else { return Ok(()) };
        let held = log.base.index >= index || log.term_at(index) == Some(at);
        check(held, Rule::BecomeLeader, || format!("leads in {term} without the committed entry {index}@{}", at.0))
    }

    /// A leader creates an entry after one of the term `before`.
    pub(super) fn created(&mut self, entry: &Entry, before: Option<Term>) -> Checked {
        check(self.entries.get(entry.position()).is_none(), Rule::ClientRequest, || {
            format!("creates a second entry at {}: a position must name one entry for ever", entry.position())
        })?;
        self.entries.add(entry, before);
        Ok(())
    }

    /// Whether a leader created exactly this entry, after one of the term `before` if that is known.
    pub(super) fn holds(&self, entry: &Entry, before: Option<Term>) -> bool {
        self.entries.get(entry.position()).is_some_and(|known| {
            let follows = before.is_none() || known.before.is_none() || before == known.before;
            follows && same(&known.payload, &entry.payload)
        })
    }

    /// Adopts the log of a replica that was never seen before.
    pub(super) fn adopt(&mut self, raft: &Raft) -> Checked {
        let log = raft.log();
        for entry in log.iter() {
            let Some(known) = self.entries.get(entry.position()) else {
                self.entries.add(entry, log.term_at(entry.index.previous()));
                continue;
            };
            check(same(&known.payload, &entry.payload), Rule::Restart, || {
                format!("starts with another entry at {}", entry.position())
            })?;
        }
        for index in (log.base().index.0..=raft.commit_index().0).map(Index) {
            if let Some(term) = log.term_at(index) {
                self.commit(index, term)?;
            }
        }
        Ok(())
    }

    pub(super) fn vote_of(&self, voter: NodeId, term: Term) -> Option<NodeId> {
        self.votes.get(&(voter, term)).copied()
    }

    /// Forgets a replica's votes, because it has forgotten them itself and may vote again once nobody counts on them.
    pub(super) fn forget_votes(&mut self, voter: NodeId) {
        self.votes.retain(|(id, _), _| *id != voter);
    }

    pub(super) fn voted(&mut self, voter: NodeId, term: Term, candidate: NodeId) -> Checked {
        let vote = *self.votes.entry((voter, term)).or_insert(candidate);
        check(vote == candidate, Rule::GrantVote, || {
            format!("votes for {candidate} in {term}, but has voted for {vote} in it")
        })
    }

    pub(super) fn committed_at(&self, index: Index) -> Option<Term> {
        self.committed.get(place(index)).copied().flatten()
    }

    /// State Machine Safety: what is committed stays.
    pub(super) fn commit(&mut self, index: Index, term: Term) -> Checked {
        let known = *slot(&mut self.committed, index).get_or_insert(term);
        check(known == term, Rule::AdvanceCommitIndex, || {
            format!("commits {index}@{}, but {index}@{} is committed", term.0, known.0)
        })
    }
}
