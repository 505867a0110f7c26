//! Where a watch is: which revision it asks for next, and what of a member's messages it delivers.

use bowline_api::etcdserverpb::WatchResponse;
use bowline_api::mvccpb::Event;
use bowline_api::mvccpb::event::EventType;
use tonic::{Code, Status};

use super::{EventKind, WatchEvent, WatchItem};
use crate::ClientError;

/// The id of progress that was asked for.
const WHOLE_STREAM: i64 = -1;

/// The position of a watch. It does no I/O.
#[derive(Debug)]
pub(super) struct Cursor {
    /// All events before this revision were delivered; 0 until a member has created a watch without a start.
    next: i64,
    /// The events of the last revision of a fragment: more of them may follow.
    partial: Vec<WatchEvent>,
}

impl Cursor {
    /// A watch from this revision on; 0: from its creation on.
    pub(super) fn new(start_revision: i64) -> Cursor {
        Cursor { next: start_revision, partial: Vec::new() }
    }

    /// The start revision to ask for.
    pub(super) fn next(&self) -> i64 {
        self.next
    }

    /// The connection is lost: the rest of a message will not come, and the whole is asked for again.
    pub(super) fn interrupt(&mut self) {
        self.partial.clear();
    }

    /// Takes a member's message. Returns what is to be delivered: nothing twice, and no part of a revision.
    ///
    /// # Errors
    /// The member has ended the watch.
    pub(super) fn take(&mut self, response: WatchResponse, endpoint: &str) -> Result<Vec<WatchItem>, ClientError> {
        if response.canceled {
            return Err(self.ended(&response, endpoint));
        }
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.created {
            if self.next == 0 {
                self.next = revision + 1;
            }
            return Ok(Vec::new());
        }
        if response.events.is_empty() {
            return Ok(self.progress(revision, response.watch_id).into_iter().collect());
        }
        let mut items = Vec::new();
        for event in response.events.into_iter().map(event) {
            let at = event.kv.mod_revision;
            let last = self.partial.first().map_or(self.next, |event| event.kv.mod_revision);
            // A member may repeat itself.
            if at < last {
                continue;
            }
            if at > last {
                items.extend(self.complete());
            }
            self.partial.push(event);
        }
        if !response.fragment {
            items.extend(self.complete());
        }
        Ok(items)
    }

    /// Progress up to a revision, unless more was delivered, as at a member that is behind.
    fn progress(&mut self, revision: i64, watch_id: i64) -> Option<WatchItem> {
        if !self.partial.is_empty() || revision + 1 < self.next {
            return None;
        }
        // Some versions of etcd tell progress of the whole stream before they have sent all events.
        if watch_id != WHOLE_STREAM {
            self.next = revision + 1;
        }
        Some(WatchItem::Progress { revision })
    }

    /// The events of a revision that is complete.
    fn complete(&mut self) -> Option<WatchItem> {
        let events = std::mem::take(&mut self.partial);
        let revision = events.first()?.kv.mod_revision;
        self.next = revision + 1;
        Some(WatchItem::Events { revision, events })
    }

    /// Why a member has cancelled the watch, in the terms of other requests.
    fn ended(&self, response: &WatchResponse, endpoint: &str) -> ClientError {
        if response.compact_revision > 0 {
            return ClientError::Compacted { next: self.next, compact_revision: response.compact_revision };
        }
        let (code, reason) = match &*response.cancel_reason {
            "" => (Code::Aborted, "the member has cancelled the watch"),
            reason if reason.contains("permission denied") => (Code::PermissionDenied, reason),
            reason if reason.contains("range is empty") => (Code::InvalidArgument, reason),
            reason => (Code::FailedPrecondition, reason),
        };
        ClientError::Refused { endpoint: endpoint.to_owned(), status: Box::new(Status::new(code, reason)) }
    }
}

