//! The emulated LAN as a pure component: eight clients, a hostile network, and a record of
//! everything that happens.
//!
//! An [`Emulation`] neither opens sockets nor reads a clock. A driver tells it the time and the
//! messages of the replicas, and performs its [`Action`]s. So the same rules apply to real programs
//! in real time and to simulated ones in virtual time.
//!
//! **Time.** A run consists of `start_wait`, `lifetime` and `end_wait`. An event's `time` counts
//! from the start of the lifetime; all other times, here and in the [`Record`], count from the start
//! of the run. Request number *i* of *n* is created at `start_wait + lifetime * i / n`. Events
//! happen before a request that is due at the same time.
//!
//! **The leader** for `kill_leader`, `kill_non_leader` and `part_easy` is the living replica that is
//! named as leader by the last messages of more than half of the living replicas. If there is none, it
//! is the replica that the last `ok` named, if that lives. If there is no leader, the three events
//! choose among all living replicas at random.
//!
//! **A cut** puts a random `n / 2 + 1` of the `n` replicas on one side, living ones first, so that
//! this side can still decide if enough replicas live. A new cut replaces the previous one.
//!
//! **A bounced request** (`redirect`, `fail`) is sent again at once. After [`FREE_BOUNCES`] bounces,
//! the client pauses for 10 ms before each attempt; after 256 bounces, for 100 ms.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bowline_lan::LanId;
use bowline_lan::message::{Content, Envelope, Header, MessageError, shorten};
use bytes::Bytes;

use crate::Random;
use crate::scenario::{EventKind, Scenario};

mod clients;
mod leadership;
mod network;
mod record;

pub use clients::{CLIENTS, FREE_BOUNCES};
pub use network::{ExtraFaults, LinkCut};
pub use record::{
    Answer, AnswerKind, Attempt, Bad, Belief, End, Example, Loss, Misbehaviour, Moment, Note, Operation, Record,
    Request, Traffic, Volume,
};

use clients::Clients;
use leadership::{Change, Leadership, index_of};
use network::{Fate, Network, random_majority};

/// The rules of the emulated LAN, as a state machine.
#[derive(Debug, Clone)]
pub struct Emulation {
    record: Record,
    agenda: BTreeMap<(Duration, u64), Task>,
    tasks_made: u64,
    alive: Vec<bool>,
    clients: Clients,
    network: Network,
    leadership: Leadership,
    random: Random,
    /// The index of the attempt with each `MID`, by client.
    by_mid: BTreeMap<String, BTreeMap<usize, usize>>,
    extra: ExtraFaults,
    now: Duration,
    counters: Counters,
}

/// Something that is scheduled for a certain time.
#[derive(Debug, Clone, Copy)]
enum Task {
    Event(EventKind),
    Kill(usize),
    LinksCut(usize),
    LinksHealed(usize),
    Create(u64),
    SendAgain(usize),
    End,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    done: u64,
    fails: u64,
    redirects: u64,
}

/// What a driver must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes to a replica as one message.
    Deliver {
        /// The replica.
        to: usize,
        /// The message: a client's, or exactly what another replica sent.
        bytes: Bytes,
        /// Whether a client sent it.
        from_client: bool,
    },
    /// Kill a replica's process. The driver need not report its death.
    Kill {
        /// The replica.
        replica: usize,
    },
    /// Something happened that a user may want to see now; nothing else to do.
    Note(Note),
}

/// The progress of a run, for a live display.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The time of the last input.
    pub time: Duration,
    /// When the run is planned to end.
    pub duration: Duration,
    /// Requests created so far.
    pub created: u64,
    /// All requests of the scenario.
    pub requests: u64,
    /// Requests that are done.
    pub answered: u64,
    /// Requests that are created but not done.
    pub outstanding: u64,
    /// `fail` answers.
    pub fails: u64,
    /// `redirect` answers.
    pub redirects: u64,
    /// Messages between replicas.
    pub messages: u64,
    /// Cases of misbehaviour of any kind.
    pub misbehaviour: u64,
    /// The leader, see the [module](self).
    pub leader: Option<LanId>,
    /// Whether the network is cut anywhere.
    pub cut: bool,
    /// The number of living replicas.
    pub alive: usize,
}

