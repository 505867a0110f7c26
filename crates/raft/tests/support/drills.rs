//! What a healed cluster must be able to do: the drills at the end of a random schedule.

use std::collections::BTreeSet;
use std::time::Duration;

use bowline_raft::{Input, MembershipChange, NodeId, ReadKind, Term};

use super::schedule::Schedule;

impl Schedule {
    /// The whole schedule: everything goes wrong, then it heals, and is drilled.
    pub(crate) fn run(&mut self) {
        self.pass(Duration::from_millis(500), true);
        for _ in 0..400 {
            self.step();
        }
        self.heal_and_serve();
        let leader = self.leader();
        let voters = self.cluster.host(leader).raft().membership().voters();
        assert!(voters.contains(&leader), "{leader} leads a cluster that it is no voter of");
        if voters.len() < 3 {
            return;
        }
        self.the_others_elect_while_the_leader_is_cut_off(&voters);
        self.nobody_disturbs_the_leader(&voters);
        self.reads_are_answered(&voters);
        self.a_bare_majority_elects(&voters);
        self.leadership_is_handed_over(&voters);
        self.the_leader_is_removed(&voters);
    }

    fn leader(&self) -> NodeId {
        self.cluster.leader().unwrap_or_else(|| self.nobody_leads())
    }

    fn term_of(&self, id: NodeId) -> Term {
        self.cluster.host(id).raft().term()
    }

    /// A command is taken and done.
    fn serve(&mut self, leader: NodeId) {
        let done = self.cluster.oracle.done;
        self.request(leader, |token| Input::Propose { token, command: b"drill".as_slice().into(), deadline: None });
        self.pass(Duration::from_millis(300), true);
        assert!(self.cluster.oracle.done > done, "{leader} leads, and takes no command");
    }

    fn request(&mut self, at: NodeId, input: impl Fn(bowline_raft::Token) -> Input) {
        let token = self.cluster.token(at, "", None);
        self.cluster.feed(at, input(token));
    }

    /// Check-quorum: a leader that is cut off gives up, and the others go on (thesis 6.2).
    fn the_others_elect_while_the_leader_is_cut_off(&mut self, voters: &BTreeSet<NodeId>) {
        let old = self.leader();
        self.cluster.partition(&[BTreeSet::from([old])]);
        self.pass(Duration::from_secs(3), true);
        assert!(!self.cluster.host(old).raft().is_leader(), "{old} leads alone for ten election timeouts");
        let new = self.leader();
        assert!(new != old && voters.contains(&new), "the others elect one of them");
        self.serve(new);
    }

    /// Pre-vote: the one that was cut off comes back without a new term (thesis 9.6).
    fn nobody_disturbs_the_leader(&mut self, voters: &BTreeSet<NodeId>) {
        let leader = self.leader();
        let term = self.term_of(leader);
        self.cluster.cut.clear();
        self.pass(Duration::from_secs(1), true);
        assert_eq!((self.leader(), self.term_of(leader)), (leader, term), "the leader is disturbed by a return");
        let commit = self.cluster.host(leader).raft().commit_index();
        for id in voters {
            assert_eq!(self.cluster.host(*id).applied(), commit, "{id} has everything");
        }
    }

    /// Every voter can serve a read, of either kind.
    fn reads_are_answered(&mut self, voters: &BTreeSet<NodeId>) {
        let readable = self.cluster.oracle.readable;
        for id in voters {
            self.request(*id, |token| Input::Read { token, kind: ReadKind::Lease, deadline: None });
            self.request(*id, |token| Input::Read { token, kind: ReadKind::Quorum, deadline: None });
        }
        self.pass(Duration::from_millis(300), true);
        assert_eq!(self.cluster.oracle.readable - readable, voters.len() * 2, "every read is answered");
    }

    /// The least that must suffice does: just a majority is up, and none of it has led.
    fn a_bare_majority_elects(&mut self, voters: &BTreeSet<NodeId>) {
        let leader = self.leader();
        let others: Vec<NodeId> = voters.iter().copied().filter(|id| *id != leader).collect();
        let down: Vec<NodeId> = std::iter::once(leader).chain(others).take((voters.len() - 1) / 2).collect();
        for id in &down {
            self.cluster.crash(*id);
        }
        self.pass(Duration::from_secs(3), true);
        let new = self.leader();
        self.serve(new);
        for id in down {
            self.cluster.restart(id);
        }
        self.pass(Duration::from_millis(500), true);
    }

    /// A transfer ends where it was meant to, or not at all (thesis 3.10).
    fn leadership_is_handed_over(&mut self, voters: &BTreeSet<NodeId>) {
        let leader = self.leader();
        let to = *voters.iter().find(|id| **id != leader).expect("there are three voters");
        // To one that is down it comes to nothing, and stands in nobody's way (S60).
        self.cluster.crash(to);
        self.request(leader, |token| Input::TransferLeadership { token, to: Some(to) });
        self.pass(Duration::from_millis(500), true);
        self.serve(leader);
        self.cluster.restart(to);
        self.pass(Duration::from_millis(500), true);
        self.request(leader, |token| Input::TransferLeadership { token, to: Some(to) });
        self.pass(Duration::from_millis(500), true);
        assert_eq!(self.leader(), to, "the leadership is handed over");
        self.serve(to);
    }

    /// A leader may be removed; it goes when that is committed, and is not heard of again (section 6).
    fn the_leader_is_removed(&mut self, voters: &BTreeSet<NodeId>) {
        let old = self.leader();
        self.request(old, |token| Input::ChangeMembership { token, change: MembershipChange::Remove(old) });
        self.pass(Duration::from_secs(1), true);
        let new = self.leader();
        assert!(new != old && voters.contains(&new), "{old} is removed, and leads");
        assert!(!self.cluster.host(new).raft().membership().contains(old), "{old} is removed");
        self.serve(new);
        let term = self.term_of(new);
        self.pass(Duration::from_secs(2), true);
        assert_eq!((self.leader(), self.term_of(new)), (new, term), "a removed replica disturbs the leader");
    }
}
