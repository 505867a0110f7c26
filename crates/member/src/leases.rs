//! The leader's part in leases: answers questions about their time, and proposes their end.
//!
//! [`Lessor`] explains why this is safe; this is the host's half. A question is answered after a linearizable read that
//! began after it. This holds for unknown leases, too: a new leader may not have applied their grants yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bowline_kv::store::{Lease, LeaseChange, LeaseExpireRequest, Lessor, Renewal, Renewed, decode_reply_to};
use bowline_node::raft::{Time, Token};
use bowline_node::{Failure, NotDone, Response};

use crate::instruments::Instruments;
use crate::lease_time::LeaseTime;

/// Pause before a refused proposal is repeated.
const RETRY: Duration = Duration::from_millis(100);

/// Pause after which to try again if nothing can be proposed now.
const BLOCKED: Duration = Duration::from_millis(250);

/// A question about a lease that waits for its read.
#[derive(Debug)]
struct Asked {
    id: i64,
    renewal: Option<Renewal>,
}

/// The times of the leases, and the pending questions and proposals.
#[derive(Debug)]
pub(crate) struct Leases {
    lessor: Lessor,
    /// Proposals without an answer, with their terms.
    expiring: BTreeMap<Token, (u64, LeaseExpireRequest)>,
    asked: BTreeMap<Token, Asked>,
    /// Nothing is proposed before this time.
    not_before: Time,
    instruments: Arc<dyn Instruments>,
}

impl Leases {
    /// Begins with the leases of the state machine.
    pub(crate) fn new(now: Time, leases: impl IntoIterator<Item = Lease>, instruments: Arc<dyn Instruments>) -> Leases {
        let mut all = Leases {
            lessor: Lessor::default(),
            expiring: BTreeMap::new(),
            asked: BTreeMap::new(),
            not_before: Time::ZERO,
            instruments,
        };
        all.reset(now, leases);
        all
    }

    /// Replaces the leases: the state machine was replaced.
    pub(crate) fn reset(&mut self, now: Time, leases: impl IntoIterator<Item = Lease>) {
        self.lessor.reset(now, leases);
        self.count();
    }

    /// Takes the changes that the state machine has applied.
    pub(crate) fn note(&mut self, now: Time, changes: Vec<LeaseChange>) {
        for change in changes {
            self.instruments.lease_changed(&change);
            self.lessor.note(now, change);
        }
        self.count();
    }

    fn count(&self) {
        self.instruments.leases(self.lessor.len() as u64);
    }

    /// Tells in which term this replica leads, if it does. To be called after each step of the core, before any other
    /// method.
    pub(crate) fn follow(&mut self, now: Time, leads: Option<u64>) {
        self.lessor.follow(now, leads);
    }

    /// Takes a question; a linearizable read with this token must follow. Returns `false` if this replica does not
    /// lead, so that it can't answer.
    pub(crate) fn ask(&mut self, now: Time, token: Token, id: i64, renew: bool) -> bool {
        if self.lessor.leads().is_none() {
            return false;
        }
        let renewal = renew.then(|| self.lessor.begin_renewal(now, id));
        self.asked.insert(token, Asked { id, renewal });
        true
    }

    /// The read with this token is done. Returns the answer to the question, if there was one.
    pub(crate) fn confirmed(&mut self, now: Time, token: Token) -> Option<Response> {
        let Asked { id, renewal } = self.asked.remove(&token)?;
        if self.lessor.leads().is_none() {
            return Some(Err(Failure::not_leader(None)));
        }
        let found = match renewal.map(|renewal| self.lessor.end_renewal(now, renewal)) {
            Some(Renewed::Alive(lease)) => {
                self.instruments.lease_renewed();
                Some(LeaseTime { granted: lease.ttl, left: Duration::from_secs(lease.ttl.unsigned_abs()) })
            }
            Some(Renewed::Gone) => None,
            // The caller asks again, and gets a new read.
            Some(Renewed::Again(_)) => return Some(Err(NotDone::TryAgain.into())),
            Some(Renewed::NotLeading) => return Some(Err(Failure::not_leader(None))),
            None => self.lessor.remaining(now, id).map(|(lease, left)| LeaseTime { granted: lease.ttl, left }),
        };
        Some(Ok(LeaseTime::encode(found)))
    }

