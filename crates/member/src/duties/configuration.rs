//! The leader makes the configuration follow the records of the members, by the steps of [`bowline_kv::membership`].

use std::sync::Arc;

use bowline_kv::membership::{Attempts, Next, RETRY, Step, next, takes_steps};
use bowline_kv::store::Members;
use bowline_node::Response;
use bowline_node::raft::{Membership, MembershipChange, Time};
use tracing::info;

use super::{Action, Peers, View, change, member_error};

#[derive(Debug, Default)]
pub(super) struct Configuration {
    attempts: Attempts,
    under_way: Option<Step>,
    rest: Option<Rest>,
}

/// Nothing is done until `until`, or until the records or the configuration change.
#[derive(Debug)]
struct Rest {
    until: Time,
    members: Arc<Members>,
    membership: Membership,
}

impl Rest {
    fn lasts(&self, now: Time, view: &View<'_>) -> bool {
        now < self.until && Arc::ptr_eq(&self.members, view.members) && self.membership == *view.membership
    }
}

impl Configuration {
    pub(super) fn next(&mut self, now: Time, view: &View<'_>, peers: &impl Peers) -> Option<Action> {
        if !takes_steps(view.is_leader, view.facts.cluster_version) {
            self.rest = None;
            return None;
        }
        if self.under_way.is_some() || self.rest.as_ref().is_some_and(|rest| rest.lasts(now, view)) {
            return None;
        }
        let steps = next(view.members, view.membership, |id| peers.url(id), |id| peers.reaches(id));
        let until = match self.attempts.choose(&steps) {
            Next::Take(step) => {
                self.under_way = Some(step.clone());
                self.rest = None;
                return Some(match step {
                    Step::Record(record) => change(record),
                    Step::Configuration(step) => Action::Change(step),
                });
            }
            Next::Pause => now.after(RETRY),
            Next::Rest => Time::NEVER,
        };
        self.rest = Some(Rest { until, members: Arc::clone(view.members), membership: view.membership.clone() });
        None
    }

    pub(super) fn due(&self) -> Time {
        self.rest.as_ref().map_or(Time::NEVER, |rest| rest.until)
    }

    pub(super) fn ended(&mut self, answer: Response) -> Result<(), String> {
        let Some(step) = self.under_way.take() else { return Ok(()) };
        let done = match &step {
            Step::Record(_) => member_error(answer),
            Step::Configuration(step) => answer.map(|_| log(step)).map_err(|failure| failure.to_string()),
        };
        self.attempts.ended(step, done.is_ok());
        done
    }
}

fn log(change: &MembershipChange) {
    match change {
        MembershipChange::AddLearner(id) => info!(member = %hex(id.0), "a member was added, and catches up"),
        MembershipChange::Promote(id) => info!(member = %hex(id.0), "a member has caught up, and votes from now on"),
        MembershipChange::Remove(id) => info!(member = %hex(id.0), "a member was removed"),
        MembershipChange::Demote(_) | MembershipChange::Replace(_) | MembershipChange::Revert => {}
    }
}

fn hex(id: u64) -> String {
    format!("{id:016x}")
}
