//! The lines about users and roles of the checklist, as far as the state machine decides them; then random requests of
//! random users against a naive model of who may do what.

use std::collections::BTreeSet;

use bowline_kv::store::*;
use bowline_node::StateMachine;
use bowline_node::raft::{Index, Random};
use bytes::Bytes;

use crate::bench::*;

const MEMBER: Principal = Principal::Member;

/// A user who has logged in now.
fn user(name: &str, kv: &Shop) -> Principal {
    Principal::User(LoggedIn { user: name.into(), at: kv.store.auth().revision() })
}

/// A store whose commands come from somebody.
struct Shop {
    store: Store<MemoryEngine>,
    index: u64,
}

impl Shop {
    fn new() -> Shop {
        Shop { store: Store::open(MemoryEngine::default()).expect("memory does not fail"), index: 0 }
    }

    fn apply(&mut self, by: &Principal, command: impl Into<Command>) -> Reply {
        let command: Command = command.into();
        command.check(&Limits::default())?;
        self.index += 1;
        decode_reply(self.store.apply(Index(self.index), &command.to_bytes_by(by))).expect("a reply can be read")
    }

    fn change(&mut self, by: &Principal, change: AuthChange) -> Result<u64, KvError> {
        match self.apply(by, AuthRequest { change: Some(change) })? {
            Response::Auth(response) => Ok(response.auth_revision),
            other => panic!("{other:?}"),
        }
    }

    fn set(&mut self, change: AuthChange) -> Result<u64, KvError> {
        self.change(&MEMBER, change)
    }

    fn ask<Q: Query>(&self, by: &Principal, query: &Q) -> Result<Q::Answer, KvError> {
        self.store.ask_by(by, query).0
    }

    /// Enabled, with root and these users, each of whom has a role of the same name with these permissions.
    fn with(users: &[(&str, &[Permission])]) -> Shop {
        let mut kv = Shop::new();
        for (name, permissions) in users {
            kv.set(add_user(name)).expect("it is new");
            kv.set(AuthChange::AddRole((*name).to_owned())).expect("it is new");
            kv.set(grant_role(name, name)).expect("both exist");
            for permission in *permissions {
                kv.set(grant(name, permission.clone())).expect("it is a good one");
            }
        }
        kv.set(add_user(ROOT)).expect("it is new");
        kv.set(grant_role(ROOT, ROOT)).expect("the user exists");
        kv.set(AuthChange::Enable(())).expect("there is root");
        kv
    }
}

fn add_user(name: &str) -> AuthChange {
    AuthChange::AddUser(password(name, "a hash"))
}

fn password(user: &str, hash: &str) -> NewPassword {
    NewPassword { user: user.to_owned(), password_hash: hash.to_owned(), since: 0 }
}

fn grant_role(user: &str, role: &str) -> AuthChange {
    AuthChange::GrantRole(RoleOfUser { user: user.to_owned(), role: role.to_owned() })
}

fn revoke_role(user: &str, role: &str) -> AuthChange {
    AuthChange::RevokeRole(RoleOfUser { user: user.to_owned(), role: role.to_owned() })
}

fn grant(role: &str, permission: Permission) -> AuthChange {
    AuthChange::GrantPermission(RolePermission { role: role.to_owned(), permission: Some(permission) })
}

fn revoke(role: &str, permission: Permission) -> AuthChange {
    AuthChange::RevokePermission(RolePermission { role: role.to_owned(), permission: Some(permission) })
}

fn may(kind: PermissionKind, key: &str, range_end: &str) -> Permission {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Permission { kind: kind.into(), key: bytes(key), range_end: bytes(range_end) }
}

fn login(user: &str, since: u64) -> AuthChange {
    AuthChange::Login(Login { user: user.to_owned(), since, digest: vec![7; 32].into() })
}

