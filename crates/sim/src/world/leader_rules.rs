//! What must be true of a leader after each of its steps, beyond what its log and its messages show.

use std::collections::BTreeMap;

use bowline_node::{NodeInput, NodeMessage};
use bowline_raft::{Entry, Index, NodeId, Payload, Raft, Term, Write};

use crate::world::oracle::{Judged, Rule};
use crate::world::stage::World;

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

impl World<'_> {
    /// After a step of a replica that has heard `from`.
    pub(crate) fn judge_leader(&mut self, host: usize, from: Option<NodeId>) {
        let losses = from.and_then(|peer| self.hosts.get(peer.0 as usize - 1)).map_or(0, |it| it.disk.losses());
        let it = &mut self.hosts[host];
        let Some(raft) = it.node.as_ref().map(|node| node.raft()).filter(|raft| raft.is_leader()) else { return };
        let judged = from.map_or(Ok(()), |peer| it.matches.observe(raft, peer, losses));
        let membership = raft.membership();
        let stays = it.shadow.membership_is_committed() && !membership.is_joint() && !membership.is_voter(raft.id());
        let of_term = raft.log().term_at(raft.commit_index()) == Some(raft.term());
        let judged = match judged {
            // It may have learned of its removal from its predecessor; it goes when it can commit.
            Ok(()) if stays && of_term => {
                Err((Rule::Membership, format!("{} leads on, and is no voter of {membership}", raft.id())))
            }
            judged => judged,
        };
        self.judge(judged);
    }
}
