//! What a seed draws: the cluster, its settings, the network, the clients and the faults.

use std::collections::BTreeSet;
use std::time::Duration;

use bowline_kv::compaction::Retention;
use bowline_node::NodeConfig;
use bowline_raft::{Config, DriftBound, NodeId};
use bowline_storage::Options;

use crate::cluster::clock::Moment;
use crate::cluster::dice::Dice;
use crate::cluster::duties;
use crate::cluster::faults::{self, Fault};
use crate::cluster::reduction::{Start, Strike};
use crate::cluster::schedule::Scheduled;

/// A microsecond.
pub(crate) const MICRO: Moment = 1_000;
/// A millisecond.
pub(crate) const MILLI: Moment = 1_000_000;
/// A second.
pub(crate) const SECOND: Moment = 1_000_000_000;

/// A simulated cluster. The whole run follows from the plan and its seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of everything random.
    pub seed: u64,
    /// Founding voters, 1 to 9.
    pub voters: usize,
    /// Replicas that the operator adds as learners at the beginning and promotes.
    pub learners: usize,
    /// The length of the safety phase, in nanoseconds.
    pub safety: Moment,
    pub(crate) settings: Settings,
    pub(crate) clocks: Clocks,
    pub(crate) network: NetworkPlan,
    pub(crate) disk: DiskPlan,
    pub(crate) storage: Options,
    pub(crate) workload: Workload,
    /// Kinds of fault that strike, and the mean time between their strikes.
    pub(crate) faults: Vec<(Fault, Moment)>,
    /// A deliberate defect of the simulator, to test that it is found.
    pub sabotage: Option<Sabotage>,
    /// Whether a liveness phase follows.
    pub liveness: bool,
    /// Whether each step of the core is checked against the reference model.
    pub watched: bool,
    /// Selects other random numbers for the same plan; 0 means the seed's own.
    pub(crate) luck: u64,
    /// Only these strikes; `None` means all.
    pub(crate) strikes: Option<BTreeSet<Strike>>,
    /// Only these operations, in the order of their moments; `None` means all.
    pub(crate) operations: Option<Vec<Start>>,
    /// Decides which events are postponed and which faults strike; `None` means that the seed decides.
    pub(crate) schedule: Option<Scheduled>,
}

/// A defect of the simulator, to test that its checks find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Disks report syncs that they didn't do, and lose the data in a crash.
    LyingDisks,
    /// Replicas answer linearizable reads from their own state, without asking anyone.
    StaleReads,
    /// A replica loses its vote, and nothing else, when it restarts.
    ForgottenVotes,
    /// Messages leave before what they promise is durable.
    HastyMessages,
    /// A snapshot is loaded though its bits have flipped (D5).
    TrustedRot,
    /// Disks come back as they were at an earlier start (D14), on any replica. The defence needs that those who were
    /// promised what is missing are asked first; that is not ensured here.
    OldImages,
    /// Messages of strangers are taken for a member's (N14).
    TrustedStrangers,
    /// Leaders say that a lease is kept alive without making sure that they lead (C4).
    HastyRenewals,
    /// Each replica counts down leases by itself, from when it learned of them (C4).
    LocalLessors,
    /// An operator hands over the leadership again and again while nothing is wrong (L2).
    RestlessOperator,
}

/// The settings that a cluster's replicas share.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) election_min: Moment,
    pub(crate) election_max: Moment,
    pub(crate) heartbeat: Moment,
    pub(crate) retry: Moment,
    pub(crate) thrifty: Option<Moment>,
    pub(crate) eager_commit: bool,
    pub(crate) lease_reads: bool,
    pub(crate) drift_ppm: u32,
    /// How tight the limits of counts and bytes are: 0 like in production, 1 small, 2 tiny.
    pub(crate) tightness: u64,
    pub(crate) retained_bytes: usize,
    pub(crate) snapshot_at_bytes: usize,
    pub(crate) chunk_bytes: usize,
    /// Whether replicas that start ask their peers what they remember.
    pub(crate) return_check: bool,
}

/// How clocks behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clocks {
    /// All clocks run at the true rate.
    True,
    /// At or near the ends of the bound that leases rely on.
    Drifting,
    /// Any rate; nobody relies on clocks.
    Wild,
}

