//! What strikes: each kind of fault at its own rhythm, aimed at leaders more often than chance would.

use bowline_node::{NodeInput, NodeMessage};
use bowline_raft::{Body, Index, Message, NodeId, Position, Term};

use crate::world::ambush::Succession;
use crate::world::clock::Moment;
use crate::world::coverage::Fault;
use crate::world::disk::Rot;
use crate::world::host::Asker;
use crate::world::network::Link;
use crate::world::oracle::Rule;
use crate::world::plan::{MILLI, SECOND};
use crate::world::stage::{Event, World};

/// The end of something that struck, or its next turn.
#[derive(Debug)]
pub(crate) struct Mend {
    epoch: u32,
    what: Mending,
}

#[derive(Debug)]
pub(crate) enum Mending {
    Links(Vec<Link>),
    Clients(usize),
    Wide(Link),
    /// A link goes up and down until then.
    Flap {
        link: Link,
        cut: bool,
        until: Moment,
    },
    /// The replica is cut off next.
    Cut(Vec<Link>),
    /// It crashes again, so many times.
    CrashAgain {
        host: usize,
        left: u64,
    },
    Succession(Succession),
    /// There is room on the disk again.
    Room(usize),
    /// The operator thinks better of a change.
    Regret,
    /// It looks for someone midway, so many times more.
    Midway {
        fault: Fault,
        left: u32,
    },
}

/// What no stranger's word may change.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    term: Term,
    voted_for: Option<NodeId>,
    leads: bool,
    leader: Option<NodeId>,
    last: Position,
    commit: Index,
}

