use bowline_lan::message::Content;

use super::*;
use crate::emulation::{Emulation, ExtraFaults};
use crate::fakes::{id, perfect, run, run_with, scenario};
use crate::scenario::Scenario;

fn eventful() -> Report {
    let fields = r#"{"mix":0.5,"events":[{"type":"part_hard","time":2},
        {"type":"kill_non_leader","time":4},{"type":"part_end","time":6}],
        "tests":{"benchmarks":{"total_msgs":[300,500,600],"failures":[0,1,2]}}}"#;
    let mut inner = perfect();
    let mut count = 0;
    let emulation = Emulation::new(scenario(fields), 3, ExtraFaults::default());
    let record = run(emulation, &mut |seen| {
        count += u32::from(seen.is_request());
        let (mid, error) = (seen.mid(), Some("<b>busy</b>".to_owned()));
        match count % 10 {
            4 if seen.is_request() => vec![seen.reply(0, Content::Fail { mid, error })],
            5 if seen.is_request() => Vec::new(),
            _ => inner(seen),
        }
    });
    let mut report = Report::new(record, &Linearizability::Linearizable);
    report.program = Some("./a \"b\" <script>alert(1)</script>".to_owned());
    report.socket = Some("UDP".to_owned());
    report.floor = Some(Floor { median: Duration::from_micros(43), samples: 1_000 });
    report
}

#[test]
fn numbers_are_grouped() {
    for (number, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
        assert_eq!(grouped(number), expected);
    }
}

#[test]
fn the_text_tells_what_matters_and_colour_is_only_paint() {
    let report = eventful();
    let text = report.text(false);
    assert!(text.starts_with("test  PASSED\n"), "{text}");
    for part in [
        "seed 3",
        "socket UDP",
        "ok   linearizable",
        "top < 300, full < 500, partial < 600",
        "a put without any work takes 0.043 ms on this machine (1,000 samples)",
        "part_hard: ",
        "is killed",
        "\"append\"",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    assert!(!text.contains('\x1b'));
    let mut coloured = report.text(true);
    assert!(coloured.contains("\x1b[1;32mPASSED\x1b[0m"));
    for code in ["0", "1", "2", "31", "32", "33", "1;31", "1;32"] {
        coloured = coloured.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(coloured, text);
}

#[test]
fn the_json_holds_the_numbers() {
    let report = eventful();
    let json = report.json();
    assert_eq!(json["passed"], true);
    assert_eq!(json["seed"], 3);
    assert_eq!(json["scenario"]["name"], "test");
    assert_eq!(json["scenario"]["lifetime"], 10.0);
    assert_eq!(json["end"], "completed");
    assert_eq!(json["floor"]["median"], 0.000_043);
    assert_eq!(json["statistics"]["fails"], report.statistics.fails);
    assert_eq!(json["verdicts"][1]["check"], "linearizable");
    assert_eq!(json["verdicts"][1]["status"], "passed");
    assert_eq!(json["benchmarks"][0]["thresholds"], json!([300.0, 500.0, 600.0]));
    assert_eq!(json["benchmarks"][0]["tier"], "top");
    let kinds: Vec<&Value> = (json["timeline"].as_array().unwrap().iter()).map(|moment| &moment["what"]).collect();
    for kind in ["first_leader", "cut", "killed", "healed", "ended"] {
        assert!(kinds.contains(&&json!(kind)), "{kind} is not in {kinds:?}");
    }
    assert!(json["timeline"][0]["at"].is_f64());
}

#[test]
fn the_page_is_whole_and_lets_no_stranger_write_markup() {
    let report = eventful();
    let page = report.html();
    assert!(page.starts_with("<!DOCTYPE html>"));
    assert!(!page.contains("<script") && !page.contains("<b>busy"));
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(page.contains("fail, &lt;b&gt;busy&lt;/b&gt;"));
    // Nothing is loaded from anywhere.
    for word in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!page.contains(word), "{word}");
    }
    for tag in ["svg", "section", "table", "tr", "title", "g", "div", "rect", "circle"] {
        let opened = page.matches(&format!("<{tag} ")).count() + page.matches(&format!("<{tag}>")).count();
        let empty = page
            .split(&format!("<{tag} "))
            .skip(1)
            .filter(|rest| rest[..rest.find('>').unwrap()].ends_with('/'))
            .count();
        let closed = page.matches(&format!("</{tag}>")).count();
        assert_eq!(opened, closed + empty, "{tag}");
    }
    let answers = report.statistics.latency.unwrap().samples;
    let points = page.matches("r=\"2.6\"").count();
    assert_eq!(points, answers);
    let unanswered = page.matches("<path class=\"never\"").count();
    assert_eq!(unanswered as u64, report.statistics.unanswered + 1, "one is in the legend");
    assert_eq!(page.matches("class=\"minority\"").count(), 2);
    assert!(page.contains("NaN") as u8 + page.contains("inf\"") as u8 == 0);
}

