use bowline_raft::Random;

use super::*;
use crate::history::write_history;

fn operation(client: u64, request: Request, answer: Answer, call: u64, ret: Option<u64>) -> Operation {
    let key = "k".to_owned();
    Operation { client, key, request, answer, revision: None, mod_revision: None, call, ret }
}

fn put(value: &str, call: u64, ret: u64) -> Operation {
    operation(1, Request::Put(value.to_owned()), Answer::Done, call, Some(ret))
}

fn get(found: Option<&str>, call: u64, ret: u64) -> Operation {
    operation(2, Request::Get, Answer::Found(found.map(str::to_owned)), call, Some(ret))
}

fn delete(found: Option<&str>, call: u64, ret: u64) -> Operation {
    operation(3, Request::Delete, Answer::Found(found.map(str::to_owned)), call, Some(ret))
}

fn swap(expect: Option<&str>, value: &str, answer: Answer, call: u64, ret: u64) -> Operation {
    let request = Request::Swap { expect: expect.map(str::to_owned), value: value.to_owned() };
    operation(4, request, answer, call, Some(ret))
}

/// The same without an answer.
fn unanswered(mut operation: Operation) -> Operation {
    (operation.answer, operation.ret) = (Answer::Unknown, None);
    operation
}

fn at(mut operation: Operation, revision: i64) -> Operation {
    operation.revision = Some(revision);
    operation
}

