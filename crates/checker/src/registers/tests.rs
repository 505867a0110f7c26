//! Tests with textbook histories, and comparisons of verdicts with brute force.

use std::time::Instant;

use bowline_raft::Random;

use super::*;
use crate::history::{MAX_LINE_BYTES, write_history};

fn write(client: u64, value: &str, call: u64, ret: impl Into<Option<u64>>) -> Operation {
    Operation { client, key: "x".to_owned(), action: Action::Write(value.to_owned()), call, ret: ret.into() }
}

fn read(client: u64, value: &str, call: u64, ret: impl Into<Option<u64>>) -> Operation {
    Operation { action: Action::Read(Some(value.to_owned())), ..write(client, "", call, ret) }
}

fn is_fine(history: &[Operation]) -> bool {
    match check(history, &Options::default()) {
        Verdict::Linearizable => true,
        Verdict::Violation(_) => false,
        Verdict::Undecided(undecided) => panic!("{undecided}"),
    }
}

fn violation(history: &[Operation]) -> RegisterViolation {
    match check(history, &Options::default()) {
        Verdict::Violation(violation) => violation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_empty_history_is_linearizable() {
    assert!(is_fine(&[]));
}

#[test]
fn a_register_starts_empty() {
    assert!(is_fine(&[read(1, "", 0, 1)]));
    assert!(is_fine(&[read(1, "", 0, 5), write(2, "a", 2, 3)]));
    assert!(!is_fine(&[write(2, "a", 0, 1), read(1, "", 2, 3)]));
}

#[test]
fn a_stale_read_is_a_violation() {
    let history = [write(1, "a", 0, 1), write(1, "b", 2, 3), read(2, "a", 4, 5)];
    assert_eq!(violation(&history).reason, Reason::NoOrder);
    assert!(is_fine(&[write(1, "a", 0, 1), write(1, "b", 2, 5), read(2, "a", 4, 5)]));
}

#[test]
fn a_lost_write_is_a_violation() {
    assert!(!is_fine(&[write(1, "a", 0, 1), read(1, "", 2, 3)]));
}

#[test]
fn a_new_old_inversion_is_a_violation() {
    // Lamport's regular but not atomic register: during one write, a later read returns the older value.
    let write = write(1, "b", 0, 100);
    assert!(!is_fine(&[write.clone(), read(2, "b", 10, 20), read(3, "", 30, 40)]));
    assert!(is_fine(&[write, read(2, "", 10, 20), read(3, "b", 30, 40)]));
}

#[test]
fn overlapping_reads_may_see_both_sides_of_a_write() {
    let write = write(1, "b", 0, 100);
    assert!(is_fine(&[write, read(2, "b", 10, 30), read(3, "", 20, 40)]));
}

#[test]
fn two_readers_must_agree_on_the_order_of_two_writes() {
    let writes = [write(1, "a", 0, 100), write(2, "b", 0, 100)];
    let disagreeing = [read(3, "a", 10, 20), read(3, "b", 30, 40), read(4, "b", 50, 60), read(4, "a", 70, 80)];
    assert!(!is_fine(&[&writes[..], &disagreeing[..]].concat()));
    assert!(is_fine(&[&writes[..], &disagreeing[..3]].concat()));
}

#[test]
fn a_value_that_was_never_written_is_named() {
    let found = violation(&[write(1, "a", 0, 1), read(2, "phantom", 2, 3)]);
    assert_eq!(found.reason, Reason::NeverWritten);
    assert_eq!(found.operations, [read(2, "phantom", 2, 3)]);
}

#[test]
fn a_value_from_the_future_is_named() {
    let found = violation(&[read(2, "a", 0, 1), write(1, "a", 2, 3)]);
    assert_eq!(found.reason, Reason::NotYetWritten);
    assert_eq!(found.operations.len(), 2);
}

#[test]
fn operations_that_touch_in_one_instant_are_concurrent() {
    assert!(is_fine(&[write(1, "a", 0, 5), read(2, "", 5, 6)]));
    assert!(!is_fine(&[write(1, "a", 0, 5), read(2, "", 6, 6)]));
}

#[test]
fn an_unanswered_write_may_take_effect_late_or_never() {
    let lost = write(1, "a", 0, None);
    assert!(is_fine(&[lost.clone(), read(2, "", 10, 11)]));
    assert!(is_fine(&[lost.clone(), read(2, "", 10, 11), read(2, "a", 1000, 1001)]));
    assert!(is_fine(&[lost.clone(), write(2, "b", 5, 6), read(2, "a", 1000, 1001)]));
}

#[test]
fn an_unanswered_write_takes_effect_at_most_once() {
    let lost = write(1, "a", 0, None);
    let history = [lost, read(2, "a", 1, 2), write(2, "b", 3, 4), read(2, "a", 5, 6)];
    assert!(!is_fine(&history));
    // Two of them can do it.
    assert!(is_fine(&[&history[..], &[write(3, "a", 0, None)]].concat()));
}

#[test]
fn an_unanswered_write_takes_no_effect_before_its_call() {
    assert!(!is_fine(&[read(2, "a", 1, 2), write(1, "a", 5, None)]));
}

#[test]
fn a_repeated_value_can_be_read_again() {
    let history = [write(1, "a", 0, 1), write(1, "b", 2, 3), write(1, "a", 4, 5), read(2, "a", 6, 7)];
    assert!(is_fine(&history));
    assert!(!is_fine(&[&history[..], &[read(2, "b", 8, 9)]].concat()));
}

#[test]
fn reads_without_a_result_constrain_nothing() {
    let unknown = |ret| Operation { action: Action::Read(None), ..read(1, "", 0, ret) };
    assert!(is_fine(&[unknown(None), unknown(Some(1)), write(1, "a", 2, 3)]));
}

#[test]
fn a_read_with_a_result_but_no_return_must_still_be_explained() {
    assert!(is_fine(&[read(1, "a", 0, None), write(2, "a", 50, 60)]));
    assert!(!is_fine(&[read(1, "a", 0, None)]));
}

#[test]
fn keys_are_independent_registers() {
    let on_y = |operation| Operation { key: "y".to_owned(), ..operation };
    assert!(is_fine(&[write(1, "a", 0, 1), on_y(read(1, "", 2, 3))]));
    let found = violation(&[read(1, "", 2, 3), on_y(write(1, "b", 0, 1)), on_y(read(1, "", 2, 3))]);
    assert_eq!((found.key.as_str(), found.operations.len()), ("y", 2));
}

#[test]
fn an_operation_that_ends_before_it_starts_is_no_history() {
    assert_eq!(violation(&[write(1, "a", 5, 4)]).reason, Reason::ReturnsBeforeCall);
}

#[test]
fn a_violation_shows_the_core_only() {
    let mut history: Vec<Operation> = (0..2000)
        .flat_map(|n| {
            let value = format!("value {n}");
            [write(1, &value, n * 10, n * 10 + 4), read(2, &value, n * 10 + 5, n * 10 + 9)]
        })
        .collect();
    history[3001] = read(7, "value 1300", 15_005, 15_009);
    let found = violation(&history);
    assert!(found.operations.len() <= 3, "{found}");
    assert!(found.operations.contains(&history[3001]), "{found}");
    assert!(found.to_string().contains("client 7 reads \"value 1300\""), "{found}");
    assert!(!is_fine(&found.operations));
}

#[test]
fn hostile_text_is_escaped_and_cut_in_reports() {
    let long = "\u{1b}\n".repeat(1000);
    let text = violation(&[read(1, &long, 0, 1)]).to_string();
    assert!(!text.contains('\u{1b}') && text.len() < 1000, "{text}");
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn a_search_over_its_bound_is_undecided_and_says_so() {
    let history = simulate(&mut Random::new(1), &Shape { operations: 500, ..Shape::default() });
    let options = Options { max_steps: 50, hint: None };
    let said = check(&history, &options).explanation();
    let expected = "undecided: the search over key \"key 0\" (500 operations) reached its bound of 50 steps";
    assert_eq!(said.as_deref(), Some(expected));
}

#[test]
fn a_right_hint_needs_no_search_and_a_wrong_one_does_no_harm() {
    let history = [
        write(1, "a", 0, 100),
        write(2, "b", 0, 100),
        read(3, "b", 10, 20),
        read(3, "a", 30, 40),
        write(4, "c", 50, None),
    ];
    let verdict = |max_steps, hint: &[usize]| check(&history, &Options { max_steps, hint: Some(hint.to_vec()) });
    assert_eq!(verdict(0, &[1, 0]), Verdict::Linearizable);
    assert_eq!(verdict(0, &[1, 2, 0, 4, 1, 99]), Verdict::Linearizable);
    for wrong in [&[0, 1][..], &[], &[1], &[0, 4, 1], &[77]] {
        assert!(matches!(verdict(0, wrong), Verdict::Undecided(_)), "{wrong:?}");
        assert_eq!(verdict(1000, wrong), Verdict::Linearizable, "{wrong:?}");
    }
}

/// The parameters of a history that a real register may produce.
struct Shape {
    clients: u64,
    operations: usize,
    keys: u64,
    /// Number of different values that are written to a key; 0 if all are different.
    values: u64,
    /// In percent.
    unknown: u64,
    /// Maximum duration of an operation; the time between operations is a tenth of it.
    duration: u64,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { clients: 8, operations: 1000, keys: 1, values: 0, unknown: 0, duration: 1000 }
    }
}

/// Operations in the order in which they took effect.
fn simulate(random: &mut Random, shape: &Shape) -> Vec<Operation> {
    let mut planned = Vec::new();
    let mut free = vec![0; usize::try_from(shape.clients).unwrap()];
    for _ in 0..shape.operations {
        let client = usize::try_from(random.below(shape.clients)).unwrap();
        let call = free[client] + random.below(shape.duration / 10 + 1);
        let ret = call + random.below(shape.duration) + 1;
        free[client] = ret + 1;
        planned.push((call + random.below(ret - call + 1), client, call, ret));
    }
    planned.sort_unstable();
    let mut registers = vec![String::new(); usize::try_from(shape.keys).unwrap()];
    let mut history = Vec::new();
    for (number, (_, client, call, ret)) in planned.into_iter().enumerate() {
        let key = usize::try_from(random.below(shape.keys)).unwrap();
        let unknown = random.chance(shape.unknown as f64 / 100.0);
        let action = if random.chance(0.5) {
            let value = match shape.values {
                0 => number.to_string(),
                values => random.below(values).to_string(),
            };
            // An operation with an unknown outcome may never have happened.
            if !unknown || random.chance(0.5) {
                registers[key].clone_from(&value);
            }
            Action::Write(value)
        } else {
            Action::Read((!unknown).then(|| registers[key].clone()))
        };
        history.push(Operation {
            client: client as u64,
            key: format!("key {key}"),
            action,
            call,
            ret: (!unknown).then_some(ret),
        });
    }
    history
}

/// Brute force: tries all orders of all subsets of the unanswered writes. It shares no idea with the search.
fn brute_force(history: &[Operation]) -> bool {
    let needed: Vec<&Operation> = history.iter().filter(|o| o.action != Action::Read(None)).collect();
    let optional = |o: &&Operation| o.ret.is_none() && matches!(o.action, Action::Write(_));
    let (optional, fixed): (Vec<&Operation>, Vec<&Operation>) = needed.into_iter().partition(optional);
    (0..1_u32 << optional.len()).any(|subset| {
        let chosen = optional.iter().enumerate().filter(|(at, _)| subset >> at & 1 == 1);
        let mut order: Vec<&Operation> = fixed.clone();
        order.extend(chosen.map(|(_, operation)| *operation));
        let count = order.len();
        any_permutation(&mut order, count)
    })
}

/// Heap's algorithm.
fn any_permutation(order: &mut Vec<&Operation>, count: usize) -> bool {
    if count <= 1 {
        return explains(order);
    }
    for at in 0..count {
        if any_permutation(order, count - 1) {
            return true;
        }
        order.swap(if count.is_multiple_of(2) { at } else { 0 }, count - 1);
    }
    false
}

fn explains(order: &[&Operation]) -> bool {
    let mut register = "";
    for (at, operation) in order.iter().enumerate() {
        if order[at + 1..].iter().any(|later| later.ret.is_some_and(|ret| ret < operation.call)) {
            return false;
        }
        match &operation.action {
            Action::Write(value) => register = value,
            Action::Read(Some(value)) if value != register => return false,
            Action::Read(_) => {}
        }
    }
    true
}

fn small_history(random: &mut Random) -> Vec<Operation> {
    let shape = Shape {
        clients: random.below(5) + 1,
        operations: usize::try_from(random.below(6) + 2).unwrap(),
        keys: 1,
        values: random.below(4),
        unknown: random.below(3) * 20,
        duration: 10,
    };
    let mut history = simulate(random, &shape);
    // Most such histories are linearizable, so corrupt answers and times of some.
    for _ in 0..random.below(9) {
        let other = usize::try_from(random.below(history.len() as u64)).unwrap();
        let value = match &history[other].action {
            Action::Write(value) => value.clone(),
            Action::Read(value) => value.clone().unwrap_or_default(),
        };
        let at = usize::try_from(random.below(history.len() as u64)).unwrap();
        if let Action::Read(result @ Some(_)) = &mut history[at].action {
            *result = Some(value);
            if random.chance(0.1) {
                history[at].ret = None;
            }
        } else if random.chance(0.3) {
            history[at].call = random.below(20);
            history[at].ret = history[at].ret.map(|ret| ret.max(history[at].call));
        }
    }
    history
}

#[test]
fn every_verdict_is_that_of_brute_force() {
    let mut random = Random::new(7);
    let (mut fine, mut wrong, mut unknown) = ([0, 0], 0, 0);
    for case in 0..12_000 {
        let history = small_history(&mut random);
        let expected = brute_force(&history);
        let has_unknown = history.iter().any(|operation| operation.ret.is_none());
        assert_eq!(is_fine(&history), expected, "case {case}: {history:#?}");
        unknown += u32::from(has_unknown);
        if expected {
            fine[usize::from(has_unknown)] += 1;
        } else {
            wrong += 1;
            let core = violation(&history).operations;
            assert!(!brute_force(&core), "case {case}: the core is no violation: {core:#?}");
        }
    }
    let counts = format!("{fine:?} fine, {wrong} wrong, {unknown} with unknown outcomes");
    assert!(fine[0] > 2000 && fine[1] > 2000 && wrong > 1000 && unknown > 3000, "{counts}");
    eprintln!("{counts}");
}

#[test]
fn a_hint_never_changes_a_verdict() {
    let mut random = Random::new(8);
    let mut explained = 0;
    for case in 0..4000 {
        let history = small_history(&mut random);
        let mut hint: Vec<usize> = (0..history.len()).collect();
        for _ in 0..random.below(3) {
            let at = usize::try_from(random.below(hint.len() as u64)).unwrap();
            hint.swap(at, 0);
        }
        let hinted = Options { hint: Some(hint.clone()), ..Options::default() };
        let expected = brute_force(&history);
        let verdict = check(&history, &hinted);
        assert_eq!(verdict == Verdict::Linearizable, expected, "case {case}: {history:#?}");
        let witness = check(&history, &Options { max_steps: 0, hint: Some(hint) });
        if witness == Verdict::Linearizable {
            explained += 1;
            assert!(expected, "case {case}: {history:#?}");
        }
    }
    assert!(explained > 1000, "{explained}");
}

#[test]
fn the_order_in_which_a_register_worked_is_always_a_witness() {
    let mut random = Random::new(9);
    for values in [0, 1, 2, 5] {
        let shape = Shape { operations: 3000, keys: 3, values, ..Shape::default() };
        let history = simulate(&mut random, &shape);
        let options = Options { max_steps: 0, hint: Some((0..history.len()).collect()) };
        assert_eq!(check(&history, &options), Verdict::Linearizable);
    }
}

/// The easy shape of real histories, and harder ones.
fn large_shapes() -> [(&'static str, Shape); 7] {
    let default = Shape::default;
    [
        ("mostly sequential", Shape { operations: 100_000, keys: 200, ..default() }),
        ("one key", Shape { operations: 100_000, ..default() }),
        ("one key, few values", Shape { operations: 100_000, values: 5, ..default() }),
        ("many clients", Shape { operations: 20_000, clients: 64, ..default() }),
        ("many clients, some values", Shape { operations: 20_000, clients: 20, values: 200, ..default() }),
        ("unknown outcomes", Shape { operations: 50_000, unknown: 5, ..default() }),
        ("unknown, some values", Shape { operations: 20_000, unknown: 5, values: 500, ..default() }),
    ]
}

/// Histories of real registers must pass. With one result replaced by one from a distant time they must not.
#[test]
fn large_histories_are_decided_in_time() {
    for (name, shape) in large_shapes() {
        let mut history = simulate(&mut Random::new(10), &shape);
        let started = Instant::now();
        let verdict = check(&history, &Options::default());
        eprintln!("{name}: fine in {:?}", started.elapsed());
        assert_eq!(verdict, Verdict::Linearizable, "{name}");
        let Some(at) =
            (history.len() / 2..history.len()).find(|&at| matches!(history[at].action, Action::Read(Some(_))))
        else {
            continue;
        };
        history[at].action = Action::Read(Some(String::new()));
        let started = Instant::now();
        let found = violation(&history);
        eprintln!("{name}: wrong in {:?}, {} operations", started.elapsed(), found.operations.len());
        assert!(found.operations.contains(&history[at]), "{name}: {found}");
        assert!(found.operations.len() < 6, "{name}: {found}");
    }
}

#[test]
fn a_file_holds_a_history_exactly() {
    let mut history = simulate(&mut Random::new(3), &Shape { unknown: 30, ..Shape::default() });
    history.push(write(u64::MAX, "\"\n\u{1f422}\0", 0, u64::MAX));
    let mut file = Vec::new();
    write_history(&mut file, &history).unwrap();
    assert_eq!(read_history(&file[..]).unwrap(), history);
    let last =
        r#"{"client":18446744073709551615,"key":"x","write":"\"\n🐢\u0000","call":0,"return":18446744073709551615}"#;
    let file_text = String::from_utf8(file.clone()).unwrap();
    assert_eq!(file_text.lines().last(), Some(last));
    let unknown = file_text.lines().find(|line| line.contains(r#""read":null"#)).expect("some reads have no result");
    assert!(unknown.ends_with(r#","return":null}"#), "{unknown}");
    let spaced = format!("\n  \n{}", String::from_utf8(file).unwrap());
    assert_eq!(read_history(spaced.as_bytes()).unwrap().len(), history.len());
}

#[test]
fn a_bad_line_is_named_with_its_field() {
    let good = r#"{"client":1,"key":"x","write":"a","call":1,"return":2}"#;
    let message = |line: &str| read_history(format!("{good}\n{line}\n").as_bytes()).unwrap_err().to_string();
    let with = |from: &str, to: &str| message(&good.replace(from, to));
    assert!(message("{").starts_with("line 2: not a JSON object"));
    assert!(message("[1]").starts_with("line 2: not a JSON object"));
    assert_eq!(with(r#""client":1,"#, ""), "line 2: field `client`: missing");
    assert_eq!(with(r#","write":"a""#, ""), "line 2: field `write`: missing, and there is no `read` either");
    assert!(with(r#""call":1"#, r#""call":-1"#).starts_with("line 2: field `call`: is -1, must be"));
    assert!(with(r#""x""#, "7").starts_with("line 2: field `key`: is a number, must be a string"));
    assert!(with(r#""write":"a""#, r#""write":null"#).contains("field `write`: is null"));
    assert!(with(r#""return":2"#, r#""return":0"#).contains("field `return`: is before `call`"));
    assert!(with("}", r#","extra":1}"#).contains("field `extra`: unknown"));
    assert!(with("}", r#","read":"a"}"#).contains("field `read`: can't be there together"));
    let long = format!(r#"{{"key":"{}"}}"#, "x".repeat(MAX_LINE_BYTES));
    assert_eq!(message(&long), format!("line 2: longer than {MAX_LINE_BYTES} bytes"));
}
