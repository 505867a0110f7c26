//! A simulated replica's surroundings: its process, disk, clock and sockets; and the step in which
//! it takes an input and is looked at. What comes of that is in `effects.rs`.

use std::collections::{BTreeMap, VecDeque};

use bowline_kv::store::{Lessor, Renewal};
use bowline_node::{Node, NodeConfig, NodeEffect, NodeInput, NodeMessage};
use bowline_raft::probe::{Probe, hit};
use bowline_raft::{Body, ConfigError, Index, Membership, NodeId, PersistId, Position, Time, Token, Write};

use crate::world::clock::{Clock, Moment};
use crate::world::coverage::Fault;
use crate::world::disk::{Damage, Disk, Ended, Start};
use crate::world::keepers::{Ask, LEASE_OPS};
use crate::world::leader_rules::{Matches, speaker, takes_no_more_than_it_may};
use crate::world::machine::Machine;
use crate::world::oracle::{Rule, Shadow};
use crate::world::plan::{Clocks, MILLI, Plan, SECOND, Sabotage};
use crate::world::reduction::life_dice;
use crate::world::replica::{KeptNode, Replica};
use crate::world::stage::{Event, World};
use crate::world::story::describe;
use crate::world::wire::arrived;

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
    /// Counts its starts and stops: what was planned for an earlier life doesn't happen.
    pub(crate) life: u32,
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
    backlog: Vec<Event>,
    /// Its disk is slow until then.
    pub(crate) slow_until: Moment,
    /// The next sync fails.
    pub(crate) fail_sync: bool,
    /// The message that it takes now had entries for which there is no room.
    left_entries: bool,
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
        let disk = Disk::new(id, founders, &plan.options(), plan.disk.kept);
        if plan.sabotage == Some(Sabotage::LyingDisks) {
            disk.lies();
        }
        Host {
            id,
            life: 0,
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

    /// Nobody may count on its disk any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
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

    /// A name for a request that was never used in this life.
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
    fn looks_at_state(&mut self, start: &Start) {
        let Some(kept) = &start.kept else { return };
        let (recovered, applied) = (&start.found.raft, kept.machine.applied());
        if kept.states.damaged {
            hit(Probe::StateDamaged);
        }
        // Without the state under it the whole log was given up.
        self.lacks_state = recovered.suspect.is_some() && recovered.snapshot.is_none();
        if applied > Index(0) && recovered.entries.last().is_some_and(|last| last.index > applied) {
            hit(Probe::StateBehindLog);
        }
    }

    /// A leader's snapshot may have taken its state's place.
    fn looks_at_install(&mut self) {
        let installed = self.node.as_mut().and_then(Replica::kept).and_then(KeptNode::take_installed);
        if let Some(index) = installed {
            self.disk.installed(index);
            if std::mem::take(&mut self.lacks_state) {
                hit(Probe::StateFetched);
            }
        }
    }
}

/// The process of a replica that starts.
fn replica(config: NodeConfig, stores: bool, start: Start, now: Time) -> Result<Replica, ConfigError> {
    if let Some(kept) = start.kept {
        return KeptNode::new(config, kept, start.found.raft, now).map(|node| Replica::Kept(Box::new(node)));
    }
    let machine = Machine::new(stores);
    Node::new(config, machine, start.found, now).map(|node| Replica::InMemory(Box::new(node)))
}