/// How long messages travel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Delay {
    Even { low: Moment, high: Moment },
    Memoryless { low: Moment, mean: Moment },
    TwoHumps { fast: Moment, slow: Moment, slow_parts: u32 },
}

impl Delay {
    pub(crate) fn draw(self, dice: &mut Dice) -> Moment {
        match self {
            Delay::Even { low, high } => dice.between(low, high),
            Delay::Memoryless { low, mean } => low + dice.waiting(mean),
            Delay::TwoHumps { fast, slow, slow_parts } => {
                let hump = if dice.chance(slow_parts) { slow } else { fast };
                dice.between(hump / 2, hump)
            }
        }
    }
}

/// The usual behaviour of the network. Rates are in parts per million of messages.
#[derive(Clone, Debug)]
pub(crate) struct NetworkPlan {
    pub(crate) delay: Delay,
    /// Messages of one direction keep their order.
    pub(crate) in_order: bool,
    pub(crate) lost: u32,
    pub(crate) doubled: u32,
    pub(crate) replayed: u32,
    pub(crate) tail: u32,
    pub(crate) mangled: u32,
    /// Parts of a million messages with which a connection for forwarded requests breaks.
    pub(crate) breaks: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct DiskPlan {
    pub(crate) sync_low: Moment,
    pub(crate) sync_high: Moment,
    /// A sync may cover only a part of what was written.
    pub(crate) partial: bool,
    pub(crate) lost_writes: bool,
    /// The state is in redb on the disk, not in memory.
    pub(crate) holds_state: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) clients: usize,
    pub(crate) keys: u64,
    /// Percent of operations on the first key.
    pub(crate) hot: u32,
    pub(crate) value_low: u64,
    pub(crate) value_high: u64,
    pub(crate) write_percent: u32,
    pub(crate) lease_percent: u32,
    pub(crate) local_percent: u32,
    /// Percentage of operations that go to any replica instead of the supposed leader.
    pub(crate) anywhere_percent: u32,
    pub(crate) pause: Moment,
    pub(crate) timeout: Moment,
    pub(crate) tries: u32,
    /// Replicas are told how long a client waits.
    pub(crate) deadlines: bool,
    /// The state machine is the multi-version store, not the map.
    pub(crate) stores: bool,
    /// The number of keepers of leases.
    pub(crate) keepers: usize,
    /// The configuration follows the records of the members, as on a server.
    pub(crate) records: bool,
    /// Leaders compact automatically, and keep this much.
    pub(crate) compaction: Option<Retention>,
    /// The states of the members are compared, this long after something was written.
    pub(crate) comparison: Option<Moment>,
}

impl Plan {
    /// The plan drawn from `seed`.
    #[must_use]
    pub fn drawn(seed: u64) -> Plan {
        let mut dice = Dice::new(seed, 1);
        let voters = dice.pick(&[1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5, 5, 6, 7, 9]).expect("there are sizes");
        let learners = if dice.percent(30) { 1 + dice.index(2) } else { 0 };
        let clocks = dice.pick(&[Clocks::True, Clocks::Drifting, Clocks::Drifting, Clocks::Wild]).expect("some");
        let mut settings = Settings::drawn(&mut dice, clocks);
        settings.return_check = Dice::new(seed, 10).percent(75);
        let mut network = NetworkPlan::drawn(&mut dice, &settings);
        network.breaks = parts(&mut Dice::new(seed, 18), 100_000);
        let mut disk = DiskPlan::drawn(&mut dice, &settings);
        let mut workload = Workload::drawn(&mut dice, &settings);
        workload.stores = Dice::new(seed, 9).percent(50);
        let mut keepers = Dice::new(seed, 13);
        workload.keepers = if workload.stores && keepers.percent(40) { 1 + keepers.index(4) } else { 0 };
        disk.holds_state = workload.stores && Dice::new(seed, 12).percent(25);
        workload.records = workload.stores && Dice::new(seed, 14).percent(50);
        let mut compaction = Dice::new(seed, 15);
        workload.compaction = (workload.stores && compaction.percent(50)).then(|| duties::drawn(&mut compaction));
        let mut comparison = Dice::new(seed, 16);
        workload.comparison = (workload.records && comparison.percent(50))
            .then(|| comparison.magnitude(settings.heartbeat, settings.election_max * 4));
        let faults = faults::draw(seed, &mut dice, clocks, settings.election_max);
        let safety = dice.between(40, 200) * settings.election_max;
        let sabotage = None;
        Plan {
            seed,
            voters,
            learners,
            safety: safety.clamp(5 * SECOND, 120 * SECOND),
            settings,
            clocks,
            network,
            disk,
            storage: draw_storage(&mut Dice::new(seed, 8)),
            workload,
            faults,
            sabotage,
            liveness: true,
            watched: true,
            luck: 0,
            strikes: None,
            operations: None,
            schedule: None,
        }
    }

