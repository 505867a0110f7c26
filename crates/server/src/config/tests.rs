use super::*;
use crate::files;

fn minimal() -> Layers {
    let mut layers = Layers::new();
    layers.add_flag("id", "2".to_owned());
    layers.add_flag("initial_cluster", "1=http://a:2380,2=http://b:2380,3=c:2380".to_owned());
    layers
}

fn with(key: &str, value: &str) -> Result<ServerConfig, ConfigError> {
    let mut layers = minimal();
    layers.add_flag(key, value.to_owned());
    layers.check()
}

#[test]
fn little_is_needed() {
    let config = minimal().check().expect("it is enough");
    assert_eq!((config.id, config.name.as_str()), (NodeId(2), "member-2"));
    assert_eq!((config.listen_client[0].authority(), config.listen_peer.as_str()), ("127.0.0.1:2379", "b:2380"));
    assert_eq!(config.max_request_bytes, 1_572_864);
    assert_eq!(config.patience(), Duration::from_millis(6_200));
    assert_eq!(config.min_lease_ttl(), 2);
    assert_eq!(config.node(config.id, 7).raft.validate(), Ok(()));
}

#[test]
fn a_flag_beats_the_environment_and_that_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bowline.toml");
    files::write(&file, "name = \"file\"\ncluster_token = \"file\"\nheartbeat = \"50ms\"\n").expect("written");
    let mut layers = Layers::new();
    layers.add_file(&file).expect("a good file");
    layers.add_environment(|name| match name {
        "BOWLINE_NAME" | "BOWLINE_CLUSTER_TOKEN" => Some("environment".to_owned()),
        _ => None,
    });
    layers.add_all(minimal());
    layers.add_flag("name", "flag".to_owned());
    let config = layers.check().expect("all is good");
    assert_eq!(config.name, "flag");
    assert_eq!(config.cluster_token, "environment");
    assert_eq!(config.heartbeat, Duration::from_millis(50));
}

#[test]
fn a_bad_value_is_named_with_its_source_and_what_is_allowed() {
    let say = |key, value| with(key, value).expect_err("it is bad").to_string();
    assert_eq!(say("heartbeat", "fast"), "--heartbeat is \"fast\"; allowed: a time from 5ms to 60s, such as 300ms");
    assert_eq!(say("id", "0"), "--id is \"0\"; allowed: a whole number from 1");
    assert_eq!(say("id", "4"), "--id is 4; allowed: a member of --initial-cluster (1, 2, 3)");
    assert_eq!(say("reads", "maybe"), "--reads is \"maybe\"; allowed: quorum, lease");
    assert!(say("listen_client", "ftp://a:1").starts_with("--listen-client is \"ftp://a:1\"; allowed: host:port"));
    assert!(say("initial_cluster", "1=a:1,1=b:1").starts_with("--initial-cluster is"));
    assert!(say("initial_cluster", "1=a:1,2=a:1").starts_with("--initial-cluster is"));
    assert!(say("heartbeat", "400ms").contains("heartbeat_interval"), "the core's own bounds count too");
    assert!(say("snapshot_bytes", "1KiB").contains("65536 to 17179869184"));
}

