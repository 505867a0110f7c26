//! What a leader knows about one peer, and what it may send to that peer next (5.3).
//!
//! There are three states, each with only the data that it needs: *probe* looks for the point up to which the logs
//! agree, one message at a time; *replicate* keeps a pipeline full; *snapshot* waits until the host has brought the
//! peer a snapshot. `match_index` never decreases within a session, and is always below the next index to send.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Config;
use crate::types::{Index, Round, Session, Time};

/// How many messages in a row a peer may leave unanswered before it is asked less often. A network that loses a third
/// of the messages causes such misses all the time.
const PATIENT_MISSES: u32 = 2;

/// How often a silent peer's retry delay doubles at most.
const MAX_BACKOFF_SHIFT: u32 = 4;

/// A leader's view of one peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Progress {
    /// The `loss_id` of the last loss that the peer has reported to this leader.
    pub(crate) voided: Option<u64>,
    /// The session with this peer; answers of any other session are ignored.
    pub(crate) session: Session,
    /// Up to where the peer's log equals the leader's, on the peer's disk.
    pub(crate) match_index: Index,
    /// When the leader sent the newest message that the peer has answered.
    pub(crate) contact: Option<Time>,
    /// The newest round that the peer has confirmed.
    pub(crate) round: Round,
    /// When the leader last sent anything to it.
    pub(crate) last_sent: Option<Time>,
    /// Smoothed time from sending to the answer.
    pub(crate) round_trip: Option<Duration>,
    /// Messages with entries that got no answer in time since the last answer.
    pub(crate) misses: u32,
    /// What the leader is doing for the peer.
    pub(crate) state: State,
}

/// What a leader is doing for a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// Looking for the point up to which the logs agree.
    Probe {
        /// The entry to try next.
        next_index: Index,
        /// When entries were sent that are not answered yet.
        sent_at: Option<Time>,
    },
    /// Sending entries ahead of their acknowledgements.
    Replicate {
        /// The next entry to send.
        next_index: Index,
        /// Messages with entries that are not answered yet, oldest first.
        inflight: VecDeque<InFlight>,
    },
    /// The entries that the peer needs are gone: the host is bringing it a snapshot.
    Snapshot,
}

/// An unanswered message with entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct InFlight {
    last: Index,
    bytes: usize,
    sent_at: Time,
}

impl Progress {
    /// A peer about which nothing is known; the search starts at `next_index`.
    pub(crate) fn new(session: Session, next_index: Index) -> Progress {
        Progress {
            session,
            voided: None,
            match_index: Index(0),
            contact: None,
            round: Round(0),
            last_sent: None,
            round_trip: None,
            misses: 0,
            state: State::Probe { next_index, sent_at: None },
        }
    }

    /// The next entry to send; `None` while a snapshot is on its way.
    pub(crate) fn next_index(&self) -> Option<Index> {
        match &self.state {
            State::Probe { next_index, .. } | State::Replicate { next_index, .. } => Some(*next_index),
            State::Snapshot => None,
        }
    }

    /// Why no entries may be sent now; `None` if they may.
    pub(crate) fn paused(&self, config: &Config) -> Option<Pause> {
        match &self.state {
            State::Probe { sent_at: Some(_), .. } => Some(Pause::Probing),
            State::Probe { sent_at: None, .. } => None,
            State::Snapshot => Some(Pause::Snapshot),
            State::Replicate { inflight, .. } => {
                let bytes: usize = inflight.iter().map(|message| message.bytes).sum();
                let full = inflight.len() >= config.max_inflight_messages || bytes >= config.max_inflight_bytes;
                full.then_some(Pause::WindowFull)
            }
        }
    }

    /// Whether everything up to `last` is either acknowledged or on its way and not overdue.
    pub(crate) fn covers(&self, last: Index) -> bool {
        let on_its_way = match &self.state {
            State::Replicate { next_index, .. } => *next_index > last,
            State::Probe { .. } | State::Snapshot => false,
        };
        on_its_way || self.match_index >= last
    }