#[test]
fn a01_authentication_needs_root() {
    let mut kv = Shop::new();
    let anybody = Principal::Anonymous;
    assert_eq!(kv.change(&anybody, AuthChange::Enable(())), Err(KvError::RootUserMissing));
    kv.change(&anybody, add_user(ROOT)).expect("authentication is not enabled yet");
    assert_eq!(kv.change(&anybody, AuthChange::Enable(())), Err(KvError::RootRoleMissing));
    kv.change(&anybody, grant_role(ROOT, ROOT)).expect("the role root need not exist");
    kv.change(&anybody, AuthChange::Enable(())).expect("there is root");
    assert_eq!(kv.change(&anybody, AuthChange::Disable(())), Err(KvError::UserEmpty));
    kv.change(&user(ROOT, &kv), AuthChange::Enable(())).expect("enabling twice changes nothing");
    kv.change(&user(ROOT, &kv), AuthChange::Disable(())).expect("root may");
}

#[test]
fn a02_who_has_not_logged_in_gets_nothing() {
    let mut kv = Shop::with(&[("ann", &[may(PermissionKind::ReadWrite, "k", "")])]);
    assert_eq!(kv.apply(&Principal::Anonymous, put("k", "v")), Err(KvError::UserEmpty));
    assert_eq!(kv.ask(&Principal::Anonymous, &range("k", "")), Err(KvError::UserEmpty));
    assert_eq!(kv.ask(&user("nobody", &kv), &range("k", "")), Err(KvError::PermissionDenied));
    assert_eq!(kv.ask(&user("ann", &kv), &range("l", "")), Err(KvError::PermissionDenied));
    kv.apply(&user("ann", &kv), put("k", "v")).expect("ann may");
    assert_eq!(kv.ask(&user("ann", &kv), &range("k", "")).expect("ann may").count, 1);
    assert!(kv.ask(&Principal::Anonymous, &AuthStatusRequest).is_ok(), "everybody may know that it is enabled");
}

#[test]
fn a05_whoever_gets_a_new_password_has_to_log_in_again() {
    let mut kv = Shop::with(&[("ann", &[may(PermissionKind::Read, "k", "")]), ("ben", &[])]);
    let since = |kv: &Shop, name: &str| kv.store.auth().user(name).expect("it exists").since;
    assert!(kv.store.issued().is_none());
    kv.set(login("ann", since(&kv, "ann"))).expect("the password was right");
    let issued = kv.store.issued().expect("a token was issued").clone();
    assert_eq!((issued.index, &issued.login.user[..]), (Index(kv.index), "ann"));
    let ann = Principal::User(LoggedIn { user: "ann".into(), at: issued.auth_revision });
    // It outlives changes of roles, and of other users.
    kv.set(grant("ann", may(PermissionKind::Read, "l", ""))).expect("allowed");
    assert!(kv.store.issued().is_none(), "only the last command counts");
    kv.set(AuthChange::ChangePassword(password("ben", "new"))).expect("allowed");
    assert!(kv.ask(&ann, &range("l", "")).is_ok());
    // A better hash of the same password changes nothing for those who have logged in.
    let renewed = NewPassword { since: since(&kv, "ann"), ..password("ann", "better") };
    kv.set(AuthChange::RenewHash(renewed)).expect("allowed");
    assert_eq!(kv.store.auth().user("ann").expect("it exists").password_hash, "better");
    assert!(kv.ask(&ann, &range("l", "")).is_ok());
    let before = since(&kv, "ann");
    kv.set(AuthChange::ChangePassword(password("ann", "new"))).expect("allowed");
    assert_eq!(kv.ask(&ann, &range("l", "")), Err(KvError::InvalidAuthToken));
    assert_eq!(kv.apply(&ann, put("l", "v")), Err(KvError::InvalidAuthToken));
    // A login whose password was checked before the change comes too late; a better hash, too.
    assert_eq!(kv.set(login("ann", before)), Err(KvError::AuthRevisionOld));
    let late = NewPassword { since: before, ..password("ann", "the old one's") };
    kv.set(AuthChange::RenewHash(late)).expect("it is ignored");
    assert_eq!(kv.store.auth().user("ann").expect("it exists").password_hash, "new");
    // A user with the same name is another user.
    let ann = user("ann", &kv);
    kv.set(AuthChange::DeleteUser("ann".to_owned())).expect("allowed");
    assert_eq!(kv.ask(&ann, &range("k", "")), Err(KvError::PermissionDenied));
    kv.set(add_user("ann")).expect("the name is free");
    kv.set(grant_role("ann", "ann")).expect("both exist");
    assert_eq!(kv.ask(&ann, &range("k", "")), Err(KvError::InvalidAuthToken));
    // And so is everybody after authentication was disabled.
    let ann = user("ann", &kv);
    assert!(kv.ask(&ann, &range("k", "")).is_ok());
    kv.set(AuthChange::Disable(())).expect("allowed");
    assert_eq!(kv.set(login("ann", since(&kv, "ann"))), Err(KvError::AuthNotEnabled));
    kv.set(AuthChange::Enable(())).expect("there is root");
    assert_eq!(kv.ask(&ann, &range("k", "")), Err(KvError::InvalidAuthToken));
}

