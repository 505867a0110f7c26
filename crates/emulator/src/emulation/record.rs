//! The record of a run, from which the judge and the report work.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bowline_lan::LanId;
use serde::Serialize;

use crate::scenario::{EventKind, Scenario};

/// Everything that happened in a run. All times count from its start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// The scenario of the run.
    pub scenario: Scenario,
    /// The seed of everything random.
    pub seed: u64,
    /// The replicas' ids; everywhere else a replica is an index into this list.
    pub replica_ids: Vec<LanId>,
    /// The clients' ids; everywhere else a client is an index into this list.
    pub client_ids: Vec<LanId>,
    /// Why the run ended; `None` if it was abandoned before its end.
    pub end: Option<End>,
    /// When the run ended; the time of the last input if it did not end.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub ended_at: Duration,
    /// Every request, in order of creation.
    pub requests: Vec<Request>,
    /// Every attempt, in order of sending; a request that is bounced has several.
    pub attempts: Vec<Attempt>,
    /// The messages between replicas.
    pub traffic: Traffic,
    /// The misbehaviour of replicas.
    pub misbehaviour: Misbehaviour,
    /// Which replicas were killed or died by themselves, and when.
    pub losses: Vec<Loss>,
    /// What happened, ordered by time; at most [`Record::MAX_NOTES`].
    pub timeline: Vec<Moment>,
    /// Each time that a replica named another leader than before; at most [`Record::MAX_BELIEFS`].
    pub beliefs: Vec<Belief>,
}

impl Record {
    /// The most notes that are kept.
    pub const MAX_NOTES: usize = 10_000;

    /// The most changes of belief that are kept.
    pub const MAX_BELIEFS: usize = 50_000;

    /// When the replica was killed or died; `None` if it lived.
    pub fn lost_at(&self, replica: usize) -> Option<Duration> {
        let loss = self.losses.iter().find(|loss| loss.replica == replica)?;
        Some(loss.at)
    }
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The time was up.
    Completed,
    /// Replicas exchanged more than `max_packets` messages.
    MessageStorm,
    /// Replicas sent more than `max_packets` useless messages.
    Flood,
    /// No replica is left, and the last one died by itself.
    NoReplicaLeft,
}

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Read a key.
    Get,
    /// Write a key.
    Put,
}

impl Operation {
    /// The `type` on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Put => "put",
        }
    }
}

/// A client's request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The client.
    pub client: usize,
    /// The kind of request.
    pub operation: Operation,
    /// The key.
    pub key: String,
    /// The value to write; `None` for a get.
    pub value: Option<String>,
    /// When it was created.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub created: Duration,
    /// How many attempts were answered with `redirect` or `fail`.
    pub bounces: u32,
    /// When it was answered with `ok`.
    #[serde(serialize_with = "crate::seconds::serialize_option")]
    pub done: Option<Duration>,
    /// For a get that is done: the value of the last put to the key that this client saw acknowledged.
    pub expected: Option<String>,
}

/// One attempt to send a request, with its own `MID`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// The `MID`.
    pub mid: String,
    /// The index of its [`Request`].
    pub request: usize,
    /// The replica that it was sent to; `None` if none was alive.
    pub to: Option<usize>,
    /// When it was sent.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub sent: Duration,
    /// The first answer, if any.
    pub answer: Option<Answer>,
}

/// The first answer to an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// When it arrived.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub at: Duration,
    /// The replica that gave it.
    pub by: usize,
    /// The leader that it names, if that is a replica.
    pub leader: Option<usize>,
    /// The content.
    pub outcome: AnswerKind,
}

/// The content of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerKind {
    /// The request was done.
    Ok {
        /// The value; `None` for a put, and for a get whose answer lacks it.
        value: Option<String>,
    },
    /// The request was not done and must have no effect.
    Redirect,
    /// It is unknown whether the request takes effect.
    Fail {
        /// The reason, if the replica gave one.
        error: Option<String>,
    },
}

