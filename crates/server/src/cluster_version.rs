//! Raises the version of the cluster to the latest that all members speak: see [`crate::peer::Protocol`].

use std::sync::Arc;
use std::time::Duration;

use bowline_kv::store::{ClusterVersionRequest, Command, Principal};

use crate::peer::{Directory, Outbox, raised};
use crate::replica::{Replica, Status};

/// Interval of the leader's checks whether all members speak a later version.
const PAUSE: Duration = Duration::from_millis(200);

/// Starts the task for the version: a leader raises it; every member logs it, and from then on refuses peers that are
/// too old.
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
                // If this fails, or its outcome is unknown, the next round tries again.
                let _ = replica.write(raise.to_bytes_by(&Principal::Member)).await;
            }
            // A member that connects may speak another version, and there is no event for that.
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

/// The version to which this member, as the leader, can raise the cluster.
fn next(status: &Status, directory: &Directory, outbox: &Outbox) -> Option<u32> {
    let own = directory.own().replica;
    let speaks = |id| match id == own {
        true => Some(directory.protocol().version),
        // What a member told over a lost connection may be outdated.
        false => outbox.reaches(id).then(|| directory.introduction(id).version),
    };
    raised(status.facts.cluster_version, status.membership.members().into_iter().map(speaks))
}
