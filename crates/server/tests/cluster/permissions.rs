//! Each method of the API, with each kind of range, by each kind of user, over gRPC and over JSON. The methods come from
//! the API's description: a new one without a rule here fails.

use bowline_api::authpb::permission::Type as Kind;
use bowline_api::authpb::{Permission, UserAddOptions};
use bowline_api::etcdserverpb as pb;
use bowline_api::{DESCRIPTORS, Message, v3electionpb as elections, v3lockpb as locks};
use bowline_server::gateway_path;
use bowline_server::peer::Protocol;
use bytes::{Buf, BufMut};
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::request_op::Request as Op;
use prost_reflect::{DescriptorPool, DynamicMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
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
    /// To read and to write its first key, or the keys that begin with it and a slash.
    Key {
        read: bool,
        write: bool,
    },
}

const READ: Rule = Rule::Range { read: true, write: false };
const WRITE: Rule = Rule::Range { read: false, write: true };
const BOTH: Rule = Rule::Range { read: true, write: true };
const READ_KEY: Rule = Rule::Key { read: true, write: false };
const WRITE_KEY: Rule = Rule::Key { read: false, write: true };
const BOTH_KEY: Rule = Rule::Key { read: true, write: true };

/// A lease that there is not.
const NO_LEASE: i64 = 4_711;

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
        Rule::Key { read, write } => (read, write, ("b".."e").contains(&key)),
    };
    // Nothing is to be read or written in a range without keys, but whoever asks must be somebody.
    let empty = key == "d" && inside && matches!(rule, Rule::Range { .. });
    let granted = (reads || !read) && (writes || !write) && inside;
    name == "root" || name != "nobody" && (granted || empty)
}

/// The requests of the services for locks and elections. Without a lease, nobody gets a key.
fn queue_requests(method: &str, key: &str) -> Option<(Vec<u8>, Rule)> {
    let name = bytes::Bytes::from(key.to_owned());
    let (lease, value) = (NO_LEASE, name.clone());
    let leader = Some(elections::LeaderKey { name: name.clone(), key: name.clone(), rev: 1, lease });
    Some(match method {
        "Lock/Lock" => (locks::LockRequest { name, lease }.encode_to_vec(), BOTH_KEY),
        "Lock/Unlock" => (locks::UnlockRequest { key: name }.encode_to_vec(), WRITE_KEY),
        "Election/Campaign" => (elections::CampaignRequest { name, lease, value }.encode_to_vec(), BOTH_KEY),
        "Election/Proclaim" => (elections::ProclaimRequest { leader, value }.encode_to_vec(), BOTH_KEY),
        "Election/Resign" => (elections::ResignRequest { leader }.encode_to_vec(), BOTH_KEY),
        "Election/Leader" | "Election/Observe" => (elections::LeaderRequest { name }.encode_to_vec(), READ_KEY),
        _ => return None,
    })
}