/// The messages between replicas. A broadcast counts once for each other replica, dead ones included.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Traffic {
    /// All messages and their bytes.
    pub sent: Volume,
    /// Messages that the network lost by chance.
    pub lost: u64,
    /// Messages that a cut stopped.
    pub cut: u64,
    /// Messages to a dead replica.
    pub to_the_dead: u64,
    /// Messages by `type`. After [`Traffic::MAX_KINDS`] types, further ones are counted as `(other)`.
    pub by_kind: BTreeMap<String, Volume>,
    /// Messages in each second of the run.
    pub per_second: Vec<u64>,
    /// How many messages each replica sent to other replicas.
    pub by_sender: Vec<u64>,
    /// `hello` messages; they are counted nowhere else.
    pub hellos: u64,
    /// Messages that arrived from dead replicas; they are ignored.
    pub from_the_dead: u64,
}

impl Traffic {
    /// The most types that are counted by name.
    pub const MAX_KINDS: usize = 32;
}

/// A number of messages and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Volume {
    /// The number of messages.
    pub messages: u64,
    /// The sum of their bytes.
    pub bytes: u64,
}

/// Something that a replica should not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bad {
    /// Bytes that are not a message of the protocol.
    Unparsable,
    /// A message longer than the protocol allows.
    Oversized,
    /// A `src` that is not the sender's id.
    WrongSource,
    /// A `dst` that names nobody on the network.
    UnknownDestination,
    /// A message to itself.
    ToItself,
    /// A message to a client that is not a reply.
    NoReply,
    /// An answer to a `MID` that no client has used.
    UnknownMid,
    /// An answer to a client about another client's `MID`.
    WrongClient,
    /// An answer to a `MID` that was sent to another replica. It is accepted nevertheless.
    ForeignMid,
    /// A further answer to a `MID`.
    Duplicate,
    /// An `ok` to a get, without a `value`.
    MissingValue,
}

impl Bad {
    /// A short description, in the plural.
    pub fn describe(self) -> &'static str {
        match self {
            Bad::Unparsable => "unparsable messages",
            Bad::Oversized => "oversized messages",
            Bad::WrongSource => "messages with a wrong src",
            Bad::UnknownDestination => "messages to an unknown dst",
            Bad::ToItself => "messages from a replica to itself",
            Bad::NoReply => "messages to clients that are not replies",
            Bad::UnknownMid => "answers to an unknown MID",
            Bad::WrongClient => "answers sent to the wrong client",
            Bad::ForeignMid => "answers by a replica that was not asked",
            Bad::Duplicate => "duplicate answers",
            Bad::MissingValue => "gets answered without a value",
        }
    }
}

/// The misbehaviour of replicas: counts and examples.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Misbehaviour {
    /// The number of cases of each kind.
    pub counts: BTreeMap<Bad, u64>,
    /// The first cases of each kind, at most [`Misbehaviour::MAX_EXAMPLES`] of one kind.
    pub examples: Vec<Example>,
}

/// A case of misbehaviour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// When it happened.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub at: Duration,
    /// The replica.
    pub replica: usize,
    /// The kind.
    pub bad: Bad,
    /// Details, in one line.
    pub detail: String,
}

impl Misbehaviour {
    /// The most examples of one kind that are kept.
    pub const MAX_EXAMPLES: u64 = 3;

    /// The number of cases of one kind.
    pub fn count(&self, bad: Bad) -> u64 {
        self.counts.get(&bad).copied().unwrap_or(0)
    }

    /// The number of useless messages.
    pub fn useless(&self) -> u64 {
        let useful = |bad: Bad| matches!(bad, Bad::ForeignMid | Bad::MissingValue);
        self.counts.iter().filter(|(bad, _)| !useful(**bad)).map(|(_, count)| count).sum()
    }