#[test]
fn a08_permissions_of_several_roles_add_up() {
    use PermissionKind::{Read, ReadWrite, Write};
    let mut kv =
        Shop::with(&[("ann", &[may(Read, "a", "c"), may(Write, "x", "")]), ("other", &[may(ReadWrite, "c", "e")])]);
    let ann = user("ann", &kv);
    assert_eq!(kv.ask(&ann, &range("b", "d")), Err(KvError::PermissionDenied), "only a part");
    kv.set(grant_role("ann", "other")).expect("both exist");
    assert!(kv.ask(&ann, &range("b", "d")).is_ok(), "the union covers it");
    assert_eq!(kv.ask(&ann, &range("b", "e\0")), Err(KvError::PermissionDenied));
    assert_eq!(kv.ask(&ann, &range("d", "\0")), Err(KvError::PermissionDenied));
    assert_eq!(kv.ask(&ann, &range("x", "")), Err(KvError::PermissionDenied), "it may only be written");
    assert!(kv.ask(&ann, &range("z", "b")).is_ok(), "a range without keys tells nothing");
    kv.set(grant("other", may(Read, "\0", "\0"))).expect("allowed");
    assert!(kv.ask(&ann, &range("\0", "\0")).is_ok());
}

#[test]
fn a09_what_comes_along_must_be_permitted_too() {
    use PermissionKind::{Read, ReadWrite, Write};
    let mut kv = Shop::with(&[("ann", &[may(Write, "w", ""), may(ReadWrite, "b", ""), may(Read, "r", "")])]);
    let (ann, root) = (user("ann", &kv), user(ROOT, &kv));
    let with_previous = |key: &str| PutRequest { prev_kv: true, ..put(key, "v") };
    assert_eq!(kv.apply(&ann, with_previous("w")), Err(KvError::PermissionDenied));
    kv.apply(&ann, with_previous("b")).expect("ann may read it");
    assert_eq!(kv.apply(&ann, DeleteRangeRequest { prev_kv: true, ..delete("w", "") }), Err(KvError::PermissionDenied));
    kv.apply(&ann, delete("w", "")).expect("ann may write it");

    // A lease to which a key of somebody else is attached.
    for id in [5, 6] {
        kv.apply(&ann, LeaseGrantRequest { id, ttl: 60 }).expect("every user may");
    }
    kv.apply(&root, PutRequest { lease: 5, ..put("secret", "v") }).expect("root may");
    kv.apply(&ann, PutRequest { lease: 6, ..put("w", "v") }).expect("ann may");
    assert_eq!(kv.apply(&ann, PutRequest { lease: 5, ..put("w", "v") }), Err(KvError::PermissionDenied));
    assert_eq!(kv.apply(&ann, LeaseRevokeRequest { id: 5 }), Err(KvError::PermissionDenied));
    assert_eq!(kv.ask(&ann, &Check(LeaseRenewal { id: 5 })), Err(KvError::PermissionDenied));
    assert!(kv.ask(&ann, &Check(LeaseRenewal { id: 6 })).is_ok());
    let time = |id, keys| LeaseTimeToLiveRequest { id, keys };
    assert!(kv.ask(&ann, &time(5, false)).is_ok());
    assert_eq!(kv.ask(&ann, &time(5, true)), Err(KvError::PermissionDenied));
    assert_eq!(kv.ask(&ann, &time(6, true)), Err(KvError::PermissionDenied), "to write is not to read");
    let list = LeaseListRequest { from: i64::MIN, limit: 10 };
    assert_eq!(kv.ask(&ann, &list), Err(KvError::PermissionDenied), "as in etcd");
    assert_eq!(kv.ask(&root, &list).expect("root may").leases.len(), 2);
    kv.apply(&ann, LeaseRevokeRequest { id: 6 }).expect("ann may write its keys");
}

