//! The figures of a cluster, computed from what its members tell twice. There is no I/O here.

use std::collections::BTreeMap;
use std::time::Duration;

use bowline_api::etcdserverpb as pb;
use serde_json::{Value, json};

use super::metrics::{Histogram, Metrics};

/// What one address tells.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Such as `http://127.0.0.1:2379`.
    pub(super) address: String,
    pub(super) told: Result<Told, String>,
}

/// What a member tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) status: pb::StatusResponse,
    pub(super) members: Vec<pb::Member>,
    pub(super) metrics: Metrics,
}

impl Told {
    pub(super) fn id(&self) -> u64 {
        self.status.header.map_or(0, |header| header.member_id)
    }
}

/// What all members tell at about the same time.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// When, on any clock that only goes forward.
    pub(super) at: Duration,
    pub(super) answers: Vec<Answer>,
}

impl Sample {
    /// What each member tells, by its id.
    fn told(&self) -> BTreeMap<u64, &Told> {
        self.answers.iter().filter_map(|answer| answer.told.as_ref().ok()).map(|told| (told.id(), told)).collect()
    }

    /// The members by their ids, as those that answer list them. Beside a member that is not listed (any more) is what it
    /// says of itself.
    pub(super) fn members(&self) -> BTreeMap<u64, pb::Member> {
        let told = self.told();
        // The one that has applied most knows best.
        let latest = told.values().max_by_key(|told| told.status.raft_applied_index);
        let listed = latest.map_or(&[][..], |told| &told.members).iter().map(|member| (member.id, member.clone()));
        let mut members: BTreeMap<u64, pb::Member> = listed.collect();
        for id in told.keys() {
            members.entry(*id).or_insert_with(|| pb::Member { id: *id, ..pb::Member::default() });
        }
        members
    }

    /// An address for each listed member that has not answered, if one is known.
    pub(super) fn unasked(&self) -> Vec<String> {
        let told = self.told();
        let silent = self.members().into_values().filter(|member| !told.contains_key(&member.id));
        silent.filter_map(|member| member.client_ur_ls.into_iter().next()).collect()
    }
}

/// What is shown of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) cluster: u64,
    /// The name of the leader, if one is known.
    pub(super) leader: Option<String>,
    pub(super) term: u64,
    /// How long the rates were measured; `None` at the first sample, which has no rates.
    pub(super) interval: Option<Duration>,
    pub(super) rows: Vec<Row>,
    pub(super) totals: Load,
    pub(super) alarms: Vec<String>,
}

/// What is shown of a member.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) id: u64,
    /// The state, or why it is not known.
    pub(super) state: Result<State, String>,
}

/// The state of a member that answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    pub(super) role: &'static str,
    pub(super) term: u64,
    /// Committed log entries that the member has not applied.
    pub(super) lag: u64,
    /// Bytes of the state's file.
    pub(super) size: i64,
    /// Bytes of it in use.
    pub(super) in_use: i64,
    /// Most bytes; negative: any number. `None` if it is unknown.
    pub(super) quota: Option<i64>,
    pub(super) version: String,
    pub(super) load: Load,
}

/// What clients do at a member, or at all of them. A number that is not known is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// Requests of keys and values per second.
    pub(super) requests: Option<f64>,
    /// Half of them took no longer than this, in seconds.
    pub(super) p50: Option<f64>,
    /// The same for 99 of 100.
    pub(super) p99: Option<f64>,
    /// 99 of 100 syncs of the log took no longer than this, in seconds.
    pub(super) sync_p99: Option<f64>,
    pub(super) watchers: Option<f64>,
    pub(super) slow_watchers: Option<f64>,
    pub(super) leases: Option<f64>,
    pub(super) connections: Option<f64>,
}

