//! The times at which leases end, which only the leader knows.
//!
//! Only the leader counts time, by its own clock. Its promises to clients that keep a lease alive must hold
//! under later leaders too. So:
//!
//! - a new leader gives each lease its whole time to live from the moment at which it leads, because it
//!   does not know the promises of earlier leaders;
//! - a lease ends by a command in the log, which a leader may propose only in the term in which it saw the lease expire
//!   (the host proposes it in the same step, at its own core). So a leader that was replaced meanwhile ends nothing;
//! - once the end of a lease is proposed, the lease is not renewed any more;
//! - a renewal counts when a linearizable read that began with it is done, and the lease still exists. Then
//!   nobody else led at the renewal, and no earlier leader had already ended the lease. The answer that a lease does
//!   not exist also needs such a read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bowline_node::raft::Time;
use bowline_node::raft::probe::{Probe, hit};

use super::leases::{Lease, LeaseChange};
use super::types::{ExpiredLease, LeaseExpireRequest};

/// Most leases whose end is proposed but not applied yet: many of them at once must not hold up other writes.
const MAX_ENDING: usize = 500;

/// A renewal whose read is not done yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    id: i64,
    /// The renewed lease, if it exists.
    lease: Option<Lease>,
}

/// The result of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The lease lives for its whole time to live from the renewal on.
    Alive(Lease),
    /// There is no such lease, or its end is proposed.
    Gone,
    /// The lease was found only now: begin another read with this renewal.
    Again(Renewal),
    /// This replica does not lead, so it doesn't know.
    NotLeading,
}

/// The deadlines of the leases. It follows the state machine of its replica, and knows deadlines only while the replica
/// leads.
#[derive(Clone, Debug, Default)]
pub struct Lessor {
    leases: BTreeMap<i64, Living>,
    /// The deadlines of the leases whose end is not proposed, in order.
    due: BTreeSet<(Time, i64)>,
    ending: usize,
    /// The term in which the replica leads, if it does.
    leads: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Living {
    lease: Lease,
    deadline: Time,
    /// Its end is proposed.
    ending: bool,
}

impl Lessor {
    /// Starts over with the leases of another state machine.
    pub fn reset(&mut self, now: Time, leases: impl IntoIterator<Item = Lease>) {
        *self = Lessor { leads: self.leads, ..Lessor::default() };
        leases.into_iter().for_each(|lease| self.note(now, LeaseChange::Granted(lease)));
    }

    /// Notes a change that the state machine has just applied.
    pub fn note(&mut self, now: Time, change: LeaseChange) {
        match change {
            LeaseChange::Granted(lease) => {
                self.end(lease.id);
                let deadline = self.deadline_of(&lease, now);
                self.leases.insert(lease.id, Living { lease, deadline, ending: false });
                self.due.insert((deadline, lease.id));
            }
            LeaseChange::Gone(id) => self.end(id),
        }
    }

    /// Notes whether the replica leads now, and in which term. Call it after each step of the core.
    pub fn follow(&mut self, now: Time, leads: Option<u64>) {
        if std::mem::replace(&mut self.leads, leads) == leads {
            return;
        }
        self.ending = 0;
        self.due.clear();
        for (id, living) in &mut self.leases {
            let deadline = leads.map_or(Time::NEVER, |_| now.after(time_to_live(&living.lease)));
            *living = Living { lease: living.lease, deadline, ending: false };
            self.due.insert((deadline, *id));
        }
    }

    /// The term in which the replica leads, if it does.
    #[must_use]
    pub fn leads(&self) -> Option<u64> {
        self.leads
    }

    /// Gives a lease its whole time to live from now on. The caller begins a linearizable read now, and passes the
    /// renewal to [`Lessor::end_renewal`] when the read is done. Only then does the result count, also for a missing
    /// lease.
    pub fn begin_renewal(&mut self, now: Time, id: i64) -> Renewal {
        Renewal { id, lease: self.renew(now, id) }
    }

    /// Ends a renewal, after its read is done.
    pub fn end_renewal(&mut self, now: Time, renewal: Renewal) -> Renewed {
        let Renewal { id, lease } = renewal;
        if self.leads.is_none() {
            return Renewed::NotLeading;
        }
        match lease {
            Some(lease) if self.is_alive(&lease) => Renewed::Alive(lease),
            Some(_) => {
                hit(Probe::LeaseGoneMeanwhile);
                Renewed::Gone
            }
            // An entry committed before the read may have granted the lease.
            None => match self.renew(now, id) {
                Some(lease) => {
                    hit(Probe::LeaseFoundLate);
                    Renewed::Again(Renewal { id, lease: Some(lease) })
                }
                None => Renewed::Gone,
            },
        }
    }

    fn renew(&mut self, now: Time, id: i64) -> Option<Lease> {
        self.leads?;
        let living = self.leases.get_mut(&id).filter(|living| !living.ending)?;
        let before = std::mem::replace(&mut living.deadline, now.after(time_to_live(&living.lease)));
        self.due.remove(&(before, id));
        self.due.insert((living.deadline, id));
        Some(living.lease)
    }

