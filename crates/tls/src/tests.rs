use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::issue::{Ca, Order, Pair, Role, Span, self_signed, write};
use super::*;

/// Valid whenever the test runs.
const ALWAYS: Span = Span { begin: 0, end: 4_102_444_800 };

/// Until the end of the year 1999.
const PAST: Span = Span { begin: 0, end: 946_684_799 };

/// From the year 2100 on.
const FUTURE: Span = Span { begin: 4_102_444_800, end: 4_133_980_800 };

/// A folder with a CA and what it has signed.
struct Folder {
    folder: TempDir,
    ca: Ca,
}

impl Folder {
    fn new() -> Folder {
        Folder::of("ca")
    }

    fn of(name: &str) -> Folder {
        let ca = Ca::new(name, ALWAYS).expect("made");
        let folder = Folder { folder: tempfile::tempdir().expect("a folder"), ca };
        write(&folder.path("ca.crt"), &folder.ca.pair().cert).expect("written");
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Signs a certificate for 127.0.0.1 and localhost, and writes it.
    fn issue(&self, name: &str, span: Span) -> Pair {
        let pair = self.ca.issue(&order(name, span)).expect("signed");
        pair.write(&self.path(&format!("{name}.crt")), &self.path(&format!("{name}.key"))).expect("written");
        pair
    }

    /// The settings of a member with the certificate of this name.
    fn settings(&self, name: &str) -> Settings {
        Settings {
            cert: self.path(&format!("{name}.crt")),
            key: self.path(&format!("{name}.key")),
            auto: false,
            ca: Some(self.path("ca.crt")),
            crl: None,
            names: Names::default(),
            oldest: Version::Tls12,
        }
    }

    /// The same, and a list that revokes nothing.
    fn settings_with_list(&self, name: &str) -> Settings {
        write(&self.path("ca.crl"), &self.ca.revoke(&[], ALWAYS).expect("signed")).expect("written");
        Settings { crl: Some(self.path("ca.crl")), ..self.settings(name) }
    }

    fn member(&self, name: &str) -> Keeper {
        self.issue(name, ALWAYS);
        load(self.settings(name))
    }
}

fn hosts() -> &'static [String] {
    static HOSTS: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    HOSTS.get_or_init(|| vec!["127.0.0.1".to_owned(), "localhost".to_owned()])
}

fn order(name: &str, span: Span) -> Order<'_> {
    Order { name, hosts: hosts(), role: Role::Member, span }
}

fn load(settings: Settings) -> Keeper {
    Keeper::load(settings, Use::Members).expect("good files")
}

fn complaint(settings: Settings) -> String {
    Keeper::load(settings, Use::Clients).expect_err("bad files").to_string()
}

/// What both ends say about a connection over which each sends a byte: first the one that accepts.
async fn both(accepting: &Keeper, connecting: &Keeper, host: &str) -> (Result<(), String>, Result<(), String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let far = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        talk(&mut welcome(accepting, stream, "member").await?).await
    };
    let near = async {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let connected = connect(&connecting.connector(), host, stream, "member").await;
        talk(&mut connected.map_err(|e| words(&e, "member"))?).await
    };
    tokio::join!(far, near)
}

async fn talk(stream: &mut Stream) -> Result<(), String> {
    let talked = async {
        stream.write_all(b"!").await?;
        stream.flush().await?;
        stream.read_exact(&mut [0]).await
    };
    talked.await.map(|_| ()).map_err(|error| error.to_string())
}

fn said(result: Result<(), String>) -> String {
    result.expect_err("refused")
}

#[tokio::test]
async fn two_members_of_a_ca_are_connected() {
    let folder = Folder::new();
    let (a, b) = (folder.member("a"), folder.member("b"));
    assert_eq!(both(&a, &b, "127.0.0.1").await, (Ok(()), Ok(())));
    assert_eq!(both(&a, &b, "localhost").await, (Ok(()), Ok(())));
}

