//! Users and roles.

use std::collections::BTreeSet;
use std::time::Duration;

use bowline_api::authpb::permission::Type as Kind;
use bowline_api::authpb::{Permission, UserAddOptions};
use bowline_api::etcdserverpb as pb;
use bowline_server::auth::{Jwt, TokenKind};
use pb::auth_client::AuthClient;
use pb::cluster_client::ClusterClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use tonic::codegen::InterceptedService;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::line::{Line, line};
use crate::requests::*;
use crate::site::{Site, refused};

const DENIED: &str = "etcdserver: permission denied";
const BAD_TOKEN: &str = "etcdserver: invalid auth token";
const FAILED: &str = "etcdserver: authentication failed, invalid user ID or password";
const BAD_MANAGEMENT: &str = "etcdserver: invalid auth management";

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line!(Fresh, a01_authentication_needs_root),
        line!(Fresh, a02_who_has_not_logged_in_gets_nothing),
        line!(Fresh, a03_a_token_comes_in_either_field).not_on_3_4("it does not know the word Bearer"),
        line!(Fresh, a04_a_wrong_user_and_a_wrong_password_are_told_alike),
        line!(Fresh, a05_a_simple_token_is_letters_and_an_index),
        line!(Fresh, a05_a_token_ends_with_the_password_or_the_user)
            .not_on_3_4("3.4 says permission denied where 3.5 says that the token is invalid"),
        line!(Fresh, a05_a_token_ends_when_it_is_not_used).with(&[("auth_token_ttl", "1")]),
        line!(Members, a05_a_token_is_valid_at_all_members),
        line!(Fresh, a06_a_signed_token_is_old_after_a_change)
            .not_on_etcd("it needs files of keys that only we make here"),
        Line::untested(
            "a07_the_name_in_a_certificate_is_the_user",
            "it takes certificates: tests/cluster/tls.rs, the_name_in_the_certificate_is_the_user",
        ),
        line!(Fresh, a08_permissions_of_several_roles_add_up),
        line!(Fresh, a09_what_comes_along_must_be_permitted_too)
            .not_on_3_4("3.4 does not check the leases' keys for reading, nor for renewals"),
        line!(Fresh, a10_every_part_of_a_transaction_counts).not_on_3_4("it does not look into nested transactions"),
        line!(Fresh, a11_some_things_are_for_root).not_on_3_4("it lets everybody compact, and asks nobody for alarms"),
        line!(Fresh, a11_a_user_may_ask_about_itself).not_on_3_4("it lists no permissions of root"),
        line!(Fresh, a12_root_stays),
        line!(Fresh, a13_a_permission_is_for_keys).not_on_3_4("it takes ranges without keys"),
        line!(Fresh, a14_a_user_without_a_password_does_not_get_in_with_one)
            .not_on_3_4("it has a text for this that tells who has no password"),
        line!(Members, a14_a_password_is_in_no_file),
        line!(Fresh, a15_the_revision_counts_changes).not_on_3_4("AuthStatus is new in 3.5"),
    ]
}

/// Adds a token to each request.
#[derive(Clone)]
pub(crate) struct Token(Option<AsciiMetadataValue>, &'static str);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Token(Some(token), field) = self {
            request.metadata_mut().insert(*field, token.clone());
        }
        Ok(request)
    }
}

pub(crate) type With = InterceptedService<Channel, Token>;

/// Somebody who has logged in, or not.
#[derive(Clone)]
pub(crate) struct Visitor {
    channel: Channel,
    token: Token,
}

impl Visitor {
    pub(crate) fn nobody(channel: Channel) -> Visitor {
        Visitor { channel, token: Token(None, "token") }
    }

    pub(crate) fn with(&self, token: &str) -> Visitor {
        self.with_field("token", token)
    }

    fn with_field(&self, field: &'static str, token: &str) -> Visitor {
        let token = token.parse().expect("a token is text");
        Visitor { channel: self.channel.clone(), token: Token(Some(token), field) }
    }

    fn service(&self) -> With {
        InterceptedService::new(self.channel.clone(), self.token.clone())
    }

    fn auth(&self) -> AuthClient<With> {
        AuthClient::new(self.service())
    }

