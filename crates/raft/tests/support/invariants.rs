//! What must hold after every input, seen from outside of the replica that got it: each rule is worked
//! out a second time here, from the log and the disks, and compared with what the core made of it.

use std::collections::{BTreeMap, BTreeSet};

use bowline_raft::{
    Effect, Effects, Entry, Index, Input, Membership, NodeId, Outcome, Payload, Position, Raft, ReadKind,
    RoleExplanation, Term, Time, Token,
};

use super::host::Host;

/// A replica as it was before an input.
pub(crate) struct Before {
    term: Term,
    commit: Index,
    membership: Membership,
    leads: bool,
    /// The term of the message that is the input, if it is one.
    told: Option<Term>,
}

impl Before {
    pub(crate) fn of(raft: &Raft, input: &Input) -> Before {
        let told = match input {
            Input::Receive { message, .. } => Some(message.term),
            _ => None,
        };
        Before {
            term: raft.term(),
            commit: raft.commit_index(),
            membership: raft.membership().clone(),
            leads: raft.is_leader(),
            told,
        }
    }
}

/// Remembers what the rules need.
#[derive(Default)]
pub(crate) struct Invariants {
    pub(crate) founders: Membership,
    /// Whether the clocks keep within their bound; a script may set one forward alone.
    pub(crate) clocks_keep_time: bool,
    /// The configurations that were committed.
    configurations: BTreeMap<Index, Membership>,
    /// What each leader knew to match, by leader, term and peer.
    /// Replicas that have lost what they acknowledged: what matches them may go back.
    damaged: BTreeSet<NodeId>,
    matched: BTreeMap<(NodeId, Term), BTreeMap<NodeId, Index>>,
}

impl Invariants {
    /// After `id` got an input, and before anything that follows from it was carried out.
    pub(crate) fn check(&mut self, hosts: &BTreeMap<NodeId, Host>, id: NodeId, before: &Before) {
        let raft = hosts[&id].raft();
        terms_grow_for_a_reason(raft, before);
        self.note_committed(raft, before.commit);
        self.configuration_follows_from_the_log(raft);
        if is_standing(raft) {
            self.has_a_right_to_stand(raft);
        }
        if !raft.is_leader() {
            return;
        }
        self.matches_only_grow(raft);
        if raft.commit_index() > before.commit {
            committed_on_a_quorum(hosts, raft, &before.membership);
        }
        if before.leads && raft.membership() != &before.membership {
            changes_step_by_step(raft, &before.membership);
        }
        if self.clocks_keep_time {
            lease_is_exclusive(hosts);
        }
    }

    fn note_committed(&mut self, raft: &Raft, before: Index) {
        let news = raft.log().iter().filter(|entry| entry.index > before && entry.index <= raft.commit_index());
        for entry in news {
            if let Payload::Membership(membership) = &entry.payload {
                let known = self.configurations.entry(entry.index).or_insert_with(|| membership.clone());
                assert_eq!(known, membership, "two configurations are committed at {}", entry.index);
            }
        }
    }

    /// The committed configuration as of `index`.
    fn as_of(&self, index: Index) -> &Membership {
        self.configurations.range(..=index).next_back().map_or(&self.founders, |(_, membership)| membership)
    }

    /// What a snapshot says of the membership is what the log said at its end.
    pub(crate) fn snapshot_names(&self, at: Position, membership: &Membership) {
        if at.index > Index(0) {
            assert_eq!(membership, self.as_of(at.index), "a snapshot at {at} names another configuration (I15)");
        }
    }

    fn configuration_follows_from_the_log(&self, raft: &Raft) {
        let in_log = raft.log().iter().rev().find_map(|entry| match &entry.payload {
            Payload::Membership(membership) => Some(membership),
            _ => None,
        });
        let base = raft.log().base().index;
        // A replica that was never told of any configuration has none.
        if in_log.is_none() && base == Index(0) && raft.membership() == &Membership::default() {
            return;
        }
        let expected = in_log.unwrap_or_else(|| self.as_of(base));
        assert_eq!(raft.membership(), expected, "{}: the configuration is not the log's (I15)", raft.id());
    }

    /// "It might still be needed until the C_new entry is committed" (thesis 4.2.2), and not longer.
    fn has_a_right_to_stand(&self, raft: &Raft) {
        let (me, commit) = (raft.id(), raft.commit_index());
        let later = raft.log().iter().filter(|entry| entry.index > commit).any(|entry| match &entry.payload {
            Payload::Membership(membership) => membership.is_voter(me),
            _ => false,
        });
        let in_log = raft.log().iter().any(|entry| matches!(entry.payload, Payload::Membership(_)));
        let never_told = !in_log && raft.log().base().index == Index(0) && raft.membership() == &Membership::default();
        let committed = !never_told && self.as_of(commit).is_voter(me);
        assert!(later || committed, "{me} stands for election without a right to (S17)");
    }