#[tokio::test]
async fn a_host_that_is_not_in_the_certificate_is_refused() {
    let folder = Folder::new();
    let (a, b) = (folder.member("a"), folder.member("b"));
    let (far, near) = both(&a, &b, "example.org").await;
    let told = "the certificate of the member is for others: example.org is not among 127.0.0.1, localhost";
    assert_eq!(said(near), told);
    assert_eq!(said(far), "the member refused the connection: it wants a certificate, or a better one");
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused_by_both() {
    let (folder, other) = (Folder::new(), Folder::of("other"));
    let (a, stranger) = (folder.member("a"), other.member("b"));
    let (far, near) = both(&a, &stranger, "127.0.0.1").await;
    let untrusted = "the certificate of the member is not signed by a trusted CA";
    assert!(said(near).starts_with("the certificate of the member"), "the one that connects checks first");
    assert_eq!(said(far), "the member refused the connection: it does not trust the CA that signed this certificate");
    // This one would accept the other, but is not accepted.
    let both_cas = [&folder, &other].map(|folder| folder.ca.pair().cert.clone()).concat();
    write(&other.path("ca.crt"), &both_cas).expect("written");
    assert_eq!(stranger.refresh(), Ok(true));
    let (far, near) = both(&a, &stranger, "127.0.0.1").await;
    assert_eq!(said(far), untrusted);
    assert_eq!(said(near), "the member refused the connection: it does not trust the CA that signed this certificate");
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_in_both_directions() {
    let folder = Folder::new();
    let (a, b) = (folder.member("a"), folder.issue("b", ALWAYS));
    let b_loaded = load(folder.settings("b"));
    let list = folder.ca.revoke(&[&b.cert], ALWAYS).expect("signed");
    write(&folder.path("ca.crl"), &list).expect("written");
    let strict = load(Settings { crl: Some(folder.path("ca.crl")), ..folder.settings("a") });
    assert_eq!(both(&a, &b_loaded, "127.0.0.1").await, (Ok(()), Ok(())));
    let (far, near) = both(&strict, &b_loaded, "127.0.0.1").await;
    assert_eq!(said(far), "the certificate of the member is revoked");
    assert_eq!(said(near), "the member refused the connection: it says that this certificate is revoked");
    let (far, near) = both(&b_loaded, &strict, "127.0.0.1").await;
    assert_eq!(said(near), "the certificate of the member is revoked");
    assert_eq!(said(far), "the member refused the connection: it says that this certificate is revoked");
    assert_eq!(both(&strict, &a, "127.0.0.1").await, (Ok(()), Ok(())), "others are not revoked");
}

#[tokio::test]
async fn names_are_checked_in_both_directions() {
    let folder = Folder::new();
    let (a, b) = (folder.member("a"), folder.member("b"));
    let with = |common: &[&str], hosts: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        load(Settings { names: Names { common: own(common), hosts: own(hosts) }, ..folder.settings("a") })
    };
    for good in [with(&["c", "b"], &[]), with(&[], &["example.org", "localhost"]), with(&["b"], &["127.0.0.1"])] {
        assert_eq!(both(&good, &b, "127.0.0.1").await, (Ok(()), Ok(())));
        assert_eq!(both(&b, &good, "127.0.0.1").await, (Ok(()), Ok(())));
    }
    let told = "the certificate of the member is not allowed: the common name b is not among the allowed ones: a, c";
    let other = "the member refused the connection: it does not allow this certificate, perhaps because of the name in \
                 it; its log says why";
    let (far, near) = both(&with(&["a", "c"], &[]), &b, "127.0.0.1").await;
    assert_eq!((said(far).as_str(), said(near).as_str()), (told, other));
    let (far, near) = both(&b, &with(&["a", "c"], &[]), "127.0.0.1").await;
    assert_eq!((said(far).as_str(), said(near).as_str()), (other, told));
    let (far, _) = both(&with(&[], &["example.org"]), &b, "127.0.0.1").await;
    let told = "the certificate of the member is not allowed: none of its host names (127.0.0.1, localhost) is among \
                the allowed ones: example.org";
    assert_eq!(said(far), told);
    assert_eq!(both(&with(&["a"], &[]), &a, "127.0.0.1").await, (Ok(()), Ok(())));
}

#[tokio::test]
async fn the_certificate_of_a_client_opens_no_port_of_members() {
    let folder = Folder::new();
    let a = folder.member("a");
    let order = Order { role: Role::Client, ..order("c", ALWAYS) };
    let pair = folder.ca.issue(&order).expect("signed");
    pair.write(&folder.path("c.crt"), &folder.path("c.key")).expect("written");
    let (far, near) = both(&a, &load(folder.settings("c")), "127.0.0.1").await;
    let told = "the certificate of the member is not allowed: it is a client's, not a member's: its extended key usage \
                lacks servers";
    assert_eq!(said(far), told);
    assert!(said(near).starts_with("the member refused the connection: it does not allow this certificate"));
}

#[tokio::test]
async fn old_versions_can_be_refused() {
    let folder = Folder::new();
    let b = folder.member("b");
    folder.issue("a", ALWAYS);
    let a = load(Settings { oldest: Version::Tls13, ..folder.settings("a") });
    assert_eq!(both(&a, &b, "127.0.0.1").await, (Ok(()), Ok(())));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let old = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("it has suites for it")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let far = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        welcome(&a, stream, "client").await.expect_err("too old")
    };
    let near = async {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let connected = connect(&std::sync::Arc::new(old).into(), "127.0.0.1", stream, "server").await;
        words(&connected.expect_err("too old"), "server")
    };
    let (far, near) = tokio::join!(far, near);
    assert!(far.starts_with("the client offers no TLS that is allowed here: "), "{far}");
    assert_eq!(near, "the server refused the connection: it allows other versions of TLS only");
}

