use std::collections::BTreeSet;
use std::time::Duration;

use bowline_server::config::{Allowed, LogFormat, ServerConfig};

use super::flags::{Flag, GATES, Kind, Meaning, all};
use super::given::Given;
use super::settings::{Plan, plan};

fn planned(words: &[&str]) -> anyhow::Result<Plan> {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    plan(&Given::flags(&words)?)
}

fn config(words: &[&str]) -> ServerConfig {
    planned(words).unwrap_or_else(|error| panic!("{words:?}: {error}")).config
}

fn refusal(words: &[&str]) -> String {
    match planned(words) {
        Ok(_) => panic!("{words:?} is accepted"),
        Err(error) => error.to_string(),
    }
}

/// A value of the flag's kind that is not its default.
fn other(flag: &Flag) -> &'static str {
    match (flag.kind, flag.default) {
        (Kind::Bool, "true") => "false",
        (Kind::Bool | Kind::Obsolete, _) => "true",
        (Kind::Number | Kind::Integer, _) => "7",
        (Kind::Time, _) => "7s",
        (Kind::Text, _) => "other",
    }
}

#[test]
fn every_flag_has_one_row_and_its_default_is_accepted() {
    let names: BTreeSet<&str> = all().map(|flag| flag.name).collect();
    assert_eq!(names.len(), all().count(), "each name occurs once");
    for flag in all().filter(|flag| flag.kind != Kind::Obsolete) {
        let given = format!("--{}={}", flag.name, flag.default);
        // etcd wants this one with --listen-client-urls.
        let advertise = "--advertise-client-urls=http://localhost:2379";
        let plan = planned(&[&given, advertise]).unwrap_or_else(|error| panic!("{given}: {error}"));
        assert_eq!((plan.config, plan.notes), (config(&[]), Vec::new()), "{given}");
    }
}

#[test]
fn what_does_not_exist_is_refused_with_the_reason_and_what_has_no_effect_is_told() {
    for flag in all() {
        let (name, value) = (format!("--{}", flag.name), other(flag));
        let words = [format!("{name}={value}")];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match flag.meaning {
            Meaning::Only(_, why) => {
                let text = refusal(&words);
                assert!(text.starts_with(&format!("{name} is {value:?}; allowed: ")) && text.ends_with(why), "{text}");
            }
            Meaning::NoEffect(why) => {
                let notes = planned(&words).unwrap_or_else(|error| panic!("{words:?}: {error}")).notes;
                assert_eq!(notes, [format!("{name} has no effect: {why}")]);
            }
            Meaning::Setting(..) | Meaning::Converted(_) => {}
        }
    }
    for gate in GATES {
        let given = format!("--feature-gates={}={}", gate.name, other(gate));
        match gate.meaning {
            Meaning::Only(_, why) => assert!(refusal(&[&given]).ends_with(why), "{given}"),
            _ => assert_eq!(planned(&[&given]).map(|plan| plan.notes.len()).ok(), Some(1), "{given}"),
        }
    }
    assert!(refusal(&["--feature-gates=Magic=true"]).contains("has \"Magic=true\"; allowed: NAME=true or NAME=false"));
    assert_eq!(planned(&["--metrics=extensive"]).map(|plan| plan.notes).ok(), Some(Vec::new()));
}

/// S1: the defaults that tools rely on.
#[test]
fn s01_the_defaults_are_those_of_etcd() {
    let config = config(&[]);
    assert_eq!((config.max_request_bytes, config.max_txn_ops), (1_572_864, 128));
    assert_eq!(config.quota_backend_bytes, 2 << 30);
    assert_eq!(config.heartbeat, Duration::from_millis(100));
    assert_eq!((config.election_min, config.election_max), (Duration::from_secs(1), Duration::from_secs(2)));
    assert_eq!((config.name.as_str(), config.data_dir.to_str()), ("default", Some("default.etcd")));
    assert_eq!(config.listen_client[0].authority(), "localhost:2379");
    assert_eq!(config.advertise_client.to_string(), "http://localhost:2379");
    assert_eq!(config.listen_peer, "localhost:2380");
    // What etcd 3.4.23 answers when it is started without flags.
    assert_eq!((config.id.0, config.cluster_id()), (0x8e9e_05c5_2164_694d, 0xcdf8_1819_4e3a_8c32));
    assert_eq!((config.auto_compaction, config.log_format), (None, LogFormat::Json));
    assert_eq!(config.watch_progress_interval, Duration::from_secs(600));
}

