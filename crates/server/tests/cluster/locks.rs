//! Locks that the server keeps, when it stops, and when a permission goes.

use std::time::Duration;

use bowline_api::authpb::permission::Type as Kind;
use bowline_api::authpb::{Permission, UserAddOptions};
use bowline_api::etcdserverpb as pb;
use bowline_api::v3lockpb as locks;
use locks::lock_client::LockClient;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::harness::{Cluster, PATIENCE, prefix};

async fn lock(channel: Channel, token: Option<String>) -> Result<locks::LockResponse, Status> {
    let mut request = Request::new(locks::LockRequest { name: "l".into(), lease: 0 });
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.parse().expect("it is text"));
    }
    LockClient::new(channel).lock(request).await.map(tonic::Response::into_inner)
}

/// Waits until the lock has so many keys.
async fn queue(kv: &mut KvClient<Channel>, token: &Option<String>, length: i64) {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut request = Request::new(prefix("l/"));
        if let Some(token) = token {
            request.metadata_mut().insert("token", token.parse().expect("it is text"));
        }
        if kv.range(request).await.is_ok_and(|found| found.get_ref().count == length) {
            return;
        }
        assert!(tokio::time::Instant::now() < until, "the lock does not get {length} keys");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_waiter_at_a_member_that_stops_is_told_and_leaves_the_queue() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader_of_all().await;
    let follower = cluster.follower().await;
    lock(cluster.channel(leader).await, None).await.expect("locked");
    let waiter = tokio::spawn(lock(cluster.channel(follower).await, None));
    let mut kv = cluster.client(leader).await;
    queue(&mut kv, &None, 2).await;
    cluster.stop(follower);
    let error = waiter.await.expect("it goes on").expect_err("the member has stopped");
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "etcdserver: server stopped"));
    queue(&mut kv, &None, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_waiter_whose_permission_goes_is_refused() {
    let cluster = Cluster::start(1, &[]);
    cluster.leader().await;
    let channel = cluster.channel(1).await;
    let mut auth = AuthClient::new(channel.clone());
    for name in ["root", "ann"] {
        let (name, password) = (name.to_owned(), name.to_owned());
        let options = Some(UserAddOptions { no_password: false });
        let user = pb::AuthUserAddRequest { name: name.clone(), password, options, hashed_password: String::new() };
        auth.user_add(user).await.expect("it is new");
        auth.role_add(pb::AuthRoleAddRequest { name: name.clone() }).await.expect("it is new");
        let grant = pb::AuthUserGrantRoleRequest { user: name.clone(), role: name };
        auth.user_grant_role(grant).await.expect("both exist");
    }
    let perm = Permission { perm_type: Kind::Readwrite.into(), key: "l/".into(), range_end: "l0".into() };
    let grant = pb::AuthRoleGrantPermissionRequest { name: "ann".to_owned(), perm: Some(perm) };
    auth.role_grant_permission(grant).await.expect("a good one");
    auth.auth_enable(pb::AuthEnableRequest {}).await.expect("there is root");
    let mut tokens = Vec::new();
    for name in ["root", "ann"] {
        let login = pb::AuthenticateRequest { name: name.to_owned(), password: name.to_owned() };
        tokens.push(Some(auth.authenticate(login).await.expect("the password is right").into_inner().token));
    }
    let [root, ann] = <[_; 2]>::try_from(tokens).expect("there are two");
    lock(channel.clone(), ann.clone()).await.expect("ann may");
    let refused = lock(channel.clone(), None).await.expect_err("nobody may not");
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "etcdserver: user name is empty"));
    let waiter = tokio::spawn(lock(channel.clone(), ann));
    let mut kv = cluster.client(1).await;
    queue(&mut kv, &root, 2).await;
    let revoke =
        pb::AuthRoleRevokePermissionRequest { role: "ann".to_owned(), key: "l/".into(), range_end: "l0".into() };
    let mut revoke = Request::new(revoke);
    revoke.metadata_mut().insert("token", root.as_deref().expect("a token").parse().expect("it is text"));
    auth.role_revoke_permission(revoke).await.expect("root may");
    let error = waiter.await.expect("it goes on").expect_err("it may not any more");
    assert_eq!((error.code(), error.message()), (Code::PermissionDenied, "etcdserver: permission denied"));
}
