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
        key in some_bytes(), range_end in some_bytes(), limit: i64, revision: i64, sort_order: i32, sort_target in 0..5,
        [serializable, keys_only, count_only]: [bool; 3], bounds: [i64; 4],
    ) -> RangeRequest {
        let [min_mod_revision, max_mod_revision, min_create_revision, max_create_revision] = bounds;
        RangeRequest {
            key, range_end, limit, revision,
            sort_order,
            sort_target,
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
        key in some_bytes(), range_end in some_bytes(), result: i32, kind in 0..6, number: i64, value in some_bytes(),
    ) -> Compare {
        let target = match kind {
            0 => Some(CompareTarget::Version(number)),
            1 => Some(CompareTarget::Create(number)),
            2 => Some(CompareTarget::Mod(number)),
            3 => Some(CompareTarget::Lease(number)),
            4 => Some(CompareTarget::Value(value)),
            _ => None,
        };
        Compare { key, range_end, result, target }
    }
}

fn some_txn() -> impl Strategy<Value = TxnRequest> {
    let op = prop_oneof![
        some_range().prop_map(|request| Operation::Range(request).into()),
        some_put().prop_map(|request| Operation::Put(request).into()),
        some_delete().prop_map(|request| Operation::DeleteRange(request).into()),
        Just(RequestOp::default()),
    ];
    let txn = |op: BoxedStrategy<RequestOp>| {
        let ops = prop::collection::vec(op, 0..3);
        (prop::collection::vec(some_compare(), 0..3), ops.clone(), ops)
            .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
    };
    let op =
        op.boxed().prop_recursive(3, 12, 3, move |op| txn(op).prop_map(|txn| Operation::Txn(Box::new(txn)).into()));
    txn(op.boxed())
}

fn some_member() -> impl Strategy<Value = Member> {
    let urls = || prop::collection::vec("[a-z:/]{0,12}", 0..3);
    (0..4_u64, "[a-z]{0,5}", urls(), urls(), any::<bool>(), 0..3_u64).prop_map(
        |(id, name, peer_urls, client_urls, is_learner, incarnation)| Member {
            id,
            name,
            peer_urls,
            client_urls,
            is_learner,
            incarnation,
        },
    )
}

fn some_member_change() -> impl Strategy<Value = MemberChange> {
    prop_oneof![
        some_member().prop_map(MemberChange::Add),
        some_member().prop_map(MemberChange::Adopt),
        some_member().prop_map(|Member { id, peer_urls, .. }| MemberChange::Update(MemberUrls { id, peer_urls })),
        (0..4_u64).prop_map(MemberChange::Remove),
        some_member().prop_map(MemberChange::Publish),
        (0..4_u64).prop_map(MemberChange::Promote),
    ]
}

fn some_step() -> impl Strategy<Value = CompareStep> {
    let checksum = any::<(u64, i64, u32)>().prop_map(|(member, at, checksum)| MemberChecksum { member, at, checksum });
    prop_oneof![
        Just(CompareStep::Mark(())),
        checksum.clone().prop_map(CompareStep::Effects),
        checksum.prop_map(CompareStep::Compaction),
    ]
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
        any::<u32>().prop_map(|version| Command::ClusterVersion(ClusterVersionRequest { version })),
        (any::<u64>(), -1..4_i32, any::<(bool, bool)>()).prop_map(|(member, kind, (automatic, active))| {
            Command::Alarm(AlarmRequest { member, kind, automatic, active })
        }),
        prop::option::of(some_member_change()).prop_map(|change| Command::Member(MemberRequest { change })),
        prop::option::of(some_step()).prop_map(|step| Command::Compare(CompareRequest { step })),
        prop::collection::vec(any::<(i64, u64)>().prop_map(|(id, granted_at)| ExpiredLease { id, granted_at }), 0..4)
            .prop_map(|leases| Command::LeaseExpire(LeaseExpireRequest { leases })),
    ]
}

prop_compose! {
    fn some_kv()(key in some_bytes(), value in some_bytes(), numbers: [i64; 4]) -> KeyValue {
        let [create_revision, mod_revision, version, lease] = numbers;
        KeyValue { key, create_revision, mod_revision, version, value, lease }
    }
}