#[test]
fn a10_every_part_of_a_transaction_counts_whichever_branch_is_taken() {
    let mut kv = Shop::with(&[("ann", &[may(PermissionKind::ReadWrite, "k", "")])]);
    let ann = user("ann", &kv);
    let good = TxnRequest { success: vec![op_put("k", "v")], ..TxnRequest::default() };
    kv.apply(&ann, good.clone()).expect("ann may");
    let compare = Compare { key: "x".into(), target: Some(CompareTarget::Version(0)), ..Compare::default() };
    let within: RequestOp =
        Operation::Txn(Box::new(TxnRequest { failure: vec![op_put("x", "v")], ..TxnRequest::default() })).into();
    let bad = [
        TxnRequest { compare: vec![compare], ..good.clone() },
        TxnRequest { success: vec![op_put("x", "v")], ..TxnRequest::default() },
        TxnRequest { failure: vec![op_delete("x", "")], ..good.clone() },
        TxnRequest { failure: vec![Operation::Range(range("x", "")).into()], ..good.clone() },
        TxnRequest { failure: vec![within], ..good },
    ];
    for txn in bad {
        assert_eq!(kv.apply(&ann, txn.clone()), Err(KvError::PermissionDenied), "{txn:?}");
    }
    let reads = TxnRequest { success: vec![Operation::Range(range("x", "")).into()], ..TxnRequest::default() };
    assert_eq!(kv.ask(&ann, &reads), Err(KvError::PermissionDenied));
    assert_eq!(kv.ask(&Principal::Anonymous, &TxnRequest::default()), Err(KvError::UserEmpty));
}