impl Emulation {
    /// A run that has not begun. `seed` decides everything random. The scenario's own `seed` is
    /// ignored: the driver chooses.
    ///
    /// The replicas' ids are `0000`, `0001` and so on; the clients' ids follow.
    pub fn new(scenario: Scenario, seed: u64, extra: ExtraFaults) -> Emulation {
        let replicas = scenario.replicas;
        let ids = |range: std::ops::Range<usize>| -> Vec<LanId> {
            // At most 29 ids are used.
            range.map(|n| LanId::from_value(n as u16)).collect()
        };
        let mut emulation = Emulation {
            agenda: BTreeMap::new(),
            tasks_made: 0,
            alive: vec![true; replicas],
            clients: Clients::new(scenario.mix, Random::stream(seed, 1)),
            network: Network::new(scenario.drops, Random::stream(seed, 2), &extra),
            leadership: Leadership::new(replicas),
            random: Random::stream(seed, 3),
            by_mid: BTreeMap::new(),
            now: Duration::ZERO,
            counters: Counters::default(),
            extra,
            record: Record {
                seed,
                replica_ids: ids(0..replicas),
                client_ids: ids(replicas..replicas + CLIENTS),
                end: None,
                ended_at: Duration::ZERO,
                requests: Vec::new(),
                attempts: Vec::new(),
                traffic: Traffic { by_sender: vec![0; replicas], ..Traffic::default() },
                misbehaviour: Misbehaviour::default(),
                losses: Vec::new(),
                timeline: Vec::new(),
                beliefs: Vec::new(),
                scenario,
            },
        };
        emulation.plan();
        emulation
    }

    fn plan(&mut self) {
        let start = self.record.scenario.start_wait;
        for event in self.record.scenario.events.clone() {
            self.schedule(start + event.time, Task::Event(event.kind));
        }
        for (at, replica) in self.extra.kills.clone() {
            self.schedule(at, Task::Kill(replica));
        }
        for index in 0..self.extra.partitions.len() {
            let cut = &self.extra.partitions[index];
            let (from, until) = (cut.from, cut.until);
            self.schedule(from, Task::LinksCut(index));
            self.schedule(until, Task::LinksHealed(index));
        }
        self.schedule(self.record.scenario.request_time(0), Task::Create(0));
        self.schedule(self.record.scenario.duration(), Task::End);
    }

    /// The replicas' ids. Everywhere else, a replica is an index into this list.
    pub fn replica_ids(&self) -> &[LanId] {
        &self.record.replica_ids
    }

    /// Whether a replica was neither killed nor died by itself.
    pub fn is_alive(&self, replica: usize) -> bool {
        self.alive.get(replica).is_some_and(|alive| *alive)
    }