    /// The fixed cluster whose speed is measured: five members, 50 client operations a second, half
    /// of them writes, a millisecond of network, a millisecond of disk, all checks on.
    #[must_use]
    pub fn standard(seed: u64, lasts: Duration) -> Plan {
        let config = Config::new(NodeId(1), 0);
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Plan {
            seed,
            voters: 5,
            learners: 0,
            safety: nanos(lasts),
            settings: Settings {
                election_min: nanos(config.election_timeout_min),
                election_max: nanos(config.election_timeout_max),
                heartbeat: nanos(config.heartbeat_interval),
                retry: nanos(config.retry_after),
                thrifty: None,
                eager_commit: false,
                lease_reads: true,
                drift_ppm: 10_000,
                tightness: 0,
                retained_bytes: 1 << 20,
                snapshot_at_bytes: 2 << 20,
                chunk_bytes: 64 << 10,
                return_check: true,
            },
            clocks: Clocks::Drifting,
            network: NetworkPlan {
                delay: Delay::Even { low: 500 * MICRO, high: 1_500 * MICRO },
                in_order: false,
                lost: 1_000,
                doubled: 1_000,
                replayed: 0,
                tail: 1_000,
                mangled: 0,
                breaks: 0,
            },
            disk: DiskPlan {
                sync_low: 500 * MICRO,
                sync_high: 1_500 * MICRO,
                partial: false,
                lost_writes: true,
                holds_state: false,
            },
            storage: Options::new(256 << 10, 16 << 10, 2),
            workload: Workload {
                clients: 10,
                keys: 100,
                hot: 20,
                value_low: 16,
                value_high: 256,
                write_percent: 50,
                lease_percent: 50,
                local_percent: 0,
                anywhere_percent: 5,
                pause: 195 * MILLI,
                timeout: SECOND,
                tries: 3,
                deadlines: true,
                stores: false,
                keepers: 0,
                records: false,
                compaction: None,
                comparison: None,
            },
            faults: vec![(Fault::Crash, 60 * SECOND), (Fault::Isolate, 60 * SECOND)],
            sabotage: None,
            liveness: false,
            watched: true,
            luck: 0,
            strikes: None,
            operations: None,
            schedule: None,
        }
    }

    /// The seed of all that is drawn during the run; the plan itself was drawn from `seed`.
    pub(crate) fn chance(&self) -> u64 {
        self.seed ^ self.luck.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// The configuration with which a replica starts.
    pub(crate) fn config(&self, id: NodeId, dice: &mut Dice, own_ways: bool) -> NodeConfig {
        self.settings.config(id, dice, own_ways)
    }

    /// The options to open a replica's folder with.
    pub(crate) fn options(&self) -> Options {
        self.storage.clone()
    }

    /// Leaves out a kind of fault, as a reduced replay does.
    pub fn without(&mut self, fault: Fault) {
        fault.leave_out(self);
    }

    /// Limits the number of clients.
    pub fn limit_clients(&mut self, clients: usize) {
        self.workload.clients = self.workload.clients.min(clients.max(1));
    }

    /// Whether the state machine is the multi-version store, and not the map.
    #[must_use]
    pub fn has_stores(&self) -> bool {
        self.workload.stores
    }

    /// Whether the configuration follows the records of the members, as on a server.
    #[must_use]
    pub fn has_records(&self) -> bool {
        self.workload.records
    }

    /// Whether the state is in redb on the disk, as a server's is.
    #[must_use]
    pub fn has_states_on_disk(&self) -> bool {
        self.disk.holds_state
    }

    /// The number of clients.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.workload.clients
    }