impl Figures {
    /// The figures of `now`, with the rates since `before`.
    pub(super) fn of(now: &Sample, before: Option<&Sample>) -> Figures {
        let (told, members) = (now.told(), now.members());
        let earlier = before.map(Sample::told).unwrap_or_default();
        let interval = before.map(|before| now.at.saturating_sub(before.at)).filter(|interval| !interval.is_zero());
        let term = told.values().map(|told| told.status.raft_term).max().unwrap_or(0);
        // Who is behind may name an earlier leader.
        let leader = told.values().filter(|told| told.status.raft_term == term).map(|told| told.status.leader);
        let leader = leader.filter(|leader| *leader != 0).max();
        let committed = told.values().map(|told| told.status.raft_index).max().unwrap_or(0);
        let mut all = (Load::default(), Histogram::default(), Histogram::default());
        let rows = members.values().map(|member| {
            let state = told.get(&member.id).ok_or_else(|| why_silent(now, member)).map(|told| {
                let rates = interval.zip(earlier.get(&member.id).copied());
                let (load, calls, syncs) = load(told, rates);
                all.0.add(&load);
                all.1.merge(&calls);
                all.2.merge(&syncs);
                state(told, load, committed)
            });
            Row { name: name(member), id: member.id, state }
        });
        let rows: Vec<Row> = rows.collect();
        let (mut totals, calls, syncs) = all;
        (totals.p50, totals.p99) = (calls.quantile(0.5), calls.quantile(0.99));
        totals.sync_p99 = syncs.quantile(0.99);
        // Every member has the same leases.
        totals.leases = told.values().filter_map(|told| told.metrics.leases).reduce(f64::max);
        let mut alarms: Vec<String> = told.values().flat_map(|told| told.status.errors.clone()).collect();
        alarms.iter_mut().for_each(|text| *text = text.trim().trim_start_matches("etcdserver: ").to_owned());
        alarms.sort();
        alarms.dedup();
        let cluster = told.values().find_map(|told| told.status.header).map_or(0, |header| header.cluster_id);
        let leader = leader.map(|id| members.get(&id).map_or_else(|| format!("{id:x}"), name));
        Figures { cluster, leader, term, interval, rows, totals, alarms }
    }

    /// How many members answer.
    pub(super) fn reachable(&self) -> usize {
        self.rows.iter().filter(|row| row.state.is_ok()).count()
    }

    pub(super) fn json(&self) -> Value {
        let load = |load: &Load| {
            let whole = |count: Option<f64>| count.map(|count| count as u64);
            json!({
                "requests_per_second": load.requests, "p50_seconds": load.p50, "p99_seconds": load.p99,
                "fsync_p99_seconds": load.sync_p99, "watchers": whole(load.watchers),
                "slow_watchers": whole(load.slow_watchers), "leases": whole(load.leases),
                "connections": whole(load.connections),
            })
        };
        let member = |row: &Row| {
            let mut object = json!({ "name": row.name, "id": format!("{:x}", row.id) });
            match &row.state {
                Err(why) => object["error"] = json!(why),
                Ok(state) => {
                    for (key, value) in [
                        ("role", json!(state.role)),
                        ("term", json!(state.term)),
                        ("lag", json!(state.lag)),
                        ("size_bytes", json!(state.size)),
                        ("in_use_bytes", json!(state.in_use)),
                        ("quota_bytes", json!(state.quota)),
                        ("version", json!(state.version)),
                        ("load", load(&state.load)),
                    ] {
                        object[key] = value;
                    }
                }
            }
            object
        };
        let members: Vec<Value> = self.rows.iter().map(member).collect();
        json!({
            "cluster": format!("{:x}", self.cluster), "leader": self.leader, "term": self.term,
            "interval_seconds": self.interval.map(|interval| interval.as_secs_f64()),
            "members": members, "totals": load(&self.totals), "alarms": self.alarms,
        })
    }
}

/// The name of a member, or its id if it has none.
fn name(member: &pb::Member) -> String {
    if member.name.is_empty() { format!("{:x}", member.id) } else { member.name.clone() }
}

fn why_silent(sample: &Sample, member: &pb::Member) -> String {
    let asked = sample.answers.iter().filter(|answer| member.client_ur_ls.contains(&answer.address));
    let why = asked.filter_map(|answer| answer.told.as_ref().err()).next();
    match (why, member.client_ur_ls.first()) {
        (Some(why), _) => why.clone(),
        (None, Some(url)) => format!("not asked yet at {url}"),
        (None, None) => "has not started yet".to_owned(),
    }
}

