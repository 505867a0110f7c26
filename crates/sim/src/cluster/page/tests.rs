use super::record;
use super::recording::{MOST_MESSAGES, Recording};
use crate::cluster::{Plan, Rule, Sabotage, Violation, run};
use bowline_raft::NodeId;

const HOSTILE: &str = "</script><script>alert(1)</script><b onclick='x' \"y\">&amp; \u{7}\n";

/// The recording of a run that fails.
fn failing() -> Recording {
    let mut plans = (1..60).map(|seed| Plan { sabotage: Some(Sabotage::StaleReads), ..Plan::drawn(seed) });
    let plan = plans.find(|plan| run(plan, None).violation.is_some()).expect("one of them fails");
    record(&plan)
}

/// The page without its script, data and style.
fn markup(page: &str) -> String {
    let mut rest = page;
    let mut out = String::new();
    while let Some(start) = rest.find("<s").filter(|_| rest.contains("<script") || rest.contains("<style")) {
        let raw = ["script", "style"].iter().find(|name| rest[start + 1..].starts_with(**name));
        let Some(name) = raw else {
            out.push_str(&rest[..start + 2]);
            rest = &rest[start + 2..];
            continue;
        };
        out.push_str(&rest[..start]);
        let close = format!("</{name}>");
        let end = rest[start..].find(&close).expect("it is closed") + start + close.len();
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Panics if an element is not closed in its place.
fn assert_balanced(markup: &str) {
    let mut open: Vec<&str> = Vec::new();
    for piece in markup.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').unwrap_or_else(|| panic!("an open tag: <{piece}"));
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "</{closed}> closes another element");
        } else if !tag.ends_with('/') && !["meta", "input", "br", "!DOCTYPE"].contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

#[test]
fn the_page_of_a_failure_is_whole_and_names_what_it_is_about() {
    let recording = failing();
    let violation = recording.outcome.violation.clone().expect("it failed");
    let page = recording.page("bowline sim replay 3");
    assert_balanced(&markup(&page));
    for id in [
        "verdict", "command", "copy", "clues", "in", "out", "all", "end", "squeezed", "filters", "overview", "picture",
        "detail", "events", "data",
    ] {
        assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "the id {id}");
    }
    // Every element that the script asks for exists.
    for part in page.split("getElementById('").skip(1) {
        let id = part.split('\'').next().unwrap_or_default();
        assert!(page.contains(&format!("id=\"{id}\"")), "the script asks for {id}");
    }
    assert!(page.contains("bowline sim replay 3"));
    assert!(page.contains(&format!("{:.6} s after the start", violation.at as f64 / 1e9)));
    assert!(page.matches("<li>").count() >= 3, "it says how the violation came about");
    // The page loads nothing.
    for outside in ["src=", "@import", "url(http", "fetch("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let data = page.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next()).expect("data");
    let data: serde_json::Value = serde_json::from_str(data).expect("the data is JSON");
    assert_eq!(data["violated"], violation.at);
    assert!(data["messages"].as_array().is_some_and(|list| !list.is_empty()));
}

#[test]
fn the_same_seed_gives_the_same_page_and_the_recorder_changes_nothing() {
    let plan = Plan { safety: 5_000_000_000, ..Plan::drawn(17) };
    let (first, second) = (record(&plan), record(&plan));
    assert_eq!(first.outcome, run(&plan, None));
    assert_eq!(first.page("again"), second.page("again"));
}

#[test]
fn a_run_that_passes_has_a_page_too_of_a_bounded_size() {
    let recording = (1..20).map(|seed| record(&Plan::drawn(seed))).find(|recording| recording.since > 0);
    let recording = recording.expect("one of the seeds has more messages than are shown");
    assert_eq!(recording.outcome.violation, None);
    let (from, until) = (recording.since, recording.until());
    assert!(recording.messages.len() <= 3 * MOST_MESSAGES && recording.messages.iter().all(|sent| sent.at >= from));
    assert!(recording.changes.iter().all(|change| change.at >= from && change.at <= until));
    let page = recording.page("again");
    assert!(page.contains("Nothing was violated") && page.contains("Shown from"));
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    assert_balanced(&markup(&page));
}

#[test]
fn what_is_hostile_stays_text() {
    let mut recording = failing();
    recording.outcome.violation =
        Some(Violation { rule: Rule::Assertion, what: format!("n1 {HOSTILE}\n{HOSTILE}"), at: 1_000 });
    recording.header = HOSTILE.to_owned();
    recording.groups.iter_mut().for_each(|group| *group = HOSTILE.to_owned());
    recording.messages.iter_mut().for_each(|sent| sent.text = HOSTILE.to_owned());
    recording.operations.iter_mut().for_each(|op| (op.what, op.key) = (HOSTILE.to_owned(), HOSTILE.to_owned()));
    for line in recording.notes.iter_mut().chain(&mut recording.lines) {
        line.text = HOSTILE.to_owned();
        line.id = Some(NodeId(1));
    }
    let page = recording.page(HOSTILE);
    assert_balanced(&markup(&page));
    assert_eq!(page.matches("<script").count(), 2, "the data and the page's own");
    assert!(!page.contains("<b onclick") && !page.contains('\u{7}'));
}
