//! Ambushes: single faults that are harmless one by one, in the order in which they hurt. Chance alone
//! would need many worlds to bring them together.

use bowline_raft::NodeId;

use crate::world::clock::Moment;
use crate::world::coverage::Fault;
use crate::world::nemesis::{Mending, around};
use crate::world::network::Link;
use crate::world::stage::World;

/// Leaders that are cut off one after the other, each as soon as it leads.
#[derive(Debug)]
pub(crate) struct Succession {
    /// Who is cut off now: it comes back when the next one is.
    cut: Option<(usize, Vec<Link>)>,
    /// So many more leaders.
    left: u64,
    /// So many more looks for one.
    looks: u32,
}

impl World<'_> {
    pub(crate) fn strike_from_ambush(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Succession => {
                let left = self.chances.nemesis.between(2, 6);
                self.go_on_succeeding(Succession { cut: None, left, looks: 300 });
                true
            }
            Fault::OldMail => self.strike_with_old_mail(),
            _ => self.strike_handover(),
        }
    }

    /// Figure 8's weather: whoever comes to lead is cut off with what it has just begun, and its
    /// predecessor comes back with what it had.
    pub(crate) fn go_on_succeeding(&mut self, succession: Succession) {
        let Succession { mut cut, mut left, looks } = succession;
        let others = |leader: &&usize| cut.as_ref().is_none_or(|(gone, _)| gone != *leader);
        if let Some(leader) = self.leading.iter().rfind(others).copied() {
            let links = around(leader, self.hosts.len());
            self.tell(Some(leader), || "is CUT off, having come to lead".to_owned());
            self.network.cut(&links);
            if let Some((_, links)) = cut.replace((leader, links)) {
                self.network.heal(&links);
            }
            left = left.saturating_sub(1);
        }
        let heartbeat = self.plan.settings.heartbeat;
        let at = self.now + self.chances.nemesis.magnitude(heartbeat / 16, heartbeat * 2);
        match cut {
            Some((_, links)) if left == 0 || looks == 0 => self.later(at, Mending::Links(links)),
            None if looks == 0 => {}
            cut => self.later(at, Mending::Succession(Succession { cut, left, looks: looks.saturating_sub(1) })),
        }
    }

    /// A leader is paused and hears nobody any more, but what had reached it by then still waits for it:
    /// when it resumes, others may have led for long, and all that it knows of them is old.
    fn strike_with_old_mail(&mut self) -> bool {
        let Some(leader) = self.leading.last().copied().filter(|host| !self.hosts[*host].paused) else { return false };
        let election = self.plan.settings.election_max;
        let dice = &mut self.chances.nemesis;
        let (before, pause, after) = (
            dice.below(election / 2),
            dice.between(election / 4, election * 4),
            dice.between(election / 4, election * 2),
        );
        let deaf = self.links_into(leader);
        self.pause(leader, pause, false);
        self.later(self.now + before.min(pause), Mending::Cut(deaf.clone()));
        self.later(self.now + before.min(pause) + pause + after, Mending::Links(deaf));
        true
    }

    /// A leader hands over, and is cut off while it does: it does not hear that it is succeeded.
    fn strike_handover(&mut self) -> bool {
        let Some(leader) = self.leading.last().copied() else { return false };
        if !self.hand_over() {
            return false;
        }
        let heartbeat = self.plan.settings.heartbeat;
        let soon = self.chances.nemesis.magnitude(1_000, heartbeat);
        let until = self.now + soon + self.span();
        let links =
            if self.chances.nemesis.percent(50) { self.links_into(leader) } else { around(leader, self.hosts.len()) };
        self.later(self.now + soon, Mending::Cut(links.clone()));
        self.later(until, Mending::Links(links));
        true
    }

    /// Every link to a replica.
    fn links_into(&self, host: usize) -> Vec<Link> {
        around(host, self.hosts.len()).into_iter().filter(|(_, to)| *to == host).collect()
    }

    /// A replica that has just applied something may be busy with it, and hears of nothing meanwhile.
    pub(crate) fn stay_busy(&mut self, host: usize) {
        /// A state machine that takes longer over one command is beyond help.
        const LONGEST: Moment = 5_000_000_000;
        if self.now < self.hosts[host].busy_until && self.chances.hosts.percent(20) {
            let election = self.plan.settings.election_max;
            let span = self.chances.hosts.magnitude(election / 64, election * 4).min(LONGEST);
            self.coverage.struck(Fault::SlowApply);
            self.tell(Some(host), || "is busy applying".to_owned());
            self.pause(host, span, false);
        }
    }

    /// Someone who shall lead, if anyone does: dead or alive, a member or not.
    pub(crate) fn any_target(&mut self) -> Option<NodeId> {
        let to = self.chances.nemesis.index(self.hosts.len()) as u64 + 1;
        self.chances.nemesis.percent(70).then_some(NodeId(to))
    }
}
