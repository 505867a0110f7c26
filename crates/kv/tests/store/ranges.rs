//! Section 2.2: ranges.

use std::cell::Cell;
use std::ops::ControlFlow;

use bowline_kv::store::*;
use bowline_node::raft::Index;
use bytes::Bytes;

use crate::bench::*;

fn filled() -> Kv {
    let mut kv = Kv::new();
    for (key, value) in [("b", "2"), ("a", "3"), ("d", "1"), ("c", "0")] {
        kv.put(key, value);
    }
    kv
}

fn found(kv: &Kv, request: RangeRequest) -> Vec<String> {
    let response = kv.range(request).expect("nothing forbids it");
    keys(&response.kvs).into_iter().map(str::to_owned).collect()
}

#[test]
fn r01_an_empty_key_is_refused_everywhere() {
    let mut kv = Kv::new();
    assert_eq!(kv.range(range("", "z")), Err(KvError::EmptyKey));
    assert_eq!(kv.try_put(put("", "v")), Err(KvError::EmptyKey));
    assert_eq!(kv.try_delete(delete("", "z")), Err(KvError::EmptyKey));
    let compares = vec![compare("", CompareResult::Equal, CompareTarget::Version(0))];
    assert_eq!(kv.txn(TxnRequest { compare: compares, ..TxnRequest::default() }), Err(KvError::EmptyKey));
    assert_eq!(kv.all(vec![op_txn(vec![op_put("", "v")])]), Err(KvError::EmptyKey));
    assert_eq!(KvError::EmptyKey.to_string(), "etcdserver: key is not provided");
    assert_eq!(KvError::EmptyKey.code(), Code::InvalidArgument);
}

#[test]
fn r02_the_end_names_one_key_a_range_or_all_that_follow() {
    let kv = filled();
    assert_eq!(found(&kv, range("b", "")), ["b"]);
    assert_eq!(found(&kv, range("b", "d")), ["b", "c"]);
    assert_eq!(found(&kv, range("b", "\0")), ["b", "c", "d"]);
    assert_eq!(found(&kv, everything()), ["a", "b", "c", "d"]);
    assert_eq!(found(&kv, range("aa", "")), [""; 0]);
}

#[test]
fn r03_the_end_of_a_prefix_carries() {
    assert_eq!(prefix_end(b"a"), &b"b"[..]);
    assert_eq!(prefix_end(b"a\xff"), &b"b"[..]);
    assert_eq!(prefix_end(b"a\xffb"), &b"a\xffc"[..]);
    assert_eq!(prefix_end(b"\xff\xff"), &b"\0"[..]);
    assert_eq!(prefix_end(b""), &b"\0"[..]);
}

#[test]
fn r04_a_range_that_ends_before_it_begins_is_empty() {
    let mut kv = filled();
    for end in ["b", "a"] {
        let response = kv.range(range("b", end)).expect("it is no error");
        assert_eq!((response.kvs.len(), response.count), (0, 0));
        assert_eq!(kv.delete("b", end).deleted, 0);
    }
}

#[test]
fn r05_keys_come_in_the_order_of_their_bytes() {
    let mut kv = Kv::new();
    for key in ["b", "a\0", "B", "a", "ab"] {
        kv.put(key, "");
    }
    assert_eq!(found(&kv, everything()), ["B", "a", "a\0", "ab", "b"]);
}

#[test]
fn r06_a_limit_of_zero_or_less_is_none() {
    let kv = filled();
    for limit in [0, -1, i64::MIN] {
        let response = kv.range(RangeRequest { limit, ..everything() }).expect("nothing forbids it");
        assert_eq!((response.kvs.len(), response.more), (4, false));
    }
}

#[test]
fn r07_limit_sets_more_and_count_ignores_limit() {
    let kv = filled();
    for (limit, length, more) in [(1, 1, true), (3, 3, true), (4, 4, false), (5, 4, false), (i64::MAX, 4, false)] {
        let response = kv.range(RangeRequest { limit, ..everything() }).expect("nothing forbids it");
        assert_eq!((response.kvs.len(), response.more, response.count), (length, more, 4), "limit {limit}");
    }
}