    fn kv(&self) -> KvClient<With> {
        KvClient::new(self.service())
    }

    fn leases(&self) -> LeaseClient<With> {
        LeaseClient::new(self.service())
    }

    pub(crate) fn watches(&self) -> WatchClient<With> {
        WatchClient::new(self.service())
    }

    pub(crate) async fn put_value(&self, key: &str, value: &str) -> pb::PutResponse {
        self.kv().put(put(key, value)).await.expect("written").into_inner()
    }

    async fn put(&self, key: &str) -> Result<(), Status> {
        self.kv().put(put(key, "v")).await.map(|_| ())
    }

    async fn get(&self, key: &str) -> Result<usize, Status> {
        self.kv().range(get(key)).await.map(|found| found.into_inner().kvs.len())
    }

    async fn log_in(&self, name: &str, password: &str) -> Result<String, Status> {
        let request = pb::AuthenticateRequest { name: name.to_owned(), password: password.to_owned() };
        self.auth().authenticate(request).await.map(|answer| answer.into_inner().token)
    }

    /// As a user, whose password is its name.
    pub(crate) async fn log_in_as(&self, name: &str) -> Visitor {
        self.with(&self.log_in(name, name).await.expect("the password is right"))
    }

    async fn add_user(&self, name: &str, password: &str) -> Result<(), Status> {
        let (name, password) = (name.to_owned(), password.to_owned());
        let request = pb::AuthUserAddRequest { name, password, ..pb::AuthUserAddRequest::default() };
        self.auth().user_add(request).await.map(|_| ())
    }

    async fn delete_user(&self, name: &str) -> Result<(), Status> {
        self.auth().user_delete(pb::AuthUserDeleteRequest { name: name.to_owned() }).await.map(|_| ())
    }

    async fn change_password(&self, name: &str, password: &str) -> Result<(), Status> {
        let (name, password) = (name.to_owned(), password.to_owned());
        let request = pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
        self.auth().user_change_password(request).await.map(|_| ())
    }

    async fn add_role(&self, name: &str) -> Result<(), Status> {
        self.auth().role_add(pb::AuthRoleAddRequest { name: name.to_owned() }).await.map(|_| ())
    }

    async fn grant_role(&self, user: &str, role: &str) -> Result<(), Status> {
        let request = pb::AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() };
        self.auth().user_grant_role(request).await.map(|_| ())
    }

    async fn revoke_role(&self, user: &str, role: &str) -> Result<(), Status> {
        let request = pb::AuthUserRevokeRoleRequest { name: user.to_owned(), role: role.to_owned() };
        self.auth().user_revoke_role(request).await.map(|_| ())
    }

    async fn grant(&self, role: &str, kind: Kind, key: &str, end: &str) -> Result<(), Status> {
        let text = |text: &str| bytes::Bytes::copy_from_slice(text.as_bytes());
        let perm = Some(Permission { perm_type: kind as i32, key: text(key), range_end: text(end) });
        let request = pb::AuthRoleGrantPermissionRequest { name: role.to_owned(), perm };
        self.auth().role_grant_permission(request).await.map(|_| ())
    }

    pub(crate) async fn revoke(&self, role: &str, key: &str, end: &str) -> Result<(), Status> {
        let text = |text: &str| bytes::Bytes::copy_from_slice(text.as_bytes());
        let request =
            pb::AuthRoleRevokePermissionRequest { role: role.to_owned(), key: text(key), range_end: text(end) };
        self.auth().role_revoke_permission(request).await.map(|_| ())
    }

    async fn enable(&self) -> Result<(), Status> {
        self.auth().auth_enable(pb::AuthEnableRequest {}).await.map(|_| ())
    }

    async fn disable(&self) -> Result<(), Status> {
        self.auth().auth_disable(pb::AuthDisableRequest {}).await.map(|_| ())
    }
}

/// Permissions of a user: kind, key and end.
type Grants<'a> = &'a [(Kind, &'a str, &'a str)];