/// Life and death.
impl World<'_> {
    /// Gives a replica's clock a rate, and what it shows at its start.
    pub(crate) fn set_clock(&mut self, host: usize) {
        let bound = u64::from(self.plan.settings.drift_ppm);
        let dice = &mut self.chances.hosts;
        let gains = match self.plan.clocks {
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
        self.hosts[host].clock = Clock::new(self.now, shown, gains);
    }

    /// Starts a replica's process, if it may and doesn't run.
    pub(crate) fn start(&mut self, host: usize) {
        let own_ways = self.hosts[host].own_ways;
        let it = &self.hosts[host];
        if it.lost || it.node.is_some() || it.stays_down {
            return;
        }
        let Some(start) = self.recovered(host) else { return };
        let recovered = &start.found.raft;
        let it = &mut self.hosts[host];
        let judged = self.oracle.promises.restarted(it.id, recovered, &it.disk);
        let config = self.plan.config(it.id, &mut life_dice(self.plan.chance(), host, it.life), own_ways);
        let last = recovered.entries.last().map(|entry| entry.index);
        let term = recovered.hard_state.term;
        it.looks_at_state(&start);
        let made = replica(config, self.plan.workload.stores, start, it.clock.shows(self.now));
        self.judge(judged);
        match made {
            Ok(mut node) => {
                let judged = self.model.started(&mut node);
                self.judge(judged);
                let judged = self.clients.judge_state(node.machine());
                self.judge(judged.map_err(|what| (Rule::StatesAreEqual, format!("n{} starts: {what}", host + 1))));
                let it = &mut self.hosts[host];
                it.life += 1;
                it.shadow = Shadow::of(node.raft());
                it.durable = PersistId(0);
                it.node = Some(node);
                self.tell(Some(host), || match last {
                    Some(last) => format!("starts in {term} with entries up to {last}"),
                    None => format!("starts in {term} without entries"),
                });
                self.inspect(host);
                self.reschedule(host);
            }
            Err(error) => self.judge(Err((Rule::RestartKeepsPromises, format!("n{} can't start: {error}", host + 1)))),
        }
    }

    /// The process is gone at once; `power` says whether the machine went with it.
    pub(crate) fn crash(&mut self, host: usize, power: bool) {
        let it = &mut self.hosts[host];
        let Some(mut node) = it.node.take() else { return };
        it.life += 1;
        it.paused = false;
        it.crash_in = None;
        it.fail_sync = false;
        it.wake_at = Moment::MAX;
        it.held.clear();
        it.backlog.clear();
        it.tokens.clear();
        it.lessor = Lessor::default();
        self.leading.retain(|leader| *leader != host);
        let it = &mut self.hosts[host];
        match it.disk.crash(power && self.plan.disk.lost_writes, node.kept(), &mut self.chances.disk) {
            Ok(damage) => {
                self.has_crashed(host, &damage);
                self.forget_witness(host);
            }
            Err(what) => self.judge(Err((Rule::RestartKeepsPromises, format!("n{} crashes: {what}", host + 1)))),
        }
    }

    fn has_crashed(&mut self, host: usize, damage: &Damage) {
        if damage.lost > 0 {
            self.coverage.struck(Fault::LostWrites);
        }
        if damage.torn {
            self.coverage.struck(Fault::TornWrite);
        }
        self.tell(Some(host), || match (damage.lost, damage.torn) {
            (0, false) => "CRASHES".to_owned(),
            (lost, torn) => format!("CRASHES, {lost} unsynced writes lost{}", if torn { ", one torn" } else { "" }),
        });
        self.is_damaged(host, damage);
    }

    /// Stops a process without its knowing, as SIGSTOP does.
    pub(crate) fn pause(&mut self, host: usize, span: Moment, leap: bool) {
        let it = &mut self.hosts[host];
        if it.node.is_none() || it.paused {
            return;
        }
        it.paused = true;
        let life = it.life;
        self.queue.push(self.now + span, Event::Resume { host, life, leap });
        self.tell(Some(host), || format!("PAUSES for {:.3} s", span as f64 / 1e9));
    }

    /// What waited meanwhile happens now, in any order.
    pub(crate) fn resume(&mut self, host: usize, life: u32, leap: bool) {
        let it = &mut self.hosts[host];
        if it.life != life || !it.paused {
            return;
        }
        it.paused = false;
        if leap {
            // Its clock stood still less than it should have made up for, or more: it leaps ahead.
            let by = self.chances.hosts.below(SECOND);
            it.clock.jump(self.now, by);
            self.keepers.leapt(self.now, by);
        }
        let mut backlog = std::mem::take(&mut it.backlog);
        if self.chances.hosts.percent(50) {
            self.chances.hosts.shuffle(&mut backlog);
        }
        self.tell(Some(host), || format!("resumes, {} events waited", backlog.len()));
        it_wakes(self, host);
        for event in backlog {
            self.queue.push(self.now, event);
        }
    }

    /// Keeps an event for a paused process; gives it back if the process runs.
    fn unless_paused(&mut self, host: usize, event: Event) -> Option<Event> {
        let it = &mut self.hosts[host];
        if !it.paused {
            return Some(event);
        }
        // What its own disk tells is never lost.
        let droppable = matches!(event, Event::Message { .. } | Event::Request { .. });
        if !droppable || it.backlog.len() < MOST_BACKLOG {
            it.backlog.push(event);
        }
        None
    }
}

fn it_wakes(world: &mut World<'_>, host: usize) {
    world.hosts[host].wake_at = Moment::MAX;
    world.reschedule(host);
}

