//! The sources of settings: a flag overrides the environment, which overrides the file, which overrides the default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bowline_kv::store::Limits;
use bowline_node::raft::{NodeId, ReadKind};
use tracing::Level;

use super::tls::SWITCHES;
use super::values::{Allowed, Url, parse_duration, parse_size};
use super::{ConfigError, Founder, LogFormat, Retention, ServerConfig};
use crate::auth::{Jwt, JwtError, TokenKind};
use crate::files;
use crate::founding;
use crate::peer::Protocol;
use bowline_member::Quota;

/// A setting. It can be given as a flag, as an environment variable, or as a key in the file.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key in the file; the variable's name is derived from it.
    pub key: &'static str,
    /// The flag, without its dashes.
    pub flag: &'static str,
    /// The help text.
    pub help: &'static str,
}

impl Setting {
    /// The name of the variable, such as `BOWLINE_DATA_DIR`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("BOWLINE_{}", self.key.to_ascii_uppercase())
    }

    /// Whether it is true or false. As a flag without a value, it is true.
    #[must_use]
    pub fn is_switch(&self) -> bool {
        SWITCHES.contains(&self.key)
    }
}

/// Every setting.
pub const SETTINGS: [Setting; 50] = [
    Setting {
        key: "id",
        flag: "id",
        help: "Id of this member, if --initial-cluster has ids instead of names: a whole number from 1 [default: as \
               in etcd, a hash of --cluster-token and the member's address]",
    },
    Setting {
        key: "name",
        flag: "name",
        help: "Name of this member in --initial-cluster [default: default; with --id, member-ID]",
    },
    Setting { key: "data_dir", flag: "data-dir", help: "Data folder [default: bowline-data/NAME]" },
    Setting {
        key: "listen_client",
        flag: "listen-client",
        help: "Addresses to serve clients on, separated by commas [default: 127.0.0.1:2379]",
    },
    Setting {
        key: "advertise_client",
        flag: "advertise-client",
        help: "Address that clients are told to use [default: the first of --listen-client; if that is a wildcard \
               address, the host in --initial-cluster]",
    },
    Setting {
        key: "listen_metrics",
        flag: "listen-metrics",
        help: "More addresses for /metrics, /health and the other pages, without the API, separated by commas \
               [default: none; clients' addresses have these pages, too]",
    },
    Setting {
        key: "listen_peer",
        flag: "listen-peer",
        help: "Address to accept connections of other members on [default: the one in --initial-cluster]",
    },
    Setting {
        key: "initial_cluster",
        flag: "initial-cluster",
        help: "Name and address of each founding member, the same for all members at every start: \
               a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,... [default: NAME=http://127.0.0.1:2380]",
    },
    Setting {
        key: "initial_cluster_state",
        flag: "initial-cluster-state",
        help: "new or existing: whether a member with an empty data folder joins a new cluster, or refuses to start \
               because its data is lost [default: new]",
    },
    Setting {
        key: "cluster_token",
        flag: "cluster-token",
        help: "Text that distinguishes clusters with the same --initial-cluster [default: bowline]",
    },
    Setting {
        key: "election_min",
        flag: "election-min",
        help: "Shortest election timeout; each is drawn at random [default: 300ms]",
    },
    Setting { key: "election_max", flag: "election-max", help: "Longest election timeout [default: 600ms]" },
    Setting { key: "heartbeat", flag: "heartbeat", help: "Interval of the leader's heartbeats [default: 100ms]" },
    Setting {
        key: "snapshot_bytes",
        flag: "snapshot-bytes",
        help: "Log size at which the member syncs its state and removes old log entries [default: 64MiB]",
    },
    Setting {
        key: "shrink_bytes",
        flag: "shrink-bytes",
        help: "Size from which the file state.redb is rewritten if less than half of it is in use [default: 64MiB]",
    },
    Setting {
        key: "max_connections",
        flag: "max-connections",
        help: "Maximum number of client connections [default: as many as the limit of open files allows]",
    },
    Setting {
        key: "max_connections_per_address",
        flag: "max-connections-per-address",
        help: "Maximum number of client connections from one address; raise it if all clients come through one proxy \
               [default: half of the client connections, but at least 16]",
    },
    Setting {
        key: "max_header_bytes",
        flag: "max-header-bytes",
        help: "Maximum size of the path and all headers of a client's request [default: 64KiB]",
    },
    Setting {
        key: "max_request_bytes",
        flag: "max-request-bytes",
        help: "Maximum size of a client's request [default: 1.5MiB]",
    },
    Setting {
        key: "max_txn_ops",
        flag: "max-txn-ops",
        help: "Maximum number of operations, or of comparisons, in a transaction [default: 128]",
    },
    Setting {
        key: "max_concurrent_streams",
        flag: "max-concurrent-streams",
        help: "Maximum number of requests and streams that a client may have open on one connection [default: 10000]",
    },
    Setting {
        key: "auto_compaction_mode",
        flag: "auto-compaction-mode",
        help: "What --auto-compaction-retention means: periodic, a time, or revision, a number of revisions [default: \
               periodic]",
    },
    Setting {
        key: "auto_compaction_retention",
        flag: "auto-compaction-retention",
        help: "How much history the leader keeps when it compacts automatically: a time such as 30m, or hours without \
               a unit; with --auto-compaction-mode revision, a number of revisions; 0 turns it off [default: 0]",
    },
    Setting {
        key: "quota_backend_bytes",
        flag: "quota-backend-bytes",
        help: "Size of the state's file at which no more data is accepted; a negative number: no such size \
               [default: 2GiB]",
    },
    Setting {
        key: "watch_progress_interval",
        flag: "watch-progress-interval",
        help: "Interval of progress notifications to watchers that ask for them [default: 10m]",
    },
    Setting {
        key: "compare_interval",
        flag: "compare-interval",
        help: "Time between a write and the next comparison of the members' states [default: 10s]",
    },
    Setting {
        key: "cert_file",
        flag: "cert-file",
        help: "Certificate for clients, in PEM: --listen-client is with TLS then",
    },
    Setting { key: "key_file", flag: "key-file", help: "Private key of --cert-file, in PEM" },
    Setting {
        key: "trusted_ca_file",
        flag: "trusted-ca-file",
        help: "CAs of clients, in PEM: each client must have a certificate that one of them signed",
    },
    Setting {
        key: "client_cert_auth",
        flag: "client-cert-auth",
        help: "Whether clients must have a certificate: needs --trusted-ca-file, which has the same effect",
    },
    Setting {
        key: "client_crl_file",
        flag: "client-crl-file",
        help: "Lists of revoked certificates of clients, in PEM, each signed by its CA",
    },
    Setting {
        key: "client_cert_allowed_hostname",
        flag: "client-cert-allowed-hostname",
        help: "Host names or IP addresses, separated by commas: a client's certificate must be valid for one of them",
    },
    Setting {
        key: "auto_tls",
        flag: "auto-tls",
        help: "Encrypt the connections of clients with a certificate that is made at the start: clients can't check it",
    },
    Setting {
        key: "peer_cert_file",
        flag: "peer-cert-file",
        help: "Certificate for other members, in PEM, for both directions: members' addresses are https:// then",
    },
    Setting { key: "peer_key_file", flag: "peer-key-file", help: "Private key of --peer-cert-file, in PEM" },
    Setting {
        key: "peer_trusted_ca_file",
        flag: "peer-trusted-ca-file",
        help: "CAs of members, in PEM: each member must have a certificate that one of them signed",
    },
    Setting {
        key: "peer_client_cert_auth",
        flag: "peer-client-cert-auth",
        help: "Whether members must have a certificate: they always must with --peer-trusted-ca-file, which it needs",
    },
    Setting {
        key: "peer_crl_file",
        flag: "peer-crl-file",
        help: "Lists of revoked certificates of members, in PEM, each signed by its CA",
    },
    Setting {
        key: "peer_cert_allowed_cn",
        flag: "peer-cert-allowed-cn",
        help: "Common names, separated by commas: a member's certificate must have one of them",
    },
    Setting {
        key: "peer_cert_allowed_hostname",
        flag: "peer-cert-allowed-hostname",
        help: "Host names or IP addresses, separated by commas: a member's certificate must be valid for one of them",
    },
    Setting {
        key: "peer_auto_tls",
        flag: "peer-auto-tls",
        help: "Encrypt the connections of members with certificates that are made at the start: nobody checks them, so \
               whoever reaches the port of a member may take part",
    },
    Setting {
        key: "tls_min_version",
        flag: "tls-min-version",
        help: "Oldest version of TLS that is allowed: TLS1.2 or TLS1.3 [default: TLS1.2]",
    },
    Setting {
        key: "auth_token",
        flag: "auth-token",
        help: "Tokens that clients get for their passwords: simple, random ones, which this member remembers; or jwt, \
               signed ones: jwt,sign-method=EdDSA,pub-key=FILE,priv-key=FILE,ttl=10m with an Ed25519 key, or \
               jwt,sign-method=HS256,priv-key=FILE,ttl=10m with a shared secret; the same for all members \
               [default: simple]",
    },
    Setting {
        key: "auth_token_ttl",
        flag: "auth-token-ttl",
        help: "Seconds that a simple token lives after its last use [default: 300]",
    },
    Setting {
        key: "enable_grpc_gateway",
        flag: "enable-grpc-gateway",
        help: "Whether the API is served over JSON and HTTP, too, under /v3/ [default: true]",
    },
    Setting {
        key: "cors",
        flag: "cors",
        help: "Origins of web pages that may use the API, such as https://example.com, separated by commas; *: all \
               [default: *]",
    },
    Setting {
        key: "host_whitelist",
        flag: "host-whitelist",
        help: "Host names under which requests over HTTP are answered that are without TLS, separated by commas; *: all \
               [default: *]",
    },
    Setting {
        key: "reads",
        flag: "reads",
        help: "How reads are made linearizable: quorum asks a majority; lease is faster, but relies on clocks that run \
               at the same speed within 1 % [default: quorum]",
    },
    Setting {
        key: "log_format",
        flag: "log-format",
        help: "Format of the log on standard error: text, or json, one object per line [default: text]",
    },
    Setting {
        key: "log_level",
        flag: "log-level",
        help: "Lowest level to log: error, warn, info or debug [default: info]",
    },
];

