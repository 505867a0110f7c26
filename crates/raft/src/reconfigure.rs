//! Changing the membership (section 6; thesis 4): the steps that a leader takes.
//!
//! A change of the voters goes through a joint configuration, in which both groups must agree. A change of learners
//! alone needs none, since it changes no quorum. Only one change is made at a time, and only after the leader has
//! committed an entry of its own term: otherwise two leaders could each start from a configuration that the other
//! doesn't know (S49).

use crate::effect::{Effects, Outcome, Refusal};
use crate::log::Payload;
use crate::membership::{Group, Membership, MembershipChange, MembershipError, target_of};
use crate::message::Body;
use crate::probe::probe;
use crate::progress::Progress;
use crate::raft::Raft;
use crate::requests::PendingChange;
use crate::types::{NodeId, Token};

impl Raft {
    pub(crate) fn change_membership(&mut self, token: Token, change: &MembershipChange, out: &mut Effects) {
        let Some(leader) = self.leader_ref() else { return self.refuse_as_follower(token, out) };
        if leader.transfer.is_some() {
            return self.requests.answer(token, Outcome::Refused(Refusal::TransferUnderWay), out);
        }
        let (next, goal) = match self.next_membership(change) {
            Ok(step) => step,
            Err(error) => return self.requests.answer(token, Outcome::Refused(error.into()), out),
        };
        if &next == self.membership.current() {
            let position = self.log.last();
            return self.requests.answer(token, Outcome::Done { position }, out);
        }
        if next.is_joint() {
            probe!(JointEntered);
        }
        if *change == MembershipChange::Revert {
            probe!(JointReverted);
        }
        let position = self.append_membership(next, out);
        self.requests.changes.push(PendingChange { token, position, goal });
    }

    /// The configuration to append for a change, and the group that it leads to.
    fn next_membership(&self, change: &MembershipChange) -> Result<(Membership, Group), MembershipError> {
        let current = self.membership.current();
        let term_committed = self.leader_ref().is_some_and(|leader| self.commit_index >= leader.term_start);
        if !term_committed {
            return Err(MembershipError::TermNotCommitted);
        }
        if *change == MembershipChange::Revert {
            // Allowed even while the joint configuration is not committed: the outgoing group is needed for decisions
            // in both configurations (S52).
            let reverted = current.reverted();
            let goal = reverted.incoming().clone();
            return if current.is_joint() { Ok((reverted, goal)) } else { Err(MembershipError::NothingToRevert) };
        }
        let under_way = current.is_joint() || !self.membership_is_committed();
        if under_way {
            probe!(ChangeRefused);
            return Err(MembershipError::ChangeUnderWay);
        }
        let group = current.incoming();
        let goal = target_of(group, change)?;
        if let Some(laggard) = goal.voters.difference(&group.voters).find(|id| !self.has_caught_up(**id)) {
            probe!(PromotionRefused);
            return Err(MembershipError::NotCaughtUp(*laggard));
        }
        if goal.voters != group.voters && !self.can_commit_with(&goal) {
            probe!(NewVotersRefused);
            return Err(MembershipError::NewVotersLag);
        }
        let next = if goal.voters == group.voters {
            Membership::simple(goal.clone())
        } else {
            Membership::joint(group.clone(), goal.clone())
        };
        Ok((next, goal))
    }

    fn membership_is_committed(&self) -> bool {
        self.membership.current_index().is_none_or(|index| index <= self.commit_index)
    }

    /// Whether a learner may become a voter: it has answered lately, and its log is at most `max_promotion_lag` entries
    /// behind. One that is down would be counted on at once, and might be needed for every commit (thesis 4.2.1).
    fn has_caught_up(&self, id: NodeId) -> bool {
        let Some(peer) = self.leader_ref().and_then(|leader| leader.progress.get(&id)) else { return false };
        self.answers(peer) && self.log.last().index.distance_from(peer.match_index) <= self.config.max_promotion_lag
    }

    fn answers(&self, peer: &Progress) -> bool {
        let silence = peer.contact.map(|contact| self.now.since(contact));
        silence.is_some_and(|silence| silence <= self.config.election_timeout_max)
    }

