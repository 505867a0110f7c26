//! Records a run: the role of each replica over time, each message and its fate, the clients' requests and answers. The
//! recorder only reads.

use std::collections::{BTreeMap, VecDeque};

use bowline_node::{NodeMessage, Response};
use bowline_raft::{AppendOutcome, Body, NodeId, RoleExplanation};

use crate::cluster::Summary;
use crate::cluster::clients::OperationSeen;
use crate::cluster::clock::Moment;
use crate::cluster::host::Host;
use crate::cluster::network::{Fate, Network};
use crate::cluster::trace::{Line, describe, describe_response};

/// A recording keeps this many of the latest messages, and as many heartbeats.
pub(super) const MOST_MESSAGES: usize = 3_000;
/// Maximum number of changes of replicas, and of notes, that it keeps.
const MOST_SEEN: usize = 20_000;
/// Maximum number of lines of the trace that it keeps.
pub(super) const MOST_LINES: usize = 60;
/// Maximum length of a text, in characters.
const LONGEST_TEXT: usize = 300;

/// The role of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    #[default]
    Down,
    Outsider,
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Down => "down",
            Role::Outsider => "no voter",
            Role::Follower => "follower",
            Role::PreCandidate => "pre-candidate",
            Role::Candidate => "candidate",
            Role::Leader => "leader",
        }
    }
}

/// The state of a replica, as the page shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) role: Role,
    pub(super) term: u64,
    pub(super) voted_for: Option<u64>,
    pub(super) commit: u64,
    /// Index and term of its last entry.
    pub(super) last: (u64, u64),
    pub(super) lease: bool,
    pub(super) paused: bool,
    pub(super) run: u32,
    /// Replicas that its messages don't reach, and those whose messages don't reach it, one bit each.
    pub(super) cut_to: u32,
    pub(super) cut_from: u32,
    pub(super) cut_from_clients: bool,
    /// How much its clock gains on true time, in parts per million.
    pub(super) gains_ppm: i64,
    /// The number of its membership among the recording's groups.
    pub(super) group: usize,
}

/// A change of a replica's state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) at: Moment,
    pub(super) host: usize,
    pub(super) seen: Seen,
}

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    PreVote,
    Vote,
    Append,
    Ack,
    /// A message without entries, or an answer that says nothing new.
    Heartbeat,
    Snapshot,
    Other,
    /// Between a client and a replica.
    Client,
}

impl Kind {
    pub(super) const ALL: [(Kind, &'static str); 8] = [
        (Kind::PreVote, "pre-votes"),
        (Kind::Vote, "votes"),
        (Kind::Append, "entries"),
        (Kind::Ack, "acknowledgements"),
        (Kind::Heartbeat, "heartbeats"),
        (Kind::Snapshot, "snapshots"),
        (Kind::Other, "reads and transfers"),
        (Kind::Client, "clients"),
    ];
}

/// How a copy of a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Usual,
    /// In the slow tail, or overtaken by a later one.
    Late,
    /// A second copy, or a replay much later.
    Again,
    /// Mangled so that it makes no sense.
    Mangled,
}

/// A message that was sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) at: Moment,
    pub(super) from: End,
    pub(super) to: End,
    pub(super) kind: Kind,
    pub(super) term: u64,
    pub(super) text: String,
    /// A vote that is granted.
    pub(super) grants: bool,
    /// The first and the last index that it carries, or the index that it acknowledges.
    pub(super) carries: Option<(u64, u64)>,
    /// It was lost because of a cut.
    pub(super) cut: bool,
    /// When its copies arrive; empty if it is lost.
    pub(super) arrives: Vec<(Moment, Way)>,
}

/// Where a message comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    Replica(usize),
    Client(usize),
}