fn is_linearizable(history: &[Operation]) -> bool {
    match check(history) {
        Verdict::Linearizable => true,
        Verdict::Violation(Fault::Violation(_)) => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_one_client_sees_is_what_it_did() {
    let history = [
        get(None, 0, 1),
        put("a", 2, 3),
        swap(Some("a"), "b", Answer::Done, 4, 5),
        swap(Some("a"), "c", Answer::Found(Some("b".to_owned())), 6, 7),
        delete(Some("b"), 8, 9),
        delete(None, 10, 11),
        swap(None, "d", Answer::Done, 12, 13),
        get(Some("d"), 14, 15),
    ];
    assert!(is_linearizable(&history));
    for place in [0, 2, 3, 4, 5, 6, 7] {
        let mut wrong = history.to_vec();
        wrong[place].answer = Answer::Found(Some("a".to_owned()));
        assert!(!is_linearizable(&wrong), "{}", wrong[place]);
    }
}

#[test]
fn concurrent_operations_may_have_any_order_but_only_one() {
    assert!(is_linearizable(&[put("a", 0, 10), put("b", 0, 10), get(Some("a"), 11, 12)]));
    assert!(is_linearizable(&[put("a", 0, 10), put("b", 0, 10), get(Some("b"), 11, 12)]));
    assert!(!is_linearizable(&[put("a", 0, 10), put("b", 0, 10), get(Some("b"), 11, 12), get(Some("a"), 13, 14)]));
    let twice = [put("a", 0, 1), swap(Some("a"), "b", Answer::Done, 2, 9), swap(Some("a"), "c", Answer::Done, 2, 9)];
    assert!(!is_linearizable(&twice), "two swaps of one value");
    assert!(!is_linearizable(&[put("a", 0, 1), delete(Some("a"), 2, 9), delete(Some("a"), 2, 9)]));
}

#[test]
fn a_stale_get_is_found_and_told() {
    let history = [put("a", 0, 1), put("b", 2, 3), get(Some("a"), 4, 5)];
    let Verdict::Violation(Fault::Violation(violation)) = check(&history) else { panic!("it is stale") };
    assert_eq!(violation.stuck, history[2]);
    let said = violation.to_string();
    assert!(said.contains("no order explains") && said.contains("get: found a"), "{said}");
}

#[test]
fn what_has_no_answer_may_be_done_late_or_never() {
    let maybe = unanswered(put("a", 0, 1));
    assert!(is_linearizable(&[maybe.clone(), get(None, 5, 6)]));
    assert!(is_linearizable(&[maybe.clone(), get(None, 5, 6), get(Some("a"), 7, 8)]));
    assert!(!is_linearizable(&[maybe.clone(), get(Some("a"), 5, 6), get(None, 7, 8)]), "nothing is undone");
    assert!(!is_linearizable(&[put("z", 0, 1), unanswered(put("a", 9, 10)), get(Some("a"), 5, 6)]), "not before");
    let gone = unanswered(delete(None, 2, 3));
    assert!(is_linearizable(&[put("a", 0, 1), gone.clone(), get(Some("a"), 4, 5), get(None, 6, 7)]));
    let back = [put("a", 0, 1), gone, get(None, 4, 5), get(Some("a"), 6, 7)];
    assert!(!is_linearizable(&back), "a deletion brings nothing back");
    let swapped = unanswered(swap(Some("a"), "b", Answer::Done, 2, 3));
    assert!(is_linearizable(&[put("a", 0, 1), swapped.clone(), get(Some("b"), 4, 5)]));
    assert!(!is_linearizable(&[put("c", 0, 1), swapped, get(Some("b"), 4, 5)]), "it expects another value");
    let chain = [
        unanswered(put("a", 0, 1)),
        unanswered(swap(Some("a"), "b", Answer::Done, 0, 1)),
        get(None, 2, 3),
        get(Some("b"), 4, 5),
    ];
    assert!(is_linearizable(&chain), "the second was seen, so the first has happened");
}

#[test]
fn revisions_are_held_against_time() {
    let fault = |history: &[Operation]| match check(history) {
        Verdict::Violation(Fault::Revisions(fault)) => fault.to_string().lines().next().unwrap_or_default().to_owned(),
        other => panic!("{other:?}"),
    };
    assert!(is_linearizable(&[at(put("a", 0, 1), 2), at(get(Some("a"), 2, 3), 2), at(put("b", 4, 5), 3)]));
    assert_eq!(fault(&[at(put("a", 0, 1), 2), at(put("b", 2, 3), 2)]), "revisions go backwards:");
    assert_eq!(fault(&[at(put("a", 0, 1), 3), at(get(Some("a"), 2, 3), 2)]), "revisions go backwards:");
    assert_eq!(fault(&[at(put("a", 0, 9), 2), at(put("b", 0, 9), 2)]), "two writes have the same revision:");
    let mut get = at(get(Some("a"), 2, 3), 9);
    get.mod_revision = Some(5);
    assert_eq!(fault(&[at(put("a", 0, 1), 2), get]), "a write and a get disagree on the write's revision:");
}

#[test]
fn a_bound_on_the_search_is_no_verdict() {
    let history: Vec<Operation> = (0..20).map(|n| put(&n.to_string(), 0, 10)).chain([get(None, 11, 12)]).collect();
    let said = check_within(&history, 1_000).explanation();
    assert_eq!(said.as_deref(), Some("undecided: the search over key \"k\" reached its bound of 1000 steps"));
}

#[test]
fn a_file_holds_a_history() {
    let history = vec![
        at(put("größe", 0, 1), 2),
        unanswered(swap(None, "b", Answer::Done, 2, 3)),
        delete(Some("b"), 4, 5),
        get(None, 6, 7),
    ];
    let mut file = Vec::new();
    write_history(&mut file, &history).expect("memory takes it");
    assert_eq!(read_history(&file[..]).expect("it was written"), history);
    for wrong in ["{}", "[]", "{\"client\":1", &String::from_utf8_lossy(&file).replace("client", "klient")] {
        assert!(read_history(wrong.as_bytes()).is_err(), "{wrong}");
    }
    let backwards = r#"{"client":1,"key":"k","request":"get","answer":"unknown","call":2,"return":1}"#;
    let error = read_history(backwards.as_bytes()).expect_err("it ends before it begins").to_string();
    assert_eq!(error, "line 1: field `return`: is before `call`");
}

#[test]
fn histories_of_a_real_key_are_accepted() {
    for seed in 0..100_u64 {
        let mut random = Random::new(seed);
        let history = random_history(&mut |bound| random.below(bound), 150);
        assert!(is_linearizable(&history), "seed {seed}");
    }
}

#[test]
fn every_verdict_on_small_histories_is_that_of_trying_every_order() {
    let mut refused = 0;
    for seed in 0..3_000_u64 {
        let mut random = Random::new(seed);
        let mut draw = |bound| random.below(bound);
        let mut history = random_history(&mut draw, 7);
        // Replaces an answer by another one from the history, which is mostly wrong.
        let values: Vec<Answer> = history.iter().map(|operation| operation.answer.clone()).collect();
        let place = draw(7) as usize;
        let other = values[draw(7) as usize].clone();
        if matches!(other, Answer::Found(_)) && history[place].answer != Answer::Unknown {
            history[place].answer = other;
        }
        let expected = has_order(&history, &mut vec![false; history.len()], None);
        assert_eq!(is_linearizable(&history), expected, "seed {seed}: {history:#?}");
        refused += u32::from(!expected);
    }
    assert!(refused > 300, "{refused} were wrong");
}

/// Whether some order explains the operations that are not placed yet.
fn has_order(history: &[Operation], placed: &mut [bool], state: Option<&str>) -> bool {
    let is_owed = |place: usize| history[place].answer != Answer::Unknown;
    let open: Vec<usize> = (0..history.len()).filter(|place| !placed[*place]).collect();
    if !open.iter().any(|place| is_owed(*place)) {
        return true;
    }
    for &place in &open {
        let operation = &history[place];
        let is_next = open.iter().all(|other| !is_owed(*other) || history[*other].ret >= Some(operation.call));
        let next = match (&operation.request, &operation.answer) {
            (Request::Get, Answer::Unknown) => continue,
            (Request::Swap { expect, value }, Answer::Unknown | Answer::Done) => {
                (expect.as_deref() == state).then_some(Some(&**value))
            }
            (Request::Put(value), Answer::Unknown | Answer::Done) => Some(Some(&**value)),
            (Request::Delete, Answer::Unknown | Answer::Done) => Some(None),
            (request, Answer::Found(found)) if found.as_deref() == state => match request {
                Request::Put(value) => Some(Some(&**value)),
                Request::Delete => Some(None),
                Request::Swap { .. } | Request::Get => Some(state),
            },
            _ => None,
        };
        let Some(next) = next.filter(|_| is_next) else { continue };
        placed[place] = true;
        let found = has_order(history, placed, next);
        placed[place] = false;
        if found {
            return true;
        }
    }
    false
}

fn random_history(random: &mut impl FnMut(u64) -> u64, operations: u64) -> Vec<Operation> {
    let mut state: Option<String> = None;
    let mut history = Vec::new();
    for number in 0..operations {
        // It takes effect at `now`, between its call and its return.
        let now = 1_000 + number * 10;
        let (call, ret) = (now - random(35), now + random(35));
        let value = number.to_string();
        let mut operation = match random(4) {
            0 => {
                let before = state.replace(value.clone());
                operation(0, Request::Put(value), Answer::Found(before), call, Some(ret))
            }
            1 => {
                let before = state.take();
                operation(1, Request::Delete, Answer::Found(before), call, Some(ret))
            }
            2 => {
                let expect = if random(2) == 0 { state.clone() } else { Some(random(operations).to_string()) };
                let met = expect == state;
                let answer = if met { Answer::Done } else { Answer::Found(state.clone()) };
                let request = Request::Swap { expect, value: value.clone() };
                if met {
                    state = Some(value);
                }
                operation(2, request, answer, call, Some(ret))
            }
            _ => operation(3, Request::Get, Answer::Found(state.clone()), call, Some(ret)),
        };
        match random(8) {
            0 => operation = unanswered(operation),
            1 if matches!(operation.request, Request::Put(_) | Request::Delete) => operation.answer = Answer::Done,
            _ => {}
        }
        history.push(operation);
    }
    history
}
