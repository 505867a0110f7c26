//! The events of a simulated cluster, and what each adds to the trace hash.

use bowline_member::Duty;
use bowline_node::{Failure, NodeMessage, NotDone, Response};
use bowline_raft::{AppendOutcome, Body, Entry, Token};
use bytes::Bytes;

use crate::cluster::faults::{Fault, FollowUp};
use crate::cluster::forwarding::Line;
use crate::cluster::keepers::{Ask, Said};
use crate::cluster::oracle::{digest, mix};
use crate::cluster::replica::Worker;

/// An event that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    Message {
        from: usize,
        to: usize,
        message: NodeMessage,
    },
    Wake {
        host: usize,
        run: u32,
    },
    Synced {
        host: usize,
        run: u32,
    },
    Stored {
        host: usize,
        run: u32,
    },
    /// A worker of a whole member works.
    Work {
        host: usize,
        run: u32,
        worker: Worker,
    },
    /// A member attempts again to have a client's request served by the leader.
    Attempt {
        host: usize,
        run: u32,
        token: Token,
        step: u64,
    },
    /// A forwarded request arrives.
    Forwarded {
        line: Line,
        body: Bytes,
    },
    /// The answer to a forwarded request arrives.
    ForwardAnswered {
        line: Line,
        body: Bytes,
    },
    /// The asking end of a connection notices that it is lost.
    LineLost {
        line: Line,
    },
    Start {
        host: usize,
    },
    Resume {
        host: usize,
        run: u32,
        leap: bool,
    },
    Request {
        host: usize,
        op: u64,
        attempt: u32,
    },
    Answer {
        op: u64,
        attempt: u32,
        response: Response,
    },
    GiveUp {
        op: u64,
        attempt: u32,
    },
    Try {
        op: u64,
    },
    Next {
        client: usize,
    },
    /// A keeper of a lease takes its next step.
    Keep {
        keeper: usize,
        call: u64,
    },
    KeeperAsks {
        host: usize,
        keeper: usize,
        call: u64,
        ask: Ask,
    },
    KeeperHears {
        keeper: usize,
        call: u64,
        said: Said,
    },
    MemberAsks {
        host: usize,
        call: u64,
        number: u64,
    },
    MemberHears {
        call: u64,
        number: u64,
        said: Said,
    },
    /// A request about the members is made again.
    MemberTries {
        call: u64,
    },
    /// A host looks what it has to do on its own.
    Duties {
        host: usize,
        run: u32,
    },
    /// What a host has asked another one to do was answered, or not.
    DutyEnded {
        host: usize,
        run: u32,
        duty: Duty,
        answer: Response,
    },
    Strike(Fault),
    /// A fault takes its next step, or is repaired.
    FollowUp(Box<FollowUp>),
    Operate,
}

impl Event {
    /// Whether it may happen later than planned, because nothing says how long it takes. `in_order`: whether messages
    /// of one direction keep their order.
    pub(crate) fn may_wait(&self, in_order: bool) -> bool {
        match self {
            Event::Message { .. } => !in_order,
            Event::Work { .. } | Event::Request { .. } | Event::Answer { .. } => true,
            _ => false,
        }
    }