    /// Notes a message that was sent now; `entries` holds its last index and its bytes, if it
    /// carries any.
    pub(crate) fn sent(&mut self, now: Time, entries: Option<(Index, usize)>) {
        self.last_sent = Some(now);
        let Some((last, bytes)) = entries else { return };
        match &mut self.state {
            State::Probe { sent_at, .. } => *sent_at = Some(now),
            State::Replicate { next_index, inflight } => {
                *next_index = last.next();
                inflight.push_back(InFlight { last, bytes, sent_at: now });
            }
            State::Snapshot => unreachable!("no entries are sent while a snapshot is on its way"),
        }
    }

    /// Notes an answer of this session to the message that was sent at `sent_at`.
    pub(crate) fn answered(&mut self, now: Time, sent_at: Time, round: Round) {
        self.misses = 0;
        self.round = self.round.max(round);
        // A time that this leader can't have sent proves nothing.
        if sent_at > Time::ZERO && sent_at <= now {
            self.contact = self.contact.max(Some(sent_at));
            let sample = now.since(sent_at);
            self.round_trip = Some(self.round_trip.map_or(sample, |old| (old * 7 + sample) / 8));
        }
    }

    /// The peer's log matches up to `match_index`. Returns whether that is news.
    pub(crate) fn accepted(&mut self, match_index: Index) -> bool {
        let news = match_index > self.match_index;
        self.match_index = self.match_index.max(match_index);
        let matched = self.match_index;
        match &mut self.state {
            State::Replicate { next_index, inflight } => {
                *next_index = (*next_index).max(matched.next());
                while inflight.front().is_some_and(|message| message.last <= matched) {
                    inflight.pop_front();
                }
            }
            State::Probe { .. } | State::Snapshot => {
                self.state = State::Replicate { next_index: matched.next(), inflight: VecDeque::new() };
            }
        }
        news
    }

    /// Whether a refusal of `prev_index` is news. A late refusal, at an index that is known to match or is no longer
    /// asked about, must not move the search back.
    pub(crate) fn refusal_is_news(&self, prev_index: Index) -> bool {
        match &self.state {
            State::Probe { next_index, .. } => prev_index > self.match_index && prev_index == next_index.previous(),
            State::Replicate { next_index, .. } => prev_index > self.match_index && prev_index < *next_index,
            State::Snapshot => false,
        }
    }

    /// The peer has lost its log after `index`; up to there the logs may still agree.
    pub(crate) fn lost_after(&mut self, index: Index) {
        self.match_index = self.match_index.min(index);
        // This also ends a snapshot transfer: it belongs to the session before, and its end would not be noticed in
        // this one.
        self.probe(index.next());
    }

    /// Starts the search again from `next_index`, or from just above what is known to match if that is higher.
    pub(crate) fn probe(&mut self, next_index: Index) {
        let next_index = next_index.max(self.match_index.next());
        self.state = State::Probe { next_index, sent_at: None };
    }

    /// When the oldest unanswered entries are overdue, if any are unanswered. A peer that stays silent is sent
    /// entries less and less often; its heartbeats go on.
    pub(crate) fn retry_due(&self, config: &Config) -> Option<Time> {
        let sent_at = match &self.state {
            State::Probe { sent_at, .. } => (*sent_at)?,
            State::Replicate { inflight, .. } => inflight.front()?.sent_at,
            State::Snapshot => return None,
        };
        let base = config.thrifty.unwrap_or(config.retry_after);
        Some(sent_at.after(base * (1 << self.misses.saturating_sub(PATIENT_MISSES).min(MAX_BACKOFF_SHIFT))))
    }

    /// When the peer must hear from the leader next.
    pub(crate) fn heartbeat_due(&self, config: &Config) -> Time {
        self.last_sent.map_or(Time::ZERO, |sent| sent.after(config.heartbeat_interval))
    }

    /// Gives up waiting for overdue entries, so that they can be sent again.
    pub(crate) fn missed(&mut self) {
        self.misses = self.misses.saturating_add(1);
        match &mut self.state {
            State::Probe { sent_at, .. } => *sent_at = None,
            State::Replicate { .. } => self.probe(self.match_index.next()),
            State::Snapshot => {}
        }
    }