    /// The disk of a replica has lost entries: leaders will count anew what it has.
    pub(crate) fn damaged(&mut self, id: NodeId) {
        self.damaged.insert(id);
    }

    fn matches_only_grow(&mut self, raft: &Raft) {
        let peers: BTreeMap<NodeId, Index> =
            raft.explain().peers.iter().map(|peer| (peer.id, peer.match_index)).collect();
        let known = self.matched.insert((raft.id(), raft.term()), peers.clone()).unwrap_or_default();
        for (peer, index) in known {
            let now = peers.get(&peer).copied().unwrap_or(index);
            let voided = self.damaged.contains(&peer);
            assert!(now >= index || voided, "{}: what matches {peer} went back from {index} to {now} (I11)", raft.id());
        }
    }
}

fn is_standing(raft: &Raft) -> bool {
    matches!(raft.explain().role, RoleExplanation::Standing { .. })
}

/// Nobody enters a new term unless told of it, or by an election that a quorum would join.
fn terms_grow_for_a_reason(raft: &Raft, before: &Before) {
    assert!(raft.term() >= before.term, "{} goes back from {} to {} (I7)", raft.id(), before.term, raft.term());
    let told = before.told.is_some_and(|term| term >= raft.term());
    let elects = raft.is_leader() || matches!(raft.explain().role, RoleExplanation::Standing { pre_vote: false, .. });
    assert!(raft.term() == before.term || told || elects, "{} enters {} by itself", raft.id(), raft.term());
}

/// A leader commits what a quorum has on disk, its own disk counted like any other (I10).
fn committed_on_a_quorum(hosts: &BTreeMap<NodeId, Host>, raft: &Raft, before: &Membership) {
    let Some(position) = raft.snapshot_header(raft.commit_index()).map(|header| header.position) else { return };
    let holds = |id: &NodeId| hosts.get(id).is_some_and(|host| host.holds(position));
    let agreed = |membership: &Membership| {
        let mut groups = std::iter::once(membership.incoming()).chain(membership.outgoing());
        groups.all(|group| group.voters.iter().filter(|id| holds(id)).count() * 2 > group.voters.len())
    };
    let on_a_quorum = agreed(before) || agreed(raft.membership());
    assert!(on_a_quorum, "{} commits {position}, which no quorum has on disk (I10)", raft.id());
    assert_eq!(position.term, raft.term(), "{} commits an entry of an earlier term by counting (5.4.2)", raft.id());
}

/// One change at a time, of the voters by way of a joint configuration, and only by a leader that has
/// committed in its term (section 6; I15).
fn changes_step_by_step(raft: &Raft, before: &Membership) {
    let (id, now) = (raft.id(), raft.membership());
    let committed_in_term = raft.log().term_at(raft.commit_index()) == Some(raft.term());
    assert!(committed_in_term, "{id} changes the membership before it has committed in its term (S49)");
    let back = before.outgoing() == Some(now.incoming()) && !now.is_joint();
    let mut changes = raft.log().iter().rev().filter(|entry| matches!(entry.payload, Payload::Membership(_)));
    let earlier = changes.nth(1).map_or(Index(0), |entry: &Entry| entry.index);
    assert!(back || earlier <= raft.commit_index(), "{id} begins a change before the last one is committed (I15)");
    let orderly = match (before.is_joint(), now.is_joint()) {
        (false, false) => before.incoming().voters == now.incoming().voters,
        (false, true) => now.outgoing() == Some(before.incoming()),
        (true, false) => back || now.incoming() == before.incoming(),
        (true, true) => false,
    };
    assert!(orderly, "{id} goes from {before} to {now} in one step (I15)");
}

/// While one replica would answer under its lease, no replica leads a later term (I21).
fn lease_is_exclusive(hosts: &BTreeMap<NodeId, Host>) {
    let leaders: Vec<&Host> =
        hosts.values().filter(|host| host.replica.as_ref().is_some_and(Raft::is_leader)).collect();
    let Some(newest) = leaders.iter().map(|host| host.raft().term()).max() else { return };
    for host in leaders.iter().filter(|host| host.raft().term() < newest) {
        assert!(!would_read_at_once(host), "{} has a lease while another leads {newest} (I21)", host.id);
    }
}

fn would_read_at_once(host: &Host) -> bool {
    let (mut raft, clock) = (host.raft().clone(), host.own.clock);
    let token = Token(u64::MAX);
    let mut effects = Effects::new();
    raft.handle(clock, Input::Read { token, kind: ReadKind::Lease, deadline: Some(Time::NEVER) }, &mut effects);
    let served = |effect: &Effect| matches!(effect, Effect::Answer { token: of, outcome: Outcome::Readable { .. } } if *of == token);
    effects.as_slice().iter().any(served)
}