#[test]
fn a_run_without_any_answer_can_be_reported() {
    let emulation = Emulation::new(scenario("{}"), 3, ExtraFaults::default());
    let record = run_with(emulation, &mut |_| Vec::new(), &mut |now, emulation, out| {
        for replica in 0..5 {
            emulation.replica_died(now, replica, "bad\n\u{1b}[31m".to_owned(), out);
        }
    });
    let report = Report::new(record, &Linearizability::Linearizable);
    assert!(!report.judgement.passed);
    assert!(report.text(true).contains("FAILED"));
    assert!(!report.text(false).contains('\x1b'));
    assert!(!report.html().contains('\x1b'));
    assert_eq!(report.json()["end"], "no_replica_left");
}

#[test]
fn the_proof_of_a_violation_is_shown_in_full() {
    let explanation = "key <A>: no order\n  put 1\n  get <i>".to_owned();
    let word = Linearizability::Violated { explanation };
    let report = Report::new(eventful().record, &word);
    let text = report.text(false);
    assert!(text.contains("FAIL linearizable      key <A>: no order\n"), "{text}");
    assert!(text.contains("  put 1\n") && text.contains("  get <i>\n"), "{text}");
    let page = report.html();
    assert!(page.contains("<pre>put 1<br>get &lt;i&gt;<br></pre>"));
    assert_eq!(report.json()["linearizability"]["is"], "violated");
}

#[test]
fn the_table_has_a_line_for_each_run_and_a_sum() {
    let good = eventful();
    let silent = Scenario::from_json("long-name-1", br#"{"lifetime":5,"replicas":3,"requests":9}"#);
    let emulation = Emulation::new(silent.unwrap(), 1, ExtraFaults::default());
    let record = run(emulation, &mut |_| Vec::new());
    let bad = Report::new(record, &Linearizability::Linearizable);
    let lines = [Line::of(&good), Line::of(&bad)];
    let text = table_text(&lines, false);
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!(rows.len(), 5, "{text}");
    assert!(rows[0].starts_with("scenario    result"));
    assert!(rows[1].starts_with("test        PASSED"));
    assert!(rows[2].starts_with("long-name-1 FAILED          0/9"), "{text}");
    assert_eq!(rows[3].trim_start(), "puts answered: 0 of 9 puts answered; at least half is needed");
    assert_eq!(rows[4], "1 of 2 passed");
    let column = rows[0].find("median latency").unwrap();
    assert_eq!(rows[1][column..].split_whitespace().next(), Some("1.00"));
    let json = table_json(&lines);
    assert_eq!((&json["runs"], &json["passed"]), (&json!(2), &json!(1)));
    assert_eq!(json["lines"][0]["benchmarks"][0]["tier"], "top");
    assert_eq!(json["lines"][1]["benchmarks"][3]["value"], Value::Null);
    assert_eq!(id(0).as_str(), "0000");
}