/// Whoever has such a certificate refuses to start with it, so these ends are rustls's own.
#[tokio::test]
async fn a_certificate_that_has_expired_meanwhile_is_refused_with_its_date() {
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    let folder = Folder::new();
    let a = folder.member("a");
    let old = folder.issue("old", PAST);
    let chain = || read_certificates(&folder.path("old.crt")).expect("readable");
    let key = || PrivateKeyDer::from_pem_slice(old.key.as_bytes()).expect("a key");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(read_certificates(&folder.path("ca.crt")).expect("readable").swap_remove(0)).expect("a CA");
    let client = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("it has suites for them")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain(), key())
        .expect("a good pair");
    let server = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("it has suites for them")
        .with_no_client_auth()
        .with_single_cert(chain(), key())
        .expect("a good pair");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let told = |other| format!("the certificate of the {other} expired on 1999-12-31 23:59:59 UTC");

    let far = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        welcome(&a, stream, "client").await.expect_err("it has expired")
    };
    let near = async {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let connected = connect(&std::sync::Arc::new(client).into(), "127.0.0.1", stream, "server").await;
        talk(&mut connected.expect("it is judged later")).await
    };
    let (far, near) = tokio::join!(far, near);
    assert_eq!(far, told("client"));
    assert_eq!(said(near), format!("{SERVER_REFUSED}it says that this certificate has expired, or is not valid yet"));

    let far = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        let (error, _) = accept(&std::sync::Arc::new(server).into(), stream, "client").await.expect_err("refused");
        words(&error, "client")
    };
    let near = async {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let files = ClientFiles { ca: Some(folder.path("ca.crt")), ..ClientFiles::default() };
        let tls = files.load().expect("a good file");
        tls.connect("127.0.0.1", stream, Protocol::Http2).await.expect_err("it has expired").to_string()
    };
    let (far, near) = tokio::join!(far, near);
    assert_eq!(near, told("server"));
    assert!(far.starts_with("the client refused the connection: it says that this certificate has expired"), "{far}");
}

#[tokio::test]
async fn a_client_is_told_what_is_wrong() {
    let folder = Folder::new();
    folder.issue("a", ALWAYS);
    let server = Keeper::load(folder.settings("a"), Use::Clients).expect("good files");
    let files = |ca: &Path| ClientFiles { ca: Some(ca.to_owned()), ..ClientFiles::default() };
    let own =
        ClientFiles { identity: Some((folder.path("a.crt"), folder.path("a.key"))), ..files(&folder.path("ca.crt")) };
    assert_eq!(ask(&server, &own, "127.0.0.1").await, Ok(()));
    assert_eq!(ask(&server, &ClientFiles { skip_verification: true, ..own.clone() }, "example.org").await, Ok(()));
    let nobody = ask(&server, &files(&folder.path("ca.crt")), "127.0.0.1").await;
    assert_eq!(said(nobody), format!("{SERVER_REFUSED}it wants a certificate, and none was given"));
    let told = "the certificate of the server is not signed by a trusted CA";
    for (name, why) in [("other", ""), ("ca", ", but by another one of its name")] {
        let stranger = ask(&server, &files(&Folder::of(name).path("ca.crt")), "127.0.0.1").await;
        assert_eq!(said(stranger), format!("{told}{why}"));
    }
    let elsewhere = ask(&server, &own, "example.org").await;
    let told = "the certificate of the server is for others: example.org is not among 127.0.0.1, localhost";
    assert_eq!(said(elsewhere), told);
}