/// Records a run, event by event.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    hosts: Vec<Seen>,
    /// The replicas' states before the first change that is kept.
    base: Vec<Seen>,
    changes: VecDeque<Change>,
    messages: VecDeque<Sent>,
    heartbeats: VecDeque<Sent>,
    dealings: VecDeque<Sent>,
    notes: VecDeque<Line>,
    lines: VecDeque<Line>,
    /// By sender and receiver: the highest acknowledgement, as term and index, to tell which ones are new.
    acknowledged: BTreeMap<(usize, usize), (u64, u64)>,
    /// All memberships that were ever in force anywhere, as text.
    groups: Vec<String>,
    /// By receiver and sender: the last answer, to tell which ones are new.
    answers: BTreeMap<(Option<usize>, String), String>,
    /// Everything from this moment on is kept.
    since: Moment,
    heartbeats_since: Moment,
}

/// A recorded run.
#[derive(Debug)]
pub struct Recording {
    /// The result of the run.
    pub outcome: Summary,
    pub(super) header: String,
    pub(super) seed: u64,
    /// From this moment on everything is shown.
    pub(super) since: Moment,
    pub(super) heartbeats_since: Moment,
    pub(super) groups: Vec<String>,
    pub(super) base: Vec<Seen>,
    pub(super) changes: Vec<Change>,
    pub(super) messages: Vec<Sent>,
    pub(super) operations: Vec<OperationSeen>,
    pub(super) notes: Vec<Line>,
    pub(super) lines: Vec<Line>,
}

fn push<T>(queue: &mut VecDeque<T>, item: T, most: usize) -> Option<T> {
    let oldest = if queue.len() == most { queue.pop_front() } else { None };
    queue.push_back(item);
    oldest
}

/// Cuts a long text, and marks the cut.
fn cut_short(text: String) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

impl Recorder {
    /// Records the changes of every replica after an event.
    pub(crate) fn look(&mut self, now: Moment, hosts: &[Host], network: &Network) {
        for (host, it) in hosts.iter().enumerate() {
            let seen = Seen { group: self.group_of(it), ..seen(now, it, network) };
            if host == self.hosts.len() {
                self.hosts.push(Seen::default());
                self.base.push(Seen::default());
            }
            if self.hosts[host] != seen {
                self.hosts[host] = seen;
                let change = Change { at: now, host, seen };
                if let Some(oldest) = push(&mut self.changes, change, MOST_SEEN) {
                    self.base[oldest.host] = oldest.seen;
                    self.since = self.since.max(oldest.at + 1);
                }
            }
        }
    }

    /// The number of a replica's membership.
    fn group_of(&mut self, it: &Host) -> usize {
        let membership = it.node.as_ref().map(|node| node.raft().membership().to_string());
        let membership = membership.unwrap_or_default();
        let known = self.groups.iter().position(|group| *group == membership);
        known.unwrap_or_else(|| {
            self.groups.push(membership);
            self.groups.len() - 1
        })
    }

    /// A message leaves a replica.
    pub(crate) fn sent(&mut self, now: Moment, from: usize, to: usize, message: &NodeMessage, fate: &Fate) {
        let usual = if fate.slow || fate.overtaken { Way::Late } else { Way::Usual };
        let mut arrives = Vec::new();
        if !fate.lost {
            arrives.push((fate.at, usual));
            let mangled = fate.mangled.then_some((fate.at, Way::Mangled));
            let again = [fate.copy, fate.replay].into_iter().flatten().map(|at| (at, Way::Again));
            arrives.extend(mangled.into_iter().chain(again));
        }
        let (kind, grants, carries) = self.meaning(from, to, message);
        let term = match message {
            NodeMessage::Raft(message) => message.term.0,
            NodeMessage::Chunk(chunk) => chunk.term.0,
            NodeMessage::ChunkReply(reply) => reply.term.0,
        };
        let sent = Sent {
            at: now,
            from: End::Replica(from),
            to: End::Replica(to),
            kind,
            term,
            text: cut_short(describe(message)),
            grants,
            carries,
            cut: fate.cut,
            arrives,
        };
        if kind == Kind::Heartbeat {
            if let Some(oldest) = push(&mut self.heartbeats, sent, MOST_MESSAGES) {
                self.heartbeats_since = oldest.at + 1;
            }
        } else if let Some(oldest) = push(&mut self.messages, sent, MOST_MESSAGES) {
            self.since = self.since.max(oldest.at + 1);
        }
    }