fn state(told: &Told, load: Load, committed: u64) -> State {
    let status = &told.status;
    let role = match status.leader {
        _ if status.is_learner => "learner",
        0 => "no leader",
        leader if leader == told.id() => "leader",
        _ => "follower",
    };
    let quota = if status.db_size_quota != 0 { Some(status.db_size_quota) } else { None };
    State {
        role,
        term: status.raft_term,
        lag: committed.saturating_sub(status.raft_applied_index),
        size: status.db_size,
        in_use: status.db_size_in_use,
        quota: quota.or(told.metrics.quota.map(|bytes| bytes as i64)),
        version: status.version.clone(),
        load,
    }
}

/// The load of a member, with its new calls and syncs.
fn load(now: &Told, rates: Option<(Duration, &Told)>) -> (Load, Histogram, Histogram) {
    let metrics = &now.metrics;
    let mut load = Load {
        watchers: metrics.watchers,
        slow_watchers: metrics.slow_watchers,
        leases: metrics.leases,
        connections: metrics.connections,
        ..Load::default()
    };
    let Some((interval, before)) = rates else { return (load, Histogram::default(), Histogram::default()) };
    let calls = metrics.call_times.since(&before.metrics.call_times);
    let syncs = metrics.syncs.since(&before.metrics.syncs);
    (load.p50, load.p99, load.sync_p99) = (calls.quantile(0.5), calls.quantile(0.99), syncs.quantile(0.99));
    // A count that has shrunk belongs to a member that has started again.
    let new = metrics.calls.map(|count| match before.metrics.calls {
        Some(earlier) if earlier <= count => count - earlier,
        _ => count,
    });
    load.requests = new.map(|count| count / interval.as_secs_f64());
    (load, calls, syncs)
}

