//! What a member does on its own, as [`bowline_member::Duties`] decides it; and its connections to the members of the
//! records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bowline_kv::store::{AlarmRequest, Principal, decode_reply_to};
use bowline_member::{Action, Duties, Duty, DutySettings, Peers, Quota, View, own_alarm};
use bowline_node::Response;
use bowline_node::raft::NodeId;
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::peer::{Directory, Forwarder, Outbox};
use crate::replica::{AlarmFacts, Facts, Replica, Status};

/// Starts the tasks. They keep `learner` true as long as this member's record says that it is one.
pub(crate) fn keep(
    replica: &Replica,
    settings: DutySettings,
    clock: Clock,
    (directory, outbox, forwarder): (&Directory, &Arc<Outbox>, &Forwarder),
    learner: Arc<AtomicBool>,
) {
    let (quota, recommended) = (settings.quota.0, Quota::RECOMMENDED.0);
    if quota > recommended {
        tracing::warn!(bytes = quota, recommended, "--quota-backend-bytes is more than recommended");
    }
    tokio::spawn(connect(replica.clone(), directory.clone(), Arc::clone(outbox), forwarder.clone(), learner));
    let duties = Duties::new(settings, replica.status().facts.revision);
    tokio::spawn(drive(replica.clone(), duties, clock, directory.clone(), Arc::clone(outbox)));
    tokio::spawn(follow(replica.clone(), directory.clone()));
}

/// Has connections to the present members.
async fn connect(
    replica: Replica,
    directory: Directory,
    outbox: Arc<Outbox>,
    forwarder: Forwarder,
    learner: Arc<AtomicBool>,
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
        let own = members.get(replica.id().0);
        learner.store(own.is_some_and(|record| record.is_learner), Ordering::Relaxed);
        let same =
            |status: &Status| Arc::ptr_eq(&status.members, &members) && Arc::ptr_eq(&status.membership, &membership);
        if status.wait_for(|status| !same(status)).await.is_err() {
            return;
        }
    }
}

/// Carries out the duties until the replica stops.
async fn drive(replica: Replica, mut duties: Duties, clock: Clock, directory: Directory, outbox: Arc<Outbox>) {
    let (mut status, mut under_way) = (replica.watch_status(), JoinSet::new());
    let connections = Connections { directory: &directory, outbox: &outbox };
    loop {
        let actions = {
            let status = status.borrow_and_update();
            let view = View {
                term: status.term,
                is_leader: status.is_leader,
                leader: status.leader,
                membership: &status.membership,
                members: &status.members,
                facts: &status.facts,
            };
            duties.look(clock.now(), &view, &connections)
        };
        for (duty, action) in actions {
            under_way.spawn(act(replica.clone(), duty, action));
        }
        let pause = clock.until(duties.due()).unwrap_or(Duration::MAX);
        tokio::select! {
            changed = status.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some(Ok((duty, answer))) = under_way.join_next() => duties.ended(clock.now(), duty, answer),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn act(replica: Replica, duty: Duty, action: Action) -> (Duty, Response) {
    let answer = match action {
        Action::Write(command) => replica.write(command.to_bytes_by(&Principal::Member)).await,
        Action::Change(change) => replica.change_membership(change).await.map(|()| Bytes::new()),
    };
    (duty, answer)
}

/// What the connections tell of the other members.
struct Connections<'a> {
    directory: &'a Directory,
    outbox: &'a Outbox,
}

impl Peers for Connections<'_> {
    fn url(&self, id: NodeId) -> Option<String> {
        self.directory.address(id, 0).map(|address| self.directory.url(&address))
    }

    fn reaches(&self, id: NodeId) -> bool {
        id == self.directory.own().replica || self.outbox.reaches(id)
    }

    fn speaks(&self, id: NodeId) -> Option<u32> {
        match id == self.directory.own().replica {
            true => Some(self.directory.protocol().version),
            // What a member told over a lost connection may be outdated.
            false => self.outbox.reaches(id).then(|| self.directory.introduction(id).version),
        }
    }
}

/// Logs changes of the alarms and of the version of the cluster. From then on, peers that are too old are refused.
async fn follow(replica: Replica, directory: Directory) {
    let mut status = replica.watch_status();
    let mut known = Facts { alarms: AlarmFacts::default(), ..status.borrow().facts };
    loop {
        let facts = status.borrow_and_update().facts;
        log_alarms(known.alarms, facts.alarms);
        if facts.cluster_version != known.cluster_version {
            directory.set_cluster_version(facts.cluster_version);
            tracing::info!(version = facts.cluster_version, "the version of the cluster was raised");
        }
        known = facts;
        let changed = |status: &Status| {
            (status.facts.alarms, status.facts.cluster_version) != (known.alarms, known.cluster_version)
        };
        if status.wait_for(changed).await.is_err() {
            return;
        }
    }
}

fn log_alarms(before: AlarmFacts, now: AlarmFacts) {
    for (alarm, before, now) in [("NOSPACE", before.no_space, now.no_space), ("CORRUPT", before.corrupt, now.corrupt)] {
        match (before, now) {
            (false, true) => tracing::warn!(alarm, "an alarm is active, so requests are refused"),
            (true, false) => tracing::info!(alarm, "the alarm is over"),
            _ => {}
        }
    }
}

/// Raises this member's alarm, because a write was refused. If that fails, the next refused write tries it again.
pub(crate) async fn raise_alarm(replica: &Replica, quota: Quota) {
    if !quota.alarms(&replica.status().facts) {
        return;
    }
    let reply = replica.write(own_alarm(replica.id().0, true).to_bytes_by(&Principal::Member)).await;
    if !reply.is_ok_and(|reply| decode_reply_to::<AlarmRequest>(reply).is_ok_and(|reply| reply.is_ok())) {
        tracing::debug!("can't raise the alarm NOSPACE; the next refused write tries it again");
    }
}