/// Inputs.
impl World<'_> {
    pub(crate) fn deliver(&mut self, from: usize, to: usize, message: NodeMessage) {
        if self.hosts[to].node.is_none() {
            return;
        }
        let Some(event) = self.unless_paused(to, Event::Message { from, to, message }) else { return };
        if let Event::Message { from, message, .. } = event {
            let Some(mut message) = arrived(from, &message) else { return };
            self.hosts[to].left_entries = !self.hosts[to].disk.has_room() && leave_entries(&mut message);
            self.tell(Some(to), || format!("<- n{} {}", from + 1, describe(&message)));
            self.step(to, NodeInput::Receive { from: NodeId(from as u64 + 1), message });
        }
    }

    pub(crate) fn wake(&mut self, host: usize, life: u32) {
        let it = &mut self.hosts[host];
        if it.life != life || it.wake_at != self.now || it.paused {
            return;
        }
        it.wake_at = Moment::MAX;
        let due = it.node.as_ref().is_some_and(|node| node.next_deadline() <= it.clock.shows(self.now));
        if due {
            self.step(host, NodeInput::Wake);
        } else {
            self.end_leases(host);
            self.reschedule(host);
        }
    }

    pub(crate) fn reschedule(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        let Some(node) = &it.node else { return };
        let mut deadline = node.next_deadline();
        if node.raft().is_leader() && it.disk.has_room() {
            deadline = deadline.min(it.lessor.next_deadline());
        }
        let moment = it.clock.moment_of(deadline).max(self.now);
        if moment < it.wake_at && !it.paused {
            it.wake_at = moment;
            self.queue.push(moment, Event::Wake { host, life: it.life });
        }
    }

    pub(crate) fn synced(&mut self, host: usize, life: u32) {
        if self.hosts[host].life != life {
            return;
        }
        if self.hosts[host].paused {
            // The disk goes on by itself; the process hears of it later.
            let _ = self.unless_paused(host, Event::Synced { host, life });
            return;
        }
        let it = &mut self.hosts[host];
        if std::mem::take(&mut it.fail_sync) {
            it.disk.fail_soon(&mut self.chances.disk);
        }
        let ended = it.disk.finish_sync();
        let Some(synced) = self.unless_stuck(host, ended, Event::Synced { host, life }) else { return };
        let it = &self.hosts[host];
        if let Some(up_to) = synced.up_to {
            self.model.durable(it.id, up_to);
        }
        for index in synced.files {
            self.step(host, NodeInput::SnapshotStored { index });
        }
        if let Some(up_to) = synced.up_to
            && self.hosts[host].life == life
        {
            self.hosts[host].durable = up_to;
            // The messages that waited, and the news for the replica, in either order.
            let first = self.chances.disk.percent(50);
            if first {
                self.release_held(host);
            }
            self.step(host, NodeInput::Persisted { up_to });
            self.release_held(host);
        }
        self.sync(host);
    }

    /// What the disk has done; `None` if it couldn't: for want of room it tries `again` later, else the process
    /// stops.
    fn unless_stuck<T>(&mut self, host: usize, ended: Ended<T>, again: Event) -> Option<T> {
        match ended {
            Ended::Done(done) => Some(done),
            Ended::NoSpace => {
                self.tell(Some(host), || "has no room on its disk: it waits for some".to_owned());
                let at = self.now + self.chances.disk.between(10 * MILLI, 250 * MILLI);
                self.queue.push(at, again);
                None
            }
            Ended::Failed(why) => {
                self.stop_for(host, &why);
                None
            }
        }
    }

    /// D9: what is durable is unknown, so the process stops.
    pub(crate) fn stop_for(&mut self, host: usize, why: &str) {
        self.coverage.struck(Fault::SyncError);
        self.tell(Some(host), || format!("its disk fails, it stops: {why}"));
        if self.chances.disk.percent(50) {
            self.hosts[host].disk.forget_dirty();
        }
        let power = self.chances.disk.percent(50);
        self.crash(host, power);
        let at = self.now + self.chances.nemesis.between(100 * MILLI, 3 * SECOND);
        self.queue.push(at, Event::Start { host });
    }

    fn release_held(&mut self, host: usize) {
        let durable = self.hosts[host].durable;
        while self.hosts[host].held.front().is_some_and(|(after, _, _)| *after <= durable) {
            let Some((_, to, message)) = self.hosts[host].held.pop_front() else { return };
            self.send(host, to, message);
        }
    }

    pub(crate) fn stored(&mut self, host: usize, life: u32) {
        if self.hosts[host].life != life || self.unless_paused(host, Event::Stored { host, life }).is_none() {
            return;
        }
        let it = &mut self.hosts[host];
        let ended = match it.node.as_mut().and_then(Replica::kept) {
            Some(node) => {
                if std::mem::take(&mut it.fail_sync) {
                    it.disk.fail_soon(&mut self.chances.disk);
                }
                it.disk.finish_keeping(node)
            }
            None => it.disk.finish_storing(),
        };
        if let Some(Some(index)) = self.unless_stuck(host, ended, Event::Stored { host, life }) {
            self.step(host, NodeInput::SnapshotStored { index });
        }
    }

    /// Starts a sync if there is something to sync.
    fn sync(&mut self, host: usize) {
        let plan = &self.plan.disk;
        let dice = &mut self.chances.disk;
        let share = if plan.partial { dice.between(1, 100) } else { 100 };
        let it = &mut self.hosts[host];
        if it.node.is_some() && it.disk.start_sync(share) {
            let mut span = dice.between(plan.sync_low, plan.sync_high);
            if self.now < it.slow_until {
                span = span * dice.between(10, 200) + dice.magnitude(MILLI, SECOND);
            }
            self.queue.push(self.now + span, Event::Synced { host, life: it.life });
        }
    }
}

