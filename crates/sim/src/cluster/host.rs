//! A simulated replica's surroundings: its process, disk, clock and sockets.

use std::collections::{BTreeMap, VecDeque};

use bowline_kv::store::{Lessor, Renewal};
use bowline_node::NodeMessage;
use bowline_raft::probe::{Probe, hit};
use bowline_raft::{Index, Membership, NodeId, PersistId, Token};

use crate::cluster::clock::{Clock, Moment};
use crate::cluster::context::Context;
use crate::cluster::disk::{Disk, Start};
use crate::cluster::event::Event;
use crate::cluster::keepers::Ask;
use crate::cluster::leader_rules::Matches;
use crate::cluster::oracle::Shadow;
use crate::cluster::plan::{Clocks, MILLI, Plan, SECOND, Sabotage};
use crate::cluster::replica::{OnDiskNode, Replica};

/// Most events that wait for a paused process: the size of its sockets' buffers.
const MOST_BACKLOG: usize = 2_000;

/// Who waits for an answer of a replica.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    Client {
        op: u64,
        attempt: u32,
        /// How many entries were committed anywhere when the request arrived.
        known: u64,
    },
    Operator,
    /// Of a lease.
    Keeper {
        keeper: usize,
        call: u64,
        ask: Ask,
        /// When it arrived, or was looked at last.
        begun: Moment,
        renewal: Option<Renewal>,
    },
    /// The replica itself, with the end of leases.
    Lessor {
        number: u64,
        term: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) id: NodeId,
    /// Counts its starts and stops: an event that was planned for an earlier run of the process is void.
    pub(crate) run: u32,
    /// The running process.
    pub(crate) node: Option<Replica>,
    /// Its disk is lost for good: it never comes back.
    pub(crate) lost: bool,
    pub(crate) paused: bool,
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    pub(crate) shadow: Shadow,
    pub(crate) wake_at: Moment,
    /// Messages that wait for the disk, in the order of what they wait for.
    pub(crate) held: VecDeque<(PersistId, NodeId, NodeMessage)>,
    pub(crate) durable: PersistId,
    pub(crate) tokens: BTreeMap<Token, Asker>,
    next_token: u64,
    /// It crashes after so many more effects.
    pub(crate) crash_in: Option<u64>,
    /// What has happened while it is paused.
    pub(crate) backlog: Vec<Event>,
    /// Its disk is slow until then.
    pub(crate) slow_until: Moment,
    /// The next sync fails.
    pub(crate) fail_sync: bool,
    /// The message that it takes now had entries for which there is no room.
    pub(crate) left_entries: bool,
    /// It is configured in its own way, not like the others.
    pub(crate) own_ways: bool,
    /// It is broken for good: nothing starts it.
    pub(crate) stays_down: bool,
    /// So many more starts find the disk unreadable.
    pub(crate) unreadable: usize,
    /// Its state machine is slow until then.
    pub(crate) busy_until: Moment,
    /// Until when leases live, while it leads.
    pub(crate) lessor: Lessor,
    /// What it knows of its peers, while it leads.
    pub(crate) matches: Matches,
    /// Its disk at an earlier time, if such a copy was made.
    pub(crate) image: Option<Box<Disk>>,
    keeps_images: bool,
    /// Its state was found damaged or missing, and the log is of no use without it: it waits for a leader's.
    lacks_state: bool,
}

impl Host {
    pub(crate) fn new(at: usize, founders: Option<Membership>, plan: &Plan) -> Host {
        let id = NodeId(at as u64 + 1);
        let disk = Disk::new(id, founders, &plan.options(), plan.disk.holds_state);
        if plan.sabotage == Some(Sabotage::LyingDisks) {
            disk.lies();
        }
        Host {
            id,
            run: 0,
            node: None,
            lost: false,
            paused: false,
            disk,
            clock: Clock::new(0, 0, 0),
            shadow: Shadow::default(),
            wake_at: Moment::MAX,
            held: VecDeque::new(),
            durable: PersistId(0),
            tokens: BTreeMap::new(),
            next_token: 0,
            crash_in: None,
            backlog: Vec::new(),
            slow_until: 0,
            fail_sync: false,
            left_entries: false,
            own_ways: false,
            stays_down: false,
            unreadable: 0,
            busy_until: 0,
            lessor: Lessor::default(),
            matches: Matches::default(),
            image: None,
            keeps_images: plan.sabotage == Some(Sabotage::OldImages),
            lacks_state: false,
        }
    }

    /// Its place among all hosts.
    pub(crate) fn at(&self) -> usize {
        self.id.0 as usize - 1
    }

