use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::fakes::{DELAY, Seen, emulation, id, own, perfect, run, run_with, scenario};

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn silent(_: Seen<'_>) -> Vec<Vec<u8>> {
    Vec::new()
}

fn outcomes(record: &Record, wanted: impl Fn(&AnswerKind) -> bool) -> usize {
    let answers = record.attempts.iter().filter_map(|a| a.answer.as_ref());
    answers.filter(|answer| wanted(&answer.outcome)).count()
}

#[test]
fn requests_are_spread_evenly_over_the_lifetime() {
    let record = run(emulation(r#"{"start_wait":3,"end_wait":1}"#), &mut perfect());
    assert_eq!(record.end, Some(End::Completed));
    assert_eq!(record.ended_at, secs(14));
    assert_eq!(record.requests.len(), 100);
    for (number, request) in record.requests.iter().enumerate() {
        assert_eq!(request.created, secs(3) + ms(100) * number as u32);
        assert_eq!(request.done, Some(request.created + DELAY));
    }
    assert_eq!(record.attempts.len(), 100);
}

#[test]
fn the_clients_keep_to_the_rules() {
    let fields = r#"{"requests":5000,"mix":0.6,"max_packets":1000000}"#;
    let record = run(emulation(fields), &mut perfect());
    let gets: Vec<_> = (record.requests.iter()).filter(|request| request.operation == Operation::Get).collect();
    assert!((2_850..3_100).contains(&gets.len()), "{}", gets.len());
    let mut known: BTreeSet<(usize, &str)> = BTreeSet::new();
    let (mut puts, mut fresh) = (0, 0);
    let mut clients = [0; CLIENTS];
    for request in &record.requests {
        clients[request.client] += 1;
        let key = (request.client, request.key.as_str());
        match request.operation {
            // Everything is acknowledged at once here, so what is known is what was put.
            Operation::Get => assert!(known.contains(&key)),
            Operation::Put => {
                puts += 1;
                let others = known.iter().filter(|(c, k)| *k == key.1 && *c != key.0);
                assert_eq!(others.count(), 0, "keys belong to one client");
                fresh += usize::from(known.insert(key));
            }
        }
    }
    let share = fresh as f64 / puts as f64;
    assert!((0.45..0.55).contains(&share), "{share}");
    assert!(clients.iter().all(|&count| count > 500), "{clients:?}");
    for get in gets {
        assert!(get.expected.is_some());
    }
}

#[test]
fn a_get_becomes_a_put_while_nothing_is_acknowledged() {
    let record = run(emulation(r#"{"mix":1.0}"#), &mut silent);
    assert!(record.requests.iter().all(|r| r.operation == Operation::Put));
    assert!(record.attempts.iter().all(|a| a.answer.is_none()));
    assert_eq!(record.requests.len(), 100);
}

#[test]
fn a_client_follows_the_leader_that_its_last_reply_named() {
    // Nobody redirects, but all replies name replica 3.
    let mut registers = crate::fakes::Registers::default();
    let record = run(emulation("{}"), &mut |seen| {
        let answer = registers.answer(&seen.message.content);
        answer.map(|a| seen.reply(3, a)).into_iter().collect()
    });
    let mut seen = BTreeSet::new();
    let mut strangers = BTreeSet::new();
    for attempt in &record.attempts {
        if seen.insert(record.requests[attempt.request].client) {
            strangers.insert(attempt.to);
        } else {
            assert_eq!(attempt.to, Some(3));
        }
    }
    assert!(strangers.len() > 1, "the first request goes to a random replica");
}

#[test]
fn a_redirect_sends_the_same_request_again_at_once_under_a_new_mid() {
    let mut leader = perfect();
    let record = run(emulation("{}"), &mut |seen| match seen.replica {
        0 => leader(seen),
        _ if seen.is_request() => {
            let mid = seen.mid();
            vec![seen.reply(0, Content::Redirect { mid })]
        }
        _ => Vec::new(),
    });
    let redirects = outcomes(&record, |o| *o == AnswerKind::Redirect);
    assert_eq!(redirects, record.attempts.len() - 100);
    // Each of the clients guesses once, and is then told.
    assert!((1..=8).contains(&redirects), "{redirects}");
    let mids: BTreeSet<_> = record.attempts.iter().map(|a| &a.mid).collect();
    assert_eq!(mids.len(), record.attempts.len());
    for request in &record.requests {
        let took = request.done.unwrap() - request.created;
        assert_eq!(took, DELAY * (1 + request.bounces));
    }
}

#[test]
fn clients_may_use_the_same_mids() {
    let extra = ExtraFaults { same_mids: true, ..ExtraFaults::default() };
    let mut leader = perfect();
    let record = run(Emulation::new(scenario("{}"), 1, extra), &mut |seen| leader(seen));
    assert!(record.requests.iter().all(|request| request.done.is_some()));
    assert_eq!(record.misbehaviour, Misbehaviour::default());
    let mids: BTreeSet<_> = record.attempts.iter().map(|attempt| &attempt.mid).collect();
    assert!(mids.len() < record.attempts.len() / 2, "{} of {}", mids.len(), record.attempts.len());
}

#[test]
fn a_fail_is_tried_again_too() {
    let mut inner = perfect();
    let mut count = 0;
    let record = run(emulation("{}"), &mut |seen| {
        count += u32::from(seen.is_request());
        if seen.is_request() && count.is_multiple_of(5) {
            let mid = seen.mid();
            let error = Some("x".repeat(1_000));
            return vec![seen.reply(0, Content::Fail { mid, error })];
        }
        inner(seen)
    });
    let fails = outcomes(&record, |o| matches!(o, AnswerKind::Fail { .. }));
    assert_eq!(fails, 24);
    assert_eq!(record.attempts.len(), 124);
    assert!(record.requests.iter().all(|r| r.done.is_some()));
    let Some(AnswerKind::Fail { error: Some(error) }) = (record.attempts.iter())
        .filter_map(|a| a.answer.as_ref().map(|a| a.outcome.clone()))
        .find(|o| matches!(o, AnswerKind::Fail { .. }))
    else {
        panic!("there are fails");
    };
    assert_eq!(error.len(), 200, "strangers' texts are shortened");
}

#[test]
fn an_endless_redirect_is_slowed_down_and_never_dropped() {
    let mut requests = 0;
    let record = run(emulation(r#"{"requests":1,"lifetime":30}"#), &mut |seen| {
        requests += 1;
        let mid = seen.mid();
        let content = match requests {
            400 => Content::Ok { mid, value: None },
            _ => Content::Redirect { mid },
        };
        vec![seen.reply(seen.replica, content)]
    });
    let request = &record.requests[0];
    assert_eq!(request.bounces, 399);
    // 64 times at once, 192 times after 10 ms, 143 times after 100 ms; and each took its way.
    let expected = ms(192 * 10 + 143 * 100) + DELAY * 400;
    assert_eq!(request.done.unwrap() - request.created, expected);
}

#[test]
fn late_answers_count_during_the_end_wait_and_not_after_it() {
    for (delay, answered) in [(ms(1_990), true), (ms(2_110), false)] {
        let mut emulation = emulation(r#"{"requests":10,"end_wait":1}"#);
        let mut out = Vec::new();
        let mut late = Vec::new();
        while let Some(now) = emulation.next_deadline() {
            emulation.wake(now, &mut out);
            for action in out.drain(..) {
                if let Action::Deliver { to, bytes, .. } = action {
                    let message = Envelope::parse(&bytes).unwrap();
                    let mid = message.content.mid().unwrap().to_owned();
                    let value = Some(String::new());
                    let content = Content::Ok { mid, value };
                    let replica = to;
                    let seen = Seen { replica, message: &message };
                    late.push((now + delay, to, seen.reply(0, content)));
                }
            }
            if emulation.progress().created == 10 && !late.is_empty() {
                let (at, from, raw) = late.pop().unwrap();
                emulation.receive(at, from, &raw, &mut out);
                late.clear();
            }
        }
        let record = emulation.into_record();
        assert_eq!(record.requests[9].created, secs(14));
        assert_eq!(record.requests[9].done.is_some(), answered);
    }
}

#[test]
fn messages_between_replicas_are_counted_per_receiver() {
    let mut sender = |seen: Seen<'_>| match seen.message.content {
        Content::Get { .. } | Content::Put { .. } if seen.replica == 0 => vec![
            seen.send(LanId::BROADCAST, id(0), own("append")),
            seen.send(id(2), id(0), own("vote")),
            seen.send(LanId::BROADCAST, id(0), Content::Hello),
            seen.reply(0, Content::Ok { mid: seen.mid(), value: None }),
        ],
        Content::Get { .. } | Content::Put { .. } => {
            vec![seen.reply(0, Content::Redirect { mid: seen.mid() })]
        }
        _ => Vec::new(),
    };
    let record = run(emulation(r#"{"requests":50,"mix":0}"#), &mut sender);
    let traffic = &record.traffic;
    assert_eq!(traffic.sent.messages, 50 * 5);
    assert_eq!(traffic.by_kind["append"].messages, 50 * 4);
    assert_eq!(traffic.by_kind["vote"].messages, 50);
    assert_eq!(traffic.by_kind.len(), 2);
    assert_eq!(traffic.by_sender, [250, 0, 0, 0, 0]);
    assert_eq!(traffic.hellos, 50);
    assert_eq!(traffic.per_second.iter().sum::<u64>(), 250);
    // Five requests a second, from second 5 on.
    assert_eq!(traffic.per_second[5..7], [25, 25]);
    let line = r#"{"src":"0000","dst":"FFFF","leader":"0000","type":"append"}"#;
    let bytes = line.len() as u64 + 1;
    assert_eq!(traffic.by_kind["append"].bytes, 200 * bytes);
    assert_eq!(record.misbehaviour, Misbehaviour::default());
}

#[test]
fn bytes_are_forwarded_as_they_are() {
    let mut emulation = emulation("{}");
    let raw = b" {\"type\":\"x\", \"dest\":\"FFFF\",\"src\":\"0002\",\"leader\":\"ffff\",\"n\":1e2}\n\n";
    let mut out = Vec::new();
    emulation.receive(ms(1), 2, raw, &mut out);
    let mut receivers = Vec::new();
    for action in out {
        let Action::Deliver { to, bytes, from_client } = action else {
            panic!("{action:?}");
        };
        assert_eq!((&bytes[..], from_client), (&raw[..], false));
        receivers.push(to);
    }
    assert_eq!(receivers, [0, 1, 3, 4]);
}

#[test]
fn what_replicas_say_to_each_other_need_not_make_sense_to_the_network() {
    let odd =
        [r#""value":"\ud800""#, r#""key":1e999"#, r#""error":"\udc00x""#, r#""MID":"\ud800""#, r#""\ud800":"\ud800""#];
    for rest in odd {
        let mut emulation = emulation("{}");
        let raw = format!(r#"{{"src":"0002","dst":"0001","leader":"FFFF","type":"x",{rest}}}"#);
        let mut out = Vec::new();
        emulation.receive(ms(1), 2, raw.as_bytes(), &mut out);
        let [Action::Deliver { to: 1, bytes, .. }] = &out[..] else { panic!("{rest}: {out:?}") };
        assert_eq!(&bytes[..], raw.as_bytes());
        assert_eq!(emulation.into_record().misbehaviour, Misbehaviour::default(), "{rest}");
    }
}

#[test]
fn an_answer_that_can_not_be_read_is_counted_and_shown() {
    let mut inner = perfect();
    let mut first = true;
    let odd =
        [r#""value":"\ud800""#, r#""value":1e999"#, r#""value":7"#, r#""value":"a","value":"b""#, r#""MID":"\ud800""#];
    let record = run(emulation(r#"{"mix":0,"requests":20}"#), &mut |seen| {
        let mut sent = Vec::new();
        if seen.is_request() && std::mem::take(&mut first) {
            let (src, dst) = (id(seen.replica), seen.message.src);
            sent.extend(odd.iter().map(|odd| {
                let mid = if odd.contains("MID") { String::new() } else { format!(r#","MID":"{}""#, seen.mid()) };
                format!(r#"{{"src":"{src}","dst":"{dst}","leader":"0000","type":"ok"{mid},{odd}}}"#).into_bytes()
            }));
            sent.push(b"{\"src\":\"\xff\"}".to_vec());
            sent.push(b"\0".to_vec());
        }
        sent.extend(inner(seen));
        sent
    });
    assert_eq!(record.misbehaviour.count(Bad::Unparsable), odd.len() as u64 + 2);
    let first = &record.misbehaviour.examples[0];
    assert!(first.detail.contains("`value`") && first.detail.contains("not Unicode"), "{first:?}");
    assert!(record.requests.iter().all(|request| request.done.is_some()), "the answer that followed counts");
}

#[test]
fn losses_are_drawn_for_each_copy_and_counted() {
    let fields = r#"{"requests":1000,"mix":0,"drops":0.25}"#;
    let mut inner = perfect();
    let mut arrived = 0u64;
    let record = run(emulation(fields), &mut |seen| {
        arrived += u64::from(!seen.is_request());
        inner(seen)
    });
    let traffic = &record.traffic;
    assert_eq!(traffic.sent.messages, 4_000);
    assert_eq!(arrived, 4_000 - traffic.lost);
    assert!((900..1_100).contains(&traffic.lost), "{}", traffic.lost);
    assert!(record.requests.iter().all(|r| r.done.is_some()));
}

#[test]
fn a_split_separates_the_majority_with_the_leader_from_the_rest() {
    let fields = r#"{"requests":1000,"mix":0,"events":[
        {"type":"part_easy","time":2},{"type":"part_end","time":7},{"type":"part_end","time":8}]}"#;
    let record = run(emulation(fields), &mut perfect());
    // 100 puts a second, from the leader, of whose four receivers two are cut off.
    let cut = (record.timeline.iter())
        .find_map(|moment| match &moment.note {
            Note::Cut { majority, rest, .. } => Some((moment.at, majority.clone(), rest.clone())),
            _ => None,
        })
        .unwrap();
    assert_eq!(cut.0, secs(7));
    assert_eq!((cut.1.len(), cut.2.len()), (3, 2));
    assert!(cut.1.contains(&id(0)));
    // Clients may ask others than the leader at first, which then send as it does.
    assert_eq!(record.traffic.cut, 500 * 2);
    let healed = (record.timeline.iter()).filter(|moment| moment.note == Note::Healed).map(|moment| moment.at);
    assert_eq!(healed.collect::<Vec<_>>(), [secs(12)], "healing twice is nothing");
}

#[test]
fn a_hard_split_makes_clients_forget_their_leader() {
    let fields = r#"{"requests":1000,"events":[{"type":"part_hard","time":5}]}"#;
    let record = run(emulation(fields), &mut perfect());
    let strange = |from: u64, until: u64| {
        let attempts = record.attempts.iter();
        let attempts = attempts.filter(|a| a.sent >= secs(from) && a.sent < secs(until));
        attempts.filter(|attempt| attempt.to != Some(0)).count()
    };
    assert!((4..=8).contains(&strange(5, 6)), "{}", strange(5, 6));
    assert_eq!(strange(7, 10), 0);
    assert!((3..=8).contains(&strange(10, 11)), "{}", strange(10, 11));
    assert_eq!(strange(12, 20), 0);
}

#[test]
fn the_leader_or_another_one_is_killed() {
    for (kind, is_leader) in [("kill_leader", true), ("kill_non_leader", false)] {
        let fields = format!(r#"{{"mix":0.5,"events":[{{"type":"{kind}","time":5}}]}}"#);
        let record = run(emulation(&fields), &mut perfect());
        assert_eq!(record.losses.len(), 1);
        let loss = &record.losses[0];
        assert_eq!((loss.at, &loss.died_by_itself), (secs(10), &None));
        assert_eq!(loss.replica == 0, is_leader);
        let killed = Note::Killed { replica: id(loss.replica), leader: is_leader };
        assert!(record.timeline.iter().any(|moment| moment.note == killed));
        for attempt in record.attempts.iter().filter(|a| a.sent >= secs(10)) {
            assert_ne!(attempt.to, Some(loss.replica));
        }
    }
}

#[test]
fn without_a_known_leader_a_random_living_replica_is_killed() {
    let fields = r#"{"events":[{"type":"kill_leader","time":1},{"type":"kill_leader","time":2},
        {"type":"kill_leader","time":3},{"type":"kill_leader","time":4},
        {"type":"kill_non_leader","time":5},{"type":"kill_leader","time":6}]}"#;
    let record = run(emulation(fields), &mut silent);
    let killed: BTreeSet<usize> = record.losses.iter().map(|loss| loss.replica).collect();
    assert_eq!(killed.len(), 5, "the sixth kill finds nobody");
    // Killing all is the scenario's wish: the run goes on, and requests have no receiver.
    assert_eq!(record.end, Some(End::Completed));
    assert_eq!(record.requests.len(), 100);
    let unsent = record.attempts.iter().filter(|a| a.to.is_none()).count();
    assert_eq!(unsent, 50);
}

#[test]
fn what_the_dead_send_is_ignored_and_what_is_sent_to_them_is_counted() {
    let mut emulation = emulation("{}");
    let mut out = Vec::new();
    let append = |seen: Seen<'_>| seen.send(LanId::BROADCAST, id(0), own("append"));
    let message = Envelope::parse(br#"{"src":"0000","dst":"0001","leader":"FFFF","type":"hello"}"#).unwrap();
    let seen = |replica| Seen { replica, message: &message };
    emulation.replica_died(ms(1), 1, "exit status 3".to_owned(), &mut out);
    emulation.replica_died(ms(1), 1, "again".to_owned(), &mut out);
    emulation.receive(ms(2), 1, &append(seen(1)), &mut out);
    emulation.receive(ms(2), 0, &append(seen(0)), &mut out);
    assert!(!out.iter().any(|action| matches!(action, Action::Kill { .. })));
    let died = Note::Died { replica: id(1), why: "exit status 3".to_owned() };
    assert_eq!(out[0], Action::Note(died));
    assert!(!emulation.is_alive(1) && emulation.is_alive(0) && !emulation.is_alive(99));
    let record = emulation.into_record();
    assert_eq!(record.traffic.from_the_dead, 1);
    assert_eq!(record.traffic.to_the_dead, 1);
    assert_eq!(record.traffic.sent.messages, 4);
    assert_eq!(record.losses.len(), 1);
    assert_eq!(record.end, None);
}

#[test]
fn the_run_ends_when_the_last_replica_dies() {
    let mut emulation = emulation(r#"{"replicas":3}"#);
    let mut out = Vec::new();
    for replica in 0..3 {
        assert!(!emulation.finished());
        emulation.replica_died(secs(6), replica, "crash".to_owned(), &mut out);
    }
    assert!(emulation.finished());
    assert_eq!(emulation.next_deadline(), None);
    let record = emulation.into_record();
    assert_eq!(record.end, Some(End::NoReplicaLeft));
    assert_eq!(record.ended_at, secs(6));
}

#[test]
fn a_message_storm_ends_the_run() {
    let fields = r#"{"requests":100,"mix":0,"max_packets":100}"#;
    let record = run(emulation(fields), &mut perfect());
    assert_eq!(record.end, Some(End::MessageStorm));
    // 25 puts make 100 messages; the 26th is too much.
    assert_eq!(record.traffic.sent.messages, 104);
    assert_eq!(record.requests.len(), 26);
    let last = record.timeline.last().unwrap();
    let end = End::MessageStorm;
    assert_eq!(last.note, Note::Ended { end });
}

#[test]
fn a_flood_of_useless_messages_ends_the_run() {
    let mut inner = perfect();
    let fields = r#"{"mix":1.0,"max_packets":500}"#;
    let record = run(emulation(fields), &mut |seen| {
        let mut sent = vec![b"nonsense".to_vec(); 10];
        if seen.is_request() {
            sent.extend(inner(seen));
        }
        sent
    });
    assert_eq!(record.end, Some(End::Flood));
    assert_eq!(record.misbehaviour.count(Bad::Unparsable), 501);
    assert!(record.misbehaviour.examples.len() <= 3);
}

#[test]
fn bad_behaviour_is_counted_by_kind() {
    let mut inner = perfect();
    let mut first = true;
    let stranger = LanId::from_value(0x0BAD);
    let record = run(emulation(r#"{"mix":0,"requests":20}"#), &mut |seen| {
        let mut sent = Vec::new();
        if seen.is_request() && std::mem::take(&mut first) {
            let client = seen.message.src;
            let other = LanId::from_value(if client.value() == 5 { 6 } else { 5 });
            let ok = |mid: &str| Content::Ok { mid: mid.to_owned(), value: None };
            let fake = Seen { replica: (seen.replica + 1) % 5, ..seen };
            sent.push(b"{".to_vec());
            sent.push(vec![b' '; 65_508]);
            sent.push(fake.reply(0, ok(&seen.mid())));
            sent.push(seen.send(stranger, id(0), own("append")));
            sent.push(seen.send(id(seen.replica), id(0), own("append")));
            sent.push(seen.send(client, id(0), own("append")));
            sent.push(seen.send(client, id(0), ok("made up")));
            sent.push(seen.send(other, id(0), ok(&seen.mid())));
            let no_mid = br#","type":"ok"}"#;
            let src = seen.send(client, id(0), Content::Hello);
            let src = String::from_utf8(src).unwrap();
            let head = src.split(",\"type\"").next().unwrap();
            sent.push([head.as_bytes(), no_mid].concat());
        }
        sent.extend(inner(seen));
        sent
    });
    let count = |bad| record.misbehaviour.count(bad);
    assert_eq!(count(Bad::Unparsable), 2);
    assert_eq!(count(Bad::Oversized), 1);
    assert_eq!(count(Bad::WrongSource), 1);
    assert_eq!(count(Bad::UnknownDestination), 1);
    assert_eq!(count(Bad::ToItself), 1);
    assert_eq!(count(Bad::NoReply), 1);
    assert_eq!(count(Bad::UnknownMid), 1);
    assert_eq!(count(Bad::WrongClient), 1);
    assert_eq!(count(Bad::Duplicate), 0);
    assert_eq!(count(Bad::ForeignMid), 0);
    assert_eq!(record.misbehaviour.useless(), 9);
    assert_eq!(record.traffic.sent.messages, 20 * 4);
    assert!(record.requests.iter().all(|r| r.done.is_some()));
}

#[test]
fn second_answers_are_duplicates_and_change_nothing() {
    let mut inner = perfect();
    let record = run(emulation(r#"{"mix":0.5}"#), &mut |seen| {
        let wrong = Content::Ok { mid: seen.mid(), value: Some("wrong".to_owned()) };
        let again = seen.is_request().then(|| seen.reply(0, wrong));
        inner(seen).into_iter().chain(again).collect()
    });
    assert_eq!(record.misbehaviour.count(Bad::Duplicate), 100);
    assert_eq!(outcomes(&record, |o| matches!(o, AnswerKind::Ok { .. })), 100);
    let wrong = AnswerKind::Ok { value: Some("wrong".to_owned()) };
    assert_eq!(outcomes(&record, |o| *o == wrong), 0);
}

#[test]
fn an_answer_by_another_replica_is_counted_and_accepted() {
    let mut emulation = emulation(r#"{"mix":0}"#);
    let mut out = Vec::new();
    emulation.wake(secs(5), &mut out);
    let Some(Action::Deliver { to, bytes, .. }) = out.pop() else {
        panic!("the first request is sent");
    };
    let message = &Envelope::parse(&bytes).unwrap();
    let seen = Seen { replica: (to + 1) % 5, message };
    let ok = Content::Ok { mid: seen.mid(), value: None };
    emulation.receive(secs(6), seen.replica, &seen.reply(0, ok), &mut out);
    let record = emulation.into_record();
    assert_eq!(record.misbehaviour.count(Bad::ForeignMid), 1);
    assert_eq!(record.requests[0].done, Some(secs(6)));
}

#[test]
fn extra_faults_cut_links_and_kill() {
    let cut = LinkCut { from: secs(6), until: secs(8), blocked: BTreeSet::from([(0, 1), (0, 2), (3, 0)]) };
    let extra = ExtraFaults {
        partitions: vec![cut],
        kills: vec![(secs(9), 4), (secs(9), 4), (secs(9), 77)],
        ..ExtraFaults::default()
    };
    let scenario = scenario(r#"{"mix":0,"requests":1000}"#);
    let mut leader = perfect();
    let record = run(Emulation::new(scenario, 1, extra), &mut |seen| match seen.replica {
        0 => leader(seen),
        _ if seen.is_request() => {
            let mid = seen.mid();
            vec![seen.reply(0, Content::Redirect { mid })]
        }
        _ => Vec::new(),
    });
    // Only the leader sends: 100 puts a second to two blocked receivers.
    assert!((398..=400).contains(&record.traffic.cut), "{}", record.traffic.cut);
    assert_eq!(record.losses.len(), 1);
    assert_eq!((record.losses[0].replica, record.losses[0].at), (4, secs(9)));
    let notes: Vec<String> = (record.timeline.iter()).map(|moment| moment.note.to_string()).collect();
    assert!(notes.contains(&"fault 0 cuts 3 one-way links".to_owned()));
    assert!(notes.contains(&"fault 0 is over".to_owned()));
}

#[test]
fn leaders_are_noted_as_they_change() {
    let mut emulation = emulation("{}");
    let mut out = Vec::new();
    let says = |emulation: &mut Emulation, out: &mut Vec<Action>, at, from: usize, leader: &str| {
        let line = format!(r#"{{"src":"{}","dst":"FFFF","leader":"{leader}","type":"hello"}}"#, id(from));
        emulation.receive(ms(at), from, line.as_bytes(), out);
    };
    for replica in 0..3 {
        says(&mut emulation, &mut out, 1, replica, "0001");
    }
    assert_eq!(emulation.progress().leader, Some(id(1)));
    for replica in 1..4 {
        says(&mut emulation, &mut out, 2, replica, "FFFF");
    }
    assert_eq!(emulation.progress().leader, None);
    for replica in 1..4 {
        says(&mut emulation, &mut out, 3, replica, "0002");
        says(&mut emulation, &mut out, 3, replica, "0002");
    }
    let first = Note::FirstLeader { leader: id(1) };
    let second = Note::LeaderChanged { from: id(1), to: id(2) };
    assert_eq!(out, [Action::Note(first), Action::Note(second)]);
    let record = emulation.into_record();
    assert_eq!(record.beliefs.len(), 3 + 2 + 3);
    assert_eq!(record.beliefs[0].leader, Some(1));
}

#[test]
fn the_same_seed_gives_the_same_record() {
    let fields = r#"{"drops":0.2,"requests":400,"mix":0.5,"events":[{"type":"part_hard","time":2},
        {"type":"kill_leader","time":4},{"type":"part_end","time":6}]}"#;
    let once = |seed| {
        let emulation = Emulation::new(scenario(fields), seed, ExtraFaults::default());
        run(emulation, &mut perfect())
    };
    assert_eq!(once(7), once(7));
    let (one, other) = (once(7), once(8));
    assert_ne!(one.requests, other.requests);
    assert_ne!(one.traffic, other.traffic);
}

#[test]
fn time_never_runs_backwards() {
    let mut emulation = emulation("{}");
    let mut out = Vec::new();
    emulation.wake(secs(6), &mut out);
    emulation.wake(secs(2), &mut out);
    assert_eq!(emulation.progress().time, secs(6));
    assert_eq!(emulation.next_deadline(), Some(ms(6_100)));
}

#[test]
fn progress_adds_up() {
    let mut emulation = Some(emulation(r#"{"events":[{"type":"part_hard","time":5}]}"#));
    let mut seen = 0;
    run_with(emulation.take().unwrap(), &mut perfect(), &mut |now, emulation, _| {
        let progress = emulation.progress();
        assert_eq!(progress.created, progress.answered + progress.outstanding);
        assert!(progress.time <= now && progress.duration == secs(17));
        if progress.time > secs(10) {
            assert!(progress.cut);
            seen += 1;
        }
    });
    assert!(seen > 50);
}

#[test]
fn hostile_bytes_never_panic() {
    let mut random = Random::new(5);
    let mut emulation = emulation(r#"{"max_packets":1000000}"#);
    let mut out = Vec::new();
    let model = br#"{"src":"0001","dst":"0006","leader":"0001","type":"ok","MID":"x","value":"y"}"#;
    for step in 0..20_000u64 {
        let mut raw = model.to_vec();
        for _ in 0..random.below(4) {
            let place = random.below(raw.len() as u64) as usize;
            raw[place] = random.next_u64() as u8;
        }
        raw.truncate(random.below(raw.len() as u64 + 1) as usize);
        emulation.receive(ms(step / 2), random.below(7) as usize, &raw, &mut out);
    }
    let record = emulation.into_record();
    assert!(record.misbehaviour.count(Bad::Unparsable) > 10_000);
}
