//! What is measured, and how: the options, with their bounds.

use std::time::Duration;

use serde_json::{Value, json};

use crate::keys::Keys;

/// Longest measurement.
pub const MAX_TIME: Duration = Duration::from_secs(24 * 3600);

/// What a client does again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Sets a key.
    Put,
    /// Reads a key.
    Get {
        /// From the member's own state, which may be an earlier one.
        serializable: bool,
    },
    /// Reads a range of keys.
    Range {
        /// Number of keys of each answer.
        limit: u64,
        /// From the member's own state, which may be an earlier one.
        serializable: bool,
    },
    /// A transaction: one comparison, which holds, and one put.
    Txn,
    /// Linearizable gets and puts.
    Mixed {
        /// Gets of a hundred requests.
        reads: u64,
    },
    /// Sets keys that others watch.
    Watch {
        /// Number of watchers, each of all keys.
        watchers: u64,
        /// Number of streams that the watchers share.
        streams: u64,
    },
    /// Grants a lease, keeps it alive once, and revokes it: three requests.
    Lease,
}

/// Something whose latency is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Whether a client asks for it, or it comes by itself.
    pub(crate) is_request: bool,
}

impl Kind {
    const fn request(name: &'static str) -> Kind {
        Kind { name, is_request: true }
    }
}

const GET: Kind = Kind::request("get");
const PUT: Kind = Kind::request("put");
const RANGE: Kind = Kind::request("range");
const TXN: Kind = Kind::request("txn");
const GRANT: Kind = Kind::request("grant");
const KEEP_ALIVE: Kind = Kind::request("keep-alive");
const REVOKE: Kind = Kind::request("revoke");
const EVENT: Kind = Kind { name: "event", is_request: false };

impl Work {
    /// The name of the work on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Work::Put => "put",
            Work::Get { .. } => "get",
            Work::Range { .. } => "range",
            Work::Txn => "txn",
            Work::Mixed { .. } => "mixed",
            Work::Watch { .. } => "watch",
            Work::Lease => "lease",
        }
    }

    /// What is measured.
    pub(crate) fn kinds(self) -> &'static [Kind] {
        match self {
            Work::Put => &[PUT],
            Work::Get { .. } => &[GET],
            Work::Range { .. } => &[RANGE],
            Work::Txn => &[TXN],
            Work::Mixed { .. } => &[GET, PUT],
            Work::Watch { .. } => &[PUT, EVENT],
            Work::Lease => &[GRANT, KEEP_ALIVE, REVOKE],
        }
    }

    /// Whether the keys must be there before.
    pub(crate) fn reads(self) -> bool {
        matches!(self, Work::Get { .. } | Work::Range { .. } | Work::Mixed { .. })
    }
}

/// Which key comes next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// One after the other, again and again.
    Sequential,
    /// Each as often as the others.
    Uniform,
    /// The key with the number n, from 0, in proportion to `(n + 1)^-exponent`.
    Zipf {
        /// Greater than 0, at most 5.
        exponent: f64,
    },
}

/// When a measurement ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// After this time.
    Time(Duration),
    /// After so many requests.
    Requests(u64),
}

/// The options, not checked yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What the clients do.
    pub work: Work,
    /// Number of clients; each has one request open at a time.
    pub clients: u64,
    /// Number of HTTP/2 connections that the clients share; by default one for each endpoint, if there are so many
    /// clients.
    pub connections: Option<u64>,
    /// Size of a key in bytes, with the prefix.
    pub key_size: u64,
    /// Size of a value in bytes.
    pub value_size: u64,
    /// Number of different keys.
    pub keys: u64,
    /// Which key comes next.
    pub distribution: Distribution,
    /// When the measurement ends.
    pub length: Length,
    /// How long the same is done before, without measuring it.
    pub warmup: Duration,
    /// Requests that are due in each second, for an open loop; in a closed loop each client sends the next one when the
    /// last one is answered.
    pub rate: Option<u64>,
    /// Seed of keys and values.
    pub seed: u64,
    /// The first bytes of all keys.
    pub prefix: Vec<u8>,
    /// Whether the keys stay after the measurement. Only then may there be keys with the prefix before it.
    pub keep: bool,
    /// Time limit of each request.
    pub patience: Duration,
}

/// An option has a value that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option} is {value}; allowed: {allowed}")]
pub struct OptionError {
    option: &'static str,
    value: String,
    allowed: String,
}

impl OptionError {
    fn new(option: &'static str, value: impl ToString, allowed: impl ToString) -> OptionError {
        OptionError { option, value: value.to_string(), allowed: allowed.to_string() }
    }
}