#[test]
fn nothing_impossible_is_taken() {
    let long = "x".repeat(100_000);
    let crowd: Vec<String> = (1..=65).map(|id| format!("{id}=h{id}:1")).collect();
    let cases: [(&str, &[&str]); 17] = [
        ("auth_token", &["", "Simple", "none", "simple,ttl=5m", "jwt.io", ",jwt"]),
        ("auth_token_ttl", &["", "0", "-1", "300s", "1.5", "31536001", "99999999999999999999"]),
        ("id", &["", "0", "-1", "1.5", "1e3", "18446744073709551616", "one", "\0"]),
        ("name", &["", &long]),
        ("data_dir", &[""]),
        ("cluster_token", &["", &long]),
        ("listen_client", &["", ":", ":1", "h:", "h:-1", "h:65536", "h:99999999999999999999", "h h:1", &long]),
        ("advertise_client", &["", "ftp://h:1", "http://", "http://h", "[::1:1", "[]:1"]),
        ("listen_peer", &["", "h", "h:1:2:x", "https://h:1"]),
        ("initial_cluster", &["", "=", "1", "1=", "=h:1", "0=h:1", "-1=h:1", "x=h:1", "1=h:99999", ",", "1=h:1,"]),
        ("initial_cluster_state", &["", "old", "NEW", "new "]),
        ("election_min", &["", "0", "0ms", "-5ms", "4ms", "61s", "1e9s", "NaNs", "infs", "300", "300 ms "]),
        ("snapshot_bytes", &["", "0", "-1", "1", "1e300", "17179869185", "64 MB", "\u{221e}"]),
        ("auto_compaction_mode", &["", "Periodic", "off"]),
        ("auto_compaction_retention", &["", "-1", "0.5", "999ms", "1d", "100001", "1e3", "999999999999999999999999"]),
        ("quota_backend_bytes", &["", "-", "--1", "-1.5", "1e9", "10000TiB", "99999999999999999999", "none"]),
        ("max_request_bytes", &["", "0", "-1", "1023", "9MiB", "99999999999999999999999999"]),
    ];
    for (key, values) in cases {
        for value in values {
            let error = with(key, value).expect_err(&format!("{key} is {value:.40?}")).to_string();
            let flag = format!("--{}", key.replace('_', "-"));
            assert!(error.starts_with(&flag) && error.contains("; allowed: "), "{error:.200}");
        }
    }
    let error = with("initial_cluster", &crowd.join(",")).expect_err("too many").to_string();
    assert_eq!(error, "--initial-cluster has 65 members; allowed: at most 64");
    let error = with("election_max", "5ms").expect_err("it is before the shortest").to_string();
    assert!(error.contains("election_timeout"), "{error}");
}

#[test]
fn automatic_compaction_keeps_a_time_or_a_number_of_revisions() {
    let time = |seconds| Some(Retention::Time(Duration::from_secs(seconds)));
    let kept = |value| with("auto_compaction_retention", value).expect(value).auto_compaction;
    assert_eq!(minimal().check().expect("it is enough").auto_compaction, None);
    for (value, expected) in [("0", None), ("0s", None), ("1", time(3_600)), ("90m", time(5_400)), ("1s", time(1))] {
        assert_eq!(kept(value), expected, "{value}");
    }
    let revisions = |value: &str| {
        let mut layers = minimal();
        layers.add_flag("auto_compaction_mode", "revision".to_owned());
        layers.add_flag("auto_compaction_retention", value.to_owned());
        layers.check().map(|config| config.auto_compaction)
    };
    assert_eq!(revisions("0"), Ok(None));
    assert_eq!(revisions("1000"), Ok(Some(Retention::Revisions(1_000))));
    let error = revisions("1h").expect_err("it is no number").to_string();
    let told =
        "--auto-compaction-retention is \"1h\"; allowed: a number of revisions, from 0, because the mode is revision";
    assert_eq!(error, told);
}

#[test]
fn a_quota_is_a_size_or_negative() {
    let quota = |value| with("quota_backend_bytes", value).expect(value).quota_backend_bytes;
    assert_eq!(minimal().check().expect("it is enough").quota_backend_bytes, 2 << 30);
    for (value, expected) in [("0", 2 << 30), ("16MiB", 16 << 20), ("1000", 1_000), ("-1", -1), ("-7", -7)] {
        assert_eq!(quota(value), expected, "{value}");
    }
}

