//! What a host does on its own, as a server does it: [`bowline_member::Duties`] decides what and when. A report of a state
//! that differs would raise an alarm, which the judge does not expect.

use std::sync::Arc;
use std::time::Duration;

use bowline_kv::compaction::{REVISIONS_PAUSE, Retention};
use bowline_kv::membership::{Step, next, takes_steps};
use bowline_kv::store::{Command, CompareStep, Member, Members};
use bowline_kv::versions;
use bowline_member::{Action, ComparisonFacts, Duties, Duty, DutySettings, Facts, Peers, Quota, View};
use bowline_node::{Failure, NodeInput, Response};
use bowline_raft::probe::{Probe, hit};
use bowline_raft::{Index, MembershipChange, NodeId, Time};

use crate::cluster::clock::Moment;
use crate::cluster::event::Event;
use crate::cluster::faults::Fault;
use crate::cluster::host::{Asker, Host};
use crate::cluster::members::{own_record, url};
use crate::cluster::oracle::{Judged, Rule};
use crate::cluster::plan::Plan;
use crate::cluster::system::System;
use crate::cluster::trace::describe_response;

/// The rounds that keep a number of revisions come so many times more often than on a server.
const HURRY: u32 = 300;

/// What a host sees of its cluster: if it changes, there may be something to do.
#[derive(Clone, Debug)]
struct Seen {
    records: Option<Arc<Members>>,
    term: u64,
    leads: bool,
    leader: Option<NodeId>,
    configured_at: Option<Index>,
    committed: bool,
    version: u32,
    comparison: Option<(bool, Option<CompareStep>)>,
}

impl Seen {
    fn is_same_as(&self, other: &Seen) -> bool {
        let of = |seen: &Seen| {
            let records = seen.records.as_ref().map(Arc::as_ptr);
            (
                records,
                seen.term,
                seen.leads,
                seen.leader,
                seen.configured_at,
                seen.committed,
                seen.version,
                seen.comparison,
            )
        };
        of(self) == of(other)
    }
}

/// The duties of a host's process.
#[derive(Debug, Default)]
pub(crate) struct OwnDuties {
    duties: Option<Duties>,
    seen: Option<Seen>,
    /// When it looks next what it has to do.
    planned: Option<Moment>,
    /// The revisions of its state since it leads in this term, with the times by its clock: to judge what it compacts.
    revisions: (u64, Vec<(Time, i64)>),
}

/// Which duties the hosts of a plan have.
fn settings(plan: &Plan, id: NodeId) -> DutySettings {
    let workload = &plan.workload;
    DutySettings {
        own: workload.records.then(|| own_record(id)),
        version: versions::USERS,
        comparison: workload.comparison.map(Duration::from_nanos),
        quota: Quota::NONE,
        retention: workload.compaction,
        revisions_pause: REVISIONS_PAUSE / HURRY,
    }
}

/// A host's connections: to any process that runs, even one that is paused or cut off, because a connection outlives that
/// for a long time.
struct Connections<'a> {
    hosts: &'a [Host],
    own: NodeId,
}

impl Peers for Connections<'_> {
    fn url(&self, NodeId(id): NodeId) -> Option<String> {
        Some(url(id))
    }

    fn reaches(&self, id: NodeId) -> bool {
        id == self.own || self.hosts.get(id.0 as usize - 1).is_some_and(Host::is_up)
    }

    fn speaks(&self, id: NodeId) -> Option<u32> {
        self.reaches(id).then_some(versions::USERS)
    }
}

impl Host {
    fn sees(&self) -> Option<Seen> {
        let node = self.node.as_ref()?;
        let (raft, machine) = (node.raft(), node.machine());
        let comparison = machine.comparison(self.id.0);
        Some(Seen {
            records: machine.members(),
            term: raft.term().0,
            leads: raft.is_leader(),
            leader: raft.leader(),
            configured_at: self.shadow.configured_at(),
            committed: self.shadow.membership_is_committed(),
            version: machine.cluster_version(),
            comparison: comparison.map(|(mark_due, report, _)| (mark_due, report)),
        })
    }

    /// The steps that a leader has to try now, in order.
    fn next_steps(&self, hosts: &[Host]) -> Vec<Step> {
        let Some(node) = &self.node else { return Vec::new() };
        let (raft, machine) = (node.raft(), node.machine());
        let Some(records) = machine.members() else { return Vec::new() };
        if !takes_steps(raft.is_leader(), machine.cluster_version()) {
            return Vec::new();
        }
        let peers = Connections { hosts, own: self.id };
        next(&records, raft.membership(), |id| peers.url(id), |id| peers.reaches(id)).possible
    }
}