#[test]
fn a11_some_things_are_for_root_some_for_every_user_and_some_for_members() {
    let mut kv = Shop::with(&[("ann", &[])]);
    let (ann, root, nobody) = (user("ann", &kv), user(ROOT, &kv), Principal::Anonymous);
    let compaction = CompactionRequest { revision: 1, physical: false };
    let alarm = AlarmRequest { member: 1, kind: AlarmKind::NoSpace.into(), automatic: false, active: true };
    let member = Member { id: 1, peer_urls: vec!["http://a:1".to_owned()], ..Member::default() };
    let add = MemberRequest { change: Some(MemberChange::Add(member.clone())) };
    let adopt = MemberRequest { change: Some(MemberChange::Adopt(member)) };
    let only_root: [Command; 4] =
        [compaction.into(), alarm.into(), add.into(), AuthRequest { change: Some(add_user("x")) }.into()];
    for command in only_root {
        assert_eq!(kv.apply(&ann, command.clone()), Err(KvError::PermissionDenied), "{command:?}");
        assert_eq!(kv.apply(&nobody, command.clone()), Err(KvError::UserEmpty), "{command:?}");
        let by_root = kv.apply(&root, command.clone());
        assert!(!matches!(by_root, Err(KvError::PermissionDenied | KvError::UserEmpty)), "{command:?}: {by_root:?}");
    }
    let only_members: [Command; 6] = [
        adopt.into(),
        AlarmRequest { automatic: true, ..alarm }.into(),
        LeaseExpireRequest { leases: Vec::new() }.into(),
        ClusterVersionRequest { version: 9 }.into(),
        CompareRequest { step: Some(CompareStep::Mark(())) }.into(),
        AuthRequest { change: Some(login("ann", kv.store.auth().user("ann").expect("it exists").since)) }.into(),
    ];
    for command in only_members {
        assert_eq!(kv.apply(&root, command.clone()), Err(KvError::PermissionDenied), "{command:?}");
        assert!(kv.apply(&MEMBER, command.clone()).is_ok(), "{command:?}");
    }
    for request in [Task::Status, Task::MemberList, Task::LeaseTime] {
        assert!(kv.ask(&ann, &Check(request)).is_ok() && kv.ask(&nobody, &Check(request)).is_err());
    }
    use Task::{Defragment, Downgrade, Hash, MoveLeader, Snapshot};
    for request in [Snapshot, Hash, Defragment, MoveLeader, Downgrade] {
        assert_eq!(kv.ask(&ann, &Check(request)), Err(KvError::PermissionDenied));
        assert_eq!(kv.ask(&root, &Check(request)).expect("root may").get(), &request);
    }
    assert_eq!(kv.ask(&ann, &HashKvRequest::default()), Err(KvError::PermissionDenied));
    assert!(kv.ask(&ann, &AlarmListRequest::default()).is_ok());
    assert!(kv.ask(&ann, &UserGetRequest { name: "ann".to_owned() }).is_ok(), "itself");
    assert!(kv.ask(&ann, &RoleGetRequest { name: "ann".to_owned() }).is_ok(), "its own role");
    for name in [ROOT, "none"] {
        assert_eq!(kv.ask(&ann, &UserGetRequest { name: name.to_owned() }), Err(KvError::PermissionDenied));
        assert_eq!(kv.ask(&ann, &RoleGetRequest { name: name.to_owned() }), Err(KvError::PermissionDenied));
    }
    assert_eq!(kv.ask(&ann, &AuthListRequest), Err(KvError::PermissionDenied));
    assert_eq!(kv.ask(&root, &UserGetRequest { name: "none".to_owned() }), Err(KvError::UserNotFound));
}

#[test]
fn a12_root_stays() {
    let mut kv = Shop::with(&[]);
    for change in
        [AuthChange::DeleteUser(ROOT.to_owned()), revoke_role(ROOT, ROOT), AuthChange::DeleteRole(ROOT.to_owned())]
    {
        assert_eq!(kv.set(change), Err(KvError::InvalidAuthManagement));
    }
    kv.set(AuthChange::Disable(())).expect("allowed");
    kv.set(revoke_role(ROOT, ROOT)).expect("nobody needs it now");
    kv.set(AuthChange::DeleteUser(ROOT.to_owned())).expect("nobody needs it now");
}

#[test]
fn a13_a_permission_is_for_keys() {
    use PermissionKind::{Read, Write};
    let mut kv = Shop::with(&[("ann", &[])]);
    let none = RolePermission { role: "ann".to_owned(), permission: None };
    assert_eq!(kv.set(AuthChange::GrantPermission(none)), Err(KvError::PermissionNotGiven));
    for (key, end) in [("b", "a"), ("b", "b"), ("", ""), ("", "a")] {
        assert_eq!(kv.set(grant("ann", may(Read, key, end))), Err(KvError::InvalidAuthManagement), "{key:?} {end:?}");
    }
    assert_eq!(kv.set(grant("none", may(Read, "a", ""))), Err(KvError::RoleNotFound));
    assert_eq!(kv.set(revoke("ann", may(Read, "a", ""))), Err(KvError::PermissionNotGranted));
    kv.set(grant("ann", may(Read, "a", "b"))).expect("allowed");
    kv.set(grant("ann", may(Write, "a", "b"))).expect("it replaces the first");
    let permissions = |kv: &Shop| kv.store.auth().role("ann").expect("it exists").permissions.clone();
    assert_eq!(permissions(&kv), [may(Write, "a", "b")]);
    kv.set(revoke("ann", may(Read, "a", "b"))).expect("the kind does not matter");
    assert_eq!(permissions(&kv), []);
}

