//! `bowline bench` against clusters of real processes, and against itself.

#[path = "support/servers.rs"]
mod servers;
mod support;

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use servers::{Place, is_installed};
use support::terminal::Terminal;
use support::{Folder, Member, Said, run};

/// A name, and how many of 200 requests have it, if that is known.
type Measures = &'static [(&'static str, Option<u64>)];

/// Each work, and its measures.
const WORKS: [(&str, Measures); 9] = [
    ("put", &[("put", Some(200))]),
    ("get", &[("get", Some(200))]),
    ("get --serializable", &[("get", Some(200))]),
    ("range --limit 10", &[("range", Some(200))]),
    ("txn", &[("txn", Some(200))]),
    ("mixed --reads 50", &[("get", None), ("put", None), ("all", Some(200))]),
    ("watch --watchers 3 --streams 2", &[("put", Some(200)), ("event", Some(600))]),
    ("lease", &[("grant", None), ("keep-alive", None), ("revoke", None), ("all", Some(200))]),
    ("put --distribution zipf --zipf-exponent 1.2", &[("put", Some(200))]),
];

/// Short, and without waiting.
const SHORT: &str = "--requests 200 --warmup 0s --clients 8 --keys 100";

fn command(endpoints: &str, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command.arg("bench").args(line.split_whitespace()).env("BOWLINE_ENDPOINTS", endpoints).env_remove("NO_COLOR");
    command
}

fn bench(endpoints: &str, line: &str) -> Said {
    run(&mut command(endpoints, line), b"")
}

/// The JSON of a measurement that succeeds.
fn json(endpoints: &str, line: &str) -> Value {
    let said = bench(endpoints, &format!("{line} --json"));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{line}: {said:?}");
    serde_json::from_slice(&said.out).expect("it is JSON")
}

/// What the cluster has under the prefix, and how many leases.
fn left(endpoints: &str) -> (String, String) {
    let ask = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        let said = run(command.args(words).env("BOWLINE_ENDPOINTS", endpoints), b"");
        format!("{}{}", said.text(), said.err)
    };
    (ask(&["get", "--prefix", "bench/", "--count-only"]), ask(&["lease", "list"]))
}

/// Latencies that are positive, and grow with the percentile.
fn is_plausible(measure: &Value) {
    let names = ["p50_seconds", "p90_seconds", "p99_seconds", "p99.9_seconds", "max_seconds"];
    let times = names.map(|name| measure[name].as_f64().expect("there is one"));
    assert!(times[0] > 0.0 && times.is_sorted(), "{measure}");
    assert!(measure["per_second"].as_f64() > Some(0.0), "{measure}");
    let course = measure["course"].as_array().expect("a course");
    let counts: u64 = course.iter().filter_map(|point| point["count"].as_u64()).sum();
    assert_eq!(Some(counts), measure["count"].as_u64(), "{measure}");
}

/// Each work does as many requests as it is told, and leaves nothing behind.
fn does_all_works(endpoints: &str) {
    for (work, measures) in WORKS {
        let report = json(endpoints, &format!("{work} {SHORT}"));
        let run = &report["a"]["runs"][0];
        assert_eq!(
            (&run["errors"], &run["interrupted"]),
            (&Value::from(0), &Value::from(false)),
            "{work}: {}",
            run["errors_by_kind"]
        );
        let measured = run["measures"].as_array().expect("there are some");
        let names: Vec<&str> = measured.iter().filter_map(|measure| measure["name"].as_str()).collect();
        assert_eq!(names, measures.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "{work}");
        for (measure, (_, count)) in measured.iter().zip(measures) {
            is_plausible(measure);
            assert!(count.is_none_or(|count| measure["count"] == count), "{work}: {measure}");
        }
        assert_eq!(report["configuration"]["work"], work.split(' ').next().expect("a word"), "{report}");
        assert!(report["a"]["version"].as_str().is_some_and(|version| version.starts_with("3.")), "{report}");
    }
    let (keys, leases) = left(endpoints);
    assert!(keys.starts_with('0') && leases.contains("found 0 leases"), "{keys}, {leases}");
}

