//! Health checks: a single one (`/health`), or several (`/livez`, `/readyz`).

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bowline_kv::store::{Principal, StoreStatusRequest};
use bowline_node::{Failure, Unknown};
use percent_encoding::percent_decode_str;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::{NO_SNIFF, PLAIN, Pages, not_found, refusal};
use crate::grpc::{Context, of_request};
use crate::instruments::{Fixed, Labels, register};
use crate::replica::{AlarmFacts, Status};

/// Time limit of a check: health is asked for again and again.
const PATIENCE: Duration = Duration::from_secs(2);

/// A check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// No alarm tells that members' states differ.
    DataCorruption,
    /// This member's own state can be read, so its threads run.
    SerializableRead,
    /// The latest state can be read, so there is a quorum, which this member reaches.
    LinearizableRead,
    /// The member is not a learner, which serves almost nothing.
    NonLearner,
}

/// A check of one of the pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    /// `livez`: whether the process should be kept. `readyz`: whether it should get requests.
    page: &'static str,
    check: Check,
}

const PROBES: [Probe; 5] = [
    Probe { page: "livez", check: Check::SerializableRead },
    Probe { page: "readyz", check: Check::DataCorruption },
    Probe { page: "readyz", check: Check::SerializableRead },
    Probe { page: "readyz", check: Check::LinearizableRead },
    Probe { page: "readyz", check: Check::NonLearner },
];

/// The results of the probes.
#[derive(Debug)]
pub(super) struct Tallies {
    /// The last result of each probe: 0 none yet, 1 bad, 2 good.
    last: [AtomicU8; PROBES.len()],
    /// Of each probe the good answers, then the bad ones.
    answers: Fixed<Labels<3>, Counter>,
}

impl Tallies {
    pub(super) fn new(registry: &mut Registry) -> Tallies {
        let outcomes = PROBES.iter().flat_map(|probe| {
            let [name, page] = probe.labels();
            ["success", "error"].map(|status| [name, page, ("status", status)])
        });
        let answers = Fixed::new(outcomes, Counter::default);
        register(registry, "etcd_server_healthchecks_total", "Answers to probes.", &answers);
        Tallies { last: Default::default(), answers }
    }

    fn note(&self, place: usize, good: bool) {
        self.last[place].store(if good { 2 } else { 1 }, Relaxed);
        self.answers[2 * place + usize::from(!good)].inc();
    }

    /// Of each probe, whether the last answer was good; while nobody has asked, whether one would be, as far as can be
    /// told at once.
    pub(super) fn good(&self, context: &Context, status: &Status) -> impl Iterator<Item = (Labels<2>, bool)> {
        PROBES.iter().zip(&self.last).map(move |(probe, last)| {
            let good = match last.load(Relaxed) {
                0 => probe.check.seems_good(context, status),
                last => last == 2,
            };
            (probe.labels(), good)
        })
    }
}

impl Probe {
    fn labels(&self) -> Labels<2> {
        [("name", self.check.name()), ("type", self.page)]
    }
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    /// Runs the check. Returns etcd's text for the failure, if it fails.
    async fn failure(self, context: &Context) -> Option<String> {
        match self {
            Check::DataCorruption => {
                let good = self.seems_good(context, &context.replica.status());
                (!good).then(|| "alarm activated: CORRUPT".to_owned())
            }
            Check::SerializableRead => read_local(context).await.err(),
            Check::LinearizableRead => read_latest(context).await.err(),
            Check::NonLearner => {
                let good = self.seems_good(context, &context.replica.status());
                (!good).then(|| "not supported for learner".to_owned())
            }
        }
    }

    fn seems_good(self, context: &Context, status: &Status) -> bool {
        match self {
            Check::DataCorruption => !status.facts.alarms.corrupt,
            Check::SerializableRead => status.fault.is_none(),
            Check::LinearizableRead => status.leader.is_some(),
            Check::NonLearner => status.membership.is_voter(context.replica.id()),
        }
    }
}

/// The first active alarm that is not excluded.
fn alarm(alarms: AlarmFacts, excluded: &[String]) -> Option<&'static str> {
    let all = [("NOSPACE", alarms.no_space), ("CORRUPT", alarms.corrupt)];
    all.into_iter().find(|(name, active)| *active && !excluded.iter().any(|other| other == name)).map(|(name, _)| name)
}