    pub(super) fn add(&mut self, at: Duration, replica: usize, bad: Bad, detail: impl FnOnce() -> String) {
        let count = self.counts.entry(bad).or_default();
        *count += 1;
        if *count <= Self::MAX_EXAMPLES {
            self.examples.push(Example { at, replica, bad, detail: detail() });
        }
    }
}

/// The end of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// The replica.
    pub replica: usize,
    /// When it ended.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub at: Duration,
    /// The reason if it died by itself; `None` if the emulation killed it.
    pub died_by_itself: Option<String>,
}

/// The leader that a replica names, from a moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Belief {
    /// When the replica first named it.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub at: Duration,
    /// The replica.
    pub replica: usize,
    /// The leader that it names, if that is a replica.
    pub leader: Option<usize>,
}

/// A [`Note`] and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// When it happened.
    #[serde(serialize_with = "crate::seconds::serialize")]
    pub at: Duration,
    /// What happened.
    #[serde(flatten)]
    pub note: Note,
}

/// Something that happened, for the timeline and for live printing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Note {
    /// The first leader is known.
    FirstLeader {
        /// Its id.
        leader: LanId,
    },
    /// The known leader changed.
    LeaderChanged {
        /// The id of the previous leader.
        from: LanId,
        /// The id of the new leader.
        to: LanId,
    },
    /// An event cut the network in two.
    Cut {
        /// `part_easy` or `part_hard`.
        event: EventKind,
        /// The replicas on the side of the majority.
        majority: Vec<LanId>,
        /// The others.
        rest: Vec<LanId>,
    },
    /// An event ended the cut.
    Healed,
    /// One of [`super::ExtraFaults::partitions`] began.
    LinksCut {
        /// Its index.
        index: usize,
        /// How many directed links it blocks.
        links: usize,
    },
    /// One of [`super::ExtraFaults::partitions`] ended.
    LinksHealed {
        /// Its index.
        index: usize,
    },
    /// The emulation killed a replica.
    Killed {
        /// Its id.
        replica: LanId,
        /// Whether it was the known leader.
        leader: bool,
    },
    /// A replica died by itself.
    Died {
        /// Its id.
        replica: LanId,
        /// Why.
        why: String,
    },
    /// The first misbehaviour of its kind in the run.
    Misbehaved {
        /// The replica's id.
        replica: LanId,
        /// The kind.
        bad: Bad,
        /// Details, in one line.
        detail: String,
    },
    /// The run ended.
    Ended {
        /// Why.
        end: End,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::FirstLeader { leader } => write!(f, "{leader} is the first leader"),
            Note::LeaderChanged { from, to } => write!(f, "{to} replaces {from} as leader"),
            Note::Cut { event, majority, rest } => write!(f, "{}: {} | {}", event.name(), list(majority), list(rest)),
            Note::Healed => f.write_str("the network is whole again"),
            Note::LinksCut { index, links } => {
                write!(f, "fault {index} cuts {links} one-way links")
            }
            Note::LinksHealed { index } => write!(f, "fault {index} is over"),
            Note::Killed { replica, leader } => {
                let role = if *leader { ", the leader" } else { "" };
                write!(f, "{replica}{role} is killed")
            }
            Note::Died { replica, why } => write!(f, "{replica} died by itself: {why}"),
            Note::Misbehaved { replica, bad, detail } => {
                write!(f, "{replica} misbehaved, first of {}: {detail}", bad.describe())
            }
            Note::Ended { end } => f.write_str(match end {
                End::Completed => "the run is complete",
                End::MessageStorm => "the run ends: message storm",
                End::Flood => "the run ends: flood of useless messages",
                End::NoReplicaLeft => "the run ends: no replica is left",
            }),
        }
    }
}

fn list(ids: &[LanId]) -> String {
    let ids: Vec<&str> = ids.iter().map(LanId::as_str).collect();
    ids.join(" ")
}