#[test]
fn tokens_are_simple_or_signed() {
    let tokens = |key, value| with(key, value).expect(value).tokens;
    let simple = |seconds| TokenKind::Simple { ttl: Duration::from_secs(seconds) };
    assert_eq!(minimal().check().expect("it is enough").tokens, simple(300));
    assert_eq!([tokens("auth_token", "simple"), tokens("auth_token", "simple,")], [simple(300), simple(300)]);
    assert_eq!(
        [tokens("auth_token_ttl", "1"), tokens("auth_token_ttl", "31536000")],
        [simple(1), simple(365 * 86_400)]
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    files::write(&file, [7; 32]).expect("written");
    let options = format!("jwt,sign-method=HS256,priv-key={}", file.display());
    let TokenKind::Jwt(jwt) = tokens("auth_token", &options) else { panic!("it is one") };
    assert!(jwt.can_sign());
    for (value, told) in [
        ("jwt", "--auth-token has a bad jwt: sign-method is missing: EdDSA, with an Ed25519 key, or HS256, with a"),
        ("jwt,sign-method=RS256", "--auth-token has a bad jwt: sign-method is \"RS256\"; allowed: EdDSA, with an"),
    ] {
        let error = with("auth_token", value).expect_err(value).to_string();
        assert!(error.starts_with(told), "{error}");
    }
}

#[test]
fn addresses_that_nobody_can_reach_are_not_told_to_others() {
    for host in ["0.0.0.0", "[::]", "[0:0:0:0:0:0:0:0]", "[::ffff:0.0.0.0]", "0", "0.0", "0x0", "127.1", "224.0.0.1"] {
        for (key, value) in [
            ("advertise_client", format!("http://{host}:2379")),
            ("initial_cluster", format!("1=a:1,2=http://{host}:1")),
        ] {
            let error = with(key, &value).expect_err(&value).to_string();
            let flag = format!("--{}", key.replace('_', "-"));
            assert!(error.starts_with(&flag) && error.contains("can reach"), "{error}");
        }
    }
    for (key, value) in [("advertise_client", "h:0"), ("initial_cluster", "1=a:1,2=b:0"), ("listen_peer", "b:0")] {
        assert!(with(key, value).is_err(), "{key} is {value}");
    }
    let told = |key, value| with(key, value).expect(value).advertise_client.to_string();
    assert_eq!(told("advertise_client", "[::1]:80"), "http://[::1]:80");
    assert_eq!(told("listen_client", "10.0.0.1:5"), "http://10.0.0.1:5");
    // The others know this member under one host already.
    assert_eq!(told("listen_client", "0.0.0.0:5"), "http://b:5");
    assert_eq!(told("listen_client", "[::]:0"), "http://b:0", "the port comes with the listener");
    let mut alone = minimal();
    alone.add_flag("initial_cluster", "2=127.0.0.1:2380".to_owned());
    alone.add_flag("listen_client", "0.0.0.0:2379".to_owned());
    let error = alone.check().expect_err("only this machine can reach it").to_string();
    assert!(error.starts_with("--advertise-client is missing: --listen-client is a wildcard address"), "{error}");
}

#[test]
fn a_member_alone_needs_no_flags() {
    let config = Layers::new().check().expect("the defaults are enough");
    assert_eq!((config.name.as_str(), config.initial_cluster.len()), ("default", 1));
    assert_eq!(config.id, founding::member_id("bowline", &["http://127.0.0.1:2380".to_owned()]));
    assert_eq!(config.data_dir, PathBuf::from("bowline-data/default"));
}

#[test]
fn members_have_names_and_get_ids_from_their_addresses() {
    let mut layers = Layers::new();
    layers.add_flag("initial_cluster", "a=http://a:2380,b=http://b:2380".to_owned());
    let error = layers.check().expect_err("which of them?").to_string();
    assert_eq!(error, "--name is \"default\"; allowed: a member of --initial-cluster (a, b)");
    layers.add_flag("name", "b".to_owned());
    let config = layers.check().expect("good");
    assert_eq!(config.id, founding::member_id("bowline", &["http://b:2380".to_owned()]));
    assert_eq!(config.cluster_id(), founding::cluster_id(config.initial_cluster.keys().copied()));
    assert_eq!(config.listen_peer, "b:2380");
    layers.add_flag("id", "2".to_owned());
    let error = layers.check().expect_err("its names are no ids").to_string();
    assert!(error.starts_with("--initial-cluster is") && error.contains("with --id, each name is an id"), "{error}");
    let mut odd = Layers::new();
    odd.add_flag("name", "../b".to_owned());
    let odd = odd.check().expect("a name is any text");
    assert_eq!(odd.data_dir, PathBuf::from(format!("bowline-data/member-{}", odd.id.0)));
}

#[test]
fn an_unknown_key_of_a_file_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bowline.toml");
    files::write(&file, "heart_beat = \"50ms\"\n").expect("written");
    let error = Layers::new().add_file(&file).expect_err("no such setting").to_string();
    assert!(error.contains("unknown setting heart_beat; allowed: id, name, data_dir"), "{error}");
}

