//! The steps that lead from the records of the members to the configuration of the consensus core.
//!
//! The records in the state say which members the cluster shall have. The leader changes the configuration until it has
//! these members, one step at a time: a new member joins as a learner, and becomes a voter when it has caught up. So
//! whoever is asked to change the members writes one command, and if a leader fails halfway, the next one goes on.
//!
//! A step may take long, and what it was for may change meanwhile. So a leader looks at the records and the
//! configuration again before each step, and takes the first that was not refused before: see [`Attempts`].

use std::time::Duration;

use bowline_node::raft::{Membership, MembershipChange, NodeId};

use crate::store::{Member, MemberChange, Members};
use crate::versions;

/// Pause before what was not possible is tried again: a learner may have caught up, or a member may be back.
pub const RETRY: Duration = Duration::from_millis(200);

/// A step towards the members of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write or correct a record.
    Record(MemberChange),
    /// Change the configuration.
    Configuration(MembershipChange),
}

/// Whether a member takes steps: only the leader does, once every member understands the commands.
#[must_use]
pub fn takes_steps(leads: bool, cluster_version: u32) -> bool {
    leads && cluster_version >= versions::MEMBERS
}

/// Whether a member must publish what it knows of itself, because its record says something else.
#[must_use]
pub fn must_publish(record: &Member, own: &Member) -> bool {
    (record.incarnation, &record.name, &record.client_urls) != (own.incarnation, &own.name, &own.client_urls)
}

/// What a leader could do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// The steps that are possible, in the order in which they are to be tried.
    pub possible: Vec<Step>,
    /// One more step is possible as soon as there is a connection to some member. Connections come back without a
    /// change of the records or of the configuration.
    pub wait_for_connection: bool,
}

impl Steps {
    /// Adds a step; `None`: it waits for a connection.
    fn add(&mut self, step: Option<Step>) {
        self.wait_for_connection |= step.is_none();
        self.possible.extend(step);
    }
}

/// What a leader does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// It takes this step, and says how it ended: [`Attempts::ended`].
    Take(Step),
    /// Every step was refused, or waits for a connection: it pauses for [`RETRY`], or until the records or the
    /// configuration change.
    Pause,
    /// There is nothing to do until the records or the configuration change.
    Rest,
}

/// The steps that were refused since the last one that was done.
#[derive(Debug, Default)]
pub struct Attempts(Vec<Step>);

impl Attempts {
    /// Chooses one of the steps that are possible now, as [`next`] gives them.
    pub fn choose(&mut self, steps: &Steps) -> Next {
        let untried = steps.possible.iter().find(|step| !self.0.contains(step)).cloned();
        if let Some(step) = untried {
            return Next::Take(step);
        }
        self.0.clear();
        if steps.possible.is_empty() && !steps.wait_for_connection { Next::Rest } else { Next::Pause }
    }

    /// Notes whether a step was done. After one that was, all others may be possible.
    pub fn ended(&mut self, step: Step, done: bool) {
        if done {
            self.0.clear();
        } else {
            self.0.push(step);
        }
    }
}

