//! TLS at the ports of members.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bowline_client::{Access, Client, ClientError, ClientFiles, Keys, Op, Permission};
use bowline_server::peer::Protocol;
use bowline_tls::issue::{Ca, Order, Pair, Role, Span, write};
use bowline_tls::{ClientTls, Facts, Protocol as Http, SPEAKS_TLS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Cluster, PATIENCE, http};

/// Valid whenever the test runs.
const ALWAYS: Span = Span { begin: 0, end: 4_102_444_800 };

/// A CA, and the files that it has signed.
struct Files {
    folder: tempfile::TempDir,
    ca: Ca,
}

impl Files {
    fn new(name: &str) -> Files {
        let files = Files { folder: tempfile::tempdir().expect("a folder"), ca: Ca::new(name, ALWAYS).expect("made") };
        write(&files.path("ca.crt"), &files.ca.pair().cert).expect("written");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Signs a certificate, for 127.0.0.1 if it is a member's, and writes it.
    fn issue(&self, name: &str, role: Role, span: Span) -> Pair {
        let hosts = if role == Role::Member { vec!["127.0.0.1".to_owned()] } else { Vec::new() };
        let pair = self.ca.issue(&Order { name, hosts: &hosts, role, span }).expect("signed");
        pair.write(&self.path(&format!("{name}.crt")), &self.path(&format!("{name}.key"))).expect("written");
        pair
    }

    /// The settings for clients, with the certificate of this name.
    fn for_clients(&self, name: &str) -> Vec<(String, String)> {
        self.settings(name, ["cert_file", "key_file", "trusted_ca_file"])
    }

    /// The settings for members.
    fn for_members(&self, name: &str) -> Vec<(String, String)> {
        self.settings(name, ["peer_cert_file", "peer_key_file", "peer_trusted_ca_file"])
    }

    fn settings(&self, name: &str, keys: [&str; 3]) -> Vec<(String, String)> {
        let files = [format!("{name}.crt"), format!("{name}.key"), "ca.crt".to_owned()];
        keys.into_iter().zip(files).map(|(key, file)| (key.to_owned(), self.text(&file))).collect()
    }

    fn revoke(&self, pairs: &[&Pair]) {
        let texts: Vec<&str> = pairs.iter().map(|pair| pair.cert.as_str()).collect();
        write(&self.path("ca.crl"), &self.ca.revoke(&texts, ALWAYS).expect("signed")).expect("written");
    }

    /// A client's TLS with the certificate of this name.
    fn client(&self, name: &str) -> ClientTls {
        let identity = Some((self.path(&format!("{name}.crt")), self.path(&format!("{name}.key"))));
        let files = ClientFiles { ca: Some(self.path("ca.crt")), identity, ..ClientFiles::default() };
        files.load().expect("good files")
    }

    /// A client's TLS without a certificate.
    fn nobody(&self) -> ClientTls {
        let files = ClientFiles { ca: Some(self.path("ca.crt")), ..ClientFiles::default() };
        files.load().expect("a good file")
    }
}

fn set(key: &str, value: impl Into<String>) -> (String, String) {
    (key.to_owned(), value.into())
}

fn alone(settings: Vec<(String, String)>) -> Cluster {
    Cluster::start_each(1, Protocol::CURRENT, |_| settings.clone())
}

fn endpoint(cluster: &Cluster, id: u64) -> String {
    cluster.server(id).client_address().to_string()
}

fn client(cluster: &Cluster, ids: &[u64], tls: &ClientTls) -> Client {
    let endpoints: Vec<String> = ids.iter().map(|id| endpoint(cluster, *id)).collect();
    Client::with_tls(&endpoints, PATIENCE, tls).expect("good endpoints")
}

/// Why a write is refused, which must be told soon.
async fn refused(cluster: &Cluster, tls: &ClientTls) -> String {
    let mut client = client(cluster, &[1], tls);
    let began = Instant::now();
    let error = client.put("k", "v").await.expect_err("it has no good certificate");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}: {error}", began.elapsed());
    let ClientError::Unreachable { why, .. } = error else { panic!("nothing was done: {error}") };
    let read = client.get("k").await.expect_err("nor may it read").to_string();
    assert!(read.ends_with(&why), "{read}");
    let Err(watch) = client.watch(bowline_client::WatchRequest::key("k")).await else { panic!("nor may it watch") };
    assert!(watch.to_string().ends_with(&why), "{watch}");
    why
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_members_elect_replicate_and_survive_the_restart_of_one() {
    let files = Files::new("ca");
    for id in 1..=3 {
        files.issue(&format!("m{id}"), Role::Member, ALWAYS);
    }
    files.issue("c", Role::Client, ALWAYS);
    let settings = |id| [files.for_clients(&format!("m{id}")), files.for_members(&format!("m{id}"))].concat();
    let mut cluster = Cluster::start_each(3, Protocol::CURRENT, settings);
    let (leader, tls) = (cluster.leader().await, files.client("c"));
    let mut all = client(&cluster, &[1, 2, 3], &tls);
    all.put("before", "1").await.expect("written");
    let lost = leader % 3 + 1;
    cluster.kill(lost);
    let rest: Vec<u64> = (1..=3).filter(|id| *id != lost).collect();
    let mut others = client(&cluster, &rest, &tls);
    // Through a follower, and with an entry that takes more than one record of TLS.
    let long = "x".repeat(300 << 10);
    others.put("meanwhile", long.clone()).await.expect("written by two of three");
    cluster.restart(lost);
    let mut back = client(&cluster, &[lost], &tls);
    let read = back.get("meanwhile").await.expect("it has caught up").expect("it is there");
    assert_eq!(read.value, long);
    back.put("after", "2").await.expect("forwarded to the leader");
    let members = back.member_list(true).await.expect("listed").members;
    assert!(
        members.iter().all(|member| member.peer_ur_ls.iter().all(|url| url.starts_with("https://"))),
        "{members:?}"
    );
    assert!(members.iter().all(|member| member.client_ur_ls[0].starts_with("https://")), "{members:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_needs_a_certificate_that_is_valid() {
    let (files, strangers) = (Files::new("ca"), Files::new("other"));
    files.issue("m", Role::Member, ALWAYS);
    files.issue("good", Role::Client, ALWAYS);
    let lost = files.issue("lost", Role::Client, ALWAYS);
    strangers.issue("stranger", Role::Client, ALWAYS);
    write(&strangers.path("ca.crt"), &files.ca.pair().cert).expect("written");
    files.revoke(&[&lost]);
    let settings = [files.for_clients("m"), vec![set("client_crl_file", files.text("ca.crl"))]].concat();
    let cluster = alone(settings);
    cluster.leader().await;
    client(&cluster, &[1], &files.client("good")).put("k", "v").await.expect("it is welcome");
    let told = "the server refused the connection: ";
    assert_eq!(refused(&cluster, &files.nobody()).await, format!("{told}it wants a certificate, and none was given"));
    assert_eq!(
        refused(&cluster, &files.client("lost")).await,
        format!("{told}it says that this certificate is revoked")
    );
    let why = refused(&cluster, &strangers.client("stranger")).await;
    assert_eq!(why, format!("{told}it does not trust the CA that signed this certificate"));
    // A client that does not know the CA of the server.
    write(&strangers.path("ca.crt"), &strangers.ca.pair().cert).expect("written");
    let why = refused(&cluster, &strangers.client("stranger")).await;
    assert_eq!(why, "the certificate of the server is not signed by a trusted CA");
}

/// A client refuses to load a certificate that has expired, so these come from a pair that it takes for another one.
/// A7: and no field of a request says who somebody is (CVE-2018-16886).
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_name_in_the_certificate_is_the_user() {
    let files = Files::new("ca");
    files.issue("m", Role::Member, ALWAYS);
    for name in ["root", "ann", "stranger"] {
        files.issue(name, Role::Client, ALWAYS);
    }
    let cluster = Cluster::start_each(1, Protocol::CURRENT, |_| files.for_clients("m"));
    cluster.leader().await;
    let [mut root, mut ann, mut stranger] =
        ["root", "ann", "stranger"].map(|it| client(&cluster, &[1], &files.client(it)));
    root.user_add("root", None).await.expect("nobody has to log in yet");
    root.user_grant_role("root", "root").await.expect("it exists");
    root.user_add("ann", None).await.expect("it is new");
    root.role_add("r").await.expect("it is new");
    let permission = Permission { access: Access::ReadWrite, keys: Keys::Prefix("ann/".into()) };
    root.role_grant_permission("r", permission).await.expect("a good one");
    root.user_grant_role("ann", "r").await.expect("both exist");
    root.auth_enable().await.expect("there is root");
    ann.put("ann/1", "v").await.expect("ann may");
    let refused = |outcome: Result<_, ClientError>| {
        let error = outcome.expect_err("it is not permitted");
        assert!(matches!(error, ClientError::PermissionDenied { .. }), "{error:?}");
    };
    refused(ann.put("other", "v").await.map(|_| ()));
    refused(stranger.get("ann/1").await.map(|_| ()));
    root.put("other", "v").await.expect("root may");
    // A token counts more than the certificate.
    root.user_add("ben", Some("a password".into())).await.expect("root may");
    let mut ben = client(&cluster, &[1], &files.client("root")).with_user("ben", "a password");
    refused(ben.get("other").await.map(|_| ()));
    spoofed(&cluster, &files.client("root")).await;
}

/// S9 and A7: over JSON, neither the name in the certificate nor any header says who somebody is.
async fn spoofed(cluster: &Cluster, tls: &ClientTls) {
    let names = [
        "X-Nothing",
        "Grpc-Metadata-Username",
        "Grpc-Metadata-Grpcgateway-Authorization",
        "Grpc-Metadata-Common-Name",
        "Grpcgateway-Authorization",
        "X-Forwarded-User",
        "X-Forwarded-Client-Cert",
        "X-SSL-Client-CN",
        "Token",
        "User",
    ];
    for name in names {
        for path in ["/v3/kv/range", "/v3/watch", "/v3/lease/keepalive", "/v3/auth/user/list"] {
            let stream = TcpStream::connect(cluster.server(1).client_address()).await.expect("it listens");
            let mut stream = tls.connect("127.0.0.1", stream, Http::Http1).await.expect("welcome");
            let body = r#"{"key":"YQ==","create_request":{"key":"YQ=="},"ID":1}"#;
            let head = format!("POST {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n{name}: root\r\n");
            let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(request.as_bytes()).await.expect("sent");
            stream.flush().await.expect("sent");
            let mut answer = String::new();
            while !answer.contains("user name is empty") {
                let mut buffer = [0; 1_024];
                let read = stream.read(&mut buffer).await.expect("answered");
                assert!(read > 0, "{path} with {name}: {answer}");
                answer.push_str(&String::from_utf8_lossy(&buffer[..read]));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn expired_and_early_certificates_are_refused_with_the_date() {
    let files = Files::new("ca");
    files.issue("m", Role::Member, ALWAYS);
    files.issue("old", Role::Client, Span { begin: 0, end: 946_684_799 });
    files.issue("young", Role::Client, Span { begin: 4_102_444_800, end: 4_133_980_800 });
    for (name, why) in [
        ("old", "the certificate expired on 1999-12-31 23:59:59 UTC"),
        ("young", "the certificate is not valid before 2100-01-01 00:00:00 UTC"),
    ] {
        let identity = Some((files.path(&format!("{name}.crt")), files.path(&format!("{name}.key"))));
        let client = ClientFiles { ca: Some(files.path("ca.crt")), identity, ..ClientFiles::default() };
        let error = client.load().expect_err("it is not valid today").to_string();
        assert!(error.ends_with(why), "{error}");
        // A member with it does not start.
        let mut settings = bowline_server::config::Layers::new();
        files.for_clients(name).into_iter().for_each(|(key, value)| settings.add_flag(&key, value));
        let error = bowline_server::check_tls(&settings.check().expect("good")).expect_err("not valid").to_string();
        assert!(error.ends_with(why), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_clients_certificate_needs_an_allowed_host_name() {
    let files = Files::new("ca");
    files.issue("m", Role::Member, ALWAYS);
    files.issue("nameless", Role::Client, ALWAYS);
    let settings = vec![set("client_cert_allowed_hostname", "example.org,127.0.0.1"), set("tls_min_version", "TLS1.3")];
    let cluster = alone([files.for_clients("m"), settings].concat());
    cluster.leader().await;
    client(&cluster, &[1], &files.client("m")).put("k", "v").await.expect("it has the name");
    let why = refused(&cluster, &files.client("nameless")).await;
    assert!(why.starts_with("the server refused the connection: it does not allow this certificate, perhaps"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_for_another_host_is_refused() {
    let files = Files::new("ca");
    let hosts = ["example.org".to_owned()];
    let order = Order { name: "m", hosts: &hosts, role: Role::Member, span: ALWAYS };
    let pair = files.ca.issue(&order).expect("signed");
    pair.write(&files.path("m.crt"), &files.path("m.key")).expect("written");
    let cluster = alone(files.for_clients("m")[..2].to_vec());
    let why = refused(&cluster, &files.nobody()).await;
    assert_eq!(why, "the certificate of the server is for others: 127.0.0.1 is not among example.org");
    let blind = ClientFiles { skip_verification: true, ..ClientFiles::default() }.load().expect("no files");
    cluster.leader().await;
    client(&cluster, &[1], &blind).put("k", "v").await.expect("it does not look");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pages_come_over_tls_too() {
    let files = Files::new("ca");
    files.issue("m", Role::Member, ALWAYS);
    let cluster = alone(files.for_clients("m"));
    cluster.leader().await;
    let page = |path: &'static str| {
        let (address, tls) = (cluster.server(1).client_address(), files.client("m"));
        async move {
            let stream = TcpStream::connect(address).await.expect("it listens");
            let mut stream = tls.connect("127.0.0.1", stream, Http::Http1).await.expect("welcome");
            let request = format!("GET {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("sent");
            stream.flush().await.expect("sent");
            let mut page = String::new();
            stream.read_to_string(&mut page).await.expect("answered");
            page
        }
    };
    let health = page("/health").await;
    assert!(health.starts_with("HTTP/1.1 200") && health.contains(r#"{"health":"true""#), "{health}");
    assert!(page("/metrics").await.contains("\netcd_server_has_leader 1\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn plain_text_at_a_port_with_tls_is_told_so() {
    let files = Files::new("ca");
    files.issue("m", Role::Member, ALWAYS);
    let cluster = alone([files.for_clients("m"), files.for_members("m")].concat());
    cluster.leader().await;
    let began = Instant::now();
    let page = http(cluster.server(1).client_address(), "GET /health").await;
    assert!(
        page.starts_with("HTTP/1.1 400 Bad Request\r\n") && page.ends_with(&format!("\r\n\r\n{SPEAKS_TLS}\n")),
        "{page}"
    );
    let mut plain = Client::new(&[endpoint(&cluster, 1)], PATIENCE).expect("a good endpoint");
    let error = plain.put("k", "v").await.expect_err("the port speaks TLS").to_string();
    assert!(error.starts_with("can't reach any endpoint") && error.ends_with(SPEAKS_TLS), "{error}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // What is neither.
    let mut stream = TcpStream::connect(cluster.server(1).client_address()).await.expect("it listens");
    stream.write_all(&[0, 1, 2, 3]).await.expect("sent");
    assert_eq!(stream.read(&mut [0; 64]).await.expect("closed"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tls_at_a_port_with_plain_text_is_told_so() {
    let (files, cluster) = (Files::new("ca"), Cluster::start(1, &[]));
    cluster.leader().await;
    assert_eq!(refused(&cluster, &files.nobody()).await, "the server speaks plain text, not TLS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stalled_handshakes_keep_nobody_out() {
    let files = Files::new("ca");
    files.issue("m", Role::Member, ALWAYS);
    let cluster = alone(
        [files.for_clients("m"), vec![set("max_connections", "20"), set("max_connections_per_address", "20")]].concat(),
    );
    cluster.leader().await;
    let address = cluster.server(1).client_address();
    let mut stalled = Vec::new();
    for count in 0..100 {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        // Half of them begin one.
        if count % 2 == 0 {
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.expect("sent");
        }
        stalled.push(stream);
    }
    let began = Instant::now();
    client(&cluster, &[1], &files.client("m")).put("k", "v").await.expect("it is served");
    assert!(began.elapsed() < Duration::from_secs(5), "it waited {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn renewed_certificates_under_load_cost_no_request() {
    let files = Files::new("ca");
    files.issue("m", Role::Member, ALWAYS);
    files.issue("c", Role::Client, ALWAYS);
    let cluster = alone(files.for_clients("m"));
    cluster.leader().await;
    let (address, tls) = (cluster.server(1).client_address(), files.client("c"));
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = Vec::new();
    for renews in [false, true] {
        let (stop, done, tls) = (Arc::clone(&stop), Arc::clone(&done), tls.clone());
        load.push(tokio::spawn(async move {
            let new = || Client::with_tls(&[address.to_string()], PATIENCE, &tls).expect("a good endpoint");
            let mut client = new();
            while !stop.load(Ordering::Relaxed) {
                if renews {
                    client = new();
                }
                client.put("k", "v").await.expect("no request fails");
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for _ in 0..3 {
        let renewed = files.issue("m", Role::Member, ALWAYS);
        let expected = serial_of(&renewed);
        let until = Instant::now() + PATIENCE;
        while serial(&cluster, &tls).await != expected {
            assert!(Instant::now() < until, "the new certificate is not used");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let before = done.load(Ordering::Relaxed);
        while done.load(Ordering::Relaxed) < before + 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.expect("no request failed");
    }
}

/// The serial number of the certificate that a member shows.
async fn serial(cluster: &Cluster, tls: &ClientTls) -> String {
    let stream = TcpStream::connect(cluster.server(1).client_address()).await.expect("it listens");
    let stream = tls.connect("127.0.0.1", stream, Http::Http1).await.expect("welcome");
    let shown = stream.other_certificate().expect("it shows one");
    Facts::of(&shown).expect("it is well-formed").serial
}

fn serial_of(pair: &Pair) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("c");
    write(&file, &pair.cert).expect("written");
    let certificates = bowline_tls::read_certificates(&file).expect("a certificate");
    Facts::of(&certificates[0]).expect("it is well-formed").serial
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_member_with_a_revoked_certificate_or_without_an_allowed_name_takes_no_part() {
    let files = Files::new("ca");
    let pairs: Vec<Pair> = (1..=3).map(|id| files.issue(&format!("m{id}"), Role::Member, ALWAYS)).collect();
    files.revoke(&[&pairs[2]]);
    let by_list = |id: u64| if id == 3 { Vec::new() } else { vec![set("peer_crl_file", files.text("ca.crl"))] };
    let by_name = |id: u64| if id == 3 { Vec::new() } else { vec![set("peer_cert_allowed_cn", "m1,m2")] };
    type Rule<'a> = (&'a dyn Fn(u64) -> Vec<(String, String)>, &'a str);
    let rules: [Rule<'_>; 2] = [
        (&by_list, "it says that this certificate is revoked"),
        (&by_name, "it does not allow this certificate, perhaps because of the name in it; its log says why"),
    ];
    for (rule, why) in rules {
        let settings = |id| [files.for_members(&format!("m{id}")), rule(id)].concat();
        let cluster = Cluster::start_each(3, Protocol::CURRENT, settings);
        cluster.leader().await;
        let mut kv = cluster.client(1).await;
        kv.put(crate::harness::put("k", "v")).await.expect("two of three are enough");
        let stream = TcpStream::connect(cluster.configs[&1].listen_peer.as_str()).await.expect("it listens");
        let tls = cluster.configs[&3].peer_tls.as_ref().expect("it has one").connector().expect("good files");
        let mut stream = bowline_tls::connect(&tls, "127.0.0.1", stream, "member").await.expect("it is judged later");
        let error = stream.read(&mut [0]).await.expect_err("it is refused").to_string();
        assert_eq!(error, format!("the member refused the connection: {why}"));
        // The other direction is refused, too, or the leader would be known by now.
        assert_eq!(cluster.server(3).replica().status().leader, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn certificates_are_made_at_the_start_and_kept() {
    use std::os::unix::fs::PermissionsExt;
    let settings = |_| vec![set("auto_tls", "true"), set("peer_auto_tls", "true")];
    let mut cluster = Cluster::start_each(3, Protocol::CURRENT, settings);
    cluster.leader().await;
    let blind = ClientFiles { skip_verification: true, ..ClientFiles::default() }.load().expect("no files");
    client(&cluster, &[1], &blind).put("k", "v").await.expect("written");
    let made = cluster.data_dir(1).join("auto-tls");
    let before = ["client.crt", "client.key", "peer.crt", "peer.key"].map(|name| {
        let (path, mode) = (made.join(name), made.join(name).metadata().expect("it is there").permissions().mode());
        assert_eq!(mode & 0o777, 0o600, "{name}");
        std::fs::read(path).expect("readable")
    });
    cluster.kill(1);
    cluster.restart(1);
    let after =
        ["client.crt", "client.key", "peer.crt", "peer.key"].map(|name| std::fs::read(made.join(name)).expect("there"));
    assert!(before == after, "they are kept");
    let read = client(&cluster, &[1], &blind).range(Op::get("k")).await.expect("it has the data");
    assert_eq!(read.kvs.len(), 1);
    // It proves nothing to whoever looks.
    let files = Files::new("ca");
    assert_eq!(refused(&cluster, &files.nobody()).await, "the certificate of the server is not signed by a trusted CA");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_without_tls_changes_to_it_when_all_members_are_stopped() {
    let files = Files::new("ca");
    files.issue("m", Role::Member, ALWAYS);
    let mut cluster = Cluster::start(3, &[]);
    cluster.leader_of_all().await;
    cluster.client(1).await.put(crate::harness::put("k", "v")).await.expect("written");
    (1..=3).for_each(|id| cluster.kill(id));
    for id in 1..=3 {
        let config = cluster.configs.get_mut(&id).expect("it is a member");
        let mut layers = bowline_server::config::Layers::new();
        let urls = config.initial_cluster.iter().map(|(id, founder)| format!("{}={}", id.0, founder.url.authority()));
        layers.add_flag("initial_cluster", urls.collect::<Vec<_>>().join(","));
        layers.add_flag("id", id.to_string());
        layers.add_flag("data_dir", config.data_dir.display().to_string());
        layers.add_flag("listen_client", config.listen_client[0].authority().to_owned());
        layers.add_flag("initial_cluster_state", "existing".to_owned());
        files.for_members("m").into_iter().for_each(|(key, value)| layers.add_flag(&key, value));
        *config = layers.check().expect("good");
        assert!(config.advertise_peer.is_https());
    }
    (1..=3).for_each(|id| cluster.restart(id));
    cluster.leader().await;
    let read = cluster.client(1).await.range(crate::harness::get("k")).await.expect("read").into_inner();
    assert_eq!(crate::harness::values(&read), ["v"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn members_with_and_without_tls_do_not_talk() {
    let files = Files::new("ca");
    files.issue("m", Role::Member, ALWAYS);
    // Two with TLS are a majority; the third is told why it is none of them.
    let settings = |id| if id == 3 { Vec::new() } else { files.for_members("m") };
    let cluster = Cluster::start_each(3, Protocol::CURRENT, settings);
    cluster.leader().await;
    let mut stream = TcpStream::connect(cluster.configs[&1].listen_peer.as_str()).await.expect("it listens");
    let introduction = bowline_server::peer::Introduction::new("x", "", Protocol::CURRENT);
    let error = bowline_server::peer::discover(&mut stream, &introduction).await.expect_err("it is told").to_string();
    assert!(error.starts_with("refused by the other end: this member's port speaks TLS: start the other"), "{error}");
    let stream = TcpStream::connect(cluster.configs[&3].listen_peer.as_str()).await.expect("it listens");
    let error = files.client("m").connect("127.0.0.1", stream, Http::Http2).await.expect_err("it is told").to_string();
    assert_eq!(error, "the server speaks plain text, not TLS");
    assert_eq!(cluster.server(3).replica().status().leader, None);
}
