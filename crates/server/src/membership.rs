//! Changes of the members.
//!
//! The leader takes the steps that [`bowline_kv::membership`] decides, until the configuration of the consensus core has
//! the members of the records. Each member publishes its own name and addresses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bowline_kv::membership::{Attempts, Next, RETRY, SINCE_VERSION, Step, must_publish, next, takes_steps};
use bowline_kv::store::{Command, KvError, Member, MemberChange, MemberRequest, Principal, decode_reply_to};
use bowline_node::Failure;
use bowline_node::raft::MembershipChange;
use tracing::{debug, error, info};

use crate::peer::{Directory, Forwarder, Outbox, hex};
use crate::replica::{Replica, Status};

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
    let mut attempts = Attempts::default();
    loop {
        let steps = {
            let status = status.borrow_and_update();
            let takes_steps = takes_steps(status.is_leader, status.facts.cluster_version);
            if takes_steps { steps(&status, &directory, &outbox) } else { Vec::new() }
        };
        let changed = match attempts.choose(steps) {
            Next::Take(step) => {
                let done = take(&replica, &step).await;
                attempts.ended(step, done);
                continue;
            }
            Next::Pause => tokio::time::timeout(RETRY, status.changed()).await.unwrap_or(Ok(())),
            Next::Rest => status.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn steps(status: &Status, directory: &Directory, outbox: &Outbox) -> Vec<Step> {
    let own = directory.own().replica;
    let address = |id| directory.address(id, 0).map(|address| directory.url(&address));
    next(&status.members, &status.membership, address, |id| id == own || outbox.reaches(id))
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
            let outdated = status.members.get(own.id).is_some_and(|record| must_publish(record, &own));
            status.leader.is_some() && status.facts.cluster_version >= SINCE_VERSION && outdated
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
    let reply =
        replica.write(command.to_bytes_by(&Principal::Member)).await.map_err(|failure: Failure| failure.to_string())?;
    let reply = decode_reply_to::<MemberRequest>(reply).map_err(|error| error.to_string())?;
    reply.map(|_| ()).map_err(|error| error.to_string())
}
