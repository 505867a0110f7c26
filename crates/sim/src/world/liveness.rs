//! The second phase: a random majority is made whole, the rest stays broken. Now nothing excuses a
//! cluster that does not elect, serve and converge.

use std::collections::BTreeSet;

use bowline_raft::NodeId;

use crate::world::clock::Moment;
use crate::world::nemesis::around;
use crate::world::oracle::Rule;
use crate::world::plan::{Clocks, NetworkPlan, SECOND, Sabotage};
use crate::world::stage::{Event, World};

/// Longest election timeouts within which the majority has a leader that can commit.
const ELECTS_WITHIN: u64 = 10;
/// Longest election timeouts for which a leader must stay once everyone is whole and idle.
const STAYS_FOR: u64 = 50;
/// The same for every request of the clients, from the moment that the majority is whole and led.
const SERVES_WITHIN: u64 = 20;

impl World<'_> {
    /// Heals a majority, and watches it.
    pub(crate) fn heal_and_serve(&mut self) {
        if self.oracle.violation.is_some() {
            return;
        }
        self.give_restored_up();
        let core = self.choose_core();
        self.make_whole(&core);
        let timeout = self.plan.settings.election_max * 2;
        let healed = self.now;
        let catching_up = self.longest_catching_up(&core);
        if !self.wait_for(healed + timeout * ELECTS_WITHIN + catching_up, |world| world.led_by(&core).is_some()) {
            let what = format!("no leader among {} within {ELECTS_WITHIN} election timeouts", names(&core));
            return self.judge(Err((Rule::Elects, what)));
        }
        // An operator may hand over to anyone, dead or alive: they serve all the same.
        if self.chances.hosts.percent(25) {
            self.hand_over();
        }
        // They serve for a while, and then finish what is open.
        self.run_until(self.now + timeout * 4);
        self.clients.stopped = true;
        self.keepers.stop(self.now);
        // A client may have to ask every replica once, each for as long as it is patient.
        let round = self.plan.workload.timeout * (core.len() as u64 + 1);
        if !self.wait_for(self.now + timeout * SERVES_WITHIN + round, |world| world.clients.open().is_none()) {
            let (open, oldest) = self.clients.open().unwrap_or_default();
            let what = format!("{open} requests are still open, the oldest from {:.3} s", oldest as f64 / 1e9);
            return self.judge(Err((Rule::Serves, what)));
        }
        let transfer = self.longest_transfer();
        if !self.wait_for(self.now + timeout * SERVES_WITHIN + transfer, |world| world.converged(&core).is_ok()) {
            let why = self.converged(&core).err().unwrap_or_default();
            return self.judge(Err((Rule::Converges, why)));
        }
        self.tell(None, || "converged".to_owned());
        self.leases_end(timeout);
        self.every_request_has_ended(&core);
        if self.chances.hosts.percent(25) {
            self.keeps_its_leader();
        }
    }

    /// L2: nothing is wrong and nobody asks for anything, so there is no reason for an election. One is
    /// forgiven: what was sent before may arrive late.
    fn keeps_its_leader(&mut self) {
        if self.oracle.violation.is_some() {
            return;
        }
        let before = self.oracle.elections();
        for _ in 0..STAYS_FOR {
            if self.plan.sabotage == Some(Sabotage::RestlessOperator) {
                self.hand_over();
            }
            self.run_until(self.now + self.plan.settings.election_max);
        }
        let elections = self.oracle.elections() - before;
        if elections > 1 {
            let what = format!("{elections} elections in {STAYS_FOR} election timeouts without any trouble");
            self.judge(Err((Rule::Stays, what)));
        }
    }

    /// Runs until `done`, or until `end`. Returns whether it is done.
    pub(crate) fn wait_for(&mut self, end: Moment, done: impl Fn(&Self) -> bool) -> bool {
        let step = self.plan.settings.heartbeat;
        while self.oracle.violation.is_none() && !done(self) {
            if self.now >= end {
                return false;
            }
            self.run_until((self.now + step).min(end));
        }
        true
    }

    /// Replicas that include a quorum of every configuration that may be in force.
    fn choose_core(&mut self) -> BTreeSet<usize> {
        let groups = self.memberships_in_force();
        let mut order: Vec<usize> = (0..self.hosts.len()).filter(|host| !self.hosts[*host].is_lost()).collect();
        self.chances.hosts.shuffle(&mut order);
        let mut core: BTreeSet<usize> = order.iter().copied().collect();
        for host in order {
            core.remove(&host);
            let whole = groups.iter().all(|group| {
                let votes = |host: usize| core.contains(&host) && !self.hosts[host].disk.is_suspect();
                let there = group.iter().filter(|id| votes(id.0 as usize - 1)).count();
                there * 2 > group.len()
            });
            if !whole || self.chances.hosts.percent(20) {
                core.insert(host);
            }
        }
        self.add_candidates(&mut core);
        core
    }

    /// A majority of every group is not always enough: whoever has the most up-to-date log refuses its vote to all
    /// others, and a learner does not stand. Then the core can elect nobody without somebody more.
    fn add_candidates(&self, core: &mut BTreeSet<usize>) {
        for host in (0..self.hosts.len()).filter(|host| !self.hosts[*host].is_lost()) {
            if self.can_elect(core) {
                return;
            }
            core.insert(host);
        }
    }

    fn make_whole(&mut self, core: &BTreeSet<usize>) {
        self.tell(None, || format!("{} are made whole", names(core)));
        for host in 0..self.hosts.len() {
            let it = &self.hosts[host];
            let (membership, commit, last) = (it.shadow.membership().to_string(), it.shadow.commit, it.disk.last());
            let lost = if it.lost { ", lost" } else { "" };
            self.tell(Some(host), || format!("follows {membership}, committed {commit}, last {last} on disk{lost}"));
        }
        self.epoch += 1;
        self.network.heal_all();
        self.network.plan = NetworkPlan::healthy(&self.plan.settings);
        self.plan.disk.sync_high = self.plan.disk.sync_low.min(SECOND / 1000);
        self.plan.disk.sync_low = self.plan.disk.sync_high / 2;
        if self.plan.clocks == Clocks::Wild {
            self.plan.clocks = Clocks::True;
        }
        self.clients.only = core.iter().copied().collect();
        // In some worlds they all begin at one moment, and nothing varies but what they draw themselves.
        let together = self.chances.hosts.percent(20);
        if together {
            self.network.plan.delay = NetworkPlan::even(&self.plan.settings);
            self.plan.disk.sync_low = self.plan.disk.sync_high;
            self.plan.disk.partial = false;
            core.iter().for_each(|host| self.crash(*host, true));
        }
        let count = self.hosts.len();
        for host in 0..count {
            if core.contains(&host) {
                self.repair(host);
            } else {
                self.leave_broken(host);
            }
        }
    }

    fn repair(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        it.slow_until = 0;
        it.fail_sync = false;
        it.crash_in = None;
        it.stays_down = false;
        let life = it.life;
        if self.plan.clocks == Clocks::True {
            self.hosts[host].clock.retune(self.now, 0);
        }
        self.limit_disk(host, None);
        self.start(host);
        self.resume(host, life, false);
        // A sync that hung on a slow disk ends.
        let life = self.hosts[host].life;
        self.queue.push(self.now + self.plan.disk.sync_low, Event::Synced { host, life });
        if !self.hosts[host].paused {
            self.hosts[host].wake_at = Moment::MAX;
            self.reschedule(host);
        }
    }

    /// Outside the majority: dead, cut off, deaf, mute or paused, for good.
    fn leave_broken(&mut self, host: usize) {
        let count = self.hosts.len();
        let links = around(host, count);
        let out: Vec<_> = links.iter().copied().filter(|(from, _)| *from == host).collect();
        let into: Vec<_> = links.iter().copied().filter(|(_, to)| *to == host).collect();
        match self.chances.hosts.below(5) {
            1 => self.network.cut(&links),
            2 => self.network.cut(&out),
            3 => self.network.cut(&into),
            // One that is paused already would be resumed, and one that is down started.
            4 if self.hosts[host].is_up() && !self.hosts[host].paused => self.pause(host, 3_600 * SECOND, false),
            _ => {
                self.hosts[host].stays_down = true;
                self.crash(host, true);
            }
        }
        self.network.cut_clients(host, true);
    }

    /// A member of the core that leads, was the last to be elected, and has committed in its term.
    fn led_by(&self, core: &BTreeSet<usize>) -> Option<usize> {
        let leader = self.leading.iter().copied().filter(|host| core.contains(host));
        let leader = leader.max_by_key(|host| self.hosts[*host].node.as_ref().map(|node| node.raft().term()))?;
        let raft = self.hosts[leader].node.as_ref()?.raft();
        let commits = raft.log().term_at(raft.commit_index()) == Some(raft.term());
        commits.then_some(leader)
    }

    /// Whether every member in the core has everything, and no change of the membership is open.
    fn converged(&self, core: &BTreeSet<usize>) -> Result<(), String> {
        let leader = self.led_by(core).ok_or("nobody leads")?;
        let Some(node) = &self.hosts[leader].node else { return Err("the leader is down".to_owned()) };
        let raft = node.raft();
        let commit = raft.commit_index();
        if raft.membership().is_joint() {
            return Err(format!("the membership is still {}", raft.membership()));
        }
        if commit != raft.log().last().index {
            return Err(format!("n{} has committed up to {commit} of {}", leader + 1, raft.log().last().index));
        }
        if !self.oracle.commits.all_in(raft.log()) {
            return Err(format!("n{} lacks committed entries", leader + 1));
        }
        for NodeId(id) in raft.membership().members() {
            let host = id as usize - 1;
            if core.contains(&host) {
                let it = self.hosts[host].node.as_ref().ok_or(format!("n{id} is down"))?;
                let applied = it.raft().last_applied();
                if applied != commit {
                    return Err(format!("n{id} has applied up to {applied}, n{} up to {commit}", leader + 1));
                }
                if !it.machine().is_same_as(node.machine()) {
                    return Err(format!("n{id} and n{} have other states at {commit}", leader + 1));
                }
            }
        }
        Ok(())
    }

    /// How long bringing the largest snapshot may take: a message and its answer for each piece.
    fn longest_transfer(&self) -> Moment {
        let machines = self.hosts.iter().filter_map(|host| host.node.as_ref());
        let largest = machines.map(|node| node.snapshot_bytes()).max().unwrap_or(0) as u64;
        let pieces = largest / self.plan.settings.chunk_bytes as u64 + 1;
        pieces * (self.plan.settings.heartbeat / 4)
    }

    /// How long the members that may be needed for a commit can take to get what they lack, where limits allow one
    /// entry at a time: a message and its answer for each. Without such limits it is next to nothing.
    fn longest_catching_up(&self, core: &BTreeSet<usize>) -> Moment {
        let tight = self.plan.settings.tightness > 0 || self.hosts.iter().any(|host| host.own_ways);
        let lasts = || core.iter().map(|host| self.hosts[*host].disk.last().index.0);
        let lag = lasts().max().unwrap_or(0) - lasts().min().unwrap_or(0);
        if tight { lag * (self.plan.settings.heartbeat / 4) } else { 0 }
    }

    /// Law 5. What can't be done yet may wait, but everything can be done now.
    fn every_request_has_ended(&mut self, core: &BTreeSet<usize>) {
        let timeout = self.plan.settings.election_max * 2;
        let ended = |world: &Self| core.iter().all(|host| world.hosts[*host].tokens.is_empty());
        let members_end = self.wait_for(self.now + timeout * SERVES_WITHIN, ended);
        let leader = self.led_by(core);
        let members =
            leader.and_then(|host| self.hosts[host].node.as_ref()).map(|node| node.raft().membership().clone());
        if members_end {
            return;
        }
        let open = core.iter().find(|host| {
            let it = &self.hosts[**host];
            !it.tokens.is_empty() && members.as_ref().is_some_and(|members| members.contains(it.id))
        });
        if let Some(host) = open.copied() {
            let what = format!("n{} has not answered {} requests", host + 1, self.hosts[host].tokens.len());
            self.judge(Err((Rule::EveryRequestEndsOnce, what)));
        }
    }
}

fn names(core: &BTreeSet<usize>) -> String {
    core.iter().map(|host| format!("n{}", host + 1)).collect::<Vec<_>>().join(" ")
}