/// Enables authentication with root and these users, each of whom has a role of the same name, and its name as the
/// password. Returns nobody, and root.
pub(crate) async fn with_users(site: &Site, users: &[(&str, Grants<'_>)]) -> (Visitor, Visitor) {
    let nobody = Visitor::nobody(site.channel());
    for (name, grants) in users {
        nobody.add_user(name, name).await.expect("it is new");
        nobody.add_role(name).await.expect("it is new");
        nobody.grant_role(name, name).await.expect("both exist");
        for (kind, key, end) in *grants {
            nobody.grant(name, *kind, key, end).await.expect("it is a good one");
        }
    }
    nobody.add_user("root", "root").await.expect("it is new");
    nobody.add_role("root").await.expect("it is new");
    nobody.grant_role("root", "root").await.expect("both exist");
    nobody.enable().await.expect("there is root");
    let root = nobody.log_in_as("root").await;
    (nobody, root)
}

async fn a01_authentication_needs_root(site: Site) {
    let nobody = Visitor::nobody(site.channel());
    refused(nobody.enable().await, Code::FailedPrecondition, "etcdserver: root user does not exist");
    nobody.add_user("root", "root").await.expect("it is new");
    refused(nobody.enable().await, Code::FailedPrecondition, "etcdserver: root user does not have root role");
    let refusal = nobody.log_in("root", "root").await;
    refused(refusal, Code::FailedPrecondition, "etcdserver: authentication is not enabled");
    nobody.add_role("root").await.expect("it is new");
    nobody.grant_role("root", "root").await.expect("both exist");
    nobody.enable().await.expect("there is root");
    let root = nobody.log_in_as("root").await;
    root.enable().await.expect("twice changes nothing");
    root.disable().await.expect("root may");
    nobody.put("k").await.expect("everybody may again");
}

async fn a02_who_has_not_logged_in_gets_nothing(site: Site) {
    let (nobody, root) = with_users(&site, &[("ann", &[(Kind::Readwrite, "k", "")])]).await;
    refused(nobody.put("k").await, Code::InvalidArgument, "etcdserver: user name is empty");
    refused(nobody.get("k").await, Code::InvalidArgument, "etcdserver: user name is empty");
    for bad in ["", "x", "aaaaaaaaaaaaaaaa.1", "a.b.c", "aaaaaaaaaaaaaaaa.18446744073709551615"] {
        refused(nobody.with(bad).get("k").await, Code::Unauthenticated, BAD_TOKEN);
    }
    let ann = nobody.log_in_as("ann").await;
    ann.put("k").await.expect("ann may");
    assert_eq!(ann.get("k").await.expect("ann may"), 1);
    refused(ann.get("l").await, Code::PermissionDenied, DENIED);
    refused(ann.put("l").await, Code::PermissionDenied, DENIED);
    root.put("l").await.expect("root may");
}

async fn a03_a_token_comes_in_either_field(site: Site) {
    let (nobody, _) = with_users(&site, &[("ann", &[(Kind::Read, "k", "")])]).await;
    let token = nobody.log_in("ann", "ann").await.expect("the password is right");
    for (field, token) in
        [("token", token.clone()), ("authorization", token.clone()), ("authorization", format!("Bearer {token}"))]
    {
        nobody.with_field(field, &token).get("k").await.unwrap_or_else(|error| panic!("{field} {token}: {error}"));
    }
}

async fn a04_a_wrong_user_and_a_wrong_password_are_told_alike(site: Site) {
    let (nobody, _) = with_users(&site, &[("ann", &[])]).await;
    for (user, password) in [("ann", "wrong"), ("none", "ann"), ("ann", ""), ("", "")] {
        refused(nobody.log_in(user, password).await, Code::InvalidArgument, FAILED);
    }
}

async fn a05_a_simple_token_is_letters_and_an_index(site: Site) {
    let (nobody, root) = with_users(&site, &[("ann", &[(Kind::Read, "k", "")])]).await;
    let mut tokens = BTreeSet::new();
    for _ in 0..3 {
        let token = nobody.log_in("ann", "ann").await.expect("the password is right");
        let (letters, index) = token.split_once('.').expect("there is a dot");
        assert!(letters.len() == 16 && letters.bytes().all(|byte| byte.is_ascii_alphabetic()), "{token}");
        assert!(index.parse::<u64>().is_ok(), "{token}");
        tokens.insert(token);
    }
    assert_eq!(tokens.len(), 3);
    // All are valid, and outlive changes of roles.
    root.add_role("other").await.expect("it is new");
    root.grant_role("ann", "other").await.expect("both exist");
    for token in tokens {
        nobody.with(&token).get("k").await.expect("it is valid");
    }
}

async fn a05_a_token_ends_with_the_password_or_the_user(site: Site) {
    let (nobody, root) = with_users(&site, &[("ann", &[(Kind::Read, "k", "")]), ("ben", &[])]).await;
    let (ann, ben) = (nobody.log_in_as("ann").await, nobody.log_in_as("ben").await);
    root.change_password("ann", "new").await.expect("root may");
    refused(ann.get("k").await, Code::Unauthenticated, BAD_TOKEN);
    let again = nobody.log_in("ann", "new").await.expect("this is the new one");
    nobody.with(&again).get("k").await.expect("it is valid");
    refused(nobody.log_in("ann", "ann").await, Code::InvalidArgument, FAILED);
    root.delete_user("ben").await.expect("root may");
    let outcome = ben.get("k").await.expect_err("there is no such user");
    assert!([Code::Unauthenticated, Code::PermissionDenied].contains(&outcome.code()), "{outcome}");
}

async fn a05_a_token_ends_when_it_is_not_used(site: Site) {
    let (nobody, _) = with_users(&site, &[("ann", &[(Kind::Read, "k", "")])]).await;
    let ann = nobody.log_in_as("ann").await;
    // It lives on while it is used.
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // On a machine that was very busy meanwhile, it may have ended.
        if ann.get("k").await.is_err() {
            return;
        }
    }
    while ann.get("k").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(2_500)).await;
    }
    refused(ann.get("k").await, Code::Unauthenticated, BAD_TOKEN);
}

