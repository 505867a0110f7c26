//! Changes of the members.
//!
//! The records in the state say which members the cluster shall have. The leader changes the configuration of the
//! consensus core until it has these members, one step at a time: a new member joins as a learner, and becomes a voter
//! when it has caught up. So whoever is asked to change the members writes one command, and if a leader fails halfway,
//! the next one goes on. Each member publishes its own name and addresses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bowline_kv::store::{Command, KvError, Member, MemberChange, MemberRequest, Members, decode_reply_to};
use bowline_node::Failure;
use bowline_node::raft::{Membership, MembershipChange, NodeId};
use tracing::{debug, error, info};

use crate::peer::{Directory, Forwarder, Outbox, Protocol, hex};
use crate::replica::{Replica, Status};

/// Pause before what was not possible is tried again: a learner may have caught up, or a member may be back.
const RETRY: Duration = Duration::from_millis(200);

/// A step towards the members of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Write or correct a record.
    Record(MemberChange),
    /// Change the configuration.
    Configuration(MembershipChange),
}

/// Starts the tasks that keep the connections, the configuration and this member's record in step with the records, and
/// `learner` true as long as this member's record says that it is one.
pub(crate) fn keep(
    replica: &Replica,
    (directory, outbox, forwarder): (&Directory, &Arc<Outbox>, &Forwarder),
    own: Member,
    learner: Arc<AtomicBool>,
) {
    let learner = (own.id, learner);
    tokio::spawn(connect(replica.clone(), directory.clone(), Arc::clone(outbox), forwarder.clone(), learner));
    tokio::spawn(lead(replica.clone(), directory.clone(), Arc::clone(outbox)));
    tokio::spawn(publish(replica.clone(), own));
}

/// Has connections to the present members.
async fn connect(
    replica: Replica,
    directory: Directory,
    outbox: Arc<Outbox>,
    forwarder: Forwarder,
    (own, learner): (u64, Arc<AtomicBool>),
) {
    let mut status = replica.watch_status();
    loop {
        let (members, membership) = {
            let status = status.borrow_and_update();
            (Arc::clone(&status.members), Arc::clone(&status.membership))
        };
        directory.follow(&members, &membership);
        outbox.follow(&directory);
        forwarder.follow(&directory);
        learner.store(members.get(own).is_some_and(|record| record.is_learner), Ordering::Relaxed);
        let same =
            |status: &Status| Arc::ptr_eq(&status.members, &members) && Arc::ptr_eq(&status.membership, &membership);
        if status.wait_for(|status| !same(status)).await.is_err() {
            return;
        }
    }
}

