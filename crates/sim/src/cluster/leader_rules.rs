//! Rules for leaders and for messages to them, checked after each step. They need more than one replica's log.

use std::collections::{BTreeMap, BTreeSet};

use bowline_node::{NodeInput, NodeMessage};
use bowline_raft::{AppendOutcome, Body, Entry, Index, Message, NodeId, Payload, Position, Raft, Term, Write};

use crate::cluster::clock::Moment;
use crate::cluster::hosts::Hosts;
use crate::cluster::oracle::{Judged, Rule};

/// The match indices that a leader has had in its current term, by peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matches {
    term: Term,
    by_peer: BTreeMap<NodeId, Index>,
    /// By peer: how often its disk had lost entries, as of the last decrease.
    losses: BTreeMap<NodeId, u32>,
    /// The losses that peers have told of.
    told: BTreeSet<(NodeId, u64)>,
}

/// A message of the core, as far as the rules for leaders need it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    from: NodeId,
    /// The number of a loss of which it tells the leader, and where the sender's log ends.
    loss: Option<(u64, Position)>,
}

impl Heard {
    /// A message to `raft`, which has not handled it yet.
    pub(crate) fn of(from: NodeId, message: &NodeMessage, raft: &Raft) -> Option<Heard> {
        let NodeMessage::Raft(Message { term, body }) = message else { return None };
        let loss = match body {
            Body::AppendEntriesReply(reply) if *term == raft.term() && Some(reply.session) == raft.session(from) => {
                match reply.outcome {
                    AppendOutcome::Damaged { hint, loss_id, .. } => Some((loss_id, hint)),
                    AppendOutcome::Accepted { .. } | AppendOutcome::Rejected { .. } => None,
                }
            }
            _ => None,
        };
        Some(Heard { from, loss })
    }
}

impl Matches {
    /// Forgets the match indices when a configuration is appended, because a peer that is removed and added again
    /// begins anew.
    pub(crate) fn forget(&mut self) {
        self.by_peer.clear();
    }

    /// I11: a match index never decreases and never lies beyond the leader's log. It may decrease if the peer's disk
    /// has lost entries since; `losses` says how often it has.
    pub(crate) fn observe(&mut self, raft: &Raft, heard: Heard, losses: u32) -> Judged {
        if self.term != raft.term() {
            let losses = std::mem::take(&mut self.losses);
            *self = Matches { term: raft.term(), losses, ..Matches::default() };
        }
        let (id, last, peer) = (raft.id(), raft.log().last(), heard.from);
        let Some(index) = raft.match_index(peer) else { return Ok(()) };
        if let Some((loss, hint)) = heard.loss
            && self.told.insert((peer, loss))
            && index > hint.index
        {
            let what =
                format!("{id} counts {peer} as far as {index}, though it has heard that only {hint} is left there");
            return Err((Rule::MatchNeverDecreases, what));
        }
        let known = std::mem::replace(self.by_peer.entry(peer).or_default(), index);
        if index < known && self.losses.insert(peer, losses).unwrap_or(0) == losses {
            let what = format!("{id} lowers its match index of {peer} from {known} to {index}");
            return Err((Rule::MatchNeverDecreases, what));
        }
        if index > last.index {
            return Err((
                Rule::MatchNeverDecreases,
                format!("{id} has the match index {index} for {peer}, but its log ends at {last}"),
            ));
        }
        Ok(())
    }
}

/// The message in an input to `raft`.
pub(crate) fn heard_in(input: &NodeInput, raft: &Raft) -> Option<Heard> {
    match input {
        NodeInput::Receive { from, message } => Heard::of(*from, message, raft),
        _ => None,
    }
}

/// I25: a leader takes no proposal beyond its limit of uncommitted bytes, except a single one.
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
    let what = format!("{} takes {} bytes beside {open} uncommitted ones, limit {limit}", raft.id(), command.len());
    Err((Rule::BoundsHold, what))
}

/// Rules over several hosts, checked after a step of `host`.
impl Hosts {
    /// Checks a leader that has just received a message.
    pub(crate) fn judge_leader(&mut self, host: usize, heard: Option<Heard>) -> Judged {
        let from = heard.and_then(|heard| self.get(heard.from.0 as usize - 1));
        let losses = from.map_or(0, |it| it.disk.losses());
        let it = &mut self[host];
        let Some(raft) = it.node.as_ref().map(|node| node.raft()).filter(|raft| raft.is_leader()) else {
            return Ok(());
        };
        heard.map_or(Ok(()), |heard| it.matches.observe(raft, heard, losses))?;
        let membership = raft.membership();
        let of_term = raft.log().term_at(raft.commit_index()) == Some(raft.term());
        if !of_term || !it.shadow.membership_is_committed() {
            return Ok(());
        }
        // Its predecessor may have removed it; it must step down once it has committed in its term.
        if !membership.is_joint() && !membership.is_voter(raft.id()) {
            return Err((Rule::Membership, format!("{} still leads, but is not a voter of {membership}", raft.id())));
        }
        if membership.is_joint() && !raft.is_handing_over() {
            return Err((Rule::Membership, format!("{} does not leave {membership}, which is committed", raft.id())));
        }
        Ok(())
    }

    /// Checks that what a message claims is true of the sender, and of the leader that it answers.
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

    /// I9: an acknowledged entry is on the follower's disk and is the same as the leader's.
    fn matches_leader(&self, from: usize, to: NodeId, term: Term, index: Index) -> Judged {
        let (disk, leader) = (&self[from].disk, self.get(to.0 as usize - 1));
        let Some(raft) = leader.and_then(|it| it.node.as_ref()).map(|node| node.raft()) else { return Ok(()) };
        if !raft.is_leader() || raft.term() != term || disk.hard_state().term > term {
            return Ok(());
        }
        match (disk.term_at(index), raft.log().term_at(index)) {
            (Some(held), Some(led)) if held != led => {
                let what = format!("n{} acknowledges {index}@{}, but {to} has {index}@{}", from + 1, held.0, led.0);
                Err((Rule::AcknowledgedIsDurable, what))
            }
            _ => Ok(()),
        }
    }

    /// I10: what is committed is on the disks of a quorum. A disk that lost it counts too, if the loss is known: its
    /// replica gives no vote before it has the entry again.
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
        let what = format!("n{} commits {index}@{}, which no quorum of {} holds", host + 1, term.0, raft.membership());
        Err((Rule::CommittedIsDurableOnQuorum, what))
    }

    /// I21: while a leader would serve a read under its lease, nobody leads in a later term.
    pub(crate) fn judge_leases(&self, now: Moment) -> Judged {
        let terms = || self.leading().iter().filter_map(|host| Some((self.raft(*host)?.term(), *host)));
        let Some((latest, newest)) = terms().max() else { return Ok(()) };
        match terms().find(|(term, host)| *term < latest && self[*host].holds_lease(now)) {
            None => Ok(()),
            Some((term, holder)) => {
                let what = format!("n{} holds a lease in {term}, but n{} leads in {latest}", holder + 1, newest + 1);
                Err((Rule::OneLease, what))
            }
        }
    }
}
