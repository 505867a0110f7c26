use std::time::Duration;

use super::*;
use network::{AN_ELECTION, Network, client, get, id, ok, put, redirect};

mod hostile;
mod network;

const A_MOMENT: Duration = Duration::from_millis(5);

#[test]
fn what_is_asked_before_there_is_a_leader_is_held_and_answered_after() {
    let mut network = Network::new(3);
    for to in 0..3 {
        network.ask(to, to, put(&format!("m{to}"), "k", "v"));
    }
    network.pass(Duration::from_millis(500));
    assert_eq!(network.replies(), 0, "there is no leader yet, and nobody is sent in circles");
    assert!((0..3).all(|to| network.replica(to).unanswered() == 1));
    network.pass(AN_ELECTION);
    let leader = network.leader().unwrap();
    for to in 0..3 {
        let mid = format!("m{to}");
        let answer = network.answer(to, &mid);
        let expected = if to == leader { ok(&mid, None) } else { redirect(&mid) };
        assert_eq!((&answer.content, answer.leader), (&expected, id(leader)));
        assert_eq!(network.replica(to).unanswered(), 0);
    }
}

#[test]
fn the_leader_serves_and_the_others_name_it() {
    let mut network = Network::settled(5);
    let (leader, _) = network.leader_and_follower();
    network.ask(leader, 1, put("p", "k", "v"));
    network.pass(A_MOMENT);
    network.ask(leader, 1, get("g", "k"));
    network.ask(leader, 1, get("absent", "other"));
    assert_eq!(network.answer(1, "p").content, ok("p", None));
    assert_eq!(network.answer(1, "g").content, ok("g", Some("v")), "at once, under the lease");
    assert_eq!(network.answer(1, "absent").content, ok("absent", Some("")));
    for follower in (0..5).filter(|number| *number != leader) {
        let mid = format!("f{follower}");
        network.ask(follower, 2 + follower, get(&mid, "k"));
        let answer = network.answer(2 + follower, &mid);
        assert_eq!((&answer.content, answer.leader), (&redirect(&mid), id(leader)), "at once");
    }
}

#[test]
fn a_client_that_comes_back_is_held_until_the_leader_is_heard_again() {
    let mut network = Network::settled(3);
    let (leader, follower) = network.leader_and_follower();
    network.ask(follower, 1, get("first", "k"));
    assert_eq!(network.answer(1, "first").content, redirect("first"));
    network.ask(follower, 1, get("again", "k"));
    network.ask(follower, 2, get("stranger", "k"));
    assert_eq!(network.answers(1, "again").len(), 0, "it was sent there just now: the leader may be dead");
    assert_eq!(network.answer(2, "stranger").content, redirect("stranger"), "others are not");
    network.pass(Duration::from_secs(1));
    let answer = network.answer(1, "again");
    assert_eq!((&answer.content, answer.leader), (&redirect("again"), id(leader)), "the leader lives");
}

#[test]
fn a_client_that_comes_back_from_a_dead_leader_is_held_through_the_election() {
    let mut network = Network::settled(3);
    let (leader, follower) = network.leader_and_follower();
    network.ask(follower, 1, put("first", "k", "v"));
    network.kill(leader);
    network.ask(follower, 1, put("again", "k", "v"));
    network.pass(Duration::from_millis(400));
    assert_eq!(network.answers(1, "again").len(), 0);
    network.pass(AN_ELECTION);
    let next = network.leader().unwrap();
    assert_ne!(next, leader);
    let expected = if next == follower { ok("again", None) } else { redirect("again") };
    assert_eq!((&network.answer(1, "again").content, network.answer(1, "again").leader), (&expected, id(next)));
}

#[test]
fn no_request_is_answered_twice() {
    let mut network = Network::settled(3);
    let (leader, follower) = network.leader_and_follower();
    for to in [leader, follower] {
        let mid = format!("m{to}");
        network.ask(to, 1, put(&mid, "k", "v"));
        // While it waits, and after it was answered.
        network.ask(to, 1, put(&mid, "k", "another"));
        network.pass(A_MOMENT);
        network.ask(to, 1, put(&mid, "k", "v"));
        network.pass(Duration::from_secs(2));
        network.answer(1, &mid);
        assert_eq!(network.replica(to).ignored().repeated, 2);
    }
    network.ask(leader, 2, get(&format!("m{leader}"), "k"));
    let value = Some("v");
    let mid = format!("m{leader}");
    assert_eq!(network.answer(2, &mid).content, ok(&mid, value), "another client's MID is another request");
}

#[test]
fn no_held_request_is_answered_twice() {
    let mut network = Network::new(3);
    network.ask(0, 1, put("m", "k", "v"));
    network.ask(0, 1, put("m", "k", "v"));
    network.pass(AN_ELECTION);
    network.answer(1, "m");
    assert_eq!(network.replica(0).ignored().repeated, 1);
}

