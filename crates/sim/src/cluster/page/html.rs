//! The page: the verdict, the events that led to it, the picture, and the last events as text. It needs no network.

use bowline_page::{badge, document, lines};
use maud::{Markup, PreEscaped, display, html};

use crate::cluster::clock::Moment;
use crate::cluster::oracle::Violation;
use crate::cluster::page::evidence::{Clue, Named, clues};
use crate::cluster::page::picture;
use crate::cluster::page::recording::{Kind, MOST_LINES, MOST_MESSAGES, Recording};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Pre-votes are hidden at first if there are more than this.
const MANY_PRE_VOTES: usize = 40;

fn seconds(at: Moment) -> String {
    format!("{:.6} s", at as f64 / 1e9)
}

pub(super) fn page(recording: &Recording, command: &str) -> String {
    let violation = recording.outcome.violation.as_ref();
    let named = violation.map_or_else(Named::default, |violation| Named::of(violation, recording));
    let result = violation.map_or("nothing violated", |violation| violation.rule.title());
    let content = html! {
        (head(recording, violation, command, &named))
        @if let Some(violation) = violation { (causes(violation, &clues(violation, &named, recording))) }
        (drawing(recording))
        (events(recording))
    };
    let scripts = html! {
        script type="application/json" id="data" { (PreEscaped(picture::data(recording, &named))) }
        script { (PreEscaped(SCRIPT)) }
    };
    document(&format!("seed {}: {result}", recording.seed), STYLE, &content, &scripts)
}

fn head(recording: &Recording, violation: Option<&Violation>, command: &str, named: &Named) -> Markup {
    let who: Vec<String> = named.hosts.iter().map(|host| format!("n{}", host + 1)).collect();
    html! {
        @if let Some(violation) = violation {
            @let (first, proof) = violation.what.split_once('\n').unwrap_or((&violation.what, ""));
            header { (badge("failed", "violated")) h1 { (capital(violation.rule.title())) } }
            p id="verdict" { (first.trim_end_matches([':', '.'])) "." }
            @if !proof.is_empty() { pre class="proof" { (lines(proof.lines().map(str::trim))) } }
        } @else {
            header { (badge("passed", "passed")) h1 { "Nothing was violated" } }
            p id="verdict" {
                "Every step was checked, and the clients’ history is linearizable."
            }
        }
        dl {
            @if let Some(violation) = violation {
                dt { "when" } dd { (seconds(violation.at)) " after the start" }
                @if !who.is_empty() { dt { "replicas" } dd { (who.join(", ")) } }
            }
            dt { "replay" } dd { code id="command" { (command) } " " button id="copy" type="button" { "copy" } }
        }
        details { summary { "The cluster" } pre { (lines(recording.header.lines())) } }
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn causes(violation: &Violation, clues: &[Clue]) -> Markup {
    html! {
        section {
            h2 { "How it came about" }
            ol id="clues" {
                @for Clue { at, host, text, .. } in clues {
                    li { button type="button" data-at=(at) data-host=[host] { time { (seconds(*at)) } " " (text) } }
                }
                li class="end" {
                    button type="button" data-at=(violation.at) {
                        time { (seconds(violation.at)) }
                        " VIOLATED: " (violation.what.lines().next().unwrap_or_default())
                    }
                }
            }
            p class="caption" {
                "Selected from all events: those about the replicas, terms, entries and operations that the verdict \
                 names. Click an event to see it in the picture."
            }
        }
    }
}

fn drawing(recording: &Recording) -> Markup {
    html! {
        section {
            h2 { "Messages between replicas and clients" }
            @if recording.since > 0 {
                p class="caption" {
                    "Shown from " (seconds(recording.since)) " on: the latest " (MOST_MESSAGES) " messages."
                }
            }
            @if recording.heartbeats_since > recording.since {
                p class="caption" { "Heartbeats are shown from " (seconds(recording.heartbeats_since)) " on." }
            }
            (tools(recording))
            svg id="overview" role="img" aria-label="the whole run; drag to move" {}
            svg id="picture" role="img" tabindex="0" aria-label="space-time picture" {}
            p id="detail" { "Hover or tap for details. Drag to move, Ctrl and wheel or + and − to zoom." }
            noscript { p { "The picture needs JavaScript; the text around it doesn’t." } }
            (legend())
        }
    }
}

fn tools(recording: &Recording) -> Markup {
    // Replicas that are cut off ask again and again; so many messages would hide the rest.
    let count = |kind: Kind| recording.messages.iter().filter(|sent| sent.kind == kind).count();
    let many = count(Kind::PreVote) > MANY_PRE_VOTES;
    html! {
        div class="tools" {
            span class="group" {
                button type="button" id="in" title="zoom in (+)" { "+" }
                button type="button" id="out" title="zoom out (-)" { "−" }
                button type="button" id="all" { "all" }
                button type="button" id="end" { "the end" }
            }
            label { input type="checkbox" id="squeezed" checked; " squeeze quiet time" }
            span class="group" id="filters" {
                @for (kind, name) in Kind::ALL {
                    @let shown = kind != Kind::Heartbeat && !(kind == Kind::PreVote && many);
                    @let number = kind as u8;
                    label {
                        input type="checkbox" data-kind=(number) checked[shown];
                        i class={ "k" (number) } {}
                        (name)
                    }
                }
            }
        }
    }
}

fn legend() -> Markup {
    let roles = [
        ("r5", "leader"),
        ("r4", "candidate"),
        ("r3", "pre-candidate"),
        ("r2", "follower"),
        ("r1", "no voter"),
        ("r0", "down"),
    ];
    let lines = [
        ("arrives", "M1 6H17", None),
        ("lost, cut, or receiver down", "M1 6H11M9 2l8 8m0 -8l-8 8", None),
        ("late or overtaken", "M1 6H19", Some("late")),
        ("a second copy", "M1 6H19", Some("again")),
        ("mangled", "M1 6H19", Some("mangled")),
    ];
    let states = [
        ("cut", "cut off (darker: from more)"),
        ("paused", "paused"),
        ("lease", "holds a lease"),
        ("done", "operation done"),
        ("unknown", "outcome unknown"),
        ("denied", "refused"),
        ("open", "open"),
        ("guilty", "part of the violation"),
    ];
    let words = [("t3", "term"), ("c12", "commit index"), ("→n2", "votes for n2")];
    let bar = |(class, name): (&str, &str)| html! { span { i class={ "bar " (class) } {} (name) } };
    html! {
        p class="legend" {
            @for role in roles { (bar(role)) }
            @for (name, path, class) in lines {
                span { svg viewBox="0 0 20 12" { path class=[class] d=(path) {} } (name) }
            }
            @for state in states { (bar(state)) }
            @for (word, meaning) in words { span { b { (word) } " " (meaning) } }
        }
    }
}

fn events(recording: &Recording) -> Markup {
    html! {
        section {
            h2 { "The last " (recording.lines.len().min(MOST_LINES)) " events, without idle heartbeats" }
            pre id="events" {
                (lines(recording.lines.iter().map(display)))
                @if let Some(violation) = &recording.outcome.violation {
                    b { (format_args!("VIOLATED: {violation}")) }
                }
            }
        }
    }
}
