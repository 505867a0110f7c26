//! What a host does on its own, as a server does it: it publishes its own record; while it leads, it takes the steps
//! from the records of the members to the configuration, and compacts old revisions. What is to be done, production
//! code decides ([`bowline_kv::membership`], [`bowline_kv::compaction`]). So it does for the comparison of the members'
//! states: the leader writes marks, and each host reports. A report of a state that differs would raise an alarm, which
//! the judge does not expect.

use std::sync::Arc;
use std::time::Duration;

use bowline_kv::compaction::{Retention, Schedule};
use bowline_kv::membership::{Attempts, Next, RETRY, SINCE_VERSION, Step, must_publish, next, takes_steps};
use bowline_kv::store::{
    Command, CompactionRequest, CompareRequest, CompareStep, KvError, Member, MemberChange, Members, Reports,
};
use bowline_node::{NodeInput, Response};
use bowline_raft::probe::{Probe, hit};
use bowline_raft::{Index, MembershipChange, NodeId, Time};

use crate::cluster::clock::Moment;
use crate::cluster::event::Event;
use crate::cluster::faults::Fault;
use crate::cluster::host::{Asker, Host};
use crate::cluster::members::{changed, is_done, own_record, url};
use crate::cluster::oracle::{Judged, Rule};
use crate::cluster::shape::reply_of;
use crate::cluster::system::System;

/// The rounds that keep a number of revisions come every five minutes. Here the time that the schedule is told runs so
/// many times faster.
const HURRY: u32 = 300;

/// What a host sees of its cluster: if it changes, there may be something to do.
#[derive(Clone, Debug)]
struct Seen {
    records: Arc<Members>,
    leads: bool,
    leader: Option<NodeId>,
    configured_at: Option<Index>,
    committed: bool,
    version: u32,
}

impl Seen {
    fn is_same_as(&self, other: &Seen) -> bool {
        let of = |seen: &Seen| (seen.leads, seen.leader, seen.configured_at, seen.committed, seen.version);
        Arc::ptr_eq(&self.records, &other.records) && of(self) == of(other)
    }
}

/// What a host has under way.
#[derive(Debug, Default)]
pub(crate) struct Duty {
    seen: Option<Seen>,
    /// It is about to look at the members.
    planned: bool,
    /// Its own record is on its way.
    publishing: bool,
    /// It is about to take a step of the comparison, or one is on its way.
    comparing: bool,
    reports: Reports,
    /// The step that waits for its outcome.
    waiting: Option<Step>,
    attempts: Attempts,
    /// When it compacts, while it leads in this term.
    compactor: Option<Compactor>,
}

#[derive(Debug)]
struct Compactor {
    term: u64,
    schedule: Schedule,
    /// The next round, by its clock.
    due: Time,
    /// The revisions of all rounds, with their times, to judge what is compacted.
    rounds: Vec<(Time, i64)>,
}

/// How long a server waits until it tries again.
pub(crate) fn retry() -> Moment {
    Moment::try_from(RETRY.as_nanos()).unwrap_or(Moment::MAX)
}

/// How much faster the time of a schedule runs.
fn hurry(retention: Retention) -> u32 {
    if matches!(retention, Retention::Revisions(_)) { HURRY } else { 1 }
}

impl Host {
    fn sees(&self) -> Option<Seen> {
        let node = self.node.as_ref()?;
        let (raft, machine) = (node.raft(), node.machine());
        let (records, version) = (machine.members()?, machine.cluster_version());
        let (leads, leader) = (raft.is_leader(), raft.leader());
        let (configured_at, committed) = (self.shadow.configured_at(), self.shadow.membership_is_committed());
        Some(Seen { records, leads, leader, configured_at, committed, version })
    }

    /// Whether the leader has a connection to a member: to any process that runs, even one that is paused or cut off,
    /// because a connection outlives that for a long time.
    fn has_connection(hosts: &[Host], from: NodeId, to: NodeId) -> bool {
        from == to || hosts.get(to.0 as usize - 1).is_some_and(Host::is_up)
    }
}

