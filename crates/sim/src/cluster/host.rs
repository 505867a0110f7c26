//! A simulated replica's surroundings: its process, disk, clock and sockets.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bowline_kv::store::{Lessor, Renewal};
use bowline_kv::watch::Hub;
use bowline_member::Duty;
use bowline_node::NodeMessage;
use bowline_raft::probe::{Probe, hit};
use bowline_raft::{Index, Membership, NodeId, PersistId, Time, Token};

use crate::cluster::clock::{Clock, Moment};
use crate::cluster::context::Context;
use crate::cluster::disk::{Disk, Start};
use crate::cluster::duties::OwnDuties;
use crate::cluster::event::Event;
use crate::cluster::faults::AmidVote;
use crate::cluster::forwarding::Line;
use crate::cluster::keepers::Ask;
use crate::cluster::leader_rules::Matches;
use crate::cluster::oracle::Shadow;
use crate::cluster::plan::{Clocks, MILLI, Plan, SECOND, Sabotage};
use crate::cluster::replica::{Replica, Whole};

/// Maximum number of events that wait for a paused process, like the buffers of its sockets.
const MOST_BACKLOG: usize = 2_000;

/// The sender of a request that waits for a replica's answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asker {
    Client {
        op: u64,
        attempt: u32,
        /// How many entries were committed anywhere when the request arrived.
        known: u64,
    },
    /// The replica itself, which leads and serves its client's request of this token.
    Attempt {
        token: Token,
    },
    /// Another member, which has forwarded its client's request.
    Forwarded {
        line: Line,
        /// Of the request, on this connection.
        id: u64,
    },
    Operator,
    /// The keeper of a lease.
    Keeper {
        keeper: usize,
        call: u64,
        ask: Ask,
        /// When the request arrived or was last started again.
        begun: Moment,
        renewal: Option<Renewal>,
    },
    /// An operator, or a member that has something to do: a request about the members.
    Member {
        call: u64,
        /// Of the command.
        number: u64,
    },
    /// The replica itself, which does what it has to do on its own.
    Duty {
        duty: Duty,
        /// Of the command, if it writes one.
        number: Option<u64>,
    },
    /// The replica itself, which proposes the end of leases.
    Lessor {
        number: u64,
        term: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) id: NodeId,
    /// Counts starts and stops. An event that was planned for an earlier run of the process is ignored.
    pub(crate) run: u32,
    /// The process, if it runs.
    pub(crate) node: Option<Replica>,
    /// Its disk is lost for good, so it never comes back.
    pub(crate) lost: bool,
    pub(crate) paused: bool,
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    pub(crate) shadow: Shadow,
    pub(crate) wake_at: Moment,
    /// Messages that wait for the disk, in the order of the writes they wait for.
    pub(crate) held: VecDeque<(PersistId, NodeId, NodeMessage)>,
    pub(crate) durable: PersistId,
    pub(crate) tokens: BTreeMap<Token, Asker>,
    next_token: u64,
    /// It crashes after this many more effects.
    pub(crate) crash_in: Option<u64>,
    /// Events that happened while it is paused.
    pub(crate) backlog: Vec<Event>,
    /// Its disk is slow until then.
    pub(crate) slow_until: Moment,
    /// The next sync fails.
    pub(crate) fail_sync: bool,
    /// The entries of the message that it handles now were dropped, because there is no room for them.
    pub(crate) left_entries: bool,
    /// Its settings differ from those of the others.
    pub(crate) own_ways: bool,
    /// It stays down; nothing starts it.
    pub(crate) stays_down: bool,
    /// A part of the next snapshot that is sent or received can't be read.
    pub(crate) unreadable_snapshot: bool,
    /// The file of the snapshot that it sends has a bad sector.
    pub(crate) unreadable_pieces: bool,
    /// How many more starts find the disk unreadable.
    pub(crate) unreadable: usize,
    /// Its state machine is slow until then.
    pub(crate) busy_until: Moment,
    /// When leases end, while it leads.
    pub(crate) lessor: Lessor,
    /// Gives its writes to watchers; made when the first one looks.
    pub(crate) hub: Option<Hub>,
    /// What it does on its own.
    pub(crate) duties: OwnDuties,
    /// The match indices that it had for its peers, while it leads.
    pub(crate) matches: Matches,
    /// Its disk at an earlier time, if such a copy was made.
    pub(crate) image: Option<Box<Disk>>,
    /// That copy lacks only the vote for this candidate, and is restored when the candidate leads.
    pub(crate) image_awaits: Option<NodeId>,
    /// What happens to it while its next vote is on its way to its disk.
    pub(crate) amid_vote: Option<AmidVote>,
    /// It no longer hears this leader, which holds a lease. What happens when it asks for votes is in
    /// `faults/elections.rs`.
    pub(crate) left_by: Option<usize>,
    /// Its state was damaged or missing. Its log is useless without it, so it waits for a leader's snapshot.
    lacks_state: bool,
    /// This run of the process has got a leader's snapshot as its state.
    pub(crate) has_fetched_state: bool,
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
            unreadable_snapshot: false,
            unreadable_pieces: false,
            unreadable: 0,
            busy_until: 0,
            lessor: Lessor::default(),
            hub: None,
            duties: OwnDuties::default(),
            matches: Matches::default(),
            image: None,
            image_awaits: None,
            amid_vote: None,
            left_by: None,
            lacks_state: false,
            has_fetched_state: false,
        }
    }

    /// Its index among all hosts.
    pub(crate) fn at(&self) -> usize {
        self.id.0 as usize - 1
    }

    /// Sabotage: keeps a copy of the disk, if there is none yet.
    pub(crate) fn note_image(&mut self) {
        self.image.get_or_insert_with(|| Box::new(self.disk.image()));
    }

    /// Sabotage: restores the disk to the copy.
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

    /// Whether it leads, and its lease lasts.
    pub(crate) fn holds_lease(&self, now: Moment) -> bool {
        self.node.as_ref().is_some_and(|node| node.raft().holds_lease(self.clock.shows(now)))
    }

    /// Keeps an event for a paused process.
    pub(crate) fn wait(&mut self, event: Event) {
        // Events of its own disk are never lost.
        let droppable = matches!(event, Event::Message { .. } | Event::Request { .. });
        if !droppable || self.backlog.len() < MOST_BACKLOG {
            self.backlog.push(event);
        }
    }

    /// A token for a request, unique in this run of the process.
    pub(crate) fn token(&mut self, asker: Asker) -> Token {
        self.next_token += 1;
        let token = Token(self.next_token);
        self.tokens.insert(token, asker);
        token
    }
}