/// Checked options.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    settings: Settings,
    connections: u64,
}

fn within(option: &'static str, value: u64, least: u64, most: u64) -> Result<(), OptionError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(OptionError::new(option, value, format!("{least} to {most}")))
}

impl Plan {
    /// Checks options for so many endpoints.
    ///
    /// # Errors
    /// The first option whose value is not allowed.
    pub fn new(settings: Settings, endpoints: usize) -> Result<Plan, OptionError> {
        let s = &settings;
        within("--clients", s.clients, 1, 10_000)?;
        let connections = s.connections.unwrap_or((endpoints as u64).clamp(1, s.clients));
        if s.connections.is_some() {
            within("--connections", connections, 1, s.clients.min(1_000))?;
        }
        within("--keys", s.keys, 1, 100_000_000)?;
        within("--value-size", s.value_size, 0, 16 << 20)?;
        if s.prefix.is_empty() || s.prefix.len() > 512 {
            let written = format!("{:?}", String::from_utf8_lossy(&s.prefix));
            return Err(OptionError::new("--prefix", written, "1 to 512 bytes"));
        }
        let least = Keys::least_size(s.prefix.len(), s.keys);
        if !(least..=4_096).contains(&s.key_size) {
            let allowed = format!("{least} to 4096, to hold --prefix and the numbers of {} --keys", s.keys);
            return Err(OptionError::new("--key-size", s.key_size, allowed));
        }
        match s.length {
            Length::Time(time) if time < Duration::from_millis(100) || time > MAX_TIME => {
                return Err(OptionError::new("--duration", format!("{time:?}"), "100ms to 24h"));
            }
            Length::Requests(requests) => within("--requests", requests, 1, 1_000_000_000)?,
            Length::Time(_) => {}
        }
        if s.warmup > Duration::from_secs(3600) {
            return Err(OptionError::new("--warmup", format!("{:?}", s.warmup), "0s to 1h"));
        }
        if let Some(rate) = s.rate {
            within("--rate", rate, 1, 1_000_000)?;
        }
        if let Distribution::Zipf { exponent } = s.distribution
            && !(exponent > 0.0 && exponent <= 5.0)
        {
            return Err(OptionError::new("--zipf-exponent", exponent, "more than 0, at most 5"));
        }
        check_work(s)?;
        Ok(Plan { connections, settings })
    }

    /// The options.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Number of connections.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections
    }

    pub(crate) fn keys(&self) -> Keys {
        Keys::new(&self.settings.prefix, self.settings.key_size, self.settings.keys)
    }

    /// The options as JSON: sizes in bytes, times in seconds.
    pub(crate) fn json(&self) -> Value {
        let s = &self.settings;
        let (duration, requests) = match s.length {
            Length::Time(time) => (Some(time.as_secs_f64()), None),
            Length::Requests(requests) => (None, Some(requests)),
        };
        let (distribution, exponent) = match s.distribution {
            Distribution::Sequential => ("sequential", None),
            Distribution::Uniform => ("uniform", None),
            Distribution::Zipf { exponent } => ("zipf", Some(exponent)),
        };
        let mut value = json!({
            "work": s.work.name(), "clients": s.clients, "connections": self.connections, "key_size": s.key_size,
            "value_size": s.value_size, "keys": s.keys, "distribution": distribution, "zipf_exponent": exponent,
            "duration_seconds": duration, "requests": requests, "warmup_seconds": s.warmup.as_secs_f64(),
            "rate": s.rate, "seed": s.seed, "prefix": String::from_utf8_lossy(&s.prefix), "keep": s.keep,
            "timeout_seconds": s.patience.as_secs_f64(),
        });
        match s.work {
            Work::Get { serializable } => value["serializable"] = json!(serializable),
            Work::Range { limit, serializable } => {
                (value["serializable"], value["limit"]) = (json!(serializable), json!(limit));
            }
            Work::Mixed { reads } => value["reads_percent"] = json!(reads),
            Work::Watch { watchers, streams } => {
                (value["watchers"], value["streams"]) = (json!(watchers), json!(streams));
            }
            Work::Put | Work::Txn | Work::Lease => {}
        }
        value
    }
}

