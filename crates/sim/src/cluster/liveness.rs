//! The liveness phase: a random majority is made whole, the rest stays broken. The majority must now elect a leader,
//! serve and converge.

use std::collections::BTreeSet;

use bowline_kv::versions;
use bowline_raft::{NodeId, Raft};

use crate::cluster::clock::Moment;
use crate::cluster::event::Event;
use crate::cluster::oracle::Rule;
use crate::cluster::plan::{Clocks, NetworkPlan, SECOND, Sabotage};
use crate::cluster::run::Cluster;

// All bounds are in longest election timeouts (`election_max`).

/// The majority must have a leader that can commit within this time, beside the time to catch up under tight limits.
const ELECTS_WITHIN: u64 = 20;
/// A leader must stay for this time while everything is whole and idle.
const STAYS_FOR: u64 = 50;
/// Every request of the clients must end within this time once no more begin, beside the time to ask every replica.
const SERVES_WITHIN: u64 = 40;

impl Cluster<'_> {
    /// Heals a majority, and watches it.
    pub(crate) fn heal_and_serve(&mut self) {
        if self.is_violated() {
            return;
        }
        self.system.give_restored_up();
        let core = self.choose_core();
        self.make_whole(&core);
        let election = self.system.ctx.plan.settings.election_max;
        let healed = self.now();
        let catching_up = self.longest_catching_up(&core);
        if !self.wait_for(healed + election * ELECTS_WITHIN + catching_up, |cluster| {
            cluster.system.hosts.led_by(&core).is_some()
        }) {
            let what = format!("no leader among {} within {ELECTS_WITHIN} election timeouts", names(&core));
            return self.system.ctx.judge(Err((Rule::Elects, what)));
        }
        // An operator may hand over to any replica, even one that is down; the majority must still serve.
        if self.system.ctx.chances.hosts.percent(25) {
            self.system.hand_over();
        }
        // They serve for a while, and then finish what is open.
        self.run_until(self.now() + election * 8);
        self.system.clients.stopped = true;
        self.system.keepers.stop(self.now());
        // A client may have to ask every replica once, and wait for each as long as its timeout.
        let round = self.system.ctx.plan.workload.timeout * (core.len() as u64 + 1);
        if !self
            .wait_for(self.now() + election * SERVES_WITHIN + round, |cluster| cluster.system.clients.open().is_none())
        {
            let (open, oldest) = self.system.clients.open().unwrap_or_default();
            let what = format!("{open} requests are still open, the oldest since {:.3} s", oldest as f64 / 1e9);
            return self.system.ctx.judge(Err((Rule::Serves, what)));
        }
        let transfer = self.longest_transfer();
        // Each step towards the records may wait for a pause, a transfer or a member that catches up.
        let steps = SECOND * 10 + (transfer + catching_up) * 4;
        if !self
            .wait_for(self.now() + election * SERVES_WITHIN + steps, |cluster| cluster.follows_records(&core).is_ok())
        {
            let why = self.follows_records(&core).err().unwrap_or_default();
            return self.system.ctx.judge(Err((Rule::Converges, why)));
        }
        let transfer = transfer.max(self.longest_transfer());
        if !self.wait_for(self.now() + election * SERVES_WITHIN + transfer, |cluster| cluster.converged(&core).is_ok())
        {
            let why = self.converged(&core).err().unwrap_or_default();
            return self.system.ctx.judge(Err((Rule::Converges, why)));
        }
        self.system.ctx.trace(None, || "converged".to_owned());
        self.leases_end(election);
        self.every_request_has_ended(&core);
        self.watches_catch_up(&core);
        if self.system.ctx.chances.hosts.percent(25) {
            self.keeps_its_leader();
        }
    }

    /// L2: without faults and requests there is no reason for an election. One is allowed, because earlier messages may
    /// arrive late.
    fn keeps_its_leader(&mut self) {
        if self.is_violated() {
            return;
        }
        let before = self.system.ctx.oracle.elections();
        for _ in 0..STAYS_FOR {
            if self.system.ctx.plan.sabotage == Some(Sabotage::RestlessOperator) {
                self.system.hand_over();
            }
            self.run_until(self.now() + self.system.ctx.plan.settings.election_max);
        }
        let elections = self.system.ctx.oracle.elections() - before;
        if elections > 1 {
            let what = format!("{elections} elections in {STAYS_FOR} election timeouts without any fault");
            self.system.ctx.judge(Err((Rule::Stays, what)));
        }
    }

    /// Runs until `done`, or until a rule is violated. Returns false if neither happens by `end`.
    pub(crate) fn wait_for(&mut self, end: Moment, done: impl Fn(&Self) -> bool) -> bool {
        let step = self.system.ctx.plan.settings.heartbeat;
        while !self.is_violated() && !done(self) {
            if self.now() >= end {
                return false;
            }
            self.run_until((self.now() + step).min(end));
        }
        true
    }

    /// Chooses replicas that include a quorum of every configuration that may be in force.
    fn choose_core(&mut self) -> BTreeSet<usize> {
        let groups = self.system.hosts.memberships_in_force(self.system.ctx.oracle.commits.len());
        let mut order: Vec<usize> =
            (0..self.system.hosts.len()).filter(|host| !self.system.hosts[*host].lost).collect();
        self.system.ctx.chances.hosts.shuffle(&mut order);
        let mut core: BTreeSet<usize> = order.iter().copied().collect();
        for host in order {
            core.remove(&host);
            let whole = groups.iter().all(|group| {
                let votes = |host: usize| core.contains(&host) && !self.system.hosts[host].disk.is_suspect();
                let there = group.iter().filter(|id| votes(id.0 as usize - 1)).count();
                there * 2 > group.len()
            });
            if !whole || self.system.ctx.chances.hosts.percent(20) {
                core.insert(host);
            }
        }
        self.add_candidates(&mut core);
        core
    }

    /// Adds replicas until the core can elect a leader. A majority of every group is not always enough: the one with
    /// the most up-to-date log refuses its vote to all others, and it may be a learner, which does not stand.
    fn add_candidates(&self, core: &mut BTreeSet<usize>) {
        for host in (0..self.system.hosts.len()).filter(|host| !self.system.hosts[*host].lost) {
            if self.system.hosts.can_elect(core) {
                return;
            }
            core.insert(host);
        }
    }

    fn make_whole(&mut self, core: &BTreeSet<usize>) {
        self.system.ctx.trace(None, || format!("{} are made whole", names(core)));
        for host in 0..self.system.hosts.len() {
            let it = &self.system.hosts[host];
            let (membership, commit, last) = (it.shadow.membership().to_string(), it.shadow.commit, it.disk.last());
            let lost = if it.lost { ", lost" } else { "" };
            self.system
                .ctx
                .trace(Some(host), || format!("follows {membership}, committed {commit}, last {last} on disk{lost}"));
        }
        self.system.ctx.healed = true;
        // What breaks for good now has answered until now, and still counts as a member that answers for the longest
        // election timeout by any clock. A step that relies on it would cost the cluster one more than it survives.
        self.system.members.steps_from = self.now() + 4 * self.system.ctx.plan.settings.election_max;
        self.system.network.heal_all();
        self.system.network.plan = NetworkPlan::healthy(&self.system.ctx.plan.settings);
        self.system.ctx.plan.disk.sync_high = self.system.ctx.plan.disk.sync_low.min(SECOND / 1000);
        self.system.ctx.plan.disk.sync_low = self.system.ctx.plan.disk.sync_high / 2;
        if self.system.ctx.plan.clocks == Clocks::Wild {
            self.system.ctx.plan.clocks = Clocks::True;
        }
        self.system.ctx.whole = core.iter().copied().collect();
        // In a fifth of the runs all of them start at the same moment, and only their own random timeouts differ.
        let together = self.system.ctx.chances.hosts.percent(20);
        if together {
            self.system.network.plan.delay = NetworkPlan::even(&self.system.ctx.plan.settings);
            self.system.ctx.plan.disk.sync_low = self.system.ctx.plan.disk.sync_high;
            self.system.ctx.plan.disk.partial = false;
            core.iter().for_each(|host| self.system.crash(*host, true));
        }
        let count = self.system.hosts.len();
        for host in 0..count {
            if core.contains(&host) {
                self.repair(host);
            } else {
                self.leave_broken(host);
            }
        }
    }

    fn repair(&mut self, host: usize) {
        let it = &mut self.system.hosts[host];
        it.slow_until = 0;
        it.fail_sync = false;
        it.crash_in = None;
        it.stays_down = false;
        let run = it.run;
        if self.system.ctx.plan.clocks == Clocks::True {
            self.system.hosts[host].clock.retune(self.system.ctx.now, 0);
        }
        self.system.limit_disk(host, None);
        self.system.start(host);
        self.system.resume(host, run, false);
        // Ends a sync that hung on a slow disk.
        let run = self.system.hosts[host].run;
        self.system.ctx.queue.push(self.now() + self.system.ctx.plan.disk.sync_low, Event::Synced { host, run });
        self.system.hosts[host].reschedule_anew(&mut self.system.ctx);
    }

    /// Leaves a replica outside the majority dead, cut off, deaf, mute or paused, for good.
    fn leave_broken(&mut self, host: usize) {
        let links = self.system.network.around(host);
        let out: Vec<_> = links.iter().copied().filter(|(from, _)| *from == host).collect();
        let into: Vec<_> = links.iter().copied().filter(|(_, to)| *to == host).collect();
        match self.system.ctx.chances.hosts.below(5) {
            1 => self.system.network.cut(&links),
            2 => self.system.network.cut(&out),
            3 => self.system.network.cut(&into),
            // Only a running replica: one paused earlier would be resumed, and one that is down started, by events
            // planned before.
            4 if self.system.hosts[host].is_up() && !self.system.hosts[host].paused => {
                self.system.pause(host, 3_600 * SECOND, false)
            }
            _ => {
                self.system.hosts[host].stays_down = true;
                self.system.crash(host, true);
            }
        }
        self.system.network.cut_clients(host, true);
    }

    /// Checks that every member in the core has applied everything, and that no change of the membership is open.
    fn converged(&self, core: &BTreeSet<usize>) -> Result<(), String> {
        let leader = self.system.hosts.led_by(core).ok_or("nobody leads")?;
        let Some(node) = &self.system.hosts[leader].node else { return Err("the leader is down".to_owned()) };
        let raft = node.raft();
        let commit = raft.commit_index();
        if raft.membership().is_joint() {
            return Err(format!("the membership is still {}", raft.membership()));
        }
        if commit != raft.log().last().index {
            return Err(format!("n{} has committed up to {commit} of {}", leader + 1, raft.log().last().index));
        }
        if !self.system.ctx.oracle.commits.all_in(raft.log()) {
            return Err(format!("n{} lacks committed entries", leader + 1));
        }
        for NodeId(id) in raft.membership().members() {
            let host = id as usize - 1;
            if core.contains(&host) {
                let it = self.system.hosts[host].node.as_ref().ok_or(format!("n{id} is down"))?;
                let applied = it.raft().last_applied();
                if applied != commit {
                    return Err(format!("n{id} has applied up to {applied}, n{} up to {commit}", leader + 1));
                }
                if !it.machine().is_same_as(node.machine()) {
                    return Err(format!("n{id} and n{} have different states at {commit}", leader + 1));
                }
            }
        }
        Ok(())
    }

    /// L5: checks that the configuration has the members of the records, as far as the replicas outside the core allow it.
    fn follows_records(&self, core: &BTreeSet<usize>) -> Result<(), String> {
        let system = &self.system;
        let leader = system.hosts.led_by(core).ok_or("nobody leads")?;
        let Some(node) = &system.hosts[leader].node else { return Err("the leader is down".to_owned()) };
        let (membership, machine) = (node.raft().membership(), node.machine());
        let Some(records) = machine.members() else { return Ok(()) };
        if machine.cluster_version() < versions::MEMBERS {
            return Ok(());
        }
        if membership.is_joint() {
            return Err(format!("the membership is still {membership}"));
        }
        let is_whole = |id: u64| core.contains(&(id as usize - 1));
        for record in records.iter() {
            let id = NodeId(record.id);
            let voter_or_learner = membership.is_voter(id) != record.is_learner;
            let right = membership.contains(id) && (!is_whole(record.id) || record.has_started() && voter_or_learner);
            if !right {
                return Err(format!("the membership is {membership} instead of {record:?}"));
            }
        }
        let voters = membership.voters();
        for id in membership.members().into_iter().filter(|id| records.get(id.0).is_none()) {
            let rest = || voters.iter().filter(|voter| **voter != id);
            let possible =
                !voters.contains(&id) || rest().filter(|voter| is_whole(voter.0)).count() * 2 > rest().count();
            if possible {
                return Err(format!("the membership is {membership}, without a record of {id}"));
            }
        }
        Ok(())
    }

    /// How long a transfer of the largest snapshot may take: a message and its answer for each piece.
    fn longest_transfer(&self) -> Moment {
        let machines = self.system.hosts.iter().filter_map(|host| host.node.as_ref());
        let largest = machines.map(|node| node.snapshot_bytes()).max().unwrap_or(0) as u64;
        let pieces = largest / self.system.ctx.plan.settings.chunk_bytes as u64 + 1;
        pieces * (self.system.ctx.plan.settings.heartbeat / 4)
    }

    /// How long it may take until the members needed for a commit have all entries, if limits allow one entry at a
    /// time: a message and its answer for each. Without such limits it takes almost no time.
    fn longest_catching_up(&self, core: &BTreeSet<usize>) -> Moment {
        let tight = self.system.ctx.plan.settings.tightness > 0 || self.system.hosts.iter().any(|host| host.own_ways);
        let lasts = || core.iter().map(|host| self.system.hosts[*host].disk.last().index.0);
        let lag = lasts().max().unwrap_or(0) - lasts().min().unwrap_or(0);
        if tight { lag * (self.system.ctx.plan.settings.heartbeat / 4) } else { 0 }
    }

    /// Law 5: every request ends. Requests may wait while they can't be done, but now all of them can.
    fn every_request_has_ended(&mut self, core: &BTreeSet<usize>) {
        let election = self.system.ctx.plan.settings.election_max;
        let ended = |cluster: &Self| core.iter().all(|host| cluster.system.hosts[*host].tokens.is_empty());
        if self.wait_for(self.now() + election * SERVES_WITHIN, ended) {
            return;
        }
        // A replica that is no longer a member may wait for a leader.
        let hosts = &self.system.hosts;
        let members = hosts.led_by(core).and_then(|leader| hosts.raft(leader)).map(Raft::membership);
        let open = core.iter().find(|host| {
            let it = &hosts[**host];
            !it.tokens.is_empty() && members.is_some_and(|members| members.contains(it.id))
        });
        if let Some(host) = open.copied() {
            let what = format!("n{} has not answered {} requests", host + 1, self.system.hosts[host].tokens.len());
            self.system.ctx.judge(Err((Rule::EveryRequestEndsOnce, what)));
        }
    }

    /// L6: watchers at any replica that is a member come to the end of the history.
    fn watches_catch_up(&mut self, core: &BTreeSet<usize>) {
        let hosts = &self.system.hosts;
        let members = hosts.led_by(core).and_then(|leader| hosts.raft(leader)).map(Raft::membership);
        let is_member = |host: &usize| members.is_some_and(|members| members.contains(hosts[*host].id));
        let Some(host) = core.iter().copied().rfind(is_member).filter(|_| !self.is_violated()) else { return };
        let Some(truth) = self.system.clients.true_events() else { return };
        let judged = self.system.watchers.catch_up(&mut self.system.hosts[host], truth);
        self.system.ctx.judge(judged);
    }

    /// C4: no lease is kept alive any more, so every lease must end within its time and an election, counted from when
    /// the last leader began to lead.
    fn leases_end(&mut self, election: Moment) {
        let Some(longest) = self.system.keepers.longest_lease().filter(|_| !self.is_violated()) else { return };
        let longest = longest + election * 8;
        let began = |cluster: &Self| {
            let stopped = cluster.system.keepers.stopped().unwrap_or(cluster.now());
            stopped.max(cluster.system.hosts.led_since)
        };
        let none_left = |cluster: &Self| cluster.system.clients.has_no_lease();
        // The leader may change once or twice, so the wait has an upper bound.
        let end = self.now() + longest * 4;
        self.wait_for(end, |cluster| none_left(cluster) || cluster.now() >= began(cluster) + longest);
        if !none_left(self) && !self.is_violated() {
            let what = format!(
                "a lease still exists {:.3} s after the last chance to renew it",
                (self.now() - began(self)) as f64 / 1e9
            );
            self.system.ctx.judge(Err((Rule::LeasesEnd, what)));
        }
    }
}

fn names(core: &BTreeSet<usize>) -> String {
    core.iter().map(|host| format!("n{}", host + 1)).collect::<Vec<_>>().join(" ")
}