#[test]
fn a15_the_revision_counts_changes() {
    let mut kv = Shop::new();
    assert_eq!(kv.store.auth().revision(), 1);
    let changes = [
        add_user(ROOT),
        add_user("ann"),
        AuthChange::AddRole("r".to_owned()),
        grant("r", may(PermissionKind::Read, "k", "")),
        grant_role("ann", "r"),
        revoke_role("ann", "r"),
        revoke("r", may(PermissionKind::Read, "k", "")),
        AuthChange::ChangePassword(password("ann", "new")),
        AuthChange::DeleteRole("r".to_owned()),
        AuthChange::DeleteUser("ann".to_owned()),
        grant_role(ROOT, ROOT),
    ];
    for (expected, change) in (2..).zip(changes) {
        assert_eq!(kv.set(change.clone()), Ok(expected), "{change:?}");
    }
    assert_eq!(kv.set(grant_role(ROOT, ROOT)), Ok(12), "what is there changes nothing");
    assert_eq!(kv.store.revision(), 1, "keys have revisions of their own");
    assert_eq!(kv.set(add_user(ROOT)), Err(KvError::UserExists));
    assert_eq!(kv.set(AuthChange::AddRole(String::new())), Err(KvError::RoleEmpty));
    assert_eq!(kv.set(add_user("")), Err(KvError::UserEmpty));
    assert_eq!(kv.set(add_user(&"x".repeat(256))), Err(KvError::NameTooLong));
    assert_eq!(kv.set(grant_role("none", ROOT)), Err(KvError::UserNotFound));
    assert_eq!(kv.set(grant_role(ROOT, "none")), Err(KvError::RoleNotFound));
    assert_eq!(kv.set(revoke_role(ROOT, "none")), Err(KvError::RoleNotGranted));
    assert_eq!(kv.set(AuthChange::DeleteUser("none".to_owned())), Err(KvError::UserNotFound));
    assert_eq!(kv.set(AuthChange::DeleteRole("none".to_owned())), Err(KvError::RoleNotFound));
    assert_eq!(kv.set(AuthChange::ChangePassword(password("none", ""))), Err(KvError::UserNotFound));
    assert_eq!(kv.store.auth().revision(), 12, "what is refused changes nothing");
}

#[test]
fn users_and_roles_have_a_bound() {
    let mut kv = Shop::new();
    let refused = (0..20_000).find_map(|number| kv.set(AuthChange::AddRole(format!("{number:0>255}"))).err());
    assert_eq!(refused, Some(KvError::TooManyUsers));
    let count = kv.store.auth().roles().count();
    assert!((3_000..5_000).contains(&count), "{count}");
    assert!(Store::<MemoryEngine>::restore(&kv.store.snapshot()).is_ok());
}

/// Issue 14571 of etcd: a member that had started again judged commands by other permissions than the rest.
#[test]
fn members_that_restart_or_restore_a_snapshot_judge_alike() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut kv = Shop::new();
        let mut other = Shop::new();
        for _ in 0..300 {
            let (by, command) = drawn(&kv, &mut random);
            let (bytes, index) = (command.to_bytes_by(&by), Index(other.index + 1));
            other.index += 1;
            let one = kv.store.apply(index, &bytes);
            kv.index = index.0;
            assert_eq!(other.store.apply(index, &bytes), one, "seed {seed}: {by} {command:?}");
            if random.chance(0.05) {
                let snapshot = other.store.snapshot();
                assert_eq!(kv.store.snapshot(), snapshot, "seed {seed}");
                other.store = Store::restore(&snapshot).expect("it is one");
            }
        }
        assert_eq!(kv.store.auth(), other.store.auth());
        assert_eq!(kv.store.hash_kv(0), other.store.hash_kv(0));
    }
}