    /// The kinds of fault that this cluster may meet.
    #[must_use]
    pub fn kinds(&self) -> Vec<Fault> {
        let parts = Fault::ALL.iter().copied().filter(|kind| kind.is_in(self));
        let striking = self.faults.iter().map(|(kind, _)| *kind);
        // A kind of fault without any wanted strike doesn't happen.
        let wanted = |kind: &Fault| {
            self.strikes.as_ref().is_none_or(|strikes| strikes.iter().any(|strike| strike.fault == *kind))
        };
        let striking = striking.filter(wanted);
        let mut kinds: Vec<Fault> = parts.chain(striking).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }
}

impl Settings {
    fn drawn(dice: &mut Dice, clocks: Clocks) -> Settings {
        let election_min = dice.magnitude(50, 1_000) * MILLI;
        let election_max = election_min + election_min * dice.between(50, 150) / 100;
        let heartbeat = election_min / dice.between(3, 6);
        let retry = dice.between(heartbeat / 4, heartbeat * 2).max(MILLI);
        let tightness = dice.pick(&[0, 1, 1, 2]).expect("some");
        let retained_bytes = [1 << 20, 4_000, 300][tightness as usize] * (1 + dice.index(3));
        Settings {
            election_min,
            election_max,
            heartbeat,
            retry,
            thrifty: dice.percent(35).then(|| dice.between(retry / 2, retry * 2).max(MILLI)),
            eager_commit: dice.percent(30),
            lease_reads: clocks != Clocks::Wild && dice.percent(75),
            drift_ppm: dice.pick(&[100, 10_000, 10_000, 100_000]).expect("some"),
            tightness,
            retained_bytes,
            snapshot_at_bytes: retained_bytes + dice.index(retained_bytes * 2),
            chunk_bytes: dice.magnitude(512, 64 << 10) as usize,
            return_check: false,
        }
    }

    /// One replica's configuration. Some of it may differ between replicas and starts; what leases
    /// rely on, the shortest election timeout, may not.
    pub(crate) fn config(&self, id: NodeId, dice: &mut Dice, own_ways: bool) -> NodeConfig {
        let span = Duration::from_nanos;
        let mut raft = Config::new(id, dice.word());
        raft.election_timeout_min = span(self.election_min);
        raft.election_timeout_max = span(self.election_max);
        raft.heartbeat_interval = span(self.heartbeat);
        raft.retry_after = span(self.retry);
        raft.thrifty = self.thrifty.map(span);
        raft.eager_commit = self.eager_commit;
        raft.lease_reads = self.lease_reads;
        raft.clock_drift = DriftBound::new(self.drift_ppm).expect("drawn within its range");
        raft.max_retained_bytes = self.retained_bytes;
        raft.return_check = self.return_check;
        let mut tightness = self.tightness;
        if own_ways {
            raft.thrifty = dice.percent(40).then(|| span(self.retry));
            raft.eager_commit = dice.percent(50);
            raft.lease_reads = self.lease_reads && dice.percent(70);
            raft.election_timeout_max = span(self.election_max + dice.below(self.election_max));
            tightness = dice.below(3);
        }
        match tightness {
            0 => {}
            1 => {
                raft.max_message_entries = 1 + dice.index(16);
                raft.max_message_bytes = 2_000;
                raft.max_inflight_messages = 1 + dice.index(8);
                raft.max_uncommitted_bytes = 20_000;
                raft.max_applying_bytes = 2_000;
                raft.max_waiting_reads = 20;
                raft.max_promotion_lag = 4;
            }
            _ => {
                raft.max_message_entries = 1 + dice.index(2);
                raft.max_message_bytes = 100 + dice.index(300);
                raft.max_inflight_messages = 1 + dice.index(3);
                raft.max_inflight_bytes = 100 + dice.index(1_000);
                raft.max_uncommitted_bytes = 1_000 + dice.index(2_000);
                raft.max_applying_bytes = 100 + dice.index(400);
                raft.max_waiting_reads = 2 + dice.index(4);
                raft.max_promotion_lag = 1;
            }
        }
        NodeConfig {
            snapshot_at_bytes: self.snapshot_at_bytes,
            chunk_bytes: self.chunk_bytes,
            max_snapshot_bytes: 1 << 30,
            chunk_retry_after: span(self.retry),
            raft,
        }
    }
}