    fn is_alive(&self, lease: &Lease) -> bool {
        self.leases.get(&lease.id).is_some_and(|living| living.lease == *lease && !living.ending)
    }

    /// A lease, and how long it still lives if nobody renews it. `None` if there is none, or this replica does
    /// not lead.
    #[must_use]
    pub fn remaining(&self, now: Time, id: i64) -> Option<(Lease, Duration)> {
        self.leads?;
        let living = self.leases.get(&id)?;
        let left = Duration::from_nanos(living.deadline.0.saturating_sub(now.0));
        Some((living.lease, if living.ending { Duration::ZERO } else { left }))
    }

    /// The latest time for the next call of [`Lessor::expired`].
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        match self.due.first() {
            Some((deadline, _)) if self.ending < MAX_ENDING => *deadline,
            _ => Time::NEVER,
        }
    }

    /// The expired leases, or only some if there are too many. The caller proposes their end now, in this term. They
    /// are not renewed any more.
    pub fn expired(&mut self, now: Time) -> Option<LeaseExpireRequest> {
        let mut leases = Vec::new();
        while self.next_deadline() <= now {
            let Some((_, id)) = self.due.pop_first() else { break };
            let living = self.leases.get_mut(&id).expect("what is due is there");
            living.ending = true;
            self.ending += 1;
            leases.push(ExpiredLease { id, granted_at: living.lease.granted_at.0 });
        }
        if leases.is_empty() {
            return None;
        }
        hit(Probe::LeaseExpired);
        Some(LeaseExpireRequest { leases })
    }

    /// Notes that a proposal of this term certainly failed: the end of its leases is due again at `at`. A proposal
    /// of an earlier term is ignored, as the end of these leases may have been proposed again since.
    pub fn retry(&mut self, at: Time, term: u64, request: &LeaseExpireRequest) {
        if self.leads != Some(term) {
            return;
        }
        for ExpiredLease { id, granted_at } in &request.leases {
            let Some(living) = self.leases.get_mut(id) else { continue };
            if living.ending && living.lease.granted_at.0 == *granted_at {
                hit(Probe::LeaseEndRefused);
                *living = Living { lease: living.lease, deadline: at, ending: false };
                self.ending -= 1;
                self.due.insert((at, *id));
            }
        }
    }

    /// How many leases there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    fn end(&mut self, id: i64) {
        let Some(living) = self.leases.remove(&id) else { return };
        if living.ending {
            self.ending -= 1;
        } else {
            self.due.remove(&(living.deadline, id));
        }
    }

    fn deadline_of(&self, lease: &Lease, now: Time) -> Time {
        self.leads.map_or(Time::NEVER, |_| now.after(time_to_live(lease)))
    }
}

