//! The second part of a rewrite of the state's file: decides when the file is rewritten, and finishes that.
//!
//! A B-tree file keeps the space that it once needed. If less than half of it is in use, the worker of the snapshots
//! copies the state to another file, in steps, while the member serves. The worker of the state does only the rest, and
//! switches to the new file.

use std::time::Duration;

use bowline_node::raft::Time;
use bowline_node::{Failure, NotDone, Response};
use bytes::Bytes;
use tracing::{info, warn};

use crate::disk::StateDisk;
use crate::instruments::Instruments;
use crate::outlet::{Fatal, Outlet};
use crate::queue::Event;
use crate::rewriting::{GivenUp, Rewriting};
use crate::shared::Shared;
use crate::snapshots::SnapshotJob;
use crate::status::Facts;

/// Interval between checks whether the worker of the snapshots is ready.
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
    not_before: Time,
}

impl Rule {
    fn applies(&self, facts: &Facts, now: Time) -> bool {
        // A member that has no space for more data rewrites a smaller file, too, and for less.
        let full = facts.alarms.own == Some(true);
        let worth = if full { facts.db_size / 4 * 3 } else { facts.db_size / 2 };
        (full || facts.db_size >= self.at_bytes) && now >= self.not_before && self.expected(facts) < worth
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
struct Run<R> {
    /// The stopwatch when it began.
    began: Duration,
    before: Facts,
    /// Where the answers to the requests go that wait for its end.
    replies: Vec<R>,
}

/// The state of this part.
#[derive(Debug)]
pub(crate) struct Shrink<R> {
    rule: Rule,
    requests: Vec<R>,
    run: Option<Run<R>>,
}

impl<R> Shrink<R> {
    pub(crate) fn new(at_bytes: u64) -> Shrink<R> {
        Shrink { rule: Rule { at_bytes, last: None, not_before: Time::ZERO }, requests: Vec::new(), run: None }
    }

    /// Takes a request for a rewrite, whatever the rule says.
    pub(crate) fn request(&mut self, reply: R) {
        match &mut self.run {
            Some(run) => run.replies.push(reply),
            None => self.requests.push(reply),
        }
    }

    /// Longest pause until the next call of [`Shrink::tend`].
    pub(crate) fn pause(&self) -> Duration {
        match &self.run {
            Some(_) => LOOK_PAUSE,
            // Compacted revisions are removed first, and there is no event for the end of that.
            None if !self.requests.is_empty() => LOOK_PAUSE,
            None if self.rule.not_before == Time::ZERO => LONG,
            // A rewrite may become due without any event.
            None => RETRY,
        }
    }

    /// Begins a rewrite if one is due, and finishes one that is ready.
    ///
    /// # Errors
    /// The switch to the new file failed halfway: after a crash, either file may be there.
    pub(crate) fn tend<D: StateDisk>(
        &mut self,
        now: Time,
        shared: &Shared<D>,
        outlet: &mut impl Outlet<R>,
        instruments: &dyn Instruments,
    ) -> Result<(), Fatal> {
        let Some(run) = self.run.take() else {
            self.begin(now, shared, outlet, instruments);
            instruments.rewriting(self.run.is_some());
            return Ok(());
        };
        let Some(rewritten) = shared.take_rewritten() else {
            self.run = Some(run);
            return Ok(());
        };
        let rest = instruments.stopwatch();
        let outcome = match rewritten {
            Ok(rewriting) => take_in_use(rewriting, shared, outlet)?,
            Err(given_up) => Err(given_up),
        };
        let done = instruments.stopwatch();
        let (after, took) = (shared.facts(), done.saturating_sub(run.began));
        instruments.rewriting(false);
        match &outcome {
            Ok(()) => {
                instruments.rewritten(took);
                self.rule.last = Some(after);
                self.rule.not_before = now.after(REST);
                info!(
                    mib_before = mib(run.before.db_size),
                    mib_after = mib(after.db_size),
                    mib_in_use = mib(after.db_size_in_use),
                    ?took,
                    last_step = ?done.saturating_sub(rest),
                    "rewrote the state's file"
                );
            }
            Err(given_up) => {
                self.rule.not_before = now.after(RETRY);
                warn!(?took, error = %given_up, "gave up rewriting the state's file");
            }
        }
        for reply in run.replies {
            outlet.event(Event::Done(reply, answer(&outcome)));
        }
        outlet.event(Event::Facts);
        Ok(())
    }

    fn begin<D: StateDisk>(
        &mut self,
        now: Time,
        shared: &Shared<D>,
        outlet: &mut impl Outlet<R>,
        instruments: &dyn Instruments,
    ) {
        let before = shared.facts();
        if self.requests.is_empty() && !self.rule.applies(&before, now) {
            return;
        }
        // Otherwise compacted revisions would be copied, too.
        if shared.read().is_untidy() {
            return;
        }
        let (mib, mib_in_use) = (mib(before.db_size), mib(before.db_size_in_use));
        info!(mib, mib_in_use, "rewriting the state's file");
        let began = instruments.stopwatch();
        self.run = Some(Run { began, before, replies: std::mem::take(&mut self.requests) });
        outlet.snapshot_job(SnapshotJob::Rewrite);
    }
}

/// Does the rest of a rewrite, and switches to the new file.
///
/// # Errors
/// After a crash, either file may be there, so nothing more may be written.
fn take_in_use<D: StateDisk, R>(
    rewriting: Rewriting<D>,
    shared: &Shared<D>,
    outlet: &mut impl Outlet<R>,
) -> Result<Result<(), GivenUp>, Fatal> {
    let (rewrite, mut file) = rewriting.into_parts();
    // Only this worker changes the state, so a read lock is enough, and readers need not wait.
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
    file.sync_name().map_err(|error| Fatal(format!("can't sync the folder of the state: {error}")))?;
    let mut machine = shared.write();
    let old = machine.move_to(rewritten);
    let facts = machine.facts();
    drop(machine);
    shared.set_facts(facts);
    // Dropping a large file takes time, so the other worker does it.
    outlet.snapshot_job(SnapshotJob::Drop(Box::new(old)));
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
    use crate::status::AlarmFacts;

    fn facts(db_size: u64, db_size_in_use: u64) -> Facts {
        Facts { db_size, db_size_in_use, ..Facts::default() }
    }

    #[test]
    fn a_file_is_too_large_when_it_is_large_and_less_than_half_in_use() {
        let rule = Rule { at_bytes: 1_000, last: None, not_before: Time::ZERO };
        let applies = |size, in_use| rule.applies(&facts(size, in_use), Time::ZERO);
        assert!(applies(1_000, 499) && applies(1_000, 0) && applies(9_000, 4_000));
        assert!(!applies(999, 0) && !applies(1_000, 500) && !applies(1_000, 1_000));
    }

    #[test]
    fn a_member_that_has_no_space_rewrites_a_smaller_file_for_less() {
        let rule = Rule { at_bytes: 1_000, last: None, not_before: Time::ZERO };
        let alarms = AlarmFacts { own: Some(true), ..AlarmFacts::default() };
        let applies = |size, in_use| rule.applies(&Facts { alarms, ..facts(size, in_use) }, Time::ZERO);
        assert!(applies(400, 299) && applies(1_000, 749));
        assert!(!applies(400, 300) && !applies(1_000, 750));
    }

    #[test]
    fn what_a_rewrite_could_not_save_is_not_tried_again_before_something_changes() {
        // Small records: the tree takes as much as they do, and more.
        let rule = Rule { at_bytes: 1_000, last: Some(facts(3_000, 1_000)), not_before: Time::ZERO };
        let applies = |size, in_use| rule.applies(&facts(size, in_use), Time::ZERO);
        assert!(!applies(3_000, 1_000) && !applies(6_000, 1_000));
        assert!(applies(6_100, 1_000), "the file has grown");
        assert!(applies(3_000, 499), "much was removed");
        // A new file that was small says nothing about a large one.
        let rule = Rule { at_bytes: 1_000, last: Some(facts(900, 1)), not_before: Time::ZERO };
        assert!(rule.applies(&facts(1_000, 400), Time::ZERO));
    }

    #[test]
    fn after_a_rewrite_the_next_one_waits() {
        let rule = Rule { at_bytes: 1_000, last: None, not_before: Time::ZERO.after(RETRY) };
        assert!(!rule.applies(&facts(9_000, 0), Time::ZERO));
        assert!(rule.applies(&facts(9_000, 0), Time::ZERO.after(RETRY)));
    }
}
