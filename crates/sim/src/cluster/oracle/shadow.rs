//! A replica's log and configurations, computed from its stream of writes. The core's own state must agree with what it
//! wrote.

use std::collections::VecDeque;

use bowline_raft::probe::{Probe, hit};
use bowline_raft::{Entry, Index, Membership, Payload, Position, Raft, SnapshotHeader, Term, Write};

use crate::cluster::oracle::{Judged, Links, Rule};

#[derive(Clone, Debug, Default)]
pub(crate) struct Shadow {
    base: Position,
    base_membership: Membership,
    terms: VecDeque<Term>,
    memberships: Vec<(Index, Membership)>,
    pub(crate) commit: Index,
    pub(crate) term: Term,
    pub(crate) leads: Option<Term>,
    /// The term in which it started with a log or a vote that was repaired from a copy.
    pub(crate) repaired_in: Option<Term>,
    /// The configuration may have changed since it was last compared.
    membership_dirty: bool,
}

impl Shadow {
    /// The shadow of a replica that starts.
    pub(crate) fn of(raft: &Raft) -> Shadow {
        let base = raft.log().base();
        let base_membership = raft.snapshot_header(base.index).map(|header| header.membership).unwrap_or_default();
        let mut shadow = Shadow { base, base_membership, commit: raft.commit_index(), ..Shadow::default() };
        shadow.term = raft.term();
        raft.log().iter().for_each(|entry| shadow.push(entry));
        shadow
    }

    fn push(&mut self, entry: &Entry) {
        self.terms.push_back(entry.term);
        if let Payload::Membership(membership) = &entry.payload {
            self.memberships.push((entry.index, membership.clone()));
            self.membership_dirty = true;
        }
    }

    pub(crate) fn last(&self) -> Position {
        match self.terms.back() {
            Some(term) => Position::new(Index(self.base.index.0 + self.terms.len() as u64), *term),
            None => self.base,
        }
    }

    pub(crate) fn membership(&self) -> &Membership {
        self.memberships.last().map_or(&self.base_membership, |(_, membership)| membership)
    }

    /// A replica emits a write. Returns whether it appends a configuration.
    pub(crate) fn written(&mut self, raft: &Raft, write: &Write, links: &mut Links) -> Result<bool, (Rule, String)> {
        let id = raft.id();
        match write {
            Write::HardState(state) => {
                if state.term < self.term {
                    return Err((Rule::TermNeverDecreases, format!("{id} goes from {} to {}", self.term, state.term)));
                }
                self.term = state.term;
                if state.voted_for.is_some() && self.repaired_in == Some(state.term) {
                    hit(Probe::VoteAfterRepair);
                }
            }
            Write::Truncate { from } => {
                if *from <= self.commit {
                    let what = format!("{id} truncates from {from} on, but has committed up to {}", self.commit);
                    return Err((Rule::NothingCommittedIsTruncated, what));
                }
                if self.leads == Some(raft.term()) {
                    return Err((Rule::LeaderAppendOnly, format!("{id} leads and truncates from {from} on")));
                }
                let keep = from.previous().distance_from(self.base.index);
                self.terms.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
                self.memberships.retain(|(index, _)| index < from);
                self.membership_dirty = true;
            }
            Write::Append(entries) => return self.append(raft, entries, links),
            Write::Repaired | Write::Suspect { .. } => {}
            Write::Snapshot(header) => {
                self.terms.clear();
                self.memberships.clear();
                self.base = header.position;
                self.base_membership = header.membership.clone();
                self.membership_dirty = true;
            }
        }
        Ok(false)
    }

    fn append(&mut self, raft: &Raft, entries: &[Entry], links: &mut Links) -> Result<bool, (Rule, String)> {
        let mut changes = false;
        for entry in entries {
            let last = self.last();
            if entry.index != last.index.next() {
                let what = format!("{} writes {} after {last}", raft.id(), entry.position());
                return Err((Rule::StreamIsComplete, what));
            }
            links.appended(entry, last.term)?;
            self.push(entry);
            changes |= matches!(entry.payload, Payload::Membership(_));
        }
        Ok(changes)
    }

    /// Checks after a step that the core's state agrees with its writes (I15: the configuration is a function of the
    /// log).
    pub(crate) fn agrees(&mut self, raft: &Raft) -> Judged {
        let (id, last) = (raft.id(), raft.log().last());
        if last != self.last() {
            return Err((
                Rule::StreamIsComplete,
                format!("{id}'s log ends at {last}, but its writes end at {}", self.last()),
            ));
        }
        if self.membership_dirty {
            self.membership_dirty = false;
            if raft.membership() != self.membership() {
                let what = format!("{id} follows {}, but its log says {}", raft.membership(), self.membership());
                return Err((Rule::Membership, what));
            }
        }
        self.compact(raft.log().base());
        Ok(())
    }

