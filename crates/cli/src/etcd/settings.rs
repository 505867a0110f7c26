//! What etcd's flags mean, in the settings of `bowline serve`.

use anyhow::bail;
use bowline_server::config::{Layers, ServerConfig, Url};

use super::flags::{Flag, GATES, Meaning, all, find};
use super::given::{Given, Value, normal};

/// A member that is to be run.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) config: ServerConfig,
    /// What the log shall tell about values without effect.
    pub(super) notes: Vec<String>,
}

/// The default of etcd's `--max-concurrent-streams`.
const ANY_STREAMS: &str = "4294967295";

/// etcd's longest election timeout, in milliseconds.
const ETCDS_LONGEST: u64 = 50_000;

/// The longest one here: twice as much is the upper bound of the setting `election_max`.
const LONGEST: u64 = 30_000;

/// Checks all values, and maps them to the settings.
///
/// # Errors
/// The first value that is not allowed, with the reason and the remedy.
pub(super) fn plan(given: &Given) -> anyhow::Result<Plan> {
    let (mut layers, mut notes) = (Layers::new(), Vec::new());
    notes.extend(given.unknown.iter().map(|name| format!("unrecognized environment variable {name}")));
    for flag in all() {
        match flag.meaning {
            // The default of two names for one setting must not hide the value of the other.
            Meaning::Setting(key, _) if given.get(flag).is_some() || !flag.name.starts_with("experimental-") => {
                let Value { name, text } = value(given, flag);
                if !text.is_empty() {
                    layers.add_as(key, name, text);
                }
            }
            Meaning::Setting(..) | Meaning::Converted(_) => {}
            Meaning::Only(..) | Meaning::NoEffect(_) => {
                if let Some(Value { name, text }) = given.get(flag) {
                    notes.extend(judge(flag, name, text)?);
                }
            }
        }
    }
    notes.extend(gates(&value_of(given, "feature-gates"))?);
    times(given, &mut layers)?;
    addresses(given, &mut layers)?;
    log(given, &mut layers)?;
    let data_dir = value_of(given, "data-dir");
    let folder = if data_dir.text.is_empty() { format!("{}.etcd", name(given)) } else { data_dir.text };
    layers.add_as("data_dir", data_dir.name, folder);
    let streams = value_of(given, "max-concurrent-streams");
    if streams.text != ANY_STREAMS {
        layers.add_as("max_concurrent_streams", streams.name, streams.text);
    }
    Ok(Plan { config: layers.check()?, notes })
}

/// The value of a flag, or its default.
fn value(given: &Given, flag: &Flag) -> Value {
    let default = || Value { name: format!("--{}", flag.name), text: flag.default.to_owned() };
    given.get(flag).cloned().unwrap_or_else(default)
}

fn value_of(given: &Given, name: &str) -> Value {
    value(given, find(name).expect("the table has every flag that is converted"))
}

fn is_given(given: &Given, name: &str) -> bool {
    find(name).is_some_and(|flag| given.get(flag).is_some())
}

fn name(given: &Given) -> String {
    value_of(given, "name").text
}

/// Judges a value that is no setting. Returns a remark if it has no effect.
fn judge(flag: &Flag, name: &str, text: &str) -> anyhow::Result<Option<String>> {
    match flag.meaning {
        _ if text == flag.default => Ok(None),
        Meaning::Only(more, why) if !more.contains(&text) => {
            let allowed: Vec<String> =
                [&[flag.default], more].concat().iter().map(|value| format!("{value:?}")).collect();
            bail!("{name} is {text:?}; allowed: {}; {why}", allowed.join(", "))
        }
        Meaning::NoEffect(why) => Ok(Some(format!("{name} has no effect: {why}"))),
        _ => Ok(None),
    }
}

/// Judges `--feature-gates`.
fn gates(given: &Value) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    for part in given.text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (gate, text) = part.split_once('=').unwrap_or((part, ""));
        let Some(gate) = GATES.iter().find(|known| known.name == gate.trim()) else {
            let known: Vec<&str> = GATES.iter().map(|known| known.name).collect();
            bail!("{} has {part:?}; allowed: NAME=true or NAME=false, with one of {}", given.name, known.join(", "));
        };
        let name = format!("{} {}", given.name, gate.name);
        notes.extend(judge(gate, &name, &normal(gate, &name, text.trim())?)?);
    }
    Ok(notes)
}