/// The members.
impl System<'_> {
    /// After a step of a host: if it sees other members, or another leader, it soon looks what it has to do.
    pub(crate) fn mind_duties(&mut self, host: usize) {
        let workload = &self.ctx.plan.workload;
        if workload.records {
            let Some(now) = self.hosts[host].sees() else { return };
            let before = self.hosts[host].duty.seen.replace(now.clone());
            if before.as_ref().is_none_or(|before| !before.is_same_as(&now)) {
                if now.leads && before.is_none_or(|before| !before.leads) {
                    self.look_for_unfinished_changes(host);
                }
                let after = self.members.dice.below(self.ctx.plan.settings.heartbeat / 8);
                self.plan_duty(host, after);
            }
        }
        if let Some(retention) = self.ctx.plan.workload.compaction {
            self.mind_compaction(host, retention);
        }
        if let Some(interval) = self.ctx.plan.workload.comparison {
            self.mind_comparison(host, interval);
        }
    }

    fn plan_duty(&mut self, host: usize, after: Moment) {
        let it = &mut self.hosts[host];
        if !std::mem::replace(&mut it.duty.planned, true) {
            let run = it.run;
            self.ctx.after(after, Event::Duty { host, run });
        }
    }

    /// A new leader may find records that the configuration does not follow yet.
    fn look_for_unfinished_changes(&self, host: usize) {
        if self.next_steps(host).iter().any(|step| matches!(step, Step::Configuration(_))) {
            hit(Probe::RecordsAhead);
        }
    }

    /// A host looks what it has to do.
    pub(crate) fn do_duty(&mut self, host: usize, run: u32) {
        let it = &mut self.hosts[host];
        if it.run != run || it.node.is_none() {
            return;
        }
        if it.paused {
            return it.wait(Event::Duty { host, run });
        }
        it.duty.planned = false;
        self.publish(host);
        if self.ctx.now < self.members.steps_from {
            let after = self.members.steps_from - self.ctx.now;
            return self.plan_duty(host, after);
        }
        if self.hosts[host].run == run && self.hosts[host].duty.waiting.is_none() {
            self.take_step(host);
        }
    }

    /// The publication of a host's record has ended, with any outcome, and a pause has passed.
    pub(crate) fn published(&mut self, host: usize, run: u32) {
        if self.hosts[host].run == run {
            self.hosts[host].duty.publishing = false;
            self.plan_duty(host, 0);
        }
    }

    /// A host publishes its record, if it is outdated.
    fn publish(&mut self, host: usize) {
        let it = &self.hosts[host];
        let Some(node) = it.node.as_ref().filter(|_| !it.duty.publishing) else { return };
        let (machine, own) = (node.machine(), own_record(it.id));
        let outdated = machine
            .members()
            .is_some_and(|records| records.get(own.id).is_some_and(|record| must_publish(record, &own)));
        let leader = node.raft().leader().filter(|_| outdated && machine.cluster_version() >= SINCE_VERSION);
        let Some(NodeId(leader)) = leader else { return };
        let run = it.run;
        self.hosts[host].duty.publishing = true;
        let command = changed(MemberChange::Publish(own));
        self.members.ask(&mut self.ctx, &mut self.network, Some((host, run)), leader as usize - 1, command);
    }

    /// The steps that a host has to try now, in order.
    pub(crate) fn next_steps(&self, host: usize) -> Vec<Step> {
        let it = &self.hosts[host];
        let Some(node) = &it.node else { return Vec::new() };
        let (raft, machine) = (node.raft(), node.machine());
        let Some(records) = machine.members() else { return Vec::new() };
        if !takes_steps(raft.is_leader(), machine.cluster_version()) {
            return Vec::new();
        }
        let connected = |id| Host::has_connection(&self.hosts, it.id, id);
        next(&records, raft.membership(), |NodeId(id)| Some(url(id)), connected)
    }

    /// A leader takes the next step, or pauses.
    fn take_step(&mut self, host: usize) {
        let steps = self.next_steps(host);
        let duty = &mut self.hosts[host].duty;
        let step = match duty.attempts.choose(steps) {
            Next::Take(step) => duty.waiting.insert(step).clone(),
            Next::Pause => return self.plan_duty(host, retry()),
            Next::Rest => return,
        };
        self.ctx.trace(Some(host), || format!("takes a step towards the records: {step:?}"));
        match step {
            Step::Record(change) => {
                let number = self.members.commands.number(changed(change));
                let command = self.members.commands.encoded(number);
                let it = &mut self.hosts[host];
                let (token, deadline) = (it.token(Asker::Step { number: Some(number) }), it.deadline(&self.ctx));
                self.step(host, NodeInput::Write { token, command, deadline });
            }
            Step::Configuration(change) => {
                self.ctx.judge(self.judge_step(host, &change));
                if change == MembershipChange::Remove(self.hosts[host].id) {
                    hit(Probe::LeaderRemovesItself);
                }
                self.change_membership(host, Asker::Step { number: None }, change);
            }
        }
    }

    /// The outcome of a step.
    pub(crate) fn step_ended(&mut self, host: usize, number: Option<u64>, response: &Response) {
        if let Some(number) = number {
            self.ctx.judge(self.members.judge_answer(number, response));
        }
        let done = if number.is_some() { is_done(response) } else { response.is_ok() };
        self.ctx.trace(Some(host), || format!("this step was {}", if done { "done" } else { "not possible" }));
        let duty = &mut self.hosts[host].duty;
        if let Some(step) = duty.waiting.take() {
            duty.attempts.ended(step, done);
        }
        self.plan_duty(host, 0);
    }

    /// I29: a leader takes steps to what the records say, and only such that the cluster survives.
    fn judge_step(&self, host: usize, change: &MembershipChange) -> Judged {
        let it = &self.hosts[host];
        let Some(node) = &it.node else { return Ok(()) };
        let Some(records) = node.machine().members() else { return Ok(()) };
        let voters = &node.raft().membership().incoming().voters;
        let sound = match change {
            MembershipChange::AddLearner(NodeId(id)) => records.get(*id).is_some(),
            MembershipChange::Promote(NodeId(id)) => {
                records.get(*id).is_some_and(|record| !record.is_learner && record.incarnation != 0)
            }
            MembershipChange::Remove(id) => {
                let rest: Vec<&NodeId> = voters.iter().filter(|voter| *voter != id).collect();
                let up = rest.iter().filter(|voter| Host::has_connection(&self.hosts, it.id, ***voter)).count();
                records.is_removed(id.0) && (!voters.contains(id) || up * 2 > rest.len())
            }
            MembershipChange::Demote(_) | MembershipChange::Replace(_) | MembershipChange::Revert => false,
        };
        if sound && node.raft().is_leader() {
            return Ok(());
        }
        let records: Vec<&Member> = records.iter().collect();
        let what = format!("n{} takes the step {change:?} from {voters:?}, with the records {records:?}", host + 1);
        Err((Rule::MembersAreRecorded, what))
    }
}

