//! The comparison of the members' states, which always runs: the leader writes marks, and each member reports its
//! checksums. The state gives the verdict; see `bowline_kv::store::CompareStep`.

use std::time::Duration;

use bowline_kv::store::{Command, CompareRequest, CompareStep, decode_reply_to};

use crate::peer::Protocol;
use crate::replica::{Facts, Replica, Status};

/// Pause before a report that failed is written again.
const RETRY: Duration = Duration::from_secs(1);

/// Starts the tasks. `interval`: the time between something that is written and the next mark.
pub(crate) fn keep(replica: &Replica, interval: Duration) {
    tokio::spawn(mark(replica.clone(), interval));
    tokio::spawn(report(replica.clone()));
}

fn is_due(status: &Status) -> bool {
    status.is_leader && status.facts.cluster_version >= Protocol::COMPARISON && status.facts.comparison.mark_due
}

async fn mark(replica: Replica, interval: Duration) {
    let mut status = replica.watch_status();
    while status.wait_for(is_due).await.is_ok() {
        tokio::time::sleep(interval).await;
        if is_due(&status.borrow()) && write(&replica, CompareStep::Mark(())).await {
            // The own state has it a little later.
            replica.reaches(|facts| !facts.comparison.mark_due).await;
        }
    }
}

async fn report(replica: Replica) {
    let mut status = replica.watch_status();
    let owed = |facts: &Facts| facts.comparison.report;
    while let Ok(found) = status.wait_for(|status| owed(&status.facts).is_some()).await.map(|found| found.facts) {
        let Some(step) = owed(&found) else { continue };
        if !write(&replica, step).await || !replica.reaches(|facts| owed(facts) != Some(step)).await {
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn write(replica: &Replica, step: CompareStep) -> bool {
    let command = Command::Compare(CompareRequest { step: Some(step) });
    let done = match replica.write(command.to_bytes()).await {
        Ok(reply) => decode_reply_to::<CompareRequest>(reply).is_ok_and(|reply| reply.is_ok()),
        Err(_) => false,
    };
    if !done {
        tracing::debug!(?step, "a step of the comparison of the members failed; trying again");
    }
    done
}