    /// The core has answered the request with this token.
    pub(crate) fn settled(&mut self, now: Time, token: Token, response: &Response) {
        self.asked.remove(&token);
        let Some((term, request)) = self.expiring.remove(&token) else { return };
        match response {
            Ok(reply) => match decode_reply_to::<LeaseExpireRequest>(reply.clone()) {
                Ok(Ok((ended, _))) => self.instruments.leases_ended(ended.expired),
                // An alarm forbade it.
                _ => self.lessor.retry(now.after(RETRY), term, &request),
            },
            // The proposal may be in the log, and then takes effect when it is committed.
            Err(Failure::Unknown(_)) => {}
            Err(Failure::NotDone(_)) => self.lessor.retry(now.after(RETRY), term, &request),
        }
    }

    /// The proposal to make at once, with this token, in the term of the last [`Leases::follow`]; `None` if nothing is
    /// due, or nothing can be proposed now (`blocked`).
    pub(crate) fn expired(&mut self, now: Time, token: Token, blocked: bool) -> Option<LeaseExpireRequest> {
        if self.lessor.next_deadline() > now {
            return None;
        }
        if blocked {
            self.not_before = now.after(BLOCKED);
            return None;
        }
        let (term, request) = (self.lessor.leads()?, self.lessor.expired(now)?);
        self.expiring.insert(token, (term, request.clone()));
        Some(request)
    }

