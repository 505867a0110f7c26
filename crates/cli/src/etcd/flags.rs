//! The flags of etcd 3.4 to 3.6, and what each of them means here. The help, the check of a command line and the tests all
//! come from this table.

/// A flag of etcd.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flag {
    /// Its name, without dashes.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The default of etcd. It is always allowed.
    pub(super) default: &'static str,
    pub(super) meaning: Meaning,
}

/// What its value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `--flag` alone means true.
    Bool,
    Text,
    /// A whole number, from 0.
    Number,
    /// A whole number, which may be negative.
    Integer,
    /// Such as `1m30s`.
    Time,
    /// A flag without a value that etcd 3.4 to 3.6 ignore themselves.
    Obsolete,
}

/// What the flag means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The value is that of a setting of `serve`: its key, and the help.
    Setting(&'static str, &'static str),
    /// `settings.rs` says which settings follow from the value.
    Converted(&'static str),
    /// Only the default and these values are allowed, for this reason.
    Only(&'static [&'static str], &'static str),
    /// Any value is accepted, and a remark in the log gives the reason why it changes nothing.
    NoEffect(&'static str),
}

use Kind::{Bool, Integer, Number, Obsolete, Text, Time};
use Meaning::{Converted, NoEffect, Only, Setting};

const fn flag(name: &'static str, kind: Kind, default: &'static str, meaning: Meaning) -> Flag {
    Flag { name, kind, default, meaning }
}

const OWN_CLIENT: &str = "a member makes no connection to its own port for clients";
const ONE_PAIR: &str = "a member uses --peer-cert-file in both directions";
const SAN: &str = "a member's certificate need not be valid for the address that it connects from";
const VALIDITY: &str = "a certificate that is made is valid for a year, and made again at a start in its last 14 days";
const CIPHERS: &str = "there are only cipher suites with forward secrecy and authenticated encryption";
const DISCOVERY: &str = "there is no discovery: name all members in --initial-cluster";
const WITHOUT_DISCOVERY: &str = "there is no discovery";
const ARGON2: &str = "passwords are hashed with Argon2id, and hashes of bcrypt are made anew when they are used";
const TRACING: &str = "there is no distributed tracing: use /metrics";
const PROXY: &str = "there is no v2 proxy: use a TCP load balancer";
const ETCDS_FILES: &str = "it tunes files that only etcd has";
const LOG: &str =
    "a member removes old log entries by their size in bytes: see `bowline serve --help`, --snapshot-bytes";
const PINGS: &str = "a silent client is pinged after 30 s, and disconnected 20 s later";
const HASHES: &str = "the members' states are always compared, also at each compaction";
const START_CHECK: &str = "a member always checks its own files by checksum, and asks its peers what they remember of it; \
                           `bowline hashkv` compares the members' states";
const LEASES: &str = "a lease that was kept alive always keeps its time when the leader changes";
const COMPACTION: &str = "compaction removes old revisions in steps of its own size";
const DEFRAGMENT: &str = "a member makes its file smaller by itself, and serves its clients meanwhile";
const SLOW: &str = "/metrics counts what takes longer than 100 ms: etcd_server_slow_apply_total";
const PEERS: &str = "heartbeats detect a broken connection between members";
const V2: &str = "there is no v2 API";
const ROTATION: &str = "the log goes to standard error: let systemd or logrotate rotate it";
const OBSOLETE: &str = "etcd ignores it, too";
const ALL_METRICS: &str = "/metrics always has all metrics, those of 'extensive' too";
const LEARNERS: &str = "a cluster has one learner at a time: promote it, then add the next one";
const PRE_VOTE: &str = "Bowline always uses pre-vote";
const RECONFIG: &str = "Bowline always refuses a change of the members that could cost the quorum";

const MEMBER: &[Flag] = &[
    flag("name", Text, "default", Setting("name", "Name of this member in --initial-cluster.")),
    flag("data-dir", Text, "", Converted("Data folder; if it is not given, NAME.etcd in the current folder.")),
    flag("wal-dir", Text, "", Only(&[], "the log is in the data folder: mount the faster disk at --data-dir")),
    flag("snapshot-count", Number, "10000", NoEffect(LOG)),
    flag("heartbeat-interval", Number, "100", Converted("Interval of the leader's heartbeats, in milliseconds.")),
    flag(
        "election-timeout",
        Number,
        "1000",
        Converted(
            "Shortest election timeout, in milliseconds, from 5 heartbeat intervals to 30000. As in etcd, each timeout \
             is drawn at random between it and twice as much.",
        ),
    ),
    flag("initial-election-tick-advance", Bool, "true", NoEffect("a member that starts alone elects itself at once")),
    flag("listen-peer-urls", Text, "http://localhost:2380", Converted("Address to accept other members on: one.")),
    flag(
        "listen-client-urls",
        Text,
        "http://localhost:2379",
        Setting("listen_client", "Addresses to serve clients on, gRPC and HTTP, separated by commas."),
    ),
    flag("listen-client-http-urls", Text, "", Only(&[], "HTTP is served at all addresses of --listen-client-urls")),
    flag("max-snapshots", Number, "5", NoEffect(ETCDS_FILES)),
    flag("max-wals", Number, "5", NoEffect(ETCDS_FILES)),
    flag(
        "quota-backend-bytes",
        Integer,
        "0",
        Setting(
            "quota_backend_bytes",
            "Size of the state at which no more data is accepted, in bytes; 0 means 2 GiB, and a negative number no \
             such size.",
        ),
    ),
    flag("backend-bbolt-freelist-type", Text, "map", NoEffect(ETCDS_FILES)),
    flag("backend-batch-interval", Time, "0s", NoEffect(ETCDS_FILES)),
    flag("backend-batch-limit", Number, "0", NoEffect(ETCDS_FILES)),
    flag(
        "max-txn-ops",
        Number,
        "128",
        Setting("max_txn_ops", "Maximum number of operations, or of comparisons, in a transaction."),
    ),
    flag(
        "max-request-bytes",
        Number,
        "1572864",
        Setting("max_request_bytes", "Maximum size of a client's request, in bytes; at most 8388608."),
    ),
    flag(
        "max-concurrent-streams",
        Number,
        "4294967295",
        Converted("Maximum number of open requests on one connection, at most 1000000; the default means 10000."),
    ),
    flag(
        "enable-grpc-gateway",
        Bool,
        "true",
        Setting("enable_grpc_gateway", "Whether the API is served over JSON and HTTP, too, under /v3/."),
    ),
    flag("grpc-keepalive-min-time", Time, "5s", NoEffect("a client may ping as often as it likes")),
    flag("grpc-keepalive-interval", Time, "2h", NoEffect(PINGS)),
    flag("grpc-keepalive-timeout", Time, "20s", NoEffect(PINGS)),
    flag("socket-reuse-port", Bool, "false", Only(&[], "two members must not share a port: give each its own")),
    flag("socket-reuse-address", Bool, "false", NoEffect("listeners always have SO_REUSEADDR")),
    flag("raft-read-timeout", Time, "5s", NoEffect(PEERS)),
    flag("raft-write-timeout", Time, "5s", NoEffect(PEERS)),
    flag("snapshot-catchup-entries", Number, "5000", NoEffect(LOG)),
    flag("experimental-snapshot-catchup-entries", Number, "5000", NoEffect(LOG)),
    flag("memory-mlock", Bool, "false", Only(&[], "memory is not locked: turn swap off instead")),
    flag("experimental-memory-mlock", Bool, "false", Only(&[], "memory is not locked: turn swap off instead")),
];

const CLUSTERING: &[Flag] = &[
    flag(
        "initial-advertise-peer-urls",
        Text,
        "http://localhost:2380",
        Converted("Address of this member that --initial-cluster has: one."),
    ),
    flag(
        "initial-cluster",
        Text,
        "",
        Converted(
            "Name and address of each founding member: a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,...; if it is not \
             given, this member alone, with --initial-advertise-peer-urls. Unlike in etcd, it must stay the same at \
             every start, unless --initial-cluster-state is existing.",
        ),
    ),
    flag(
        "initial-cluster-state",
        Text,
        "new",
        Setting(
            "initial_cluster_state",
            "What an empty data folder means: new, a founding member, or existing, a member that was added and joins.",
        ),
    ),
    flag(
        "initial-cluster-token",
        Text,
        "etcd-cluster",
        Setting("cluster_token", "Text that distinguishes clusters with the same --initial-cluster."),
    ),
    flag(
        "advertise-client-urls",
        Text,
        "http://localhost:2379",
        Converted("Address that clients are told to use: one. Needed if --listen-client-urls is given."),
    ),
    flag("discovery", Text, "", Only(&[], DISCOVERY)),
    flag("discovery-fallback", Text, "exit", Only(&[], PROXY)),
    flag("discovery-proxy", Text, "", Only(&[], DISCOVERY)),
    flag("discovery-srv", Text, "", Only(&[], DISCOVERY)),
    flag("discovery-srv-name", Text, "", Only(&[], DISCOVERY)),
    flag("discovery-endpoints", Text, "", Only(&[], DISCOVERY)),
    flag("discovery-token", Text, "", Only(&[], DISCOVERY)),
    flag("discovery-dial-timeout", Time, "2s", NoEffect(WITHOUT_DISCOVERY)),
    flag("discovery-request-timeout", Time, "5s", NoEffect(WITHOUT_DISCOVERY)),
    flag("discovery-keepalive-time", Time, "2s", NoEffect(WITHOUT_DISCOVERY)),
    flag("discovery-keepalive-timeout", Time, "6s", NoEffect(WITHOUT_DISCOVERY)),
    flag("discovery-insecure-transport", Bool, "true", NoEffect(WITHOUT_DISCOVERY)),
    flag("discovery-insecure-skip-tls-verify", Bool, "false", NoEffect(WITHOUT_DISCOVERY)),
    flag("discovery-cert", Text, "", Only(&[], DISCOVERY)),
    flag("discovery-key", Text, "", Only(&[], DISCOVERY)),
    flag("discovery-cacert", Text, "", Only(&[], DISCOVERY)),
    flag("discovery-user", Text, "", Only(&[], DISCOVERY)),
    flag("discovery-password", Text, "", Only(&[], DISCOVERY)),
    flag("strict-reconfig-check", Bool, "true", Only(&[], RECONFIG)),
    flag("pre-vote", Bool, "true", Only(&[], PRE_VOTE)),
    flag(
        "auto-compaction-mode",
        Text,
        "periodic",
        Setting(
            "auto_compaction_mode",
            "What --auto-compaction-retention means: periodic, a time, or revision, a number of revisions.",
        ),
    ),
    flag(
        "auto-compaction-retention",
        Text,
        "0",
        Setting(
            "auto_compaction_retention",
            "How much history automatic compaction keeps: a time such as 30m, or hours without a unit; or a number of \
             revisions; 0 turns it off.",
        ),
    ),
    flag("max-learners", Number, "1", Only(&[], LEARNERS)),
    flag("experimental-max-learners", Number, "1", Only(&[], LEARNERS)),
    flag("enable-v2", Bool, "false", Only(&[], V2)),
    flag("experimental-enable-v2v3", Text, "", Only(&[], V2)),
    flag("v2-deprecation", Text, "write-only", NoEffect(V2)),
];

const SECURITY: &[Flag] = &[
    flag("cert-file", Text, "", Setting("cert_file", "Certificate for clients, in PEM.")),
    flag("key-file", Text, "", Setting("key_file", "Private key of --cert-file, in PEM.")),
    flag("client-cert-auth", Bool, "false", Setting("client_cert_auth", "Clients must have a certificate.")),
    flag("client-cert-file", Text, "", NoEffect(OWN_CLIENT)),
    flag("client-key-file", Text, "", NoEffect(OWN_CLIENT)),
    flag("client-crl-file", Text, "", Setting("client_crl_file", "Lists of revoked certificates of clients, in PEM.")),
    flag(
        "client-cert-allowed-hostname",
        Text,
        "",
        Setting("client_cert_allowed_hostname", "Host names, for one of which a client's certificate must be valid."),
    ),
    flag(
        "trusted-ca-file",
        Text,
        "",
        Setting("trusted_ca_file", "CAs of clients, in PEM. As in etcd, clients must have a certificate then."),
    ),
    flag(
        "auto-tls",
        Bool,
        "false",
        Setting("auto_tls", "TLS for clients with a certificate that is made at the start."),
    ),
    flag(
        "peer-cert-file",
        Text,
        "",
        Setting("peer_cert_file", "Certificate for members, in PEM, for both directions."),
    ),
    flag("peer-key-file", Text, "", Setting("peer_key_file", "Private key of --peer-cert-file, in PEM.")),
    flag(
        "peer-client-cert-auth",
        Bool,
        "false",
        Setting(
            "peer_client_cert_auth",
            "Members must have a certificate: with --peer-trusted-ca-file they always must.",
        ),
    ),
    flag("peer-client-cert-file", Text, "", Only(&[], ONE_PAIR)),
    flag("peer-client-key-file", Text, "", Only(&[], ONE_PAIR)),
    flag(
        "peer-trusted-ca-file",
        Text,
        "",
        Setting("peer_trusted_ca_file", "CAs of members, in PEM. Needed with --peer-cert-file."),
    ),
    flag(
        "peer-cert-allowed-cn",
        Text,
        "",
        Setting("peer_cert_allowed_cn", "Common names, one of which a member's certificate must have."),
    ),
    flag(
        "peer-cert-allowed-hostname",
        Text,
        "",
        Setting("peer_cert_allowed_hostname", "Host names, for one of which a member's certificate must be valid."),
    ),
    flag(
        "peer-auto-tls",
        Bool,
        "false",
        Setting("peer_auto_tls", "TLS between members with certificates that are made at the start, unchecked."),
    ),
    flag("peer-crl-file", Text, "", Setting("peer_crl_file", "Lists of revoked certificates of members, in PEM.")),
    flag("peer-skip-client-san-verification", Bool, "false", NoEffect(SAN)),
    flag("experimental-peer-skip-client-san-verification", Bool, "false", NoEffect(SAN)),
    flag("self-signed-cert-validity", Number, "1", Only(&[], VALIDITY)),
    flag("cipher-suites", Text, "", Only(&[], CIPHERS)),
    flag(
        "tls-min-version",
        Text,
        "TLS1.2",
        Setting("tls_min_version", "Oldest version of TLS that is allowed: TLS1.2 or TLS1.3."),
    ),
    flag("tls-max-version", Text, "", Only(&["TLS1.3"], "TLS 1.3 is always allowed")),
    flag("cors", Text, "*", Setting("cors", "Origins of web pages that may use the API, separated by commas; *: all.")),
    flag(
        "host-whitelist",
        Text,
        "*",
        Setting(
            "host_whitelist",
            "Host names under which requests without TLS are answered, separated by commas; *: all.",
        ),
    ),
];

const AUTH: &[Flag] = &[
    flag(
        "auth-token",
        Text,
        "simple",
        Setting(
            "auth_token",
            "simple, or jwt,sign-method=EdDSA,pub-key=FILE,priv-key=FILE,ttl=10m; sign-method may be HS256 instead, with \
             a secret in priv-key.",
        ),
    ),
    flag("bcrypt-cost", Number, "10", NoEffect(ARGON2)),
    flag(
        "auth-token-ttl",
        Number,
        "300",
        Setting("auth_token_ttl", "Seconds that a simple token lives after its last use, from 1 to 31536000."),
    ),
];

const MONITORING: &[Flag] = &[
    flag("enable-pprof", Bool, "false", Only(&[], "there is no /debug/pprof: use perf on the process")),
    flag("metrics", Text, "basic", Only(&["extensive"], ALL_METRICS)),
    flag(
        "listen-metrics-urls",
        Text,
        "",
        Setting("listen_metrics", "More addresses for /metrics, /health, /livez and /readyz, separated by commas."),
    ),
    flag("enable-distributed-tracing", Bool, "false", Only(&[], TRACING)),
    flag("distributed-tracing-address", Text, "localhost:4317", NoEffect(TRACING)),
    flag("distributed-tracing-service-name", Text, "etcd", NoEffect(TRACING)),
    flag("distributed-tracing-instance-id", Text, "", NoEffect(TRACING)),
    flag("distributed-tracing-sampling-rate", Number, "0", NoEffect(TRACING)),
    flag("experimental-enable-distributed-tracing", Bool, "false", Only(&[], TRACING)),
    flag("experimental-distributed-tracing-address", Text, "localhost:4317", NoEffect(TRACING)),
    flag("experimental-distributed-tracing-service-name", Text, "etcd", NoEffect(TRACING)),
    flag("experimental-distributed-tracing-instance-id", Text, "", NoEffect(TRACING)),
    flag("experimental-distributed-tracing-sampling-rate", Number, "0", NoEffect(TRACING)),
];

const LOGGING: &[Flag] = &[
    flag("logger", Text, "zap", Only(&[], "the other logger of etcd is no longer supported by etcd, either")),
    flag("log-outputs", Text, "default", Only(&["stderr"], "the log goes to standard error: redirect it")),
    flag("log-level", Text, "info", Converted("Lowest level to log: debug, info, warn, error, panic or fatal.")),
    flag("log-format", Text, "json", Converted("json, one object per line, or console, lines for people.")),
    flag("enable-log-rotation", Bool, "false", Only(&[], ROTATION)),
    flag("log-rotation-config-json", Text, "", NoEffect(ROTATION)),
    flag("disable-log-sampling", Bool, "false", NoEffect("the log is never sampled")),
    flag("debug", Bool, "false", Only(&[], "use --log-level=debug")),
    flag("log-package-levels", Text, "", Only(&[], "there is one level: use --log-level")),
];

const FEATURES: &[Flag] = &[
    flag(
        "watch-progress-notify-interval",
        Time,
        "10m",
        Setting("watch_progress_interval", "Interval of progress notifications to watchers, from 100ms to 24h."),
    ),
    flag(
        "experimental-watch-progress-notify-interval",
        Time,
        "10m",
        Setting("watch_progress_interval", "The same: its name in etcd 3.5."),
    ),
    flag("feature-gates", Text, "", Converted("Features to switch on or off: NAME=true,NAME=false,...")),
    flag("experimental-initial-corrupt-check", Bool, "false", NoEffect(START_CHECK)),
    flag("corrupt-check-time", Time, "0s", NoEffect(HASHES)),
    flag("experimental-corrupt-check-time", Time, "0s", NoEffect(HASHES)),
    flag("experimental-compact-hash-check-enabled", Bool, "false", NoEffect(HASHES)),
    flag("compact-hash-check-time", Time, "1m0s", NoEffect(HASHES)),
    flag("experimental-compact-hash-check-time", Time, "1m0s", NoEffect(HASHES)),
    flag("experimental-enable-lease-checkpoint", Bool, "false", NoEffect(LEASES)),
    flag("experimental-enable-lease-checkpoint-persist", Bool, "false", NoEffect(LEASES)),
    flag("compaction-batch-limit", Number, "1000", NoEffect(COMPACTION)),
    flag("experimental-compaction-batch-limit", Number, "1000", NoEffect(COMPACTION)),
    flag("compaction-sleep-interval", Time, "10ms", NoEffect(COMPACTION)),
    flag("experimental-compaction-sleep-interval", Time, "10ms", NoEffect(COMPACTION)),
    flag("downgrade-check-time", Time, "5s", NoEffect("there are no downgrades of the API")),
    flag("experimental-downgrade-check-time", Time, "5s", NoEffect("there are no downgrades of the API")),
    flag("warning-apply-duration", Time, "100ms", NoEffect(SLOW)),
    flag("experimental-warning-apply-duration", Time, "100ms", NoEffect(SLOW)),
    flag("warning-unary-request-duration", Time, "300ms", NoEffect(SLOW)),
    flag("experimental-warning-unary-request-duration", Time, "300ms", NoEffect(SLOW)),
    flag("experimental-txn-mode-write-with-shared-buffer", Bool, "true", NoEffect(ETCDS_FILES)),
    flag("experimental-backend-bbolt-freelist-type", Text, "array", NoEffect(ETCDS_FILES)),
    flag("bootstrap-defrag-threshold-megabytes", Number, "0", NoEffect(DEFRAGMENT)),
    flag("experimental-bootstrap-defrag-threshold-megabytes", Number, "0", NoEffect(DEFRAGMENT)),
    flag("experimental-stop-grpc-service-on-defrag", Bool, "false", NoEffect(DEFRAGMENT)),
    flag(
        "experimental-wait-cluster-ready-timeout",
        Time,
        "5s",
        NoEffect("a member serves as soon as it knows a leader"),
    ),
    flag("experimental-set-member-localaddr", Bool, "false", Only(&[], "the system chooses the local address")),
];

const UNSAFE: &[Flag] = &[
    flag(
        "force-new-cluster",
        Bool,
        "false",
        Only(&[], "no member may forget the others: it could lose acknowledged writes"),
    ),
    flag(
        "unsafe-no-fsync",
        Bool,
        "false",
        Only(&[], "a write is acknowledged only when it is on disk; safety has no switch"),
    ),
];

const OTHER: &[Flag] = &[
    flag("version", Bool, "false", Converted("Prints the version.")),
    flag("config-file", Text, "", Only(&[], "a YAML file is not read: give its values as flags or as ETCD_ variables")),
    flag("proxy", Text, "off", Only(&[], PROXY)),
    flag("proxy-failure-wait", Number, "5000", NoEffect(PROXY)),
    flag("proxy-refresh-interval", Number, "30000", NoEffect(PROXY)),
    flag("proxy-dial-timeout", Number, "1000", NoEffect(PROXY)),
    flag("proxy-write-timeout", Number, "5000", NoEffect(PROXY)),
    flag("proxy-read-timeout", Number, "0", NoEffect(PROXY)),
    flag("cluster-active-size", Obsolete, "", NoEffect(OBSOLETE)),
    flag("cluster-remove-delay", Obsolete, "", NoEffect(OBSOLETE)),
    flag("cluster-sync-interval", Obsolete, "", NoEffect(OBSOLETE)),
    flag("config", Obsolete, "", NoEffect(OBSOLETE)),
    flag("force", Obsolete, "", NoEffect(OBSOLETE)),
    flag("max-result-buffer", Obsolete, "", NoEffect(OBSOLETE)),
    flag("max-retry-attempts", Obsolete, "", NoEffect(OBSOLETE)),
    flag("peer-heartbeat-interval", Obsolete, "", NoEffect(OBSOLETE)),
    flag("peer-election-timeout", Obsolete, "", NoEffect(OBSOLETE)),
    flag("retry-interval", Obsolete, "", NoEffect(OBSOLETE)),
    flag("snapshot", Obsolete, "", NoEffect(OBSOLETE)),
    flag("v", Obsolete, "", NoEffect(OBSOLETE)),
    flag("vv", Obsolete, "", NoEffect(OBSOLETE)),
];

/// All flags, by the sections of the help.
pub(super) const SECTIONS: [(&str, &[Flag]); 9] = [
    ("Member", MEMBER),
    ("Clustering", CLUSTERING),
    ("Security", SECURITY),
    ("Auth", AUTH),
    ("Profiling and Monitoring", MONITORING),
    ("Logging", LOGGING),
    ("Features", FEATURES),
    ("Unsafe", UNSAFE),
    ("Other", OTHER),
];

/// The names that `--feature-gates` takes, with what each of them means: as flags whose values are true or false.
pub(super) const GATES: &[Flag] = &[
    flag("CompactHashCheck", Bool, "false", NoEffect(HASHES)),
    flag("InitialCorruptCheck", Bool, "false", NoEffect(START_CHECK)),
    flag("LeaseCheckpoint", Bool, "false", NoEffect(LEASES)),
    flag("LeaseCheckpointPersist", Bool, "false", NoEffect(LEASES)),
    flag("SetMemberLocalAddr", Bool, "false", Only(&[], "the system chooses the local address")),
    flag("StopGRPCServiceOnDefrag", Bool, "false", NoEffect(DEFRAGMENT)),
    flag("TxnModeWriteWithSharedBuffer", Bool, "true", NoEffect(ETCDS_FILES)),
];

/// All flags.
pub(super) fn all() -> impl Iterator<Item = &'static Flag> {
    SECTIONS.into_iter().flat_map(|(_, flags)| flags)
}

/// The flag with this name.
pub(super) fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

impl Flag {
    /// The name of its variable, such as `ETCD_DATA_DIR`.
    pub(super) fn variable(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    /// Whether it stands alone, without a value in the next argument.
    pub(super) fn stands_alone(&self) -> bool {
        matches!(self.kind, Kind::Bool | Kind::Obsolete)
    }

    /// The help.
    pub(super) fn help(&self) -> String {
        match self.meaning {
            Setting(_, help) | Converted(help) => help.to_owned(),
            Only([], why) => format!("Only the default is accepted: {why}."),
            Only(more, why) => {
                let more: Vec<String> = more.iter().map(|value| format!("'{value}'")).collect();
                format!("The default or {}: {why}.", more.join(", "))
            }
            NoEffect(why) => format!("Accepted, without effect: {why}."),
        }
    }
}