/// S2: each flag that is mapped, with what it changes.
#[test]
fn s02_flags_are_mapped_to_the_settings_of_serve() {
    let advertise = "--advertise-client-urls=http://10.0.0.1:2379";
    let changed = |words: &[&str], changes: fn(&mut ServerConfig)| {
        let mut expected = config(&[]);
        changes(&mut expected);
        assert_eq!(config(words), expected, "{words:?}");
    };
    changed(&["--data-dir", "/d"], |config| config.data_dir = "/d".into());
    changed(&["-heartbeat-interval=50"], |config| config.heartbeat = Duration::from_millis(50));
    changed(&["--election-timeout", "2000"], |config| {
        (config.election_min, config.election_max) = (Duration::from_secs(2), Duration::from_secs(4));
    });
    changed(&["--listen-client-urls=http://0.0.0.0:2379,http://127.0.0.1:12379", advertise], |config| {
        let urls = ["0.0.0.0:2379", "127.0.0.1:12379", "10.0.0.1:2379"].map(bowline_server::config::Url::parse);
        let [Some(first), Some(second), Some(advertised)] = urls else { panic!("they are addresses") };
        (config.listen_client, config.advertise_client) = (vec![first, second], advertised);
    });
    changed(&["--listen-metrics-urls", "http://127.0.0.1:2381"], |config| {
        config.listen_metrics = bowline_server::config::Url::parse("127.0.0.1:2381").into_iter().collect();
    });
    changed(&["--listen-peer-urls=http://0.0.0.0:2380"], |config| config.listen_peer = "0.0.0.0:2380".to_owned());
    changed(&["--quota-backend-bytes=-1"], |config| config.quota_backend_bytes = -1);
    changed(&["--quota-backend-bytes=8589934592"], |config| config.quota_backend_bytes = 8 << 30);
    changed(&["--max-txn-ops=512", "--max-request-bytes=2097152"], |config| {
        (config.max_txn_ops, config.max_request_bytes) = (512, 2 << 20);
    });
    changed(&["--max-concurrent-streams=9"], |config| config.max_concurrent_streams = 9);
    changed(&["--enable-grpc-gateway=false"], |config| config.gateway = false);
    changed(&["--cors=http://a:1, http://b:2"], |config| {
        config.cors = Allowed::Only(vec!["http://a:1".to_owned(), "http://b:2".to_owned()]);
    });
    changed(&["--host-whitelist=a,*"], |config| config.host_whitelist = Allowed::All);
    changed(&["--cors="], |config| config.cors = Allowed::All);
    changed(&["--initial-cluster-state", "existing"], |config| config.may_found = false);
    for name in ["watch-progress-notify-interval", "experimental-watch-progress-notify-interval"] {
        changed(&[&format!("--{name}=1m30s")], |config| config.watch_progress_interval = Duration::from_secs(90));
    }
    changed(&["--log-format=console", "--log-level=panic"], |config| {
        (config.log_format, config.log_level) = (LogFormat::Text, tracing::Level::ERROR);
    });
    changed(&["--auth-token-ttl=60"], |config| {
        config.tokens = bowline_server::auth::TokenKind::Simple { ttl: Duration::from_secs(60) };
    });
    changed(&["--auto-compaction-mode=revision", "--auto-compaction-retention=5"], |config| {
        config.auto_compaction = Some(bowline_server::config::Retention::Revisions(5));
    });
    let tls =
        ["--cert-file=c", "--key-file=k", "--trusted-ca-file=ca", "--client-cert-auth", "--tls-min-version=TLS1.3"];
    let urls = ["--listen-client-urls=https://10.0.0.1:2379", "--advertise-client-urls=https://10.0.0.1:2379"];
    let secure = config(&[&tls[..], &urls].concat());
    let settings = secure.client_tls.clone().expect("it is given");
    assert_eq!((settings.cert, settings.ca), ("c".into(), Some("ca".into())));
    assert_eq!((secure.check_schemes(), secure.advertise_client.to_string()), (Ok(()), urls[1][24..].to_owned()));
    assert!(config(&tls).check_schemes().is_err(), "the default address is http://, as in etcd");
    let url = "https://10.0.0.1:2380";
    let peers = config(&[
        "--peer-auto-tls",
        &format!("--initial-advertise-peer-urls={url}"),
        &format!("--listen-peer-urls={url}"),
    ]);
    assert_eq!((peers.check_schemes(), peers.advertise_peer.to_string()), (Ok(()), url.to_owned()));
    let cluster = ["--name=b", "--initial-cluster=a=http://a:2380,b=http://b:2380"];
    let member = config(&[cluster[0], cluster[1], "--initial-advertise-peer-urls=http://b:2380"]);
    assert_eq!((member.name.as_str(), member.data_dir.to_str()), ("b", Some("b.etcd")));
    assert_eq!(member.initial_cluster[&member.id].url.authority(), "b:2380");
    let alone = config(&["--name=solo", "--initial-advertise-peer-urls=http://10.0.0.1:2380"]);
    assert_eq!(alone.initial_cluster[&alone.id].url.authority(), "10.0.0.1:2380");
    let token = config(&["--initial-cluster-token", "other"]);
    assert_ne!((token.id, token.cluster_id()), (config(&[]).id, config(&[]).cluster_id()));
}

