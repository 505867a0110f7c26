//! Parses values as people write them: times, sizes, addresses.

use std::net::IpAddr;
use std::time::Duration;

/// Parses a time such as `300ms`, `1.5s`, `5m`, `1h` or `1h30m`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let units = [("h", 3_600.0), ("m", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6)];
    let (mut rest, mut total) = (text, Duration::ZERO);
    loop {
        let digits = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, tail) = rest.split_at(digits);
        let (unit, tail) = tail.split_at(tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len()));
        let (_, seconds) = units.iter().find(|(name, _)| *name == unit)?;
        let part = Duration::try_from_secs_f64(parse_number(number)? * seconds).ok()?;
        total = total.checked_add(part)?;
        if tail.is_empty() {
            return Some(total);
        }
        rest = tail;
    }
}

/// Parses a size such as `4096`, `64KiB`, `1.5MiB` or `2GiB`, in bytes.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("B", 0)];
    let (number, shift) =
        units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift))).unwrap_or((text, 0));
    let bytes = parse_number(number.trim_end())? * f64::from(1 << (shift / 2)) * f64::from(1 << (shift - shift / 2));
    // Above it, an f64 can't represent every whole number.
    (bytes <= 9e15).then_some(bytes as u64)
}

/// Parses digits with an optional decimal point.
fn parse_number(text: &str) -> Option<f64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    plain.then(|| text.parse().ok())?
}

/// Which names are allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Allowed {
    /// Every name.
    #[default]
    All,
    /// These, in upper or lower case.
    Only(Vec<String>),
}

impl Allowed {
    /// Parses `*`, or names that are separated by commas. As in etcd, nothing means every name, too.
    #[must_use]
    pub fn parse(text: &str) -> Option<Allowed> {
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        if text.is_empty() || names.iter().any(|name| name == "*") {
            return Some(Allowed::All);
        }
        names.iter().all(|name| (1..=256).contains(&name.len())).then_some(Allowed::Only(names))
    }

    /// Whether a name is allowed.
    #[must_use]
    pub fn admits(&self, name: &str) -> bool {
        match self {
            Allowed::All => true,
            Allowed::Only(names) => names.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)),
        }
    }
}

/// An address: `http://host:port`, `https://host:port` or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    https: bool,
    authority: String,
}

impl Url {
    /// Longest address, in bytes.
    pub const MAX_BYTES: usize = 270;

    /// Parses an address. Without a scheme, it is without TLS.
    #[must_use]
    pub fn parse(text: &str) -> Option<Url> {
        Url::parse_with(text, false)
    }

    /// Parses an address. Without a scheme, `https` says whether it is with TLS.
    #[must_use]
    pub fn parse_with(text: &str, https: bool) -> Option<Url> {
        let (https, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return None,
            None => (https, text),
        };
        let authority = rest.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':')?;
        let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
        let named = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let valid = named || (bracketed && address.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok()));
        let port = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse::<u16>().ok())?;
        let fits = valid && port.is_some() && authority.len() <= Url::MAX_BYTES;
        fits.then(|| Url { https, authority: authority.to_owned() })
    }

    /// Whether it is with TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host: a name or an IP address (IPv6 in brackets).
    #[must_use]
    pub fn host(&self) -> &str {
        self.authority.rsplit_once(':').map_or("", |(host, _)| host)
    }

    /// The host as an IP address, if it is not a name.
    fn ip(&self) -> Option<IpAddr> {
        self.host().trim_start_matches('[').trim_end_matches(']').parse().ok().map(|ip: IpAddr| ip.to_canonical())
    }

    /// The same host with another port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Url {
        Url { https: self.https, authority: format!("{}:{port}", self.host()) }
    }

    /// The same port and scheme with the host of another address.
    #[must_use]
    pub fn with_host(&self, other: &Url) -> Url {
        Url { https: self.https, authority: format!("{}:{}", other.host(), self.port()) }
    }

    /// Whether the host is a wildcard address: `0.0.0.0`, `[::]`, or a number that some resolvers take for an address.
    #[must_use]
    pub fn is_any_host(&self) -> bool {
        // Most resolvers take "0", "127.1" and "0x7f000001" for addresses, and none for names.
        let last = self.host().trim_end_matches('.').rsplit('.').next().unwrap_or("");
        let numeric = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
        self.ip().map_or(numeric && !self.host().starts_with('['), |ip| ip.is_unspecified())
    }

    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host() == "localhost" || self.ip().is_some_and(|ip| ip.is_loopback())
    }

    /// Whether others can connect to it: it is one host and has a port.
    #[must_use]
    pub fn can_be_reached(&self) -> bool {
        self.port() != 0 && !self.is_any_host() && !self.ip().is_some_and(|ip| ip.is_multicast())
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("it was checked when parsed")
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority)
    }
}