    /// The latest time for the next call of [`Leases::expired`].
    pub(crate) fn next_deadline(&self) -> Time {
        self.lessor.next_deadline().max(self.not_before)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use bowline_kv::store::{LeaseExpireResponse, Response as StoreResponse, encode_reply};
    use bowline_node::raft::Index;

    use super::*;

    /// What was counted.
    #[derive(Debug, Default)]
    struct Counted {
        leases: AtomicU64,
        gone: AtomicU64,
        renewed: AtomicU64,
        ended: AtomicU64,
    }

    impl Instruments for Counted {
        fn leases(&self, count: u64) {
            self.leases.store(count, Ordering::Relaxed);
        }

        fn lease_changed(&self, change: &LeaseChange) {
            self.gone.fetch_add(matches!(change, LeaseChange::Gone(_)).into(), Ordering::Relaxed);
        }

        fn lease_renewed(&self) {
            self.renewed.fetch_add(1, Ordering::Relaxed);
        }

        fn leases_ended(&self, count: u64) {
            self.ended.fetch_add(count, Ordering::Relaxed);
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn lease(id: i64, ttl: i64) -> Lease {
        Lease { id, ttl, granted_at: Index(id.unsigned_abs()) }
    }

    fn at(seconds: u32) -> Time {
        Time::ZERO.after(SECOND * seconds)
    }

    fn counted_leases(all: &[Lease]) -> (Leases, Arc<Counted>) {
        let counted = Arc::<Counted>::default();
        (Leases::new(at(0), all.iter().copied(), Arc::clone(&counted) as Arc<dyn Instruments>), counted)
    }

    fn leases(all: &[Lease]) -> Leases {
        counted_leases(all).0
    }

    fn told(answer: Option<Response>) -> Option<LeaseTime> {
        match answer {
            Some(Ok(bytes)) => LeaseTime::decode(bytes).expect("it is one"),
            other => panic!("no answer: {other:?}"),
        }
    }

    #[test]
    fn a_renewal_counts_when_it_is_confirmed_by_who_leads() {
        let (mut leases, counted) = counted_leases(&[lease(1, 10)]);
        assert!(!leases.ask(at(1), Token(1), 1, true), "it does not lead");
        leases.follow(at(1), Some(1));
        assert!(leases.ask(at(2), Token(1), 1, true) && leases.ask(at(2), Token(2), 1, true));
        assert_eq!(told(leases.confirmed(at(2), Token(1))), Some(LeaseTime { granted: 10, left: SECOND * 10 }));
        leases.follow(at(3), None);
        assert_eq!(leases.confirmed(at(3), Token(2)), Some(Err(Failure::not_leader(None))));
        assert_eq!(leases.confirmed(at(3), Token(2)), None, "it is answered");
        assert_eq!(counted.renewed.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_lease_that_only_the_read_brought_to_light_is_asked_for_again() {
        let mut leases = leases(&[]);
        leases.follow(at(1), Some(1));
        assert!(leases.ask(at(1), Token(1), 1, true) && leases.ask(at(1), Token(2), 2, true));
        leases.note(at(2), vec![LeaseChange::Granted(lease(1, 10))]);
        assert_eq!(leases.confirmed(at(2), Token(1)), Some(Err(NotDone::TryAgain.into())));
        assert_eq!(told(leases.confirmed(at(2), Token(2))), None);
    }

    #[test]
    fn a_lease_that_ends_before_its_renewal_is_confirmed_is_gone() {
        let (mut leases, counted) = counted_leases(&[lease(1, 10)]);
        leases.follow(at(1), Some(1));
        assert!(leases.ask(at(2), Token(1), 1, true) && leases.ask(at(2), Token(2), 1, false));
        leases.note(at(2), vec![LeaseChange::Gone(1)]);
        assert_eq!(told(leases.confirmed(at(2), Token(1))), None);
        assert_eq!(told(leases.confirmed(at(2), Token(2))), None);
        assert_eq!((counted.gone.load(Ordering::Relaxed), counted.leases.load(Ordering::Relaxed)), (1, 0));
    }

    #[test]
    fn a_refused_end_is_proposed_again_and_none_of_another_term() {
        let mut leases = leases(&[lease(1, 10)]);
        leases.follow(at(0), Some(1));
        assert_eq!(leases.expired(at(9), Token(1), false), None);
        assert!(leases.expired(at(10), Token(1), false).is_some());
        assert_eq!(leases.next_deadline(), Time::NEVER);
        leases.settled(at(11), Token(1), &Err(Failure::refused("why")));
        assert_eq!(leases.next_deadline(), at(11).after(RETRY));
        let first = leases.expired(at(12), Token(2), false);
        leases.follow(at(13), Some(3));
        let second = leases.expired(at(23), Token(3), false);
        assert!(first.is_some() && first == second);
        // It was of the term before: what this term has proposed is on its way still.
        leases.settled(at(24), Token(2), &Err(NotDone::Superseded.into()));
        assert_eq!(leases.next_deadline(), Time::NEVER);
    }

    #[test]
    fn leases_that_ended_by_their_time_are_counted_at_the_leader() {
        let (mut leases, counted) = counted_leases(&[lease(1, 10), lease(2, 10)]);
        leases.follow(at(0), Some(1));
        assert!(leases.expired(at(10), Token(1), false).is_some());
        let ended = StoreResponse::LeaseExpire(LeaseExpireResponse { revision: 2, expired: 2 });
        leases.settled(at(10), Token(1), &Ok(encode_reply(&Ok(ended))));
        assert_eq!(counted.ended.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_cannot_be_proposed_is_looked_at_again_without_haste() {
        let mut leases = leases(&[lease(1, 10)]);
        leases.follow(at(0), Some(1));
        assert_eq!(leases.next_deadline(), at(10));
        assert_eq!(leases.expired(at(11), Token(1), true), None);
        assert_eq!(leases.next_deadline(), at(11).after(BLOCKED));
        assert!(leases.expired(at(12), Token(1), false).is_some());
    }
}
