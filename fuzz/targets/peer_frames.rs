//! What another member, or somebody who says so, sends to the peer port.
#![no_main]

use bowline_node::raft::{
    AppendEntries, Body, Entry, Group, Index, Membership, Message, NodeId, Payload, Position, Round, Session, Term,
    Time,
};
use bowline_node::{NodeMessage, SnapshotChunk};
use bowline_raft::SnapshotHeader;
use bowline_server::peer::{encode, framed, fuzz_frames};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: bowline_fuzz::seed(seeds()),
    |data: &[u8]| fuzz_frames(data)
);

fn seeds() -> Vec<Vec<u8>> {
    let position = Position::new(Index(4), Term(2));
    let membership = Membership::simple(Group::of_voters([NodeId(1), NodeId(2), NodeId(3)]));
    let entry = |index, payload| Entry { index: Index(index), term: Term(2), payload };
    let append = AppendEntries {
        session: Session(3),
        round: Round(5),
        sent_at: Time(7),
        prev: position,
        entries: vec![
            entry(5, Payload::Blank),
            entry(6, Payload::Command("command".into())),
            entry(7, Payload::Membership(membership.clone())),
        ],
        commit_index: Index(4),
        durable_index: Index(3),
    };
    let raft = |body| NodeMessage::Raft(Message { term: Term(2), body });
    let chunk = SnapshotChunk {
        term: Term(2),
        session: Session(3),
        header: SnapshotHeader { position, membership },
        total: 10,
        offset: 0,
        data: "data".into(),
    };
    let messages = [
        raft(Body::PreVote { last: position }),
        raft(Body::RequestVote { last: position, transfer: true }),
        raft(Body::RequestVoteReply { granted: true }),
        raft(Body::AppendEntries(append)),
        raft(Body::TimeoutNow),
        raft(Body::ReadIndexReply { context: 9, index: Some(Index(4)) }),
        NodeMessage::Chunk(chunk),
    ];
    let bodies = messages.map(|message| {
        let mut out = BytesMut::new();
        encode(&message, &mut out);
        out.freeze()
    });
    let mut seeds: Vec<Vec<u8>> = bodies.iter().map(|body| [&[9], &body[..]].concat()).collect();
    let whole: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
    seeds.push([&[8], &whole[..]].concat());
    // A handshake: the magic word, the version, the channel, three ids, whom it means, two texts.
    let mut hello = b"BWLN\x01\x00\x01".to_vec();
    hello.extend((1..=4_u64).flat_map(u64::to_le_bytes));
    hello.extend_from_slice(b"\x01\x00\x00\x00n\x01\x00\x00\x00u");
    seeds.push([&[1], &hello[..]].concat());
    seeds.push(b"\x05\x01\0\0\0\0\0\0\0\x00\x02\0\0\0ok".to_vec());
    seeds
}