fn some_response() -> impl Strategy<Value = OperationResponse> {
    let kvs = || prop::collection::vec(some_kv(), 0..3);
    let response = prop_oneof![
        (any::<i64>(), kvs(), any::<bool>(), any::<i64>()).prop_map(|(revision, kvs, more, count)| {
            OperationResponse::Range(RangeResponse { revision, kvs, more, count })
        }),
        (any::<i64>(), prop::option::of(some_kv()))
            .prop_map(|(revision, prev_kv)| OperationResponse::Put(PutResponse { revision, prev_kv })),
        (any::<i64>(), any::<i64>(), kvs()).prop_map(|(revision, deleted, prev_kvs)| {
            OperationResponse::DeleteRange(DeleteRangeResponse { revision, deleted, prev_kvs })
        }),
    ];
    response.prop_recursive(3, 12, 3, |response| {
        (any::<i64>(), any::<bool>(), prop::collection::vec(response.prop_map(ResponseOp::from), 0..3)).prop_map(
            |(revision, succeeded, responses)| {
                OperationResponse::Txn(Box::new(TxnResponse { revision, succeeded, responses }))
            },
        )
    })
}

fn some_reply() -> impl Strategy<Value = Reply> {
    let errors: Vec<KvError> = (1..).map_while(|number| KvError::try_from(number).ok()).collect();
    prop_oneof![
        some_response().prop_map(|response| Ok(match response {
            // Only within a transaction.
            OperationResponse::Range(RangeResponse { revision, .. }) =>
                Response::Txn(TxnResponse { revision, succeeded: true, responses: vec![response.into()] }),
            OperationResponse::Put(response) => Response::Put(response),
            OperationResponse::DeleteRange(response) => Response::DeleteRange(response),
            OperationResponse::Txn(response) => Response::Txn(*response),
        })),
        any::<i64>().prop_map(|revision| Ok(Response::Compact(CompactionResponse { revision }))),
        any::<(i64, i64, i64)>().prop_map(|(revision, id, ttl)| Ok(Response::LeaseGrant(LeaseGrantResponse {
            revision,
            id,
            ttl
        }))),
        any::<i64>().prop_map(|revision| Ok(Response::LeaseRevoke(LeaseRevokeResponse { revision }))),
        any::<(i64, u32)>()
            .prop_map(|(revision, version)| Ok(Response::ClusterVersion(ClusterVersionResponse { revision, version }))),
        (any::<i64>(), prop::collection::vec((any::<u64>(), -1..4_i32, any::<bool>()), 0..3)).prop_map(
            |(revision, alarms)| {
                let alarm = |(member, kind, automatic)| Alarm { member, kind, automatic };
                Ok(Response::Alarm(AlarmResponse { revision, alarms: alarms.into_iter().map(alarm).collect() }))
            }
        ),
        (any::<i64>(), prop::collection::vec(some_member(), 0..3))
            .prop_map(|(revision, members)| Ok(Response::Member(MemberResponse { revision, members }))),
        any::<(i64, u64)>()
            .prop_map(|(revision, expired)| { Ok(Response::LeaseExpire(LeaseExpireResponse { revision, expired })) }),
        prop::sample::select(errors).prop_map(Err),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(command in some_command(), reply in some_reply()) {
        prop_assert_eq!(command.to_bytes().len(), command.encoded_len());
        prop_assert_eq!(Command::from_bytes(&command.to_bytes()), Ok(command));
        prop_assert_eq!(decode_reply(encode_reply(&reply)), Ok(reply));
    }

    #[test]
    fn whatever_is_applied_or_asked_is_answered(
        commands in prop::collection::vec(some_command(), 1..6), at: usize, byte: u8, range in some_range(),
        txn in some_txn(), revision: i64, lease: i64,
    ) {
        let mut kv = Kv::new();
        for (index, command) in (1..).zip(&commands) {
            let mut bytes = command.to_bytes().to_vec();
            // Cut short, as it is, and damaged.
            let at = at % bytes.len();
            let cut = kv.store.apply(Index(3 * index), &bytes[..at]);
            prop_assert_eq!(decode_reply(cut), Ok(Err(KvError::Unreadable)));
            prop_assert!(decode_reply(kv.store.apply(Index(3 * index + 1), &bytes)).is_ok());
            bytes[at] = byte;
            prop_assert!(decode_reply(kv.store.apply(Index(3 * index + 2), &bytes)).is_ok());
        }
        let (_, _) = (kv.ask(&range), kv.ask(&txn));
        let (_, _) = (kv.ask(&HashKvRequest { revision }), kv.ask(&LeaseListRequest { from: lease, limit: 1 }));
        let named = kv.ask(&LeaseTimeToLiveRequest { id: lease, keys: true });
        // One of the commands may have activated the alarm CORRUPT.
        prop_assert!(matches!(named, Ok(_) | Err(KvError::Corrupt)));
        prop_assert!(kv.store.fault().is_none());
    }

    #[test]
    fn garbage_is_read_by_nobody(garbage: Vec<u8>) {
        let _ = Command::from_bytes(&garbage);
        let _ = decode_reply(&garbage[..]);
        let _ = Store::<MemoryEngine>::restore(&garbage);
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let error = |bytes: &[u8]| Command::from_bytes(bytes).expect_err("it is no command").to_string();
    assert_eq!(error(&[]), "the command is of an unknown kind");
    assert_eq!(error(&[14 << 3 | 2, 0]), "the command is of an unknown kind");
    assert_eq!(error(&[1 << 3 | 2, 9]), "failed to decode Protobuf message: LogCommand.command: buffer underflow");
    let long = vec![0; MAX_FIELD_BYTES + 1];
    assert_eq!(error(&long), "command has 16777217 bytes, more than 16777216");
    let reply = |bytes: &'static [u8]| decode_reply(Bytes::from_static(bytes)).expect_err("it is no reply").to_string();
    assert_eq!(reply(&[]), "the reply is of an unknown kind");
    assert_eq!(reply(&[15 << 3, 99]), "error 99 is unknown");
}

/// What stands in logs, and what members of other versions send. Numbers of fields and kinds are kept for ever: a line
/// here may be added, but never changed.
#[test]
fn commands_keep_their_bytes() {
    let b = |text: &'static str| Bytes::from_static(text.as_bytes());
    let put =
        PutRequest { key: b("k"), value: b("v"), lease: 3, prev_kv: true, ignore_value: true, ignore_lease: true };
    let delete = DeleteRangeRequest { key: b("k"), range_end: b("l"), prev_kv: true };
    let range = RangeRequest {
        key: b("k"),
        range_end: b("l"),
        limit: 3,
        revision: 4,
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Value.into(),
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 10,
        max_mod_revision: 11,
        min_create_revision: 12,
        max_create_revision: 13,
    };
    let compare = |target| Compare { key: b("k"), range_end: b("l"), result: CompareResult::Less.into(), target };
    let targets = [
        CompareTarget::Version(1),
        CompareTarget::Create(2),
        CompareTarget::Mod(3),
        CompareTarget::Value(b("v")),
        CompareTarget::Lease(5),
    ];
    let txn = TxnRequest {
        compare: targets.map(|target| compare(Some(target))).to_vec(),
        success: vec![Operation::Range(range).into(), Operation::Put(put.clone()).into()],
        failure: vec![
            Operation::DeleteRange(delete.clone()).into(),
            Operation::Txn(Box::new(TxnRequest { success: vec![RequestOp::default()], ..TxnRequest::default() }))
                .into(),
        ],
    };
    let member = Member {
        id: 1,
        name: "n".to_owned(),
        peer_urls: vec!["p".to_owned()],
        client_urls: vec!["c".to_owned()],
        is_learner: true,
        incarnation: 2,
    };
    let change = |change| Command::Member(MemberRequest { change: Some(change) });
    let compare_step = |step| Command::Compare(CompareRequest { step: Some(step) });
    let commands = [
        Command::Put(put),
        Command::DeleteRange(delete),
        Command::Txn(txn),
        Command::Compact(CompactionRequest { revision: 1, physical: true }),
        Command::LeaseGrant(LeaseGrantRequest { id: 1, ttl: 2 }),
        Command::LeaseRevoke(LeaseRevokeRequest { id: 1 }),
        Command::LeaseExpire(LeaseExpireRequest { leases: vec![ExpiredLease { id: 1, granted_at: 2 }] }),
        Command::ClusterVersion(ClusterVersionRequest { version: 1 }),
        Command::Alarm(AlarmRequest { member: 1, kind: AlarmKind::NoSpace.into(), automatic: true, active: true }),
        change(MemberChange::Add(member.clone())),
        change(MemberChange::Adopt(member.clone())),
        change(MemberChange::Update(MemberUrls { id: 1, peer_urls: vec!["p".to_owned()] })),
        change(MemberChange::Remove(1)),
        change(MemberChange::Publish(member)),
        change(MemberChange::Promote(1)),
        compare_step(CompareStep::Mark(())),
        compare_step(CompareStep::Effects(MemberChecksum { member: 1, at: 2, checksum: 3 })),
        compare_step(CompareStep::Compaction(MemberChecksum { member: 1, at: 2, checksum: 3 })),
    ];
    let lines: String = commands.iter().map(|command| hex(&command.to_bytes())).collect();
    assert_eq!(lines, include_str!("commands.hex"));
}

/// The same of replies.
#[test]
fn replies_keep_their_bytes() {
    let b = |text: &'static str| Bytes::from_static(text.as_bytes());
    let kv = KeyValue { key: b("k"), create_revision: 2, mod_revision: 3, version: 4, value: b("v"), lease: 6 };
    let found = RangeResponse { revision: 1, kvs: vec![kv.clone()], more: true, count: 4 };
    let deleted = DeleteRangeResponse { revision: 1, deleted: 2, prev_kvs: vec![kv.clone()] };
    let within = OperationResponse::Txn(Box::new(TxnResponse { succeeded: true, ..TxnResponse::default() }));
    let responses = [OperationResponse::Range(found), OperationResponse::DeleteRange(deleted.clone()), within];
    let put = PutResponse { revision: 1, prev_kv: Some(kv) };
    let responses = [&responses[..], &[OperationResponse::Put(put.clone())]].concat();
    let responses = responses.into_iter().map(ResponseOp::from).collect();
    let replies = [
        Ok(Response::Put(put)),
        Ok(Response::DeleteRange(deleted)),
        Ok(Response::Txn(TxnResponse { revision: 1, succeeded: true, responses })),
        Ok(Response::Compact(CompactionResponse { revision: 1 })),
        Ok(Response::LeaseGrant(LeaseGrantResponse { revision: 1, id: 2, ttl: 3 })),
        Ok(Response::LeaseRevoke(LeaseRevokeResponse { revision: 1 })),
        Ok(Response::LeaseExpire(LeaseExpireResponse { revision: 1, expired: 2 })),
        Ok(Response::ClusterVersion(ClusterVersionResponse { revision: 1, version: 2 })),
        Ok(Response::Alarm(AlarmResponse {
            revision: 1,
            alarms: vec![Alarm { member: 2, kind: AlarmKind::Corrupt.into(), automatic: true }],
        })),
        Ok(Response::Member(MemberResponse { revision: 1, members: vec![Member { id: 2, ..Member::default() }] })),
        Ok(Response::Compare(CompareResponse { revision: 1 })),
        Ok(Response::Auth(AuthResponse { revision: 1, auth_revision: 2, index: 3 })),
    ];
    let errors = (1..).map_while(|number| KvError::try_from(number).ok()).map(Err);
    let lines: String = replies.into_iter().chain(errors).map(|reply| hex(&encode_reply(&reply))).collect();
    assert_eq!(lines, include_str!("replies.hex"));
}

/// Bytes as a line of hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n"
}

/// A field that a later version adds, behind the rest of a command.
#[test]
fn a_field_that_is_not_known_changes_nothing_that_is() {
    let put = Command::Put(PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() });
    let newer = [&put.to_bytes()[..], &[0xf8, 0x07, 1]].concat();
    assert_eq!(Command::from_bytes(&newer), Ok(put));
}

