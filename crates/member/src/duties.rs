//! What a member does on its own.
//!
//! Each member publishes its own record, reports checksums of its state, and raises an alarm when its state has no room.
//! The leader also makes the configuration follow the records of the members, raises the version of the cluster, marks
//! the states to compare, and compacts old revisions.
//!
//! [`Duties`] decides what is to be done, from what the member sees. Its driver carries it out and tells the answer.

mod attempt;
mod compactor;
mod configuration;
mod marks;
mod quota;

use std::sync::Arc;
use std::time::Duration;

use bowline_kv::compaction::Retention;
use bowline_kv::membership::{RETRY, must_publish};
use bowline_kv::store::{
    AlarmKind, AlarmRequest, ClusterVersionRequest, Command, CompareRequest, CompareStep, KvError, Member,
    MemberChange, MemberRequest, Members, Reports, decode_reply_to,
};
use bowline_kv::versions;
use bowline_node::Response;
use bowline_node::raft::{Membership, MembershipChange, NodeId, Time};
use tracing::{debug, error};

use crate::status::Facts;
use attempt::Attempt;
use compactor::Compactor;
use configuration::Configuration;
use marks::Marks;

pub use quota::Quota;

/// Pause before a report or a change of an alarm that failed is written again.
const PAUSE: Duration = Duration::from_secs(1);

/// Interval of the leader's checks whether all members speak a later version. There is no event for that.
const VERSION_PAUSE: Duration = Duration::from_millis(200);

/// What a member sees of its cluster.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Its term.
    pub term: u64,
    /// Whether it leads.
    pub is_leader: bool,
    /// The leader, if it knows one.
    pub leader: Option<NodeId>,
    /// The current membership.
    pub membership: &'a Membership,
    /// The records of the members.
    pub members: &'a Arc<Members>,
    /// Numbers about its state.
    pub facts: &'a Facts,
}

/// What a member knows of the others by its connections.
pub trait Peers {
    /// The URL for peers of a founding member that has no record yet, if it is known.
    fn url(&self, id: NodeId) -> Option<String>;

    /// Whether there is a connection to a member. A member reaches itself.
    fn reaches(&self, id: NodeId) -> bool;

    /// The version of the protocol that a member speaks; `None` without a connection to it.
    fn speaks(&self, id: NodeId) -> Option<u32>;
}

/// One of the things that a member does on its own. At most one action of each is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duty {
    /// It publishes its own name and addresses whenever its record has others.
    Publish,
    /// As the leader it makes the configuration follow the records.
    Configure,
    /// As the leader it raises the version of the cluster to the latest that all members speak.
    Version,
    /// As the leader it marks a state that the members compare.
    Mark,
    /// It reports the checksums of its state at a mark.
    Report,
    /// It raises its alarm that its state has no room, and takes it back.
    Alarm,
    /// As the leader it compacts old revisions.
    Compact,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write a command, here or at the leader.
    Write(Command),
    /// Change the configuration by one step, if this member leads.
    Change(MembershipChange),
}

/// Which duties a member has.
#[derive(Clone, Debug)]
pub struct DutySettings {
    /// Its own record. Without one, the configuration does not follow the records.
    pub own: Option<Member>,
    /// The version of the protocol of this program.
    pub version: u32,
    /// Time between something that is written and the next mark; `None`: it writes no marks and no reports.
    pub comparison: Option<Duration>,
    /// How large the state may become.
    pub quota: Quota,
    /// How much history automatic compaction keeps; `None`: there is none.
    pub retention: Option<Retention>,
    /// Interval of the rounds of automatic compaction that keep a number of revisions.
    pub revisions_pause: Duration,
}

/// The duties of a member.
#[derive(Debug)]
pub struct Duties {
    own: Option<Member>,
    /// Another folder has published this member's record.
    is_shut_out: bool,
    publication: Attempt<()>,
    configuration: Configuration,
    program: u32,
    raise: Attempt<u32>,
    /// When the leader checks again what the members speak.
    version_due: Time,
    compares: bool,
    marks: Marks,
    reports: Reports,
    report: Attempt<CompareStep>,
    quota: Quota,
    alarm: Attempt<bool>,
    /// The revision when there last was no reason for a change of the alarm.
    settled: i64,
    compactor: Option<Compactor>,
}

impl Duties {
    /// The duties of a member that starts, with a state of this revision.
    #[must_use]
    pub fn new(settings: DutySettings, revision: i64) -> Duties {
        let DutySettings { own, version, comparison, quota, retention, revisions_pause } = settings;
        Duties {
            own,
            is_shut_out: false,
            publication: Attempt::new(RETRY),
            configuration: Configuration::default(),
            program: version,
            raise: Attempt::new(VERSION_PAUSE),
            version_due: Time::NEVER,
            compares: comparison.is_some(),
            marks: Marks::new(comparison.unwrap_or_default()),
            reports: Reports::default(),
            report: Attempt::new(PAUSE),
            quota,
            alarm: Attempt::new(PAUSE),
            settled: revision,
            compactor: retention.map(|retention| Compactor::new(retention, revisions_pause)),
        }
    }