/// Strikes.
impl World<'_> {
    pub(crate) fn strike(&mut self, fault: Fault) {
        if !self.may_strike() {
            return;
        }
        let mean = self.plan.faults.iter().find(|(kind, _)| *kind == fault).map_or(SECOND, |(_, mean)| *mean);
        let (mut dice, strikes) = self.script.next_strike(fault);
        let next = self.now + MILLI + dice.waiting(mean);
        self.queue.push(next, Event::Strike(fault));
        if strikes {
            // Chance of its own: leaving this strike out changes no other.
            let usual = std::mem::replace(&mut self.chances.nemesis, dice);
            self.strike_now(fault);
            self.chances.nemesis = usual;
        }
    }

    fn strike_now(&mut self, fault: Fault) {
        let struck = match fault {
            Fault::Isolate | Fault::OneWay | Fault::Bridge | Fault::Links => self.strike_links(fault),
            Fault::Flap | Fault::Swizzle | Fault::Narrow | Fault::ClientCut => self.strike_network(fault),
            Fault::Crash | Fault::CrashInside | Fault::CrashLoop | Fault::PowerLoss | Fault::Retune => {
                self.strike_process(fault)
            }
            Fault::CrashInTransfer | Fault::CrashInChange => {
                self.later(self.now, Mending::Midway { fault, left: 40 });
                false
            }
            Fault::Succession | Fault::OldMail | Fault::CutHandover => self.strike_from_ambush(fault),
            Fault::Pause | Fault::Suspend => self.strike_pause(fault == Fault::Suspend),
            Fault::SyncError
            | Fault::DiskFull
            | Fault::SlowDisk
            | Fault::Wipe
            | Fault::RottenLog
            | Fault::RottenSnapshot
            | Fault::RottenVote
            | Fault::ReadError
            | Fault::SlowApply => self.strike_disk(fault),
            Fault::Drift | Fault::WildClock => self.strike_clock(fault),
            Fault::Stranger => self.strike_stranger(),
            Fault::OldImage => self.strike_image(),
            Fault::Handover => self.hand_over(),
            Fault::Churn | Fault::EarlyPromotion | Fault::Rejoin | Fault::RemoveMany | Fault::RemovedLives => {
                self.strike_membership(fault)
            }
            Fault::Huge => {
                self.clients.huge = true;
                false
            }
            _ => false,
        };
        // What strikes only later is counted when it does.
        if struck {
            self.coverage.struck(fault);
        }
    }

    /// A replica, the leader in every other case.
    fn victim(&mut self) -> usize {
        match self.leading.last() {
            Some(leader) if self.chances.nemesis.percent(50) => *leader,
            _ => self.chances.nemesis.index(self.hosts.len()),
        }
    }

    pub(crate) fn span(&mut self) -> Moment {
        let election = self.plan.settings.election_max;
        self.chances.nemesis.magnitude(election / 8, election * 12)
    }

    pub(crate) fn later(&mut self, at: Moment, what: Mending) {
        let epoch = self.epoch;
        self.queue.push(at, Event::Mend(Box::new(Mend { epoch, what })));
    }

    fn strike_links(&mut self, fault: Fault) -> bool {
        let count = self.hosts.len();
        let victim = self.victim();
        let dice = &mut self.chances.nemesis;
        let deaf = dice.percent(50);
        let bridge = dice.percent(50).then(|| dice.index(count));
        let side: Vec<bool> = (0..count).map(|_| dice.percent(50)).collect();
        let mut links = Vec::new();
        for from in 0..count {
            for to in (0..count).filter(|to| *to != from) {
                let cut = match fault {
                    Fault::Isolate => from == victim || to == victim,
                    Fault::OneWay => (deaf && to == victim) || (!deaf && from == victim),
                    Fault::Bridge => side[from] != side[to] && bridge != Some(from) && bridge != Some(to),
                    _ => dice.percent(25),
                };
                if cut {
                    links.push((from, to));
                }
            }
        }
        self.cut_for_a_while(fault, links);
        true
    }

    fn cut_for_a_while(&mut self, fault: Fault, links: Vec<Link>) {
        let until = self.now + self.span();
        self.tell(None, || format!("CUT ({}): {}", fault.title(), list(&links)));
        self.network.cut(&links);
        self.later(until, Mending::Links(links));
    }

    fn strike_network(&mut self, fault: Fault) -> bool {
        let (victim, other) = (self.victim(), self.chances.nemesis.index(self.hosts.len()));
        let until = self.now + self.span();
        match fault {
            Fault::Flap => self.later(self.now, Mending::Flap { link: (victim, other), cut: false, until }),
            Fault::ClientCut => {
                self.tell(Some(victim), || "CUT from all clients".to_owned());
                self.network.cut_clients(victim, true);
                self.later(until, Mending::Clients(victim));
            }
            Fault::Narrow => {
                let bytes_per_milli = self.chances.nemesis.magnitude(2, 200) as u32;
                self.tell(Some(victim), || format!("its link to n{} takes {bytes_per_milli} kB/s", other + 1));
                self.network.narrow((victim, other), bytes_per_milli);
                self.later(until, Mending::Wide((victim, other)));
            }
            _ => self.swizzle(),
        }
        true
    }

    /// Cuts a random part of the replicas off, one after the other, and brings them back in another
    /// order.
    fn swizzle(&mut self) {
        let count = self.hosts.len();
        let mut part: Vec<usize> = (0..count).filter(|_| self.chances.nemesis.percent(60)).collect();
        let mut at = self.now;
        for host in &part {
            self.later(at, Mending::Cut(around(*host, count)));
            at += self.span() / 4;
        }
        self.chances.nemesis.shuffle(&mut part);
        for host in part {
            at += self.span() / 4;
            self.later(at, Mending::Links(around(host, count)));
        }
    }

    fn strike_process(&mut self, fault: Fault) -> bool {
        let victim = self.victim();
        match fault {
            Fault::PowerLoss => {
                self.tell(None, || "POWER LOSS".to_owned());
                for host in 0..self.hosts.len() {
                    self.crash(host, true);
                    self.restart_soon(host);
                }
            }
            Fault::CrashInside => {
                let after = self.chances.nemesis.below(12);
                self.hosts[victim].crash_in.get_or_insert(after);
                return false;
            }
            Fault::CrashLoop => {
                let left = self.chances.nemesis.between(2, 20);
                self.later(self.now, Mending::CrashAgain { host: victim, left });
            }
            _ => {
                self.hosts[victim].own_ways |= fault == Fault::Retune;
                let power = self.chances.nemesis.percent(60);
                let ran = self.hosts[victim].is_up();
                self.crash(victim, power);
                self.restart_soon(victim);
                return ran;
            }
        }
        true
    }

    /// Plans a restart, mostly soon.
    pub(crate) fn restart_soon(&mut self, host: usize) {
        let span = match self.chances.nemesis.below(4) {
            0 => self.chances.nemesis.below(5 * MILLI),
            1 => self.chances.nemesis.magnitude(100 * MILLI, 10 * SECOND),
            _ => self.chances.nemesis.magnitude(MILLI, SECOND),
        };
        if self.chances.nemesis.percent(30) {
            // The machine starts anew, and so does its clock.
            self.set_clock(host);
        }
        self.queue.push(self.now + span, Event::Start { host });
    }

    /// Crashes someone while a snapshot travels or is stored, or while the membership changes.
    fn strike_midway(&mut self, fault: Fault) -> bool {
        let midway: Vec<usize> = (0..self.hosts.len())
            .filter(|host| {
                let it = &self.hosts[*host];
                let Some(node) = &it.node else { return false };
                match fault {
                    Fault::CrashInTransfer => it.disk.is_storing() || node.is_in_transfer(),
                    _ => node.raft().membership().is_joint(),
                }
            })
            .collect();
        match self.chances.nemesis.pick(&midway) {
            // What it does with a state's file is done at once: only the disk can break it off.
            Some(host) if self.plan.disk.kept && self.chances.nemesis.percent(60) => {
                self.hosts[host].disk.die_soon(&mut self.chances.nemesis);
                true
            }
            Some(host) => {
                self.crash(host, true);
                self.restart_soon(host);
                true
            }
            None => false,
        }
    }

    fn strike_pause(&mut self, suspend: bool) -> bool {
        let (victim, span) = (self.victim(), self.span());
        let runs = self.hosts[victim].is_up() && !self.hosts[victim].paused;
        self.pause(victim, span, suspend && self.plan.clocks != crate::world::plan::Clocks::True);
        runs
    }

    fn strike_disk(&mut self, fault: Fault) -> bool {
        let victim = self.victim();
        match fault {
            Fault::SyncError => {
                self.hosts[victim].fail_sync = true;
                return false;
            }
            Fault::DiskFull => {
                let more = self.chances.nemesis.below(self.plan.storage.segment_bytes * 2);
                self.tell(Some(victim), || format!("its disk takes {more} bytes more, and is full then"));
                self.limit_disk(victim, Some(more));
                let until = self.now + self.span();
                self.later(until, Mending::Room(victim));
            }
            Fault::SlowDisk => {
                self.hosts[victim].slow_until = self.now + self.span();
                self.tell(Some(victim), || "its disk is slow".to_owned());
            }
            Fault::SlowApply => {
                self.hosts[victim].busy_until = self.now + self.span();
                return false;
            }
            Fault::ReadError => {
                self.hosts[victim].unreadable = 1 + self.chances.nemesis.index(4);
                self.crash(victim, true);
                self.restart_soon(victim);
                return false;
            }
            Fault::RottenLog => return self.rot(victim, Rot::Log),
            Fault::RottenSnapshot => return self.rot(victim, Rot::Snapshot),
            Fault::RottenVote => return self.rot(victim, Rot::Vote),
            _ => return self.wipe(victim),
        }
        true
    }

    fn strike_clock(&mut self, fault: Fault) -> bool {
        let victim = self.chances.nemesis.index(self.hosts.len());
        let bound = i64::from(self.plan.settings.drift_ppm);
        let it = &mut self.hosts[victim];
        if fault == Fault::Drift {
            let gains = if self.chances.nemesis.percent(50) { bound } else { -bound };
            it.clock.retune(self.now, gains);
        } else {
            let gains = self.chances.nemesis.between(0, 800_000) as i64 - 400_000;
            it.clock.retune(self.now, gains);
            if self.chances.nemesis.percent(50) {
                let by = self.chances.nemesis.magnitude(MILLI, 3_600 * SECOND);
                it.clock.jump(self.now, by);
                self.keepers.leapt(self.now, by);
            }
        }
        self.tell(Some(victim), || "its clock changes".to_owned());
        if !self.hosts[victim].paused {
            self.hosts[victim].wake_at = Moment::MAX;
            self.reschedule(victim);
        }
        true
    }

    /// Someone who is no member of anything speaks to a replica.
    fn strike_stranger(&mut self) -> bool {
        let victim = self.victim();
        let Some(node) = &self.hosts[victim].node else { return false };
        if self.hosts[victim].paused {
            return false;
        }
        let (term, last) = (node.raft().term(), node.raft().log().last());
        let dice = &mut self.chances.nemesis;
        let term = Term(term.0.saturating_sub(dice.below(2)));
        let last = if dice.percent(50) { last } else { Position::ORIGIN };
        let body = match dice.below(3) {
            0 => Body::PreVote { last },
            1 => Body::PreVoteReply { granted: true },
            _ => Body::RequestVoteReply { granted: true },
        };
        let message = NodeMessage::Raft(Message { term, body });
        let mut from = NodeId(1_000 + dice.below(3));
        if self.plan.sabotage == Some(crate::world::Sabotage::TrustedStrangers) {
            from = NodeId(1 + from.0 % self.plan.voters as u64);
        }
        self.tell(Some(victim), || format!("<- {from}, a stranger: {}", crate::world::story::describe(&message)));
        let before = self.standing(victim).filter(|_| !self.is_due(victim));
        self.step(victim, NodeInput::Receive { from, message });
        // It may have crashed in this step.
        if let Some((before, after)) = before.zip(self.standing(victim))
            && before != after
        {
            let what = format!("n{} has changed by a word of someone who is no member", victim + 1);
            self.judge(Err((Rule::StrangersChangeNothing, what)));
        }
        true
    }

    /// Whether something may change by itself in the next step.
    fn is_due(&self, host: usize) -> bool {
        let it = &self.hosts[host];
        it.node.as_ref().is_some_and(|node| node.next_deadline() <= it.clock.shows(self.now))
    }

    /// What no stranger may change.
    fn standing(&self, host: usize) -> Option<Standing> {
        let raft = self.hosts[host].node.as_ref()?.raft();
        Some(Standing {
            term: raft.term(),
            voted_for: raft.voted_for(),
            leads: raft.is_leader(),
            leader: raft.leader(),
            last: raft.log().last(),
            commit: raft.commit_index(),
        })
    }

    pub(crate) fn hand_over(&mut self) -> bool {
        let Some(leader) = self.leading.last().copied().filter(|host| !self.hosts[*host].paused) else { return false };
        let to = self.any_target();
        let token = self.hosts[leader].token(Asker::Operator);
        self.tell(Some(leader), || format!("is told to hand over to {to:?}"));
        self.step(leader, NodeInput::TransferLeadership { token, to });
        true
    }
}

