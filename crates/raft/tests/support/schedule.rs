//! Random schedules of a few replicas: everything that may go wrong does, and what Raft promises
//! (Figure 3 of the paper) holds after every step. Then the network heals, and the cluster serves.

use std::collections::BTreeSet;
use std::time::Duration;

use bowline_raft::{Config, DriftBound, Group, Input, MembershipChange, NodeId, Random, ReadKind, Time};

use super::cluster::Cluster;

/// How a schedule differs from the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Flavour {
    Plain,
    Membership,
    Snapshots,
    Everything,
    /// Snapshots, and disks that lose what was synced and say so.
    Damage,
}

/// One schedule.
pub(crate) struct Schedule {
    random: Random,
    flavour: Flavour,
    pub(crate) cluster: Cluster,
    /// Time as it is; each host's clock runs by its own rate.
    now: Duration,
    /// Parts per million by which each host's clock is fast or slow.
    rates: Vec<i64>,
    proposals: u64,
    /// How often a disk has lost something.
    pub(crate) damages: usize,
}

impl Schedule {
    /// The schedule of a seed: the cluster, its configuration and its clocks are drawn.
    pub(crate) fn new(seed: u64, flavour: Flavour) -> Schedule {
        let mut random = Random::new(seed);
        let voters = [3, 3, 5][random.next_u64() as usize % 3];
        let spares = if matches!(flavour, Flavour::Membership | Flavour::Everything) { 5 - voters.min(4) } else { 0 };
        let thrifty = random.next_u64().is_multiple_of(3).then_some(Duration::from_millis(20));
        let eager_commit = random.next_u64().is_multiple_of(2);
        let few = random.next_u64().is_multiple_of(3);
        // Clocks that agree, as quartz does, and as badly as is allowed to a host that says so.
        let drift = [0, 10_000, 100_000][random.next_u64() as usize % 3];
        let config = |id: NodeId| {
            let mut config = Config::new(id, seed.wrapping_mul(31));
            config.thrifty = thrifty;
            config.eager_commit = eager_commit;
            config.max_retained_bytes = 300;
            config.return_check = seed.is_multiple_of(2);
            config.clock_drift = DriftBound::new(drift as u32).expect("a tenth is allowed");
            if few {
                config.max_message_entries = 2;
                config.max_inflight_messages = 3;
                config.max_applying_bytes = 100;
            }
            config
        };
        let mut cluster = Cluster::new(voters, 0, spares, config);
        cluster.silent = true;
        cluster.invariants.clocks_keep_time = true;
        let rates =
            (0..=voters + spares).map(|_| (random.next_u64() % (2 * drift + 1)) as i64 - drift as i64).collect();
        Schedule { random, flavour, cluster, now: Duration::ZERO, rates, proposals: 0, damages: 0 }
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.random.next_u64() % limit.max(1) as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn any(&mut self) -> NodeId {
        let count = self.cluster.hosts.len();
        NodeId(self.below(count) as u64 + 1)
    }

    /// A replica that is up, more often than not one that leads.
    fn served(&mut self) -> Option<NodeId> {
        let id = self.any();
        let id = if self.chance(70) { self.cluster.leader().unwrap_or(id) } else { id };
        self.cluster.is_up(id).then_some(id)
    }

    fn clock(&self, id: NodeId, at: Duration) -> Time {
        let nanos = at.as_nanos() as i64;
        Time((nanos + nanos / 1_000_000 * self.rates[id.0 as usize]) as u64)
    }

    /// Lets time pass, in small steps, so that clocks of different speed stay side by side.
    pub(crate) fn pass(&mut self, span: Duration, deliver: bool) {
        let end = self.now + span;
        while self.now < end {
            self.now += Duration::from_millis(5);
            let ids = self.cluster.ids();
            for id in &ids {
                self.cluster.host_mut(*id).own.clock = self.clock(*id, self.now);
            }
            for id in ids {
                let due = |raft: &bowline_raft::Raft| raft.next_deadline() <= self.cluster.host(id).own.clock;
                if self.cluster.host(id).replica.as_ref().is_some_and(due) {
                    self.cluster.feed(id, Input::Wake);
                }
            }
            if deliver {
                self.cluster.deliver_all();
            }
        }
    }

    pub(crate) fn step(&mut self) {
        match self.below(100) {
            0..45 => self.network_step(),
            45..62 => {
                let span = Duration::from_millis([5, 5, 10, 20, 60, 150][self.below(6)]);
                self.pass(span, false);
            }
            62..74 => self.propose(),
            74..82 => self.read(),
            82..88 => self.disk_step(),
            88..92 => self.partition_step(),
            92..95 => self.crash_step(),
            _ => self.operate(),
        }
    }

    fn network_step(&mut self) {
        for _ in 0..=self.below(6) {
            if self.cluster.network.is_empty() {
                return;
            }
            let nearly_oldest = self.below(3);
            let at = if self.chance(70) { nearly_oldest } else { self.below(self.cluster.network.len()) };
            let at = at.min(self.cluster.network.len() - 1);
            let envelope = self.cluster.network.remove(at);
            match self.below(100) {
                0..6 => self.cluster.lost(envelope),
                6..12 => {
                    self.cluster.network.push(envelope.clone());
                    self.cluster.deliver(envelope);
                }
                _ => self.cluster.deliver(envelope),
            }
        }
    }

    fn propose(&mut self) {
        let Some(id) = self.served() else { return };
        self.proposals += 1;
        let command = format!("c{}", self.proposals).into_bytes();
        let deadline = self.chance(50).then(|| self.cluster.host(id).own.clock.after(Duration::from_millis(400)));
        let token = self.cluster.token(id, "", Some(&command));
        self.cluster.feed(id, Input::Propose { token, command: command.into(), deadline });
    }

    fn read(&mut self) {
        let Some(id) = self.served() else { return };
        let kind = if self.chance(60) { ReadKind::Lease } else { ReadKind::Quorum };
        let deadline = self.chance(50).then(|| self.cluster.host(id).own.clock.after(Duration::from_millis(300)));
        let token = self.cluster.token(id, "", None);
        self.cluster.feed(id, Input::Read { token, kind, deadline });
    }

    fn disk_step(&mut self) {
        let id = self.any();
        match self.below(5) {
            0 => self.cluster.host_mut(id).own.disk_held = true,
            1 => self.cluster.host_mut(id).own.machine_held = true,
            2 => self.cluster.sync(id, 1),
            _ => self.release(id),
        }
    }

    fn release(&mut self, id: NodeId) {
        self.cluster.host_mut(id).own.disk_held = false;
        self.cluster.host_mut(id).own.machine_held = false;
        self.cluster.sync(id, usize::MAX);
        self.cluster.work(id);
    }

    fn partition_step(&mut self) {
        match self.below(4) {
            0 => {
                let side: BTreeSet<NodeId> = (0..2).map(|_| self.any()).collect();
                self.cluster.partition(&[side]);
            }
            1 => {
                let link = (self.any(), self.any());
                self.cluster.cut.insert(link);
            }
            _ => self.cluster.cut.clear(),
        }
    }

    fn crash_step(&mut self) {
        let id = self.any();
        if !self.cluster.is_up(id) {
            if self.flavour == Flavour::Damage && self.chance(50) {
                self.damage(id);
            }
            self.cluster.restart(id);
        } else if self.chance(50) {
            self.cluster.crash(id);
            if self.chance(50) {
                self.cluster.restart(id);
            }
        }
    }

    /// A replica that is down loses the end of its log, if all others still have what they had: of two that
    /// have lost the same entry, neither can be repaired, and the cluster waits for ever.
    fn damage(&mut self, id: NodeId) {
        if self.cluster.hosts.values().any(|host| host.disk.suspect.is_some()) {
            return;
        }
        let disk = &self.cluster.host(id).disk;
        let (base, last) = (disk.base().index, disk.last().index);
        let from = base.plus(1 + self.below(last.distance_from(base) as usize + 1));
        self.cluster.damage(id, from, true);
        self.damages += 1;
    }

    fn operate(&mut self) {
        let (membership, snapshots) = match self.flavour {
            Flavour::Plain => (false, false),
            Flavour::Membership => (true, false),
            Flavour::Snapshots | Flavour::Damage => (false, true),
            Flavour::Everything => (true, true),
        };
        let Some(id) = self.served() else { return };
        match self.below(4) {
            0 if snapshots => {
                self.cluster.store_snapshot(id);
            }
            1 | 2 if membership => {
                let member = self.any();
                let change = match self.below(7) {
                    0 | 1 => MembershipChange::AddLearner(member),
                    2 => MembershipChange::Promote(member),
                    3 => MembershipChange::Demote(member),
                    4 => MembershipChange::Remove(member),
                    5 => MembershipChange::Revert,
                    _ => self.replacement(id),
                };
                let token = self.cluster.token(id, "", None);
                self.cluster.feed(id, Input::ChangeMembership { token, change });
            }
            3 if self.chance(40) => {
                let to = self.chance(70).then(|| self.any());
                let token = self.cluster.token(id, "", None);
                self.cluster.feed(id, Input::TransferLeadership { token, to });
            }
            _ => {}
        }
    }

    /// Some of the members that `at` knows, as a new group.
    fn replacement(&mut self, at: NodeId) -> MembershipChange {
        let mut voters = self.cluster.host(at).raft().membership().members();
        voters.retain(|_| self.chance(60));
        MembershipChange::Replace(Group { voters, learners: BTreeSet::new() })
    }

    /// Everything works again: then the cluster must too.
    pub(crate) fn heal_and_serve(&mut self) {
        self.cluster.cut.clear();
        let ids = self.cluster.ids();
        for id in &ids {
            if !self.cluster.is_up(*id) {
                self.cluster.restart(*id);
            }
            self.release(*id);
        }
        self.pass(Duration::from_secs(3), true);
        let leader = self.cluster.leader().unwrap_or_else(|| self.nobody_leads());
        let members = self.cluster.host(leader).raft().membership().clone();
        assert!(!members.is_joint(), "a joint configuration is left");
        let done = self.cluster.oracle.done;
        let command = b"the last one".to_vec();
        let token = self.cluster.token(leader, "", Some(&command));
        self.cluster.feed(leader, Input::Propose { token, command: command.into(), deadline: None });
        self.pass(Duration::from_millis(200), true);
        assert!(self.cluster.oracle.done > done, "a healed cluster takes commands");
        let commit = self.cluster.host(leader).raft().commit_index();
        for id in members.members() {
            assert_eq!(self.cluster.host(id).applied(), commit, "{id} has everything");
        }
        let open = self.cluster.open.iter().map(|(token, (at, _))| (token, at));
        let open: Vec<_> = open.filter(|(_, at)| members.contains(**at)).collect();
        assert!(open.is_empty(), "requests without an answer: {open:?}");
    }

    pub(crate) fn nobody_leads(&self) -> NodeId {
        let explanations = self.cluster.hosts.values().map(|host| host.raft().explain().to_string());
        panic!("nobody leads within ten election timeouts\n{}", explanations.collect::<String>());
    }
}