    /// Returns the message's kind, whether it grants a vote, and the entries it is about.
    fn meaning(&mut self, from: usize, to: usize, message: &NodeMessage) -> (Kind, bool, Option<(u64, u64)>) {
        let NodeMessage::Raft(message) = message else { return (Kind::Snapshot, false, None) };
        match &message.body {
            Body::PreVote { .. } => (Kind::PreVote, false, None),
            Body::PreVoteReply { granted } => (Kind::PreVote, *granted, None),
            Body::RequestVote { .. } => (Kind::Vote, false, None),
            Body::RequestVoteReply { granted } => (Kind::Vote, *granted, None),
            Body::AppendEntries(append) => match (append.entries.first(), append.entries.last()) {
                (Some(first), Some(last)) => (Kind::Append, false, Some((first.index.0, last.index.0))),
                _ => (Kind::Heartbeat, false, None),
            },
            Body::AppendEntriesReply(reply) => match reply.outcome {
                AppendOutcome::Accepted { match_index } => {
                    let acknowledged = (message.term.0, match_index.0);
                    let highest = self.acknowledged.entry((from, to)).or_default();
                    let kind = if acknowledged > *highest { Kind::Ack } else { Kind::Heartbeat };
                    *highest = acknowledged.max(*highest);
                    (kind, false, Some((match_index.0, match_index.0)))
                }
                AppendOutcome::Rejected { .. } | AppendOutcome::Damaged { .. } => (Kind::Ack, false, None),
            },
            Body::InstallSnapshot(_) => (Kind::Snapshot, false, None),
            Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. }
            | Body::Returned { .. }
            | Body::Remembered { .. } => (Kind::Other, false, None),
        }
    }

    /// A client's request leaves for a replica.
    pub(crate) fn asked(&mut self, now: Moment, client: usize, host: usize, op: u64, arrives: Option<Moment>) {
        let ends = (End::Client(client), End::Replica(host));
        self.dealing(now, ends, format!("operation {op}: request"), arrives);
    }

    /// A replica's reply leaves for a client.
    pub(crate) fn replied(
        &mut self,
        now: Moment,
        (client, host, op): (usize, usize, u64),
        response: &Response,
        arrives: Option<Moment>,
    ) {
        let ends = (End::Replica(host), End::Client(client));
        self.dealing(now, ends, format!("operation {op}: {}", describe_response(response)), arrives);
    }

    fn dealing(&mut self, at: Moment, (from, to): (End, End), text: String, arrives: Option<Moment>) {
        let sent = Sent {
            at,
            from,
            to,
            kind: Kind::Client,
            term: 0,
            text: cut_short(text),
            grants: false,
            carries: None,
            cut: false,
            arrives: arrives.map(|at| (at, Way::Usual)).into_iter().collect(),
        };
        let _ = push(&mut self.dealings, sent, MOST_MESSAGES);
    }

    /// A line of the trace.
    pub(crate) fn note(&mut self, at: Moment, host: Option<usize>, text: String) {
        let id = host.map(|host| NodeId(host as u64 + 1));
        let line = Line { at, id, text: cut_short(text) };
        // Lines about what is drawn anyway need no note.
        let drawn = ["<- ", "-x ", "is asked for operation", "replies to operation", "client"];
        if !drawn.iter().any(|start| line.text.starts_with(start)) {
            let _ = push(&mut self.notes, line.clone(), MOST_SEEN);
        }
        if !self.is_idle(host, &line.text) {
            let _ = push(&mut self.lines, line, MOST_LINES);
        }
    }

    /// Whether a line is only about a heartbeat, or an answer without news.
    fn is_idle(&mut self, host: Option<usize>, text: &str) -> bool {
        let mut words = text.splitn(3, ' ');
        let (Some(way @ ("<-" | "-x")), Some(other), Some(said)) = (words.next(), words.next(), words.next()) else {
            return false;
        };
        if said.contains(" AppendEntriesReply match=") {
            let before = self.answers.insert((host, format!("{way}{other}")), said.to_owned());
            return before.as_deref() == Some(said);
        }
        said.contains(" AppendEntries ") && !said.contains(" entr")
    }

    /// Ends the recording, and cuts it to a window in which nothing is missing.
    pub(crate) fn finish(
        self,
        header: String,
        seed: u64,
        operations: Vec<OperationSeen>,
        outcome: Summary,
    ) -> Recording {
        let since = self.since;
        let mut base = self.base;
        for change in self.changes.iter().filter(|change| change.at < since) {
            base[change.host] = change.seen;
        }
        let mut messages: Vec<Sent> = self
            .messages
            .into_iter()
            .chain(self.heartbeats)
            .chain(self.dealings)
            .filter(|sent| sent.at >= since)
            .collect();
        messages.sort_by_key(|sent| sent.at);
        Recording {
            outcome,
            header,
            seed,
            since,
            heartbeats_since: self.heartbeats_since.max(since),
            groups: self.groups,
            base,
            changes: self.changes.into_iter().filter(|change| change.at >= since).collect(),
            messages,
            operations: operations.into_iter().filter(|op| op.ended.is_none_or(|at| at >= since)).collect(),
            notes: self.notes.into_iter().filter(|line| line.at >= since).collect(),
            lines: self.lines.into(),
        }
    }
}

