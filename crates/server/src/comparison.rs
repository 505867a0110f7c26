//! The comparison of the members' states, which always runs: the leader writes marks, and each member reports its
//! checksums. The state gives the verdict; see `bowline_kv::store::CompareStep`.

use std::time::Duration;

use bowline_kv::store::{Command, CompareRequest, CompareStep, Principal, Reports};

use crate::peer::Protocol;
use crate::replica::{Replica, Status};

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
    let (mut status, mut reports) = (replica.watch_status(), Reports::default());
    loop {
        let next = |status: &Status| reports.next(status.facts.comparison.report);
        let Ok(report) = status.wait_for(|status| next(status).is_some()).await.map(|status| next(&status)) else {
            return;
        };
        let Some(report) = report else { continue };
        match write(&replica, report).await {
            true => reports.answered(report),
            false => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Returns whether there was an answer.
async fn write(replica: &Replica, step: CompareStep) -> bool {
    let command = Command::Compare(CompareRequest { step: Some(step) });
    let answer = replica.write(command.to_bytes_by(&Principal::Member)).await;
    if let Err(failure) = &answer {
        tracing::debug!(?step, %failure, "a step of the comparison of the members failed; trying again");
    }
    answer.is_ok()
}
