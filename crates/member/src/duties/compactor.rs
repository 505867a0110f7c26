//! Automatic compaction, by the rules of [`bowline_kv::compaction`]. A new leader begins anew.

use std::time::Duration;

use bowline_kv::compaction::{Retention, Schedule};
use bowline_kv::store::{CompactionRequest, KvError, decode_reply_to};
use bowline_node::Response;
use bowline_node::raft::Time;

use super::View;

#[derive(Debug)]
pub(super) struct Compactor {
    retention: Retention,
    revisions_pause: Duration,
    /// While this member leads.
    leading: Option<Leading>,
    /// The compaction that is on its way: the term and the revision.
    under_way: Option<(u64, i64)>,
}

#[derive(Debug)]
struct Leading {
    term: u64,
    schedule: Schedule,
    /// The next round.
    due: Time,
}

impl Compactor {
    pub(super) fn new(retention: Retention, revisions_pause: Duration) -> Compactor {
        Compactor { retention, revisions_pause, leading: None, under_way: None }
    }

    /// What is to be compacted now.
    pub(super) fn next(&mut self, now: Time, view: &View<'_>) -> Option<CompactionRequest> {
        if !view.is_leader {
            self.leading = None;
            return None;
        }
        let leading = match &mut self.leading {
            Some(leading) if leading.term == view.term => leading,
            begins => {
                let schedule = Schedule::new(self.retention, self.revisions_pause, now, view.facts.revision);
                let due = now.after(schedule.interval());
                begins.insert(Leading { term: view.term, schedule, due })
            }
        };
        if self.under_way.is_some() || now < leading.due {
            return None;
        }
        leading.due = now.after(leading.schedule.interval());
        let revision = leading.schedule.round(now, view.facts.revision)?;
        self.under_way = Some((view.term, revision));
        Some(CompactionRequest { revision, physical: false })
    }

    pub(super) fn due(&self) -> Time {
        let due = self.leading.as_ref().filter(|_| self.under_way.is_none()).map(|leading| leading.due);
        due.unwrap_or(Time::NEVER)
    }

    pub(super) fn ended(&mut self, now: Time, answer: Response) -> Result<(), String> {
        let Some((term, revision)) = self.under_way.take() else { return Ok(()) };
        let done = done(answer);
        match &done {
            Ok(()) => tracing::info!(revision, "compacted old revisions automatically"),
            Err(why) => tracing::warn!(revision, why, "automatic compaction failed, and will be tried again"),
        }
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.term == term) {
            if done.is_ok() {
                leading.schedule.done(now, revision);
            }
            leading.due = now.after(leading.schedule.interval());
        }
        Ok(())
    }
}

fn done(answer: Response) -> Result<(), String> {
    let reply = answer.map_err(|failure| failure.to_string())?;
    match decode_reply_to::<CompactionRequest>(reply).map_err(|error| error.to_string())? {
        // A client may have compacted more.
        Ok(_) | Err(KvError::Compacted) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