/// Checks whether no alarm is active, except those that are excluded, and whether this member can read the latest
/// state, or its own with `?serializable=true`.
pub(super) async fn health(State(pages): State<Pages>, RawQuery(query): RawQuery) -> Response {
    let context = &pages.context;
    let serializable = values(query.as_deref(), "serializable").next().is_some_and(|value| value == "true");
    let status = context.replica.status();
    let excluded: Vec<String> = values(query.as_deref(), "exclude").collect();
    let reason = if let Some(alarm) = alarm(status.facts.alarms, &excluded) {
        Some(format!("ALARM {alarm}"))
    } else if status.leader.is_none() && !serializable {
        Some("RAFT NO LEADER".to_owned())
    } else {
        let read = if serializable { read_local(context).await } else { read_latest(context).await };
        read.err().map(|error| format!("RANGE ERROR:{error}"))
    };
    let counter = if reason.is_none() { &context.counts.health_success } else { &context.counts.health_failures };
    counter.inc();
    match reason {
        None => (PLAIN, r#"{"health":"true","reason":""}"#).into_response(),
        Some(reason) => {
            let reason = reason.replace(['"', '\\'], "'");
            refusal(StatusCode::SERVICE_UNAVAILABLE, &format!(r#"{{"health":"false","reason":"{reason}"}}"#))
        }
    }
}

/// Runs the checks of a page, except those that are excluded.
pub(super) async fn page(page: &'static str, State(pages): State<Pages>, RawQuery(query): RawQuery) -> Response {
    let excluded: Vec<String> = values(query.as_deref(), "exclude").collect();
    let wanted = |probe: &Probe| probe.page == page && !excluded.iter().any(|name| name == probe.check.name());
    run(&pages, wanted, query.as_deref()).await
}

/// Runs one check of a page.
pub(super) async fn one(
    page: &'static str,
    State(pages): State<Pages>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let wanted = |probe: &Probe| probe.page == page && probe.check.name() == name;
    if !PROBES.iter().any(wanted) {
        return not_found();
    }
    run(&pages, wanted, query.as_deref()).await
}

/// Runs checks. The answer lists them if one fails, or with `?verbose` (of any value).
async fn run(pages: &Pages, wanted: impl Fn(&Probe) -> bool, query: Option<&str>) -> Response {
    let (mut text, mut failed) = (String::new(), false);
    for (place, probe) in PROBES.iter().enumerate().filter(|(_, probe)| wanted(probe)) {
        let name = probe.check.name();
        let failure = probe.check.failure(&pages.context).await;
        pages.tallies.note(place, failure.is_none());
        match failure {
            None => text.push_str(&format!("[+]{name} ok\n")),
            Some(why) => {
                failed = true;
                text.push_str(&format!("[-]{name} failed: {why}\n"));
            }
        }
    }
    if failed {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, &text);
    }
    if values(query, "verbose").next().is_none() {
        text.clear();
    }
    text.push_str("ok\n");
    (PLAIN, NO_SNIFF, text).into_response()
}

/// The values of a key in a query, in order; a key without a value gives an empty one.
fn values<'a>(query: Option<&'a str>, key: &'a str) -> impl Iterator<Item = String> + 'a {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let parts = query.unwrap_or_default().split('&').map(|part| part.split_once('=').unwrap_or((part, "")));
    parts.filter(move |(name, _)| decoded(name) == key).map(move |(_, value)| decoded(value))
}

async fn read_local(context: &Context) -> Result<(), String> {
    context.replica.look(&Principal::Member, StoreStatusRequest).await.map(|_| ()).map_err(told)
}

/// Reads the latest state. Fails at once if the leader is lost meanwhile.
async fn read_latest(context: &Context) -> Result<(), String> {
    let mut status = context.replica.watch_status();
    let led = status.borrow().leader.is_some();
    let read = tokio::time::timeout(PATIENCE, context.replica.confirm());
    tokio::select! {
        read = read => match read {
            Ok(read) => read.map_err(told),
            Err(_) => Err(told(Unknown::Expired.into())),
        },
        _ = status.wait_for(|status| status.leader.is_none()), if led => Err("etcdserver: leader changed".to_owned()),
    }
}

fn told(error: Failure) -> String {
    of_request(error).message().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_forms_are() {
        let query = Some("verbose&exclude=a&x=1&exclude=non%5Flearner&%76erbose=0&exclude=");
        let all = |key| values(query, key).collect::<Vec<_>>();
        assert_eq!(all("exclude"), ["a", "non_learner", ""]);
        assert_eq!(all("verbose"), ["", "0"]);
        assert_eq!(all("verb").len() + values(None, "verbose").count(), 0);
        assert_eq!(values(Some("a=b+c%20d%zz"), "a").collect::<Vec<_>>(), ["b c d%zz"]);
    }
}
