//! Leadership transfer (thesis 3.10), with an answer to the one who asked for it.

use std::time::Duration;

use crate::effect::{Effects, Outcome, Refusal};
use crate::message::Body;
use crate::probe::probe;
use crate::raft::Raft;
use crate::requests::PendingTransfer;
use crate::role::Role;
use crate::types::{NodeId, Time, Token};

/// A transfer that a leader is carrying out. Meanwhile the leader takes no new entries; it gives up after an election
/// timeout (S60, S62).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LeadershipTransfer {
    to: NodeId,
    deadline: Time,
    retry_after: Duration,
    /// When the target was last told to stand for election.
    told_at: Option<Time>,
}

impl LeadershipTransfer {
    /// When the leader must act on the transfer next.
    pub(crate) fn due(&self) -> Time {
        let again = self.told_at.map_or(Time::NEVER, |told_at| told_at.after(self.retry_after));
        self.deadline.min(again)
    }
}

impl Raft {
    pub(crate) fn transfer_leadership(&mut self, token: Token, to: Option<NodeId>, out: &mut Effects) {
        let Some(leader) = self.leader_ref() else { return self.refuse_as_follower(token, out) };
        let refusal = |refusal| Outcome::Refused(refusal);
        if leader.transfer.is_some() || self.requests.transfer.is_some() {
            return self.requests.answer(token, refusal(Refusal::TransferUnderWay), out);
        }
        if to == Some(self.config.id) {
            let position = self.log.last();
            return self.requests.answer(token, Outcome::Done { position }, out);
        }
        let membership = self.membership.current();
        let best = leader
            .progress
            .iter()
            .filter(|(id, _)| membership.is_voter(**id))
            .max_by_key(|(_, progress)| (progress.match_index, progress.contact));
        let target = match to {
            Some(id) if !membership.is_voter(id) => Err(Refusal::NotAVoter(id)),
            Some(id) => Ok(id),
            None => best.map(|(id, _)| *id).ok_or(Refusal::NoOtherVoter),
        };
        let to = match target {
            Ok(id) => id,
            Err(reason) => return self.requests.answer(token, refusal(reason), out),
        };
        let deadline = self.now.after(self.config.election_timeout_max);
        let transfer = LeadershipTransfer { to, deadline, retry_after: self.config.retry_after, told_at: None };
        self.requests.transfer = Some(PendingTransfer { token, to, deadline });
        if let Some(leader) = self.leader_mut() {
            leader.transfer = Some(transfer);
        }
        self.send_entries(to, out);
        self.advance_transfer(out);
    }

    /// Tells the target to stand for election as soon as it has the whole log.
    pub(crate) fn advance_transfer(&mut self, out: &mut Effects) {
        let (now, last) = (self.now, self.log.last().index);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        let caught_up = leader.progress.get(&transfer.to).is_some_and(|progress| progress.match_index == last);
        if !caught_up {
            // A target that was already told may have lost entries since then: it is told again once it has them.
            transfer.told_at = None;
            return;
        }
        if transfer.told_at.is_some_and(|told_at| now < told_at.after(transfer.retry_after)) {
            return;
        }
        probe!(TransferTold);
        transfer.told_at = Some(now);
        leader.lease_void = true;
        let to = transfer.to;
        self.send_now(to, Body::TimeoutNow, out);
    }

    /// Whether this replica leads and hands the leadership over.
    #[must_use]
    pub fn is_handing_over(&self) -> bool {
        self.leader_ref().is_some_and(|leader| leader.transfer.is_some())
    }

    pub(crate) fn is_transfer_target(&self, id: NodeId) -> bool {
        self.leader_ref().and_then(|leader| leader.transfer).is_some_and(|transfer| transfer.to == id)
    }

    /// Gives up a transfer that took too long, or tells the target again.
    pub(crate) fn on_transfer_deadline(&mut self, out: &mut Effects) {
        let now = self.now;
        let given_up =
            self.leader_mut().and_then(|leader| leader.transfer.take_if(|transfer| transfer.deadline <= now));
        if given_up.is_some() {
            // A joint configuration that was committed during the transfer has not been left yet.
            self.advance_membership(out);
        }
        self.advance_transfer(out);
    }

    /// The target stands for election without waiting, if it may stand at all (S61).
    pub(crate) fn handle_timeout_now(&mut self, out: &mut Effects) {
        let follows = matches!(self.role, Role::Follower(_));
        if follows && self.may_stand() {
            self.start_election(true, out);
        }
    }

    /// Answers the transfer that this replica began, once the leader of a new term is known.
    pub(crate) fn settle_transfer(&mut self, out: &mut Effects) {
        let Some(leader) = self.leader() else { return };
        if let Some(PendingTransfer { token, to, .. }) = self.requests.transfer.take() {
            let position = self.log.last();
            let outcome = if leader == to { Outcome::Done { position } } else { Outcome::Superseded };
            self.requests.answer(token, outcome, out);
        }
    }
}