const USERS: [&str; 3] = ["ann", "ben", "cay"];
const ROLES: [&str; 3] = ["r", "s", "t"];
const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A command, and who gives it.
fn drawn(kv: &Shop, random: &mut Random) -> (Principal, Command) {
    let name = |random: &mut Random| USERS[random.below(3) as usize];
    let by = match random.below(8) {
        0 => Principal::Anonymous,
        1..=3 => user(ROOT, kv),
        4 => Principal::User(LoggedIn { user: name(random).into(), at: random.below(30) }),
        _ => user(name(random), kv),
    };
    let command = if random.chance(0.5) { change(random).into() } else { request(random) };
    (by, command)
}

fn change(random: &mut Random) -> AuthRequest {
    let user = [USERS[random.below(3) as usize], ROOT][usize::from(random.chance(0.2))];
    let role = [ROLES[random.below(3) as usize], ROOT][usize::from(random.chance(0.1))];
    let permission = || may(PermissionKind::Read, "a", "");
    let drawn = |random: &mut Random| {
        let kind = [PermissionKind::Read, PermissionKind::Write, PermissionKind::ReadWrite][random.below(3) as usize];
        may(kind, KEYS[random.below(5) as usize], ["", "\0", "c", "e"][random.below(4) as usize])
    };
    let change = match random.below(20) {
        0..=2 => AuthChange::Enable(()),
        3 => AuthChange::Disable(()),
        4..=6 => add_user(user),
        7 => AuthChange::DeleteUser(user.to_owned()),
        8 => AuthChange::ChangePassword(password(user, "new")),
        9..=11 => grant_role(user, role),
        12 => revoke_role(user, role),
        13 | 14 => AuthChange::AddRole(role.to_owned()),
        15 => AuthChange::DeleteRole(role.to_owned()),
        16..=18 => grant(role, drawn(random)),
        _ => revoke(role, if random.chance(0.5) { permission() } else { drawn(random) }),
    };
    AuthRequest { change: Some(change) }
}

fn request(random: &mut Random) -> Command {
    let key = KEYS[random.below(5) as usize];
    let end = ["", "\0", "c", "e", "a"][random.below(5) as usize];
    let lease = if random.chance(0.3) { 7 } else { 0 };
    let prev_kv = random.chance(0.3);
    match random.below(8) {
        0..=2 => PutRequest { lease, prev_kv, ..put(key, "v") }.into(),
        3 | 4 => DeleteRangeRequest { prev_kv, ..delete(key, end) }.into(),
        5 => LeaseGrantRequest { id: 7, ttl: 60 }.into(),
        6 => LeaseRevokeRequest { id: 7 }.into(),
        _ => TxnRequest {
            success: vec![Operation::Range(range(key, end)).into()],
            failure: vec![op_put(KEYS[random.below(5) as usize], "v")],
            ..TxnRequest::default()
        }
        .into(),
    }
}