/// The state in a file.
impl Host {
    /// Notes what it will start with.
    pub(crate) fn looks_at_state(&mut self, start: &Start) {
        self.has_fetched_state = false;
        let Some(member) = &start.member else { return };
        let (recovered, applied) = (&start.found.raft, member.state.machine.applied());
        if member.state.files.was_damaged() {
            hit(Probe::StateDamaged);
        }
        // Without the state that the log follows, the whole log was given up.
        self.lacks_state = recovered.suspect.is_some() && recovered.snapshot.is_none();
        if applied > Index(0) && recovered.entries.last().is_some_and(|last| last.index > applied) {
            hit(Probe::StateBehindLog);
        }
    }

    /// A leader's snapshot has replaced its state.
    pub(crate) fn installed(&mut self, index: Index) {
        self.disk.installed(index);
        self.has_fetched_state = true;
        if std::mem::take(&mut self.lacks_state) {
            hit(Probe::StateFetched);
        }
    }

    /// Whether nothing is on its way to the disk.
    pub(crate) fn is_idle(&self) -> bool {
        let whole = self.node.as_ref().and_then(Replica::whole);
        self.disk.is_idle() && whole.is_none_or(Whole::is_idle)
    }
}

/// Its clock, its next wake-up and its disk.
impl Host {
    /// Draws the clock's rate and the time that it shows at the start.
    pub(crate) fn set_clock(&mut self, ctx: &mut Context<'_>) {
        let bound = u64::from(ctx.plan.settings.drift_ppm);
        let dice = &mut ctx.chances.hosts;
        let gains = match ctx.plan.clocks {
            Clocks::True => 0,
            // Mistakes show at the ends of the bound.
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

    /// The deadline of a request that arrives now, if the plan has deadlines.
    pub(crate) fn deadline(&self, ctx: &Context<'_>) -> Option<Time> {
        let timeout = Duration::from_nanos(ctx.plan.workload.timeout);
        ctx.plan.workload.deadlines.then(|| self.clock.shows(ctx.now).after(timeout))
    }

    /// Whether a deadline of the replica has been reached.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        self.node.as_ref().is_some_and(|node| node.next_deadline() <= self.clock.shows(now))
    }

    /// Plans the next wake-up, if it is earlier than the planned one.
    pub(crate) fn reschedule(&mut self, ctx: &mut Context<'_>) {
        let Some(node) = &self.node else { return };
        let mut deadline = node.next_deadline();
        // A whole member's deadline includes that of its leases.
        if node.raft().is_leader() && self.disk.has_room() && node.whole().is_none() {
            deadline = deadline.min(self.lessor.next_deadline());
        }
        let moment = self.clock.moment_of(deadline).max(ctx.now);
        if moment < self.wake_at && !self.paused {
            self.wake_at = moment;
            ctx.queue.push(moment, Event::Wake { host: self.at(), run: self.run });
        }
    }

    /// Plans the next wake-up anew, after a pause or a change of the clock.
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
