//! Commands, queries and replies as bytes: what is written is read, and nothing hostile panics.

use bowline_kv::store::*;
use bowline_node::StateMachine;
use bowline_node::raft::Index;
use bytes::Bytes;
use proptest::prelude::*;

use crate::bench::Kv;

fn some_bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..12).prop_map(Bytes::from)
}

prop_compose! {
    fn some_range()(
        key in some_bytes(), range_end in some_bytes(), limit: i64, revision: i64, order in 0..3, target in 0..5,
        [serializable, keys_only, count_only]: [bool; 3], bounds: [i64; 4],
    ) -> RangeRequest {
        let [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision] = bounds;
        RangeRequest {
            key, range_end, limit, revision,
            sort_order: SortOrder::from_wire(order).expect("it is one of three"),
            sort_target: SortTarget::from_wire(target).expect("it is one of five"),
            serializable, keys_only, count_only,
            min_mod_revision, max_mod_revision, min_create_revision, max_create_revision,
        }
    }
}

prop_compose! {
    fn some_put()(
        key in some_bytes(), value in some_bytes(), lease: i64,
        [prev_kv, ignore_value, ignore_lease]: [bool; 3],
    ) -> PutRequest {
        PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease }
    }
}

prop_compose! {
    fn some_delete()(key in some_bytes(), range_end in some_bytes(), prev_kv: bool) -> DeleteRangeRequest {
        DeleteRangeRequest { key, range_end, prev_kv }
    }
}

prop_compose! {
    fn some_compare()(
        key in some_bytes(), range_end in some_bytes(), result in 0..4, kind in 0..5, number: i64, value in some_bytes(),
    ) -> Compare {
        let target = match kind {
            0 => CompareTarget::Version(number),
            1 => CompareTarget::Create(number),
            2 => CompareTarget::Mod(number),
            3 => CompareTarget::Lease(number),
            _ => CompareTarget::Value(value),
        };
        Compare { key, range_end, result: CompareResult::from_wire(result).expect("it is one of four"), target }
    }
}

fn some_txn() -> impl Strategy<Value = TxnRequest> {
    let op = prop_oneof![
        some_range().prop_map(RequestOp::Range),
        some_put().prop_map(RequestOp::Put),
        some_delete().prop_map(RequestOp::DeleteRange),
        Just(RequestOp::Empty),
    ];
    let txn = |op: BoxedStrategy<RequestOp>| {
        let ops = prop::collection::vec(op, 0..3);
        (prop::collection::vec(some_compare(), 0..3), ops.clone(), ops)
            .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
    };
    let op = op.boxed().prop_recursive(3, 12, 3, move |op| txn(op).prop_map(|txn| RequestOp::Txn(Box::new(txn))));
    txn(op.boxed())
}

fn some_command() -> impl Strategy<Value = Command> {
    prop_oneof![
        some_put().prop_map(Command::Put),
        some_delete().prop_map(Command::DeleteRange),
        some_txn().prop_map(Command::Txn),
        any::<(i64, bool)>()
            .prop_map(|(revision, physical)| Command::Compact(CompactionRequest { revision, physical })),
        any::<(i64, i64)>().prop_map(|(id, ttl)| Command::LeaseGrant(LeaseGrantRequest { id, ttl })),
        any::<i64>().prop_map(|id| Command::LeaseRevoke(LeaseRevokeRequest { id })),
        prop::collection::vec((any::<i64>(), any::<u64>().prop_map(Index)), 0..4)
            .prop_map(|leases| Command::LeaseExpire(LeaseExpireRequest { leases })),
    ]
}

prop_compose! {
    fn some_kv()(key in some_bytes(), value in some_bytes(), numbers: [i64; 4]) -> KeyValue {
        let [create_revision, mod_revision, version, lease] = numbers;
        KeyValue { key, create_revision, mod_revision, version, value, lease }
    }
}

fn some_response() -> impl Strategy<Value = ResponseOp> {
    let kvs = || prop::collection::vec(some_kv(), 0..3);
    let response = prop_oneof![
        (any::<i64>(), kvs(), any::<bool>(), any::<i64>())
            .prop_map(|(revision, kvs, more, count)| ResponseOp::Range(RangeResponse { revision, kvs, more, count })),
        (any::<i64>(), prop::option::of(some_kv()))
            .prop_map(|(revision, prev_kv)| ResponseOp::Put(PutResponse { revision, prev_kv })),
        (any::<i64>(), any::<i64>(), kvs()).prop_map(|(revision, deleted, prev_kvs)| {
            ResponseOp::DeleteRange(DeleteRangeResponse { revision, deleted, prev_kvs })
        }),
    ];
    response.prop_recursive(3, 12, 3, |response| {
        (any::<i64>(), any::<bool>(), prop::collection::vec(response, 0..3)).prop_map(
            |(revision, succeeded, responses)| {
                ResponseOp::Txn(Box::new(TxnResponse { revision, succeeded, responses }))
            },
        )
    })
}