#[test]
fn s02_values_that_contradict_each_other_are_refused_as_in_etcd() {
    let refuses = |words: &[&str], text: &str| {
        let refusal = refusal(words);
        assert!(refusal.starts_with(text), "{words:?}: {refusal}");
    };
    refuses(
        &["--listen-client-urls=http://127.0.0.1:1"],
        "--advertise-client-urls is required when --listen-client-urls is set explicitly",
    );
    refuses(
        &["--name=a", "--initial-cluster=a=http://b:2380"],
        "--initial-cluster has a=http://b:2380 but missing from --initial-advertise-peer-urls=http://localhost:2380",
    );
    refuses(
        &["--name=c", "--initial-cluster=a=http://b:2380"],
        "--name is \"c\"; allowed: a member of --initial-cluster",
    );
    refuses(
        &["--election-timeout=300"],
        "--election-timeout[300ms] should be at least as 5 times as --heartbeat-interval[100ms]",
    );
    refuses(&["--election-timeout=50001"], "--election-timeout is \"50001\"; allowed: ");
    refuses(&["--election-timeout=30001"], "--election-timeout is \"30001\"; allowed: at most 30000");
    refuses(&["--heartbeat-interval=0"], "--heartbeat-interval is \"0\"; allowed: ");
    refuses(&["--heartbeat-interval=1"], "--heartbeat-interval is \"1ms\"; allowed: a time from 5ms");
    refuses(
        &["--listen-peer-urls=http://a:1,http://b:1"],
        "--listen-peer-urls is \"http://a:1,http://b:1\"; allowed: one",
    );
    refuses(&["--listen-metrics-urls=ftp://a:1"], "--listen-metrics-urls is \"ftp://a:1\"; allowed: host:port");
    refuses(&["--cert-file=c"], "--key-file is missing: a certificate is used with its private key");
    refuses(&["--initial-cluster-state=old"], "--initial-cluster-state is \"old\"; allowed: new, existing");
    refuses(&["--log-level=loud"], "--log-level is \"loud\"; allowed: debug, info, warn, error");
    refuses(&["--auth-token=other"], "--auth-token is \"other\"; allowed: simple, or jwt,sign-method=METHOD,");
    refuses(
        &["--auth-token", "jwt,pub-key=a.pub,priv-key=a.key,sign-method=RS512"],
        "--auth-token has a bad jwt: sign-method is \"RS512\"; allowed: EdDSA, with an Ed25519 key, or HS256",
    );
    refuses(
        &["--log-outputs=stdout"],
        "--log-outputs is \"stdout\"; allowed: \"default\", \"stderr\"; the log goes to",
    );
}