/// The values as text. A value that is added replaces an earlier one of the same setting, so add the file first, then
/// the environment, then the flags.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    values: BTreeMap<&'static str, Raw>,
}

#[derive(Debug, Clone)]
struct Raw {
    /// The setting as the user wrote it, for errors.
    name: String,
    text: String,
}

impl Layers {
    /// No values yet.
    #[must_use]
    pub fn new() -> Layers {
        Layers::default()
    }

    /// Adds the values of a TOML file, which replace earlier ones.
    ///
    /// # Errors
    /// The file can't be read, or has a key that is not a setting.
    pub fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |why: String| ConfigError::File { path: path.display().to_string(), why };
        let text = files::text(path).map_err(|error| wrong(error.to_string()))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(error.message().to_owned()))?;
        for (key, value) in table {
            let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
                let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
                return Err(wrong(format!("unknown setting {key}; allowed: {}", known.join(", "))));
            };
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(switch) if setting.is_switch() => switch.to_string(),
                other => return Err(wrong(format!("{key} is {other}; allowed: a string or a whole number"))),
            };
            self.set(setting, format!("{key} in {}", path.display()), text);
        }
        Ok(())
    }

    /// Adds the values of the environment, which replace earlier ones.
    pub fn add_environment(&mut self, variable: impl Fn(&str) -> Option<String>) {
        for setting in &SETTINGS {
            if let Some(text) = variable(&setting.variable()) {
                self.set(setting, setting.variable(), text);
            }
        }
    }

    /// Adds the value of a flag, which replaces an earlier one. A key that is not a setting is ignored.
    pub fn add_flag(&mut self, key: &str, text: String) {
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
            self.set(setting, format!("--{}", setting.flag), text);
        }
    }

    /// Adds a value that the user gave under another name, which errors will use.
    pub fn add_as(&mut self, key: &str, name: String, text: String) {
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
            self.set(setting, name, text);
        }
    }

    /// Adds all values of other layers, which replace earlier ones.
    pub fn add_all(&mut self, other: Layers) {
        self.values.extend(other.values);
    }

    /// A value as the user wrote it.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|raw| raw.text.as_str())
    }

    fn set(&mut self, setting: &Setting, name: String, text: String) {
        self.values.insert(setting.key, Raw { name, text });
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first value that is not allowed, where it comes from, and what is allowed.
    pub fn check(&self) -> Result<ServerConfig, ConfigError> {
        let number = |text: &str| text.parse().ok().filter(|id| *id > 0).map(NodeId);
        let id = self.parse("id", "a whole number from 1", number)?;
        let name = |text: &str| (!text.is_empty() && text.len() <= 128).then(|| text.to_owned());
        let given_name = self.parse("name", "1 to 128 bytes", name)?;
        let cluster_token = self.parse("cluster_token", "1 to 128 bytes", name)?.unwrap_or("bowline".to_owned());
        let default_name = id.map_or_else(|| "default".to_owned(), |NodeId(id)| format!("member-{id}"));
        let own_name = given_name.unwrap_or(default_name);
        let (client_https, peer_https) = self.uses_tls();
        let initial_cluster = self.initial_cluster(id, &own_name, &cluster_token, peer_https)?;
        let own_id = || initial_cluster.iter().find(|(_, founder)| founder.name == own_name).map(|(own, _)| *own);
        let numbered = id.is_some();
        let id = id.or_else(own_id).ok_or_else(|| not_among(&own_name, &initial_cluster))?;
        let address = "host:port, http://host:port or https://host:port, each host and port once";
        let client_urls = |text: &str| urls(text, client_https);
        let listen_client = self.parse("listen_client", address, client_urls)?;
        let listen_client =
            listen_client.unwrap_or_else(|| client_urls("127.0.0.1:2379").expect("it is a host and a port"));
        let own_peer = initial_cluster.get(&id).map_or_else(|| listen_client[0].clone(), |founder| founder.url.clone());
        let advertise_peer = own_peer.clone();
        let advertise_client = self.parse("advertise_client", REACHABLE, |text| reachable(text, client_https))?;
        let advertise_client = advertise_client.map_or_else(|| advertised(&listen_client[0], &own_peer), Ok)?;
        let listen_peer = |text: &str| {
            Url::parse_with(text, peer_https).filter(|url| url.port() != 0 && url.is_https() == peer_https)
        };
        let peer_address = match peer_https {
            true => "host:port or https://host:port, because --peer-cert-file or --peer-auto-tls is given",
            false => "host:port or http://host:port; https:// needs --peer-cert-file or --peer-auto-tls",
        };
        let folder = |text: &str| (!text.is_empty()).then(|| text.into());
        let data_dir: PathBuf =
            self.parse("data_dir", "a folder", folder)?.unwrap_or_else(|| default_folder(&own_name, id, numbered));
        let config = ServerConfig {
            id,
            client_tls: self.client_tls(&data_dir)?,
            peer_tls: self.peer_tls(&data_dir)?,
            data_dir,
            name: own_name,
            numbered,
            advertise_client,
            advertise_peer,
            listen_client,
            listen_metrics: self.parse("listen_metrics", address, client_urls)?.unwrap_or_default(),
            listen_peer: self
                .parse("listen_peer", peer_address, listen_peer)?
                .unwrap_or(own_peer)
                .authority()
                .to_owned(),
            initial_cluster,
            may_found: self.choice("initial_cluster_state", &[("new", true), ("existing", false)])?.unwrap_or(true),
            cluster_token,
            election_min: self.time("election_min", 300)?,
            election_max: self.time("election_max", 600)?,
            heartbeat: self.time("heartbeat", 100)?,
            snapshot_bytes: self.size("snapshot_bytes", 64 << 20, (64 << 10)..=(16 << 30))?,
            shrink_bytes: self.size("shrink_bytes", 64 << 20, (1 << 20)..=(1 << 50))?,
            max_connections: self.count("max_connections", 1_000_000)?,
            max_connections_per_address: self.count("max_connections_per_address", 1_000_000)?,
            max_header_bytes: self.size("max_header_bytes", 64 << 10, (8 << 10)..=(1 << 20))?,
            max_request_bytes: self.size("max_request_bytes", 3 << 19, (1 << 10)..=(8 << 20))?,
            max_txn_ops: self.count("max_txn_ops", 65_536)?.unwrap_or(Limits::default().max_txn_ops),
            max_concurrent_streams: self.count("max_concurrent_streams", 1_000_000)?.unwrap_or(10_000),
            auto_compaction: self.auto_compaction()?,
            quota_backend_bytes: self.quota()?,
            watch_progress_interval: self.interval("watch_progress_interval", 600)?,
            compare_interval: self.interval("compare_interval", 10)?,
            tokens: self.tokens()?,
            gateway: self.choice("enable_grpc_gateway", &[("true", true), ("false", false)])?.unwrap_or(true),
            cors: self.parse("cors", ALLOWED, Allowed::parse)?.unwrap_or_default(),
            host_whitelist: self.parse("host_whitelist", ALLOWED, Allowed::parse)?.unwrap_or_default(),
            read_kind: self.choice("reads", &READS)?.unwrap_or(ReadKind::Quorum),
            log_format: self.choice("log_format", &LOG_FORMATS)?.unwrap_or_default(),
            log_level: self.choice("log_level", &LOG_LEVELS)?.unwrap_or(Level::INFO),
            protocol: Protocol::CURRENT,
        };
        config.check()
    }

    /// The founding members, with the ids that their names are, or that are derived as in etcd.
    fn initial_cluster(
        &self,
        id: Option<NodeId>,
        name: &str,
        token: &str,
        https: bool,
    ) -> Result<BTreeMap<NodeId, Founder>, ConfigError> {
        let allowed = "NAME=http://host:port,NAME=http://host:port,..., with addresses that the other members can \
                       reach; with --id, each name is an id, a whole number from 1";
        let founders = |text: &str| {
            let members = members(text, https)?.into_iter().map(|founder| {
                let number = || founder.name.parse().ok().filter(|id| *id > 0).map(NodeId);
                let id = match id {
                    Some(_) => number()?,
                    None => founding::member_id(token, &[founder.url.to_string()]),
                };
                Some((id, founder))
            });
            let members: Vec<(NodeId, Founder)> = members.collect::<Option<_>>()?;
            let ids: BTreeMap<NodeId, Founder> = members.iter().cloned().collect();
            (ids.len() == members.len()).then_some(ids)
        };
        if let Some(given) = self.parse("initial_cluster", allowed, founders)? {
            return Ok(given);
        }
        let name = id.map_or_else(|| name.to_owned(), |NodeId(id)| id.to_string());
        Ok(founders(&format!("{name}=127.0.0.1:2380")).expect("it is one member with an address"))
    }

    pub(super) fn parse<T>(
        &self,
        key: &'static str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(Raw { name, text }) = self.values.get(key) else { return Ok(None) };
        let wrong = || ConfigError::Value { field: name.clone(), value: text.clone(), allowed: allowed.to_owned() };
        parse(text).ok_or_else(wrong).map(Some)
    }

    /// The value that one of these words stands for.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let find = |text: &str| words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        self.parse(key, &allowed.join(", "), find)
    }

    /// A whole number from 1 to `most`.
    fn count<T: TryFrom<u32>>(&self, key: &'static str, most: u32) -> Result<Option<T>, ConfigError> {
        let parse = |text: &str| {
            let count = text.parse().ok().filter(|count| (1..=most).contains(count))?;
            T::try_from(count).ok()
        };
        self.parse(key, &format!("a whole number from 1 to {most}"), parse)
    }

    fn time(&self, key: &'static str, default_millis: u64) -> Result<Duration, ConfigError> {
        let bounds = Duration::from_millis(5)..=Duration::from_secs(60);
        let parse = |text: &str| parse_duration(text).filter(|time| bounds.contains(time));
        let time = self.parse(key, "a time from 5ms to 60s, such as 300ms", parse)?;
        Ok(time.unwrap_or(Duration::from_millis(default_millis)))
    }

    fn interval(&self, key: &'static str, default_seconds: u64) -> Result<Duration, ConfigError> {
        let bounds = Duration::from_millis(100)..=Duration::from_secs(86_400);
        let parse = |text: &str| parse_duration(text).filter(|time| bounds.contains(time));
        let interval = self.parse(key, "a time from 100ms to 24h, such as 10m", parse)?;
        Ok(interval.unwrap_or(Duration::from_secs(default_seconds)))
    }

    fn quota(&self) -> Result<i64, ConfigError> {
        let parse = |text: &str| match text.starts_with('-') {
            true => text.parse().ok().filter(|bytes| *bytes < 0),
            false => parse_size(text).and_then(|bytes| i64::try_from(bytes).ok()),
        };
        let allowed = "a size such as 2GiB, 0 for the default, or a negative number for no quota";
        let bytes = self.parse("quota_backend_bytes", allowed, parse)?;
        // As in etcd, 0 means the default.
        Ok(bytes.filter(|bytes| *bytes != 0).unwrap_or(Quota::DEFAULT.0))
    }

    fn tokens(&self) -> Result<TokenKind, ConfigError> {
        let seconds: u32 = self.count("auth_token_ttl", 365 * 86_400)?.unwrap_or(300);
        let simple = || Ok(TokenKind::Simple { ttl: Duration::from_secs(seconds.into()) });
        let kind = |text: &str| match text.split_once(',').unwrap_or((text, "")) {
            ("simple", "") => Some(simple()),
            ("jwt", options) => Some(Jwt::from_options(options).map(TokenKind::Jwt)),
            _ => None,
        };
        let kind = self.parse("auth_token", "simple, or jwt,sign-method=METHOD,priv-key=FILE,...", kind)?;
        let name = || self.values.get("auth_token").map_or("--auth-token", |raw| raw.name.as_str());
        let wrong = |error: JwtError| ConfigError::Together(format!("{} has a bad jwt: {error}", name()));
        kind.unwrap_or_else(simple).map_err(wrong)
    }

    fn auto_compaction(&self) -> Result<Option<Retention>, ConfigError> {
        let bounds = Duration::from_secs(1)..=Duration::from_secs(100_000 * 3_600);
        let time = |text: &str| {
            // As in etcd, a number without a unit means hours.
            let bare = text.bytes().all(|byte| byte.is_ascii_digit());
            let time = if bare { parse_duration(&format!("{text}h"))? } else { parse_duration(text)? };
            (time.is_zero() || bounds.contains(&time)).then_some(Retention::Time(time))
        };
        let revisions = |text: &str| text.parse().ok().filter(|count| *count >= 0).map(Retention::Revisions);
        let key = "auto_compaction_retention";
        let retention =
            match self.choice("auto_compaction_mode", &[("periodic", false), ("revision", true)])?.unwrap_or(false) {
                false => self.parse(key, "0, a time from 1s to 100000h, such as 30m, or a number of hours", time)?,
                true => self.parse(key, "a number of revisions, from 0, because the mode is revision", revisions)?,
            };
        Ok(retention
            .filter(|retention| !matches!(retention, Retention::Time(Duration::ZERO) | Retention::Revisions(0))))
    }

    fn size(
        &self,
        key: &'static str,
        default: u64,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Result<usize, ConfigError> {
        let allowed = format!("a size from {} to {} bytes, such as 64MiB", bounds.start(), bounds.end());
        let size = self.parse(key, &allowed, |text| parse_size(text).filter(|size| bounds.contains(size)))?;
        Ok(usize::try_from(size.unwrap_or(default)).unwrap_or(usize::MAX))
    }
}

