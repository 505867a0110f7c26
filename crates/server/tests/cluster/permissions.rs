//! Each method of the API, with each kind of range, by each kind of user. The methods come from the API's description:
//! a new one without a rule here fails.

use bowline_api::authpb::permission::Type as Kind;
use bowline_api::authpb::{Permission, UserAddOptions};
use bowline_api::etcdserverpb as pb;
use bowline_api::{DESCRIPTORS, Message};
use bytes::{Buf, BufMut};
use pb::auth_client::AuthClient;
use pb::request_op::Request as Op;
use prost_types::FileDescriptorSet;
use tokio_stream::StreamExt;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::harness::{Cluster, PATIENCE};

/// Messages as bytes.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut message = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut message);
        Ok(Some(message))
    }
}

/// What a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    Everybody,
    User,
    Root,
    /// To read the keys of the range, and to write them.
    Range {
        read: bool,
        write: bool,
    },
    /// To read and to write its first key.
    Key {
        read: bool,
    },
}

const READ: Rule = Rule::Range { read: true, write: false };
const WRITE: Rule = Rule::Range { read: false, write: true };
const BOTH: Rule = Rule::Range { read: true, write: true };

/// Whoever asks: the name, and whether it may read and write the keys from `b` up to `e`.
const VISITORS: [(&str, bool, bool); 6] = [
    ("nobody", false, false),
    ("stranger", false, false),
    ("reader", true, false),
    ("writer", false, true),
    ("both", true, true),
    ("root", true, true),
];

/// Ranges, and whether each of their keys is one from `b` up to `e`.
const RANGES: [(&str, &str, bool); 9] = [
    ("b", "", true),
    ("b", "d", true),
    ("b", "e", true),
    ("d", "b", true),
    ("a", "", false),
    ("a", "c", false),
    ("d", "f", false),
    ("c", "\0", false),
    ("\0", "\0", false),
];

/// Whether a request is to be let through.
fn expected(rule: Rule, (name, reads, writes): (&str, bool, bool), (key, _, inside): (&str, &str, bool)) -> bool {
    let (read, write, inside) = match rule {
        Rule::Everybody => return true,
        Rule::User => return name != "nobody",
        Rule::Root => return name == "root",
        Rule::Range { read, write } => (read, write, inside),
        Rule::Key { read } => (read, true, ("b".."e").contains(&key)),
    };
    // Nothing is to be read or written in a range without keys, but whoever asks must be somebody.
    let empty = key == "d" && inside && matches!(rule, Rule::Range { .. });
    let granted = (reads || !read) && (writes || !write) && inside;
    name == "root" || name != "nobody" && (granted || empty)
}