fn time_to_live(lease: &Lease) -> Duration {
    Duration::from_secs(lease.ttl.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use bowline_node::raft::Index;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn lease(id: i64, ttl: i64) -> Lease {
        Lease { id, ttl, granted_at: Index(id.unsigned_abs()) }
    }

    fn at(seconds: u64) -> Time {
        Time(seconds * SECOND)
    }

    fn lessor(leases: &[(i64, i64)]) -> Lessor {
        let mut lessor = Lessor::default();
        lessor.reset(at(0), leases.iter().map(|(id, ttl)| lease(*id, *ttl)));
        lessor
    }

    fn expired(lessor: &mut Lessor, now: Time) -> Vec<i64> {
        let request = lessor.expired(now).unwrap_or_default();
        request.leases.iter().map(|lease| lease.id).collect()
    }

    #[test]
    fn who_does_not_lead_knows_no_time() {
        let mut lessor = lessor(&[(1, 2)]);
        assert_eq!(lessor.next_deadline(), Time::NEVER);
        assert_eq!(lessor.expired(at(100)), None);
        assert_eq!(lessor.remaining(at(1), 1), None);
        let renewal = lessor.begin_renewal(at(1), 1);
        assert_eq!(lessor.end_renewal(at(1), renewal), Renewed::NotLeading);
    }

    #[test]
    fn a_lease_that_nobody_renews_expires_after_its_time_to_live() {
        let mut lessor = lessor(&[]);
        lessor.follow(at(5), Some(1));
        lessor.note(at(10), LeaseChange::Granted(lease(1, 2)));
        lessor.note(at(10), LeaseChange::Granted(lease(2, 5)));
        assert_eq!(lessor.next_deadline(), at(12));
        assert_eq!(lessor.expired(Time(12 * SECOND - 1)), None);
        let renewal = lessor.begin_renewal(at(11), 1);
        assert_eq!(lessor.end_renewal(Time(11 * SECOND + 1), renewal), Renewed::Alive(lease(1, 2)));
        assert_eq!(lessor.expired(at(12)), None);
        assert_eq!(lessor.remaining(at(12), 1), Some((lease(1, 2), Duration::from_secs(1))));
        assert_eq!(expired(&mut lessor, at(14)), [1]);
        // Its end is not proposed twice, and it can't be renewed any more.
        assert_eq!(lessor.expired(at(14)), None);
        let renewal = lessor.begin_renewal(at(14), 1);
        assert_eq!(lessor.end_renewal(at(14), renewal), Renewed::Gone);
        assert_eq!(lessor.remaining(at(14), 1), Some((lease(1, 2), Duration::ZERO)));
        lessor.note(at(15), LeaseChange::Gone(1));
        assert_eq!((lessor.len(), lessor.next_deadline()), (1, at(15)));
    }

    #[test]
    fn a_new_leader_gives_each_its_whole_time() {
        let mut lessor = lessor(&[(1, 10)]);
        lessor.follow(at(5), Some(1));
        assert_eq!(lessor.next_deadline(), at(15));
        // The same term changes nothing.
        lessor.follow(at(6), Some(1));
        assert_eq!(lessor.next_deadline(), at(15));
        assert_eq!(expired(&mut lessor, at(15)), [1]);
        // Another term starts over, whatever was proposed, and even if no call without a leader came between them.
        lessor.follow(at(16), Some(3));
        assert_eq!(lessor.next_deadline(), at(26));
        lessor.follow(at(17), None);
        assert_eq!(lessor.next_deadline(), Time::NEVER);
    }

    #[test]
    fn an_identity_that_is_granted_again_is_another_lease() {
        let mut lessor = lessor(&[(1, 10)]);
        lessor.follow(at(0), Some(1));
        let renewal = lessor.begin_renewal(at(1), 1);
        lessor.note(at(2), LeaseChange::Gone(1));
        let other = Lease { granted_at: Index(77), ..lease(1, 10) };
        lessor.note(at(3), LeaseChange::Granted(other));
        assert_eq!(lessor.end_renewal(at(3), renewal), Renewed::Gone);
        assert_eq!(lessor.next_deadline(), at(13));
        let old = LeaseExpireRequest { leases: vec![ExpiredLease { id: 1, granted_at: 1 }] };
        lessor.retry(at(4), 1, &old);
        assert_eq!(lessor.next_deadline(), at(13));
    }

    #[test]
    fn what_was_renewed_and_is_ending_by_then_is_gone() {
        let mut lessor = lessor(&[(1, 10)]);
        lessor.follow(at(0), Some(1));
        let renewal = lessor.begin_renewal(at(1), 1);
        assert_eq!(expired(&mut lessor, at(11)), [1]);
        assert_eq!(lessor.end_renewal(at(12), renewal), Renewed::Gone);
    }

    #[test]
    fn a_new_leader_says_of_no_lease_that_it_is_not_there_before_it_has_applied_all() {
        let mut lessor = lessor(&[]);
        lessor.follow(at(0), Some(2));
        let first = lessor.begin_renewal(at(1), 1);
        // An earlier leader granted it.
        lessor.note(at(2), LeaseChange::Granted(lease(1, 10)));
        let Renewed::Again(second) = lessor.end_renewal(at(3), first) else { panic!("it is there now") };
        assert_eq!(lessor.next_deadline(), at(13));
        assert_eq!(lessor.end_renewal(at(4), second), Renewed::Alive(lease(1, 10)));
        let unknown = lessor.begin_renewal(at(5), 2);
        assert_eq!(lessor.end_renewal(at(6), unknown), Renewed::Gone);
    }

    #[test]
    fn what_came_to_nothing_is_proposed_again() {
        let mut lessor = lessor(&[(1, 10), (2, 10)]);
        lessor.follow(at(0), Some(1));
        let request = lessor.expired(at(10)).expect("both are due");
        lessor.note(at(10), LeaseChange::Gone(2));
        lessor.retry(at(11), 1, &request);
        assert_eq!(lessor.next_deadline(), at(11));
        assert_eq!(expired(&mut lessor, at(11)), [1]);
        // A retry for the earlier term does not affect a proposal of the next term.
        lessor.follow(at(12), Some(2));
        assert_eq!(expired(&mut lessor, at(22)), [1]);
        lessor.retry(at(23), 1, &request);
        assert_eq!(lessor.next_deadline(), Time::NEVER);
    }

    #[test]
    fn an_avalanche_is_proposed_in_pieces() {
        let all: Vec<(i64, i64)> = (1..=1_200).map(|id| (id, 10)).collect();
        let mut lessor = lessor(&all);
        lessor.follow(at(0), Some(1));
        let first = expired(&mut lessor, at(10));
        assert_eq!((first.len(), lessor.next_deadline()), (MAX_ENDING, Time::NEVER));
        first.iter().for_each(|id| lessor.note(at(11), LeaseChange::Gone(*id)));
        assert_eq!(lessor.next_deadline(), at(10));
        assert_eq!(expired(&mut lessor, at(11)).len(), MAX_ENDING);
    }
}