#[test]
fn s02_words_are_read_as_go_reads_them() {
    let text = |words: &[&str], flag: &str| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let given = Given::flags(&words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        super::flags::find(flag).and_then(|flag| given.get(flag)).map(|value| value.text.clone())
    };
    let some = |text: &str| Some(text.to_owned());
    for words in [&["--name", "x"][..], &["-name", "x"], &["--name=x"], &["-name=x"], &["--name=y", "--name", "x"]] {
        assert_eq!(text(words, "name"), some("x"), "{words:?}");
    }
    assert_eq!(text(&["--name", "--pre-vote"], "name"), some("--pre-vote"), "a value may look like a flag");
    assert_eq!(text(&["--data-dir=a=b", "--"], "data-dir"), some("a=b"));
    for (word, value) in [("--pre-vote", "true"), ("-pre-vote=T", "true"), ("--pre-vote=0", "false")] {
        assert_eq!(text(&[word, "--name=x"], "pre-vote"), some(value), "{word}");
    }
    assert_eq!(text(&["-v", "--snapshot", "--name=x"], "name"), some("x"));
    for (words, error) in [
        (&["--nme", "x"][..], "flag provided but not defined: -nme"),
        (&["-x"], "flag provided but not defined: -x"),
        (&["--name"], "flag needs an argument: -name"),
        (&["---name=x"], "bad flag syntax: ---name=x"),
        (&["--=x"], "bad flag syntax: --=x"),
        (&["name"], "\"name\" is not a valid flag"),
        (&["--pre-vote", "true"], "\"true\" is not a valid flag"),
        (&["--", "x"], "\"x\" is not a valid flag"),
        (&["-"], "\"-\" is not a valid flag"),
        (&["gateway", "start"], "etcd gateway does not exist in Bowline"),
        (&["--pre-vote=maybe"], "invalid value \"maybe\" for --pre-vote; allowed: true or false"),
        (&["--snapshot-count=-1"], "invalid value \"-1\" for --snapshot-count; allowed: a whole number"),
        (&["--corrupt-check-time=5"], "invalid value \"5\" for --corrupt-check-time; allowed: a time"),
        (&["--quota-backend-bytes=2GiB"], "invalid value \"2GiB\" for --quota-backend-bytes; allowed: a whole number"),
    ] {
        assert!(refusal(words).starts_with(error), "{words:?}: {}", refusal(words));
    }
}

#[test]
fn s02_variables_are_flags_unless_both_are_given() {
    let with = |words: &[&str], variables: &[(&str, &str)]| {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let mut given = Given::flags(&words)?;
        given.add_variables(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))?;
        plan(&given)
    };
    let variables =
        [("ETCD_DATA_DIR", "/d"), ("ETCD_NAME", ""), ("ETCD_PORT", "tcp://1:1"), ("ETCDCTL_API", "3"), ("HOME", "/")];
    let plan = with(&["--heartbeat-interval=50"], &variables).expect("they are good");
    assert_eq!(plan.config, config(&["--data-dir=/d", "--heartbeat-interval=50"]));
    assert_eq!(plan.notes, ["unrecognized environment variable ETCD_PORT"]);
    // Even the same value, or none, as in etcd.
    for value in ["a", "b", ""] {
        let error = with(&["--name=a"], &[("ETCD_NAME", value)]).expect_err("both are given").to_string();
        let text = "conflicting environment variable \"ETCD_NAME\" is shadowed by corresponding command-line flag";
        assert!(error.starts_with(text), "{error}");
    }
    for (name, value, error) in [
        ("ETCD_HEARTBEAT_INTERVAL", "x", "invalid value \"x\" for ETCD_HEARTBEAT_INTERVAL; allowed: a whole number"),
        ("ETCD_CERT_FILE", "c.pem", "--key-file is missing: a certificate is used with its private key"),
        ("ETCD_CONFIG_FILE", "etcd.yml", "ETCD_CONFIG_FILE is \"etcd.yml\"; allowed: \"\"; a YAML file is not read"),
        ("ETCD_MAX_TXN_OPS", "0", "ETCD_MAX_TXN_OPS is \"0\"; allowed: a whole number from 1"),
    ] {
        let found = with(&[], &[(name, value)]).expect_err("it is bad").to_string();
        assert!(found.starts_with(error), "{name}: {found}");
    }
}

#[test]
fn the_help_lists_every_flag() {
    let help = super::help();
    for flag in all().filter(|flag| flag.kind != Kind::Obsolete) {
        assert!(
            help.contains(&format!("\n  --{} '{}'\n    {}\n", flag.name, flag.default, flag.help())),
            "{}",
            flag.name
        );
    }
    assert!(super::version_text().starts_with("etcd Version: 3.6.0\nGit SHA: "), "{}", super::version_text());
}
