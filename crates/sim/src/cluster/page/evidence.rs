//! Selects the few events that led to the violation: those about the replicas, terms, entries and operations that it
//! names.

use std::collections::BTreeSet;

use crate::cluster::clock::Moment;
use crate::cluster::oracle::{Rule, Violation};
use crate::cluster::page::recording::{End, Kind, Recording, Role, Seen};

/// Maximum number of events shown.
const MOST_CLUES: usize = 24;
/// Maximum number of leaderships shown if no term is named.
const LEADERSHIPS: usize = 3;

/// An event that has to do with the violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clue {
    pub(super) at: Moment,
    pub(super) host: Option<usize>,
    pub(super) text: String,
    /// If there are too many clues, those with small ranks are kept.
    rank: u8,
}

/// The things that a violation names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) hosts: BTreeSet<usize>,
    terms: BTreeSet<u64>,
    entries: BTreeSet<u64>,
    pub(super) operations: BTreeSet<u64>,
}

impl Named {
    /// Parses the violation's text: `n2`, `t3`, `12@3`, `operation 17`.
    pub(super) fn of(violation: &Violation, recording: &Recording) -> Named {
        let mut named = Named::default();
        for line in violation.what.lines() {
            match operation_of(line, recording) {
                Some(operation) => {
                    named.operations.insert(operation);
                }
                None => named.read(line),
            }
        }
        named.hosts.retain(|host| *host < recording.base.len());
        named
    }

