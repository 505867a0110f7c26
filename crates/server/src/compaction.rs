//! Automatic compaction: the leader gives up old revisions at intervals, by the rules of [`bowline_kv::compaction`].

use bowline_kv::compaction::{Retention, Schedule};
use bowline_kv::store::{Command, CompactionRequest, KvError, Principal, decode_reply_to};

use crate::clock::Clock;
use crate::replica::Replica;

/// Starts the task that compacts while this member leads. A new leader begins anew.
pub(crate) fn keep(replica: Replica, clock: Clock, retention: Retention) {
    tokio::spawn(async move {
        let mut status = replica.watch_status();
        loop {
            let Ok(term) = status.wait_for(|status| status.is_leader).await.map(|status| status.term) else { return };
            tokio::select! {
                () = lead(&replica, clock, retention) => {}
                ended = status.wait_for(|status| !status.is_leader || status.term != term) => {
                    if ended.is_err() {
                        return;
                    }
                }
            }
        }
    });
}

/// Compacts for ever.
async fn lead(replica: &Replica, clock: Clock, retention: Retention) {
    let latest = || replica.status().facts.revision;
    let mut schedule = Schedule::new(retention, clock.now(), latest());
    loop {
        tokio::time::sleep(schedule.interval()).await;
        let Some(revision) = schedule.round(clock.now(), latest()) else { continue };
        match compact(replica, revision).await {
            Ok(()) => {
                tracing::info!(revision, "compacted old revisions automatically");
                schedule.done(clock.now(), revision);
            }
            Err(why) => tracing::warn!(revision, why, "automatic compaction failed, and will be tried again"),
        }
    }
}

async fn compact(replica: &Replica, revision: i64) -> Result<(), String> {
    let command = Command::Compact(CompactionRequest { revision, physical: false });
    let reply = replica.write(command.to_bytes_by(&Principal::Member)).await.map_err(|failure| failure.to_string())?;
    match decode_reply_to::<CompactionRequest>(reply).map_err(|error| error.to_string())? {
        // A client may have compacted more.
        Ok(_) | Err(KvError::Compacted) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
