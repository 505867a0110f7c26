use std::collections::BTreeMap;

use super::*;
use crate::emulation::Emulation;
use crate::fakes::{DELAY, Registers, Seen, emulation, id, own, perfect, run, run_with};
use crate::history::{check, operations};
use bowline_checker::registers::Action;
use bowline_lan::LanId;
use bowline_lan::message::Content;

fn judged(record: &Record) -> (Statistics, Judgement) {
    let statistics = Statistics::of(record);
    let judgement = judge(record, &statistics, &check(record));
    (statistics, judgement)
}

/// The checks that a run failed.
fn failed(judgement: &Judgement) -> Vec<Check> {
    let verdicts = judgement.verdicts.iter();
    let failed = verdicts.filter(|verdict| verdict.status == Status::Failed);
    failed.map(|verdict| verdict.check).collect()
}

const BENCHMARKS: &str = r#""tests":{"benchmarks":{"total_msgs":[300,500,600],"failures":[0,1,2],
    "duplicates":[0,2,5],"median_latency":[0.001,0.002,0.05]}}"#;

fn half_puts() -> Emulation {
    emulation(&format!(r#"{{"mix":0.5,{BENCHMARKS}}}"#))
}

#[test]
fn a_perfect_run_passes_everything() {
    let record = run(half_puts(), &mut perfect());
    let (statistics, judgement) = judged(&record);
    assert!(judgement.passed);
    assert!(judgement.verdicts.iter().all(|v| v.status == Status::Passed));
    let checks: Vec<Check> = judgement.verdicts.iter().map(|v| v.check).collect();
    assert_eq!(checks, Check::ALL);
    let puts = statistics.puts.created;
    assert_eq!(statistics.gets.created + puts, 100);
    assert_eq!(statistics.answered, 100);
    assert_eq!(statistics.attempts, 100);
    assert_eq!(statistics.messages, puts * 4);
    assert_eq!(statistics.failures, 0);
    let latency = statistics.latency.unwrap();
    assert_eq!((latency.samples, latency.min, latency.max), (100, DELAY, DELAY));
    let tiers: Vec<(Option<f64>, Tier)> =
        (judgement.benchmarks.iter()).map(|measured| (measured.value, measured.tier)).collect();
    let messages = puts as f64 * 4.0;
    assert!((200.0..300.0).contains(&messages));
    assert_eq!(
        tiers,
        [(Some(messages), Tier::Top), (Some(0.0), Tier::Full), (Some(0.0), Tier::Full), (Some(0.001), Tier::Full),]
    );
}

#[test]
fn silence_fails_and_is_counted() {
    let record = run(half_puts(), &mut |_| Vec::new());
    let (statistics, judgement) = judged(&record);
    assert_eq!(failed(&judgement), [Check::PutsAnswered, Check::EnoughMessages]);
    assert_eq!(statistics.unanswered, 100);
    assert_eq!(statistics.unanswered_elsewhere, 100);
    assert_eq!(statistics.failures, 100);
    assert_eq!(statistics.latency, None);
    let measured = judgement.benchmark(Benchmark::MedianLatency).unwrap();
    assert_eq!((measured.value, measured.tier), (None, Tier::None));
    assert_eq!(judgement.verdict(Check::PutsAnswered).reason, "0 of 100 puts answered; at least half is needed");
    assert_eq!(
        judgement.verdict(Check::EnoughMessages).reason,
        "0 messages between replicas; agreement needs at least 125"
    );
}

#[test]
fn stale_gets_are_wrong_with_what_was_expected_and_got() {
    // A replica that returns the value before the last one, if there was one.
    let mut now: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut helper = perfect();
    let record = run(half_puts(), &mut |seen| {
        let stale = match &seen.message.content {
            Content::Put { key, value, .. } => {
                now.entry(key.clone()).or_default().push(value.clone());
                None
            }
            Content::Get { mid, key } => {
                let values = &now[key];
                let value = values[values.len().saturating_sub(2)].clone();
                let mid = mid.clone();
                let value = Some(value);
                Some(seen.reply(0, Content::Ok { mid, value }))
            }
            _ => None,
        };
        stale.map_or_else(|| helper(seen), |stale| vec![stale])
    });
    let (statistics, judgement) = judged(&record);
    assert_eq!(failed(&judgement), [Check::RightGets, Check::Linearizable]);
    assert!(judgement.proof().count() >= 2);
    assert!(judgement.wrong_gets.len() > 5);
    assert!(judgement.wrong_gets.len() < statistics.gets.created as usize);
    for get in &judgement.wrong_gets {
        let values = &now[&get.key];
        let place = values.iter().position(|v| *v == get.expected).unwrap();
        assert_eq!(get.got.as_ref(), Some(&values[place - 1]));
        assert!(!get.put_under_way);
    }
    let reason = &judgement.verdict(Check::RightGets).reason;
    let count = format!("{} of {} gets are wrong", judgement.wrong_gets.len(), statistics.gets.answered);
    assert!(reason.starts_with(&count), "{reason}");
}

#[test]
fn a_get_without_a_value_is_wrong() {
    let mut registers = Registers::default();
    let mut helper = perfect();
    let mut first = true;
    let record = run(half_puts(), &mut |seen| match seen.message.content {
        Content::Get { .. } if std::mem::take(&mut first) => {
            let mid = seen.mid();
            vec![seen.reply(0, Content::Ok { mid, value: None })]
        }
        _ => {
            registers.answer(&seen.message.content);
            helper(seen)
        }
    });
    let (_, judgement) = judged(&record);
    assert_eq!(failed(&judgement), [Check::RightGets]);
    assert_eq!(judgement.wrong_gets.len(), 1);
    assert_eq!(judgement.wrong_gets[0].got, None);
    assert_eq!(record.misbehaviour.count(Bad::MissingValue), 1);
    let manners = judgement.verdict(Check::GoodManners);
    assert_eq!(manners.status, Status::Noted);
    assert_eq!(manners.reason, "1 gets answered without a value");
}

#[test]
fn redirects_and_fails_are_counted_and_part_of_the_latency() {
    let mut leader = perfect();
    let mut fail = true;
    let record = run(half_puts(), &mut |seen| match seen.replica {
        0 if seen.is_request() && std::mem::take(&mut fail) => {
            let (mid, error) = (seen.mid(), None);
            vec![seen.reply(0, Content::Fail { mid, error })]
        }
        0 => leader(seen),
        _ if seen.is_request() => {
            let mid = seen.mid();
            vec![seen.reply(0, Content::Redirect { mid })]
        }
        _ => Vec::new(),
    });
    let (statistics, judgement) = judged(&record);
    assert!(judgement.passed);
    assert!((1..=8).contains(&statistics.redirects));
    assert_eq!(statistics.fails, 1);
    assert_eq!(statistics.failures, 1);
    assert_eq!(statistics.attempts, 101 + statistics.redirects);
    assert_eq!(statistics.latency.unwrap().samples as u64, statistics.attempts);
    assert_eq!(statistics.latency.unwrap().max, DELAY * 3);
    assert_eq!(statistics.completion.unwrap().samples, 100);
    assert_eq!(statistics.most_bounces, 2);
    let failures = judgement.benchmark(Benchmark::Failures).unwrap();
    assert_eq!((failures.value, failures.tier), (Some(1.0), Tier::Partial));
}

#[test]
fn duplicates_are_noted_and_measured() {
    let mut inner = perfect();
    let mut count = 0;
    let record = run(half_puts(), &mut |seen| {
        count += u32::from(seen.is_request());
        let twice = (seen.is_request() && count % 25 == 0).then(|| {
            let mid = seen.mid();
            seen.reply(0, Content::Ok { mid, value: None })
        });
        inner(seen).into_iter().chain(twice).collect()
    });
    let (statistics, judgement) = judged(&record);
    assert!(judgement.passed);
    assert_eq!(statistics.duplicates, 4);
    assert_eq!(judgement.verdict(Check::NoDuplicates).status, Status::Noted);
    assert_eq!(judgement.verdict(Check::GoodManners).status, Status::Passed);
    let duplicates = judgement.benchmark(Benchmark::Duplicates).unwrap();
    assert_eq!((duplicates.value, duplicates.tier), (Some(4.0), Tier::Partial));
}

#[test]
fn requests_at_a_killed_replica_stay_unanswered() {
    // The leader stops answering a second before it is killed; the others take over.
    let fields = r#"{"mix":0.0,"events":[{"type":"kill_leader","time":5}]}"#;
    let mut puts = 0;
    let record = run(emulation(fields), &mut |seen| {
        puts += u32::from(seen.is_request());
        let leader = if puts > 50 { 1 } else { 0 };
        if !seen.is_request() || (41..=50).contains(&puts) {
            return Vec::new();
        }
        let mid = seen.mid();
        vec![
            seen.send(LanId::BROADCAST, id(leader), own("append")),
            seen.reply(leader, Content::Ok { mid, value: None }),
        ]
    });
    assert_eq!(record.losses.len(), 1);
    assert_eq!(record.losses[0].replica, 0);
    let (statistics, judgement) = judged(&record);
    assert_eq!(statistics.unanswered, 10);
    assert_eq!(statistics.unanswered_at_lost_replicas, 10);
    assert_eq!(statistics.unanswered_elsewhere, 0);
    assert_eq!((statistics.killed, statistics.died), (1, 0));
    assert_eq!(statistics.leader_changes, 1);
    assert_eq!(statistics.failures, 10);
    assert!(judgement.passed, "{:?}", judgement.verdicts);
    // Ten writes that may yet take effect.
    let history = operations(&record);
    assert_eq!(history.len(), 100);
    assert_eq!(history.iter().filter(|o| o.ret.is_none()).count(), 10);
}

#[test]
fn a_death_of_its_own_fails_the_run() {
    let mut dead = false;
    let mut replicas = perfect();
    let record = run_with(half_puts(), &mut replicas, &mut |now, emulation, out| {
        if now > Duration::from_secs(7) && !std::mem::replace(&mut dead, true) {
            emulation.replica_died(now, 3, "exit status 101".to_owned(), out);
        }
    });
    let (statistics, judgement) = judged(&record);
    assert_eq!(failed(&judgement), [Check::ReplicasLived]);
    assert_eq!(statistics.died, 1);
    let reason = &judgement.verdict(Check::ReplicasLived).reason;
    assert_eq!(reason, "died by itself: 0003 at 7.001 s: exit status 101");
}

#[test]
fn a_message_storm_fails_the_run() {
    let fields = r#"{"mix":0,"max_packets":210}"#;
    let record = run(emulation(fields), &mut perfect());
    let (_, judgement) = judged(&record);
    assert_eq!(failed(&judgement), [Check::EnoughMessages, Check::NoMessageStorm]);
}

#[test]
fn the_checkers_word_counts() {
    let record = run(half_puts(), &mut perfect());
    let statistics = Statistics::of(&record);
    let explanation = "key A: the read saw what was overwritten\n  put\n  get".to_owned();
    let reason = "too many steps".to_owned();
    for word in [Linearizability::Violated { explanation }, Linearizability::Undecided { reason }] {
        let judgement = judge(&record, &statistics, &word);
        assert!(!judgement.passed);
        assert_eq!(failed(&judgement), [Check::Linearizable]);
        let reason = &judgement.verdict(Check::Linearizable).reason;
        match word {
            Linearizability::Violated { .. } => {
                assert_eq!(reason, "key A: the read saw what was overwritten");
                assert!(judgement.proof().eq(["  put", "  get"]));
            }
            _ => {
                assert_eq!(reason, "too many steps");
                assert_eq!(judgement.proof().count(), 0);
            }
        }
    }
}

#[test]
fn the_history_leaves_out_what_had_no_effect() {
    // Every answer in turn: ok, redirect, fail, silence.
    let mut registers = Registers::default();
    let mut count = 0;
    let record = run(emulation(r#"{"mix":0.5}"#), &mut |seen| {
        if !seen.is_request() {
            return Vec::new();
        }
        count += 1;
        let mid = seen.mid();
        let error = None;
        let content = match count % 4 {
            0 => Content::Redirect { mid },
            1 => Content::Fail { mid, error },
            2 => return Vec::new(),
            _ => registers.answer(&seen.message.content).unwrap(),
        };
        vec![seen.reply(0, content)]
    });
    let history = operations(&record);
    let (mut writes, mut unknown, mut reads) = (0, 0, 0);
    for operation in &history {
        match (&operation.action, operation.ret) {
            (Action::Write(_), Some(ret)) => {
                assert_eq!(ret - operation.call, DELAY.as_nanos() as u64);
                writes += 1;
            }
            (Action::Write(_), None) => unknown += 1,
            (Action::Read(value), ret) => {
                assert!(value.is_some() && ret.is_some());
                reads += 1;
            }
        }
    }
    let count = |wanted: &dyn Fn(&crate::emulation::Attempt) -> bool| {
        record.attempts.iter().filter(|attempt| wanted(attempt)).count()
    };
    let put = |a: &crate::emulation::Attempt| record.requests[a.request].value.is_some();
    let outcome = |a: &crate::emulation::Attempt| a.answer.as_ref().map(|a| a.outcome.clone());
    let is_ok = |a: &crate::emulation::Attempt| matches!(outcome(a), Some(AnswerKind::Ok { .. }));
    let is_redirect = |a: &crate::emulation::Attempt| outcome(a) == Some(AnswerKind::Redirect);
    assert_eq!(writes, count(&|a| put(a) && is_ok(a)));
    assert_eq!(reads, count(&|a| !put(a) && is_ok(a)));
    assert_eq!(unknown, count(&|a| put(a) && !is_ok(a) && !is_redirect(a)));
    assert!(writes > 10 && reads > 5 && unknown > 10);
}

#[test]
fn an_overlapping_put_is_mentioned() {
    // The first put is acknowledged; all later ones take effect, but are never answered.
    let mut registers = Registers::default();
    let mut acknowledged = std::collections::BTreeSet::new();
    let fields = r#"{"mix":0.5,"requests":300}"#;
    let record = run(emulation(fields), &mut |seen: Seen<'_>| {
        let Some(answer) = registers.answer(&seen.message.content) else {
            return Vec::new();
        };
        match &seen.message.content {
            Content::Put { key, .. } if !acknowledged.insert(key.clone()) => Vec::new(),
            _ => vec![seen.reply(0, answer)],
        }
    });
    let (_, judgement) = judged(&record);
    // Linearizable all the same: a put that was never answered may take effect.
    assert_eq!(failed(&judgement), [Check::EnoughMessages]);
    assert_eq!(judgement.verdict(Check::RightGets).status, Status::Noted);
    let wrong = judgement.wrong_gets;
    assert!(!wrong.is_empty());
    assert!(wrong.iter().all(|get| get.put_under_way));
}