    /// The number that goes into the trace hash.
    pub(crate) fn fingerprint(&self) -> u64 {
        let at = |kind: u64, host: usize, more: u64| mix(kind << 32 | host as u64, more);
        match self {
            Event::Message { from, to, message } => mix(at(1, *from, *to as u64), message_fingerprint(message)),
            Event::Wake { host, run } => at(2, *host, u64::from(*run)),
            Event::Synced { host, run } => at(3, *host, u64::from(*run)),
            Event::Stored { host, run } => at(4, *host, u64::from(*run)),
            Event::Work { host, run, worker } => at(26, *host, u64::from(*run) << 8 | *worker as u64),
            Event::Start { host } => at(5, *host, 0),
            Event::Resume { host, .. } => at(6, *host, 0),
            Event::Request { host, op, attempt } => mix(at(7, *host, *op), u64::from(*attempt)),
            Event::Answer { op, attempt, response } => {
                mix(at(8, *attempt as usize, *op), response_fingerprint(response))
            }
            Event::GiveUp { op, attempt } => at(9, *attempt as usize, *op),
            Event::Try { op } => at(10, 0, *op),
            Event::Next { client } => at(11, *client, 0),
            Event::Strike(fault) => at(12, *fault as usize, 0),
            Event::FollowUp(_) => at(13, 0, 0),
            Event::Operate => at(14, 0, 0),
            Event::Keep { keeper, call } => at(15, *keeper, *call),
            Event::KeeperAsks { host, keeper, call, .. } => mix(at(16, *host, *keeper as u64), *call),
            Event::KeeperHears { keeper, call, said } => mix(at(17, *keeper, *call), said_fingerprint(said)),
            Event::MemberAsks { host, call, number } => mix(at(18, *host, *call), *number),
            Event::MemberHears { call, number, said } => mix(mix(at(19, 0, *call), *number), said_fingerprint(said)),
            Event::MemberTries { call } => at(20, 0, *call),
            Event::Duties { host, run } => at(21, *host, u64::from(*run)),
            Event::DutyEnded { host, run, duty, answer } => {
                mix(at(22, *host, u64::from(*run) << 8 | *duty as u64), response_fingerprint(answer))
            }
            Event::Attempt { host, token, step, .. } => mix(at(27, *host, token.0), *step),
            Event::Forwarded { line, body } => mix(at(28, line.asking, line.number), digest(body)),
            Event::ForwardAnswered { line, body } => mix(at(29, line.asking, line.number), digest(body)),
            Event::LineLost { line } => at(30, line.asking, line.number),
        }
    }
}

fn response_fingerprint(response: &Response) -> u64 {
    match response {
        Ok(bytes) => digest(bytes),
        Err(Failure::NotDone(NotDone::NotLeader { leader })) => leader.map_or(1, |leader| leader.0 + 100),
        Err(Failure::NotDone(NotDone::Overloaded { .. })) => 2,
        Err(Failure::NotDone(NotDone::Superseded)) => 3,
        Err(Failure::Unknown(_)) => 4,
        Err(Failure::NotDone(_)) => 5,
    }
}

fn said_fingerprint(said: &Said) -> u64 {
    match said {
        Said::Done(bytes) => digest(bytes),
        Said::Alive => 1,
        Said::Gone => 2,
        Said::Elsewhere(leader) => leader.map_or(3, |leader| leader.0 + 100),
        Said::Unknown => 4,
    }
}

fn message_fingerprint(message: &NodeMessage) -> u64 {
    let message = match message {
        NodeMessage::Raft(message) => message,
        NodeMessage::Chunk(chunk) => return mix(mix(chunk.term.0, chunk.offset), chunk.session.0),
        NodeMessage::ChunkReply(reply) => return mix(mix(reply.term.0, reply.received), reply.session.0),
    };
    let body = match &message.body {
        Body::PreVote { last } => mix(1, last.index.0),
        Body::PreVoteReply { granted } => mix(2, u64::from(*granted)),
        Body::RequestVote { last, transfer } => mix(mix(3, last.index.0), u64::from(*transfer)),
        Body::RequestVoteReply { granted } => mix(4, u64::from(*granted)),
        Body::AppendEntries(append) => {
            let last = append.entries.last().map(Entry::position).unwrap_or(append.prev);
            mix(mix(mix(5, last.index.0), append.commit_index.0), append.round.0)
        }
        Body::AppendEntriesReply(reply) => match reply.outcome {
            AppendOutcome::Accepted { match_index } => mix(6, match_index.0),
            AppendOutcome::Rejected { hint, .. } => mix(7, hint.index.0),
            AppendOutcome::Damaged { hint, .. } => mix(12, hint.index.0),
        },
        Body::InstallSnapshot(install) => mix(8, install.snapshot.position.index.0),
        Body::TimeoutNow => 9,
        Body::ReadIndex { context, .. } => mix(10, *context),
        Body::ReadIndexReply { context, index } => mix(mix(11, *context), index.map_or(0, |index| index.0)),
        Body::Returned { start_id, found } => mix(mix(13, *start_id), found.last.index.0),
        Body::Remembered { start_id, missing, .. } => mix(mix(14, *start_id), missing.map_or(0, |term| term.0)),
    };
    mix(message.term.0, body)
}
