//! What strangers and damaged peers send: ignored, counted, and never the end of a replica.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

use super::network::{AN_ELECTION, Network, client, get, id, ok, put};
use crate::lan_id::LanId;
use crate::message::{Content, Envelope, MAX_MESSAGE_BYTES};
use crate::replica::Ignored;

fn message(src: LanId, dst: LanId, rest: &str) -> Vec<u8> {
    format!(r#"{{"src":"{src}","dst":"{dst}","leader":"FFFF",{rest}}}"#).into_bytes()
}

/// Hands bytes to replica 0 of a settled network; what it ignored, and how often it answered.
fn ignored(bytes: &[u8]) -> Ignored {
    let mut network = Network::settled(3);
    let said = network.said.len();
    network.hand_over(0, bytes);
    assert_eq!((network.replies(), network.said.len()), (0, said), "{:?}", String::from_utf8_lossy(bytes));
    assert_eq!(network.replica(0).unanswered(), 0);
    network.replica(0).ignored()
}

#[test]
fn what_is_no_message_is_counted_as_unreadable() {
    let unreadable = Ignored { unreadable: 1, ..Ignored::default() };
    let mut large = message(client(1), id(0), r#""type":"get","MID":"m","key":"k""#);
    large.resize(MAX_MESSAGE_BYTES + 1, b' ');
    let strange: [&[u8]; 8] = [
        b"",
        b"\n",
        b"hello",
        b"[]",
        b"\xff\xfe",
        b"{}",
        br#"{"src":"100","dst":"0000","leader":"FFFF","type":"get","MID":"m","key":"k"}"#,
        &large,
    ];
    for bytes in strange {
        assert_eq!(ignored(bytes), unreadable, "{:?}", String::from_utf8_lossy(bytes));
    }
    let deep = message(id(1), id(0), &format!(r#""type":"pre_vote","x":{}"#, "[".repeat(5_000)));
    assert_eq!(ignored(&deep), unreadable);
}

/// A request by client 1 to replica 0, which nobody has heard of before.
fn request(rest: &str) -> Vec<u8> {
    message(client(1), id(0), rest)
}

/// What a settled replica answers to these bytes, if anything.
fn refusal(bytes: &[u8]) -> Option<String> {
    let mut network = Network::settled(3);
    network.hand_over(0, bytes);
    if network.replies() == 0 {
        assert_eq!(network.replica(0).ignored(), Ignored { unreadable: 1, ..Ignored::default() });
        assert!(network.replica(0).first_unreadable().is_some());
        return None;
    }
    assert_eq!(network.replica(0).ignored(), Ignored::default());
    let Content::Fail { error, .. } = network.answer(1, "m").content.clone() else {
        panic!("{:?} is answered with {:?}", String::from_utf8_lossy(bytes), network.answer(1, "m"))
    };
    // Once is enough.
    network.hand_over(0, bytes);
    assert_eq!((network.replies(), network.replica(0).ignored().repeated), (1, 1));
    error
}

#[test]
fn a_request_that_can_not_be_read_fails_with_a_reason() {
    let deep = format!(r#""type":"get","key":{}{},"MID":"m""#, "[".repeat(9_000), "]".repeat(9_000));
    let cases = [
        (r#""type":"get","key":"a\ud800","MID":"m""#, r#"`key` is "a\ud800", which is not Unicode"#),
        (r#""type":"put","key":"k","value":"\udc00\ud800","MID":"m""#, "`value`"),
        (r#""type":"put","MID":"m","key":"k","value":"\ud83e""#, "`value`"),
        (r#""type":"put","key":"k","value":1e999,"MID":"m""#, "`value` is 1e999; it must be a string"),
        (r#""type":"put","key":7,"value":"v","MID":"m""#, "`key` is 7"),
        (r#""type":"put","key":"k","value":{"a":[1]},"MID":"m""#, "`value` is an object"),
        (r#""type":"get","key":null,"MID":"m""#, "`key` is missing"),
        (r#""type":"put","key":"k","MID":"m""#, "`value` is missing"),
        (r#""type":"get","MID":"m""#, "`key` is missing"),
        (&deep, "`key` is an array"),
        (r#""type":"put","key":"k","value":"v","value":"w","MID":"m""#, "duplicate field `value`"),
        ("\"type\":\"put\",\"key\":\"a\0b\",\"value\":\"v\",\"MID\":\"m\"", "control character"),
        ("\"type\":\"put\",\"key\":\"a\nb\",\"value\":\"\\\"\t\",\"MID\":\"m\"", "control character"),
        (r#""type":"get","MID":"m","key":tru"#, "not one JSON object"),
    ];
    for (rest, reason) in cases {
        let error = refusal(&request(rest)).unwrap_or_else(|| panic!("{rest} is answered"));
        assert!(error.contains(reason) && !error.contains('\n'), "{rest}: {error}");
    }
    let whole = request(r#""type":"put","MID":"m","key":"k","value":"v""#);
    let text = String::from_utf8(whole.clone()).unwrap();
    let bytes = [
        whole.iter().map(|byte| if *byte == b'v' { 0xff } else { *byte }).collect::<Vec<u8>>(),
        [&whole[..], b"\0"].concat(),
        [&whole[..], b" }"].concat(),
        [&whole[..], &whole[..]].concat(),
        whole[..whole.len() - 3].to_vec(),
        text.replace(r#""leader":"FFFF","#, "").into_bytes(),
        text.replace("FFFF", "nobody").into_bytes(),
    ];
    for bytes in bytes {
        assert!(refusal(&bytes).is_some(), "{:?}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn what_does_not_say_who_asks_is_counted_as_unreadable() {
    let cases = [
        r#""type":"get","key":7"#,
        r#""type":"get","key":7,"MID":7"#,
        r#""type":"get","key":7,"MID":"m\ud800""#,
        r#""type":"get","key":"k","MID":"m","MID":"n""#,
        r#""type":"get","key":"k","MID":"m","src":"0102""#,
        r#""type":"get","key":7,"MID":"m","dest":"0001""#,
        r#""type":"get","type":"put","key":7,"MID":"m""#,
        r#""type":"g\ud800","key":"k","MID":"m""#,
        // Neither is a request; answers to answers would never end.
        r#""type":"ok","MID":"m","value":"\ud800""#,
        r#""type":"fail","MID":7"#,
    ];
    for rest in cases {
        assert_eq!(refusal(&request(rest)), None, "{rest}");
    }
    let long = "m".repeat(2_000);
    assert_eq!(refusal(&request(&format!(r#""type":"get","key":"k","MID":"{long}""#))), None);
    let unnamed = String::from_utf8(request(r#""type":"get","key":7,"MID":"m""#)).unwrap();
    for src in ["", "\\ud800", "0000", "FFFF", "0001"] {
        let bytes = unnamed.replace("\"src\":\"0101\"", &format!("\"src\":\"{src}\""));
        // A replica asks for nothing, and is told nothing.
        let counted = if src == "0001" {
            Ignored { foreign: 1, ..Ignored::default() }
        } else {
            Ignored { unreadable: 1, ..Ignored::default() }
        };
        assert_eq!(ignored(bytes.as_bytes()), counted, "{src:?}");
    }
    assert_eq!(refusal(&message(client(1), id(1), r#""type":"get","key":7,"MID":"m""#)), None, "another's request");
}

#[test]
fn what_nobody_has_to_read_may_be_anything() {
    let mut network = Network::settled(3);
    let (leader, _) = network.leader_and_follower();
    for (number, odd) in [r#""x":"\ud800""#, r#""\ud800":1"#, r#""error":"\ud800""#, r#""x":-1e999"#, r#""value":[[]]"#]
        .into_iter()
        .enumerate()
    {
        let mid = format!("m{number}");
        network.hand_over(
            leader,
            &message(client(1), id(leader), &format!(r#""type":"get",{odd},"key":"k","MID":"{mid}""#)),
        );
        assert_eq!(network.answer(1, &mid).content, ok(&mid, Some("")), "{odd}");
    }
    let nul = r#""type":"put","MID":"nul","key":"a\u0000b","value":"\u0000""#;
    network.hand_over(leader, &message(client(1), id(leader), nul));
    network.pass(Duration::from_millis(5));
    assert_eq!(network.answer(1, "nul").content, ok("nul", None));
    network.ask(leader, 1, get("read", "a\0b"));
    assert_eq!(network.answer(1, "read").content, ok("read", Some("\0")));
}

#[test]
fn what_is_not_between_those_who_may_talk_is_counted_as_foreign() {
    let foreign = Ignored { foreign: 1, ..Ignored::default() };
    let request = r#""type":"get","MID":"m","key":"k""#;
    let own = r#""type":"timeout_now","term":9"#;
    let cases = [
        ("to another replica", message(client(1), id(1), request)),
        ("to a client", message(client(1), client(2), request)),
        ("from itself", message(id(0), id(0), request)),
        ("from nobody", message(LanId::BROADCAST, id(0), request)),
        ("a request of a peer", message(id(1), id(0), request)),
        ("a put of a peer", message(id(1), id(0), r#""type":"put","MID":"m","key":"k","value":"v""#)),
        ("a reply", message(client(1), id(0), r#""type":"ok","MID":"m""#)),
        ("a reply of a peer", message(id(1), id(0), r#""type":"redirect","MID":"m""#)),
        ("a fail", message(client(1), id(0), r#""type":"fail","MID":"m""#)),
        ("a hello", message(id(1), id(0), r#""type":"hello""#)),
        ("a replica's message from a client", message(client(1), id(0), own)),
        ("a replica's message from a stranger", message(id(7), id(0), own)),
        ("an unknown type from a client", message(client(1), id(0), r#""type":"gossip""#)),
    ];
    for (what, bytes) in cases {
        assert_eq!(ignored(&bytes), foreign, "{what}");
    }
}

#[test]
fn what_a_peer_can_not_mean_is_counted_as_malformed() {
    let malformed = Ignored { malformed: 1, ..Ignored::default() };
    let most = u64::MAX;
    let cases = [
        r#""type":"gossip""#.to_owned(),
        r#""type":"install_snapshot","term":1,"session":1,"last":[1,1],"members":{"incoming":{"voters":[1]}}"#
            .to_owned(),
        r#""type":"timeout_now""#.to_owned(),
        r#""type":"timeout_now","term":"1""#.to_owned(),
        r#""type":"timeout_now","term":1.5"#.to_owned(),
        r#""type":"timeout_now","term":1,"more":1"#.to_owned(),
        r#""type":"pre_vote","term":1,"last":[1]"#.to_owned(),
        format!(r#""type":"pre_vote","term":{most},"last":[1,1]"#),
        format!(r#""type":"request_vote","term":{most},"last":[1,1]"#),
        format!(r#""type":"request_vote","term":1,"last":[{most},1]"#),
        format!(r#""type":"pre_vote_reply","term":{most},"granted":true"#),
        format!(r#""type":"append_entries_reply","term":{most},"session":1,"round":0,"sent":0,"match":1"#),
        format!(r#""type":"append_entries","term":{most},"session":1,"round":0,"sent":0,"prev":[0,0],"commit":0"#),
        format!(r#""type":"append_entries","term":1,"session":1,"round":0,"sent":0,"prev":[{most},1],"commit":0"#),
        format!(r#""type":"snapshot_chunk_reply","term":{most},"session":1,"received":0"#),
    ];
    for rest in cases {
        assert_eq!(ignored(&message(id(1), id(0), &rest)), malformed, "{rest}");
    }
}

#[test]
fn a_replica_that_sees_two_leaders_answers_everyone_and_falls_silent() {
    let mut network = Network::settled(3);
    let (leader, other) = network.leader_and_follower();
    network.isolate(leader);
    network.ask(leader, 1, put("open", "k", "v"));
    let term = network.replica(leader).node().raft().term().0;
    let forged =
        format!(r#""type":"append_entries","term":{term},"session":1,"round":0,"sent":1,"prev":[0,0],"commit":0"#);
    network.hand_over(leader, &message(id(other), id(leader), &forged));
    let fault = network.replica(leader).fault().expect("it has seen what must not be").to_string();
    assert!(fault.contains("leads in"), "{fault}");
    assert!(matches!(network.answer(1, "open").content, Content::Fail { .. }), "nobody knows what became of it");
    assert_eq!(network.replica(leader).unanswered(), 0);
    let said = network.said.len();
    network.ask(leader, 1, put("later", "k", "v"));
    network.hand_over(leader, &message(id(other), id(leader), &forged));
    assert_eq!((network.answers(1, "later").len(), network.said.len()), (0, said));
    network.heal();
    network.pass(AN_ELECTION);
    let next = network.leader().expect("the others go on");
    assert_ne!(next, leader);
    network.ask(next, 2, put("m", "k", "w"));
    network.pass(Duration::from_millis(100));
    assert_eq!(network.answer(2, "m").content, ok("m", None));
}

/// Every message that replicas said to each other in an eventful life, snapshots included.
fn real_messages() -> Vec<Vec<u8>> {
    let mut network = Network::tuned(3, |config| {
        config.raft.max_retained_bytes = 300;
        config.snapshot_at_bytes = 600;
        config.chunk_bytes = 100;
    });
    network.pass(AN_ELECTION);
    let (leader, follower) = network.leader_and_follower();
    network.isolate(follower);
    for number in 0..20 {
        network.ask(leader, 1, put(&format!("m{number}"), "k", "v"));
        network.pass(Duration::from_millis(1));
    }
    network.heal();
    network.pass(AN_ELECTION);
    network.kill(leader);
    network.pass(AN_ELECTION);
    network.said
}

/// What may stand where a number stands.
fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..10, any::<u64>(), Just(u64::MAX), Just(u64::MAX - 1), Just(1 << 63), Just((1 << 62) + 1)]
}

/// Replaces the `place`-th number in a value, and counts on.
fn replace_number(value: &mut Value, place: &mut usize, by: u64) {
    match value {
        Value::Number(number) => {
            if *place == 0 {
                *number = by.into();
            }
            *place = place.wrapping_sub(1);
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace_number(item, place, by)),
        Value::Object(fields) => fields.values_mut().for_each(|item| replace_number(item, place, by)),
        _ => {}
    }
}

/// Whatever was sent to it, a replica that has not stopped goes on serving.
fn lives_on(mut network: Network) {
    network.pass(AN_ELECTION);
    network.pass(AN_ELECTION);
    let healthy = (0..3).filter(|number| network.replica(*number).node().raft().fault().is_none()).count();
    if healthy == 3 {
        let leader = network.leader().expect("three healthy replicas agree on a leader");
        network.ask(leader, 9, put("last", "k", "v"));
        network.pass(Duration::from_secs(1));
        assert_eq!(network.answer(9, "last").content, ok("last", None));
    }
}

/// One message, damaged: in a byte of it, or in a number.
#[derive(Clone, Debug)]
struct Damage {
    kind: Index,
    message: Index,
    how: Result<(Index, u8), (usize, u64)>,
}

impl Damage {
    fn strategy() -> impl Strategy<Value = Damage> {
        let byte = (any::<Index>(), any::<u8>()).prop_map(Ok);
        let number = (0usize..12, numbers()).prop_map(Err);
        (any::<[Index; 2]>(), prop_oneof![byte, number]).prop_map(|([kind, message], how)| Damage {
            kind,
            message,
            how,
        })
    }

    /// The damaged message, and whom it is for.
    fn deal(&self, by_kind: &[Vec<Vec<u8>>]) -> (usize, Vec<u8>) {
        let mut bytes = self.message.get(self.kind.get(by_kind).as_slice()).clone();
        let mut envelope = Envelope::parse(&bytes).unwrap();
        let to = usize::from(envelope.dst.value());
        match (self.how, &mut envelope.content) {
            (Ok((at, byte)), _) => {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            (Err((mut place, number)), Content::Other { fields, .. }) => {
                let mut map = fields.to_map();
                map.values_mut().for_each(|value| replace_number(value, &mut place, number));
                *fields = map.into();
                bytes = envelope.encode();
            }
            (Err(_), content) => unreachable!("between replicas only: {content:?}"),
        }
        (to, bytes)
    }
}

#[test]
fn a_damaged_message_never_brings_a_replica_down() {
    let mut by_kind: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for bytes in real_messages() {
        let kind = Envelope::parse(&bytes).unwrap().content.kind().to_owned();
        by_kind.entry(kind).or_default().push(bytes);
    }
    assert!(by_kind.len() >= 8, "{:?}", by_kind.keys());
    let by_kind: Vec<_> = by_kind.into_values().collect();
    let config = ProptestConfig { cases: 200, ..ProptestConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let check = |damages: Vec<Damage>| {
        let mut network = Network::settled(3);
        for damage in damages {
            let (to, bytes) = damage.deal(&by_kind);
            network.hand_over(to, &bytes);
        }
        lives_on(network);
        Ok(())
    };
    runner.run(&prop::collection::vec(Damage::strategy(), 1..20), check).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_request_is_answered_or_counted(place: Index, byte: u8, more: Option<(Index, u8)>, end: Option<Index>) {
        let mut network = Network::settled(3);
        let (leader, _) = network.leader_and_follower();
        let rest = r#""key":"k\u00e9","type":"put","value":"v \\\\","MID":"m""#;
        let mut bytes = message(client(1), id(leader), rest);
        for (place, byte) in [Some((place, byte)), more].into_iter().flatten() {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(end.map_or(bytes.len(), |end| end.index(bytes.len())));
        network.hand_over(leader, &bytes);
        network.pass(Duration::from_millis(5));
        let Ignored { unreadable, foreign, malformed, repeated } = network.replica(leader).ignored();
        let answers = network.replies() as u64;
        prop_assert_eq!(answers + unreadable + foreign + malformed + repeated, 1, "{:?}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn random_bytes_are_ignored(all: Vec<Vec<u8>>) {
        let mut network = Network::settled(3);
        let said = network.said.len();
        for bytes in &all {
            network.hand_over(0, bytes);
        }
        prop_assert_eq!((network.replies(), network.said.len()), (0, said));
        prop_assert_eq!(network.replica(0).ignored().unreadable, all.len() as u64);
    }
}