async fn a05_a_token_is_valid_at_all_members(site: Site) {
    let (nobody, _) = with_users(&site, &[("ann", &[(Kind::Readwrite, "k", "")])]).await;
    for number in 0..9 {
        let token = nobody.log_in("ann", "ann").await.expect("the password is right");
        let elsewhere = Visitor::nobody(site.channel_to(number).await).with(&token);
        elsewhere.put("k").await.expect("every member knows it at once");
    }
}

async fn a06_a_signed_token_is_old_after_a_change(mut site: Site) {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, [7; 64]).expect("written");
    let options = format!("sign-method=HS256,priv-key={},ttl=10m", secret.display());
    let jwt = Jwt::from_options(&options).expect("they are good ones");
    for config in site.members().configs.values_mut() {
        config.tokens = TokenKind::Jwt(jwt.clone());
    }
    site.restart().await;
    let (nobody, _) = with_users(&site, &[("ann", &[(Kind::Read, "k", "")])]).await;
    let (ann, root) = (nobody.log_in_as("ann").await, nobody.log_in_as("root").await);
    ann.get("k").await.expect("ann may");
    let token = nobody.log_in("ann", "ann").await.expect("the password is right");
    assert_eq!(token.split('.').count(), 3, "{token}");
    root.add_role("other").await.expect("it is new");
    refused(ann.get("k").await, Code::InvalidArgument, "etcdserver: revision of auth store is old");
    nobody.log_in_as("ann").await.get("k").await.expect("ann may");
    // It needs no memory of a member.
    let ann = nobody.log_in_as("ann").await;
    site.restart().await;
    Visitor { channel: site.channel(), ..ann }.get("k").await.expect("it is valid still");
}