fn seen(now: Moment, it: &Host, network: &Network) -> Seen {
    let host = it.at();
    let bits = |cut: &dyn Fn(usize) -> bool| (0..network.size()).filter(|other| cut(*other)).map(|at| 1 << at).sum();
    let mut seen = Seen {
        paused: it.paused,
        run: it.run,
        cut_to: bits(&|other| network.is_cut(host, other)),
        cut_from: bits(&|other| network.is_cut(other, host)),
        gains_ppm: it.clock.gains_ppm(),
        cut_from_clients: network.is_cut_from_clients(host),
        ..Seen::default()
    };
    let Some(node) = &it.node else { return seen };
    let raft = node.raft();
    let explained = raft.explain();
    seen.role = match explained.role {
        RoleExplanation::Following { .. } | RoleExplanation::Waiting { .. } => Role::Follower,
        RoleExplanation::NotAVoter | RoleExplanation::Suspect { .. } | RoleExplanation::Returning { .. } => {
            Role::Outsider
        }
        RoleExplanation::Standing { pre_vote: true, .. } => Role::PreCandidate,
        RoleExplanation::Standing { pre_vote: false, .. } => Role::Candidate,
        RoleExplanation::Leading { .. } => Role::Leader,
    };
    seen.term = raft.term().0;
    seen.voted_for = raft.voted_for().map(|id| id.0);
    seen.commit = raft.commit_index().0;
    seen.last = (raft.log().last().index.0, raft.log().last().term.0);
    seen.lease = raft.holds_lease(it.clock.shows(now));
    seen
}

impl Recording {
    /// The state of a replica at a moment within the window.
    pub(super) fn seen_at(&self, host: usize, at: Moment) -> Seen {
        let before = self.changes.iter().take_while(|change| change.at <= at);
        before.filter(|change| change.host == host).last().map_or(self.base[host], |change| change.seen)
    }

    /// The end of the picture: the moment of the violation, or the end of the run.
    pub(super) fn until(&self) -> Moment {
        self.outcome.violation.as_ref().map_or(self.outcome.simulated, |violation| violation.at)
    }
}
