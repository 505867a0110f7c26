//! The quota of the state's size.
//!
//! A member refuses requests that would bring its state to the quota, and raises the alarm NOSPACE. When its state is
//! smaller again, it takes this alarm back. An alarm that an operator activated is not its business.

use std::time::Duration;

use bowline_kv::store::{AlarmKind, AlarmRequest, Command, Principal, decode_reply_to};

use crate::peer::Protocol;
use crate::replica::{AlarmFacts, Facts, Replica};

/// The quota if there is no setting, in bytes, as in etcd.
pub(crate) const DEFAULT_BYTES: i64 = 2 << 30;

/// A greater quota than this is not recommended, as in etcd.
const RECOMMENDED_BYTES: i64 = 8 << 30;

/// The part of the quota below which the state must be before the alarm is taken back. If it were taken back just below
/// the quota, a few writes would raise it again.
const MARGIN: u64 = 10;

/// Pause before a change of the alarm that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The quota, in bytes; negative: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota(pub(crate) i64);

impl Quota {
    /// Whether a command may be proposed that needs so many bytes.
    pub(crate) fn admits(self, facts: &Facts, cost: u64) -> bool {
        cost == 0 || u64::try_from(self.0).map_or(true, |quota| facts.db_size.saturating_add(cost) < quota)
    }

    /// Whether the state is so far below the quota that there is no reason for an alarm.
    fn is_far(self, facts: &Facts) -> bool {
        u64::try_from(self.0).map_or(true, |quota| facts.db_size < quota - quota / MARGIN)
    }

    /// Whether the member's own alarm is to be raised (`true`) or taken back (`false`). `wrote`: whether something was
    /// written since the last time. Otherwise an alarm that an operator has just deactivated would be raised again.
    fn change(self, facts: &Facts, wrote: bool) -> Option<bool> {
        match (facts.alarms.own, u64::try_from(self.0)) {
            _ if facts.cluster_version < Protocol::ALARMS => None,
            (None, Ok(quota)) => (wrote && facts.db_size >= quota).then_some(true),
            // The quota may have been turned off, too.
            (Some(true), _) => self.is_far(facts).then_some(false),
            (Some(false), _) | (None, Err(_)) => None,
        }
    }
}

/// Raises this member's alarm, because a write was refused. If that fails, the next refused write tries it again. One
/// large write that is refused far below the quota is no reason for an alarm.
pub(crate) async fn raise(replica: &Replica, quota: Quota) {
    let facts = replica.status().facts;
    if facts.alarms.own.is_none() && facts.cluster_version >= Protocol::ALARMS && !quota.is_far(&facts) {
        let _ = set(replica, true).await;
    }
}

/// Starts the task that raises this member's alarm and takes it back, and logs all changes of alarms.
pub(crate) fn keep(replica: Replica, quota: Quota) {
    if quota.0 > RECOMMENDED_BYTES {
        let (bytes, recommended) = (quota.0, RECOMMENDED_BYTES);
        tracing::warn!(bytes, recommended, "--quota-backend-bytes is more than recommended");
    }
    tokio::spawn(async move {
        let mut status = replica.watch_status();
        let mut known = Facts { alarms: AlarmFacts::default(), ..status.borrow().facts };
        loop {
            let facts = status.borrow_and_update().facts;
            log(known.alarms, facts.alarms);
            let wrote = facts.revision > known.revision;
            // What is not settled is looked at again.
            known = Facts { alarms: facts.alarms, ..known };
            if let Some(active) = quota.change(&facts, wrote) {
                let changed = set(&replica, active).await;
                // A follower's own state has the change a little later.
                if changed.is_err() || !replica.reaches(|facts| quota.change(facts, wrote) != Some(active)).await {
                    tokio::time::sleep(RETRY).await;
                }
                continue;
            }
            known = facts;
            if status.changed().await.is_err() {
                return;
            }
        }
    });
}

fn log(before: AlarmFacts, now: AlarmFacts) {
    for (alarm, before, now) in [("NOSPACE", before.no_space, now.no_space), ("CORRUPT", before.corrupt, now.corrupt)] {
        match (before, now) {
            (false, true) => tracing::warn!(alarm, "an alarm is active, so requests are refused"),
            (true, false) => tracing::info!(alarm, "the alarm is over"),
            _ => {}
        }
    }
}

async fn set(replica: &Replica, active: bool) -> Result<(), ()> {
    let (member, kind) = (replica.id().0, AlarmKind::NoSpace.into());
    let command = Command::Alarm(AlarmRequest { member, kind, automatic: true, active });
    let reply = replica.write(command.to_bytes_by(&Principal::Member)).await;
    let done = match &reply {
        Ok(reply) => decode_reply_to::<AlarmRequest>(reply.clone()).is_ok_and(|reply| reply.is_ok()),
        Err(_) => false,
    };
    if !done {
        tracing::debug!(active, ?reply, "can't change the alarm NOSPACE; trying again");
    }
    if done { Ok(()) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(db_size: u64, own: Option<bool>) -> Facts {
        let alarms = AlarmFacts { own, ..AlarmFacts::default() };
        Facts { db_size, alarms, cluster_version: Protocol::ALARMS, ..Facts::default() }
    }

    #[test]
    fn a_write_may_not_bring_the_state_to_the_quota() {
        let quota = Quota(1_000);
        assert!(quota.admits(&facts(700, None), 299));
        assert!(!quota.admits(&facts(700, None), 300));
        assert!(quota.admits(&facts(2_000, None), 0), "it needs no space");
        assert!(!quota.admits(&facts(u64::MAX, None), u64::MAX));
        assert!(Quota(-1).admits(&facts(u64::MAX, None), 1), "there is no quota");
    }

    #[test]
    fn the_alarm_is_raised_at_the_quota_and_taken_back_well_below_it() {
        let quota = Quota(1_000);
        for (db_size, own, wrote, expected) in [
            (999, None, true, None),
            (1_000, None, true, Some(true)),
            (1_000, None, false, None),
            (1_000, Some(true), true, None),
            (900, Some(true), true, None),
            (899, Some(true), false, Some(false)),
            (0, Some(false), true, None),
            (1_000, Some(false), true, None),
        ] {
            assert_eq!(quota.change(&facts(db_size, own), wrote), expected, "{db_size} {own:?} {wrote}");
        }
        assert_eq!(Quota(-1).change(&facts(1_000, Some(true)), true), Some(false));
        assert_eq!(Quota(-1).change(&facts(1_000, None), true), None);
        let old = Facts { cluster_version: Protocol::ALARMS - 1, ..facts(1_000, None) };
        assert_eq!(quota.change(&old, true), None, "an older member would not understand it");
    }
}