    /// What is to be done now. The driver tells the end of each action: [`Duties::ended`].
    #[must_use]
    pub fn look(&mut self, now: Time, view: &View<'_>, peers: &impl Peers) -> Vec<(Duty, Action)> {
        let mut actions = Vec::new();
        self.look_at_members(now, view, peers, &mut actions);
        if self.compares && view.facts.cluster_version >= versions::COMPARISON {
            self.look_at_comparison(now, view, &mut actions);
        }
        let change = self.quota.change(view.facts, view.facts.revision > self.settled);
        if change.is_none() && !self.alarm.is_under_way() {
            // What is not settled is looked at again.
            self.settled = view.facts.revision;
        }
        if let (Some(active), Some(own)) = (self.alarm.next(now, change), &self.own) {
            actions.push((Duty::Alarm, Action::Write(own_alarm(own.id, active))));
        }
        let due = self.compactor.as_mut().and_then(|compactor| compactor.next(now, view));
        actions.extend(due.map(|request| (Duty::Compact, Action::Write(Command::Compact(request)))));
        actions
    }

    fn look_at_members(&mut self, now: Time, view: &View<'_>, peers: &impl Peers, actions: &mut Vec<(Duty, Action)>) {
        let Some(own) = &self.own else { return };
        let knows_records = view.facts.cluster_version >= versions::MEMBERS;
        let is_outdated = || view.members.get(own.id).is_some_and(|record| must_publish(record, own));
        let publishes = knows_records && view.leader.is_some() && !self.is_shut_out && is_outdated();
        if self.publication.next(now, publishes.then_some(())).is_some() {
            actions.push((Duty::Publish, change(MemberChange::Publish(own.clone()))));
        }
        actions.extend(self.configuration.next(now, view, peers).map(|action| (Duty::Configure, action)));
        let may_raise = view.is_leader && view.facts.cluster_version < self.program;
        self.version_due = if may_raise { now.after(VERSION_PAUSE) } else { Time::NEVER };
        let later = if may_raise { version_of_all(view, peers) } else { None };
        if let Some(version) = self.raise.next(now, later) {
            let raise = Command::ClusterVersion(ClusterVersionRequest { version });
            actions.push((Duty::Version, Action::Write(raise)));
        }
    }

    fn look_at_comparison(&mut self, now: Time, view: &View<'_>, actions: &mut Vec<(Duty, Action)>) {
        let mut write = |duty, step| {
            let compare = CompareRequest { step: Some(step) };
            actions.push((duty, Action::Write(Command::Compare(compare))));
        };
        if self.marks.next(now, view.is_leader && view.facts.comparison.mark_due) {
            write(Duty::Mark, CompareStep::Mark(()));
        }
        let owed = self.reports.next(view.facts.comparison.report);
        if let Some(report) = self.report.next(now, owed) {
            write(Duty::Report, report);
        }
    }

    /// When something may be to be done although the member sees nothing new; [`Time::NEVER`] if nothing will.
    #[must_use]
    pub fn due(&self) -> Time {
        let compaction = self.compactor.as_ref().map_or(Time::NEVER, Compactor::due);
        let attempts = [self.publication.due(), self.raise.due(), self.report.due(), self.alarm.due()];
        let others = [self.configuration.due(), self.version_due, self.marks.due(), compaction];
        attempts.into_iter().chain(others).min().unwrap_or(Time::NEVER)
    }

    /// Takes the answer to an action. That of a change of the configuration is empty.
    pub fn ended(&mut self, now: Time, duty: Duty, answer: Response) {
        let refused = match duty {
            Duty::Publish => {
                self.publication.ended(now);
                let refused = member_error(answer);
                self.is_shut_out |= refused.as_ref().is_err_and(|why| *why == KvError::OtherFolder.to_string());
                if self.is_shut_out {
                    error!(
                        "this member has started with another data folder before: start it with that one, or replace it"
                    );
                }
                refused
            }
            Duty::Configure => self.configuration.ended(answer),
            Duty::Version => {
                self.raise.ended(now);
                answer.map(drop).map_err(|failure| failure.to_string())
            }
            Duty::Mark => {
                self.marks.ended();
                answer.map(drop).map_err(|failure| failure.to_string())
            }
            Duty::Report => {
                let written = self.report.ended(now);
                if let (Ok(_), Some(report)) = (&answer, written) {
                    self.reports.answered(report);
                }
                answer.map(drop).map_err(|failure| failure.to_string())
            }
            Duty::Alarm => {
                self.alarm.ended(now);
                let reply = answer.map_err(|failure| failure.to_string());
                reply.and_then(|reply| flatten(decode_reply_to::<AlarmRequest>(reply)))
            }
            Duty::Compact => match &mut self.compactor {
                Some(compactor) => compactor.ended(now, answer),
                None => Ok(()),
            },
        };
        if let Err(why) = refused {
            debug!(?duty, why, "not possible now; trying again");
        }
    }
}

/// The command with which a member raises its alarm by itself, or takes it back.
#[must_use]
pub fn own_alarm(member: u64, active: bool) -> Command {
    Command::Alarm(AlarmRequest { member, kind: AlarmKind::NoSpace.into(), automatic: true, active })
}

/// The version to which the leader can raise the cluster: what all members speak. A member whose version is not known
/// may have the oldest program.
fn version_of_all(view: &View<'_>, peers: &impl Peers) -> Option<u32> {
    let all = view.membership.members().into_iter().map(|id| peers.speaks(id).unwrap_or(0)).min()?;
    (all > view.facts.cluster_version).then_some(all)
}

fn change(change: MemberChange) -> Action {
    Action::Write(Command::Member(MemberRequest { change: Some(change) }))
}

/// Why a record was not changed.
fn member_error(answer: Response) -> Result<(), String> {
    let reply = answer.map_err(|failure| failure.to_string())?;
    flatten(decode_reply_to::<MemberRequest>(reply))
}

fn flatten<T>(reply: Result<Result<T, KvError>, impl std::fmt::Display>) -> Result<(), String> {
    let reply = reply.map_err(|error| error.to_string())?;
    reply.map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
