//! The model's state of one server: the variables of the published specification, and the contents of its disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bowline_raft::{
    Entry, Index, Log, Membership, NodeId, Payload, PersistId, Position, Raft, Term, Time, Token, Write,
};

/// `state[i]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Follower,
    Candidate,
    Leader,
}

/// `log[i]`. The terms are enough, because the ledger knows the entry at each position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) base: Position,
    terms: VecDeque<Term>,
}

impl Terms {
    pub(super) fn of(log: &Log) -> Terms {
        Terms { base: log.base(), terms: log.iter().map(|entry| entry.term).collect() }
    }

    pub(super) fn last(&self) -> Position {
        let index = self.base.index.plus(self.terms.len());
        Position::new(index, self.terms.back().copied().unwrap_or(self.base.term))
    }

    pub(super) fn len(&self) -> usize {
        self.terms.len()
    }

    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        let offset = index.0.checked_sub(self.base.index.0 + 1)?;
        self.terms.get(usize::try_from(offset).ok()?).copied()
    }

    pub(super) fn contains(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    pub(super) fn push(&mut self, term: Term) {
        self.terms.push_back(term);
    }

    pub(super) fn truncate_from(&mut self, from: Index) {
        let keep = from.previous().distance_from(self.base.index);
        self.terms.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    pub(super) fn compact_to(&mut self, base: Position) {
        let gone = usize::try_from(base.index.distance_from(self.base.index)).unwrap_or(usize::MAX);
        self.terms.drain(..gone.min(self.terms.len()));
        self.base = base;
    }

    pub(super) fn reset(&mut self, base: Position) {
        *self = Terms { base, terms: VecDeque::new() };
    }

    /// Whether both logs are the same, where neither is compacted.
    fn is_the_same_as(&self, log: &Log) -> bool {
        if self.last() != log.last() {
            return false;
        }
        let from = self.base.index.max(log.base().index);
        (from.0..=self.last().index.0).map(Index).all(|index| self.term_at(index) == log.term_at(index))
    }
}

/// The configurations in the log, after the one of its base.
#[derive(Clone, Debug)]
pub(super) struct Configurations {
    base: Membership,
    later: Vec<(Index, Membership)>,
}

impl Configurations {
    fn of(raft: &Raft) -> Configurations {
        let base = raft.snapshot_header(raft.log().base().index).map(|header| header.membership).unwrap_or_default();
        let mut it = Configurations { base, later: Vec::new() };
        raft.log().iter().for_each(|entry| it.append(entry));
        it
    }

    pub(super) fn append(&mut self, entry: &Entry) {
        if let Payload::Membership(membership) = &entry.payload {
            self.later.push((entry.index, membership.clone()));
        }
    }

    /// The configuration in force: the last one, committed or not.
    pub(super) fn current(&self) -> &Membership {
        self.later.last().map_or(&self.base, |(_, membership)| membership)
    }

    pub(super) fn current_is_at_most(&self, commit: Index) -> bool {
        self.later.last().is_none_or(|(index, _)| *index <= commit)
    }

    /// Whether `id` is a voter in the configuration at `commit` or in a later one.
    pub(super) fn may_be_voter(&self, id: NodeId, commit: Index) -> bool {
        let as_of = self.later.iter().rev().find(|(index, _)| *index <= commit).map_or(&self.base, |(_, it)| it);
        let later = self.later.iter().filter(|(index, _)| *index > commit).map(|(_, it)| it);
        std::iter::once(as_of).chain(later).any(|membership| membership.is_voter(id))
    }

    /// Whether the voters for which `it` is true are a majority of each half of the configuration in force. It is
    /// counted here, because the core's own arithmetic is under test too.
    pub(super) fn quorum(&self, it: impl Fn(NodeId) -> bool) -> bool {
        let current = self.current();
        let halves = std::iter::once(current.incoming()).chain(current.outgoing());
        let majority = |voters: &BTreeSet<NodeId>| {
            let agreeing = voters.iter().filter(|id| it(**id)).count();
            agreeing * 2 > voters.len()
        };
        halves.map(|group| &group.voters).all(majority)
    }

    pub(super) fn truncate_from(&mut self, from: Index) {
        self.later.retain(|(index, _)| *index < from);
    }

    pub(super) fn compact_to(&mut self, base: Index) {
        let gone = self.later.partition_point(|(index, _)| *index <= base);
        if let Some((_, membership)) = self.later.drain(..gone).next_back() {
            self.base = membership;
        }
    }

    pub(super) fn reset(&mut self, base: Membership) {
        *self = Configurations { base, later: Vec::new() };
    }
}

/// `currentTerm[i]` and `votedFor[i]`, which are always written together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ballot {
    pub(super) term: Term,
    pub(super) voted_for: Option<NodeId>,
}