/// Who may do what, from the records alone and key by key.
fn model(kv: &Store<MemoryEngine>, by: &Principal, valid_from: u64, command: &Command) -> Result<(), KvError> {
    let auth = kv.auth();
    if !auth.is_enabled() {
        return Ok(());
    }
    let Principal::User(LoggedIn { user, at }) = by else { return Err(KvError::UserEmpty) };
    let Some(record) = auth.user(user) else { return Err(KvError::PermissionDenied) };
    if *at < record.since.max(valid_from) {
        return Err(KvError::InvalidAuthToken);
    }
    let is_root = record.roles.iter().any(|role| role == ROOT);
    let granted = |other: PermissionKind, key: &str| {
        let roles = record.roles.iter().filter_map(|role| auth.role(role));
        let mut permissions = roles.flat_map(|role| &role.permissions).filter(|one| one.kind() != other);
        permissions.any(|one| holds(&one.key, &one.range_end, key.as_bytes()))
    };
    let reads = |key: &str| is_root || granted(PermissionKind::Write, key);
    let writes = |key: &str| is_root || granted(PermissionKind::Read, key);
    // All keys of the alphabet, and one behind each: a permission for one key does not cover those between.
    let keys: BTreeSet<String> = KEYS.iter().flat_map(|key| [(*key).to_owned(), format!("{key}x")]).collect();
    let every = |start: &Bytes, end: &Bytes, may: &dyn Fn(&str) -> bool| {
        keys.iter().filter(|key| holds(start, end, key.as_bytes())).all(|key| may(key))
    };
    let attached = || {
        let found =
            kv.ask_by(&Principal::Member, &LeaseTimeToLiveRequest { id: 7, keys: true }).0.expect("members may");
        found.keys.iter().all(|key| writes(str::from_utf8(key).expect("it is text")))
    };
    let put = |put: &PutRequest| {
        let key = str::from_utf8(&put.key).expect("it is text");
        writes(key) && (!put.prev_kv || reads(key)) && (put.lease == 0 || attached())
    };
    let permitted = match command {
        Command::Put(request) => put(request),
        Command::DeleteRange(delete) => {
            every(&delete.key, &delete.range_end, &writes)
                && (!delete.prev_kv || every(&delete.key, &delete.range_end, &reads))
        }
        Command::LeaseGrant(_) => true,
        Command::LeaseRevoke(_) => attached(),
        Command::Txn(txn) => txn.success.iter().chain(&txn.failure).all(|op| match &op.operation {
            Some(Operation::Range(range)) => every(&range.key, &range.range_end, &reads),
            Some(Operation::Put(request)) => put(request),
            _ => false,
        }),
        Command::Auth(_) => is_root,
        _ => false,
    };
    if permitted { Ok(()) } else { Err(KvError::PermissionDenied) }
}

fn holds(start: &[u8], end: &[u8], key: &[u8]) -> bool {
    match end {
        [] => key == start,
        [0] => key >= start,
        end => start <= key && key < end,
    }
}

#[test]
fn what_is_permitted_is_what_a_naive_model_permits() {
    let (mut permitted, mut refused) = (0, 0);
    for seed in 0..600 {
        let mut random = Random::new(1_000 + seed);
        let mut kv = Shop::new();
        // Whoever logged in before authentication was disabled has to do it again.
        let mut valid_from = 0;
        for _ in 0..200 {
            let (by, command) = drawn(&kv, &mut random);
            if command.check(&Limits::default()).is_err() {
                continue;
            }
            let expected = model(&kv.store, &by, valid_from, &command);
            let enabled = kv.store.auth().is_enabled();
            let reply = kv.apply(&by, command.clone());
            if enabled && !kv.store.auth().is_enabled() {
                valid_from = kv.store.auth().revision();
            }
            let denials = [KvError::PermissionDenied, KvError::UserEmpty, KvError::InvalidAuthToken];
            let found = match &reply {
                Err(error) if denials.contains(error) => Err(*error),
                _ => Ok(()),
            };
            assert_eq!(found, expected, "seed {seed}: {by}: {command:?}, {:?}", kv.store.auth());
            permitted += u32::from(enabled && found.is_ok());
            refused += u32::from(found.is_err());
        }
    }
    assert!(permitted > 2_000 && refused > 2_000, "{permitted} and {refused}");
}

/// What goes through the log keeps its form for ever.
#[test]
fn a_command_keeps_its_bytes_and_says_who_gives_it() {
    let command: Command = AuthRequest { change: Some(grant_role("u", "r")) }.into();
    let hex = |by: &Principal| -> String { command.to_bytes_by(by).iter().map(|byte| format!("{byte:02x}")).collect() };
    let ann = Principal::User(LoggedIn { user: "u".into(), at: 3 });
    assert_eq!(hex(&Principal::Anonymous), "620832060a0175120172");
    assert_eq!(hex(&ann), "620832060a017512017282010175880103");
    assert_eq!(hex(&MEMBER), "620832060a0175120172900101");
    for by in [Principal::Anonymous, ann, MEMBER] {
        let bytes = command.to_bytes_by(&by);
        assert_eq!(Submission::from_bytes(&bytes), Ok(Submission { by, command: command.clone() }));
        assert_eq!(Command::from_bytes(&bytes).as_ref(), Ok(&command));
        assert_eq!(Command::kind_of(&bytes), 12);
    }
}