#[test]
fn the_same_founders_make_the_same_cluster_and_others_another() {
    let one = minimal().check().expect("good");
    let mut spelled = minimal();
    spelled.add_flag("initial_cluster", "3=http://c:2380/,2=b:2380,1=a:2380".to_owned());
    assert_eq!(one.cluster_id(), spelled.check().expect("good").cluster_id());
    let other = with("cluster_token", "other").expect("good");
    assert_ne!(one.cluster_id(), other.cluster_id());
}

#[test]
fn times_sizes_and_addresses_are_read_as_people_write_them() {
    assert_eq!(parse_duration("300ms"), Some(Duration::from_millis(300)));
    assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1_500)));
    assert_eq!(parse_duration("5m"), Some(Duration::from_secs(300)));
    assert_eq!(parse_duration("1h30m0.5s"), Some(Duration::from_millis(5_400_500)));
    assert_eq!([parse_duration("1h30"), parse_duration("1x"), parse_duration("m")], [None; 3]);
    assert_eq!([parse_duration("5"), parse_duration("-1s"), parse_duration("infs"), parse_duration("")], [None; 4]);
    assert_eq!(
        [parse_size("4096"), parse_size("64KiB"), parse_size("1.5MiB")],
        [Some(4096), Some(65_536), Some(3 << 19)]
    );
    assert_eq!(parse_size("2GiB"), Some(2 << 30));
    assert_eq!([parse_size("many"), parse_size("-1"), parse_size("1e300")], [None; 3]);
    assert_eq!(Url::parse("http://[::1]:2379").map(|url| url.port()), Some(2379));
    for bad in ["", "host", ":1", "host:70000", "host:+1", "ho st:1", "https://host", "[zz]:1", "ftp://h:1"] {
        assert_eq!(Url::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_lease_lives_longer_than_an_election() {
    let shortest = |election: &str| with("election_max", election).expect("good").min_lease_ttl();
    assert_eq!(["700ms", "1333ms", "1334ms", "2s", "3s"].map(shortest), [2, 2, 3, 3, 5]);
}

#[test]
fn a_member_may_listen_on_several_addresses() {
    let listens = |key, value| with(key, value).map(|config| (config.listen_client, config.listen_metrics));
    let urls =
        |texts: &[&str]| -> Vec<Url> { texts.iter().map(|text| Url::parse(text).expect("an address")).collect() };
    let several = "http://127.0.0.1:2379,10.0.0.2:2379, http://127.0.0.1:2379";
    let expected = urls(&["127.0.0.1:2379", "10.0.0.2:2379"]);
    assert_eq!(listens("listen_client", several), Ok((expected.clone(), Vec::new())));
    assert_eq!(with("listen_client", several).expect("good").advertise_client, expected[0]);
    assert_eq!(listens("listen_metrics", several), Ok((urls(&["127.0.0.1:2379"]), expected)));
    for (key, value) in [("listen_client", "127.0.0.1:2379,"), ("listen_metrics", ""), ("listen_metrics", "here")] {
        assert!(listens(key, value).is_err(), "{key}: {value}");
    }
}

#[test]
fn limits_of_requests_have_bounds() {
    let config = minimal().check().expect("good");
    assert_eq!((config.max_txn_ops, config.max_concurrent_streams), (128, 10_000));
    assert_eq!(with("max_txn_ops", "1000").map(|config| config.max_txn_ops), Ok(1_000));
    let error = with("max_txn_ops", "0").expect_err("too few").to_string();
    assert_eq!(error, "--max-txn-ops is \"0\"; allowed: a whole number from 1 to 65536");
    assert!(with("max_concurrent_streams", "4294967295").is_err());
    assert_eq!(config.max_header_bytes, 65_536);
    assert_eq!(with("max_header_bytes", "1MiB").map(|config| config.max_header_bytes), Ok(1 << 20));
    let error = with("max_header_bytes", "8191").expect_err("too few").to_string();
    let allowed = "a size from 8192 to 1048576 bytes, such as 64MiB";
    assert_eq!(error, format!("--max-header-bytes is \"8191\"; allowed: {allowed}"));
    assert_eq!(config.max_connections_per_address, None);
    assert_eq!(with("max_connections_per_address", "7").map(|config| config.max_connections_per_address), Ok(Some(7)));
    assert!(with("max_connections_per_address", "0").is_err());
}

#[test]
fn the_gateway_is_on_and_for_everybody_unless_told_otherwise() {
    let config = minimal().check().expect("good");
    assert_eq!((config.gateway, config.cors, config.host_whitelist), (true, Allowed::All, Allowed::All));
    assert_eq!(with("enable_grpc_gateway", "false").map(|config| config.gateway), Ok(false));
    for all in ["", "*", "a,*"] {
        assert_eq!(with("cors", all).map(|config| config.cors), Ok(Allowed::All), "{all:?}");
    }
    let only = with("host_whitelist", "a.example, B").expect("good").host_whitelist;
    let admitted = ["a.example", "A.EXAMPLE", "b", "", "a", "a.example.b"].map(|name| only.admits(name));
    assert_eq!(admitted, [true, true, true, false, false, false]);
    let error = with("cors", "a,,b").expect_err("one is empty").to_string();
    assert_eq!(error, "--cors is \"a,,b\"; allowed: *, or names, separated by commas");
}

/// The settings with these values, a member alone if they have no other members.
fn tls(values: &[(&str, &str)]) -> Result<ServerConfig, ConfigError> {
    let mut layers = Layers::new();
    values.iter().for_each(|(key, value)| layers.add_flag(key, (*value).to_owned()));
    let config = layers.check()?;
    config.check_schemes()?;
    Ok(config)
}

#[test]
fn a_certificate_makes_addresses_without_a_scheme_https() {
    let config =
        tls(&[("cert_file", "c"), ("key_file", "k"), ("listen_metrics", "http://127.0.0.1:2381")]).expect("good");
    assert_eq!(config.listen_client[0].to_string(), "https://127.0.0.1:2379");
    assert_eq!(config.advertise_client.to_string(), "https://127.0.0.1:2379");
    assert_eq!(config.listen_metrics[0].to_string(), "http://127.0.0.1:2381");
    assert_eq!((config.advertise_peer.to_string().as_str(), &config.peer_tls), ("http://127.0.0.1:2380", &None));
    let settings = config.client_tls.expect("it is given");
    assert_eq!((settings.cert, settings.key, settings.auto), ("c".into(), "k".into(), false));
    let peers = tls(&[
        ("peer_cert_file", "c"),
        ("peer_key_file", "k"),
        ("peer_trusted_ca_file", "ca"),
        ("peer_cert_allowed_cn", "a, b"),
        ("initial_cluster", "default=10.0.0.1:2380,b=https://10.0.0.2:2380"),
        ("tls_min_version", "TLS1.3"),
    ]);
    let peers = peers.expect("good");
    assert_eq!(peers.advertise_peer.to_string(), "https://10.0.0.1:2380");
    // As etcd derives it, from the address with its scheme.
    assert_eq!(peers.id, founding::member_id("bowline", &["https://10.0.0.1:2380".to_owned()]));
    let settings = peers.peer_tls.expect("it is given");
    assert_eq!(
        (settings.names.common, settings.oldest),
        (vec!["a".to_owned(), "b".to_owned()], bowline_tls::Version::Tls13)
    );
    let made = tls(&[("auto_tls", "true"), ("peer_auto_tls", "true"), ("data_dir", "d")]).expect("good");
    let paths = [made.client_tls, made.peer_tls].map(|settings| settings.expect("it is made").key);
    assert_eq!(paths, [PathBuf::from("d/auto-tls/client.key"), PathBuf::from("d/auto-tls/peer.key")]);
    let wildcard = tls(&[
        ("cert_file", "c"),
        ("key_file", "k"),
        ("listen_client", "0.0.0.0:2379"),
        ("initial_cluster", "default=h:2380"),
    ]);
    assert_eq!(wildcard.expect("good").advertise_client.to_string(), "https://h:2379");
}

#[test]
fn settings_of_tls_that_contradict_each_other_are_refused() {
    let (pair, peer) = ([("cert_file", "c"), ("key_file", "k")], [("peer_cert_file", "c"), ("peer_key_file", "k")]);
    let with = |values: &[(&'static str, &'static str)], more: &[(&'static str, &'static str)]| [values, more].concat();
    let cases = [
        (with(&pair[..1], &[]), "--key-file is missing: a certificate is used with its private key"),
        (with(&pair[1..], &[]), "--cert-file is missing: a private key is used with its certificate"),
        (with(&[], &[("trusted_ca_file", "ca")]), "--cert-file is missing: without it, there is no TLS"),
        (with(&pair, &[("client_cert_auth", "true")]), "--trusted-ca-file is missing: without it, no certificate of"),
        (with(&pair, &[("client_crl_file", "crl")]), "--trusted-ca-file is missing: without it, nobody needs"),
        (with(&pair, &[("auto_tls", "true")]), "--auto-tls and --cert-file are both given; allowed: one of them"),
        (with(&peer, &[]), "--peer-trusted-ca-file is missing: members check each other's certificates"),
        (
            with(&[], &[("peer_auto_tls", "true"), ("peer_trusted_ca_file", "ca")]),
            "--peer-auto-tls and --peer-trusted-ca-file are both given; allowed: one of them, because no CA",
        ),
        (
            with(
                &peer,
                &[("peer_trusted_ca_file", "ca"), ("peer_cert_allowed_cn", "a"), ("peer_cert_allowed_hostname", "b")],
            ),
            "--peer-cert-allowed-cn and --peer-cert-allowed-hostname are both given; allowed: one of them",
        ),
        (with(&[], &[("auto_tls", "yes")]), "--auto-tls is \"yes\"; allowed: true, false"),
        (with(&pair, &[("tls_min_version", "1.3")]), "--tls-min-version is \"1.3\"; allowed: TLS1.2, TLS1.3"),
        (
            with(&[], &[("listen_client", "https://h:1")]),
            "to serve clients at https://h:1, --cert-file and --key-file are needed, or --auto-tls",
        ),
        (
            with(&pair, &[("listen_client", "http://h:1")]),
            "there is a certificate for clients, but no address with https:// (only http://h:1): nothing would be",
        ),
        (
            with(&[], &[("initial_cluster", "default=https://h:1")]),
            "to talk to members at https://h:1, --peer-cert-file, --peer-key-file and --peer-trusted-ca-file are needed",
        ),
        (
            with(&[], &[("peer_auto_tls", "true"), ("initial_cluster", "default=http://h:1")]),
            "there is a certificate for members, but the address http://h:1 is without TLS; allowed: https:// for all",
        ),
        (
            with(&pair, &[("listen_client", "http://h:1,https://h:1")]),
            "--listen-client is \"http://h:1,https://h:1\"; allowed: host:port, http://host:port or https://host:port",
        ),
    ];
    for (values, told) in cases {
        let error = tls(&values).expect_err(told).to_string();
        assert!(error.starts_with(told), "{values:?}: {error}");
    }
}

#[test]
fn a_switch_may_be_true_in_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bowline.toml");
    files::write(&file, "auto_tls = true\n").expect("written");
    let mut layers = Layers::new();
    layers.add_file(&file).expect("a good file");
    assert!(layers.check().expect("good").client_tls.is_some_and(|settings| settings.auto));
    files::write(&file, "heartbeat = true\n").expect("written");
    let error = Layers::new().add_file(&file).expect_err("it is no switch").to_string();
    assert!(error.ends_with("heartbeat is true; allowed: a string or a whole number"), "{error}");
}