    /// Removes time: everything was sent just now, and nothing has been measured yet.
    pub(crate) fn rest(&mut self, now: Time) {
        self.contact = None;
        self.last_sent = Some(now);
        self.round_trip = None;
        self.misses = 0;
        match &mut self.state {
            State::Probe { sent_at, .. } => *sent_at = sent_at.map(|_| now),
            State::Replicate { inflight, .. } => inflight.iter_mut().for_each(|message| message.sent_at = now),
            State::Snapshot => {}
        }
    }

    /// The round trip in powers of two. Peers of about the same speed are equal, so that the choice between them is
    /// stable.
    pub(crate) fn slowness(&self) -> u32 {
        let nanos = self.round_trip.map_or(u64::MAX, |span| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
        u64::BITS - nanos.leading_zeros()
    }
}

/// Why a leader sends no entries to a peer at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Probes are sent one at a time, and the last one has no answer yet.
    Probing,
    /// As many messages or bytes as allowed are unanswered.
    WindowFull,
    /// A snapshot is on its way.
    Snapshot,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::NodeId;

    fn replicating() -> Progress {
        let mut progress = Progress::new(Session(1), Index(5));
        progress.accepted(Index(4));
        progress
    }

    #[test]
    fn a_late_refusal_moves_nothing_back() {
        let mut progress = replicating();
        progress.sent(Time(1), Some((Index(6), 10)));
        progress.accepted(Index(6));
        assert!(!progress.refusal_is_news(Index(4)), "it is known to match there (S27)");
        assert!(!progress.refusal_is_news(Index(6)));
        progress.probe(Index(2));
        assert_eq!(progress.next_index(), Some(Index(7)), "never at or below what matches");
    }

    #[test]
    fn a_probe_sends_one_message_at_a_time() {
        let config = Config::new(NodeId(1), 0);
        let mut progress = Progress::new(Session(1), Index(5));
        assert_eq!(progress.paused(&config), None);
        progress.sent(Time(1), Some((Index(5), 10)));
        assert_eq!(progress.paused(&config), Some(Pause::Probing));
        progress.missed();
        assert_eq!(progress.paused(&config), None);
        assert_eq!(progress.next_index(), Some(Index(5)));
    }

    #[test]
    fn the_window_is_bounded_in_messages_and_in_bytes() {
        let mut config = Config::new(NodeId(1), 0);
        config.max_inflight_messages = 2;
        config.max_inflight_bytes = 100;
        let mut progress = replicating();
        progress.sent(Time(1), Some((Index(5), 10)));
        assert_eq!(progress.paused(&config), None);
        progress.sent(Time(1), Some((Index(6), 10)));
        assert_eq!(progress.paused(&config), Some(Pause::WindowFull));
        progress.accepted(Index(6));
        assert_eq!(progress.paused(&config), None);
        progress.sent(Time(1), Some((Index(7), 100)));
        assert_eq!(progress.paused(&config), Some(Pause::WindowFull), "bytes count too");
        progress.accepted(Index(7));
        assert_eq!(progress.paused(&config), None, "and are given back (S33)");
    }

    #[test]
    fn a_silent_peer_is_asked_less_and_less_often() {
        let config = Config::new(NodeId(1), 0);
        let mut progress = replicating();
        progress.sent(Time(1), Some((Index(5), 10)));
        let mut waits = Vec::new();
        for _ in 0..7 {
            let due = progress.retry_due(&config).expect("entries are on their way");
            waits.push(due.since(Time(1)));
            progress.missed();
            progress.sent(Time(1), Some((Index(5), 10)));
        }
        assert!(waits.is_sorted() && waits[0] == config.retry_after && waits[6] == config.retry_after * 16);
        progress.answered(Time(2), Time(1), Round(0));
        assert_eq!(progress.misses, 0);
    }

    #[test]
    fn a_time_from_the_future_is_no_contact() {
        let mut progress = replicating();
        progress.answered(Time(5), Time(9), Round(0));
        assert_eq!(progress.contact, None);
        progress.answered(Time(5), Time(4), Round(0));
        progress.answered(Time(6), Time(3), Round(0));
        assert_eq!(progress.contact, Some(Time(4)), "an old answer takes nothing back");
    }
}