/// What logs hold from before commands were protobuf messages: a version, a kind, counted bytes and numbers.
#[test]
fn commands_of_the_first_format_are_read() {
    let bytes = |text: &str| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let number = |number: i64| number.to_le_bytes().to_vec();
    let read = |kind: u8, fields: &[Vec<u8>]| Command::from_bytes(&[&[1, kind], &fields.concat()[..]].concat());
    let put_fields = [bytes("k"), bytes("v"), number(3), vec![1, 0, 0]].concat();
    let put = PutRequest { lease: 3, prev_kv: true, ..crate::bench::put("k", "v") };
    assert_eq!(read(1, std::slice::from_ref(&put_fields)), Ok(Command::Put(put.clone())));
    let delete_fields = [bytes("a"), bytes("z"), vec![1]].concat();
    let delete = DeleteRangeRequest { prev_kv: true, ..crate::bench::delete("a", "z") };
    assert_eq!(read(2, std::slice::from_ref(&delete_fields)), Ok(Command::DeleteRange(delete.clone())));
    let range_fields =
        [bytes("a"), bytes("z"), number(1), number(2), vec![2, 4, 1, 1, 0], [3, 4, 5, 6].map(number).concat()];
    let range = RangeRequest {
        limit: 1,
        revision: 2,
        sort_order: SortOrder::Descend.into(),
        sort_target: SortTarget::Value.into(),
        serializable: true,
        keys_only: true,
        min_mod_revision: 3,
        max_mod_revision: 4,
        min_create_revision: 5,
        max_create_revision: 6,
        ..crate::bench::range("a", "z")
    };
    let compare_fields = [bytes("k"), bytes(""), vec![1, 3], bytes("v"), bytes("k"), bytes(""), vec![0, 0], number(7)];
    let compare = vec![
        crate::bench::compare("k", CompareResult::Greater, CompareTarget::Value("v".into())),
        crate::bench::compare("k", CompareResult::Equal, CompareTarget::Version(7)),
    ];
    let count = |count: u32| count.to_le_bytes().to_vec();
    let inner = [count(0), count(0), count(0)].concat();
    let success = [count(2), vec![1], range_fields.concat(), vec![2], put_fields].concat();
    let failure = [count(3), vec![3], delete_fields, vec![4], inner, vec![0]].concat();
    let txn = TxnRequest {
        compare,
        success: vec![Operation::Range(range).into(), Operation::Put(put).into()],
        failure: vec![Operation::DeleteRange(delete).into(), crate::bench::op_txn(vec![]), RequestOp::default()],
    };
    assert_eq!(read(3, &[count(2), compare_fields.concat(), success, failure]), Ok(Command::Txn(txn)));
    let compaction = Command::Compact(CompactionRequest { revision: 5, physical: true });
    assert_eq!(read(4, &[number(5), vec![1]]), Ok(compaction));
    let grant = Command::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 10 });
    assert_eq!(read(5, &[number(7), number(10)]), Ok(grant.clone()));
    assert_eq!(read(6, &[number(7)]), Ok(Command::LeaseRevoke(LeaseRevokeRequest { id: 7 })));
    let expire = LeaseExpireRequest { leases: vec![ExpiredLease { id: 7, granted_at: 2 }] };
    assert_eq!(read(7, &[count(1), number(7), number(2)]), Ok(Command::LeaseExpire(expire)));
    assert_eq!(Command::kind_of(&[1, 5]), Command::kind_of(&grant.to_bytes()));
    let error = |kind, fields| read(kind, &[fields]).expect_err("it is none").to_string();
    assert_eq!(error(99, vec![]), "command 99 is unknown");
    assert_eq!(error(1, vec![255, 255, 0, 0]), "key does not fit into the bytes that are left");
    assert_eq!(error(6, number(7).into_iter().chain([0]).collect()), "1 bytes follow the end");
    let deep = [[count(0), count(1), vec![4]].concat().repeat(1000), vec![0; 12]].concat();
    assert!(error(3, deep).contains("nested more than"));
}
