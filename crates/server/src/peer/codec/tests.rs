use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

fn any_position() -> impl Strategy<Value = Position> {
    any::<(u64, u64)>().prop_map(|(term, index)| Position::new(Index(index), Term(term)))
}

fn any_ids() -> impl Strategy<Value = BTreeSet<NodeId>> {
    btree_set(any::<u64>().prop_map(NodeId), 0..6)
}

fn any_membership() -> impl Strategy<Value = Membership> {
    let group = || (any_ids(), any_ids()).prop_map(|(voters, learners)| Group { voters, learners });
    prop_oneof![
        group().prop_map(Membership::simple),
        (group(), group()).prop_map(|(outgoing, incoming)| Membership::joint(outgoing, incoming)),
    ]
}

fn any_header() -> impl Strategy<Value = SnapshotHeader> {
    (any_position(), any_membership()).prop_map(|(position, membership)| SnapshotHeader { position, membership })
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let payload = prop_oneof![
        Just(Payload::Blank),
        any_bytes().prop_map(Payload::Command),
        any_membership().prop_map(Payload::Membership),
    ];
    (any::<u64>(), any::<u64>(), payload).prop_map(|(index, term, payload)| Entry {
        index: Index(index),
        term: Term(term),
        payload,
    })
}

fn any_append() -> impl Strategy<Value = Body> {
    (any::<[u64; 5]>(), any_position(), vec(any_entry(), 0..5)).prop_map(
        |([session, round, sent_at, commit, durable], prev, entries)| {
            Body::AppendEntries(AppendEntries {
                session: Session(session),
                round: Round(round),
                sent_at: Time(sent_at),
                prev,
                entries,
                commit_index: Index(commit),
                durable_index: Index(durable),
            })
        },
    )
}

fn any_reply() -> impl Strategy<Value = Body> {
    let outcome = prop_oneof![
        any::<u64>().prop_map(|index| AppendOutcome::Accepted { match_index: Index(index) }),
        (any::<u64>(), any_position())
            .prop_map(|(index, hint)| AppendOutcome::Rejected { prev_index: Index(index), hint }),
        (any::<u64>(), any_position(), any::<u64>()).prop_map(|(index, hint, life)| AppendOutcome::Damaged {
            prev_index: Index(index),
            hint,
            life
        }),
    ];
    (any::<(u64, u64, u64)>(), outcome).prop_map(|((session, round, sent_at), outcome)| {
        let (session, round, sent_at) = (Session(session), Round(round), Time(sent_at));
        Body::AppendEntriesReply(AppendEntriesReply { session, round, sent_at, outcome })
    })
}

fn any_body() -> impl Strategy<Value = Body> {
    let kind = any::<bool>().prop_map(|quorum| if quorum { ReadKind::Quorum } else { ReadKind::Lease });
    prop_oneof![
        any_position().prop_map(|last| Body::PreVote { last }),
        any::<bool>().prop_map(|granted| Body::PreVoteReply { granted }),
        (any_position(), any::<bool>()).prop_map(|(last, transfer)| Body::RequestVote { last, transfer }),
        any::<bool>().prop_map(|granted| Body::RequestVoteReply { granted }),
        any_append(),
        any_reply(),
        (any::<u64>(), any_header()).prop_map(|(session, snapshot)| {
            Body::InstallSnapshot(InstallSnapshot { session: Session(session), snapshot })
        }),
        Just(Body::TimeoutNow),
        (any::<u64>(), kind).prop_map(|(context, kind)| Body::ReadIndex { context, kind }),
        (any::<u64>(), any::<Option<u64>>())
            .prop_map(|(context, index)| Body::ReadIndexReply { context, index: index.map(Index) }),
        (any::<[u64; 2]>(), any::<Option<u64>>(), any_position()).prop_map(|([life, term], voted_for, last)| {
            let hard_state = HardState { term: Term(term), voted_for: voted_for.map(NodeId) };
            Body::Returned { life, found: Found { hard_state, last } }
        }),
        (any::<u64>(), any::<Option<u64>>(), proptest::option::of(any_position()))
            .prop_map(|(life, missing, leads)| Body::Remembered { life, missing: missing.map(Term), leads }),
    ]
}

fn any_message() -> impl Strategy<Value = NodeMessage> {
    let chunk = (any::<(u64, u64, u64, u64)>(), any_header(), any_bytes()).prop_map(
        |((term, session, total, offset), header, data)| {
            let (term, session) = (Term(term), Session(session));
            NodeMessage::Chunk(SnapshotChunk { term, session, header, total, offset, data })
        },
    );
    prop_oneof![
        8 => (any::<u64>(), any_body()).prop_map(|(term, body)| NodeMessage::Raft(Message { term: Term(term), body })),
        1 => chunk,
        1 => any::<(u64, u64, u64)>().prop_map(|(term, session, received)| {
            NodeMessage::ChunkReply(SnapshotChunkReply { term: Term(term), session: Session(session), received })
        }),
    ]
}

fn encoded(message: &NodeMessage) -> Bytes {
    let mut out = BytesMut::new();
    encode(message, &mut out);
    out.freeze()
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(message in any_message()) {
        prop_assert_eq!(decode(encoded(&message)), Ok(message));
    }

    #[test]
    fn every_shortened_message_is_refused(message in any_message()) {
        let bytes = encoded(&message);
        for length in 0..bytes.len() {
            prop_assert!(decode(bytes.slice(..length)).is_err());
        }
    }

    #[test]
    fn a_longer_message_is_refused(message in any_message()) {
        let mut bytes = BytesMut::from(&encoded(&message)[..]);
        bytes.put_u8(0);
        prop_assert_eq!(decode(bytes.freeze()), Err(WireError::Trailing(1)));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..400)) {
        // What is read must be what was meant: a second way to write it would be a second meaning.
        if let Ok(message) = decode(Bytes::from(bytes)) {
            prop_assert_eq!(decode(encoded(&message)), Ok(message));
        }
    }

    #[test]
    fn a_damaged_message_never_panics(message in any_message(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let mut bytes = encoded(&message).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = decode(Bytes::from(bytes));
    }
}

#[test]
fn four_billion_entries_are_refused_without_memory_for_them() {
    let append = AppendEntries {
        session: Session(1),
        round: Round(0),
        sent_at: Time(1),
        prev: Position::ORIGIN,
        entries: Vec::new(),
        commit_index: Index(0),
        durable_index: Index(0),
    };
    let mut bytes = encoded(&NodeMessage::Raft(Message { term: Term(1), body: Body::AppendEntries(append) })).to_vec();
    let count_at = bytes.len() - 4;
    bytes[count_at..].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = decode(Bytes::from(bytes)).expect_err("there are no entries");
    assert_eq!(error.to_string(), "entries is 4294967295; allowed: as many as the message has room for");
}
