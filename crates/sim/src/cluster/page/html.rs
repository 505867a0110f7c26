//! The page: the verdict in a sentence, how it came about, the picture, and the last events as text. All
//! strings are escaped; there is nothing in it that a network would be needed for.

use std::fmt::Write;

use crate::cluster::clock::Moment;
use crate::cluster::oracle::Violation;
use crate::cluster::page::evidence::{Clue, Named, clues};
use crate::cluster::page::picture;
use crate::cluster::page::recording::{Kind, MOST_LINES, MOST_MESSAGES, Recording};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// More pre-votes than these are hidden at first.
const MANY_PRE_VOTES: usize = 40;

/// Writing into a `String` cannot fail.
macro_rules! put {
    ($page:expr, $($what:tt)*) => {
        let _ = write!($page, $($what)*);
    };
}

/// Text with the characters escaped that mean something in HTML; control characters, which no page may
/// hold, become the replacement character.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(' '),
            control if control.is_control() => escaped.push('\u{FFFD}'),
            usual => escaped.push(usual),
        }
    }
    escaped
}

fn seconds(at: Moment) -> String {
    format!("{:.6} s", at as f64 / 1e9)
}

pub(super) fn page(recording: &Recording, command: &str) -> String {
    let violation = recording.outcome.violation.as_ref();
    let named = violation.map_or_else(Named::default, |violation| Named::of(violation, recording));
    let mut page = String::new();
    let title = match violation {
        Some(violation) => format!("seed {}: {}", recording.seed, violation.rule.title()),
        None => format!("seed {}: nothing violated", recording.seed),
    };
    put!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}</title><style>{STYLE}</style></head><body><main>\n",
        escape(&title)
    );
    head(recording, violation, command, &named, &mut page);
    if let Some(violation) = violation {
        let clues = clues(violation, &named, recording);
        causes(violation, &clues, &mut page);
    }
    drawing(recording, &mut page);
    events(recording, &mut page);
    put!(
        page,
        "</main>\n<script type=\"application/json\" id=\"data\">{}</script>\n",
        picture::data(recording, &named)
    );
    put!(page, "<script>{SCRIPT}</script>\n</body></html>\n");
    page
}