/// A step.
impl World<'_> {
    /// A replica takes an input.
    pub(crate) fn step(&mut self, host: usize, input: NodeInput) {
        let it = &mut self.hosts[host];
        let Some(node) = &mut it.node else { return };
        let mut effects = std::mem::take(&mut self.effects);
        let (from, before) = (speaker(&input), node.raft().last_applied());
        node.handle(it.clock.shows(self.now), input, &mut effects);
        if let Some(why) = node.kept().and_then(|node| node.fault().map(str::to_owned)) {
            // Nobody is told anything that depends on it.
            effects.clear();
            self.effects = effects;
            return self.stop_for(host, &why);
        }
        let applied = node.raft().last_applied() > before;
        if node.unrestored_snapshots() > 0 {
            let what = format!("n{} has put together a snapshot that is none", host + 1);
            self.judge(Err((Rule::StatesAreEqual, what)));
        }
        let it = &mut self.hosts[host];
        it.looks_at_install();
        if std::mem::take(&mut it.left_entries) {
            effects.retain(|effect| !is_append_reply(effect));
        }
        for effect in &effects {
            if let NodeEffect::Persist { write, .. } = effect {
                self.observe_write(host, write);
            }
        }
        self.inspect(host);
        self.judge_leader(host, from);
        // After the invariants: where one of them is broken too, it says more.
        let judged = self.model.judged();
        self.judge(judged);
        self.carry_out(host, &mut effects);
        effects.clear();
        self.effects = effects;
        self.judge_return(host);
        self.end_leases(host);
        self.sync(host);
        if self.hosts[host].busy_until > self.now && applied {
            self.stay_busy(host);
        }
        self.reschedule(host);
    }

    fn observe_write(&mut self, host: usize, write: &Write) {
        let it = &mut self.hosts[host];
        let Some(node) = &it.node else { return };
        let judged = it.shadow.written(node.raft(), write, &mut self.oracle.links);
        let judged = match judged {
            Ok(true) => {
                it.matches.forget();
                it.shadow.change_is_sound(node.raft())
            }
            Ok(false) => takes_no_more_than_it_may(node.raft(), write),
            Err(violation) => Err(violation),
        };
        self.judge(judged);
    }

    /// Looks at a replica after its step.
    pub(crate) fn inspect(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        let Some(node) = &it.node else { return };
        let raft = node.raft();
        let judged = it.shadow.agrees(raft);
        let leads = raft.is_leader().then(|| raft.term());
        let was = std::mem::replace(&mut it.shadow.leads, leads);
        let before = std::mem::replace(&mut it.shadow.commit, raft.commit_index());
        let after = raft.commit_index();
        node.machine().take_news(&mut self.news);
        let shown = it.clock.shows(self.now);
        if let Some(leases) = node.machine().take_leases() {
            it.lessor.reset(shown, leases);
        }
        for change in self.news.iter().flat_map(|applied| &applied.leases) {
            it.lessor.note(shown, *change);
        }
        let counts = match self.plan.sabotage {
            Some(Sabotage::LocalLessors) => Some(0),
            _ => leads.map(|term| term.0),
        };
        it.lessor.follow(shown, counts);
        let witness = node.machine().witness();
        self.oracle.judge(self.now, judged);
        if leads != was {
            self.leadership_changed(host);
        }
        if after < before {
            let what = format!("n{} goes back from {before} to {after}", host + 1);
            self.judge(Err((Rule::CommitNeverDecreases, what)));
        } else if after > before {
            self.commit_advanced(host, before);
        }
        self.judge_news(host, witness);
        if self.leading.len() > 1 && self.hosts[host].leads() {
            self.judge_leases();
        }
    }

    fn leadership_changed(&mut self, host: usize) {
        self.leading.retain(|leader| *leader != host);
        let Some(node) = &self.hosts[host].node else { return };
        let raft = node.raft();
        if raft.is_leader() {
            let (id, term) = (raft.id(), raft.term());
            let judged = self.oracle.leads(id, term).and_then(|()| self.oracle.commits.led_by(raft));
            self.judge(judged);
            self.leading.push(host);
            self.led_since = self.now;
            self.tell(Some(host), || format!("LEADS in {term}"));
        } else {
            self.tell(Some(host), || "leads no more".to_owned());
        }
    }

    fn commit_advanced(&mut self, host: usize, before: Index) {
        let Some(node) = &self.hosts[host].node else { return };
        let raft = node.raft();
        let judged = self.oracle.commits.advanced(raft, before);
        let judged = judged.and_then(|new_from| match new_from {
            Some(_) => self.durable_on_quorum(host),
            None => Ok(()),
        });
        self.judge(judged);
    }

    /// I10: what is committed now is on the disks of a quorum, or was, and its loss is known: who has lost it
    /// gives no vote before it is back.
    fn durable_on_quorum(&self, host: usize) -> Result<(), (Rule, String)> {
        let Some(node) = &self.hosts[host].node else { return Ok(()) };
        let raft = node.raft();
        let index = raft.commit_index();
        let Some(term) = raft.log().term_at(index) else { return Ok(()) };
        let holds = |id: NodeId| {
            let disk = self.hosts.get(id.0 as usize - 1).map(|it| &it.disk);
            let position = Position::new(index, term);
            disk.is_some_and(|disk| {
                disk.base().index >= index || disk.term_at(index) == Some(term) || disk.owes(position)
            })
        };
        if raft.membership().quorum().is_reached_by(holds) {
            return Ok(());
        }
        let what = format!("n{} commits {index}@{}, which {} don't hold", host + 1, term.0, raft.membership());
        Err((Rule::CommittedIsDurableOnQuorum, what))
    }

    /// What a replica has applied, and the state that it is in.
    fn judge_news(&mut self, host: usize, witness: (u64, u64)) {
        let id = self.hosts[host].id;
        let mut news = std::mem::take(&mut self.news);
        for applied in news.drain(..) {
            let judged = match self.oracle.commits.applied(id, &applied) {
                Ok(true) if applied.op >= LEASE_OPS && applied.op != u64::MAX => self.lease_command(&applied),
                Ok(true) => self.clients.took_effect(&applied, &mut self.oracle),
                Ok(false) => Ok(()),
                Err(violation) => Err(violation),
            };
            self.judge(judged);
        }
        self.news = news;
        let (index, digest) = witness;
        if index > 0 && self.oracle.commits.digest_at(index) != Some(digest) {
            self.judge(Err((Rule::StatesAreEqual, format!("{id} has another state as of index {index}"))));
        }
    }

    /// I21: no two leaders would serve a read under their leases.
    fn judge_leases(&mut self) {
        let holds = |host: &&usize| {
            let it = &self.hosts[**host];
            it.node.as_ref().is_some_and(|node| node.raft().holds_lease(it.clock.shows(self.now)))
        };
        let holders: Vec<usize> = self.leading.iter().filter(holds).copied().collect();
        if let [one, other, ..] = holders[..] {
            let what = format!("n{} and n{} both hold a lease", one + 1, other + 1);
            self.judge(Err((Rule::OneLease, what)));
        }
    }
}

/// A disk that is full: the leader is heard, but its entries have no place here. It sends them again.
/// Returns whether there were some: then its answer must not leave. It would say that nothing of them arrived,
/// and they would come again at once, with what follows them, in a storm that nothing ends but room.
fn leave_entries(message: &mut NodeMessage) -> bool {
    match message {
        NodeMessage::Raft(bowline_raft::Message { body: Body::AppendEntries(append), .. }) => {
            !std::mem::take(&mut append.entries).is_empty()
        }
        _ => false,
    }
}

fn is_append_reply(effect: &NodeEffect) -> bool {
    matches!(effect, NodeEffect::Send { message: NodeMessage::Raft(message), .. }
        if matches!(message.body, Body::AppendEntriesReply(_)))
}

/// For requests that arrive at a paused process.
impl World<'_> {
    pub(crate) fn keep_for_later(&mut self, host: usize, event: Event) {
        let _ = self.unless_paused(host, event);
    }
}