#[test]
fn r08_count_only_counts_all() {
    let kv = filled();
    let request = RangeRequest { count_only: true, limit: 1, ..everything() };
    let response = kv.range(request).expect("nothing forbids it");
    assert_eq!((response.kvs.len(), response.count, response.more), (0, 4, false));
}

#[test]
fn r09_keys_only_leaves_out_the_values_alone() {
    let kv = filled();
    let response = kv.range(RangeRequest { keys_only: true, ..range("a", "") }).expect("nothing forbids it");
    let expected = KeyValue { value: Bytes::new(), ..kv.get("a").expect("it is there") };
    assert_eq!(response.kvs, [expected]);
}

#[test]
fn r10_keys_only_sorts_by_the_real_values() {
    let kv = filled();
    let request = RangeRequest { keys_only: true, sort_target: SortTarget::Value.into(), ..everything() };
    let response = kv.range(request).expect("nothing forbids it");
    assert_eq!(keys(&response.kvs), ["c", "d", "b", "a"]);
    assert!(response.kvs.iter().all(|kv| kv.value.is_empty()));
}

#[test]
fn r11_bounds_on_revisions_are_inclusive_and_do_not_change_the_count() {
    let mut kv = filled();
    kv.put("b", "again");
    // Created: b 2, a 3, d 4, c 5. Last written: a 3, d 4, c 5, b 6.
    let cases = [
        (RangeRequest { min_mod_revision: 4, ..everything() }, vec!["b", "c", "d"]),
        (RangeRequest { max_mod_revision: 4, ..everything() }, vec!["a", "d"]),
        (RangeRequest { min_create_revision: 4, ..everything() }, vec!["c", "d"]),
        (RangeRequest { max_create_revision: 3, ..everything() }, vec!["a", "b"]),
        (RangeRequest { min_mod_revision: 5, max_create_revision: 4, ..everything() }, vec!["b"]),
    ];
    for (request, expected) in cases {
        let response = kv.range(request).expect("nothing forbids it");
        assert_eq!((keys(&response.kvs), response.count, response.more), (expected, 4, false));
    }
    let request = RangeRequest { min_mod_revision: 4, limit: 2, ..everything() };
    let response = kv.range(request).expect("nothing forbids it");
    assert_eq!((keys(&response.kvs), response.count, response.more), (vec!["b", "c"], 4, true));
}

#[test]
fn r12_every_target_sorts_both_ways_and_none_means_ascending() {
    let mut kv = filled();
    kv.put("b", "2");
    kv.put("b", "2");
    kv.put("d", "1");
    // Versions: a 1, b 3, c 1, d 2. Created: b a d c. Last written: a c b d. Values: c d b a.
    let cases = [
        (SortTarget::Key, ["a", "b", "c", "d"], ["d", "c", "b", "a"]),
        (SortTarget::Version, ["a", "c", "d", "b"], ["b", "d", "a", "c"]),
        (SortTarget::Create, ["b", "a", "d", "c"], ["c", "d", "a", "b"]),
        (SortTarget::Mod, ["a", "c", "b", "d"], ["d", "b", "c", "a"]),
        (SortTarget::Value, ["c", "d", "b", "a"], ["a", "b", "d", "c"]),
    ];
    for (sort_target, up, down) in cases {
        for (sort_order, expected) in [(SortOrder::None, up), (SortOrder::Ascend, up), (SortOrder::Descend, down)] {
            let request =
                RangeRequest { sort_target: sort_target.into(), sort_order: sort_order.into(), ..everything() };
            assert_eq!(found(&kv, request), expected, "{sort_target:?} {sort_order:?}");
        }
    }
}