/// Before any leader is known, so that everything is held: more requests than are remembered.
#[test]
fn a_request_is_not_forgotten_while_it_waits() {
    let mut network = Network::new(3);
    network.isolate(0);
    for number in 0..MAX_HELD + MAX_REMEMBERED {
        network.ask(0, 1, get(&format!("m{number}"), "k"));
    }
    assert_eq!(network.replies(), MAX_REMEMBERED, "those that can't be held are refused");
    network.ask(0, 1, get("m0", "k"));
    network.heal();
    network.pass(AN_ELECTION);
    network.answer(1, "m0");
    assert_eq!(network.replica(0).unanswered(), 0);
}

#[test]
fn a_sender_is_answered_in_its_own_spelling() {
    let mut network = Network::settled(3);
    let (leader, follower) = network.leader_and_follower();
    for (to, spelled) in [(leader, true), (leader, false), (follower, true), (follower, false)] {
        let name = if spelled { "dest" } else { "dst" };
        let mid = format!("{name}{to}");
        let from = 2 * to + usize::from(spelled);
        let (src, dst) = (client(from), id(to));
        let message = format!(
            r#"{{"src":"{src}","{name}":"{dst}","leader":"FFFF","type":"put","MID":"{mid}","key":"k","value":"v"}}"#
        );
        network.hand_over(to, message.as_bytes());
        network.pass(A_MOMENT);
        assert_eq!(network.answer(from, &mid).spelled_dest, spelled);
    }
    assert!(network.said.iter().all(|bytes| !Envelope::parse(bytes).unwrap().spelled_dest), "but not each other");
}

#[test]
fn too_large_a_put_fails_with_a_reason_and_the_largest_does_not() {
    let mut network = Network::settled(3);
    let (leader, _) = network.leader_and_follower();
    network.ask(leader, 1, put("large", "k", &"v".repeat(MAX_PUT_BYTES)));
    let Content::Fail { error: Some(error), .. } = &network.answer(1, "large").content else {
        panic!("{:?}", network.answer(1, "large"))
    };
    assert!(error.contains("40001") && error.contains("allowed: 40000"), "{error}");
    network.ask(leader, 1, put("fits", "k", &"v".repeat(MAX_PUT_BYTES - 1)));
    network.pass(A_MOMENT);
    assert_eq!(network.answer(1, "fits").content, ok("fits", None));
    assert!(network.said.iter().all(|bytes| bytes.len() <= crate::message::MAX_MESSAGE_BYTES));
}

/// Text beyond ASCII takes up to three times its bytes in a message: the answer to a get of what a
/// put has written must fit into one.
#[test]
fn whatever_can_be_put_can_be_got() {
    for text in ["é", "€", "𝄞", "\u{7f}", "\"", "\\", "v"] {
        let mut network = Network::settled(3);
        let (leader, _) = network.leader_and_follower();
        // As much as one message of the client's own can hold, written as raw UTF-8.
        let raw = text.repeat(64_000 / text.len());
        let value = serde_json::Value::from(raw.as_str()).to_string();
        let (src, dst) = (client(1), id(leader));
        for (mid, value) in [("whole", value), ("part", serde_json::Value::from(text.repeat(6_000)).to_string())] {
            let message = format!(
                r#"{{"src":"{src}","dst":"{dst}","leader":"FFFF","type":"put","MID":"{mid}","key":"k","value":{value}}}"#
            );
            network.hand_over(leader, message.as_bytes());
        }
        network.pass(A_MOMENT);
        network.ask(leader, 1, get("read", "k"));
        let answer = network.answer(1, "read");
        assert!(matches!(answer.content, Content::Ok { value: Some(_), .. }), "{text:?}");
        assert!(answer.encode().len() <= crate::message::MAX_MESSAGE_BYTES, "{text:?}: {}", answer.encode().len());
        let longest = network.said.iter().map(Vec::len).max();
        assert!(longest <= Some(crate::message::MAX_MESSAGE_BYTES), "{text:?}: {longest:?}");
    }
}