fn event(event: Event) -> WatchEvent {
    let kind = match event.r#type() {
        EventType::Put => EventKind::Put,
        EventType::Delete => EventKind::Delete,
    };
    WatchEvent { kind, kv: event.kv.unwrap_or_default(), prev_kv: event.prev_kv }
}

#[cfg(test)]
mod tests {
    use bowline_api::etcdserverpb::ResponseHeader;
    use bowline_api::mvccpb::KeyValue;

    use super::*;

    fn response(revision: i64, events: &[i64]) -> WatchResponse {
        let event = |at: &i64| {
            let kv = KeyValue { mod_revision: *at, ..KeyValue::default() };
            Event { kv: Some(kv), ..Event::default() }
        };
        let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
        WatchResponse { header, events: events.iter().map(event).collect(), ..WatchResponse::default() }
    }

    fn created(revision: i64) -> WatchResponse {
        WatchResponse { created: true, ..response(revision, &[]) }
    }

    fn fragment(events: &[i64]) -> WatchResponse {
        WatchResponse { fragment: true, ..response(0, events) }
    }

    /// What is delivered of a message: the revision and the number of events of each item, which is 0 for progress.
    fn delivered(cursor: &mut Cursor, response: WatchResponse) -> Vec<(i64, usize)> {
        let items = cursor.take(response, "e").expect("the watch goes on");
        let item = |item| match item {
            WatchItem::Events { revision, events } => {
                assert!(events.iter().all(|event| event.kv.mod_revision == revision));
                (revision, events.len())
            }
            WatchItem::Progress { revision } => (revision, 0),
            other => panic!("a cursor knows no connections: {other:?}"),
        };
        items.into_iter().map(item).collect()
    }

    #[test]
    fn the_revision_of_the_creation_is_remembered() {
        let mut cursor = Cursor::new(0);
        assert_eq!(cursor.next(), 0);
        assert_eq!(delivered(&mut cursor, created(7)), []);
        // A break before the first event: what was written meanwhile is asked for.
        cursor.interrupt();
        assert_eq!(cursor.next(), 8);
        assert_eq!(delivered(&mut cursor, created(12)), []);
        assert_eq!(cursor.next(), 8);
        let mut cursor = Cursor::new(5);
        assert_eq!(delivered(&mut cursor, created(7)), []);
        assert_eq!(cursor.next(), 5);
    }

    #[test]
    fn the_events_of_a_revision_are_delivered_together_and_once() {
        let mut cursor = Cursor::new(3);
        assert_eq!(delivered(&mut cursor, response(9, &[3, 3, 5, 6])), [(3, 2), (5, 1), (6, 1)]);
        assert_eq!(cursor.next(), 7, "the header may be ahead of the events");
        // A member that repeats itself, from before what was asked for.
        assert_eq!(delivered(&mut cursor, response(9, &[5, 6, 6, 8, 8])), [(8, 2)]);
        assert_eq!(delivered(&mut cursor, response(9, &[8])), []);
        assert_eq!(cursor.next(), 9);
    }

    #[test]
    fn a_member_that_is_behind_changes_nothing() {
        let mut cursor = Cursor::new(1);
        assert_eq!(delivered(&mut cursor, response(9, &[9])), [(9, 1)]);
        cursor.interrupt();
        for late in [created(4), response(4, &[]), response(5, &[5]), response(8, &[])] {
            assert_eq!(delivered(&mut cursor, late), []);
            assert_eq!(cursor.next(), 10);
        }
        assert_eq!(delivered(&mut cursor, response(9, &[])), [(9, 0)]);
        assert_eq!(delivered(&mut cursor, response(12, &[])), [(12, 0)]);
        assert_eq!(cursor.next(), 13, "what is before need not be asked for again");
        let asked_for = WatchResponse { watch_id: WHOLE_STREAM, ..response(20, &[]) };
        assert_eq!(delivered(&mut cursor, asked_for), [(20, 0)]);
        assert_eq!(delivered(&mut cursor, response(20, &[19])), [(19, 1)], "it was told too early");
    }

