//! The apply thread's part of a rewrite: decides when the state's file is rewritten, and finishes that.
//!
//! A B-tree file keeps the space that it once needed. If less than half of it is in use, the snapshot thread copies the
//! state to another file, in steps, while the replica serves. The apply thread does only the rest, and switches to the
//! new file.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use bowline_node::{Failure, NotDone, Response};
use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::inbox::{Event, Inbox};
use super::metrics::Metrics;
use super::rewriting::{GivenUp, Rewriting};
use super::shared::Shared;
use super::snapshot_thread::SnapshotJob;
use super::store::StoreError;
use bowline_member::Facts;

/// Interval between checks whether the snapshot thread is ready.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Shortest time from the end of a rewrite to the next automatic one. It bounds the work if the file grows again at
/// once, because many writes need the space.
const REST: Duration = Duration::from_secs(300);

/// Shortest time until a rewrite that was given up is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// Practically forever.
const LONG: Duration = Duration::from_secs(3_600);

/// Decides whether a file is too large for its contents.
#[derive(Debug)]
struct Rule {
    /// Smallest size of a file that is rewritten, in bytes.
    at_bytes: u64,
    /// The sizes after the last rewrite. They tell how much the tree takes beyond its records, which is not free space.
    last: Option<Facts>,
    not_before: Option<Instant>,
}

impl Rule {
    fn applies(&self, facts: &Facts, now: Instant) -> bool {
        // A member that has no space for more data rewrites a smaller file, too, and for less.
        let full = facts.alarms.own == Some(true);
        let worth = if full { facts.db_size / 4 * 3 } else { facts.db_size / 2 };
        (full || facts.db_size >= self.at_bytes)
            && self.not_before.is_none_or(|not_before| now >= not_before)
            && self.expected(facts) < worth
    }

    /// The expected size of a new file.
    fn expected(&self, facts: &Facts) -> u64 {
        let in_use = facts.db_size_in_use;
        // A smaller file may be mostly empty, so its sizes tell nothing.
        let Some(last) = self.last.filter(|last| last.db_size >= self.at_bytes) else { return in_use };
        let expected = u128::from(in_use) * u128::from(last.db_size) / u128::from(last.db_size_in_use.max(1));
        u64::try_from(expected).unwrap_or(u64::MAX)
    }
}

/// A running rewrite.
#[derive(Debug)]
struct Run {
    began: Instant,
    before: Facts,
    /// The channels of requests that wait for its end.
    replies: Vec<oneshot::Sender<Response>>,
}

/// The state of the apply thread's part.
#[derive(Debug)]
pub(crate) struct Shrink {
    rule: Rule,
    requests: Vec<oneshot::Sender<Response>>,
    run: Option<Run>,
}

impl Shrink {
    pub(crate) fn new(at_bytes: u64) -> Shrink {
        Shrink { rule: Rule { at_bytes, last: None, not_before: None }, requests: Vec::new(), run: None }
    }

    /// Takes a request for a rewrite, whatever the rule says.
    pub(crate) fn request(&mut self, reply: oneshot::Sender<Response>) {
        match &mut self.run {
            Some(run) => run.replies.push(reply),
            None => self.requests.push(reply),
        }
    }

    /// Longest pause until the next call of [`Shrink::tend`].
    pub(crate) fn pause(&self) -> Duration {
        match (&self.run, self.rule.not_before) {
            (Some(_), _) => LOOK_PAUSE,
            // Compacted revisions are removed first, and there is no event for the end of that.
            (None, _) if !self.requests.is_empty() => LOOK_PAUSE,
            // A rewrite may become due without any event.
            (None, Some(_)) => RETRY,
            (None, None) => LONG,
        }
    }

    /// Begins a rewrite if one is due, and finishes one that is ready.
    ///
    /// # Errors
    /// The switch to the new file failed halfway: after a crash, either file may be there.
    pub(crate) fn tend(
        &mut self,
        shared: &Shared,
        snapshots: &Sender<SnapshotJob>,
        inbox: &Inbox,
        metrics: &Metrics,
    ) -> Result<(), StoreError> {
        let Some(run) = self.run.take() else {
            self.begin(shared, snapshots);
            metrics.rewriting.set(self.run.is_some().into());
            return Ok(());
        };
        let Some(rewritten) = shared.take_rewritten() else {
            self.run = Some(run);
            return Ok(());
        };
        let rest = Instant::now();
        let outcome = match rewritten {
            Ok(rewriting) => take_in_use(rewriting, shared, snapshots)?,
            Err(given_up) => Err(given_up),
        };
        let now = Instant::now();
        let (after, took) = (shared.facts(), now - run.began);
        metrics.rewriting.set(0);
        match &outcome {
            Ok(()) => {
                metrics.rewrites.observe(took.as_secs_f64());
                self.rule.last = Some(after);
                self.rule.not_before = now.checked_add(REST);
                info!(
                    mib_before = mib(run.before.db_size),
                    mib_after = mib(after.db_size),
                    mib_in_use = mib(after.db_size_in_use),
                    ?took,
                    last_step = ?now - rest,
                    "rewrote the state's file"
                );
            }
            Err(given_up) => {
                self.rule.not_before = now.checked_add(RETRY);
                warn!(?took, error = %given_up, "gave up rewriting the state's file");
            }
        }
        for reply in run.replies {
            inbox.push_event(Event::Done(reply, answer(&outcome)));
        }
        inbox.push_event(Event::Facts);
        Ok(())
    }

