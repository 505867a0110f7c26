//! What another member, or somebody who says so, sends to the peer port.

use bowline_node::raft::{
    AppendEntries, Body, Entry, Group, Index, Membership, Message, NodeId, Payload, Position, Round, Session, Term,
    Time,
};
use bowline_node::wire::encode;
use bowline_node::{NodeMessage, SnapshotChunk};
use bowline_raft::SnapshotHeader;
use bowline_server::peer::{framed, fuzz_frames};
use bytes::BytesMut;

pub(crate) fn run(data: &[u8]) {
    fuzz_frames(data);
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
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
    // A handshake: the first bytes, the version, the channel, three ids, whom it means, a name with an address.
    let mut hello = b"BWLN\x04\x00\x08\x01".to_vec();
    for (field, id) in (2..=5).zip(1_u64..) {
        hello.push(field << 3 | 1);
        hello.extend_from_slice(&id.to_le_bytes());
    }
    hello.extend_from_slice(b"\x32\x0a\x0a\x01n\x12\x01u\x18\x04\x20\x04");
    seeds.push([&[1], &hello[..]].concat());
    // A request and an answer.
    seeds.push(b"\x05\x08\x09\x10\x88\x27\x1a\x02ok".to_vec());
    seeds.push(b"\x05\x08\x07\x12\x02ok".to_vec());
    seeds
}
