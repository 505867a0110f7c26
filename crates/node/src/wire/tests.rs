use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

fn any_position() -> impl Strategy<Value = raft::Position> {
    any::<(u64, u64)>().prop_map(|(term, index)| raft::Position::new(Index(index), Term(term)))
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

fn any_entry() -> impl Strategy<Value = raft::Entry> {
    let payload = prop_oneof![
        Just(Payload::Blank),
        any_bytes().prop_map(Payload::Command),
        any_membership().prop_map(Payload::Membership),
    ];
    (any::<u64>(), any::<u64>(), payload).prop_map(|(index, term, payload)| raft::Entry {
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
        (any::<u64>(), any_position(), any::<u64>()).prop_map(|(index, hint, loss_id)| AppendOutcome::Damaged {
            prev_index: Index(index),
            hint,
            loss_id
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
        (any::<[u64; 2]>(), any::<Option<u64>>(), any_position()).prop_map(|([start_id, term], voted_for, last)| {
            let hard_state = HardState { term: Term(term), voted_for: voted_for.map(NodeId) };
            Body::Returned { start_id, found: Found { hard_state, last } }
        }),
        (any::<u64>(), any::<Option<u64>>(), proptest::option::of(any_position()))
            .prop_map(|(start_id, missing, leads)| Body::Remembered { start_id, missing: missing.map(Term), leads }),
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
        prop_assert_eq!(decode(encoded(&message)), Ok(Some(message)));
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
        let longer = [&encoded(&message)[..], &[0]].concat();
        prop_assert_eq!(decode(longer.into()), Err(WireError::Trailing(1)));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..400)) {
        if let Ok(Some(message)) = decode(Bytes::from(bytes)) {
            prop_assert_eq!(decode(encoded(&message)), Ok(Some(message)));
        }
    }

    #[test]
    fn a_damaged_message_never_panics(message in any_message(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let mut bytes = encoded(&message).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let _ = decode(Bytes::from(bytes));
    }

    /// A later version may add fields to a message and to an entry.
    #[test]
    fn a_field_that_is_not_known_is_passed_over(message in any_message()) {
        let mut newer = BytesMut::new();
        encode_extended(&message, UNKNOWN_FIELD, &mut newer);
        prop_assert_eq!(decode(newer.freeze()), Ok(Some(message)));
    }
}

/// Field 127, a varint.
const UNKNOWN_FIELD: &[u8] = &[0xf8, 0x07, 1];

fn entry(payload: Payload) -> raft::Entry {
    raft::Entry { index: Index(8), term: Term(3), payload }
}

fn append_of(entries: Vec<raft::Entry>) -> NodeMessage {
    let append = AppendEntries {
        session: Session(1),
        round: Round(2),
        sent_at: Time(3),
        prev: raft::Position::new(Index(7), Term(3)),
        entries,
        commit_index: Index(4),
        durable_index: Index(5),
    };
    NodeMessage::Raft(Message { term: Term(6), body: Body::AppendEntries(append) })
}

/// The message of an AppendEntries, and the bytes that follow it.
fn header_and_rest(mut bytes: Bytes) -> (PeerMessage, Bytes) {
    let header = PeerMessage::decode_length_delimited(&mut bytes).expect("it was written so");
    (header, bytes)
}

#[test]
fn four_billion_entries_are_refused_without_memory_for_them() {
    let (mut header, _) = header_and_rest(encoded(&append_of(Vec::new())));
    let Some(PeerBody::AppendEntries(append)) = &mut header.body else { panic!("{header:?} for an append") };
    append.entries = u32::MAX;
    let error = decode(header.encode_length_delimited_to_vec().into()).expect_err("there are no entries");
    assert_eq!(error.to_string(), "4294967295 entries in a message; allowed: at most 65536");
}

#[test]
fn more_members_than_there_can_be_are_refused() {
    let members = |count| Group { voters: (0..count).map(NodeId).collect(), learners: BTreeSet::new() };
    let append = |count| append_of(vec![entry(Payload::Membership(Membership::simple(members(count))))]);
    assert_eq!(decode(encoded(&append(64))), Ok(Some(append(64))));
    let error = decode(encoded(&append(65))).expect_err("too many");
    assert_eq!(error.to_string(), "65 members in a message; allowed: at most 64");
}

#[test]
fn a_message_of_an_unknown_kind_is_lost_and_an_entry_of_one_is_an_error() {
    let newer = [&[8, 1][..], UNKNOWN_FIELD].concat();
    let framed = [&[newer.len() as u8][..], &newer].concat();
    assert_eq!(decode(framed.into()), Ok(None));
    let (header, _) = header_and_rest(encoded(&append_of(vec![entry(Payload::Blank)])));
    let unknown = pb::Entry { index: 8, term: 3, payload: None };
    let bytes = [header.encode_length_delimited_to_vec(), unknown.encode_length_delimited_to_vec()].concat();
    assert_eq!(decode(bytes.into()), Err(WireError::Unknown("the payload of an entry")));
}

/// A member passes on fields that it does not know, here one of a command that only newer members read.
#[test]
fn a_command_arrives_byte_for_byte_in_the_memory_of_its_message() {
    let command = Bytes::from([&[7; 100][..], UNKNOWN_FIELD].concat());
    let bytes = encoded(&append_of(vec![entry(Payload::Command(command.clone()))]));
    let Ok(Some(NodeMessage::Raft(Message { body: Body::AppendEntries(append), .. }))) = decode(bytes.clone()) else {
        panic!("it was written so");
    };
    let Payload::Command(arrived) = &append.entries[0].payload else { panic!("a command was sent") };
    assert_eq!(*arrived, command);
    assert!(bytes.as_ptr_range().contains(&arrived.as_ptr()), "it was not copied");
}

/// These are the bytes that members of other versions send and read. The numbers of fields and kinds never change: a
/// line here may be added, but never changed.
#[test]
fn messages_keep_their_bytes() {
    let position = raft::Position::new(Index(2), Term(1));
    let group = |id: u64| Group { voters: [NodeId(id)].into(), learners: [NodeId(id + 1)].into() };
    let membership = Membership::joint(group(1), group(3));
    let header = SnapshotHeader { position, membership: membership.clone() };
    let reply = |outcome| {
        let (session, round, sent_at) = (Session(1), Round(2), Time(3));
        Body::AppendEntriesReply(AppendEntriesReply { session, round, sent_at, outcome })
    };
    let hard_state = HardState { term: Term(2), voted_for: Some(NodeId(3)) };
    let bodies = [
        Body::PreVote { last: position },
        Body::PreVoteReply { granted: true },
        Body::RequestVote { last: position, transfer: true },
        Body::RequestVoteReply { granted: true },
        reply(AppendOutcome::Accepted { match_index: Index(4) }),
        reply(AppendOutcome::Rejected { prev_index: Index(4), hint: position }),
        reply(AppendOutcome::Damaged { prev_index: Index(4), hint: position, loss_id: 5 }),
        Body::InstallSnapshot(InstallSnapshot { session: Session(1), snapshot: header.clone() }),
        Body::TimeoutNow,
        Body::ReadIndex { context: 1, kind: ReadKind::Lease },
        Body::ReadIndex { context: 1, kind: ReadKind::Quorum },
        Body::ReadIndexReply { context: 1, index: Some(Index(0)) },
        Body::ReadIndexReply { context: 1, index: None },
        Body::Returned { start_id: 1, found: Found { hard_state, last: position } },
        Body::Remembered { start_id: 1, missing: Some(Term(2)), leads: Some(position) },
    ];
    let raft = bodies.map(|body| NodeMessage::Raft(Message { term: Term(6), body }));
    let command = Payload::Command(Bytes::from_static(b"command"));
    let append = append_of([Payload::Blank, command, Payload::Membership(membership)].map(entry).to_vec());
    let (term, session, data) = (Term(6), Session(1), Bytes::from_static(b"data"));
    let chunk = NodeMessage::Chunk(SnapshotChunk { term, session, header, total: 8, offset: 4, data });
    let received = NodeMessage::ChunkReply(SnapshotChunkReply { term, session, received: 8 });
    let all = raft.into_iter().chain([append, chunk, received]);
    let hex = |bytes: Bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    let lines: String = all.map(|message| hex(encoded(&message))).collect();
    assert_eq!(lines, include_str!("messages.hex"));
}