/// The requests of a method for a range, and what each needs.
fn requests(method: &str, key: &str, end: &str) -> Vec<(Vec<u8>, Rule)> {
    let (key, range_end) = (key.as_bytes().to_vec(), end.as_bytes().to_vec());
    let range = pb::RangeRequest { key: key.clone().into(), range_end: range_end.clone().into(), ..Default::default() };
    let put = |prev_kv| pb::PutRequest { key: key.clone().into(), prev_kv, ..Default::default() };
    let delete =
        |prev_kv| pb::DeleteRangeRequest { key: key.clone().into(), range_end: range_end.clone().into(), prev_kv };
    let op = |op| pb::RequestOp { request: Some(op) };
    let compare = pb::Compare {
        key: key.clone().into(),
        range_end: range_end.clone().into(),
        target_union: Some(pb::compare::TargetUnion::Version(0)),
        ..Default::default()
    };
    let txn = |compare, success, failure| pb::TxnRequest { compare, success, failure };
    let create =
        pb::WatchCreateRequest { key: key.clone().into(), range_end: range_end.clone().into(), ..Default::default() };
    let watch = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let one = |rule| vec![(Vec::new(), rule)];
    match method {
        "KV/Range" | "KV/RangeStream" => vec![(range.encode_to_vec(), READ)],
        "KV/Put" => {
            vec![
                (put(false).encode_to_vec(), Rule::Key { read: false }),
                (put(true).encode_to_vec(), Rule::Key { read: true }),
            ]
        }
        "KV/DeleteRange" => vec![(delete(false).encode_to_vec(), WRITE), (delete(true).encode_to_vec(), BOTH)],
        "KV/Txn" => {
            let within = txn(Vec::new(), vec![op(Op::RequestDeleteRange(delete(false)))], Vec::new());
            let nested = txn(Vec::new(), Vec::new(), vec![op(Op::RequestTxn(within))]);
            vec![
                (txn(vec![compare], Vec::new(), Vec::new()).encode_to_vec(), READ),
                (txn(Vec::new(), vec![op(Op::RequestRange(range))], Vec::new()).encode_to_vec(), READ),
                (
                    txn(Vec::new(), Vec::new(), vec![op(Op::RequestPut(put(true)))]).encode_to_vec(),
                    Rule::Key { read: true },
                ),
                (nested.encode_to_vec(), WRITE),
                (Vec::new(), Rule::User),
            ]
        }
        "Watch/Watch" => vec![(watch.encode_to_vec(), READ)],
        "Lease/LeaseGrant" => vec![(pb::LeaseGrantRequest { ttl: 600, id: 0 }.encode_to_vec(), Rule::User)],
        // Nothing is attached to the lease, so no keys count.
        "Lease/LeaseRevoke" | "Lease/LeaseKeepAlive" | "Lease/LeaseTimeToLive" | "Lease/LeaseLeases" => {
            vec![(pb::LeaseRevokeRequest { id: 4_711 }.encode_to_vec(), Rule::User)]
        }
        "KV/Compact" => vec![(pb::CompactionRequest { revision: 1, physical: false }.encode_to_vec(), Rule::Root)],
        "Cluster/MemberList" | "Maintenance/Status" => one(Rule::User),
        "Maintenance/Alarm" => {
            let activate = pb::AlarmRequest { action: 1, member_id: 1, alarm: 0 };
            vec![(Vec::new(), Rule::User), (activate.encode_to_vec(), Rule::Root)]
        }
        "Auth/AuthStatus" | "Auth/Authenticate" => one(Rule::Everybody),
        // Without a name, or a permission, nobody would be asked who it is.
        "Auth/UserAdd" | "Auth/RoleAdd" => {
            vec![(pb::AuthUserGetRequest { name: "new".to_owned() }.encode_to_vec(), Rule::Root)]
        }
        "Auth/RoleGrantPermission" => {
            let perm = Some(Permission { key: "k".into(), ..Permission::default() });
            let request = pb::AuthRoleGrantPermissionRequest { name: "new".to_owned(), perm };
            vec![(request.encode_to_vec(), Rule::Root)]
        }
        "Cluster/MemberAdd"
        | "Cluster/MemberRemove"
        | "Cluster/MemberUpdate"
        | "Cluster/MemberPromote"
        | "Maintenance/Defragment"
        | "Maintenance/Hash"
        | "Maintenance/HashKV"
        | "Maintenance/Snapshot"
        | "Maintenance/MoveLeader"
        | "Maintenance/Downgrade"
        | "Auth/AuthEnable"
        | "Auth/AuthDisable"
        | "Auth/UserGet"
        | "Auth/UserList"
        | "Auth/UserDelete"
        | "Auth/UserChangePassword"
        | "Auth/UserGrantRole"
        | "Auth/UserRevokeRole"
        | "Auth/RoleGet"
        | "Auth/RoleList"
        | "Auth/RoleDelete"
        | "Auth/RoleRevokePermission" => one(Rule::Root),
        method => panic!("{method} has no rule: who may call it?"),
    }
}

/// Every method of the API, as `Service/Method`.
fn methods() -> Vec<String> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("they are generated");
    let files = set.file.into_iter().filter(|file| file.package() == "etcdserverpb");
    let services = files.flat_map(|file| file.service);
    let named = |service: prost_types::ServiceDescriptorProto| {
        let name = service.name().to_owned();
        service.method.into_iter().map(move |method| format!("{name}/{}", method.name()))
    };
    services.flat_map(named).collect()
}

