//! Gives the cluster the latest version that all of its members speak: see [`crate::peer::Protocol`].

use std::sync::Arc;
use std::time::Duration;

use bowline_kv::store::{ClusterVersionRequest, Command};

use crate::peer::{Directory, Outbox, raised};
use crate::replica::{Replica, Status};

/// How long a leader waits until it looks again whether all members speak a later version.
const PAUSE: Duration = Duration::from_millis(200);

/// Starts the task that keeps the version: a leader raises it; every member logs it, and from then on
/// refuses peers that are too old.
pub(crate) fn keep(replica: Replica, directory: Directory, outbox: Arc<Outbox>) {
    tokio::spawn(async move {
        let mut status = replica.watch_status();
        let mut told = status.borrow().facts.cluster_version;
        loop {
            let version = status.borrow_and_update().facts.cluster_version;
            if version != told {
                told = version;
                directory.set_cluster_version(version);
                tracing::info!(version, "the version of the cluster was raised");
            }
            let may_raise = status.borrow().is_leader && version < directory.protocol().version;
            let later = if may_raise { next(&status.borrow(), &directory, &outbox) } else { None };
            if let Some(version) = later {
                let raise = Command::ClusterVersion(ClusterVersionRequest { version });
                // If it came to nothing, or nobody knows, it is tried again.
                let _ = replica.write(raise.to_bytes()).await;
            }
            // What members speak changes when they connect, and nothing tells of that.
            let changed = status.changed();
            let changed = match may_raise {
                true => tokio::time::timeout(PAUSE, changed).await.unwrap_or(Ok(())),
                false => changed.await,
            };
            if changed.is_err() {
                return;
            }
        }
    });
}

/// The version to which the leader, this member, can raise the cluster.
fn next(status: &Status, directory: &Directory, outbox: &Outbox) -> Option<u32> {
    let own = directory.own().replica;
    let speaks = |id| match id == own {
        true => Some(directory.protocol().version),
        // What was heard over a connection that is lost may be true no more.
        false => outbox.reaches(id).then(|| directory.introduction(id).version),
    };
    raised(status.facts.cluster_version, status.membership.members().into_iter().map(speaks))
}