/// Zero in half of the plans, else a number up to `most`.
fn parts(dice: &mut Dice, most: u64) -> u32 {
    if dice.percent(50) { 0 } else { dice.magnitude(1_000, most) as u32 }
}

impl NetworkPlan {
    fn drawn(dice: &mut Dice, settings: &Settings) -> NetworkPlan {
        let base = dice.magnitude(20 * MICRO, settings.heartbeat / 4);
        let delay = match dice.below(4) {
            0 => Delay::Even { low: base, high: base },
            1 => Delay::Even { low: base / 2, high: base * 2 },
            2 => Delay::Memoryless { low: base / 4, mean: base },
            _ => Delay::TwoHumps { fast: base, slow: base * 50, slow_parts: 2_000 },
        };
        NetworkPlan {
            delay,
            in_order: dice.percent(30),
            lost: parts(dice, 300_000),
            doubled: parts(dice, 300_000),
            replayed: parts(dice, 20_000),
            tail: parts(dice, 50_000),
            mangled: parts(dice, 10_000),
            breaks: 0,
        }
    }

    /// A delay that is the same for every message.
    pub(crate) fn even(settings: &Settings) -> Delay {
        let base = 50 * MICRO + settings.heartbeat / 40;
        Delay::Even { low: base, high: base }
    }

    /// A healthy network for the liveness phase.
    pub(crate) fn healthy(settings: &Settings) -> NetworkPlan {
        let low = 50 * MICRO;
        let delay = Delay::Even { low, high: low + settings.heartbeat / 20 };
        NetworkPlan { delay, in_order: false, lost: 0, doubled: 0, replayed: 0, tail: 0, mangled: 0, breaks: 0 }
    }
}

impl DiskPlan {
    fn drawn(dice: &mut Dice, settings: &Settings) -> DiskPlan {
        let low = dice.magnitude(10 * MICRO, settings.heartbeat / 4);
        DiskPlan {
            sync_low: low,
            sync_high: low * dice.between(1, 8),
            partial: dice.percent(50),
            lost_writes: dice.percent(85),
            holds_state: false,
        }
    }
}

/// Draws the storage options. Segments are small, because what a log does at their ends matters, and each crash reads
/// them all.
fn draw_storage(dice: &mut Dice) -> Options {
    let segment_bytes = dice.pick(&[4 << 10, 8 << 10, 16 << 10, 16 << 10, 64 << 10]).expect("some");
    Options::new(segment_bytes, dice.between(512, segment_bytes / 4), 1 + dice.index(3))
}

impl Workload {
    fn drawn(dice: &mut Dice, settings: &Settings) -> Workload {
        let value_low = dice.magnitude(1, 64);
        Workload {
            clients: 1 + dice.index(8),
            keys: dice.magnitude(1, 32),
            hot: dice.pick(&[0, 50, 90]).expect("some"),
            value_low,
            value_high: value_low * dice.pick(&[1, 4, 16, 64]).expect("some"),
            write_percent: dice.pick(&[20, 50, 50, 80]).expect("some"),
            lease_percent: dice.pick(&[0, 50, 100]).expect("some"),
            local_percent: dice.pick(&[0, 0, 10]).expect("some"),
            anywhere_percent: dice.pick(&[0, 10, 50]).expect("some"),
            pause: dice.magnitude(settings.election_max / 200, settings.election_max),
            timeout: settings.election_max * dice.between(1, 6),
            tries: dice.pick(&[1, 2, 5, 20]).expect("some"),
            deadlines: dice.percent(60),
            stores: false,
            keepers: 0,
            records: false,
            compaction: None,
            comparison: None,
        }
    }
}