/// Whether a request is let through. What else may be wrong with it does not matter.
async fn is_permitted(channel: &Channel, token: Option<&str>, method: &str, message: Vec<u8>) -> bool {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("it is connected");
    // A watch ends with the client's last request, even before the answer to it.
    let open = if method == "Watch/Watch" { usize::MAX } else { 0 };
    let rest = tokio_stream::pending::<Vec<u8>>().take(open);
    let mut request = Request::new(tokio_stream::iter([message]).chain(rest));
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.parse().expect("it is text"));
    }
    let path = format!("/etcdserverpb.{method}").parse().expect("it is a path");
    let answers = tokio::time::timeout(PATIENCE, client.streaming(request, path, Raw)).await.expect("in time");
    let first = match answers {
        Ok(answers) => tokio::time::timeout(PATIENCE, answers.into_inner().message()).await.expect("in time"),
        Err(status) => Err(status),
    };
    let denial = |code: Code, text: &str| {
        let denied = code == Code::PermissionDenied && text == "etcdserver: permission denied";
        denied || code == Code::InvalidArgument && text == "etcdserver: user name is empty"
    };
    match first {
        Err(status) => !denial(status.code(), status.message()),
        Ok(Some(message)) if method == "Watch/Watch" => {
            let reason = pb::WatchResponse::decode(&message[..]).expect("a response").cancel_reason;
            !["etcdserver: permission denied", "etcdserver: user name is empty"].iter().any(|it| reason.ends_with(it))
        }
        Ok(_) => true,
    }
}

async fn set_up(channel: &Channel) -> Vec<Option<String>> {
    let mut auth = AuthClient::new(channel.clone());
    for (name, reads, writes) in VISITORS.into_iter().skip(1) {
        let password = name.to_owned();
        let options = Some(UserAddOptions { no_password: false });
        let request =
            pb::AuthUserAddRequest { name: name.to_owned(), password, options, hashed_password: String::new() };
        auth.user_add(request).await.expect("it is new");
        auth.role_add(pb::AuthRoleAddRequest { name: name.to_owned() }).await.expect("it is new");
        let grant = pb::AuthUserGrantRoleRequest { user: name.to_owned(), role: name.to_owned() };
        auth.user_grant_role(grant).await.expect("both exist");
        let kind = match (reads, writes) {
            (true, true) => Kind::Readwrite,
            (true, false) => Kind::Read,
            (false, true) => Kind::Write,
            (false, false) => continue,
        };
        let perm = Some(Permission { perm_type: kind.into(), key: "b".into(), range_end: "e".into() });
        let request = pb::AuthRoleGrantPermissionRequest { name: name.to_owned(), perm };
        auth.role_grant_permission(request).await.expect("a good one");
    }
    auth.auth_enable(pb::AuthEnableRequest {}).await.expect("there is root");
    let mut tokens = vec![None];
    for (name, ..) in VISITORS.into_iter().skip(1) {
        let request = pb::AuthenticateRequest { name: name.to_owned(), password: name.to_owned() };
        tokens.push(Some(auth.authenticate(request).await.expect("the password is right").into_inner().token));
    }
    tokens
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_method_is_for_those_for_whom_it_is_meant() {
    let cluster = Cluster::start(1, &[]);
    cluster.leader().await;
    let address = format!("http://{}", cluster.server(1).client_address());
    let channel = Channel::from_shared(address).expect("an address").connect().await.expect("it serves");
    let tokens = set_up(&channel).await;
    let (mut permitted, mut denied) = (0, 0);
    // Whoever disables authentication comes last.
    let (last, first): (Vec<String>, Vec<String>) = methods().into_iter().partition(|it| it == "Auth/AuthDisable");
    assert_eq!((last.len(), first.len()), (1, 41));
    for method in first.iter().chain(&last) {
        for range in RANGES {
            let (key, end, _) = range;
            for (message, rule) in requests(method, key, end) {
                for (visitor, token) in VISITORS.into_iter().zip(&tokens) {
                    let expected = expected(rule, visitor, range);
                    let found = is_permitted(&channel, token.as_deref(), method, message.clone()).await;
                    assert_eq!(found, expected, "{method} of {key:?} to {end:?} by {}: {rule:?}", visitor.0);
                    *(if found { &mut permitted } else { &mut denied }) += 1;
                }
            }
            if requests(method, key, end) == requests(method, "", "") {
                // Its requests have no range.
                break;
            }
        }
    }
    assert!(permitted > 200 && denied > 200, "{permitted} permitted, {denied} denied");
}