/// Checks the options of the work.
fn check_work(settings: &Settings) -> Result<(), OptionError> {
    match settings.work {
        Work::Range { limit, .. } => {
            within("--limit", limit, 1, 10_000)?;
            if limit > settings.keys {
                let allowed = format!("at most {}, the number of --keys", settings.keys);
                return Err(OptionError::new("--limit", limit, allowed));
            }
        }
        Work::Mixed { reads } => within("--reads", reads, 0, 100)?,
        Work::Watch { watchers, streams } => {
            within("--watchers", watchers, 1, 100_000)?;
            within("--streams", streams, 1, watchers.min(10_000))?;
            // The value of a put says when it began.
            within("--value-size", settings.value_size, crate::watchers::STAMP as u64, 16 << 20)?;
        }
        Work::Put | Work::Get { .. } | Work::Txn | Work::Lease => {}
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn settings(work: Work) -> Settings {
        Settings {
            work,
            clients: 64,
            connections: None,
            key_size: 32,
            value_size: 256,
            keys: 10_000,
            distribution: Distribution::Uniform,
            length: Length::Requests(100),
            warmup: Duration::ZERO,
            rate: None,
            seed: 1,
            prefix: b"bench/".to_vec(),
            keep: false,
            patience: Duration::from_secs(7),
        }
    }

    #[test]
    fn a_bad_option_is_named_with_its_value_and_what_is_allowed() {
        let refused = |change: &dyn Fn(&mut Settings)| {
            let mut changed = settings(Work::Put);
            change(&mut changed);
            Plan::new(changed, 3).map(|_| String::new()).unwrap_or_else(|error| error.to_string())
        };
        assert_eq!(refused(&|_| {}), "");
        assert_eq!(refused(&|s| s.clients = 0), "--clients is 0; allowed: 1 to 10000");
        assert_eq!(refused(&|s| s.connections = Some(65)), "--connections is 65; allowed: 1 to 64");
        assert_eq!(refused(&|s| s.prefix = Vec::new()), "--prefix is \"\"; allowed: 1 to 512 bytes");
        let key = "--key-size is 9; allowed: 10 to 4096, to hold --prefix and the numbers of 10000 --keys";
        assert_eq!(refused(&|s| s.key_size = 9), key);
        assert_eq!(refused(&|s| s.key_size = 10), "");
        let long = &|s: &mut Settings| s.length = Length::Time(MAX_TIME * 2);
        assert_eq!(refused(long), "--duration is 172800s; allowed: 100ms to 24h");
        assert_eq!(refused(&|s| s.length = Length::Requests(0)), "--requests is 0; allowed: 1 to 1000000000");
        assert_eq!(refused(&|s| s.rate = Some(0)), "--rate is 0; allowed: 1 to 1000000");
        assert_eq!(refused(&|s| s.value_size = 17 << 20), "--value-size is 17825792; allowed: 0 to 16777216");
        let zipf = |exponent| move |s: &mut Settings| s.distribution = Distribution::Zipf { exponent };
        assert_eq!(refused(&zipf(0.0)), "--zipf-exponent is 0; allowed: more than 0, at most 5");
        assert_eq!(refused(&zipf(f64::NAN)), "--zipf-exponent is NaN; allowed: more than 0, at most 5");
        assert_eq!(refused(&zipf(0.99)), "");
        let limit = |limit| move |s: &mut Settings| s.work = Work::Range { limit, serializable: false };
        assert_eq!(refused(&limit(10_001)), "--limit is 10001; allowed: 1 to 10000");
        let few = |s: &mut Settings| (s.keys, s.work) = (9, Work::Range { limit: 10, serializable: false });
        assert_eq!(refused(&few), "--limit is 10; allowed: at most 9, the number of --keys");
        assert_eq!(refused(&|s| s.work = Work::Mixed { reads: 101 }), "--reads is 101; allowed: 0 to 100");
        let watch = |watchers, streams| move |s: &mut Settings| s.work = Work::Watch { watchers, streams };
        assert_eq!(refused(&watch(2, 3)), "--streams is 3; allowed: 1 to 2");
        let small = |s: &mut Settings| (s.value_size, s.work) = (8, Work::Watch { watchers: 2, streams: 1 });
        assert_eq!(refused(&small), "--value-size is 8; allowed: 16 to 16777216");
    }

    #[test]
    fn by_default_each_endpoint_has_a_connection() {
        let connections = |clients, endpoints| {
            let settings = Settings { clients, ..settings(Work::Put) };
            Plan::new(settings, endpoints).map(|plan| plan.connections())
        };
        assert_eq!(connections(64, 3), Ok(3));
        assert_eq!(connections(2, 3), Ok(2));
        assert_eq!(connections(1, 1), Ok(1));
    }
}