    #[test]
    fn fragments_are_joined() {
        let mut cursor = Cursor::new(1);
        assert_eq!(delivered(&mut cursor, fragment(&[1, 2])), [(1, 1)], "more of revision 2 may follow");
        assert_eq!(delivered(&mut cursor, fragment(&[2, 2])), []);
        assert_eq!(delivered(&mut cursor, response(4, &[2, 4])), [(2, 4), (4, 1)]);
        // The rest is lost: all of revision 6 is asked for again.
        assert_eq!(delivered(&mut cursor, fragment(&[5, 6, 6])), [(5, 1)]);
        cursor.interrupt();
        assert_eq!(cursor.next(), 6);
        assert_eq!(delivered(&mut cursor, fragment(&[6])), []);
        assert_eq!(delivered(&mut cursor, response(6, &[6, 6])), [(6, 3)]);
    }

    #[test]
    fn a_refusal_says_why() {
        let error = |response| {
            let mut cursor = Cursor::new(3);
            cursor.take(WatchResponse { canceled: true, ..response }, "e").expect_err("it is cancelled")
        };
        let compacted = error(WatchResponse { compact_revision: 7, ..response(0, &[]) });
        assert!(matches!(compacted, ClientError::Compacted { next: 3, compact_revision: 7 }), "{compacted:?}");
        for (reason, code) in [
            ("mvcc: watcher range is empty", Code::InvalidArgument),
            ("rpc error: code = PermissionDenied desc = etcdserver: permission denied", Code::PermissionDenied),
            ("something else", Code::FailedPrecondition),
            ("", Code::Aborted),
        ] {
            match error(WatchResponse { cancel_reason: reason.to_owned(), ..created(3) }) {
                ClientError::Refused { status, .. } => assert_eq!(status.code(), code, "{reason}"),
                other => panic!("{reason}: {other:?}"),
            }
        }
    }

    /// Random numbers below `end`, the same in each run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % end
        }
    }

    /// The messages of a member that serves these revisions, each with its number of events, from `first` on.
    fn messages(random: &mut Random, history: &[(i64, usize)], first: i64) -> Vec<WatchResponse> {
        let events = history.iter().filter(|(at, _)| *at >= first).flat_map(|(at, count)| vec![*at; *count]);
        let (mut all, mut message) = (Vec::new(), Vec::new());
        let events: Vec<i64> = events.collect();
        for (place, at) in events.iter().enumerate() {
            message.push(*at);
            let splits = events.get(place + 1) == Some(at);
            if random.below(3) == 0 {
                let next = std::mem::take(&mut message);
                all.push(if splits || random.below(4) == 0 { fragment(&next) } else { response(*at, &next) });
                if !splits && random.below(4) == 0 {
                    all.push(response(*at, &[]));
                }
            }
        }
        all.push(response(0, &message));
        all
    }

    #[test]
    fn nothing_is_lost_or_repeated_whatever_breaks() {
        for seed in 0..500 {
            let mut random = Random(seed);
            let mut history: Vec<(i64, usize)> = Vec::new();
            let mut at = 0;
            for _ in 0..20 {
                at += 1 + i64::try_from(random.below(3)).expect("a small number");
                history.push((at, 1 + usize::try_from(random.below(4)).expect("a small number")));
            }
            let (mut cursor, mut seen) = (Cursor::new(1), Vec::new());
            while seen.len() < history.len() {
                // A member may begin earlier, and may know only a part.
                let earlier = i64::try_from(random.below(4)).expect("a small number");
                let known = usize::try_from(random.below(20)).expect("a small number") + 1;
                let all = messages(&mut random, &history[..known], cursor.next() - earlier);
                let until = usize::try_from(random.below(all.len() as u64 + 1)).expect("a small number");
                for message in all.into_iter().take(until) {
                    seen.extend(delivered(&mut cursor, message).into_iter().filter(|(_, count)| *count > 0));
                }
                cursor.interrupt();
            }
            assert_eq!(seen, history, "seed {seed}");
        }
    }
}
