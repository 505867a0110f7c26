//! Section 2.5: compaction.

use bowline_kv::store::*;
use bowline_node::StateMachine;

use crate::bench::*;

#[test]
fn c01_the_future_and_what_is_compacted_are_refused() {
    let mut kv = Kv::new();
    for value in ["1", "2", "3"] {
        kv.put("k", value);
    }
    assert_eq!(kv.compact(-1), Err(KvError::Compacted));
    assert_eq!(kv.compact(5), Err(KvError::FutureRevision));
    assert_eq!(kv.compact(3), Ok(4));
    for revision in [3, 2, 0, -1, i64::MIN] {
        assert_eq!(kv.compact(revision), Err(KvError::Compacted));
    }
    assert_eq!(kv.compact(i64::MAX), Err(KvError::FutureRevision));
    assert_eq!(kv.compact(4), Ok(4));
    assert_eq!(kv.store.compacted_revision(), 4);
}

#[test]
fn c02_reads_at_the_compacted_revision_succeed_and_before_it_fail() {
    let mut kv = Kv::new();
    for value in ["1", "2", "3"] {
        kv.put("k", value);
    }
    kv.compact(3).expect("allowed");
    for removed in [false, true] {
        assert_eq!(kv.get_at("k", 2), Err(KvError::Compacted));
        assert_eq!(kv.get_at("k", 3).expect("it is readable").expect("it is there").value, &b"2"[..]);
        assert_eq!(kv.store.is_scrubbed(3), removed);
        kv.scrub();
    }
}

#[test]
fn c03_a_tombstone_at_the_compacted_revision_stays_until_the_next() {
    let mut kv = Kv::new();
    kv.put("k", "1");
    kv.delete("k", "");
    kv.put("other", "");
    kv.compact(3).expect("allowed");
    kv.scrub();
    let at = |kv: &Kv, main| kv.store.engine().reader().and_then(|reader| reader.get(Revision { main, sub: 0 }));
    assert_eq!(at(&kv, 2), Ok(None));
    assert!(at(&kv, 3).expect("memory does not fail").is_some_and(|record| record.is_tombstone()));
    kv.compact(4).expect("allowed");
    kv.scrub();
    assert_eq!(at(&kv, 3), Ok(None));
}

#[test]
fn c03_a_tombstone_goes_even_if_the_next_compaction_comes_halfway() {
    for steps in 0..6 {
        let mut kv = Kv::new();
        kv.put("k", "1");
        kv.put("k", "2");
        kv.delete("k", "");
        kv.compact(4).expect("allowed");
        for _ in 0..steps {
            kv.store.scrub(1).expect("memory does not fail");
        }
        kv.put("other", "");
        kv.compact(5).expect("allowed");
        kv.scrub();
        let mut left = Vec::new();
        let reader = kv.store.engine().reader().expect("memory does not fail");
        reader
            .scan(Revision::default(), Revision::start_of(i64::MAX), &mut |at, _| {
                left.push(at.main);
                std::ops::ControlFlow::Continue(())
            })
            .expect("memory does not fail");
        assert_eq!(left, [5], "after {steps} steps");
    }
}

#[test]
fn c04_the_store_says_when_all_is_removed() {
    let mut kv = Kv::new();
    for value in ["1", "2", "3"] {
        kv.put("k", value);
    }
    assert!(kv.store.scrub(1).expect("memory does not fail").done, "there was no compaction");
    kv.compact(4).expect("allowed");
    assert!(!kv.store.is_scrubbed(4));
    let mut removed = 0;
    loop {
        let progress = kv.store.scrub(1).expect("memory does not fail");
        assert!(progress.examined <= 1);
        removed += progress.removed;
        assert_eq!(progress.done, kv.store.is_scrubbed(4));
        if progress.done {
            break;
        }
    }
    assert_eq!(removed, 2);
}

#[test]
fn c05_the_newest_value_of_each_key_stays() {
    let mut kv = Kv::new();
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2"), ("b", "2"), ("a", "3"), ("c", "1")] {
        kv.put(key, value);
    }
    kv.delete("c", "");
    kv.put("c", "2");
    let before: Vec<_> = (6..=9).map(|at| kv.range(RangeRequest { revision: at, ..everything() })).collect();
    kv.compact(6).expect("allowed");
    kv.scrub();
    let after: Vec<_> = (6..=9).map(|at| kv.range(RangeRequest { revision: at, ..everything() })).collect();
    assert_eq!(before, after);
    let bytes = kv.store.status().db_size;
    kv.compact(9).expect("allowed");
    kv.scrub();
    assert!(kv.store.status().db_size < bytes);
    assert_eq!(kv.range(everything()).expect("allowed").kvs.len(), 3);
    assert_eq!(kv.get("a").expect("it is there").version, 3);
}

#[test]
fn c06_no_step_looks_at_more_than_it_may_and_answers_never_change_between() {
    let mut kv = Kv::new();
    for number in 0..500 {
        kv.put(&format!("k{}", number % 7), &number.to_string());
        if number % 11 == 0 {
            kv.delete(&format!("k{}", number % 5), "");
        }
    }
    let revision = kv.revision();
    kv.compact(revision - 20).expect("allowed");
    let answers = |kv: &Kv| {
        let past = kv.range(RangeRequest { revision: revision - 10, ..everything() });
        (kv.range(everything()), past, kv.hash(0), kv.hash(revision - 15), kv.store.snapshot())
    };
    let before = answers(&kv);
    let mut steps = 0;
    while !kv.store.is_scrubbed(revision - 20) {
        assert!(kv.store.scrub(16).expect("memory does not fail").examined <= 16);
        assert_eq!(answers(&kv), before);
        // Writes go on meanwhile.
        steps += 1;
    }
    assert!(steps > 20, "{steps} steps");
}
