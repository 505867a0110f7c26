//! When leases end: what a leader knows, and the log does not.
//!
//! Only the leader counts time, and only its own. What it promises to whoever keeps a lease alive must hold
//! whoever leads later, so:
//!
//! - a new leader gives each lease its whole time to live from the moment at which it leads, since it
//!   does not know what the one before has promised;
//! - a lease ends by a command in the log, proposed by a leader in the term in which it saw the lease expire, or not at
//!   all (the host proposes it in the same step, at its own core): so a leader that was replaced meanwhile ends nothing;
//! - a lease that is being ended is not renewed any more;
//! - a renewal counts when a linearizable read that was begun with it is done, and the lease is still there: then
//!   nobody else led at the renewal, and no leader before had already ended it. In the same way it is made sure of that
//!   a lease is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bowline_node::raft::Time;
use bowline_node::raft::probe::{Probe, hit};

use super::leases::{Lease, LeaseChange};
use super::types::{ExpiredLease, LeaseExpireRequest};

/// Most leases whose end is proposed and not applied yet: an avalanche of them must not starve the writes.
const MAX_ENDING: usize = 500;

/// A renewal whose read is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal {
    id: i64,
    /// What was renewed, if it was there.
    lease: Option<Lease>,
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// It lives for its whole time from the renewal on.
    Alive(Lease),
    /// There is no such lease, or its end is proposed.
    Gone,
    /// It was found only now: another read is to be begun.
    Again(Renewal),
    /// Nobody knows here: another replica may lead.
    NotLeading,
}

/// The leases' times. Follows the state machine of its replica; knows times only while that leads.
#[derive(Clone, Debug, Default)]
pub struct Lessor {
    leases: BTreeMap<i64, Living>,
    /// The deadlines of those that are not ending, in order.
    due: BTreeSet<(Time, i64)>,
    ending: usize,
    /// The term in which it counts.
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
    /// The state machine is another one, which holds these leases.
    pub fn reset(&mut self, now: Time, leases: impl IntoIterator<Item = Lease>) {
        *self = Lessor { leads: self.leads, ..Lessor::default() };
        leases.into_iter().for_each(|lease| self.note(now, LeaseChange::Granted(lease)));
    }

    /// What the state machine has just applied.
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

    /// Whether the replica leads now, and in which term. To be called after each step of its core.
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

    /// The term in which it counts, if it does.
    #[must_use]
    pub fn leads(&self) -> Option<u64> {
        self.leads
    }

    /// Gives a lease its whole time to live from now on. That counts when a linearizable read that is begun now is
    /// done: then tell [`Lessor::end_renewal`]. So does that there is no such lease.
    pub fn begin_renewal(&mut self, now: Time, id: i64) -> Renewal {
        Renewal { id, lease: self.renew(now, id) }
    }

    /// The read that was begun with the renewal is done.
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
            // What was committed before the read may have brought it.
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

    /// When to ask for what has expired, at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        match self.due.first() {
            Some((deadline, _)) if self.ending < MAX_ENDING => *deadline,
            _ => Time::NEVER,
        }
    }

    /// The leases that have expired, some of them if there are too many, to be proposed now, in this term. They are
    /// not renewed any more.
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

    /// A proposal of this term certainly came to nothing: its leases are to be proposed again, a little later. One
    /// of an earlier term is of no interest: what is ending now may have been proposed since.
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
        // Proposed once, and not renewed any more.
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
        // The same term is no news.
        lessor.follow(at(6), Some(1));
        assert_eq!(lessor.next_deadline(), at(15));
        assert_eq!(expired(&mut lessor, at(15)), [1]);
        // Whatever was proposed: another term begins anew, also where nobody saw the time between them.
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
        // Granted by the leader before.
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
        // What is proposed in the next term is on its way, whatever became of the one before.
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