/// The relevant part of a write that is not durable yet.
#[derive(Clone, Debug)]
pub(super) enum Pending {
    Ballot(Ballot),
    Truncate(Index),
    Append(Index, Vec<Term>),
    Snapshot(Position),
    Repaired,
    Suspect,
}

/// What a server finds on its disk after a restart.
#[derive(Clone, Debug)]
pub(super) struct Durable {
    pub(super) ballot: Ballot,
    pub(super) log: Terms,
    /// Logs of which a part was lost, until the server is repaired. Their entries count as held, because the server
    /// gives no vote that could contradict them.
    pub(super) owed: Vec<Terms>,
}

impl Durable {
    fn take(&mut self, write: &Pending) {
        match write {
            Pending::Ballot(ballot) => self.ballot = *ballot,
            Pending::Truncate(from) => self.log.truncate_from(*from),
            Pending::Append(_, terms) => terms.iter().for_each(|term| self.log.push(*term)),
            Pending::Snapshot(base) => self.log.reset(*base),
            Pending::Repaired => self.owed.clear(),
            Pending::Suspect => {}
        }
    }

    /// Whether an entry would be there after a restart, or is owed.
    pub(super) fn holds(&self, position: Position) -> bool {
        let mut logs = std::iter::once(&self.log).chain(&self.owed);
        logs.any(|log| position.index <= log.base.index || log.contains(position))
    }
}

/// One server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) id: NodeId,
    pub(super) ballot: Ballot,
    pub(super) role: Role,
    /// The leader that it follows in this term.
    pub(super) leader: Option<NodeId>,
    /// Whether the leader asked it to stand.
    pub(super) transfer: bool,
    /// `votesGranted[i]`, without its own.
    pub(super) votes: BTreeSet<NodeId>,
    /// The servers that granted it a pre-vote.
    pub(super) pre_votes: BTreeSet<NodeId>,
    pub(super) log: Terms,
    pub(super) configurations: Configurations,
    /// `commitIndex[i]`.
    pub(super) commit: Index,
    /// The log is known to equal that of this term's leader up to here.
    pub(super) verified: Index,
    /// The last index that was given to the state machine.
    pub(super) handed: Index,
    pub(super) durable: Durable,
    pub(super) pending: VecDeque<(PersistId, Pending)>,
    pub(super) written: PersistId,
    pub(super) now: Time,
    pub(super) leader_contact: Option<Time>,
    /// Whether its disk has lost something, so that it must not vote.
    pub(super) suspect: bool,
    /// Whether its disk was replaced by an older image since it started.
    pub(super) rolled_back: bool,
    /// The positions of commands that wait for their outcome.
    pub(super) proposals: BTreeMap<Token, Position>,
}

impl Server {
    /// `Restart`: the server has what is on disk, and nothing else.
    pub(super) fn of(raft: &Raft) -> Server {
        let ballot = Ballot { term: raft.term(), voted_for: raft.voted_for() };
        let log = Terms::of(raft.log());
        Server {
            id: raft.id(),
            ballot,
            role: Role::Follower,
            leader: None,
            transfer: false,
            votes: BTreeSet::new(),
            pre_votes: BTreeSet::new(),
            configurations: Configurations::of(raft),
            commit: raft.commit_index(),
            verified: Index(0),
            handed: raft.last_applied(),
            durable: Durable { ballot, log: log.clone(), owed: Vec::new() },
            log,
            pending: VecDeque::new(),
            written: PersistId(0),
            now: Time::ZERO,
            leader_contact: raft.leader_contact(),
            suspect: raft.suspect().is_some(),
            rolled_back: false,
            proposals: BTreeMap::new(),
        }
    }