fn head(recording: &Recording, violation: Option<&Violation>, command: &str, named: &Named, page: &mut String) {
    match violation {
        Some(violation) => {
            let mut lines = violation.what.lines();
            let first = lines.next().unwrap_or_default();
            put!(
                page,
                "<header><span class=\"badge failed\">violated</span><h1>{}</h1></header><p id=\"verdict\">{}</p>\n",
                escape(&capital(violation.rule.title())),
                escape(&sentence(first))
            );
            let rest: Vec<String> = lines.map(|line| escape(line.trim())).collect();
            if !rest.is_empty() {
                put!(page, "<pre class=\"proof\">{}</pre>\n", rest.join("\n"));
            }
        }
        None => {
            put!(
                page,
                "<header><span class=\"badge passed\">passed</span><h1>Nothing was violated</h1></header>\
                 <p id=\"verdict\">Every step was looked at, and the clients\u{2019} history has an order that explains it.</p>\n"
            );
        }
    }
    page.push_str("<dl>");
    if let Some(violation) = violation {
        put!(page, "<dt>when</dt><dd>{} after the start</dd>", seconds(violation.at));
        let who: Vec<String> = named.hosts.iter().map(|host| format!("n{}", host + 1)).collect();
        if !who.is_empty() {
            put!(page, "<dt>who</dt><dd>{}</dd>", who.join(", "));
        }
    }
    put!(
        page,
        "<dt>again</dt><dd><code id=\"command\">{}</code> <button id=\"copy\" type=\"button\">copy</button></dd>",
        escape(command)
    );
    page.push_str("</dl>\n<details><summary>The cluster</summary><pre>");
    let header: Vec<String> = recording.header.lines().map(escape).collect();
    put!(page, "{}</pre></details>\n", header.join("\n"));
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn sentence(text: &str) -> String {
    let text = text.trim_end_matches([':', '.']);
    format!("{text}.")
}

fn causes(violation: &Violation, clues: &[Clue], page: &mut String) {
    page.push_str("<section><h2>How it came about</h2><ol id=\"clues\">");
    for Clue { at, host, text, .. } in clues {
        let host = host.map_or(String::new(), |host| format!(" data-host=\"{host}\""));
        put!(
            page,
            "<li><button type=\"button\" data-at=\"{at}\"{host}><time>{}</time> {}</button></li>",
            seconds(*at),
            escape(text)
        );
    }
    put!(
        page,
        "<li class=\"end\"><button type=\"button\" data-at=\"{}\"><time>{}</time> {}</button></li></ol>\
         <p class=\"caption\">Chosen from all events: what concerns the replicas, terms, entries and operations that the \
         verdict names. Click on one to see it in the picture.</p></section>\n",
        violation.at,
        seconds(violation.at),
        escape(&format!("VIOLATED: {}", violation.what.lines().next().unwrap_or_default()))
    );
}

fn drawing(recording: &Recording, page: &mut String) {
    page.push_str("<section><h2>Who said what to whom</h2>");
    if recording.since > 0 {
        put!(
            page,
            "<p class=\"caption\">Shown from {} on: the latest {MOST_MESSAGES} messages.</p>",
            seconds(recording.since)
        );
    }
    if recording.heartbeats_since > recording.since {
        put!(page, "<p class=\"caption\">Heartbeats are shown from {} on.</p>", seconds(recording.heartbeats_since));
    }
    page.push_str(
        "<div class=\"tools\"><span class=\"group\"><button type=\"button\" id=\"in\" title=\"zoom in (+)\">+</button>\
         <button type=\"button\" id=\"out\" title=\"zoom out (-)\">\u{2212}</button>\
         <button type=\"button\" id=\"all\">all</button><button type=\"button\" id=\"end\">the end</button></span>\
         <label><input type=\"checkbox\" id=\"squeezed\" checked> squeeze quiet time</label>\
         <span class=\"group\" id=\"filters\">",
    );
    // Replicas that are cut off ask again and again: many of the same would hide the rest.
    let count = |kind: Kind| recording.messages.iter().filter(|sent| sent.kind == kind).count();
    let many = count(Kind::PreVote) > MANY_PRE_VOTES;
    for (kind, name) in Kind::ALL {
        let hidden = kind == Kind::Heartbeat || (kind == Kind::PreVote && many);
        let shown = if hidden { "" } else { " checked" };
        let number = kind as u8;
        put!(
            page,
            "<label><input type=\"checkbox\" data-kind=\"{number}\"{shown}><i class=\"k{number}\"></i>{name}</label>"
        );
    }
    page.push_str(
        "</span></div><svg id=\"overview\" role=\"img\" aria-label=\"the whole run; drag to move\"></svg>\
         <svg id=\"picture\" role=\"img\" tabindex=\"0\" aria-label=\"space-time picture\"></svg>\
         <p id=\"detail\">Hover or tap for details. Drag to move, Ctrl and wheel or + and \u{2212} to zoom.</p>\
         <noscript><p>The picture needs JavaScript; the text around it doesn\u{2019}t.</p></noscript>",
    );
    legend(page);
    page.push_str("</section>\n");
}

fn legend(page: &mut String) {
    page.push_str("<p class=\"legend\">");
    let bars = [
        ("r5", "leader"),
        ("r4", "candidate"),
        ("r3", "pre-candidate"),
        ("r2", "follower"),
        ("r1", "no voter"),
        ("r0", "down"),
    ];
    for (class, name) in bars {
        put!(page, "<span><i class=\"bar {class}\"></i>{name}</span>");
    }
    let lines = [("M1 6H17", "arrives"), ("M1 6H11M9 2l8 8m0 -8l-8 8", "lost, cut, or nobody there")];
    for (path, name) in lines {
        put!(page, "<span><svg viewBox=\"0 0 20 12\"><path d=\"{path}\"/></svg>{name}</span>");
    }
    for (class, name) in [("late", "late or overtaken"), ("again", "a second copy"), ("mangled", "mangled")] {
        put!(page, "<span><svg viewBox=\"0 0 20 12\"><path class=\"{class}\" d=\"M1 6H19\"/></svg>{name}</span>");
    }
    for (class, name) in [
        ("cut", "cut off (darker: from more)"),
        ("paused", "paused"),
        ("lease", "holds a lease"),
        ("done", "operation done"),
        ("unknown", "outcome unknown"),
        ("denied", "refused"),
        ("open", "open"),
        ("guilty", "part of the violation"),
    ] {
        put!(page, "<span><i class=\"bar {class}\"></i>{name}</span>");
    }
    page.push_str(
        "<span><b>t3</b> term</span><span><b>c12</b> commit index</span><span><b>\u{2192}n2</b> votes for n2</span></p>",
    );
}

fn events(recording: &Recording, page: &mut String) {
    put!(
        page,
        "<section><h2>The last {} events, without idle heartbeats</h2><pre id=\"events\">",
        recording.lines.len().min(MOST_LINES)
    );
    for line in &recording.lines {
        put!(page, "{}\n", escape(&line.to_string()));
    }
    if let Some(violation) = &recording.outcome.violation {
        put!(page, "<b>{}</b>\n", escape(&format!("VIOLATED: {violation}")));
    }
    page.push_str("</pre></section>\n");
}