impl Load {
    /// Adds what can be added up.
    fn add(&mut self, other: &Load) {
        let sums = [
            (&mut self.requests, other.requests),
            (&mut self.watchers, other.watchers),
            (&mut self.slow_watchers, other.slow_watchers),
            (&mut self.connections, other.connections),
        ];
        for (sum, value) in sums {
            if let Some(value) = value {
                *sum = Some(sum.unwrap_or(0.0) + value);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn page(calls: u32) -> Metrics {
        Metrics::parse(&format!(
            "grpc_server_handled_total{{grpc_service=\"etcdserverpb.KV\"}} {calls}
grpc_server_handling_seconds_bucket{{le=\"0.001\",grpc_service=\"etcdserverpb.KV\"}} {calls}
grpc_server_handling_seconds_bucket{{le=\"+Inf\",grpc_service=\"etcdserverpb.KV\"}} {calls}
etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"0.01\"}} {calls}
etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"+Inf\"}} {calls}
etcd_debugging_mvcc_watcher_total 5
etcd_debugging_mvcc_slow_watcher_total 1
bowline_leases 2
bowline_client_connections 4
"
        ))
    }

    fn members() -> Vec<pb::Member> {
        let member = |id: u64, name: &str| pb::Member {
            id,
            name: name.to_owned(),
            client_ur_ls: vec![format!("http://{name}:2379")],
            ..pb::Member::default()
        };
        let unstarted = pb::Member { id: 4, is_learner: true, ..pb::Member::default() };
        vec![member(1, "a"), member(2, "b"), member(3, "c"), unstarted]
    }

    pub(crate) fn told(id: u64, calls: u32) -> Told {
        let header = pb::ResponseHeader { cluster_id: 0xc1, member_id: id, ..pb::ResponseHeader::default() };
        let status = pb::StatusResponse {
            header: Some(header),
            version: "3.6.0".to_owned(),
            leader: 1,
            raft_term: 5,
            raft_index: 100,
            raft_applied_index: 101 - id,
            db_size: 2 << 20,
            db_size_in_use: 1 << 20,
            db_size_quota: 4 << 20,
            ..pb::StatusResponse::default()
        };
        Told { status, members: members(), metrics: page(calls) }
    }

    /// Members 1 and 2 answer, and 3 does not.
    pub(crate) fn sample(seconds: u64, calls: u32) -> Sample {
        let ok = |id: u64, name: &str| Answer {
            address: format!("http://{name}:2379"),
            told: Ok(told(id, calls * id as u32)),
        };
        let silent = Answer { address: "http://c:2379".to_owned(), told: Err("connection refused".to_owned()) };
        Sample { at: Duration::from_secs(seconds), answers: vec![ok(1, "a"), ok(2, "b"), silent] }
    }

    #[test]
    fn rates_come_from_two_samples_and_the_rest_from_the_last() {
        let (before, now) = (sample(10, 100), sample(12, 150));
        let figures = Figures::of(&now, Some(&before));
        assert_eq!((figures.leader.as_deref(), figures.term, figures.cluster), (Some("a"), 5, 0xc1));
        assert_eq!((figures.reachable(), figures.rows.len()), (2, 4));
        let [first, second, third, fourth] = &figures.rows[..] else { panic!("{figures:?}") };
        let (first, second) = (first.state.as_ref().expect("it answers"), second.state.as_ref().expect("so does it"));
        assert_eq!((first.role, second.role, first.lag, second.lag), ("leader", "follower", 0, 1));
        assert_eq!((first.load.requests, second.load.requests), (Some(25.0), Some(50.0)));
        assert_eq!(first.load.p50, Some(0.0005));
        assert_eq!(first.load.sync_p99.map(|seconds| (seconds * 1e6).round()), Some(9_900.0));
        assert_eq!(first.quota, Some(4 << 20));
        assert_eq!(third.state, Err("connection refused".to_owned()));
        assert_eq!((fourth.name.as_str(), &fourth.state), ("4", &Err("has not started yet".to_owned())));
        let totals = &figures.totals;
        assert_eq!((totals.requests, totals.watchers, totals.connections), (Some(75.0), Some(10.0), Some(8.0)));
        assert_eq!((totals.leases, totals.p50), (Some(2.0), Some(0.0005)));
    }

    #[test]
    fn the_first_sample_has_no_rates_and_a_restarted_member_counts_from_zero() {
        let first = Figures::of(&sample(10, 100), None);
        assert_eq!((first.interval, first.totals.requests, first.totals.p99), (None, None, None));
        assert_eq!(first.totals.watchers, Some(10.0));
        let restarted = Figures::of(&sample(12, 10), Some(&sample(10, 100)));
        assert_eq!(restarted.totals.requests, Some(15.0), "10 and 20 calls in 2 s");
        let same_time = Figures::of(&sample(10, 10), Some(&sample(10, 5)));
        assert_eq!(same_time.totals.requests, None);
    }

    #[test]
    fn alarms_are_told_once_and_a_lost_leader_is_none() {
        let mut now = sample(1, 1);
        for answer in &mut now.answers {
            if let Ok(told) = &mut answer.told {
                told.status.leader = 0;
                told.status.errors = vec!["etcdserver: no leader".to_owned(), "memberID:7 alarm:NOSPACE ".to_owned()];
            }
        }
        let figures = Figures::of(&now, None);
        assert_eq!(figures.alarms, ["memberID:7 alarm:NOSPACE", "no leader"]);
        assert_eq!(figures.leader, None);
        assert_eq!(figures.rows[0].state.as_ref().map(|state| state.role), Ok("no leader"));
    }

    #[test]
    fn members_that_nobody_asked_are_found_by_the_list() {
        let mut one = sample(1, 1);
        one.answers.truncate(1);
        assert_eq!(one.unasked(), ["http://b:2379", "http://c:2379"]);
        assert_eq!(Figures::of(&one, None).rows[1].state, Err("not asked yet at http://b:2379".to_owned()));
        // One that is listed no more is still shown.
        if let Ok(told) = &mut one.answers[0].told {
            told.members.clear();
        }
        assert_eq!((one.unasked(), one.members().len()), (Vec::new(), 1));
        let none = Sample { at: Duration::ZERO, answers: Vec::new() };
        assert_eq!(Figures::of(&none, None).rows, []);
    }

    #[test]
    fn json_has_numbers_with_units_in_their_names() {
        let value = Figures::of(&sample(12, 150), Some(&sample(10, 100))).json();
        assert_eq!(value["leader"], "a");
        assert_eq!(value["interval_seconds"], 2.0);
        assert_eq!(value["members"][1]["load"]["requests_per_second"], 50.0);
        assert_eq!(value["members"][2], json!({ "name": "c", "id": "3", "error": "connection refused" }));
        assert_eq!(value["totals"]["fsync_p99_seconds"], 0.0099);
        assert_eq!(Figures::of(&sample(1, 1), None).json()["totals"]["p99_seconds"], Value::Null);
    }
}