#[test]
fn each_work_is_measured_on_a_cluster() {
    let folder = Folder::with_cluster();
    let endpoints = folder.endpoints();
    does_all_works(&endpoints);

    // Requests that are due at a rate take their time, whatever the cluster does.
    let report = json(&endpoints, &format!("put {SHORT} --rate 400"));
    let run = &report["a"]["runs"][0];
    assert_eq!((&run["pace"]["due"], &run["pace"]["sent"]), (&200.into(), &200.into()), "{run}");
    assert!(run["seconds"].as_f64() >= Some(199.0 / 400.0), "{run}");
    // Far more than one client can do: the latencies count from when the puts were due.
    let report = json(&endpoints, "put --clients 1 --rate 1000000 --duration 500ms --warmup 0s");
    let run = &report["a"]["runs"][0];
    assert_eq!(run["pace"]["kept"], false, "{run}");
    assert!(run["pace"]["sent"].as_u64() < run["pace"]["due"].as_u64(), "{run}");
    assert!(run["measures"][0]["max_seconds"].as_f64() > Some(0.25), "{run}");
    let said = bench(&endpoints, "put --clients 1 --rate 1000000 --duration 500ms --warmup 0s");
    assert!(said.code == Some(0) && said.text().contains("NOT KEPT"), "{said:?}");
}

#[test]
fn a_real_etcd_is_measured_in_the_same_way() {
    if !is_installed("etcd") {
        eprintln!("skipped: etcd is not installed (apt-get install etcd-server)");
        return;
    }
    let place = Place::new();
    let etcd = place.start_etcd("a", "etcd", &place.cluster(&["a"], 0), 1);
    does_all_works(&etcd.endpoint);
}

#[test]
fn two_servers_are_compared_in_turn() {
    let member = Member::start();
    let file = tempfile::tempdir().expect("a folder");
    let page = file.path().join("report.html");
    let line = format!("mixed {SHORT} --compare {} --pause 0s --html {}", member.endpoint(), page.display());
    let report = json(member.endpoint(), &line);
    for side in ["a", "b"] {
        let runs = report[side]["runs"].as_array().expect("there are some");
        assert_eq!(runs.len(), 3);
        runs.iter().for_each(|run| assert_eq!(run["measures"][2]["count"], 200, "equal work: {run}"));
    }
    let metrics = report["comparison"].as_array().expect("a comparison");
    assert_eq!(metrics.len(), 3 * 6 + 2, "{metrics:?}");
    for metric in metrics.iter().filter(|metric| metric["metric"] != "errors") {
        let ratios: Vec<f64> = metric["ratios"].as_array().expect("ratios").iter().filter_map(Value::as_f64).collect();
        let [least, median, most] =
            ["ratio_least", "ratio_median", "ratio_most"].map(|name| metric[name].as_f64().expect("there is one"));
        assert!(ratios.len() == 3 && ratios.contains(&least) && ratios.contains(&median), "{metric}");
        assert!(0.0 < least && least <= median && median <= most, "{metric}");
    }
    assert!(left(member.endpoint()).0.starts_with('0'));

    let page = std::fs::read_to_string(page).expect("it was written");
    is_well_formed(&page);
    // Two for each of get, put and all.
    assert_eq!(page.matches("<svg").count(), 6);
    assert!(!page.contains("<script") && !page.contains("src=") && !page.contains("href="), "it needs no other file");
    for told in
        ["bowline bench mixed", "8 clients on 1 connection", "version 3.6.0", "bowline 0.1.0", member.endpoint()]
    {
        assert!(page.contains(told), "{told:?} is missing");
    }
}

/// All elements that are opened are closed in the right order.
fn is_well_formed(page: &str) {
    let mut open = Vec::new();
    let (_, body) = page.split_once("<html").expect("it is a page");
    let body = format!("<html{body}");
    for tag in body.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        let name = tag.split_whitespace().next().expect("a tag has a name");
        match name.strip_prefix('/') {
            Some(closed) => assert_eq!(open.pop(), Some(closed), "in {body}"),
            None if matches!(name, "meta" | "br") => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
}

#[test]
fn an_echo_answers_all_requests_of_keys() {
    for work in ["put", "get", "range --limit 7", "txn", "mixed"] {
        let report = json("127.0.0.1:1", &format!("{work} --echo {SHORT}"));
        let run = &report["a"]["runs"][0];
        let all = run["measures"].as_array().and_then(|measures| measures.last()).expect("there is one");
        assert_eq!((&all["count"], &run["errors"], &report["a"]["version"]), (&200.into(), &0.into(), &Value::Null));
    }
    let member = Member::start();
    let said = bench(member.endpoint(), &format!("put {SHORT} --compare echo --rounds 1 --pause 0s"));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.text().contains("\nput p99.9 ") && said.text().contains(", an echo\n"), "{said:?}");
}

