use proptest::prelude::*;

use super::*;

fn read(fields: &str) -> Result<Scenario, ScenarioError> {
    let json = format!(r#"{{"lifetime":30,"replicas":5,"requests":500,{fields}}}"#);
    Scenario::from_json("s", json.as_bytes())
}

fn error(json: &str) -> String {
    let error = Scenario::from_json("s", json.as_bytes()).unwrap_err();
    let error = error.to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

fn error_in(fields: &str) -> String {
    error(&format!(r#"{{"lifetime":30,"replicas":5,"requests":500,{fields}}}"#))
}

#[test]
fn defaults_are_those_of_the_protocol_page() {
    let json = br#"{"lifetime": 30, "replicas": 5, "requests": 500}"#;
    let scenario = Scenario::from_json("plain", json).unwrap();
    let expected = Scenario {
        name: "plain".to_owned(),
        lifetime: Duration::from_secs(30),
        replicas: 5,
        requests: 500,
        mix: 0.8,
        start_wait: Duration::from_secs(5),
        end_wait: Duration::from_secs(2),
        drops: 0.0,
        seed: None,
        max_packets: 20_000,
        events: Vec::new(),
        benchmarks: Benchmarks::default(),
    };
    assert_eq!(scenario, expected);
    assert_eq!(scenario.duration(), Duration::from_secs(37));
    assert_eq!(scenario.request_time(0), Duration::from_secs(5));
    assert_eq!(scenario.request_time(250), Duration::from_secs(20));
    assert_eq!(scenario.minimum_messages(), 250);
}

#[test]
fn every_field_is_read() {
    let scenario = read(
        r#""mix":0.2,"start_wait":1.5,"end_wait":0,"drops":0.3,"seed":18446744073709551615,
           "max_packets":7,"events":[{"type":"part_end","time":10},{"type":"part_hard","time":2.5}],
           "tests":{"benchmarks":{"total_msgs":[1,2,3],"median_latency":[0.0004,0.002,0.05]}}"#,
    )
    .unwrap();
    assert_eq!(scenario.mix, 0.2);
    assert_eq!(scenario.start_wait, Duration::from_millis(1_500));
    assert_eq!(scenario.end_wait, Duration::ZERO);
    assert_eq!(scenario.drops, 0.3);
    assert_eq!(scenario.seed, Some(u64::MAX));
    assert_eq!(scenario.max_packets, 7);
    let kinds: Vec<_> = scenario.events.iter().map(|e| (e.kind, e.time)).collect();
    assert_eq!(
        kinds,
        [(EventKind::PartHard, Duration::from_millis(2_500)), (EventKind::PartEnd, Duration::from_secs(10)),]
    );
    let thresholds = scenario.benchmarks.median_latency.unwrap();
    assert_eq!(<[f64; 3]>::from(thresholds), [0.0004, 0.002, 0.05]);
    assert_eq!(scenario.benchmarks.failures, None);
}

#[test]
fn unknown_fields_are_named_with_what_is_allowed() {
    assert_eq!(
        error_in(r#""speed":1"#),
        "scenario s: unknown field `speed`; allowed are lifetime, replicas, requests, mix, \
         start_wait, end_wait, drops, seed, max_packets, events, tests"
    );
    assert_eq!(
        error_in(r#""tests":{"maximums":{}}"#),
        "scenario s: unknown field `tests.maximums`; allowed are benchmarks"
    );
    assert_eq!(
        error_in(r#""tests":{"benchmarks":{"speed":[1,2,3]}}"#),
        "scenario s: unknown field `tests.benchmarks.speed`; allowed are total_msgs, failures, \
         duplicates, median_latency"
    );
    assert_eq!(
        error_in(r#""events":[{"type":"part_end","time":1,"id":3}]"#),
        "scenario s: unknown field `events[0].id`; allowed are type, time"
    );
    assert_eq!(
        error_in(r#""events":[{"type":"part_end","time":1},{"type":"explode","time":1}]"#),
        "scenario s: the field `events[1].type` is \"explode\"; it must be one of kill_leader, \
         kill_non_leader, part_easy, part_hard, part_end"
    );
}

#[test]
fn values_out_of_range_are_named_with_the_range() {
    for (fields, expected) in [
        (r#""mix":1.5"#, "`mix` is 1.5; it must be a number from 0 to 1"),
        (r#""mix":-0.1"#, "`mix` is -0.1; it must be a number from 0 to 1"),
        (r#""drops":"0.1""#, "`drops` is \"0.1\"; it must be a number from 0 to 1"),
        (r#""start_wait":-1"#, "`start_wait` is -1; it must be a number from 0 to 3600"),
        (r#""end_wait":1e9"#, "`end_wait` is 1000000000.0; it must be a number from 0 to 3600"),
        (r#""max_packets":0"#, "`max_packets` is 0; it must be a whole number from 1 to 1000000000"),
        (r#""seed":-4"#, "`seed` is -4; it must be a whole number from 0 to 18446744073709551615"),
        (r#""events":{}"#, "`events` is an object; it must be an array of at most 1000 events"),
        (r#""events":[3]"#, "`events[0]` is 3; it must be an object"),
        (r#""events":[{"type":"part_end","time":30.1}]"#, "`events[0].time` is 30.1; it must be a number from 0 to 30"),
        (
            r#""tests":{"benchmarks":{"failures":[0,2,2]}}"#,
            "`tests.benchmarks.failures` is [0,2,2]; it must be an array of three rising numbers \
             from 0 up",
        ),
        (
            r#""tests":{"benchmarks":{"failures":[0,2]}}"#,
            "`tests.benchmarks.failures` is [0,2]; it must be an array of three rising numbers \
             from 0 up",
        ),
    ] {
        assert_eq!(error_in(fields), format!("scenario s: the field {expected}"));
    }
    for (json, expected) in [
        (r#"{"lifetime":4,"replicas":5,"requests":1}"#, "`lifetime` is 4; it must be a number from 5 to 86400"),
        (r#"{"lifetime":5,"replicas":2,"requests":1}"#, "`replicas` is 2; it must be a whole number from 3 to 21"),
        (r#"{"lifetime":5,"replicas":22,"requests":1}"#, "`replicas` is 22; it must be a whole number from 3 to 21"),
        (
            r#"{"lifetime":5,"replicas":3,"requests":0.5}"#,
            "`requests` is 0.5; it must be a whole number from 1 to 1000000",
        ),
        (r#"{"lifetime":5,"replicas":3}"#, "`requests` is missing; it must be a whole number from 1 to 1000000"),
    ] {
        assert_eq!(error(json), format!("scenario s: the field {expected}"));
    }
}

#[test]
fn a_missing_time_or_type_of_an_event_is_named() {
    let missing_type = error_in(r#""events":[{"time":1}]"#);
    assert!(missing_type.contains("`events[0].type` is missing"));
    let missing_time = error_in(r#""events":[{"type":"part_end"}]"#);
    assert!(missing_time.contains("`events[0].time` is missing"));
}

#[test]
fn what_is_no_object_is_refused() {
    assert_eq!(error("[1]"), "scenario s: not one JSON object: it is [1]");
    assert!(error("{").contains("not one JSON object"));
    assert!(error("{}{}").contains("not one JSON object"));
    let long = vec![b' '; MAX_SCENARIO_BYTES + 1];
    let error = Scenario::from_json("s", &long).unwrap_err();
    assert!(matches!(error, ScenarioError::TooLong { length, .. } if length == long.len()));
}

#[test]
fn tiers_are_bounded_from_above() {
    let thresholds = Thresholds { top: 0.0, full: 2.0, partial: 5.0 };
    // A threshold of 0 cannot be beaten.
    assert_eq!(thresholds.tier(0.0), Tier::Full);
    assert_eq!(thresholds.tier(1.9), Tier::Full);
    assert_eq!(thresholds.tier(2.0), Tier::Partial);
    assert_eq!(thresholds.tier(5.0), Tier::None);
    assert_eq!(Thresholds { top: 1.0, ..thresholds }.tier(0.5), Tier::Top);
}

/// The table of the protocol page: name, requests, mix, drops, events, messages, failures,
/// duplicates, median latency in milliseconds.
const KNOWN: &str = "
simple-1     500 0.8 0    -                       1200/3000/5000 0/1/2   0/2/5  0.4/2/50
simple-2     500 0.2 0    -                       2200/4000/5000 0/1/2   0/2/5  1/5/50
unreliable-1 500 0.2 0.05 -                       2200/4500/5500 0/1/2   0/2/5  1/5/50
unreliable-2 500 0.2 0.10 -                       2300/4500/6000 0/1/2   0/2/5  1/5/50
unreliable-3 500 0.2 0.15 -                       2300/4500/6000 0/1/5   0/2/5  1/5/50
crash-1      500 0.2 0    kn15                    2500/4000/5000 0/1/5   0/2/5  1/5/50
crash-2      500 0.2 0    kn10,kn20               2500/4000/5000 0/1/5   0/2/5  1/5/50
crash-3      400 0.2 0    kl10                    2000/4000/5000 0/2/5   0/2/10 0.2/5/50
crash-4      300 0.2 0    kl8,kl16                1800/4000/5000 1/4/10  0/2/10 0.15/5/50
partition-1  400 0.2 0    pe5,xx10                2200/4000/5000 0/1/5   0/2/5  0.2/5/50
partition-2  300 0.2 0    pe5,xx10,pe18,xx23      1800/4000/5000 0/1/5   0/2/5  0.2/5/50
partition-3  400 0.2 0    ph5,xx10                2200/4000/5000 0/10/30 0/2/5  0.25/5/50
partition-4  300 0.2 0    ph5,xx10,ph18,xx23      1800/4000/5000 0/20/60 0/2/5  0.25/5/50
";

fn event(text: &str) -> Event {
    let (kind, second) = text.split_at(2);
    let kind = match kind {
        "kl" => EventKind::KillLeader,
        "kn" => EventKind::KillNonLeader,
        "pe" => EventKind::PartEasy,
        "ph" => EventKind::PartHard,
        _ => EventKind::PartEnd,
    };
    let time = Duration::from_secs(second.parse().unwrap());
    Event { kind, time }
}

#[test]
fn the_known_scenarios_are_those_of_the_table() {
    let rows: Vec<Vec<&str>> = KNOWN
        .lines()
        .map(|line| line.split_whitespace().collect())
        .filter(|cells: &Vec<&str>| !cells.is_empty())
        .collect();
    assert_eq!(rows.len(), 13);
    for cells in rows {
        let scenario = Scenario::builtin_named(cells[0]).unwrap();
        let number = |text: &str| text.parse::<f64>().unwrap();
        let three = |text: &str, unit: f64| {
            let numbers: Vec<f64> = text.split('/').map(|n| number(n) * unit).collect();
            numbers
        };
        let got = |thresholds: Option<Thresholds>| <[f64; 3]>::from(thresholds.unwrap()).to_vec();
        assert_eq!(scenario.requests as f64, number(cells[1]));
        assert_eq!(scenario.mix, number(cells[2]));
        assert_eq!(scenario.drops, number(cells[3]));
        let events: Vec<Event> = cells[4].split(',').filter(|cell| *cell != "-").map(event).collect();
        assert_eq!(scenario.events, events, "{}", cells[0]);
        assert_eq!(got(scenario.benchmarks.total_msgs), three(cells[5], 1.0));
        assert_eq!(got(scenario.benchmarks.failures), three(cells[6], 1.0));
        assert_eq!(got(scenario.benchmarks.duplicates), three(cells[7], 1.0));
        for (got, wanted) in got(scenario.benchmarks.median_latency).iter().zip(three(cells[8], 1e-3)) {
            assert!((got - wanted).abs() < 1e-12, "{got} {wanted}");
        }
        assert_eq!(scenario.lifetime, Duration::from_secs(30));
        assert_eq!(scenario.replicas, 5);
        assert_eq!(scenario.start_wait, Duration::from_secs(5));
        assert_eq!(scenario.end_wait, Duration::from_secs(2));
        assert_eq!(scenario.max_packets, DEFAULT_MAX_PACKETS);
    }
}

#[test]
fn every_builtin_scenario_is_fair() {
    let mut names = std::collections::BTreeSet::new();
    for (name, json) in Scenario::builtin() {
        assert!(names.insert(name), "{name} is there twice");
        let scenario = Scenario::from_json(name, json.as_bytes()).unwrap();
        assert_eq!(Scenario::builtin_named(name).unwrap(), scenario);
        let count = |wanted: &[EventKind]| {
            let events = scenario.events.iter();
            events.filter(|event| wanted.contains(&event.kind)).count()
        };
        let killed = count(&[EventKind::KillLeader, EventKind::KillNonLeader]);
        assert!(killed <= (scenario.replicas - 1) / 2, "{name} kills a quorum");
        let benchmarks = &scenario.benchmarks;
        let fewest = scenario.minimum_messages() as f64;
        assert!(benchmarks.total_msgs.unwrap().top > fewest, "{name}");
        let most = benchmarks.total_msgs.unwrap().partial;
        assert!(most < scenario.max_packets as f64, "{name}");
        assert!(benchmarks.failures.is_some() && benchmarks.duplicates.is_some());
        assert!(benchmarks.median_latency.unwrap().partial <= 0.5);
    }
    assert!(names.len() >= 13 + 8);
    assert!(Scenario::builtin_named("no-such").is_none());
}

proptest! {
    #[test]
    fn random_files_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Scenario::from_json("s", &bytes);
    }

    #[test]
    fn random_values_never_panic(field in 0..11usize, value in any::<f64>(), text in any::<String>()) {
        let fields = ["lifetime", "replicas", "requests", "mix", "start_wait", "end_wait", "drops",
            "seed", "max_packets", "events", "tests"];
        for value in [serde_json::json!(value), serde_json::json!(text), serde_json::json!([value])] {
            let mut json = serde_json::json!({"lifetime": 30, "replicas": 5, "requests": 10});
            json[fields[field]] = value;
            if let Ok(scenario) = Scenario::from_json("s", json.to_string().as_bytes()) {
                prop_assert!(scenario.lifetime >= Duration::from_secs(5));
                prop_assert!(REPLICAS.contains(&(scenario.replicas as u64)));
            }
        }
    }
}
