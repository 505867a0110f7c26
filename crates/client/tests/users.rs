//! Users and roles at a real cluster. `BOWLINE_CHECKLIST_ETCD=/usr/bin/etcd` runs the same tests at a real etcd.

mod support;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bowline_client::{
    Access, Client, ClientError, EventKind, Keys, Lock, Op, Permission, WatchItem, WatchRequest, Watcher,
};
use support::{Cluster, PATIENCE, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

/// A cluster of one.
enum Site {
    Ours(Cluster),
    Etcd { program: String, child: Child, folder: tempfile::TempDir, urls: [String; 2] },
}

impl Site {
    fn start() -> Site {
        let Ok(program) = std::env::var("BOWLINE_CHECKLIST_ETCD") else { return Site::Ours(Cluster::start(1)) };
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
        let urls = listeners.map(|listener| format!("http://{}", listener.local_addr().expect("it is bound")));
        let folder = tempfile::tempdir().expect("a folder");
        let child = launch(&program, &folder, &urls);
        Site::Etcd { program, child, folder, urls }
    }

    fn client(&self) -> Client {
        match self {
            Site::Ours(cluster) => cluster.client(&[1]),
            Site::Etcd { urls, .. } => Client::new(&[&urls[0]], PATIENCE).expect("a good endpoint"),
        }
    }

    fn user(&self, name: &str) -> Client {
        self.client().with_user(name, format!("the password of {name}"))
    }

    /// As kill -9, and a start with the same data.
    fn restart(&mut self) {
        match self {
            Site::Ours(cluster) => {
                cluster.kill(1);
                cluster.restart(1);
            }
            Site::Etcd { program, child, folder, urls } => {
                child.kill().and_then(|()| child.wait()).expect("it ran");
                *child = launch(program, folder, urls);
            }
        }
    }

    /// How many logins it has allowed since its start.
    async fn logins(&self) -> u64 {
        let address = self.client().endpoints().next().expect("it has one").replace("http://", "");
        let mut stream = tokio::net::TcpStream::connect(&address).await.expect("it listens");
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut page = String::new();
        stream.read_to_string(&mut page).await.expect("answered");
        let line = |line: &&str| {
            line.starts_with("grpc_server_handled_total{")
                && line.contains("grpc_method=\"Authenticate\"")
                && line.contains("grpc_code=\"OK\"")
        };
        let (_, count) = page.lines().find(line).and_then(|line| line.rsplit_once(' ')).expect("it is counted");
        count.parse().expect("a number")
    }

    /// Waits until it serves.
    async fn serves(&self, mut client: Client) {
        eventually("it serves", async || client.range(Op::get("x").count_only()).await.ok()).await;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Site::Etcd { child, .. } = self {
            // One that has ended is what was wanted.
            let _ = child.kill().and_then(|()| child.wait().map(drop));
        }
    }
}

fn launch(program: &str, folder: &tempfile::TempDir, [client, peer]: &[String; 2]) -> Child {
    let mut command = Command::new(program);
    command.args(["--name", "only", "--initial-cluster", &format!("only={peer}"), "--log-level", "fatal"]);
    command.args(["--listen-client-urls", client, "--advertise-client-urls", client, "--logger", "zap"]);
    command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
    command.arg("--data-dir").arg(folder.path().join("data"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
}

/// A cluster with root, whose client this is, and alice, who may read and write what begins with `app/`.
async fn locked() -> (Site, Client) {
    let site = Site::start();
    let mut client = site.client();
    site.serves(client.clone()).await;
    for name in ["root", "alice"] {
        client.user_add(name, Some(format!("the password of {name}").into())).await.expect("added");
    }
    client.user_grant_role("root", "root").await.expect("granted");
    client.role_add("app").await.expect("added");
    let permission = Permission { access: Access::ReadWrite, keys: Keys::Prefix("app/".into()) };
    client.role_grant_permission("app", permission).await.expect("granted");
    client.user_grant_role("alice", "app").await.expect("granted");
    client.auth_enable().await.expect("enabled");
    let root = site.user("root");
    (site, root)
}

fn is_denied(result: Result<impl Sized, ClientError>, user: &str) -> bool {
    matches!(result, Err(ClientError::PermissionDenied { user: Some(who), .. }) if who == user)
}

fn refusal(result: Result<impl Sized, ClientError>) -> (Code, String) {
    match result.map(drop) {
        Err(ClientError::Refused { status, .. }) => (status.code(), status.message().to_owned()),
        other => panic!("it is not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_roles_are_what_they_were_made() {
    let site = Site::start();
    let mut client = site.client();
    site.serves(client.clone()).await;
    let failed = |what: &str| (Code::FailedPrecondition, format!("etcdserver: {what}"));
    assert_eq!(refusal(client.auth_enable().await), failed("root user does not exist"));
    client.user_add("root", Some("r".into())).await.expect("added");
    assert_eq!(refusal(client.auth_enable().await), failed("root user does not have root role"));
    assert_eq!(refusal(client.user_add("root", Some("r".into())).await), failed("user name already exists"));
    assert_eq!(refusal(client.user_get("nobody").await), failed("user name not found"));
    client.user_add("cert", None).await.expect("added");
    assert_eq!(client.user_list().await.expect("listed"), ["cert", "root"]);
    client.user_delete("cert").await.expect("deleted");
    assert_eq!(client.user_list().await.expect("listed"), ["root"]);

    client.role_add("mixed").await.expect("added");
    assert_eq!(client.role_get("mixed").await.expect("known"), []);
    let all = [
        (Access::Read, Keys::One("a".into())),
        (Access::Write, Keys::Range("b".into(), "d".into())),
        (Access::ReadWrite, Keys::Prefix("e/".into())),
        (Access::Read, Keys::From("x".into())),
    ];
    for (access, keys) in all.clone() {
        client.role_grant_permission("mixed", Permission { access, keys }).await.expect("granted");
    }
    let expected = all.map(|(access, keys)| Permission { access, keys });
    assert_eq!(client.role_get("mixed").await.expect("known"), expected);
    client.role_revoke_permission("mixed", &Keys::Range("b".into(), "d".into())).await.expect("revoked");
    let gone = client.role_revoke_permission("mixed", &Keys::One("b".into())).await;
    assert_eq!(refusal(gone), failed("permission is not granted to the role"));
    assert_eq!(client.role_get("mixed").await.expect("known").len(), 3);

    client.user_grant_role("root", "mixed").await.expect("granted");
    client.user_grant_role("root", "root").await.expect("granted");
    assert_eq!(client.user_get("root").await.expect("known"), ["mixed", "root"]);
    client.user_revoke_role("root", "mixed").await.expect("revoked");
    assert_eq!(client.user_get("root").await.expect("known"), ["root"]);
    client.role_delete("mixed").await.expect("deleted");
    assert_eq!(refusal(client.role_get("mixed").await), failed("role name not found"));

    match client.auth_status().await {
        Ok(status) => assert!(!status.enabled && status.revision > 1, "{status:?}"),
        // etcd has it since 3.5.
        Err(error) => assert_eq!(refusal(Err::<(), _>(error)).0, Code::Unimplemented),
    }
    client.auth_enable().await.expect("enabled");
    assert_eq!(refusal(client.get("k").await), (Code::InvalidArgument, "etcdserver: user name is empty".to_owned()));
    let mut root = site.client().with_user("root", "r");
    root.auth_disable().await.expect("disabled");
    client.get("k").await.expect("everybody may read again");
    // Without users, a client with one works, too.
    root.put("k", "v").await.expect("put");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_do_what_a_role_allows_and_nothing_else() {
    let (site, mut root) = locked().await;
    let mut alice = site.user("alice");
    alice.put("app/1", "one").await.expect("put");
    assert_eq!(alice.get("app/1").await.expect("read").expect("it is there").value, "one");
    assert!(is_denied(alice.put("other", "v").await, "alice"));
    assert!(is_denied(alice.range(Op::get("").prefix()).await, "alice"));
    let txn = alice.txn().then(Op::put("app/2", "v")).then(Op::put("other", "v"));
    assert!(is_denied(txn.commit().await, "alice"));
    assert!(is_denied(alice.watch(WatchRequest::prefix("")).await, "alice"));
    assert!(is_denied(alice.user_list().await, "alice"));
    assert!(is_denied(alice.user_add("mallory", Some("m".into())).await, "alice"));
    assert!(alice.get("app/2").await.expect("read").is_none(), "nothing of the transaction was done");
    let error = alice.put("other", "v").await.expect_err("denied").to_string();
    assert!(error.ends_with("the user alice: permission denied; a role of this user must grant it"), "{error}");

    let mut watcher = alice.watch(WatchRequest::prefix("app/")).await.expect("it may be watched");
    root.put("app/3", "three").await.expect("put");
    assert_eq!(next(&mut watcher).await, "app/3");
    let lease = alice.lease(Duration::from_secs(60)).await.expect("granted");
    let guard = Lock::new(&alice, "app/lock").acquire(&lease).await.expect("locked");
    guard.release().await.expect("released");
    // What the role allows changes at once.
    root.role_grant_permission("app", Permission { access: Access::Read, keys: Keys::One("other".into()) })
        .await
        .expect("granted");
    assert!(alice.get("other").await.expect("read").is_none());
}

/// The key of the next event of a watch.
async fn next(watcher: &mut Watcher) -> String {
    let item = tokio::time::timeout(PATIENCE, async {
        loop {
            if let WatchItem::Events { events, .. } = watcher.next().await.expect("it goes on").expect("it is served") {
                assert_eq!(events[0].kind, EventKind::Put);
                return String::from_utf8_lossy(&events[0].kv.key).into_owned();
            }
        }
    });
    item.await.expect("it comes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_lost_is_replaced_without_an_error() {
    let (mut site, mut root) = locked().await;
    let mut alice = site.user("alice");
    let mut watcher = alice.watch(WatchRequest::prefix("app/")).await.expect("watched");
    let lease = alice.lease(Duration::from_secs(3)).await.expect("granted");
    alice.put_request(Op::put("app/leased", "v").lease(lease.id())).await.expect("put");
    assert_eq!(next(&mut watcher).await, "app/leased");
    // A new password takes the tokens away, even if it is the old one.
    let same = || "the password of alice".into();
    root.user_change_password("alice", same()).await.expect("changed");
    let before = site.logins().await;
    let puts: Vec<_> = (0..20)
        .map(|number| {
            let mut alice = alice.clone();
            tokio::spawn(async move { alice.put(format!("app/all/{number}"), "v").await })
        })
        .collect();
    for put in puts {
        put.await.expect("no panic").expect("it has logged in again");
    }
    assert_eq!(site.logins().await, before + 1, "calls that fail together share a login");
    for _ in 0..20 {
        assert!(next(&mut watcher).await.starts_with("app/all/"));
    }

    // Now the streams have to be opened again, too, and find no other call that has logged in before.
    root.user_change_password("alice", same()).await.expect("changed");
    site.restart();
    site.serves(root.clone()).await;
    root.put("app/root", "v").await.expect("put");
    assert_eq!(next(&mut watcher).await, "app/root", "the watch has logged in again");
    // Longer than its time to live.
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        assert!(lease.is_alive(), "{:?}", lease.end());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(alice.get("app/leased").await.expect("read").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_apart() {
    let (site, mut root) = locked().await;
    for (name, password) in [("alice", "not hers"), ("nobody", "the password of nobody")] {
        let mut client = site.client().with_user(name, password);
        for _ in 0..2 {
            let error = client.put("app/1", "v").await.expect_err("it can't log in");
            assert!(matches!(&error, ClientError::WrongPassword { user, .. } if user == name), "{error}");
            assert!(!format!("{error} {client:?}").contains(password));
        }
        let error = client.watch(WatchRequest::prefix("app/")).await.expect_err("it can't log in");
        assert!(matches!(error, ClientError::WrongPassword { .. }), "{error}");
        let error = client.snapshot().await.expect_err("it can't log in");
        assert!(matches!(error, ClientError::WrongPassword { .. }), "{error}");
    }
    // Who changes the own password stays logged in, and others with the old one do not.
    let (mut other, mut clone) = (site.user("root"), root.clone());
    other.get("k").await.expect("logged in");
    root.user_change_password("root", "new".into()).await.expect("changed");
    root.get("k").await.expect("logged in again");
    clone.get("k").await.expect("the clone, too");
    let error = other.get("k").await.expect_err("its password is the old one");
    assert!(matches!(error, ClientError::WrongPassword { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_that_are_enabled_later_are_noticed() {
    let site = Site::start();
    let mut client = site.client();
    site.serves(client.clone()).await;
    let mut early = site.client().with_user("root", "r");
    early.put("k", "v").await.expect("put without a token");
    client.user_add("root", Some("r".into())).await.expect("added");
    client.user_grant_role("root", "root").await.expect("granted");
    client.auth_enable().await.expect("enabled");
    early.put("k", "w").await.expect("put with one");
    assert_eq!(early.get("k").await.expect("read").expect("it is there").value, "w");
    let saved = early.snapshot().await.expect("it may").next().await.expect("it is sent");
    assert!(saved.is_some());
    let told = early.status().await.pop().expect("one endpoint").1;
    told.expect("it may");
}
