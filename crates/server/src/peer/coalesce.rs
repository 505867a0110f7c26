//! Joins messages that wait for the same connection.
//!
//! A leader sends an AppendEntries for each proposal at once, so under load a queue holds many that each begin where
//! the one before ends. They are joined into one message, which the leader could have sent as well: the follower writes
//! once and answers once. The core need not know, because one answer acknowledges all.

use bowline_member::entries_bytes;
use bowline_node::NodeMessage;
use bowline_node::raft::{AppendEntries, Body, Entry, Message, Position};

/// Maximum bytes of entries in a joined message.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// Joins messages where possible, and keeps their order.
pub(crate) fn coalesce(messages: Vec<NodeMessage>) -> Vec<NodeMessage> {
    let mut fewer: Vec<NodeMessage> = Vec::with_capacity(messages.len().min(16));
    let mut bytes = 0;
    for mut message in messages {
        let size = entries_bytes(&message);
        if bytes + size <= MAX_BYTES
            && let Some(last) = fewer.last_mut()
            && join(last, &mut message)
        {
            bytes += size;
            continue;
        }
        bytes = size;
        fewer.push(message);
    }
    fewer
}

/// Appends `second` to `first` if it begins where that ends. Returns whether it did.
fn join(first: &mut NodeMessage, second: &mut NodeMessage) -> bool {
    let (
        NodeMessage::Raft(Message { term: first_term, body: Body::AppendEntries(first) }),
        NodeMessage::Raft(Message { term: second_term, body: Body::AppendEntries(second) }),
    ) = (first, second)
    else {
        return false;
    };
    if first_term != second_term || first.session != second.session || end(first) != second.prev {
        return false;
    }
    first.entries.append(&mut second.entries);
    // Every message that is sent after a round began may name the round. The time stays the earlier one, because leases
    // and check-quorum count from it, and too early is safe.
    first.round = first.round.max(second.round);
    first.commit_index = first.commit_index.max(second.commit_index);
    first.durable_index = first.durable_index.max(second.durable_index);
    true
}

/// The position of the last entry of a message, or of the one before it.
fn end(append: &AppendEntries) -> Position {
    append.entries.last().map_or(append.prev, Entry::position)
}

#[cfg(test)]
mod tests {
    use bowline_node::raft::{Index, Payload, Round, Session, Term, Time};
    use bytes::Bytes;

    use super::*;

    fn append(prev: u64, entries: u64, round: u64, commit: u64) -> NodeMessage {
        let position = |index| Position::new(Index(index), Term(3));
        let entry = |index| Entry {
            index: Index(index),
            term: Term(3),
            payload: Payload::Command(Bytes::from_static(b"command")),
        };
        let append = AppendEntries {
            session: Session(5),
            round: Round(round),
            sent_at: Time(100 + round),
            prev: position(prev),
            entries: (prev + 1..=prev + entries).map(entry).collect(),
            commit_index: Index(commit),
            durable_index: Index(commit),
        };
        NodeMessage::Raft(Message { term: Term(3), body: Body::AppendEntries(append) })
    }

    #[test]
    fn what_goes_on_where_the_last_ends_is_one_message() {
        let together = coalesce(vec![append(4, 1, 1, 3), append(5, 2, 1, 4), append(7, 0, 2, 6), append(7, 1, 2, 6)]);
        let mut expected = append(4, 4, 2, 6);
        let NodeMessage::Raft(Message { body: Body::AppendEntries(whole), .. }) = &mut expected else { unreachable!() };
        whole.sent_at = Time(101);
        assert_eq!(together, [expected]);
    }

    #[test]
    fn a_gap_a_repetition_another_session_or_term_stays_apart() {
        let gap = vec![append(4, 1, 1, 3), append(6, 1, 1, 3)];
        assert_eq!(coalesce(gap.clone()), gap);
        let again = vec![append(4, 2, 1, 3), append(4, 2, 1, 3)];
        assert_eq!(coalesce(again.clone()), again);
        let mut other = vec![append(4, 1, 1, 3), append(5, 1, 1, 3)];
        let NodeMessage::Raft(Message { body: Body::AppendEntries(second), .. }) = &mut other[1] else {
            unreachable!()
        };
        second.session = Session(6);
        assert_eq!(coalesce(other.clone()), other);
        let mut later = vec![append(4, 1, 1, 3), append(5, 1, 1, 3)];
        let NodeMessage::Raft(second) = &mut later[1] else { unreachable!() };
        second.term = Term(4);
        assert_eq!(coalesce(later.clone()), later);
    }

    #[test]
    fn a_message_stays_below_its_bound() {
        let size = entries_bytes(&append(0, 1, 1, 0));
        let many: Vec<_> = (0..40_000).map(|prev| append(prev, 1, 1, 0)).collect();
        let together = coalesce(many);
        assert!(together.len() > 1);
        assert!(together.iter().all(|message| entries_bytes(message) <= MAX_BYTES));
        assert_eq!(together.iter().map(entries_bytes).sum::<usize>(), 40_000 * size);
    }
}