    /// The latest time for the next call of [`Emulation::wake`]; `None` when the run is finished.
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.finished() {
            return None;
        }
        self.agenda.keys().next().map(|(at, _)| *at)
    }

    /// Performs everything that is due by `now`.
    ///
    /// Time never runs backwards: if `now` is earlier than before, the earlier call's time counts.
    pub fn wake(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.now = self.now.max(now);
        while !self.finished() {
            match self.agenda.first_entry() {
                Some(entry) if entry.key().0 <= self.now => {
                    let task = entry.remove();
                    self.perform(task, out);
                }
                _ => break,
            }
        }
    }

    fn perform(&mut self, task: Task, out: &mut Vec<Action>) {
        match task {
            Task::Event(kind) => self.event(kind, out),
            Task::Kill(replica) => self.kill(replica, out),
            Task::LinksCut(index) => {
                let links = self.extra.partitions[index].blocked.len();
                self.clients.forget_leaders();
                self.note(Note::LinksCut { index, links }, out);
            }
            Task::LinksHealed(index) => self.note(Note::LinksHealed { index }, out),
            Task::Create(number) => self.create(number, out),
            Task::SendAgain(request) => self.send(request, out),
            Task::End => self.end(End::Completed, out),
        }
    }

    /// Handles a raw message that a replica sent. Messages to other replicas are forwarded byte for
    /// byte. Everything that is due by `now` happens first.
    pub fn receive(&mut self, now: Duration, from: usize, raw: &[u8], out: &mut Vec<Action>) {
        self.receive_read(now, from, raw, Envelope::peek(raw), out);
    }

    /// Like [`Emulation::receive`], but for a message whose header the driver has already read with
    /// [`Envelope::peek`].
    pub fn receive_read(
        &mut self,
        now: Duration,
        from: usize,
        raw: &[u8],
        header: Result<Header<'_>, MessageError>,
        out: &mut Vec<Action>,
    ) {
        self.wake(now, out);
        if self.finished() || from >= self.alive.len() {
            return;
        }
        if !self.alive[from] {
            self.record.traffic.from_the_dead += 1;
            return;
        }
        match header {
            Ok(header) => self.route(from, &header, raw, out),
            Err(error) if error.is_too_long() => {
                self.bad(from, Bad::Oversized, || error.to_string(), out);
            }
            Err(error) => self.bad(from, Bad::Unparsable, || error.to_string(), out),
        }
        self.end_if_flooded(out);
    }

    fn route(&mut self, from: usize, header: &Header<'_>, raw: &[u8], out: &mut Vec<Action>) {
        let own = self.record.replica_ids[from];
        if header.src != own {
            let detail = || format!("src is {} instead of {own}", header.src);
            return self.bad(from, Bad::WrongSource, detail, out);
        }
        self.believe(from, header.leader, out);
        if header.kind == "hello" {
            self.record.traffic.hellos += 1;
        } else if header.dst.is_broadcast() {
            let raw = Bytes::copy_from_slice(raw);
            for to in (0..self.alive.len()).filter(|&to| to != from) {
                self.forward(from, to, &header.kind, &raw, out);
            }
        } else if header.dst == own {
            let detail = || format!("a {:?}", shorten(&header.kind));
            self.bad(from, Bad::ToItself, detail, out);
        } else if let Some(to) = index_of(&self.record.replica_ids, header.dst) {
            let raw = Bytes::copy_from_slice(raw);
            self.forward(from, to, &header.kind, &raw, out);
        } else if let Some(client) = index_of(&self.record.client_ids, header.dst) {
            self.reply(from, client, raw, out);
        } else {
            let detail = || format!("dst is {}", header.dst);
            self.bad(from, Bad::UnknownDestination, detail, out);
        }
    }

    /// Forwards one copy of a message from one replica to another.
    fn forward(&mut self, from: usize, to: usize, kind: &str, raw: &Bytes, out: &mut Vec<Action>) {
        self.count(from, kind, raw.len() as u64);
        let fate = self.network.fate(self.now, from, to);
        let traffic = &mut self.record.traffic;
        if !self.alive[to] {
            traffic.to_the_dead += 1;
            return;
        }
        match fate {
            Fate::Lost => traffic.lost += 1,
            Fate::Cut => traffic.cut += 1,
            Fate::Arrives => out.push(Action::Deliver { to, bytes: raw.clone(), from_client: false }),
        }
    }

    fn count(&mut self, from: usize, kind: &str, bytes: u64) {
        let traffic = &mut self.record.traffic;
        let known = traffic.by_kind.len() < Traffic::MAX_KINDS || traffic.by_kind.contains_key(kind);
        let kind = if known { kind } else { "(other)" };
        if !traffic.by_kind.contains_key(kind) {
            traffic.by_kind.insert(kind.to_owned(), Volume::default());
        }
        for volume in [Some(&mut traffic.sent), traffic.by_kind.get_mut(kind)].into_iter().flatten() {
            volume.messages += 1;
            volume.bytes += bytes;
        }
        traffic.by_sender[from] += 1;
        let second = self.now.as_secs() as usize;
        // A run lasts two days at most, so this list stays short.
        if traffic.per_second.len() <= second {
            traffic.per_second.resize(second + 1, 0);
        }
        traffic.per_second[second] += 1;
    }

    /// Handles a message from a replica to a client.
    fn reply(&mut self, from: usize, client: usize, raw: &[u8], out: &mut Vec<Action>) {
        let envelope = match Envelope::parse(raw) {
            Ok(envelope) => envelope,
            Err(error) => return self.bad(from, Bad::Unparsable, || error.to_string(), out),
        };
        let (mid, outcome) = match envelope.content {
            Content::Ok { mid, value } => (mid, AnswerKind::Ok { value }),
            Content::Redirect { mid } => (mid, AnswerKind::Redirect),
            Content::Fail { mid, error } => {
                let error = error.map(|error| one_line(&error));
                (mid, AnswerKind::Fail { error })
            }
            other => {
                let detail = || format!("a {:?}", shorten(other.kind()));
                return self.bad(from, Bad::NoReply, detail, out);
            }
        };
        let about = || format!("MID {:?}", shorten(&mid));
        let Some(attempts) = self.by_mid.get(&mid) else {
            return self.bad(from, Bad::UnknownMid, about, out);
        };
        let Some(&attempt) = attempts.get(&client) else {
            return self.bad(from, Bad::WrongClient, about, out);
        };
        let asked = &self.record.attempts[attempt];
        if asked.answer.is_some() {
            return self.bad(from, Bad::Duplicate, about, out);
        }
        if asked.to != Some(from) {
            self.bad(from, Bad::ForeignMid, about, out);
        }
        self.answer(from, attempt, envelope.leader, outcome, out);
    }

    /// Handles the first answer to an attempt.
    fn answer(&mut self, from: usize, attempt: usize, leader: LanId, outcome: AnswerKind, out: &mut Vec<Action>) {
        let leader = index_of(&self.record.replica_ids, leader);
        self.record.attempts[attempt].answer =
            Some(Answer { at: self.now, by: from, leader, outcome: outcome.clone() });
        let index = self.record.attempts[attempt].request;
        self.clients.learn_leader(self.record.requests[index].client, leader);
        match outcome {
            AnswerKind::Ok { value } => self.done(from, index, value, out),
            AnswerKind::Redirect => {
                self.counters.redirects += 1;
                self.bounced(index, out);
            }
            AnswerKind::Fail { .. } => {
                self.counters.fails += 1;
                self.bounced(index, out);
            }
        }
    }

    fn done(&mut self, from: usize, index: usize, value: Option<String>, out: &mut Vec<Action>) {
        self.counters.done += 1;
        self.leadership.answered_ok(from);
        self.see_leader(out);
        let request = &mut self.record.requests[index];
        request.done = Some(self.now);
        match &request.value {
            Some(written) => self.clients.acknowledge(request.client, &request.key, written),
            None => {
                let expected = self.clients.acknowledged(request.client, &request.key);
                request.expected = expected.map(str::to_owned);
                if value.is_none() {
                    let key = request.key.clone();
                    self.bad(from, Bad::MissingValue, || format!("key {key:?}"), out);
                }
            }
        }
    }

    fn bounced(&mut self, index: usize, out: &mut Vec<Action>) {
        let request = &mut self.record.requests[index];
        request.bounces += 1;
        let pause = clients::pause(request.bounces);
        if pause.is_zero() {
            self.send(index, out);
        } else {
            self.schedule(self.now + pause, Task::SendAgain(index));
        }
    }

    /// Handles that a replica's process ended, or closed its socket, by itself. The replica counts as
    /// dead from now on, and clients forget their leader, as after a kill. `why` is for people and is
    /// shortened to one line. Everything that is due by `now` happens first.
    pub fn replica_died(&mut self, now: Duration, replica: usize, why: String, out: &mut Vec<Action>) {
        self.wake(now, out);
        if self.finished() || !self.is_alive(replica) {
            return;
        }
        let id = self.record.replica_ids[replica];
        let why = one_line(&why);
        self.lose(replica, Some(why.clone()));
        self.note(Note::Died { replica: id, why }, out);
        self.see_leader(out);
        if !self.alive.contains(&true) {
            self.end(End::NoReplicaLeft, out);
        }
    }

    /// Whether the run is over. Then every input is ignored.
    pub fn finished(&self) -> bool {
        self.record.end.is_some()
    }

    /// The progress of the run.
    pub fn progress(&self) -> Progress {
        let created = self.record.requests.len() as u64;
        let leader = self.leadership.leader(&self.alive);
        Progress {
            time: self.now,
            duration: self.record.scenario.duration(),
            created,
            requests: self.record.scenario.requests,
            answered: self.counters.done,
            outstanding: created - self.counters.done,
            fails: self.counters.fails,
            redirects: self.counters.redirects,
            messages: self.record.traffic.sent.messages,
            misbehaviour: self.record.misbehaviour.counts.values().sum(),
            leader: leader.map(|leader| self.record.replica_ids[leader]),
            cut: self.network.is_cut(self.now),
            alive: self.alive.iter().filter(|alive| **alive).count(),
        }
    }

    /// Everything that happened, for judging and reporting.
    pub fn into_record(mut self) -> Record {
        if !self.finished() {
            self.record.ended_at = self.now;
        }
        self.record
    }

    fn create(&mut self, number: u64, out: &mut Vec<Action>) {
        let next = number + 1;
        if next < self.record.scenario.requests {
            let at = self.record.scenario.request_time(next);
            self.schedule(at, Task::Create(next));
        }
        let request = self.clients.invent(self.now);
        self.record.requests.push(request);
        self.send(self.record.requests.len() - 1, out);
    }

    /// Sends a request under a new `MID`.
    fn send(&mut self, index: usize, out: &mut Vec<Action>) {
        let request = &self.record.requests[index];
        let known = self.clients.leader(request.client, &self.alive);
        let to = self.clients.target(request.client, &self.alive);
        let mid = loop {
            let mid = self.clients.new_mid(request.client, self.extra.same_mids);
            if self.extra.same_mids || !self.by_mid.contains_key(&mid) {
                break mid;
            }
        };
        if let Some(to) = to {
            let (mid, key) = (mid.clone(), request.key.clone());
            let ids = &self.record.replica_ids;
            let envelope = Envelope {
                src: self.record.client_ids[request.client],
                dst: ids[to],
                leader: known.map_or(LanId::BROADCAST, |leader| ids[leader]),
                content: match request.value.clone() {
                    Some(value) => Content::Put { mid, key, value },
                    None => Content::Get { mid, key },
                },
                spelled_dest: false,
            };
            out.push(Action::Deliver { to, bytes: envelope.encode().into(), from_client: true });
        }
        self.by_mid.entry(mid.clone()).or_default().insert(request.client, self.record.attempts.len());
        self.record.attempts.push(Attempt { mid, request: index, to, sent: self.now, answer: None });
    }

    fn event(&mut self, kind: EventKind, out: &mut Vec<Action>) {
        let leader = self.leadership.leader(&self.alive);
        match kind {
            EventKind::KillLeader => {
                if let Some(victim) = leader.or_else(|| self.random_living(None)) {
                    self.kill(victim, out);
                }
            }
            EventKind::KillNonLeader => {
                if let Some(victim) = self.random_living(leader) {
                    self.kill(victim, out);
                }
            }
            EventKind::PartEasy => {
                let side = random_majority(&mut self.random, &self.alive, leader);
                self.split(kind, side, out);
            }
            EventKind::PartHard => {
                self.clients.forget_leaders();
                let side = random_majority(&mut self.random, &self.alive, None);
                self.split(kind, side, out);
            }
            EventKind::PartEnd => {
                if self.network.heal() {
                    self.note(Note::Healed, out);
                }
            }
        }
    }

    fn split(&mut self, event: EventKind, side: BTreeSet<usize>, out: &mut Vec<Action>) {
        let ids = self.record.replica_ids.iter().copied().enumerate();
        let (majority, rest): (Vec<_>, Vec<_>) = ids.partition(|(r, _)| side.contains(r));
        let ids = |side: Vec<(usize, LanId)>| side.into_iter().map(|(_, id)| id).collect();
        let note = Note::Cut { event, majority: ids(majority), rest: ids(rest) };
        self.network.split(side);
        self.note(note, out);
    }

    fn random_living(&mut self, except: Option<usize>) -> Option<usize> {
        let candidates: Vec<usize> =
            (0..self.alive.len()).filter(|&replica| self.alive[replica] && Some(replica) != except).collect();
        self.random.pick(&candidates).copied()
    }

    fn kill(&mut self, replica: usize, out: &mut Vec<Action>) {
        if !self.is_alive(replica) {
            return;
        }
        let leader = self.leadership.leader(&self.alive) == Some(replica);
        self.lose(replica, None);
        out.push(Action::Kill { replica });
        let replica = self.record.replica_ids[replica];
        self.note(Note::Killed { replica, leader }, out);
        self.see_leader(out);
    }

    fn lose(&mut self, replica: usize, died_by_itself: Option<String>) {
        self.alive[replica] = false;
        self.clients.forget_leaders();
        self.record.losses.push(Loss { replica, at: self.now, died_by_itself });
    }

    /// Handles the leader that a replica's message names.
    fn believe(&mut self, replica: usize, leader: LanId, out: &mut Vec<Action>) {
        let leader = index_of(&self.record.replica_ids, leader);
        if !self.leadership.names(replica, leader) {
            return;
        }
        if self.record.beliefs.len() < Record::MAX_BELIEFS {
            self.record.beliefs.push(Belief { at: self.now, replica, leader });
        }
        self.see_leader(out);
    }

    fn see_leader(&mut self, out: &mut Vec<Action>) {
        let ids = &self.record.replica_ids;
        let note = match self.leadership.update(&self.alive) {
            Change::Nothing => return,
            Change::First(leader) => Note::FirstLeader { leader: ids[leader] },
            Change::Another { from, to } => Note::LeaderChanged { from: ids[from], to: ids[to] },
        };
        self.note(note, out);
    }

    fn bad(&mut self, replica: usize, bad: Bad, detail: impl FnOnce() -> String, out: &mut Vec<Action>) {
        let misbehaviour = &mut self.record.misbehaviour;
        misbehaviour.add(self.now, replica, bad, detail);
        if misbehaviour.count(bad) == 1 {
            let example = misbehaviour.examples.last().expect("the first is kept");
            let note =
                Note::Misbehaved { replica: self.record.replica_ids[replica], bad, detail: example.detail.clone() };
            self.note(note, out);
        }
    }

    fn end_if_flooded(&mut self, out: &mut Vec<Action>) {
        if self.finished() {
            return;
        }
        let most = self.record.scenario.max_packets;
        let useless = self.record.misbehaviour.useless() + self.record.traffic.hellos;
        if self.record.traffic.sent.messages > most {
            self.end(End::MessageStorm, out);
        } else if useless > most {
            self.end(End::Flood, out);
        }
    }

    fn end(&mut self, end: End, out: &mut Vec<Action>) {
        self.record.end = Some(end);
        self.record.ended_at = self.now;
        self.note(Note::Ended { end }, out);
    }

    fn note(&mut self, note: Note, out: &mut Vec<Action>) {
        if self.record.timeline.len() < Record::MAX_NOTES {
            self.record.timeline.push(Moment { at: self.now, note: note.clone() });
        }
        out.push(Action::Note(note));
    }

    fn schedule(&mut self, at: Duration, task: Task) {
        self.agenda.insert((at, self.tasks_made), task);
        self.tasks_made += 1;
    }
}

/// Untrusted text as one line of at most 200 characters, without control characters, which could
/// confuse a terminal.
fn one_line(text: &str) -> String {
    let printable = |character: char| match character.is_control() {
        true => ' ',
        false => character,
    };
    text.trim().chars().map(printable).take(200).collect()
}

#[cfg(test)]
mod tests;