    fn compact(&mut self, base: Position) {
        while self.base.index < base.index {
            let Some(term) = self.terms.pop_front() else { return };
            self.base = Position::new(self.base.index.next(), term);
            if self.memberships.first().is_some_and(|(index, _)| *index <= self.base.index) {
                self.base_membership = self.memberships.remove(0).1;
            }
        }
    }

    /// The configuration at `index` and every later one.
    pub(crate) fn memberships_since(&self, index: Index) -> impl Iterator<Item = &Membership> {
        let earlier =
            self.memberships.iter().rev().find(|(at, _)| *at <= index).map_or(&self.base_membership, |m| &m.1);
        let later = self.memberships.iter().filter(move |(at, _)| *at > index).map(|(_, membership)| membership);
        std::iter::once(earlier).chain(later)
    }

    /// The index of the latest configuration, if the log still holds it.
    pub(crate) fn configured_at(&self) -> Option<Index> {
        self.memberships.last().map(|(index, _)| *index)
    }

    pub(crate) fn membership_is_committed(&self) -> bool {
        self.memberships.last().is_none_or(|(index, _)| *index <= self.commit)
    }

    /// I16: a snapshot has the configuration that the log has at its index.
    pub(crate) fn judge_header(&self, header: &SnapshotHeader) -> Judged {
        let after = header.position.index.distance_from(self.base.index);
        let next = usize::try_from(after).ok().and_then(|after| self.terms.get(after));
        if next.is_some_and(|term| *term != header.position.term) {
            hit(Probe::SnapshotEndsTerm);
        }
        let as_of = self.memberships_since(header.position.index).next();
        match as_of {
            Some(membership) if *membership != header.membership => {
                let what = format!(
                    "a snapshot up to {} says {}, but the log says {membership}",
                    header.position, header.membership
                );
                Err((Rule::StatesAreEqual, what))
            }
            _ => Ok(()),
        }
    }

    /// I15: at most one change is uncommitted, and any quorum of a configuration meets any quorum of the next.
    pub(crate) fn change_is_sound(&self, raft: &Raft) -> Judged {
        let mut pairs = self.memberships.iter().rev();
        let Some((_, newest)) = pairs.next() else { return Ok(()) };
        let previous = pairs.next();
        let before = previous.map_or(&self.base_membership, |(_, membership)| membership);
        let open = previous.is_some_and(|(index, _)| *index > raft.commit_index());
        let takes_back = before.is_joint() && *newest == before.reverted();
        if open && raft.is_leader() && !takes_back {
            let what = format!("{} appends {newest} while {before} is not committed", raft.id());
            return Err((Rule::Membership, what));
        }
        match quorums_meet(before, newest) {
            true => Ok(()),
            false => Err((Rule::Membership, format!("{before} and {newest} have quorums that don't meet"))),
        }
    }
}

/// Whether every quorum of one configuration shares a member with every quorum of the other.
fn quorums_meet(one: &Membership, other: &Membership) -> bool {
    let voters: Vec<_> = one.voters().union(&other.voters()).copied().collect();
    if one.voters().is_empty() || other.voters().is_empty() || voters.len() > 14 {
        return true;
    }
    (0..1_u32 << voters.len()).all(|chosen| {
        let is_in = |id| voters.iter().position(|voter| *voter == id).is_some_and(|at| chosen & (1 << at) != 0);
        !(one.quorum().is_reached_by(is_in) && other.quorum().is_reached_by(|id| !is_in(id)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline_raft::{Group, NodeId};

    fn simple(voters: &[u64]) -> Membership {
        Membership::simple(group(voters))
    }

    fn group(voters: &[u64]) -> Group {
        Group::of_voters(voters.iter().copied().map(NodeId))
    }

    #[test]
    fn quorums_of_single_steps_and_joint_configurations_meet_and_others_do_not() {
        assert!(quorums_meet(&simple(&[1, 2, 3]), &simple(&[1, 2, 3, 4])));
        assert!(!quorums_meet(&simple(&[1, 2, 3]), &simple(&[3, 4, 5])));
        let joint = Membership::joint(group(&[1, 2, 3]), group(&[3, 4, 5]));
        assert!(quorums_meet(&simple(&[1, 2, 3]), &joint) && quorums_meet(&joint, &simple(&[3, 4, 5])));
    }
}