/// What a client says that reads a byte.
async fn ask(server: &Keeper, files: &ClientFiles, host: &str) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let far = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        if let Ok(mut stream) = welcome(server, stream, "client").await {
            talk(&mut stream).await.expect("the client talks, too");
        }
    };
    let near = async {
        let stream = TcpStream::connect(address).await.expect("it listens");
        let tls = files.load().expect("good files");
        let mut stream = tls.connect(host, stream, Protocol::Http2).await.map_err(|error| error.to_string())?;
        talk(&mut stream).await
    };
    tokio::join!(far, near).1
}

/// Accepts a connection, or says why not.
async fn welcome(keeper: &Keeper, stream: TcpStream, other: &'static str) -> Result<Stream, String> {
    match accept(&keeper.acceptor(), stream, other).await {
        Ok(stream) => Ok(stream),
        Err((error, stream)) => {
            tokio::spawn(hang_up(stream, Vec::new()));
            Err(words(&error, other))
        }
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let folder = Folder::new();
    let a = folder.issue("a", ALWAYS);
    let b = folder.issue("b", ALWAYS);
    folder.issue("old", PAST);
    folder.issue("young", FUTURE);
    let good = || folder.settings("a");
    let file = |name: &str| folder.path(name).display().to_string();
    let write = |name: &str, text: &str| {
        write(&folder.path(name), text).expect("written");
        folder.path(name)
    };
    assert_eq!(complaint(folder.settings("none")), format!("{}: there is no such file", file("none.crt")));
    let told = format!("{}: the certificate expired on 1999-12-31 23:59:59 UTC", file("old.crt"));
    assert_eq!(complaint(folder.settings("old")), told);
    let told = format!("{}: the certificate is not valid before 2100-01-01 00:00:00 UTC", file("young.crt"));
    assert_eq!(complaint(folder.settings("young")), told);
    let told = format!("{}: the private key does not belong to the certificate in {}", file("b.key"), file("a.crt"));
    assert_eq!(complaint(Settings { key: folder.path("b.key"), ..good() }), told);
    let swapped = Settings { cert: folder.path("a.key"), key: folder.path("a.crt"), ..good() };
    let told = format!("{}: has no certificate in PEM (-----BEGIN CERTIFICATE-----)", file("a.key"));
    assert_eq!(complaint(swapped), told);
    let told = format!("{}: has no private key in PEM (-----BEGIN PRIVATE KEY-----), or a damaged one", file("a.crt"));
    assert_eq!(complaint(Settings { key: folder.path("a.crt"), ..good() }), told);
    let half = write("half.crt", &a.cert[..a.cert.len() / 2]);
    assert_eq!(
        complaint(Settings { cert: half, ..good() }),
        format!("{}: has a damaged certificate", file("half.crt"))
    );
    let locked = write("locked.key", &a.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"));
    let told = "locked.key: the private key is encrypted with a password: decrypt it first (openssl pkey)";
    assert!(complaint(Settings { key: locked, ..good() }).ends_with(told));
    let empty = write("empty", "");
    let told = format!("{}: has no certificate in PEM (-----BEGIN CERTIFICATE-----)", file("empty"));
    assert_eq!(complaint(Settings { ca: Some(empty.clone()), ..good() }), told);
    let told = format!("{}: has no list of revoked certificates in PEM (-----BEGIN X509 CRL-----)", file("empty"));
    assert_eq!(complaint(Settings { crl: Some(empty), ..good() }), told);
    let long = write("long", &"x".repeat(MAX_FILE_BYTES as usize + 1));
    let told = format!("{}: has more than 4194304 bytes, the most that is read", file("long"));
    assert_eq!(complaint(Settings { ca: Some(long), ..good() }), told);
    let garbage = write("garbage", "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n");
    let told = format!("{}: has a malformed certificate", file("garbage"));
    assert_eq!(complaint(Settings { cert: garbage, ..good() }), told);
    assert!(b.key.starts_with("-----BEGIN PRIVATE KEY-----"));
}

#[tokio::test]
async fn changed_files_are_used_and_bad_ones_are_not() {
    let (folder, other) = (Folder::new(), Folder::of("other"));
    let (a, b, stranger) = (folder.member("a"), folder.member("b"), other.member("c"));
    assert_eq!(a.refresh(), Ok(false));
    // Another pair, half of it first.
    let pair = folder.ca.issue(&order("renewed", ALWAYS)).expect("signed");
    write(&folder.path("a.key"), &pair.key).expect("written");
    let error = a.refresh().expect_err("the two don't belong together").to_string();
    assert!(error.contains("a.key: the private key does not belong to the certificate"), "{error}");
    assert_eq!((a.facts().owner(), both(&a, &b, "127.0.0.1").await), ("a", (Ok(()), Ok(()))));
    write(&folder.path("a.crt"), &pair.cert).expect("written");
    assert_eq!(a.refresh(), Ok(true));
    assert_eq!((a.facts().owner(), both(&a, &b, "127.0.0.1").await), ("renewed", (Ok(()), Ok(()))));
    // A bad pair and a new list at the same time: the list is used.
    let revoked = folder.issue("revoked", ALWAYS);
    let listed = load(folder.settings_with_list("a"));
    write(&folder.path("a.key"), "half of a k").expect("written");
    write(&folder.path("ca.crl"), &folder.ca.revoke(&[&revoked.cert], ALWAYS).expect("signed")).expect("written");
    assert!(listed.refresh().is_err_and(|error| error.to_string().contains("a.key: has no private key")));
    let lost = load(folder.settings("revoked"));
    assert_eq!(said(both(&listed, &lost, "127.0.0.1").await.0), "the certificate of the member is revoked");
    assert_eq!(both(&listed, &b, "127.0.0.1").await, (Ok(()), Ok(())));
    write(&folder.path("a.key"), &pair.key).expect("written");
    // Another CA: who was accepted is a stranger now.
    write(&folder.path("ca.crt"), &other.ca.pair().cert).expect("written");
    assert_eq!(a.refresh(), Ok(true));
    assert!(both(&a, &b, "127.0.0.1").await.0.is_err());
    write(&other.path("ca.crt"), &folder.ca.pair().cert).expect("written");
    assert_eq!(stranger.refresh(), Ok(true));
    assert_eq!(both(&a, &stranger, "127.0.0.1").await, (Ok(()), Ok(())));
}

#[test]
fn keys_are_not_printed_and_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let a = folder.issue("a", ALWAYS);
    let keeper = load(folder.settings("a"));
    let secret: String = a.key.lines().nth(1).expect("it has lines").chars().take(24).collect();
    for text in [format!("{keeper:?}"), format!("{a:?}"), format!("{:?}", folder.ca)] {
        assert!(!text.contains(&secret) && !text.contains("PRIVATE"), "{text}");
    }
    for name in ["a.key", "a.crt"] {
        let mode = std::fs::metadata(folder.path(name)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_ca_is_loaded_again_and_signs() {
    let folder = Folder::new();
    folder.ca.pair().write(&folder.path("ca.crt"), &folder.path("ca.key")).expect("written");
    let again = Ca::load(&folder.path("ca.crt"), &folder.path("ca.key")).expect("good files");
    let pair = again.issue(&order("d", ALWAYS)).expect("signed");
    pair.write(&folder.path("d.crt"), &folder.path("d.key")).expect("written");
    let facts = load(folder.settings("d")).facts();
    assert_eq!((facts.owner(), facts.issuer.as_deref(), facts.is_ca), ("d", Some("ca"), false));
    assert_eq!((facts.hosts.as_slice(), facts.not_after), (hosts(), ALWAYS.end));
    folder.issue("a", ALWAYS);
    let error = Ca::load(&folder.path("a.crt"), &folder.path("a.key")).expect_err("not a CA").to_string();
    assert!(error.ends_with("a.crt: is no certificate of a CA"), "{error}");
    let own = self_signed(&order("alone", ALWAYS)).expect("made");
    own.write(&folder.path("e.crt"), &folder.path("e.key")).expect("written");
    assert_eq!(load(Settings { ca: None, ..folder.settings("e") }).facts().owner(), "alone");
}

#[test]
fn first_bytes_tell_the_protocol() {
    let cases: [(&[u8], FirstBytes); 7] = [
        (b"\x16\x03\x01\x02", FirstBytes::Tls),
        (b"\x16", FirstBytes::Tls),
        (b"\x16\x03\0\0", FirstBytes::Other),
        (b"GET / HT", FirstBytes::Http1),
        (b"PRI * HT", FirstBytes::Http2),
        (b"\x20\0\0\0", FirstBytes::Other),
        (b"", FirstBytes::Nothing),
    ];
    for (bytes, expected) in cases {
        assert_eq!(FirstBytes::of(bytes), expected, "{bytes:?}");
    }
}