/// The comparison of the members' states.
impl System<'_> {
    /// The next step of a host: a report as soon as it is owed, or a mark if the host leads.
    fn next_comparison(&self, host: usize) -> Option<CompareStep> {
        let it = &self.hosts[host];
        let node = it.node.as_ref().filter(|node| node.machine().cluster_version() >= SINCE_VERSION)?;
        let (mark_due, report, _) = node.machine().comparison(it.id.0)?;
        it.duty.reports.next(report).or((node.raft().is_leader() && mark_due).then_some(CompareStep::Mark(())))
    }

    fn mind_comparison(&mut self, host: usize, interval: Moment) {
        let it = &self.hosts[host];
        let Some((_, _, agreed)) = it.node.as_ref().and_then(|node| node.machine().comparison(it.id.0)) else { return };
        if agreed > self.members.agreed {
            self.members.agreed = agreed;
            self.ctx.coverage.struck(Fault::Comparison);
        }
        if it.duty.comparing {
            return;
        }
        let pause = match self.next_comparison(host) {
            Some(CompareStep::Mark(())) => interval,
            Some(_) => 0,
            None => return,
        };
        let it = &mut self.hosts[host];
        it.duty.comparing = true;
        let run = it.run;
        self.ctx.after(pause, Event::Compare { host, run });
    }

    /// A host takes a step of the comparison: it asks the leader that it knows.
    pub(crate) fn compare(&mut self, host: usize, run: u32) {
        let it = &mut self.hosts[host];
        if it.run != run {
            return;
        }
        if it.paused {
            return it.wait(Event::Compare { host, run });
        }
        let leader = it.node.as_ref().and_then(|node| node.raft().leader());
        let (Some(step), Some(NodeId(leader))) = (self.next_comparison(host), leader) else {
            self.hosts[host].duty.comparing = false;
            return;
        };
        let command = Command::Compare(CompareRequest { step: Some(step) });
        self.members.ask(&mut self.ctx, &mut self.network, Some((host, run)), leader as usize - 1, command);
    }

    /// A step of a host has ended, with any outcome, and a pause has passed.
    pub(crate) fn compared(&mut self, host: usize, run: u32, answered: Option<CompareStep>) {
        let it = &mut self.hosts[host];
        if it.run == run {
            it.duty.comparing = false;
            if let Some(report) = answered {
                it.duty.reports.answered(report);
            }
        }
    }
}