/// The heartbeat's interval and the election timeouts, with etcd's rules.
fn times(given: &Given, layers: &mut Layers) -> anyhow::Result<()> {
    let millis = |name| {
        let Value { name, text } = value_of(given, name);
        match text.parse::<u64>() {
            Ok(millis) if (1..=ETCDS_LONGEST).contains(&millis) => Ok((name, millis)),
            _ => bail!("{name} is {text:?}; allowed: a whole number of milliseconds from 1 to {ETCDS_LONGEST}"),
        }
    };
    let ((beat_name, beat), (election_name, election)) = (millis("heartbeat-interval")?, millis("election-timeout")?);
    if 5 * beat > election {
        bail!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{beat}ms]: raise the \
             former or lower the latter"
        );
    }
    if election > LONGEST {
        bail!(
            "{election_name} is \"{election}\"; allowed: at most {LONGEST}, because the longest timeout is twice as much"
        );
    }
    layers.add_as("heartbeat", beat_name, format!("{beat}ms"));
    layers.add_as("election_min", election_name.clone(), format!("{election}ms"));
    layers.add_as("election_max", election_name, format!("{}ms", 2 * election));
    Ok(())
}

/// The addresses of the member, and the founding members.
fn addresses(given: &Given, layers: &mut Layers) -> anyhow::Result<()> {
    if is_given(given, "listen-client-urls") && !is_given(given, "advertise-client-urls") {
        bail!(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly: give the address that \
             clients use"
        );
    }
    let advertise_client = single(value_of(given, "advertise-client-urls"), "clients are told one address")?;
    layers.add_as("advertise_client", advertise_client.name, advertise_client.text);
    let listen_peer = single(value_of(given, "listen-peer-urls"), "0.0.0.0 listens on all interfaces")?;
    layers.add_as("listen_peer", listen_peer.name, listen_peer.text);
    let own = single(value_of(given, "initial-advertise-peer-urls"), "a member has one address for its peers")?;
    let (cluster, name) = (value_of(given, "initial-cluster"), name(given));
    let alone = cluster.text.is_empty();
    let founders = if alone { format!("{name}={}", own.text) } else { cluster.text };
    // etcd's check. Whether this member is among the founders, the setting's own check tells.
    let in_cluster =
        founders.split(',').filter_map(|part| part.trim().split_once('=')).find(|(other, _)| *other == name);
    if let Some((_, url)) = in_cluster
        && Url::parse(url) != Url::parse(&own.text)
    {
        bail!(
            "--initial-cluster has {name}={url} but missing from --initial-advertise-peer-urls={}: both must give this \
             member's address",
            own.text
        );
    }
    layers.add_as("initial_cluster", if alone { own.name } else { cluster.name }, founders);
    Ok(())
}

/// The only address of a list. `why` says why there is only one.
fn single(value: Value, why: &str) -> anyhow::Result<Value> {
    let Value { name, text } = value;
    let mut urls: Vec<&str> = text.split(',').map(str::trim).collect();
    urls.dedup();
    match urls[..] {
        [url] => Ok(Value { name, text: url.to_owned() }),
        _ => bail!("{name} is {text:?}; allowed: one address; {why}"),
    }
}

fn log(given: &Given, layers: &mut Layers) -> anyhow::Result<()> {
    let mut map = |flag, key, words: &[(&str, &str)]| {
        let Value { name, text } = value_of(given, flag);
        let Some((_, word)) = words.iter().find(|(word, _)| *word == text) else {
            let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            bail!("{name} is {text:?}; allowed: {}", allowed.join(", "));
        };
        layers.add_as(key, name, (*word).to_owned());
        Ok(())
    };
    let levels = ["debug", "info", "warn", "error"].map(|level| (level, level));
    let levels = [&levels[..], &[("dpanic", "error"), ("panic", "error"), ("fatal", "error")]].concat();
    map("log-level", "log_level", &levels)?;
    map("log-format", "log_format", &[("json", "json"), ("console", "text")])
}