#[test]
fn r13_the_whole_range_is_sorted_before_it_is_cut() {
    let kv = filled();
    for (sort_order, expected) in [(SortOrder::Ascend, "b"), (SortOrder::Descend, "c"), (SortOrder::None, "b")] {
        let request = RangeRequest {
            sort_target: SortTarget::Create.into(),
            sort_order: sort_order.into(),
            limit: 1,
            ..everything()
        };
        let response = kv.range(request).expect("nothing forbids it");
        assert_eq!((keys(&response.kvs), response.more, response.count), (vec![expected], true, 4));
    }
}

#[test]
fn r13_without_an_order_only_what_the_limit_takes_is_sorted() {
    let mut kv = Kv::new();
    for (key, value) in [("a", "4"), ("b", "3"), ("c", "1"), ("d", "0")] {
        kv.put(key, value);
    }
    // The first three keys, though d has the least value; of those the two with the least.
    let request = RangeRequest { sort_target: SortTarget::Value.into(), limit: 2, ..everything() };
    let response = kv.range(request.clone()).expect("nothing forbids it");
    assert_eq!((keys(&response.kvs), response.more, response.count), (vec!["c", "b"], true, 4));
    let ordered = RangeRequest { sort_order: SortOrder::Ascend.into(), ..request };
    assert_eq!(keys(&kv.range(ordered).expect("nothing forbids it").kvs), ["d", "c"]);
}

#[test]
fn r14_unknown_sort_options_are_refused() {
    let kv = Kv::new();
    for sort_order in [-1, 3, i32::MAX] {
        assert_eq!(kv.range(RangeRequest { sort_order, ..range("k", "") }), Err(KvError::InvalidSortOption));
    }
    for sort_target in [-1, 5, i32::MIN] {
        let range = RangeRequest { sort_target, ..range("k", "") };
        assert_eq!(range.check(&Limits::default()), Err(KvError::InvalidSortOption));
        assert_eq!(kv.range(range), Err(KvError::InvalidSortOption));
    }
    assert_eq!(KvError::InvalidSortOption.to_string(), "etcdserver: invalid sort option");
}

#[test]
fn r15_zero_or_less_is_the_latest_and_the_future_is_refused() {
    let kv = filled();
    for revision in [0, -1, i64::MIN, 5] {
        assert_eq!(kv.get_at("a", revision).expect("it is readable").expect("it is there").mod_revision, 3);
    }
    assert_eq!(kv.get_at("a", 6), Err(KvError::FutureRevision));
    assert_eq!(kv.get_at("a", i64::MAX), Err(KvError::FutureRevision));
    assert_eq!(KvError::FutureRevision.to_string(), "etcdserver: mvcc: required revision is a future revision");
    assert_eq!(KvError::FutureRevision.code(), Code::OutOfRange);
}

#[test]
fn r16_the_compacted_revision_is_the_oldest_that_is_readable() {
    let mut kv = filled();
    kv.compact(4).expect("nothing forbids it");
    assert_eq!(kv.get_at("a", 3), Err(KvError::Compacted));
    assert_eq!(kv.get_at("a", 4).expect("it is readable").expect("it is there").mod_revision, 3);
    assert_eq!(KvError::Compacted.to_string(), "etcdserver: mvcc: required revision has been compacted");
    assert_eq!(KvError::Compacted.code(), Code::OutOfRange);
}

#[test]
fn r17_a_deleted_key_is_still_there_in_the_past() {
    let mut kv = filled();
    kv.delete("a", "");
    assert_eq!(kv.get("a"), None);
    assert_eq!(kv.get_at("a", 5).expect("it is readable").expect("it is there").value, &b"3"[..]);
    assert_eq!(kv.get_at("a", 6), Ok(None));
}

/// Memory that counts how many records were read from it.
#[derive(Default)]
struct Counting {
    memory: MemoryEngine,
    reads: Cell<usize>,
}

struct CountingRecords<'a>(&'a Counting);