async fn a08_permissions_of_several_roles_add_up(site: Site) {
    let users: [(&str, Grants<'_>); 2] =
        [("ann", &[(Kind::Read, "a", "c"), (Kind::Write, "x", "")]), ("other", &[(Kind::Readwrite, "c", "e")])];
    let (nobody, root) = with_users(&site, &users).await;
    let ann = nobody.log_in_as("ann").await;
    let range = |key: &str, end: &str| {
        let (mut kv, request) = (ann.kv(), range(key, end));
        async move { kv.range(request).await.map(|_| ()) }
    };
    refused(range("b", "d").await, Code::PermissionDenied, DENIED);
    root.grant_role("ann", "other").await.expect("both exist");
    range("b", "d").await.expect("the union covers it");
    range("a", "e").await.expect("the union covers it");
    refused(range("a", "f").await, Code::PermissionDenied, DENIED);
    refused(range("b", "\0").await, Code::PermissionDenied, DENIED);
    refused(ann.get("x").await, Code::PermissionDenied, DENIED);
    ann.put("x").await.expect("it may be written");
    refused(ann.put("a").await, Code::PermissionDenied, DENIED);
    root.revoke_role("ann", "other").await.expect("it was granted");
    refused(range("b", "d").await, Code::PermissionDenied, DENIED);
    root.grant("ann", Kind::Read, "\0", "\0").await.expect("allowed");
    range("b", "\0").await.expect("everything may be read");
}

async fn a09_what_comes_along_must_be_permitted_too(site: Site) {
    let grants: Grants<'_> = &[(Kind::Write, "w", ""), (Kind::Readwrite, "b", "")];
    let (nobody, root) = with_users(&site, &[("ann", grants)]).await;
    let ann = nobody.log_in_as("ann").await;
    let put_with = |key: &str| {
        let (mut kv, request) = (ann.kv(), pb::PutRequest { prev_kv: true, ..put(key, "v") });
        async move { kv.put(request).await.map(|_| ()) }
    };
    refused(put_with("w").await, Code::PermissionDenied, DENIED);
    put_with("b").await.expect("ann may read it");
    let deletion = pb::DeleteRangeRequest { prev_kv: true, ..delete("w") };
    refused(ann.kv().delete_range(deletion).await, Code::PermissionDenied, DENIED);
    ann.kv().delete_range(delete("w")).await.expect("ann may write it");
    // A lease to which a key of somebody else is attached.
    let lease = ann.leases().lease_grant(pb::LeaseGrantRequest { ttl: 600, id: 0 }).await.expect("every user may");
    let id = lease.into_inner().id;
    root.kv().put(pb::PutRequest { lease: id, ..put("secret", "v") }).await.expect("root may");
    let attached = pb::PutRequest { lease: id, ..put("w", "v") };
    refused(ann.kv().put(attached).await, Code::PermissionDenied, DENIED);
    refused(ann.leases().lease_revoke(pb::LeaseRevokeRequest { id }).await, Code::PermissionDenied, DENIED);
    let time = |keys| pb::LeaseTimeToLiveRequest { id, keys };
    ann.leases().lease_time_to_live(time(false)).await.expect("every user may");
    refused(ann.leases().lease_time_to_live(time(true)).await, Code::PermissionDenied, DENIED);
    refused(ann.leases().lease_leases(pb::LeaseLeasesRequest {}).await, Code::PermissionDenied, DENIED);
    let renewals = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
    let outcome = match ann.leases().lease_keep_alive(renewals).await {
        Ok(answers) => answers.into_inner().message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    refused(outcome, Code::PermissionDenied, DENIED);
}

async fn a10_every_part_of_a_transaction_counts(site: Site) {
    let (nobody, _) = with_users(&site, &[("ann", &[(Kind::Readwrite, "k", "")])]).await;
    let ann = nobody.log_in_as("ann").await;
    let good = all(vec![op_put("k", "v")]);
    ann.kv().txn(good.clone()).await.expect("ann may");
    let within = op_txn(pb::TxnRequest { failure: vec![op_put("x", "v")], ..pb::TxnRequest::default() });
    let bad = [
        pb::TxnRequest { compare: vec![version_is("x", 0)], ..good.clone() },
        all(vec![op_put("x", "v")]),
        all(vec![op_get("x")]),
        all(vec![op_delete("x", "")]),
        pb::TxnRequest { failure: vec![op_put("x", "v")], ..good.clone() },
        pb::TxnRequest { failure: vec![op_get("x")], ..good.clone() },
        pb::TxnRequest { failure: vec![within], ..good },
    ];
    for txn in bad {
        refused(ann.kv().txn(txn).await, Code::PermissionDenied, DENIED);
    }
    refused(ann.get("x").await, Code::PermissionDenied, DENIED);
}

async fn a11_some_things_are_for_root(site: Site) {
    let (nobody, root) = with_users(&site, &[("ann", &[(Kind::Readwrite, "\0", "\0")])]).await;
    let ann = nobody.log_in_as("ann").await;
    let maintenance = |visitor: &Visitor| MaintenanceClient::new(visitor.service());
    let cluster = |visitor: &Visitor| ClusterClient::new(visitor.service());
    let denied = |outcome: Result<(), Status>| refused(outcome, Code::PermissionDenied, DENIED);
    denied(ann.kv().compact(pb::CompactionRequest { revision: 1, physical: false }).await.map(|_| ()));
    denied(maintenance(&ann).defragment(pb::DefragmentRequest {}).await.map(|_| ()));
    denied(maintenance(&ann).hash_kv(pb::HashKvRequest { revision: 0 }).await.map(|_| ()));
    denied(maintenance(&ann).hash(pb::HashRequest {}).await.map(|_| ()));
    denied(maintenance(&ann).move_leader(pb::MoveLeaderRequest { target_id: 1 }).await.map(|_| ()));
    let snapshot = match maintenance(&ann).snapshot(pb::SnapshotRequest {}).await {
        Ok(blobs) => blobs.into_inner().message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    denied(snapshot);
    denied(
        cluster(&ann)
            .member_add(pb::MemberAddRequest { peer_ur_ls: vec!["http://a:1".to_owned()], is_learner: true })
            .await
            .map(|_| ()),
    );
    denied(cluster(&ann).member_remove(pb::MemberRemoveRequest { id: 1 }).await.map(|_| ()));
    denied(ann.add_user("ben", "ben").await);
    denied(ann.auth().user_list(pb::AuthUserListRequest {}).await.map(|_| ()));
    denied(ann.auth().role_list(pb::AuthRoleListRequest {}).await.map(|_| ()));
    denied(ann.disable().await);
    // Every user may see how the cluster is.
    maintenance(&ann).status(pb::StatusRequest {}).await.expect("every user may");
    cluster(&ann).member_list(pb::MemberListRequest { linearizable: true }).await.expect("every user may");
    let outcome = maintenance(&nobody).status(pb::StatusRequest {}).await.map(|_| ());
    refused(outcome, Code::InvalidArgument, "etcdserver: user name is empty");
    root.auth().user_list(pb::AuthUserListRequest {}).await.expect("root may");
    maintenance(&root).defragment(pb::DefragmentRequest {}).await.expect("root may");
}

async fn a11_a_user_may_ask_about_itself(site: Site) {
    let (nobody, root) = with_users(&site, &[("ann", &[(Kind::Read, "k", "l")]), ("ben", &[])]).await;
    let ann = nobody.log_in_as("ann").await;
    let user = |name: &str| pb::AuthUserGetRequest { name: name.to_owned() };
    let role = |role: &str| pb::AuthRoleGetRequest { role: role.to_owned() };
    assert_eq!(ann.auth().user_get(user("ann")).await.expect("itself").into_inner().roles, ["ann"]);
    let perm = ann.auth().role_get(role("ann")).await.expect("its own role").into_inner().perm;
    assert_eq!((perm.len(), perm[0].perm_type(), &perm[0].key[..]), (1, Kind::Read, &b"k"[..]));
    refused(ann.auth().user_get(user("ben")).await, Code::PermissionDenied, DENIED);
    refused(ann.auth().role_get(role("ben")).await, Code::PermissionDenied, DENIED);
    let missing = root.auth().user_get(user("none")).await;
    refused(missing, Code::FailedPrecondition, "etcdserver: user name not found");
    let missing = root.auth().role_get(role("none")).await;
    refused(missing, Code::FailedPrecondition, "etcdserver: role name not found");
    let all = root.auth().role_get(role("root")).await.expect("root may").into_inner().perm;
    assert_eq!((all.len(), all[0].perm_type(), &all[0].range_end[..]), (1, Kind::Readwrite, &[0][..]));
}

async fn a12_root_stays(site: Site) {
    let (_, root) = with_users(&site, &[]).await;
    refused(root.delete_user("root").await, Code::InvalidArgument, BAD_MANAGEMENT);
    refused(root.revoke_role("root", "root").await, Code::InvalidArgument, BAD_MANAGEMENT);
    let deleted = root.auth().role_delete(pb::AuthRoleDeleteRequest { role: "root".to_owned() }).await;
    refused(deleted, Code::InvalidArgument, BAD_MANAGEMENT);
}

async fn a13_a_permission_is_for_keys(site: Site) {
    let nobody = Visitor::nobody(site.channel());
    nobody.add_role("r").await.expect("it is new");
    let none = pb::AuthRoleGrantPermissionRequest { name: "r".to_owned(), perm: None };
    let outcome = nobody.auth().role_grant_permission(none).await;
    refused(outcome, Code::InvalidArgument, "etcdserver: permission not given");
    for (key, end) in [("b", "a"), ("b", "b")] {
        refused(nobody.grant("r", Kind::Read, key, end).await, Code::InvalidArgument, BAD_MANAGEMENT);
    }
    let outcome = nobody.revoke("r", "a", "").await;
    refused(outcome, Code::FailedPrecondition, "etcdserver: permission is not granted to the role");
    let outcome = nobody.grant("none", Kind::Read, "a", "").await;
    refused(outcome, Code::FailedPrecondition, "etcdserver: role name not found");
    refused(nobody.add_role("r").await, Code::FailedPrecondition, "etcdserver: role name already exists");
    refused(nobody.add_role("").await, Code::InvalidArgument, "etcdserver: role name is empty");
    nobody.add_user("ann", "ann").await.expect("it is new");
    refused(nobody.add_user("ann", "x").await, Code::FailedPrecondition, "etcdserver: user name already exists");
    refused(nobody.add_user("", "x").await, Code::InvalidArgument, "etcdserver: user name is empty");
    let outcome = nobody.revoke_role("ann", "r").await;
    refused(outcome, Code::FailedPrecondition, "etcdserver: role is not granted to the user");
    refused(nobody.delete_user("none").await, Code::FailedPrecondition, "etcdserver: user name not found");
    let outcome = nobody.change_password("none", "x").await;
    refused(outcome, Code::FailedPrecondition, "etcdserver: user name not found");
}

async fn a14_a_user_without_a_password_does_not_get_in_with_one(site: Site) {
    let (nobody, root) = with_users(&site, &[]).await;
    let options = Some(UserAddOptions { no_password: true });
    let request = pb::AuthUserAddRequest { name: "cert".to_owned(), options, ..Default::default() };
    root.auth().user_add(request).await.expect("root may");
    for password in ["", "cert"] {
        refused(nobody.log_in("cert", password).await, Code::InvalidArgument, FAILED);
    }
}

async fn a14_a_password_is_in_no_file(mut site: Site) {
    const CANARY: &str = "canary-4711-password";
    let (nobody, root) = with_users(&site, &[]).await;
    root.add_user("ann", CANARY).await.expect("root may");
    let token = nobody.log_in("ann", CANARY).await.expect("the password is right");
    let letters = token.split_once('.').expect("a simple token").0.to_owned();
    let mut bytes = 0;
    for config in site.members().configs.values() {
        for entry in walk(&config.data_dir) {
            let content = std::fs::read(&entry).unwrap_or_default();
            bytes += content.len();
            for secret in [CANARY, &letters] {
                let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{} holds a secret", entry.display());
            }
        }
    }
    assert!(bytes > 1 << 20, "there are files: {bytes} bytes");
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    entries.flat_map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { vec![entry.path()] }).collect()
}

async fn a15_the_revision_counts_changes(site: Site) {
    let nobody = Visitor::nobody(site.channel());
    let status = || {
        let mut auth = nobody.auth();
        async move { auth.auth_status(pb::AuthStatusRequest {}).await.expect("everybody may ask").into_inner() }
    };
    assert_eq!((status().await.enabled, status().await.auth_revision), (false, 1));
    nobody.add_user("root", "root").await.expect("it is new");
    nobody.add_role("r").await.expect("it is new");
    nobody.grant("r", Kind::Read, "k", "").await.expect("allowed");
    nobody.grant_role("root", "r").await.expect("both exist");
    assert_eq!(status().await.auth_revision, 5);
    nobody.grant_role("root", "root").await.expect("the role root need not exist");
    nobody.enable().await.expect("there is root");
    assert_eq!(status().await.auth_revision, 6);
    if !site.is_etcd() {
        assert!(status().await.enabled);
    }
}