#[test]
fn keys_of_others_are_neither_overwritten_nor_removed() {
    let member = Member::start();
    let short = format!("put {SHORT}");
    member.ask(&["put", "bench/mine", "x"]);
    let said = bench(member.endpoint(), &short);
    assert_eq!((said.code, said.text()), (Some(1), ""), "{said:?}");
    assert!(said.err.starts_with("error: there are keys with the --prefix \"bench/\" already (1): "), "{said:?}");
    member.says(&["get", "bench/mine"], "x\n");
    let said = bench(member.endpoint(), &format!("{short} --keep --distribution sequential"));
    assert_eq!(said.code, Some(0), "{said:?}");
    member.says(&["get", "--prefix", "bench/", "--count-only"], "101\n");
    member.says(&["get", "bench/mine"], "x\n");
    let said = bench(member.endpoint(), &format!("{short} --prefix other/"));
    assert_eq!(said.code, Some(0), "{said:?}");
    member.says(&["get", "--prefix", "other/", "--count-only"], "0\n");
    member.says(&["get", "--prefix", "bench/", "--count-only"], "101\n");
}

#[test]
fn errors_are_counted_and_if_all_fail_so_does_the_command() {
    let member = Member::start();
    let large = "put --requests 4 --warmup 0s --clients 2 --value-size 2MiB";
    let said = bench(member.endpoint(), large);
    assert_eq!(said.code, Some(1), "{said:?}");
    let told = said.text();
    assert!(
        told.contains("\nerrors   4 (100.00%)\n        4  ResourceExhausted: ") || told.contains("InvalidArgument: "),
        "{told}"
    );
    let said = bench("127.0.0.1:1", "put");
    assert_eq!((said.code, said.text()), (Some(1), ""), "{said:?}");
    assert!(said.err.contains("can't reach any endpoint (http://127.0.0.1:1): "), "{said:?}");
    let said = bench(member.endpoint(), "put --compare 127.0.0.1:1");
    assert!(said.code == Some(1) && said.err.contains("error: B: can't reach any endpoint"), "{said:?}");
}

#[test]
fn bad_options_are_named_with_their_value_and_what_is_allowed() {
    let refused = [
        ("put --clients 0", "--clients is 0; allowed: 1 to 10000"),
        (
            "put --value-size much",
            "invalid value 'much' for '--value-size <BYTES>': allowed: a size such as 256 or 64KiB",
        ),
        (
            "put --duration soon",
            "invalid value 'soon' for '--duration <TIME>': allowed: a time such as 500ms, 10s or 1m",
        ),
        ("put --zipf-exponent 2", "--zipf-exponent is 2; allowed: only with --distribution zipf"),
        ("lease --echo", "an echo answers no lease; allowed: put, get, range, txn, mixed"),
        ("watch --compare echo", "an echo answers no watch; allowed: put, get, range, txn, mixed"),
        ("mixed --reads 101", "--reads is 101; allowed: 0 to 100"),
        (
            "put --compare 127.0.0.1",
            "\"127.0.0.1\" is not an endpoint; allowed: host:port, http://host:port or https://host:port",
        ),
        ("put --pause 2h --compare echo", "--pause is 7200s; allowed: 0s to 1h"),
        ("nothing", "unrecognized subcommand 'nothing'"),
    ];
    for (line, why) in refused {
        let said = bench("127.0.0.1:1", line);
        assert_eq!((said.code, said.text()), (Some(2), ""), "{line}: {said:?}");
        assert!(said.err.starts_with(&format!("error: {why}")), "{line}: {said:?}");
    }
}

#[test]
fn a_terminal_shows_the_progress_and_an_interrupt_ends_it_in_good_order() {
    let member = Member::start();
    for plain in [false, true] {
        let mut command = command(member.endpoint(), "get --duration 1h --warmup 0s --keys 100 --clients 2");
        if plain {
            command.env("NO_COLOR", "1");
        }
        let mut terminal = Terminal::open(&mut command);
        if !plain {
            terminal.wait_for("\u{1b}[1m");
        }
        terminal.wait_for("get");
        terminal.wait_for("/s  p50 ");
        terminal.wait_for(" ms  0 errors  3");
        terminal.signal(Signal::INT);
        terminal.wait_for("get, linearizable");
        terminal.wait_for("interrupted after ");
        assert_eq!(terminal.ends(), Some(1));
        member.says(&["get", "--prefix", "bench/", "--count-only"], "0\n");
    }
}