fn some_reply() -> impl Strategy<Value = Reply> {
    let errors = [
        KvError::EmptyKey,
        KvError::KeyNotFound,
        KvError::ValueProvided,
        KvError::LeaseProvided,
        KvError::TooManyOps,
        KvError::DuplicateKey,
        KvError::InvalidSortOption,
        KvError::RequestTooLarge,
        KvError::Compacted,
        KvError::FutureRevision,
        KvError::LeaseNotFound,
        KvError::Stopped,
        KvError::Unreadable,
        KvError::AlreadyApplied,
        KvError::LeaseExists,
        KvError::LeaseTtlTooLarge,
    ];
    prop_oneof![
        some_response().prop_map(|response| Ok(match response {
            // Only within a transaction.
            ResponseOp::Range(RangeResponse { revision, .. }) =>
                Response::Txn(TxnResponse { revision, succeeded: true, responses: vec![response] }),
            ResponseOp::Put(response) => Response::Put(response),
            ResponseOp::DeleteRange(response) => Response::DeleteRange(response),
            ResponseOp::Txn(response) => Response::Txn(*response),
        })),
        any::<i64>().prop_map(|revision| Ok(Response::Compact(CompactionResponse { revision }))),
        any::<(i64, i64, i64)>().prop_map(|(revision, id, ttl)| Ok(Response::LeaseGrant(LeaseGrantResponse {
            revision,
            id,
            ttl
        }))),
        any::<i64>().prop_map(|revision| Ok(Response::LeaseRevoke(LeaseRevokeResponse { revision }))),
        any::<(i64, u64)>()
            .prop_map(|(revision, expired)| { Ok(Response::LeaseExpire(LeaseExpireResponse { revision, expired })) }),
        prop::sample::select(errors.to_vec()).prop_map(Err),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(command in some_command(), reply in some_reply()) {
        prop_assert_eq!(command.encode().len(), command.encoded_len());
        prop_assert_eq!(Command::decode(&command.encode()), Ok(command));
        prop_assert_eq!(decode_reply(&encode_reply(&reply)), Ok(reply));
    }

    #[test]
    fn whatever_is_applied_or_asked_is_answered(
        commands in prop::collection::vec(some_command(), 1..6), at: usize, byte: u8, range in some_range(),
        txn in some_txn(), revision: i64, lease: i64,
    ) {
        let mut kv = Kv::new();
        for (index, command) in (1..).zip(&commands) {
            let mut bytes = command.encode().to_vec();
            // As it is, cut short, and damaged.
            let at = at % bytes.len();
            let cut = kv.store.apply(Index(3 * index), &bytes[..at]);
            prop_assert_eq!(decode_reply(&cut), Ok(Err(KvError::Unreadable)));
            prop_assert!(decode_reply(&kv.store.apply(Index(3 * index + 1), &bytes)).is_ok());
            bytes[at] = byte;
            prop_assert!(decode_reply(&kv.store.apply(Index(3 * index + 2), &bytes)).is_ok());
        }
        let (_, _) = (kv.ask(&range), kv.ask(&txn));
        let (_, _) = (kv.ask(&HashKvRequest { revision }), kv.ask(&LeaseListRequest { from: lease, limit: 1 }));
        let named = kv.ask(&LeaseTimeToLiveRequest { id: lease, keys: true });
        prop_assert!(named.is_ok());
        prop_assert!(kv.store.fault().is_none());
    }

    #[test]
    fn garbage_is_read_by_nobody(garbage: Vec<u8>) {
        let _ = Command::decode(&[&[1], &garbage[..]].concat());
        let _ = decode_reply(&[&[1, 0], &garbage[..]].concat());
        let _ = Store::<MemoryEngine>::restore(&garbage);
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let error = |bytes: &[u8]| Command::decode(bytes).expect_err("it is no command").to_string();
    assert_eq!(error(&[]), "version does not fit into the bytes that are left");
    assert_eq!(error(&[9, 1]), "version 9 is unknown");
    assert_eq!(error(&[1, 99]), "command 99 is unknown");
    assert_eq!(error(&[1, 1, 255, 255, 255, 255]), "key has 4294967295 bytes, more than 16777216");
    assert_eq!(error(&[1, 1, 255, 255, 0, 0]), "key does not fit into the bytes that are left");
    assert_eq!(error(&[1, 3, 255, 255, 255, 255]), "compare does not fit into the bytes that are left");
    let compaction = Command::Compact(CompactionRequest { revision: 5, physical: true }).encode();
    assert_eq!(error(&[&compaction[..], &[0]].concat()), "1 bytes follow the end");
}
