//! The task that keeps a lease alive. How long the lease lives, and when it is renewed, is decided by [`Term`], which has
//! no clock.

use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use pb::lease_client::LeaseClient;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::LeaseEnd;
use crate::login::with_login;
use crate::{Channel, Client, PAUSE};

/// Time to live that no machine survives, so that a moment after it can be computed.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What the holder of a lease may rely on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    /// When the last renewal that was answered was sent.
    sent: Instant,
    ttl: Duration,
    end: Option<LeaseEnd>,
}

impl Term {
    /// A lease that was granted, in answer to a request of this time, for so many seconds.
    pub(super) fn new(sent: Instant, ttl: i64) -> Term {
        Term { sent, ttl: Duration::from_secs(ttl.max(0).unsigned_abs()).min(LONGEST), end: None }
    }

    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The lease is lost from this moment on, unless it is renewed.
    pub(super) fn until(&self) -> Instant {
        self.sent + self.ttl
    }

    /// When the next renewal is to be sent.
    fn due(&self) -> Instant {
        self.sent + self.ttl / 3
    }

    /// Why the lease is lost, if it is.
    pub(super) fn end_at(&self, now: Instant) -> Option<LeaseEnd> {
        self.end.or_else(|| (now >= self.until()).then_some(LeaseEnd::Unanswered))
    }

    /// Takes the answer to a renewal: a time to live in seconds, 0 if there is no such lease. Returns whether the lease
    /// lives. An answer after the loss changes nothing.
    fn renew(&mut self, sent: Instant, ttl: i64, now: Instant) -> bool {
        self.end = self.end_at(now).or_else(|| (ttl <= 0).then_some(LeaseEnd::Gone));
        if self.end.is_none() {
            *self = Term::new(sent, ttl);
        }
        self.end.is_none()
    }
}

/// A stream of renewals at a member.
struct Renewals {
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    answers: Streaming<pb::LeaseKeepAliveResponse>,
}

impl Renewals {
    /// Opens a stream with a first renewal. Also returns its answer: the time to live in seconds.
    async fn open(
        mut member: LeaseClient<Channel>,
        request: pb::LeaseKeepAliveRequest,
    ) -> Result<(Renewals, i64), Status> {
        let (requests, waiting) = mpsc::channel(1);
        // A server may send nothing before the first request.
        requests.try_send(request).expect("a new channel has room for one");
        let mut answers = member.lease_keep_alive(ReceiverStream::new(waiting)).await?.into_inner();
        let first = answers.message().await?.ok_or_else(ended)?;
        Ok((Renewals { requests, answers }, first.ttl))
    }
}

/// The task.
pub(super) struct Keeper {
    client: Client,
    request: pb::LeaseKeepAliveRequest,
    term: watch::Sender<Term>,
    renewals: Option<Renewals>,
}

impl Keeper {
    pub(super) fn new(client: Client, id: i64, term: watch::Sender<Term>) -> Keeper {
        Keeper { client, request: pb::LeaseKeepAliveRequest { id }, term, renewals: None }
    }

    /// Renews until the lease is lost, or the task is aborted.
    pub(super) async fn run(mut self) {
        loop {
            let due = self.term.borrow().due();
            tokio::time::sleep_until(due.into()).await;
            let (sent, ttl) = self.renew().await;
            let mut lives = false;
            self.term.send_modify(|term| lives = term.renew(sent, ttl, Instant::now()));
            if !lives {
                // Keep the reason: without a sender, it would be that nobody renews the lease.
                return self.term.closed().await;
            }
        }
    }

    /// Asks one member after the other. Returns when the answered request was sent, and the time to live in seconds; 0
    /// if none has answered while the lease may live.
    async fn renew(&mut self) -> (Instant, i64) {
        let until = self.term.borrow().until();
        loop {
            let sent = Instant::now();
            let left = until.saturating_duration_since(sent);
            if left.is_zero() {
                return (sent, 0);
            }
            // A silent member leaves time for others.
            match tokio::time::timeout(left / 2 + Duration::from_millis(1), self.ask()).await {
                Ok(Ok(ttl)) => return (sent, ttl),
                Ok(Err(_)) | Err(_) => {
                    self.renewals = None;
                    self.client.try_next();
                }
            }
            tokio::time::sleep(PAUSE.min(left)).await;
        }
    }

    /// Renews the lease once, on the stream that is open, or else on a new one.
    async fn ask(&mut self) -> Result<i64, Status> {
        if let Some(Renewals { requests, answers }) = &mut self.renewals {
            requests.send(self.request).await.map_err(|_| ended())?;
            return answers.message().await?.map(|answer| answer.ttl).ok_or_else(ended);
        }
        let (_, channel) = self.client.channel().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let open = || Renewals::open(LeaseClient::new(channel.clone()), self.request);
        let (renewals, ttl) = with_login(self.client.login.as_deref(), open).await?;
        self.renewals = Some(renewals);
        Ok(ttl)
    }
}

fn ended() -> Status {
    Status::unavailable("the member has ended the stream")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_counted_from_the_sending_of_what_was_answered() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut term = Term::new(start, 9);
        assert_eq!((term.due(), term.until()), (at(3), at(9)));
        assert_eq!((term.end_at(at(8)), term.end_at(at(9))), (None, Some(LeaseEnd::Unanswered)));
        assert!(term.renew(at(3), 12, at(8)), "it was answered in time");
        assert_eq!((term.due(), term.until()), (at(7), at(15)));
        // The answer is that of a lease that lives, but it comes too late.
        assert!(!term.renew(at(7), 12, at(15)));
        assert!(!term.renew(at(14), 12, at(14)), "what is lost stays lost");
        assert_eq!(term.end_at(at(14)), Some(LeaseEnd::Unanswered));
    }

    #[test]
    fn a_member_may_say_that_it_is_gone() {
        let start = Instant::now();
        let mut term = Term::new(start, 9);
        assert!(!term.renew(start, 0, start));
        assert_eq!(term.end_at(start), Some(LeaseEnd::Gone));
        assert!(Term::new(start, i64::MAX).until() > start, "no overflow");
    }
}