#[test]
fn a_long_catch_up_is_split_into_short_messages() {
    for snapshots in [false, true] {
        let mut network = Network::tuned(5, |config| {
            if snapshots {
                config.raft.max_retained_bytes = 20_000;
                config.snapshot_at_bytes = 40_000;
            }
        });
        network.pass(AN_ELECTION);
        let (leader, follower) = network.leader_and_follower();
        network.isolate(follower);
        for number in 0..200 {
            network.ask(leader, 1, put(&format!("m{number}"), &format!("k{number}"), &"é".repeat(512)));
            network.pass(Duration::from_millis(1));
        }
        assert_eq!(network.replies(), 200);
        network.heal();
        network.pass(AN_ELECTION);
        let leader = network.leader().unwrap();
        let machine = network.replica(leader).node().machine();
        assert_eq!(machine.len(), 200);
        assert_eq!(network.replica(follower).node().machine(), machine, "it has caught up");
        let kind = |kind: &str| {
            let of_kind = |bytes: &&Vec<u8>| Envelope::parse(bytes).unwrap().content.kind() == kind;
            network.said.iter().filter(of_kind).count()
        };
        assert_eq!(kind("snapshot_chunk") > 0, snapshots);
        assert!(network.said.iter().all(|bytes| bytes.len() < 16_000), "as harnesses with small buffers need it");
    }
}

#[test]
fn a_superseded_put_is_sent_to_the_next_leader_and_not_lost() {
    let mut network = Network::settled(5);
    let (old, _) = network.leader_and_follower();
    network.isolate(old);
    network.ask(old, 1, put("lost", "k", "first"));
    network.pass(AN_ELECTION);
    let new = network.leader().unwrap();
    assert_ne!(new, old);
    network.ask(new, 2, put("other", "j", "w"));
    network.pass(A_MOMENT);
    assert_eq!(network.answers(1, "lost").len(), 0, "nobody can tell yet");
    network.heal();
    network.pass(AN_ELECTION);
    let answer = network.answer(1, "lost");
    assert_eq!((&answer.content, answer.leader), (&redirect("lost"), id(network.leader().unwrap())));
    let new = network.leader().unwrap();
    network.ask(new, 1, get("before", "k"));
    network.ask(new, 1, put("retry", "k", "first"));
    network.pass(A_MOMENT);
    network.ask(new, 1, get("after", "k"));
    assert_eq!(network.answer(1, "before").content, ok("before", Some("")), "it had no effect");
    assert_eq!(network.answer(1, "after").content, ok("after", Some("first")));
}

#[test]
fn a_put_that_survives_its_leader_is_answered_by_whoever_heard_it() {
    let mut network = Network::settled(3);
    let (old, _) = network.leader_and_follower();
    // Its followers hear it, but can't answer.
    for other in (0..3).filter(|other| *other != old) {
        network.cut.insert((other, old));
    }
    network.ask(old, 1, put("m", "k", "v"));
    network.pass(AN_ELECTION);
    assert_eq!(network.answers(1, "m").len(), 0);
    network.heal();
    network.pass(AN_ELECTION);
    assert_eq!(network.answer(1, "m").content, ok("m", None), "it was committed by the next leader");
    let leader = network.leader().unwrap();
    network.ask(leader, 2, get("g", "k"));
    assert_eq!(network.answer(2, "g").content, ok("g", Some("v")));
}

#[test]
fn a_get_that_can_not_be_confirmed_waits_and_is_sent_on() {
    let mut network = Network::settled(3);
    let (old, _) = network.leader_and_follower();
    network.isolate(old);
    // Longer than the lease, shorter than the leader's patience with its silent followers.
    network.pass(Duration::from_millis(1_600));
    network.ask(old, 1, get("g", "k"));
    assert_eq!(network.answers(1, "g").len(), 0, "it may have been replaced");
    network.pass(AN_ELECTION);
    network.heal();
    network.pass(AN_ELECTION);
    assert_eq!(network.answer(1, "g").content, redirect("g"));
}

#[test]
fn what_waits_is_bounded_and_what_is_beyond_is_refused() {
    let mut network = Network::settled(3);
    let (leader, _) = network.leader_and_follower();
    network.isolate(leader);
    for number in 0..MAX_WAITING + 10 {
        network.ask(leader, 1, put(&format!("m{number}"), "k", "v"));
    }
    assert_eq!(network.replica(leader).unanswered(), MAX_WAITING);
    assert_eq!(network.replies(), 10);
    let answer = network.answer(1, &format!("m{MAX_WAITING}"));
    let Content::Fail { error: Some(error), .. } = &answer.content else { panic!("{answer:?}") };
    assert!(error.contains("16384 requests wait"), "{error}");
    // They wait for their fate while this replica has lost its office, and more are held.
    network.pass(AN_ELECTION);
    for number in 0..MAX_HELD + 10 {
        network.ask(leader, 1, get(&format!("g{number}"), "k"));
    }
    assert_eq!(network.replica(leader).unanswered(), MAX_WAITING + MAX_HELD);
    assert_eq!(network.replies(), 20);
    network.heal();
    network.pass(AN_ELECTION);
    assert_eq!(network.replica(leader).unanswered(), 0, "in the end, all are answered");
    assert_eq!(network.replies(), MAX_WAITING + 10 + MAX_HELD + 10, "and each once");
}
