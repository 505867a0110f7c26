//! The quota of the state's size.
//!
//! A member refuses requests that would bring its state to the quota, and raises the alarm NOSPACE. When its state is
//! smaller again, it takes this alarm back. An alarm that an operator activated is not its business.

use bowline_kv::versions;

use crate::status::Facts;

/// The part of the quota below which the state must be before the alarm is taken back. If it were taken back just below
/// the quota, a few writes would raise it again.
const MARGIN: u64 = 10;

/// The quota, in bytes; negative: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota(pub i64);

impl Quota {
    /// If there is no setting, as in etcd.
    pub const DEFAULT: Quota = Quota(2 << 30);

    /// No quota.
    pub const NONE: Quota = Quota(-1);

    /// A greater quota than this is not recommended, as in etcd.
    pub const RECOMMENDED: Quota = Quota(8 << 30);

    /// Whether a command may be proposed that needs so many bytes.
    #[must_use]
    pub fn admits(self, facts: &Facts, cost: u64) -> bool {
        cost == 0 || u64::try_from(self.0).map_or(true, |quota| facts.db_size.saturating_add(cost) < quota)
    }

    /// Whether a member raises its alarm because a write was refused. One large write that is refused far below the
    /// quota is no reason.
    #[must_use]
    pub fn alarms(self, facts: &Facts) -> bool {
        facts.alarms.own.is_none() && facts.cluster_version >= versions::ALARMS && !self.is_far(facts)
    }

    /// Whether the state is so far below the quota that there is no reason for an alarm.
    fn is_far(self, facts: &Facts) -> bool {
        u64::try_from(self.0).map_or(true, |quota| facts.db_size < quota - quota / MARGIN)
    }

    /// Whether the member's own alarm is to be raised (`true`) or taken back (`false`). `wrote`: whether something was
    /// written since the last time. Otherwise an alarm that an operator has just deactivated would be raised again.
    pub(super) fn change(self, facts: &Facts, wrote: bool) -> Option<bool> {
        match (facts.alarms.own, u64::try_from(self.0)) {
            _ if facts.cluster_version < versions::ALARMS => None,
            (None, Ok(quota)) => (wrote && facts.db_size >= quota).then_some(true),
            // The quota may have been turned off, too.
            (Some(true), _) => self.is_far(facts).then_some(false),
            (Some(false), _) | (None, Err(_)) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::AlarmFacts;

    fn facts(db_size: u64, own: Option<bool>) -> Facts {
        let alarms = AlarmFacts { own, ..AlarmFacts::default() };
        Facts { db_size, alarms, cluster_version: versions::ALARMS, ..Facts::default() }
    }

    #[test]
    fn a_write_may_not_bring_the_state_to_the_quota() {
        let quota = Quota(1_000);
        assert!(quota.admits(&facts(700, None), 299));
        assert!(!quota.admits(&facts(700, None), 300));
        assert!(quota.admits(&facts(2_000, None), 0), "it needs no space");
        assert!(!quota.admits(&facts(u64::MAX, None), u64::MAX));
        assert!(Quota::NONE.admits(&facts(u64::MAX, None), 1), "there is no quota");
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
        assert_eq!(Quota::NONE.change(&facts(1_000, Some(true)), true), Some(false));
        assert_eq!(Quota::NONE.change(&facts(1_000, None), true), None);
        let old = Facts { cluster_version: versions::ALARMS - 1, ..facts(1_000, None) };
        assert_eq!(quota.change(&old, true), None, "an older member would not understand it");
    }
}