/// Automatic compaction.
impl System<'_> {
    /// A new leader begins anew.
    fn mind_compaction(&mut self, host: usize, retention: Retention) {
        let it = &mut self.hosts[host];
        let Some(node) = &it.node else { return };
        let (leads, term) = (node.raft().is_leader(), node.raft().term().0);
        if !leads {
            it.duty.compactor = None;
        } else if it.duty.compactor.as_ref().is_none_or(|compactor| compactor.term != term) {
            let (now, revision) = (it.clock.shows(self.ctx.now), node.machine().revision());
            let schedule = Schedule::new(retention, told(now, retention), revision);
            it.duty.compactor = Some(Compactor { term, schedule, due: now, rounds: vec![(now, revision)] });
            self.plan_round(host, retention);
        }
    }

    fn plan_round(&mut self, host: usize, retention: Retention) {
        let it = &mut self.hosts[host];
        let Some(compactor) = &mut it.duty.compactor else { return };
        compactor.due = it.clock.shows(self.ctx.now).after(compactor.schedule.interval() / hurry(retention));
        let (at, run, term) = (it.clock.moment_of(compactor.due), it.run, compactor.term);
        self.ctx.queue.push(at.max(self.ctx.now), Event::Compact { host, run, term });
    }

    /// The time for a round of automatic compaction has come.
    pub(crate) fn compact(&mut self, host: usize, run: u32, term: u64) {
        let it = &mut self.hosts[host];
        let Some(retention) = self.ctx.plan.workload.compaction.filter(|_| it.run == run) else { return };
        if it.paused {
            return it.wait(Event::Compact { host, run, term });
        }
        let now = it.clock.shows(self.ctx.now);
        let Some(revision) = it.node.as_ref().map(|node| node.machine().revision()) else { return };
        let Some(compactor) = it.duty.compactor.as_mut().filter(|compactor| compactor.term == term) else { return };
        if now < compactor.due {
            // Its clock was slowed down.
            let at = it.clock.moment_of(compactor.due);
            return self.ctx.queue.push(at, Event::Compact { host, run, term });
        }
        compactor.rounds.push((now, revision));
        let Some(due) = compactor.schedule.round(told(now, retention), revision) else {
            return self.plan_round(host, retention);
        };
        let judged = compactor.judge(retention, now, due);
        self.ctx.judge(judged);
        self.ctx.trace(Some(host), || format!("compacts automatically at {due} of {revision}"));
        let number =
            self.members.commands.number(Command::Compact(CompactionRequest { revision: due, physical: false }));
        let command = self.members.commands.encoded(number);
        let it = &mut self.hosts[host];
        let (token, deadline) = (it.token(Asker::Compactor { number, term, due }), it.deadline(&self.ctx));
        self.step(host, NodeInput::Write { token, command, deadline });
    }

    /// The outcome of an automatic compaction.
    pub(crate) fn compacted(&mut self, host: usize, (number, term, due): (u64, u64, i64), response: &Response) {
        self.ctx.judge(self.members.judge_answer(number, response));
        let it = &mut self.hosts[host];
        let Some(retention) = self.ctx.plan.workload.compaction else { return };
        let Some(compactor) = it.duty.compactor.as_mut().filter(|compactor| compactor.term == term) else { return };
        let reply = response.as_deref().ok().and_then(reply_of);
        if matches!(reply, Some(Ok(_) | Err(KvError::Compacted))) {
            compactor.schedule.done(told(it.clock.shows(self.ctx.now), retention), due);
        }
        self.plan_round(host, retention);
    }

    /// An automatic compaction takes effect for the first time.
    pub(crate) fn note_compaction(&mut self, revision: i64) {
        self.ctx.coverage.struck(Fault::AutoCompaction);
        if self.watchers.has_one_before(revision) {
            hit(Probe::WatchPassedByCompaction);
        }
    }
}

/// The time that a schedule is told.
fn told(now: Time, retention: Retention) -> Time {
    Time(now.0.saturating_mul(u64::from(hurry(retention))))
}

impl Compactor {
    /// No more is compacted than the retention allows.
    fn judge(&self, retention: Retention, now: Time, due: i64) -> Judged {
        let latest = self.rounds.last().map_or(0, |(_, revision)| *revision);
        let kept = match retention {
            Retention::Revisions(kept) => latest - due >= kept,
            // What was written within this time is kept.
            Retention::Time(time) => self.rounds.iter().any(|(at, then)| at.after(time) <= now && *then >= due),
        };
        if kept {
            return Ok(());
        }
        Err((
            Rule::HistoryIsKept,
            format!("revision {due} of {latest} is compacted automatically, against {retention:?}"),
        ))
    }
}

/// A retention that is short enough for a simulated cluster.
pub(crate) fn drawn(dice: &mut crate::cluster::dice::Dice) -> Retention {
    match dice.percent(50) {
        true => Retention::Time(Duration::from_millis(dice.magnitude(500, 20_000))),
        false => Retention::Revisions(dice.magnitude(1, 60) as i64),
    }
}
