//! The settings of TLS, and which addresses use it.

use std::path::PathBuf;

use bowline_tls::{Names, Settings, Version};

use super::layers::Layers;
use super::values::Url;
use super::{ConfigError, ServerConfig};

/// The keys of a listener's settings.
struct Keys {
    cert: &'static str,
    key: &'static str,
    auto: &'static str,
    cert_auth: &'static str,
    ca: &'static str,
    crl: &'static str,
    allowed_cn: Option<&'static str>,
    allowed_host: &'static str,
    /// The file names of a certificate that is made at the start.
    made: &'static str,
}

const CLIENTS: Keys = Keys {
    cert: "cert_file",
    key: "key_file",
    auto: "auto_tls",
    cert_auth: "client_cert_auth",
    ca: "trusted_ca_file",
    crl: "client_crl_file",
    allowed_cn: None,
    allowed_host: "client_cert_allowed_hostname",
    made: "client",
};

const MEMBERS: Keys = Keys {
    cert: "peer_cert_file",
    key: "peer_key_file",
    auto: "peer_auto_tls",
    cert_auth: "peer_client_cert_auth",
    ca: "peer_trusted_ca_file",
    crl: "peer_crl_file",
    allowed_cn: Some("peer_cert_allowed_cn"),
    allowed_host: "peer_cert_allowed_hostname",
    made: "peer",
};

const VERSIONS: [(&str, Version); 2] = [("TLS1.2", Version::Tls12), ("TLS1.3", Version::Tls13)];

const SWITCH: [(&str, bool); 2] = [("true", true), ("false", false)];

/// The settings that are true or false; a flag without a value is true.
pub(super) const SWITCHES: [&str; 5] =
    [CLIENTS.auto, CLIENTS.cert_auth, MEMBERS.auto, MEMBERS.cert_auth, "enable_grpc_gateway"];

impl Layers {
    /// Whether these addresses use TLS unless they say otherwise: for clients, and for members.
    #[must_use]
    pub fn uses_tls(&self) -> (bool, bool) {
        let uses = |keys: &Keys| self.text(keys.cert).is_some() || self.text(keys.auto) == Some("true");
        (uses(&CLIENTS), uses(&MEMBERS))
    }

    /// The settings of the addresses for clients.
    pub(super) fn client_tls(&self, data_dir: &std::path::Path) -> Result<Option<Settings>, ConfigError> {
        self.tls(&CLIENTS, data_dir)
    }

    /// The settings of the connections between members.
    pub(super) fn peer_tls(&self, data_dir: &std::path::Path) -> Result<Option<Settings>, ConfigError> {
        let Some(settings) = self.tls(&MEMBERS, data_dir)? else { return Ok(None) };
        if !settings.auto && settings.ca.is_none() {
            let needed = "members check each other's certificates, so --peer-cert-file needs it";
            return Err(missing(MEMBERS.ca, needed));
        }
        if !settings.names.common.is_empty() && !settings.names.hosts.is_empty() {
            let text = "--peer-cert-allowed-cn and --peer-cert-allowed-hostname are both given; allowed: one of them";
            return Err(ConfigError::Together(text.to_owned()));
        }
        Ok(Some(settings))
    }

    fn tls(&self, keys: &Keys, data_dir: &std::path::Path) -> Result<Option<Settings>, ConfigError> {
        let file = |key| self.parse(key, "a file", |text| (!text.is_empty()).then(|| PathBuf::from(text)));
        let names = |key| {
            let names = |text: &str| {
                let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
                names.iter().all(|name| (1..=256).contains(&name.len())).then_some(names)
            };
            Ok::<_, ConfigError>(self.parse(key, "names, separated by commas", names)?.unwrap_or_default())
        };
        let (cert, key, ca, crl) = (file(keys.cert)?, file(keys.key)?, file(keys.ca)?, file(keys.crl)?);
        let auto = self.choice(keys.auto, &SWITCH)?.unwrap_or(false);
        let must_have = self.choice(keys.cert_auth, &SWITCH)?.unwrap_or(false);
        let common = keys.allowed_cn.map(names).transpose()?.unwrap_or_default();
        let names = Names { common, hosts: names(keys.allowed_host)? };
        let oldest = self.choice("tls_min_version", &VERSIONS)?.unwrap_or_default();
        if must_have && ca.is_none() {
            return Err(missing(keys.ca, "without it, no certificate of others can be checked"));
        }
        let checks = crl.is_some() || names != Names::default();
        if checks && ca.is_none() {
            return Err(missing(keys.ca, "without it, nobody needs a certificate that could be revoked or named"));
        }
        let (cert, key) = match (cert, key) {
            (Some(_), Some(_)) if auto => {
                let (auto, cert) = (flag(keys.auto), flag(keys.cert));
                return Err(ConfigError::Together(format!("{auto} and {cert} are both given; allowed: one of them")));
            }
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => return Err(missing(keys.key, "a certificate is used with its private key")),
            (None, Some(_)) => return Err(missing(keys.cert, "a private key is used with its certificate")),
            (None, None) if auto && keys.allowed_cn.is_some() && ca.is_some() => {
                let (auto, ca) = (flag(keys.auto), flag(keys.ca));
                let text =
                    format!("{auto} and {ca} are both given; allowed: one of them, because no CA signs what is made");
                return Err(ConfigError::Together(text));
            }
            (None, None) if auto => {
                let made = |end: &str| data_dir.join("auto-tls").join(format!("{}.{end}", keys.made));
                (made("crt"), made("key"))
            }
            (None, None) if ca.is_some() => return Err(missing(keys.cert, "without it, there is no TLS")),
            (None, None) => return Ok(None),
        };
        Ok(Some(Settings { cert, key, auto, ca, crl, names, oldest }))
    }
}

fn flag(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

fn missing(key: &str, needed: &'static str) -> ConfigError {
    ConfigError::Missing { field: flag(key), needed }
}

impl ServerConfig {
    /// Checks that each address has the scheme that fits the settings of TLS.
    ///
    /// # Errors
    /// An address has another one: nothing would be encrypted although a certificate is given, or there is none.
    pub fn check_schemes(&self) -> Result<(), ConfigError> {
        let all = self.listen_client.iter().chain(&self.listen_metrics);
        let secure = all.clone().find(|url| url.is_https());
        match (&self.client_tls, secure) {
            (None, Some(url)) => {
                return Err(ConfigError::Together(format!(
                    "to serve clients at {url}, --cert-file and --key-file are needed, or --auto-tls"
                )));
            }
            (Some(_), None) => {
                let urls: Vec<String> = all.map(Url::to_string).collect();
                return Err(ConfigError::Together(format!(
                    "there is a certificate for clients, but no address with https:// (only {}): nothing would be \
                     encrypted; give --listen-client an address with https://",
                    urls.join(", ")
                )));
            }
            _ => {}
        }
        let founders = self.initial_cluster.values().map(|founder| &founder.url);
        let wrong = founders.chain([&self.advertise_peer]).find(|url| url.is_https() != self.peer_tls.is_some());
        match (wrong, &self.peer_tls) {
            (None, _) => Ok(()),
            (Some(url), None) => Err(ConfigError::Together(format!(
                "to talk to members at {url}, --peer-cert-file, --peer-key-file and --peer-trusted-ca-file are needed, or \
                 --peer-auto-tls"
            ))),
            (Some(url), Some(_)) => Err(ConfigError::Together(format!(
                "there is a certificate for members, but the address {url} is without TLS; allowed: https:// for all \
                 members"
            ))),
        }
    }
}
