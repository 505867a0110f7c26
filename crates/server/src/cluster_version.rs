//! Gives the cluster the latest version that all of its members speak: see [`crate::peer::PROTOCOL_VERSION`].

use std::sync::Arc;
use std::time::Duration;

use bowline_kv::store::{ClusterVersionRequest, Command};

use crate::journal::Journal;
use crate::peer::{Directory, Outbox, PROTOCOL_VERSION, raised};
use crate::replica::{Replica, Status};

/// How long a leader waits until it looks again whether all members speak a later version.
const PAUSE: Duration = Duration::from_millis(200);

/// Starts the task that keeps the version: a leader raises it, every member tells its peers' side and the journal.
pub(crate) fn keep(replica: Replica, directory: Directory, outbox: Arc<Outbox>, journal: Journal) {
    tokio::spawn(async move {
        let mut status = replica.watch_status();
        let mut told = status.borrow().facts.cluster_version;
        loop {
            let version = status.borrow().facts.cluster_version;
            if version != told {
                told = version;
                directory.set_cluster_version(version);
                journal.info(format_args!("the cluster has version {version} of the peer protocol"));
            }
            let later = next(&status.borrow_and_update(), &directory, &outbox);
            if let Some(version) = later {
                let raise = Command::ClusterVersion(ClusterVersionRequest { version });
                // If it came to nothing, or nobody knows, it is tried again.
                let _ = replica.write(raise.to_bytes()).await;
            }
            // What members speak changes when they connect, and nothing tells of that.
            let waits = status.borrow().is_leader && version < PROTOCOL_VERSION;
            let changed = status.changed();
            let changed = match waits {
                true => tokio::time::timeout(PAUSE, changed).await.unwrap_or(Ok(())),
                false => changed.await,
            };
            if changed.is_err() {
                return;
            }
        }
    });
}

/// The version that this member can raise the cluster to, if it leads.
fn next(status: &Status, directory: &Directory, outbox: &Outbox) -> Option<u32> {
    if !status.is_leader {
        return None;
    }
    let own = directory.own().replica;
    let speaks = |id| match id == own {
        true => Some(PROTOCOL_VERSION),
        // What was heard over a connection that is lost may be true no more.
        false => outbox.reaches(id).then(|| directory.introduction(id).version),
    };
    raised(status.facts.cluster_version, status.membership.members().into_iter().map(speaks))
}