    /// Whether a majority of these voters, the leader among them, answers and keeps up with what is committed. Each of
    /// them must have acknowledged an entry of this term: one whose disk has lost entries may answer, but neither votes
    /// nor acknowledges.
    fn can_commit_with(&self, group: &Group) -> bool {
        let Some(leader) = self.leader_ref() else { return false };
        let needed = self.commit_index.0.saturating_sub(self.config.max_promotion_lag).max(leader.term_start.0);
        let keeps_up = |id: &NodeId| {
            let keeps_up = |peer: &Progress| self.answers(peer) && peer.match_index.0 >= needed;
            *id == self.config.id || leader.progress.get(id).is_some_and(keeps_up)
        };
        group.voters.iter().filter(|id| keeps_up(id)).count() * 2 > group.voters.len()
    }

    /// Appends a configuration, which is in force from here on (section 6).
    fn append_membership(&mut self, membership: Membership, out: &mut Effects) -> crate::types::Position {
        let next_index = self.log.last().index.next();
        let position = self.append_own(Payload::Membership(membership), out);
        self.track_members(next_index);
        // Thrifty mode makes no exception: the quorum itself may have changed.
        self.heartbeat_all(out);
        // The members that stay may have confirmed the waiting reads already.
        self.confirm_reads(out);
        position
    }

    /// What a leader does about its configuration after each commit: it leaves a joint one, no matter which leader
    /// began it (S51), and steps down when the committed one doesn't have it as a voter (section 6).
    pub(crate) fn advance_membership(&mut self, out: &mut Effects) {
        let Some(leader) = self.leader_ref() else { return };
        if self.commit_index < leader.term_start || !self.membership_is_committed() {
            return;
        }
        let current = self.membership.current();
        if current.is_joint() {
            if leader.transfer.is_none() {
                probe!(JointLeft);
                let left = current.left();
                self.append_membership(left, out);
            }
            return;
        }
        if !current.is_voter(self.config.id) {
            self.leave_office(out);
        }
    }

    /// A leader that is no longer a voter tells everyone what is committed, asks the most up-to-date voter to take
    /// over, and steps down (S53).
    fn leave_office(&mut self, out: &mut Effects) {
        probe!(LeaderRemovedItself);
        self.heartbeat_all(out);
        let Some(leader) = self.leader_ref() else { return };
        let voters = &self.membership.current().incoming().voters;
        let successor = leader
            .progress
            .iter()
            .filter(|(id, _)| voters.contains(id))
            .max_by_key(|(_, progress)| (progress.match_index, progress.contact))
            .map(|(id, _)| *id);
        if let Some(successor) = successor {
            self.send_now(successor, Body::TimeoutNow, out);
        }
        self.become_follower(None, out);
    }

    /// Answers the changes whose last entry is committed. An entry that was truncated here may still come back with
    /// another leader, so only the entry that is committed at its index decides.
    pub(crate) fn settle_changes(&mut self, out: &mut Effects) {
        for change in std::mem::take(&mut self.requests.changes) {
            match self.end_of(&change) {
                Some(outcome) => self.requests.answer(change.token, outcome, out),
                None => self.requests.changes.push(change),
            }
        }
    }

    /// How a change ended, if it has. It ends with the first simple configuration that is committed at or after its
    /// entry.
    fn end_of(&self, change: &PendingChange) -> Option<Outcome> {
        let (begun, base) = (change.position, self.log.base());
        let covered = begun.index <= base.index;
        if begun.index > self.commit_index {
            // It follows a committed entry of a later term, so it can't be in any future leader's log (5.4).
            let dead = self.log.term_at(self.commit_index).is_some_and(|term| term > begun.term);
            return dead.then_some(Outcome::Superseded);
        }
        if !covered && !self.log.contains(begun) {
            return Some(Outcome::Superseded);
        }
        let as_of_base = self.membership.at(base.index);
        let (index, reached) = match covered && !as_of_base.is_joint() {
            true => (base.index, as_of_base),
            false => self.membership.first_simple_from(begun.index)?,
        };
        let position = self.log.position_at(index).filter(|_| index <= self.commit_index)?;
        Some(match reached.incoming() == &change.goal {
            true => Outcome::Done { position },
            // A snapshot covers its entry: the change may have reached its goal before a later change left it again.
            false if covered => Outcome::Expired,
            false => Outcome::Superseded,
        })
    }
}