/// The requests of a method for a range, and what each needs.
fn requests(method: &str, key: &str, end: &str) -> Vec<(Vec<u8>, Rule)> {
    let method = method.split_once('.').expect("it is in a package").1;
    if let Some(request) = queue_requests(method, key) {
        return vec![request];
    }
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
            vec![(put(false).encode_to_vec(), WRITE_KEY), (put(true).encode_to_vec(), BOTH_KEY)]
        }
        "KV/DeleteRange" => vec![(delete(false).encode_to_vec(), WRITE), (delete(true).encode_to_vec(), BOTH)],
        "KV/Txn" => {
            let within = txn(Vec::new(), vec![op(Op::RequestDeleteRange(delete(false)))], Vec::new());
            let nested = txn(Vec::new(), Vec::new(), vec![op(Op::RequestTxn(within))]);
            vec![
                (txn(vec![compare], Vec::new(), Vec::new()).encode_to_vec(), READ),
                (txn(Vec::new(), vec![op(Op::RequestRange(range))], Vec::new()).encode_to_vec(), READ),
                (txn(Vec::new(), Vec::new(), vec![op(Op::RequestPut(put(true)))]).encode_to_vec(), BOTH_KEY),
                (nested.encode_to_vec(), WRITE),
                (Vec::new(), Rule::User),
            ]
        }
        "Watch/Watch" => vec![(watch.encode_to_vec(), READ)],
        "Lease/LeaseGrant" => vec![(pb::LeaseGrantRequest { ttl: 600, id: 0 }.encode_to_vec(), Rule::User)],
        // Nothing is attached to the lease, so no keys count.
        "Lease/LeaseRevoke" | "Lease/LeaseKeepAlive" | "Lease/LeaseTimeToLive" | "Lease/LeaseLeases" => {
            vec![(pb::LeaseRevokeRequest { id: NO_LEASE }.encode_to_vec(), Rule::User)]
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

/// Every method of the API, as `package.Service/Method`, but those of gRPC's own services.
fn methods(pool: &DescriptorPool) -> Vec<String> {
    let services = pool.services().filter(|service| !service.full_name().starts_with("grpc."));
    let named = |service: prost_reflect::ServiceDescriptor| {
        let name = service.full_name().to_owned();
        service.methods().map(|method| format!("{name}/{}", method.name())).collect::<Vec<_>>()
    };
    services.flat_map(named).collect()
}

/// Whether the gateway lets a request through, if it has the method. What else may be wrong with it does not matter.
async fn is_permitted_over_json(
    cluster: &Cluster,
    pool: &DescriptorPool,
    token: Option<&str>,
    method: &str,
    message: &[u8],
) -> Option<bool> {
    let path = gateway_path(method)?;
    let (service, name) = method.split_once('/').expect("it is in a service");
    let service = pool.get_service_by_name(service).expect("there is one");
    let input = service.methods().find(|it| it.name() == name).expect("there is one").input();
    let body = DynamicMessage::decode(input, message).expect("it is a request");
    let body = serde_json::to_string(&body).expect("it can be written");
    let length = body.len();
    let token = token.map(|token| format!("Authorization: {token}\r\n")).unwrap_or_default();
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n");
    let mut stream = TcpStream::connect(cluster.server(1).client_address()).await.expect("it listens");
    stream.write_all(format!("{head}{token}\r\n{body}").as_bytes()).await.expect("sent");
    let mut answer = String::new();
    // A stream goes on after its first line.
    while !answer.contains("}\n") {
        let mut buffer = [0; 4_096];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("in time").expect("answered");
        if read == 0 {
            break;
        }
        answer.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(answer.starts_with("HTTP/1.1 ") && answer.contains('{'), "{method}: {answer}");
    let denials = ["etcdserver: permission denied", "etcdserver: user name is empty"];
    Some(!denials.iter().any(|denial| answer.contains(denial)))
}

/// Whether a request is let through. What else may be wrong with it does not matter.
async fn is_permitted(channel: &Channel, token: Option<&str>, method: &str, message: Vec<u8>) -> bool {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("it is connected");
    let mut request = Request::new(tokio_stream::iter([message]));
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.parse().expect("it is text"));
    }
    let path = format!("/{method}").parse().expect("it is a path");
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
        Ok(Some(message)) if method == "etcdserverpb.Watch/Watch" => {
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

/// Makes a leader of the election with this name.
async fn lead(channel: &Channel, root: Option<&str>, name: &str) {
    let mut request = Request::new(crate::harness::put(&format!("{name}/1"), "v"));
    request.metadata_mut().insert("token", root.expect("root has logged in").parse().expect("it is text"));
    KvClient::new(channel.clone()).put(request).await.expect("root may");
}

/// It was away when authentication was enabled. It took whoever asked at once for nobody, and refused that later.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_member_that_comes_back_knows_who_asks() {
    let mut cluster = Cluster::start(3, &[]);
    let (leader, follower) = (cluster.leader_of_all().await, cluster.follower().await);
    // Without all members, the version of the cluster is never raised, so there can be no users.
    cluster.raised(leader, Protocol::CURRENT).await;
    cluster.stop(follower);
    let tokens = set_up(&cluster.channel(leader).await).await;
    cluster.restart(follower);
    let mut kv = cluster.client(follower).await;
    let (mut read, mut write) = (Request::new(crate::harness::get("b")), Request::new(crate::harness::put("b", "v")));
    for metadata in [read.metadata_mut(), write.metadata_mut()] {
        let both = tokens[4].as_deref().expect("both has logged in");
        metadata.insert("token", both.parse().expect("it is text"));
    }
    kv.range(read).await.expect("both may read");
    kv.put(write).await.expect("both may write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_method_is_for_those_for_whom_it_is_meant() {
    let cluster = Cluster::start(1, &[]);
    cluster.leader().await;
    let address = format!("http://{}", cluster.server(1).client_address());
    let channel = Channel::from_shared(address).expect("an address").connect().await.expect("it serves");
    let tokens = set_up(&channel).await;
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("they are generated");
    let (mut permitted, mut denied, mut over_json) = (0, 0, 0);
    // Whoever disables authentication comes last.
    let (last, first): (Vec<String>, Vec<String>) =
        methods(&pool).into_iter().partition(|it| it == "etcdserverpb.Auth/AuthDisable");
    assert_eq!((last.len(), first.len()), (1, 48));
    for method in first.iter().chain(&last) {
        for range in RANGES {
            let (key, end, _) = range;
            if method.starts_with("v3electionpb.") {
                // Otherwise, an observer would wait.
                lead(&channel, tokens.last().and_then(Option::as_deref), key).await;
            }
            for (message, rule) in requests(method, key, end) {
                for (visitor, token) in VISITORS.into_iter().zip(&tokens) {
                    let expected = expected(rule, visitor, range);
                    let found = is_permitted_over_json(&cluster, &pool, token.as_deref(), method, &message).await;
                    over_json += usize::from(found.is_some());
                    let told = format!("{method} of {key:?} to {end:?} by {}, over JSON: {rule:?}", visitor.0);
                    assert_eq!(found.unwrap_or(expected), expected, "{told}");
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
    assert!(over_json > 400, "{over_json} over JSON");
}