impl Records for CountingRecords<'_> {
    fn get(&self, at: Revision) -> Result<Option<Record>, EngineError> {
        self.0.reads.set(self.0.reads.get() + 1);
        self.0.memory.reader()?.get(at)
    }

    fn scan(
        &self,
        from: Revision,
        until: Revision,
        visit: &mut dyn FnMut(Revision, Record) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let mut counting = |at, record| {
            self.0.reads.set(self.0.reads.get() + 1);
            visit(at, record)
        };
        self.0.memory.reader()?.scan(from, until, &mut counting)
    }

    fn leases(&self) -> Result<Vec<Lease>, EngineError> {
        self.0.memory.reader()?.leases()
    }
}

impl Engine for Counting {
    type Reader<'a> = CountingRecords<'a>;
    type View = MemoryRecords;

    fn meta(&self) -> Result<Bytes, EngineError> {
        self.memory.meta()
    }

    fn reader(&self) -> Result<CountingRecords<'_>, EngineError> {
        Ok(CountingRecords(self))
    }

    fn view(&self) -> Result<MemoryRecords, EngineError> {
        self.memory.view()
    }

    fn write(&mut self, batch: &Batch<'_>) -> Result<(), EngineError> {
        self.memory.write(batch)
    }

    fn checkpoint(&mut self, label: Option<&[u8]>) -> Result<(), EngineError> {
        self.memory.checkpoint(label)
    }

    fn label(&self) -> Result<Bytes, EngineError> {
        self.memory.label()
    }

    fn size(&self) -> EngineSize {
        self.memory.size()
    }
}

/// Keys k000 to k299, in the engine, each written twice: the first value falls as the key rises.
fn counted() -> Store<Counting> {
    let mut store = Store::open(Counting::default()).expect("memory does not fail");
    for number in 0..600 {
        let command = Command::Put(put(&format!("k{:03}", number % 300), &format!("{:03}", 999 - number)));
        store.apply_command(Index(number + 1), &command).expect("nothing forbids it");
    }
    store.flush().expect("memory does not fail");
    store
}

/// What a request finds, and how many records are read for it.
fn reads<Q: Query>(store: &Store<Counting>, query: &Q) -> (Q::Answer, usize) {
    store.engine().reads.set(0);
    let found = store.ask(query).expect("nothing forbids it");
    (found, store.engine().reads.get())
}

#[test]
fn a_limit_reads_no_more_than_it_returns_whatever_the_order() {
    let store = counted();
    let limited = |limit| RangeRequest { limit, ..range("k", "l") };
    let by = |target: SortTarget, order: SortOrder| RangeRequest {
        sort_target: target.into(),
        sort_order: order.into(),
        ..limited(2)
    };
    use SortOrder::{Ascend, Descend};
    let cases = [
        (limited(2), ["k000", "k001"]),
        (by(SortTarget::Key, Ascend), ["k000", "k001"]),
        (by(SortTarget::Key, Descend), ["k299", "k298"]),
        (RangeRequest { revision: 301, ..by(SortTarget::Key, Descend) }, ["k299", "k298"]),
        (RangeRequest { revision: 301, ..by(SortTarget::Key, Ascend) }, ["k000", "k001"]),
        (RangeRequest { keys_only: true, ..by(SortTarget::Key, Ascend) }, ["k000", "k001"]),
        (RangeRequest { keys_only: true, ..by(SortTarget::Key, Descend) }, ["k299", "k298"]),
        (RangeRequest { min_create_revision: 5, ..by(SortTarget::Key, Ascend) }, ["k003", "k004"]),
        (RangeRequest { max_mod_revision: 311, ..by(SortTarget::Key, Descend) }, ["k009", "k008"]),
        (RangeRequest { min_mod_revision: 310, ..limited(2) }, ["k008", "k009"]),
        // What else the index knows is sorted by it.
        (by(SortTarget::Create, Descend), ["k299", "k298"]),
        (by(SortTarget::Mod, Descend), ["k299", "k298"]),
        (by(SortTarget::Mod, SortOrder::None), ["k000", "k001"]),
        (by(SortTarget::Version, Descend), ["k000", "k001"]),
    ];
    for (request, expected) in cases {
        let filtered = request.clone();
        let (found, reads) = reads(&store, &request);
        assert_eq!((keys(&found.kvs), found.count, found.more), (expected.to_vec(), 300, true), "{filtered:?}");
        assert_eq!(reads, 2, "{filtered:?}");
        assert!(found.kvs.iter().all(|kv| kv.value.is_empty() == filtered.keys_only), "{filtered:?}");
    }
    // Only the values have to be read before they can be sorted by.
    let (found, all) = reads(&store, &by(SortTarget::Value, Ascend));
    assert_eq!((keys(&found.kvs), found.count, found.more, all), (vec!["k299", "k298"], 300, true, 300));
    let (found, none) = reads(&store, &RangeRequest { count_only: true, ..limited(0) });
    assert_eq!((found.count, found.more, none), (300, false, 0), "nothing is read to count");
}