    fn begin(&mut self, shared: &Shared, snapshots: &Sender<SnapshotJob>) {
        let (before, began) = (shared.facts(), Instant::now());
        if self.requests.is_empty() && !self.rule.applies(&before, began) {
            return;
        }
        // Otherwise compacted revisions would be copied, too.
        if shared.read().is_untidy() {
            return;
        }
        let (mib, mib_in_use) = (mib(before.db_size), mib(before.db_size_in_use));
        info!(mib, mib_in_use, "rewriting the state's file");
        self.run = Some(Run { began, before, replies: std::mem::take(&mut self.requests) });
        // The snapshot thread ends only after this one.
        let _ = snapshots.send(SnapshotJob::Rewrite);
    }
}

/// Does the rest of a rewrite, and switches to the new file.
///
/// # Errors
/// After a crash, either file may be there, so nothing more may be written.
fn take_in_use(
    rewriting: Rewriting,
    shared: &Shared,
    snapshots: &Sender<SnapshotJob>,
) -> Result<Result<(), GivenUp>, StoreError> {
    let (rewrite, mut file) = rewriting.into_parts();
    // Only this thread changes the state, so a read lock is enough, and readers need not wait.
    let finished = shared.read().finish_rewrite(rewrite);
    let rewritten = match finished {
        Ok(rewritten) => rewritten,
        Err(error) => {
            shared.read().forget_rewrite();
            return Ok(Err(error.into()));
        }
    };
    if let Err(error) = file.take_name() {
        shared.read().forget_rewrite();
        return Ok(Err(error.into()));
    }
    file.sync_name().map_err(|error| StoreError::Fatal(format!("can't sync the folder of the state: {error}")))?;
    let mut machine = shared.write();
    let old = machine.move_to(rewritten);
    let facts = machine.facts();
    drop(machine);
    shared.set_facts(facts);
    // Dropping a large file takes time, so another thread does it.
    let _ = snapshots.send(SnapshotJob::Drop(Box::new(old)));
    Ok(Ok(()))
}

fn answer(outcome: &Result<(), GivenUp>) -> Response {
    match outcome {
        Ok(()) => Ok(Bytes::new()),
        Err(GivenUp::NoRoom) => Err(NotDone::NoSpace.into()),
        Err(given_up) => Err(Failure::refused(format_args!("not defragmented: {given_up}"))),
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod crashes;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::AlarmFacts;

    fn facts(db_size: u64, db_size_in_use: u64) -> Facts {
        Facts { db_size, db_size_in_use, ..Facts::default() }
    }

    #[test]
    fn a_file_is_too_large_when_it_is_large_and_less_than_half_in_use() {
        let rule = Rule { at_bytes: 1_000, last: None, not_before: None };
        let applies = |size, in_use| rule.applies(&facts(size, in_use), Instant::now());
        assert!(applies(1_000, 499) && applies(1_000, 0) && applies(9_000, 4_000));
        assert!(!applies(999, 0) && !applies(1_000, 500) && !applies(1_000, 1_000));
    }

    #[test]
    fn a_member_that_has_no_space_rewrites_a_smaller_file_for_less() {
        let rule = Rule { at_bytes: 1_000, last: None, not_before: None };
        let alarms = AlarmFacts { own: Some(true), ..AlarmFacts::default() };
        let applies = |size, in_use| rule.applies(&Facts { alarms, ..facts(size, in_use) }, Instant::now());
        assert!(applies(400, 299) && applies(1_000, 749));
        assert!(!applies(400, 300) && !applies(1_000, 750));
    }

    #[test]
    fn what_a_rewrite_could_not_save_is_not_tried_again_before_something_changes() {
        // Small records: the tree takes as much as they do, and more.
        let rule = Rule { at_bytes: 1_000, last: Some(facts(3_000, 1_000)), not_before: None };
        let applies = |size, in_use| rule.applies(&facts(size, in_use), Instant::now());
        assert!(!applies(3_000, 1_000) && !applies(6_000, 1_000));
        assert!(applies(6_100, 1_000), "the file has grown");
        assert!(applies(3_000, 499), "much was removed");
        // A new file that was small says nothing about a large one.
        let rule = Rule { at_bytes: 1_000, last: Some(facts(900, 1)), not_before: None };
        assert!(rule.applies(&facts(1_000, 400), Instant::now()));
    }

    #[test]
    fn after_a_rewrite_the_next_one_waits() {
        let now = Instant::now();
        let rule = Rule { at_bytes: 1_000, last: None, not_before: now.checked_add(RETRY) };
        assert!(!rule.applies(&facts(9_000, 0), now));
        assert!(rule.applies(&facts(9_000, 0), now + RETRY));
    }
}