    /// Keeps a copy of the disk, if there is none yet.
    pub(crate) fn note_image(&mut self) {
        if self.keeps_images {
            self.image.get_or_insert_with(|| Box::new(self.disk.image()));
        }
    }

    /// Sabotage: the disk is as it was when the copy was made.
    pub(crate) fn restore_image(&mut self) {
        if let Some(image) = self.image.take() {
            self.disk = *image;
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.node.is_some()
    }

    pub(crate) fn leads(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.raft().is_leader())
    }

    /// Keeps an event for a paused process.
    pub(crate) fn wait(&mut self, event: Event) {
        // What its own disk tells is never lost.
        let droppable = matches!(event, Event::Message { .. } | Event::Request { .. });
        if !droppable || self.backlog.len() < MOST_BACKLOG {
            self.backlog.push(event);
        }
    }

    /// A name for a request, not used before in this run of the process.
    pub(crate) fn token(&mut self, asker: Asker) -> Token {
        self.next_token += 1;
        let token = Token(self.next_token);
        self.tokens.insert(token, asker);
        token
    }
}

/// Of a state that is in a file.
impl Host {
    /// What it starts with, before it does.
    pub(crate) fn looks_at_state(&mut self, start: &Start) {
        let Some(state) = &start.state else { return };
        let (recovered, applied) = (&start.found.raft, state.machine.applied());
        if state.states.damaged {
            hit(Probe::StateDamaged);
        }
        // Without the state under it the whole log was given up.
        self.lacks_state = recovered.suspect.is_some() && recovered.snapshot.is_none();
        if applied > Index(0) && recovered.entries.last().is_some_and(|last| last.index > applied) {
            hit(Probe::StateBehindLog);
        }
    }

    /// A leader's snapshot may have taken its state's place.
    pub(crate) fn looks_at_install(&mut self) {
        let installed = self.node.as_mut().and_then(Replica::on_disk).and_then(OnDiskNode::take_installed);
        if let Some(index) = installed {
            self.disk.installed(index);
            if std::mem::take(&mut self.lacks_state) {
                hit(Probe::StateFetched);
            }
        }
    }
}

/// Its clock, its alarm and its disk.
impl Host {
    /// Gives its clock a rate, and what it shows at its start.
    pub(crate) fn set_clock(&mut self, ctx: &mut Context<'_>) {
        let bound = u64::from(ctx.plan.settings.drift_ppm);
        let dice = &mut ctx.chances.hosts;
        let gains = match ctx.plan.clocks {
            Clocks::True => 0,
            // The ends of the bound are where a mistake shows.
            Clocks::Drifting => match dice.below(4) {
                0 => bound as i64,
                1 => -(bound as i64),
                _ => dice.between(0, bound * 2) as i64 - bound as i64,
            },
            Clocks::Wild => dice.between(0, 800_000) as i64 - 400_000,
        };
        let shown = dice.magnitude(1, 1_000 * SECOND);
        self.clock = Clock::new(ctx.now, shown, gains);
    }

    /// Whether something may change by itself in the next step.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        self.node.as_ref().is_some_and(|node| node.next_deadline() <= self.clock.shows(now))
    }

    /// Plans when it wakes, if that is earlier than planned.
    pub(crate) fn reschedule(&mut self, ctx: &mut Context<'_>) {
        let Some(node) = &self.node else { return };
        let mut deadline = node.next_deadline();
        if node.raft().is_leader() && self.disk.has_room() {
            deadline = deadline.min(self.lessor.next_deadline());
        }
        let moment = self.clock.moment_of(deadline).max(ctx.now);
        if moment < self.wake_at && !self.paused {
            self.wake_at = moment;
            ctx.queue.push(moment, Event::Wake { host: self.at(), run: self.run });
        }
    }

    /// The same when the plan means nothing any more: it was paused, or its clock is another one.
    pub(crate) fn reschedule_anew(&mut self, ctx: &mut Context<'_>) {
        if !self.paused {
            self.wake_at = Moment::MAX;
            self.reschedule(ctx);
        }
    }

    /// Starts a sync if there is something to sync.
    pub(crate) fn start_sync(&mut self, ctx: &mut Context<'_>) {
        let (plan, dice) = (&ctx.plan.disk, &mut ctx.chances.disk);
        let share = if plan.partial { dice.between(1, 100) } else { 100 };
        if self.node.is_some() && self.disk.start_sync(share) {
            let mut span = dice.between(plan.sync_low, plan.sync_high);
            if ctx.now < self.slow_until {
                span = span * dice.between(10, 200) + dice.magnitude(MILLI, SECOND);
            }
            ctx.after(span, Event::Synced { host: self.at(), run: self.run });
        }
    }
}