#[test]
fn a_limit_in_a_transaction_reads_no_more_than_it_returns() {
    let mut store = counted();
    let backwards = RangeRequest { limit: 3, sort_order: SortOrder::Descend.into(), ..range("k", "l") };
    let txn = TxnRequest { success: vec![Operation::Range(backwards).into()], ..TxnRequest::default() };
    let (found, reads) = reads(&store, &txn);
    let [ResponseOp { response: Some(OperationResponse::Range(found)) }] = &found.responses[..] else {
        panic!("{found:?} for a range")
    };
    assert_eq!((keys(&found.kvs), found.count, reads), (vec!["k299", "k298", "k297"], 300, 3));
    // Behind a put of its own, which is in no engine yet.
    let write = TxnRequest { success: [vec![op_put("kz", "new")], txn.success].concat(), ..TxnRequest::default() };
    store.engine().reads.set(0);
    let done = store.apply_command(Index(601), &Command::Txn(write)).expect("nothing forbids it");
    let Response::Txn(done) = done else { panic!("{done:?} for a transaction") };
    let ResponseOp { response: Some(OperationResponse::Range(found)) } = &done.responses[1] else {
        panic!("{done:?} for a range")
    };
    assert_eq!((keys(&found.kvs), found.count), (vec!["kz", "k299", "k298"], 301));
    assert_eq!(store.engine().reads.get(), 2);
}

#[test]
fn a_limit_takes_the_same_keys_as_sorting_all_and_cutting() {
    let mut store = Store::open(MemoryEngine::default()).expect("memory does not fail");
    for number in 0..200_u64 {
        // Values, versions and revisions in three different orders, with many that are equal.
        let put = put(&format!("k{}", number * number % 31), &format!("{}", number % 7));
        store.apply_command(Index(number + 1), &Command::Put(put)).expect("nothing forbids it");
    }
    let targets = [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value];
    for sort_target in targets {
        for sort_order in [SortOrder::Ascend, SortOrder::Descend] {
            let sorted =
                RangeRequest { sort_target: sort_target.into(), sort_order: sort_order.into(), ..everything() };
            let request = RangeRequest { min_mod_revision: 50, ..sorted };
            let all = store.range(&request).expect("nothing forbids it");
            assert!(all.kvs.len() > 5 && !all.more);
            for limit in 1..=all.kvs.len() + 1 {
                let cut = RangeRequest { limit: limit as i64, ..request.clone() };
                let found = store.range(&cut).expect("nothing forbids it");
                let expected = &all.kvs[..limit.min(all.kvs.len())];
                assert_eq!(found.kvs, expected, "{sort_target:?} {sort_order:?} {limit}");
                assert_eq!((found.more, found.count), (limit < all.kvs.len(), all.count));
            }
        }
    }
}