/// Ends.
impl World<'_> {
    pub(crate) fn mend(&mut self, mend: Mend) {
        if mend.epoch != self.epoch {
            return;
        }
        match mend.what {
            Mending::Links(links) => {
                self.tell(None, || format!("healed: {}", list(&links)));
                self.network.heal(&links);
            }
            Mending::Cut(links) => {
                self.tell(None, || format!("CUT: {}", list(&links)));
                self.network.cut(&links);
            }
            Mending::Clients(host) => self.network.cut_clients(host, false),
            Mending::Room(host) => self.limit_disk(host, None),
            Mending::Wide(link) => self.network.narrow(link, 0),
            Mending::Flap { link, cut, until } => self.flap(link, cut, until),
            Mending::CrashAgain { host, left } => {
                self.crash(host, true);
                self.start(host);
                if left > 0 {
                    let at = self.now + self.chances.nemesis.magnitude(MILLI / 10, 20 * MILLI);
                    self.later(at, Mending::CrashAgain { host, left: left - 1 });
                }
            }
            Mending::Succession(succession) => self.go_on_succeeding(succession),
            Mending::Regret => self.regret(),
            Mending::Midway { fault, left } => self.wait_for_midway(fault, left),
        }
    }

    /// Looks again and again for someone to crash midway.
    fn wait_for_midway(&mut self, fault: Fault, left: u32) {
        if self.strike_midway(fault) {
            self.coverage.struck(fault);
        } else if left > 0 {
            let at = self.now + self.plan.settings.heartbeat / 4;
            self.later(at, Mending::Midway { fault, left: left - 1 });
        }
    }

    fn flap(&mut self, link: Link, cut: bool, until: Moment) {
        let both = [link, (link.1, link.0)];
        match cut {
            true => self.network.heal(&both),
            false if self.now < until => self.network.cut(&both),
            false => return,
        }
        let at = self.now + self.chances.nemesis.magnitude(10 * MILLI, 2 * SECOND);
        self.later(at, Mending::Flap { link, cut: !cut, until });
    }
}

/// Every link from and to a replica.
pub(crate) fn around(host: usize, count: usize) -> Vec<Link> {
    (0..count).filter(|other| *other != host).flat_map(|other| [(host, other), (other, host)]).collect()
}

fn list(links: &[Link]) -> String {
    let shown: Vec<String> = links.iter().take(12).map(|(from, to)| format!("n{}>n{}", from + 1, to + 1)).collect();
    let more = if links.len() > 12 { format!(" and {} more", links.len() - 12) } else { String::new() };
    format!("{}{more}", shown.join(" "))
}