const ALLOWED: &str = "*, or names, separated by commas";

const READS: [(&str, ReadKind); 2] = [("quorum", ReadKind::Quorum), ("lease", ReadKind::Lease)];

const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];

const LOG_LEVELS: [(&str, Level); 4] =
    [("error", Level::ERROR), ("warn", Level::WARN), ("info", Level::INFO), ("debug", Level::DEBUG)];

/// Addresses that are separated by commas, each once. No host and port is both with and without TLS.
fn urls(text: &str, https: bool) -> Option<Vec<Url>> {
    let mut all: Vec<Url> = Vec::new();
    for part in text.split(',') {
        let url = Url::parse_with(part.trim(), https)?;
        match all.iter().find(|other| other.authority() == url.authority()) {
            Some(other) if *other == url => {}
            Some(_) => return None,
            None => all.push(url),
        }
    }
    Some(all)
}

/// What is allowed for an address that others use.
const REACHABLE: &str = "host:port, http://host:port or https://host:port that others can reach: neither a wildcard address (0.0.0.0, \
                         [::]) nor port 0";

fn reachable(text: &str, https: bool) -> Option<Url> {
    Url::parse_with(text, https).filter(Url::can_be_reached)
}

/// The default of --advertise-client. The port is 0 if the system chooses one.
fn advertised(listen_client: &Url, own_peer: &Url) -> Result<Url, ConfigError> {
    if !listen_client.is_any_host() {
        return Ok(listen_client.clone());
    }
    if own_peer.is_loopback() {
        return Err(ConfigError::Missing {
            field: "--advertise-client".to_owned(),
            needed: "--listen-client is a wildcard address, and clients need one that they can reach",
        });
    }
    Ok(listen_client.with_host(own_peer))
}

/// The data folder if none is given. A name that is no plain file name is not used.
fn default_folder(name: &str, NodeId(id): NodeId, numbered: bool) -> PathBuf {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if plain && !numbered { format!("bowline-data/{name}").into() } else { format!("bowline-data/member-{id}").into() }
}

fn not_among(name: &str, members: &BTreeMap<NodeId, Founder>) -> ConfigError {
    let mut names: Vec<&str> = members.values().map(|founder| founder.name.as_str()).collect();
    names.sort_unstable();
    ConfigError::Together(format!("--name is {name:?}; allowed: a member of --initial-cluster ({})", names.join(", ")))
}

/// Parses `a=http://host:port,b=...`: no name and no address may occur twice.
fn members(text: &str, https: bool) -> Option<Vec<Founder>> {
    let mut members: Vec<Founder> = Vec::new();
    for part in text.split(',') {
        let (name, url) = part.trim().split_once('=')?;
        let url = reachable(url, https)?;
        let doubled = members.iter().any(|other| other.url.authority() == url.authority() || other.name == name);
        if doubled || name.is_empty() || name.len() > 128 {
            return None;
        }
        members.push(Founder { name: name.to_owned(), url });
    }
    Some(members)
}