/// The steps from the configuration to the records. `address`: the URL for peers of a member without a record, if it is
/// known. `reaches`: whether there is a connection to a member.
#[must_use]
pub fn next(
    members: &Members,
    membership: &Membership,
    address: impl Fn(NodeId) -> Option<String>,
    reaches: impl Fn(NodeId) -> bool,
) -> Steps {
    let mut steps = Steps::default();
    if membership.is_joint() {
        // The core leaves it by itself.
        return steps;
    }
    let (voters, learners) = (&membership.incoming().voters, &membership.incoming().learners);
    for id in membership.members() {
        if members.get(id.0).is_none() && !members.is_removed(id.0) {
            // A founding member; or the cluster is from before there were records.
            let record = address(id).map(|url| Member { id: id.0, peer_urls: vec![url], ..Member::default() });
            steps.add(record.map(|record| Step::Record(MemberChange::Adopt(record))));
        }
        let record = members.get(id.0);
        if voters.contains(&id) && record.is_some_and(|record| record.is_learner) {
            steps.add(Some(Step::Record(MemberChange::Promote(id.0))));
        }
    }
    for id in membership.members().into_iter().filter(|id| members.is_removed(id.0)) {
        let rest = voters.iter().filter(|voter| **voter != id);
        let (count, reached) = (rest.clone().count(), rest.filter(|voter| reaches(**voter)).count());
        // Without a majority of the others, nothing could be committed after it.
        let survives = learners.contains(&id) || reached > count / 2;
        steps.add(survives.then_some(Step::Configuration(MembershipChange::Remove(id))));
    }
    for member in members.iter() {
        let id = NodeId(member.id);
        if !membership.contains(id) {
            steps.add(Some(Step::Configuration(MembershipChange::AddLearner(id))));
        } else if learners.contains(&id) && !member.is_learner && member.has_started() {
            // Until it has caught up, the core refuses this.
            steps.add(reaches(id).then_some(Step::Configuration(MembershipChange::Promote(id))));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use bowline_node::raft::{Group, Index};

    use super::*;
    use crate::store::{Command, MemberRequest, MemoryEngine, Store};

    /// The records after these changes.
    fn records(changes: Vec<MemberChange>) -> Arc<Members> {
        let mut store = Store::open(MemoryEngine::default()).expect("memory does not fail");
        for (index, change) in (1..).zip(changes) {
            let command = Command::Member(MemberRequest { change: Some(change) });
            store.apply_command(Index(index), &command).expect("a good change");
        }
        Arc::clone(store.members())
    }

    fn started(id: u64) -> Member {
        Member { id, peer_urls: vec![format!("http://h{id}:1")], incarnation: 1, ..Member::default() }
    }

    fn group(voters: &[u64], learners: &[u64]) -> Group {
        let ids = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        Group { voters: ids(voters), learners: ids(learners) }
    }

    fn founded() -> Vec<MemberChange> {
        (1..=3).map(|id| MemberChange::Adopt(started(id))).collect()
    }

    /// These steps are possible, and none waits for a connection.
    fn only<const N: usize>(possible: [Step; N]) -> Steps {
        Steps { possible: possible.into(), wait_for_connection: false }
    }

    const WAITING: Steps = Steps { possible: Vec::new(), wait_for_connection: true };

    fn next_of(members: &Members, group: &Group, reached: &[u64]) -> Steps {
        let address = |id: NodeId| Some(format!("http://h{}:1", id.0));
        next(members, &Membership::simple(group.clone()), address, |id| reached.contains(&id.0))
    }

    #[test]
    fn members_of_the_configuration_get_records_and_then_nothing_is_to_be_done() {
        let three = group(&[1, 2, 3], &[]);
        let steps = next_of(&Members::default(), &three, &[]);
        let adopted = |id| Step::Record(MemberChange::Adopt(Member { incarnation: 0, ..started(id) }));
        assert_eq!(steps, only([adopted(1), adopted(2), adopted(3)]));
        assert_eq!(next_of(&records(founded()), &three, &[]), only([]));
    }

    #[test]
    fn a_new_member_is_a_learner_until_it_has_started() {
        let mut changes = founded();
        changes.push(MemberChange::Add(Member { incarnation: 0, ..started(4) }));
        let members = records(changes.clone());
        let add = Step::Configuration(MembershipChange::AddLearner(NodeId(4)));
        assert_eq!(next_of(&members, &group(&[1, 2, 3], &[]), &[]), only([add]));
        let catching_up = group(&[1, 2, 3], &[4]);
        assert_eq!(next_of(&members, &catching_up, &[4]), only([]));
        changes.push(MemberChange::Publish(started(4)));
        let promote = Step::Configuration(MembershipChange::Promote(NodeId(4)));
        assert_eq!(next_of(&records(changes.clone()), &catching_up, &[4]), only([promote]));
        assert_eq!(next_of(&records(changes), &catching_up, &[]), WAITING, "it can't be reached");
    }

    #[test]
    fn a_learner_stays_one_until_it_is_promoted() {
        let mut changes = founded();
        changes.push(MemberChange::Add(Member { is_learner: true, ..started(4) }));
        let members = records(changes);
        assert_eq!(next_of(&members, &group(&[1, 2, 3], &[4]), &[4]), only([]));
        let promoted = Step::Record(MemberChange::Promote(4));
        assert_eq!(next_of(&members, &group(&[1, 2, 3, 4], &[]), &[4]), only([promoted]));
    }

    #[test]
    fn a_voter_is_removed_once_a_majority_of_the_others_can_be_reached() {
        let mut changes = founded();
        changes.push(MemberChange::Remove(3));
        let members = records(changes);
        let three = group(&[1, 2, 3], &[]);
        assert_eq!(next_of(&members, &three, &[1]), WAITING);
        let remove = Step::Configuration(MembershipChange::Remove(NodeId(3)));
        assert_eq!(next_of(&members, &three, &[1, 2]), only([remove.clone()]));
        assert_eq!(next_of(&members, &group(&[1, 2], &[3]), &[1]), only([remove]), "a learner does not matter");
        assert_eq!(next_of(&members, &group(&[1, 2], &[]), &[1]), only([]));
        let address = |_| None;
        let joint = Membership::joint(three, group(&[1, 2], &[]));
        assert_eq!(next(&members, &joint, address, |_| true), only([]));
    }

    #[test]
    fn each_step_is_tried_once_until_one_is_done() {
        let step = |id| Step::Configuration(MembershipChange::AddLearner(NodeId(id)));
        let mut attempts = Attempts::default();
        assert_eq!(attempts.choose(&only([])), Next::Rest);
        assert_eq!(attempts.choose(&WAITING), Next::Pause, "the connection may come back");
        assert_eq!(attempts.choose(&only([step(1), step(2)])), Next::Take(step(1)));
        attempts.ended(step(1), false);
        assert_eq!(attempts.choose(&only([step(1), step(2)])), Next::Take(step(2)));
        attempts.ended(step(2), false);
        assert_eq!(
            attempts.choose(&only([step(1), step(3)])),
            Next::Take(step(3)),
            "what is not needed any more is not taken"
        );
        attempts.ended(step(3), true);
        assert_eq!(attempts.choose(&only([step(1)])), Next::Take(step(1)), "it may be possible now");
        attempts.ended(step(1), false);
        assert_eq!(attempts.choose(&only([step(1)])), Next::Pause);
        assert_eq!(attempts.choose(&only([step(1)])), Next::Take(step(1)), "after the pause");
    }

    #[test]
    fn only_a_leader_takes_steps_and_only_if_all_members_understand_them() {
        assert!(takes_steps(true, versions::MEMBERS) && takes_steps(true, versions::MEMBERS + 1));
        assert!(!takes_steps(true, versions::MEMBERS - 1) && !takes_steps(false, versions::MEMBERS));
    }

    #[test]
    fn a_member_publishes_what_its_record_lacks() {
        let own = Member { name: "one".to_owned(), client_urls: vec!["http://c1:1".to_owned()], ..started(1) };
        assert!(must_publish(&started(1), &own) && !must_publish(&own, &own));
        let elsewhere = Member { peer_urls: vec!["http://elsewhere:1".to_owned()], is_learner: true, ..own.clone() };
        assert!(!must_publish(&elsewhere, &own), "an operator decides these");
        assert!(must_publish(&Member { incarnation: 0, ..own.clone() }, &own));
    }
}