    fn read(&mut self, line: &str) {
        let words: Vec<&str> = line
            .split(|symbol: char| !(symbol.is_ascii_alphanumeric() || symbol == '@'))
            .filter(|word| !word.is_empty())
            .collect();
        for (at, word) in words.iter().enumerate() {
            let number = |prefix: char| word.strip_prefix(prefix).and_then(|rest| rest.parse::<u64>().ok());
            let before = at.checked_sub(1).map_or("", |at| words[at]);
            let after = words.get(at + 1).copied().unwrap_or("");
            if let Some(id) = number('n').filter(|id| *id > 0) {
                self.hosts.insert(id as usize - 1);
            } else if let Some(term) = number('t') {
                self.terms.insert(term);
            } else if let Some((index, _)) = word.split_once('@') {
                self.entries.extend(index.parse::<u64>().ok());
            } else if let Ok(number) = word.parse::<u64>() {
                match before {
                    "read" | "operation" => {
                        self.operations.insert(number);
                    }
                    "commits" | "acknowledges" | "after" | "index" => {
                        self.entries.insert(number);
                    }
                    _ if after == "was" => {
                        self.entries.insert(number);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// The operation in a line of a proof that a history isn't linearizable.
fn operation_of(line: &str, recording: &Recording) -> Option<u64> {
    let (call, rest) = line.trim().split_once(" ns to ")?;
    let call: u64 = call.parse().ok()?;
    let (_, rest) = rest.split_once("client ")?;
    let client: usize = rest.split(' ').next()?.parse().ok()?;
    recording.operations.iter().find(|op| op.client == client && op.call == call).map(|op| op.number)
}

/// The events about what the violation names, in order.
pub(super) fn clues(violation: &Violation, named: &Named, recording: &Recording) -> Vec<Clue> {
    let mut search = Search { recording, clues: Vec::new() };
    let (terms, leaders) = search.leaderships(named);
    let mut hosts = named.hosts.clone();
    hosts.extend(leaders);
    hosts.extend(search.votes(&terms));
    search.lives(&hosts, &named.hosts);
    if matches!(violation.rule, Rule::OneLease | Rule::ReadsSeeWhatWasCommitted | Rule::Linearizable) {
        search.leases(&hosts, violation.at);
    }
    search.entries(&named.entries);
    search.operations(&named.operations);
    let mut clues = search.clues;
    clues.retain(|clue| clue.at <= violation.at);
    clues.sort_by_key(|clue| (clue.rank, std::cmp::Reverse(clue.at)));
    clues.truncate(MOST_CLUES);
    clues.sort_by_key(|clue| clue.at);
    clues.dedup_by(|one, other| one.text == other.text && one.at == other.at);
    clues
}

struct Search<'a> {
    recording: &'a Recording,
    clues: Vec<Clue>,
}

impl Search<'_> {
    fn note(&mut self, rank: u8, at: Moment, host: Option<usize>, text: String) {
        self.clues.push(Clue { at, host, text, rank });
    }

    /// Each change of a replica, with its state before and after.
    fn changes(&self) -> Vec<(Moment, usize, Seen, Seen)> {
        let mut now = self.recording.base.clone();
        let changes = self.recording.changes.iter();
        changes
            .map(|change| (change.at, change.host, std::mem::replace(&mut now[change.host], change.seen), change.seen))
            .collect()
    }

    /// Who led in the named terms, or else in the latest ones.
    fn leaderships(&mut self, named: &Named) -> (BTreeSet<u64>, BTreeSet<usize>) {
        let leads = |seen: &Seen| seen.role == Role::Leader;
        let mut began: Vec<(Moment, usize, u64)> = self
            .changes()
            .into_iter()
            .filter(|(_, _, before, after)| leads(after) && (!leads(before) || before.term != after.term))
            .map(|(at, host, _, after)| (at, host, after.term))
            .collect();
        match named.terms.is_empty() {
            true => began = began.split_off(began.len().saturating_sub(LEADERSHIPS)),
            false => began.retain(|(_, _, term)| named.terms.contains(term)),
        }
        let mut terms = named.terms.clone();
        terms.extend(began.iter().map(|(_, _, term)| *term));
        for (at, host, term) in &began {
            let group = &self.recording.groups[self.recording.seen_at(*host, *at).group];
            let text = format!("n{} becomes the leader of t{term}, with the membership {group}", host + 1);
            self.note(0, *at, Some(*host), text);
        }
        (terms, began.into_iter().map(|(_, host, _)| host).collect())
    }

    /// Who voted for whom in these terms. Returns the voters.
    fn votes(&mut self, terms: &BTreeSet<u64>) -> BTreeSet<usize> {
        let mut voters = BTreeSet::new();
        for sent in &self.recording.messages {
            let (End::Replica(from), End::Replica(to)) = (sent.from, sent.to) else { continue };
            if sent.kind == Kind::Vote && sent.grants && terms.contains(&sent.term) {
                voters.insert(from);
                let last = |host: usize| {
                    let (index, term) = self.recording.seen_at(host, sent.at).last;
                    format!("n{}, whose log ends at {index}@{term},", host + 1)
                };
                let (voter, candidate) = (last(from), last(to));
                let text = format!("{voter} gives its vote in t{} to {}", sent.term, candidate.trim_end_matches(','));
                self.clues.push(Clue { at: sent.at, host: Some(from), text, rank: 1 });
            }
        }
        for (at, host, before, after) in self.changes() {
            if after.role == Role::Candidate && before.role != Role::Candidate && terms.contains(&after.term) {
                self.note(
                    1,
                    at,
                    Some(host),
                    format!("n{} votes for itself and stands for election in t{}", host + 1, after.term),
                );
                voters.insert(host);
            }
        }
        voters
    }

    /// What happened to replicas of interest, and to the network between them.
    fn lives(&mut self, hosts: &BTreeSet<usize>, named: &BTreeSet<usize>) {
        let telling =
            ["CRASHES", "starts in", "PAUSES", "resumes", "its DISK", "its disk", "its clock", "is told", "leads no"];
        let notes = self.recording.notes.iter().rev();
        for line in notes {
            let host = line.id.map(|id| id.0 as usize - 1);
            let of_interest = host.is_some_and(|host| hosts.contains(&host));
            let first = line.at == 0 && line.text.starts_with("starts in");
            if of_interest && !first && telling.iter().any(|start| line.text.starts_with(start)) {
                let id = line.id.map_or(String::new(), |id| id.to_string());
                let rank = if host.is_some_and(|host| named.contains(&host)) { 2 } else { 3 };
                let colon = if line.text.starts_with("its ") { ":" } else { "" };
                self.clues.push(Clue { at: line.at, host, text: format!("{id}{colon} {}", line.text), rank });
            } else if line.id.is_none()
                && ["CUT", "healed", "POWER", "made whole"].iter().any(|word| line.text.contains(word))
            {
                self.clues.push(Clue { at: line.at, host: None, text: line.text.clone(), rank: 4 });
            }
        }
    }

    /// When the replicas got and lost their latest leases.
    fn leases(&mut self, hosts: &BTreeSet<usize>, until: Moment) {
        let changes = self.changes();
        for host in hosts {
            let began = changes
                .iter()
                .rev()
                .find(|(at, whose, before, after)| whose == host && *at <= until && after.lease && !before.lease);
            let ended =
                changes.iter().rev().find(|(_, whose, before, after)| whose == host && before.lease && !after.lease);
            if let Some((at, _, _, after)) = began {
                let clock = match after.gains_ppm {
                    0 => String::new(),
                    gains if gains > 0 => format!(", by a clock that runs {gains} ppm fast"),
                    loses => format!(", by a clock that runs {} ppm slow", -loses),
                };
                self.note(
                    1,
                    *at,
                    Some(*host),
                    format!("n{} holds a lease in t{} from now on{clock}", host + 1, after.term),
                );
            }
            if let Some((at, _, before, _)) = ended {
                self.note(1, *at, Some(*host), format!("n{}'s lease in t{} is over", host + 1, before.term));
            }
        }
    }

    /// Which replicas had the named entries, and which considered them committed.
    fn entries(&mut self, entries: &BTreeSet<u64>) {
        let recording = self.recording;
        // A replica, with the entry's term if its log ends with it.
        let named = |host: usize, at: Moment, entry: u64| match recording.seen_at(host, at).last {
            (index, term) if index == entry => format!("n{}, which holds {entry}@{term},", host + 1),
            _ => format!("n{}", host + 1),
        };
        for entry in entries.iter().rev().take(4) {
            let mut told = BTreeSet::new();
            for sent in &recording.messages {
                let (End::Replica(from), End::Replica(to)) = (sent.from, sent.to) else { continue };
                let about = sent.carries.is_some_and(|(first, last)| first <= *entry && *entry <= last);
                let verb = match sent.kind {
                    Kind::Append if about => "sends",
                    Kind::Ack if about => "acknowledges",
                    _ => continue,
                };
                if told.insert((verb, from, to, sent.term)) {
                    let (who, term) = (named(from, sent.at, *entry), sent.term);
                    let text = format!("{who} {verb} entry {entry} to n{}, in t{term}", to + 1);
                    self.clues.push(Clue { at: sent.at, host: Some(from), text, rank: 2 });
                }
            }
            for (at, host, before, after) in self.changes() {
                if before.commit < *entry && after.commit >= *entry && before.role != Role::Down {
                    let (who, role) = (named(host, at, *entry), after.role.name());
                    let who = who.trim_end_matches(',');
                    let text = format!("{who}, {role} in t{}, considers {entry} committed", after.term);
                    self.note(1, at, Some(host), text);
                }
            }
        }
    }

    /// The named operations: which replicas answered what.
    fn operations(&mut self, operations: &BTreeSet<u64>) {
        let recording = self.recording;
        for op in recording.operations.iter().filter(|op| operations.contains(&op.number)) {
            let verb = if op.writes { "writes" } else { "reads" };
            let text = format!("client {} {verb} {} (operation {})", op.client, op.key, op.number);
            self.note(0, op.call, None, text);
            let start = format!("operation {}: ", op.number);
            for sent in recording.messages.iter().filter(|sent| sent.kind == Kind::Client) {
                if let (End::Replica(host), Some(said)) = (sent.from, sent.text.strip_prefix(&start)) {
                    let seen = recording.seen_at(host, sent.at);
                    let lease = if seen.lease { ", under its lease" } else { "" };
                    let role = seen.role.name();
                    let text = format!(
                        "n{}, {role} in t{} with commit {}{lease}, answers operation {}: {said}",
                        host + 1,
                        seen.term,
                        seen.commit,
                        op.number
                    );
                    self.note(0, sent.at, Some(host), text);
                }
            }
            if let (Some(at), "done") = (op.ended, op.end) {
                self.note(
                    0,
                    at,
                    None,
                    format!("client {} is told: operation {} is done, {}", op.client, op.number, op.what),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_names_replicas_terms_entries_and_operations() {
        let mut named = Named::default();
        named.read("n2 answers read 35 as of 10; 12 was committed");
        named.read("n13 leads in t7 without 9@3, committed in t5");
        assert_eq!(named.hosts, BTreeSet::from([1, 12]));
        assert_eq!(named.terms, BTreeSet::from([5, 7]));
        assert_eq!(named.entries, BTreeSet::from([9, 12]));
        assert_eq!(named.operations, BTreeSet::from([35]));
    }
}