/// As long as this member leads: makes the configuration follow the records.
async fn lead(replica: Replica, directory: Directory, outbox: Arc<Outbox>) {
    let mut status = replica.watch_status();
    loop {
        let (steps, done) = {
            let status = status.borrow_and_update().clone();
            let steps = if may_lead(&status) { steps(&status, &directory, &outbox) } else { Vec::new() };
            let mut done = false;
            for step in &steps {
                done = take(&replica, step).await;
                if done {
                    break;
                }
            }
            (steps, done)
        };
        if done {
            // The status soon shows the next one.
            continue;
        }
        let changed = status.changed();
        let changed = match steps.is_empty() {
            false => tokio::time::timeout(RETRY, changed).await.unwrap_or(Ok(())),
            true => changed.await,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn may_lead(status: &Status) -> bool {
    status.is_leader && status.facts.cluster_version >= Protocol::MEMBERS
}

fn steps(status: &Status, directory: &Directory, outbox: &Outbox) -> Vec<Step> {
    let own = directory.own().replica;
    let address = |id| directory.address(id, 0).map(|address| format!("http://{address}"));
    next(&status.members, &status.membership, address, |id| id == own || outbox.reaches(id))
}

/// The steps that are possible, in the order in which they are to be tried. `reaches`: whether there is a connection to
/// a member.
fn next(
    members: &Members,
    membership: &Membership,
    address: impl Fn(NodeId) -> Option<String>,
    reaches: impl Fn(NodeId) -> bool,
) -> Vec<Step> {
    if membership.is_joint() {
        // The core leaves it by itself.
        return Vec::new();
    }
    let (voters, learners) = (&membership.incoming().voters, &membership.incoming().learners);
    let mut steps = Vec::new();
    for id in membership.members() {
        if members.get(id.0).is_none() && !members.is_removed(id.0) {
            // A founding member; or the cluster is from before there were records.
            steps.extend(address(id).map(|url| {
                let member = Member { id: id.0, peer_urls: vec![url], ..Member::default() };
                Step::Record(MemberChange::Adopt(member))
            }));
        }
        let record = members.get(id.0);
        if voters.contains(&id) && record.is_some_and(|record| record.is_learner) {
            steps.push(Step::Record(MemberChange::Promote(id.0)));
        }
    }
    for id in membership.members().into_iter().filter(|id| members.is_removed(id.0)) {
        let rest = voters.iter().filter(|voter| **voter != id);
        let (count, reached) = (rest.clone().count(), rest.filter(|voter| reaches(**voter)).count());
        // Without a majority of the others, nothing could be committed after it.
        if learners.contains(&id) || reached > count / 2 {
            steps.push(Step::Configuration(MembershipChange::Remove(id)));
        }
    }
    for member in members.iter() {
        let id = NodeId(member.id);
        if !membership.contains(id) {
            steps.push(Step::Configuration(MembershipChange::AddLearner(id)));
        } else if learners.contains(&id) && !member.is_learner && member.has_started() && reaches(id) {
            // Until it has caught up, the core refuses this.
            steps.push(Step::Configuration(MembershipChange::Promote(id)));
        }
    }
    steps
}

/// Takes a step, and returns whether it was done.
async fn take(replica: &Replica, step: &Step) -> bool {
    let done = match step {
        Step::Record(change) => write(replica, change.clone()).await,
        Step::Configuration(change) => match replica.change_membership(change.clone()).await {
            Ok(()) => {
                log(change);
                Ok(())
            }
            Err(failure) => Err(failure.to_string()),
        },
    };
    if let Err(why) = &done {
        debug!(?step, why, "a change of the members is not possible now");
    }
    done.is_ok()
}

fn log(change: &MembershipChange) {
    match change {
        MembershipChange::AddLearner(id) => info!(member = %hex(*id), "a member was added, and catches up"),
        MembershipChange::Promote(id) => info!(member = %hex(*id), "a member has caught up, and votes from now on"),
        MembershipChange::Remove(id) => info!(member = %hex(*id), "a member was removed"),
        MembershipChange::Demote(_) | MembershipChange::Replace(_) | MembershipChange::Revert => {}
    }
}

/// Publishes this member's name and addresses whenever its record has others.
async fn publish(replica: Replica, own: Member) {
    let mut status = replica.watch_status();
    loop {
        let wanted = |status: &Status| {
            let record = status.members.get(own.id);
            let differs = |record: &Member| {
                (record.incarnation, &record.name, &record.client_urls)
                    != (own.incarnation, &own.name, &own.client_urls)
            };
            status.leader.is_some() && status.facts.cluster_version >= Protocol::MEMBERS && record.is_some_and(differs)
        };
        if status.wait_for(wanted).await.is_err() {
            return;
        }
        let published = write(&replica, MemberChange::Publish(own.clone())).await;
        if let Err(why) = published {
            if why == KvError::OtherFolder.to_string() {
                error!(
                    "this member has started with another data folder before: start it with that one, or replace it"
                );
                return;
            }
            debug!(why, "can't publish this member's name and addresses; trying again");
        }
        // The own state has the change a little later.
        tokio::time::sleep(RETRY).await;
    }
}

async fn write(replica: &Replica, change: MemberChange) -> Result<(), String> {
    let command = Command::Member(MemberRequest { change: Some(change) });
    let reply = replica.write(command.to_bytes()).await.map_err(|failure: Failure| failure.to_string())?;
    let reply = decode_reply_to::<MemberRequest>(reply).map_err(|error| error.to_string())?;
    reply.map(|_| ()).map_err(|error| error.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use bowline_kv::store::{MemoryEngine, Store};
    use bowline_node::raft::{Group, Index};

    use super::*;

    /// The records after these changes.
    pub(crate) fn records(changes: Vec<MemberChange>) -> Arc<Members> {
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

    fn next_of(members: &Members, group: &Group, reached: &[u64]) -> Vec<Step> {
        let address = |id: NodeId| Some(format!("http://h{}:1", id.0));
        next(members, &Membership::simple(group.clone()), address, |id| reached.contains(&id.0))
    }

    #[test]
    fn members_of_the_configuration_get_records_and_then_nothing_is_to_be_done() {
        let three = group(&[1, 2, 3], &[]);
        let steps = next_of(&Members::default(), &three, &[]);
        let adopted = |id| Step::Record(MemberChange::Adopt(Member { incarnation: 0, ..started(id) }));
        assert_eq!(steps, [adopted(1), adopted(2), adopted(3)]);
        assert_eq!(next_of(&records(founded()), &three, &[]), []);
    }

    #[test]
    fn a_new_member_is_a_learner_until_it_has_started() {
        let mut changes = founded();
        changes.push(MemberChange::Add(Member { incarnation: 0, ..started(4) }));
        let members = records(changes.clone());
        let add = Step::Configuration(MembershipChange::AddLearner(NodeId(4)));
        assert_eq!(next_of(&members, &group(&[1, 2, 3], &[]), &[]), [add]);
        let catching_up = group(&[1, 2, 3], &[4]);
        assert_eq!(next_of(&members, &catching_up, &[4]), []);
        changes.push(MemberChange::Publish(started(4)));
        let promote = Step::Configuration(MembershipChange::Promote(NodeId(4)));
        assert_eq!(next_of(&records(changes.clone()), &catching_up, &[4]), [promote]);
        assert_eq!(next_of(&records(changes), &catching_up, &[]), [], "it can't be reached");
    }

    #[test]
    fn a_learner_stays_one_until_it_is_promoted() {
        let mut changes = founded();
        changes.push(MemberChange::Add(Member { is_learner: true, ..started(4) }));
        let members = records(changes);
        assert_eq!(next_of(&members, &group(&[1, 2, 3], &[4]), &[4]), []);
        let promoted = Step::Record(MemberChange::Promote(4));
        assert_eq!(next_of(&members, &group(&[1, 2, 3, 4], &[]), &[4]), [promoted]);
    }

    #[test]
    fn a_voter_is_removed_once_a_majority_of_the_others_can_be_reached() {
        let mut changes = founded();
        changes.push(MemberChange::Remove(3));
        let members = records(changes);
        let three = group(&[1, 2, 3], &[]);
        assert_eq!(next_of(&members, &three, &[1]), []);
        let remove = Step::Configuration(MembershipChange::Remove(NodeId(3)));
        assert_eq!(next_of(&members, &three, &[1, 2]), std::slice::from_ref(&remove));
        assert_eq!(next_of(&members, &group(&[1, 2], &[3]), &[1]), [remove], "a learner does not matter");
        assert_eq!(next_of(&members, &group(&[1, 2], &[]), &[1]), []);
        let address = |_| None;
        let joint = Membership::joint(three, group(&[1, 2], &[]));
        assert_eq!(next(&members, &joint, address, |_| true), []);
    }
}