impl System<'_> {
    /// After a step of a host: if it sees something new, it soon looks what it has to do.
    pub(crate) fn mind_duties(&mut self, host: usize) {
        let workload = &self.ctx.plan.workload;
        if !workload.records && workload.compaction.is_none() {
            return;
        }
        let Some(now) = self.hosts[host].sees() else { return };
        let before = self.hosts[host].duties.seen.replace(now.clone());
        if before.as_ref().is_some_and(|before| before.is_same_as(&now)) {
            return;
        }
        let begins_to_lead = now.leads && before.is_none_or(|before| !before.leads);
        // A new leader may find records that the configuration does not follow yet.
        let all = &self.hosts;
        if begins_to_lead && all[host].next_steps(all).iter().any(|step| matches!(step, Step::Configuration(_))) {
            hit(Probe::RecordsAhead);
        }
        self.note_agreement(host);
        let after = self.members.dice.below(self.ctx.plan.settings.heartbeat / 8);
        self.plan_duties(host, self.ctx.now + after);
    }

    /// Counts the marks at which all members had the same state.
    fn note_agreement(&mut self, host: usize) {
        let it = &self.hosts[host];
        let compared = it.node.as_ref().and_then(|node| node.machine().comparison(it.id.0));
        if let Some((_, _, agreed)) = compared.filter(|(_, _, agreed)| *agreed > self.members.agreed) {
            self.members.agreed = agreed;
            self.ctx.coverage.struck(Fault::Comparison);
        }
    }

    fn plan_duties(&mut self, host: usize, at: Moment) {
        let it = &mut self.hosts[host];
        if it.duties.planned.is_none_or(|planned| at < planned) {
            it.duties.planned = Some(at);
            self.ctx.queue.push(at, Event::Duties { host, run: it.run });
        }
    }

    /// A host looks what it has to do.
    pub(crate) fn do_duties(&mut self, host: usize, run: u32) {
        let it = &mut self.hosts[host];
        if it.run != run || it.node.is_none() {
            return;
        }
        if it.paused {
            return it.wait(Event::Duties { host, run });
        }
        if it.duties.planned.is_none_or(|planned| self.ctx.now < planned) {
            // It has looked meanwhile.
            return;
        }
        it.duties.planned = None;
        if self.ctx.now < self.members.steps_from {
            return self.plan_duties(host, self.members.steps_from);
        }
        for (duty, action) in self.look_at_duties(host) {
            self.act(host, duty, action);
            if self.hosts[host].run != run {
                return;
            }
        }
        let it = &self.hosts[host];
        let due = it.duties.duties.as_ref().map_or(Time::NEVER, Duties::due);
        if due < Time::NEVER {
            self.plan_duties(host, it.clock.moment_of(due).max(self.ctx.now + 1));
        }
    }

    fn look_at_duties(&mut self, host: usize) -> Vec<(Duty, Action)> {
        let mut own = std::mem::take(&mut self.hosts[host].duties);
        let it = &self.hosts[host];
        let Some(node) = &it.node else { return Vec::new() };
        let (raft, machine) = (node.raft(), node.machine());
        let (now, term, is_leader, revision) =
            (it.clock.shows(self.ctx.now), raft.term().0, raft.is_leader(), machine.revision());
        let comparison = machine.comparison(it.id.0);
        let comparison =
            comparison.map(|(mark_due, report, _)| ComparisonFacts { mark_due, report, ..Default::default() });
        let facts = Facts {
            revision,
            cluster_version: machine.cluster_version(),
            comparison: comparison.unwrap_or_default(),
            ..Facts::default()
        };
        let members = machine.members().unwrap_or_default();
        let view = View {
            term,
            is_leader,
            leader: raft.leader(),
            membership: raft.membership(),
            members: &members,
            facts: &facts,
        };
        if !is_leader || own.revisions.0 != term {
            own.revisions = (term, Vec::new());
        }
        if self.ctx.plan.workload.compaction.is_some()
            && own.revisions.1.last().is_none_or(|(_, last)| *last != revision)
        {
            own.revisions.1.push((now, revision));
        }
        let plan = &self.ctx.plan;
        let duties = own.duties.get_or_insert_with(|| Duties::new(settings(plan, it.id), revision));
        let actions = duties.look(now, &view, &Connections { hosts: &self.hosts, own: it.id });
        self.hosts[host].duties = own;
        actions
    }

    /// A host does what it has to do.
    fn act(&mut self, host: usize, duty: Duty, action: Action) {
        self.ctx.trace(Some(host), || format!("does its duty {duty:?}: {action:?}"));
        let command = match action {
            Action::Change(change) => {
                self.ctx.judge(self.judge_step(host, &change));
                if change == MembershipChange::Remove(self.hosts[host].id) {
                    hit(Probe::LeaderRemovesItself);
                }
                return self.change_membership(host, Asker::Duty { duty, number: None }, change);
            }
            Action::Write(command) => command,
        };
        if let Command::Compact(compaction) = &command {
            self.ctx.judge(self.judge_compaction(host, compaction.revision));
        }
        let it = &mut self.hosts[host];
        let (run, leader) = (it.run, it.node.as_ref().and_then(|node| node.raft().leader()));
        let is_whole = it.node.as_ref().is_some_and(|node| node.whole().is_some());
        if is_whole || leader == Some(it.id) {
            let number = self.members.commands.number(command);
            let command = self.members.commands.encoded(number);
            let (token, deadline) = (it.token(Asker::Duty { duty, number: Some(number) }), it.deadline(&self.ctx));
            return self.step(host, NodeInput::Write { token, command, deadline });
        }
        match leader {
            Some(NodeId(leader)) => {
                self.members.ask(
                    &mut self.ctx,
                    &mut self.network,
                    Some((host, run, duty)),
                    leader as usize - 1,
                    command,
                );
            }
            None => self.duty_ended(host, run, duty, Err(Failure::not_leader(None))),
        }
    }

    /// What a host has done itself was answered.
    pub(crate) fn own_duty_ended(&mut self, host: usize, duty: Duty, number: Option<u64>, answer: Response) {
        if let Some(number) = number {
            self.ctx.judge(self.members.judge_answer(number, &answer));
        }
        self.duty_ended(host, self.hosts[host].run, duty, answer);
    }

    /// What a host has done was answered.
    pub(crate) fn duty_ended(&mut self, host: usize, run: u32, duty: Duty, answer: Response) {
        let it = &mut self.hosts[host];
        if it.run != run {
            return;
        }
        let now = it.clock.shows(self.ctx.now);
        self.ctx.trace(Some(host), || format!("its duty {duty:?} ended: {}", describe_response(&answer)));
        if let Some(duties) = &mut it.duties.duties {
            duties.ended(now, duty, answer);
        }
        self.plan_duties(host, self.ctx.now);
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
                let peers = Connections { hosts: &self.hosts, own: it.id };
                let rest: Vec<&NodeId> = voters.iter().filter(|voter| *voter != id).collect();
                let up = rest.iter().filter(|voter| peers.reaches(***voter)).count();
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

    /// I30: no more is compacted than the retention allows.
    fn judge_compaction(&self, host: usize, due: i64) -> Judged {
        let it = &self.hosts[host];
        let Some(retention) = self.ctx.plan.workload.compaction else { return Ok(()) };
        let revisions = &it.duties.revisions.1;
        let (now, latest) = (it.clock.shows(self.ctx.now), revisions.last().map_or(0, |(_, revision)| *revision));
        let kept = match retention {
            Retention::Revisions(kept) => latest - due >= kept,
            // What was written within this time is kept.
            Retention::Time(time) => revisions.iter().any(|(at, then)| at.after(time) <= now && *then >= due),
        };
        if kept {
            return Ok(());
        }
        let what = format!("revision {due} of {latest} is compacted automatically, against {retention:?}");
        Err((Rule::HistoryIsKept, what))
    }

    /// An automatic compaction takes effect for the first time.
    pub(crate) fn note_compaction(&mut self, revision: i64) {
        self.ctx.coverage.struck(Fault::AutoCompaction);
        if self.watchers.has_one_before(revision) {
            hit(Probe::WatchPassedByCompaction);
        }
    }
}

/// A retention that is short enough for a simulated cluster.
pub(crate) fn drawn(dice: &mut crate::cluster::dice::Dice) -> Retention {
    match dice.percent(50) {
        true => Retention::Time(Duration::from_millis(dice.magnitude(500, 20_000))),
        false => Retention::Revisions(dice.magnitude(1, 60) as i64),
    }
}