    /// Whether it may owe something when it comes back as `raft`.
    pub(super) fn may_owe(&self, raft: &Raft) -> bool {
        raft.suspect().is_some() || self.rolled_back || !self.durable.owed.is_empty()
    }

    /// The logs that it owes when it comes back as `raft`.
    pub(super) fn owes(&self, raft: &Raft) -> Vec<Terms> {
        let mut owed = self.durable.owed.clone();
        if !self.recovers_as(raft) {
            owed.push(self.durable.log.clone());
        }
        owed
    }

    /// Whether `raft` has what was durable, plus any number of the writes that were under way, the last of which may be
    /// cut between two entries. Term and vote may be later than the log, because they are first written to a second
    /// place.
    pub(super) fn recovers_as(&self, raft: &Raft) -> bool {
        let back = Ballot { term: raft.term(), voted_for: raft.voted_for() };
        let ballot_of = |write: &Pending| if let Pending::Ballot(ballot) = write { Some(*ballot) } else { None };
        let mut ballots: VecDeque<Ballot> = std::iter::once(self.durable.ballot)
            .chain(self.pending.iter().filter_map(|(_, write)| ballot_of(write)))
            .collect();
        let mut disk = self.durable.clone();
        let mut same = disk.log.is_the_same_as(raft.log()) && ballots.contains(&back);
        for (_, write) in &self.pending {
            if same {
                break;
            }
            if let Pending::Append(_, terms) = write {
                for term in terms {
                    disk.log.push(*term);
                    same = same || disk.log.is_the_same_as(raft.log()) && ballots.contains(&back);
                }
            } else {
                if ballot_of(write).is_some() {
                    ballots.pop_front();
                }
                disk.take(write);
                same = disk.log.is_the_same_as(raft.log()) && ballots.contains(&back);
            }
        }
        same
    }

    pub(super) fn write(&mut self, id: PersistId, write: &Write) {
        let pending = match write {
            Write::HardState(state) => Pending::Ballot(Ballot { term: state.term, voted_for: state.voted_for }),
            Write::Truncate { from } => Pending::Truncate(*from),
            Write::Append(entries) => {
                let first = entries.first().map_or(Index(u64::MAX), |entry| entry.index);
                Pending::Append(first, entries.iter().map(|entry| entry.term).collect())
            }
            Write::Snapshot(header) => Pending::Snapshot(header.position),
            Write::Repaired => Pending::Repaired,
            Write::Suspect { .. } => Pending::Suspect,
        };
        self.written = id;
        self.pending.push_back((id, pending));
    }

    /// Makes the writes up to this one durable. Returns the ballots among them.
    pub(super) fn persisted(&mut self, up_to: PersistId) -> Vec<Ballot> {
        let mut ballots = Vec::new();
        while let Some((_, write)) = self.pending.pop_front_if(|(id, _)| *id <= up_to) {
            self.durable.take(&write);
            if let Pending::Ballot(ballot) = write {
                ballots.push(ballot);
            }
        }
        ballots
    }

    /// The ballot that is durable once the write `after` is.
    pub(super) fn ballot_after(&self, after: Option<PersistId>) -> Ballot {
        let written = self.pending.iter().take_while(|(id, _)| Some(*id) <= after);
        let ballots = written.filter_map(|(_, write)| match write {
            Pending::Ballot(ballot) => Some(*ballot),
            _ => None,
        });
        ballots.last().unwrap_or(self.durable.ballot)
    }

    /// Whether no later write changes the log up to `index` once the write `after` is durable.
    pub(super) fn log_is_durable_after(&self, after: Option<PersistId>, index: Index) -> bool {
        let mut unwritten = self.pending.iter().filter(|(id, _)| Some(*id) > after);
        !unwritten.any(|(_, write)| match write {
            Pending::Ballot(_) | Pending::Repaired | Pending::Suspect => false,
            Pending::Truncate(from) | Pending::Append(from, _) => *from <= index,
            Pending::Snapshot(_) => true,
        })
    }

    /// Whether the log equals the leader's up to `position`, which is in the leader's log.
    pub(super) fn matches_at(&self, position: Position) -> bool {
        position.index <= self.commit || self.log.contains(position)
    }
}
