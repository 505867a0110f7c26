//! What must be true of leaders after each step, and of what is said to them, beyond what one log shows.

use std::collections::BTreeMap;

use bowline_node::{NodeInput, NodeMessage};
use bowline_raft::{AppendOutcome, Body, Entry, Index, Message, NodeId, Payload, Position, Raft, Term, Write};

use crate::cluster::clock::Moment;
use crate::cluster::hosts::Hosts;
use crate::cluster::oracle::{Judged, Rule};

/// What a leader has known to match, by peer, in its present term.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matches {
    term: Term,
    by_peer: BTreeMap<NodeId, Index>,
    /// How often each peer's disk had lost entries when that was last heard of.
    losses: BTreeMap<NodeId, u32>,
}

impl Matches {
    /// A configuration was appended: who was removed and is added again begins anew.
    pub(crate) fn forget(&mut self) {
        self.by_peer.clear();
    }

    /// I11: what is known to match never decreases, and is in the leader's log.
    /// Unless the peer's disk has lost entries since: `losses` says how often it has.
    pub(crate) fn observe(&mut self, raft: &Raft, peer: NodeId, losses: u32) -> Judged {
        if self.term != raft.term() {
            let losses = std::mem::take(&mut self.losses);
            *self = Matches { term: raft.term(), by_peer: BTreeMap::new(), losses };
        }
        let (id, last) = (raft.id(), raft.log().last());
        let Some(index) = raft.match_index(peer) else { return Ok(()) };
        let known = std::mem::replace(self.by_peer.entry(peer).or_default(), index);
        if index < known && self.losses.insert(peer, losses).unwrap_or(0) == losses {
            let what = format!("{id} takes back what it knows of {peer} from {known} to {index}");
            return Err((Rule::MatchNeverDecreases, what));
        }
        if index > last.index {
            return Err((
                Rule::MatchNeverDecreases,
                format!("{id} takes {peer} to match {index}, its log ends at {last}"),
            ));
        }
        Ok(())
    }
}

/// Who has answered or spoken.
pub(crate) fn speaker(input: &NodeInput) -> Option<NodeId> {
    match input {
        NodeInput::Receive { from, message: NodeMessage::Raft(_) } => Some(*from),
        _ => None,
    }
}

/// I25: a leader takes no proposal beyond its limit of uncommitted bytes. One is always let in.
pub(crate) fn takes_no_more_than_it_may(raft: &Raft, write: &Write) -> Judged {
    let Write::Append(entries) = write else { return Ok(()) };
    let [entry] = &entries[..] else { return Ok(()) };
    let Payload::Command(command) = &entry.payload else { return Ok(()) };
    let limit = raft.config().max_uncommitted_bytes;
    let earlier = raft.log().iter().rev().skip_while(|it| it.index >= entry.index);
    let open: usize = earlier.take_while(|it| it.index > raft.commit_index()).map(Entry::size).sum();
    if open == 0 || open + command.len() <= limit || !raft.is_leader() {
        return Ok(());
    }
    let what = format!("{} takes {} bytes beside {open} uncommitted ones of {limit}", raft.id(), command.len());
    Err((Rule::BoundsHold, what))
}

/// What hosts together show. Each is asked after a step of `host`.
impl Hosts {
    /// A leader that has just heard `from`, and knows more of it.
    pub(crate) fn judge_leader(&mut self, host: usize, from: Option<NodeId>) -> Judged {
        let losses = from.and_then(|peer| self.get(peer.0 as usize - 1)).map_or(0, |it| it.disk.losses());
        let it = &mut self[host];
        let Some(raft) = it.node.as_ref().map(|node| node.raft()).filter(|raft| raft.is_leader()) else {
            return Ok(());
        };
        from.map_or(Ok(()), |peer| it.matches.observe(raft, peer, losses))?;
        let membership = raft.membership();
        let stays = it.shadow.membership_is_committed() && !membership.is_joint() && !membership.is_voter(raft.id());
        let of_term = raft.log().term_at(raft.commit_index()) == Some(raft.term());
        // It may have learned of its removal from its predecessor; it goes when it can commit.
        if stays && of_term {
            return Err((Rule::Membership, format!("{} leads on, and is no voter of {membership}", raft.id())));
        }
        Ok(())
    }

    /// What a message claims is true of the sender, and of the leader that it answers.
    pub(crate) fn judge_claims(&self, from: usize, to: NodeId, message: &Message) -> Judged {
        let Some(raft) = self.raft(from) else { return Ok(()) };
        match &message.body {
            Body::AppendEntries(append) if append.commit_index > raft.commit_index() => {
                let what = format!("n{} tells {to} that {} is committed", from + 1, append.commit_index);
                Err((Rule::CommitIsNotOverstated, what))
            }
            Body::AppendEntriesReply(reply) => match reply.outcome {
                AppendOutcome::Accepted { match_index } => self.matches_leader(from, to, message.term, match_index),
                AppendOutcome::Rejected { .. } | AppendOutcome::Damaged { .. } => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// I9: an acknowledged entry is the leader's own, on the follower's disk.
    fn matches_leader(&self, from: usize, to: NodeId, term: Term, index: Index) -> Judged {
        let (disk, leader) = (&self[from].disk, self.get(to.0 as usize - 1));
        let Some(raft) = leader.and_then(|it| it.node.as_ref()).map(|node| node.raft()) else { return Ok(()) };
        if !raft.is_leader() || raft.term() != term || disk.hard_state().term > term {
            return Ok(());
        }
        match (disk.term_at(index), raft.log().term_at(index)) {
            (Some(held), Some(led)) if held != led => {
                let what = format!("n{} acknowledges {index}@{} where {to} has {index}@{}", from + 1, held.0, led.0);
                Err((Rule::AcknowledgedIsDurable, what))
            }
            _ => Ok(()),
        }
    }

    /// I10: what is committed now is on the disks of a quorum, or was, and its loss is known: who has lost it
    /// gives no vote before it is back.
    pub(crate) fn judge_commit(&self, host: usize) -> Judged {
        let Some(raft) = self.raft(host) else { return Ok(()) };
        let index = raft.commit_index();
        let Some(term) = raft.log().term_at(index) else { return Ok(()) };
        let holds = |id: NodeId| {
            let disk = self.get(id.0 as usize - 1).map(|it| &it.disk);
            let position = Position::new(index, term);
            disk.is_some_and(|disk| {
                disk.base().index >= index || disk.term_at(index) == Some(term) || disk.owes(position)
            })
        };
        if raft.membership().quorum().is_reached_by(holds) {
            return Ok(());
        }
        let what = format!("n{} commits {index}@{}, which {} don't hold", host + 1, term.0, raft.membership());
        Err((Rule::CommittedIsDurableOnQuorum, what))
    }

    /// I21: no two leaders would serve a read under their leases.
    pub(crate) fn judge_leases(&self, now: Moment) -> Judged {
        let holds = |host: &&usize| {
            let it = &self[**host];
            it.node.as_ref().is_some_and(|node| node.raft().holds_lease(it.clock.shows(now)))
        };
        let holders: Vec<usize> = self.leading().iter().filter(holds).copied().collect();
        if let [one, other, ..] = holders[..] {
            return Err((Rule::OneLease, format!("n{} and n{} both hold a lease", one + 1, other + 1)));
        }
        Ok(())
    }
}
