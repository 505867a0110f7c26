//! The rules of the model, and the report of a broken one.

use std::fmt;

use bowline_raft::NodeId;

/// A rule of the model: the guard of a transition, or a condition that ties the core to the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// `UpdateTerm`.
    UpdateTerm,
    /// `Timeout`.
    Timeout,
    /// `HandleRequestVoteRequest`, where the vote is granted.
    GrantVote,
    /// The promise of a server that has heard a leader.
    Stickiness,
    /// `BecomeLeader`.
    BecomeLeader,
    /// `ClientRequest`.
    ClientRequest,
    /// `ClientRequest` of a configuration.
    ChangeMembership,
    /// `AppendEntries`.
    AppendEntries,
    /// `HandleAppendEntriesRequest`: whom to follow.
    Follow,
    /// `HandleAppendEntriesRequest`: the conflict.
    Truncate,
    /// `HandleAppendEntriesRequest`: the new entries.
    TakeEntries,
    /// `HandleAppendEntriesRequest`: the answer.
    Acknowledge,
    /// `AdvanceCommitIndex`, at the leader.
    AdvanceCommitIndex,
    /// `HandleAppendEntriesRequest`: the commit index that a follower learns.
    LearnCommitIndex,
    /// The log's beginning is replaced by a leader's snapshot.
    InstallSnapshot,
    /// The log's beginning is replaced by the server's own snapshot.
    Compact,
    /// Committed entries go to the state machine.
    Apply,
    /// The answer to a client.
    Answer,
    /// `Restart`.
    Restart,
    /// Messages that promise something.
    Promise,
    /// Messages that tell the sender's state.
    Message,
    /// The stream of durable writes.
    Persist,
    /// The core's state is the model's.
    Refinement,
    /// The core stops itself.
    Halt,
}

/// Formats an optional value; `None` is "nobody".
pub(super) fn named(it: Option<impl fmt::Display>) -> String {
    it.map_or_else(|| "nobody".to_owned(), |it| it.to_string())
}

impl Rule {
    /// What the rule says.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Rule::UpdateTerm => {
                "a higher term is adopted from a message that carries it, and brings no vote with it (5.1)"
            }
            Rule::Timeout => "a voter stands when it has a quorum of pre-votes or its leader tells it to (5.2, 9.6)",
            Rule::GrantVote => {
                "a vote goes to one candidate of the term, if its log is at least as up to date (5.2, 5.4.1)"
            }
            Rule::Stickiness => {
                "a replica that heard a leader lately neither adopts a candidate's term nor votes (4.2.3)"
            }
            Rule::BecomeLeader => "a leader has a quorum of durable votes of its term, each really given to it (5.2)",
            Rule::ClientRequest => "a leader only appends, after its last entry, and names no position twice (5.3)",
            Rule::ChangeMembership => {
                "one change at a time, through a joint configuration, in a term that has committed (6)"
            }
            Rule::AppendEntries => "a leader sends what its log holds (5.3)",
            Rule::Follow => "a follower follows whoever was elected in its term (5.2)",
            Rule::Truncate => {
                "only entries that conflict with the leader's are removed, and never committed ones (5.3)"
            }
            Rule::TakeEntries => "a follower appends exactly the leader's entries, after a place that matches (5.3)",
            Rule::Acknowledge => "an acknowledgement tells what matches the leader's log and is on disk (5.3)",
            Rule::AdvanceCommitIndex => {
                "a leader commits an entry of its own term that a quorum has on disk; it never goes back (5.4.2)"
            }
            Rule::LearnCommitIndex => {
                "a follower commits no further than its leader and than what is known to match; it never goes back (5.3)"
            }
            Rule::InstallSnapshot => "a snapshot of the current leader replaces a log that lacks what it holds (7)",
            Rule::Compact => "only what the replica's own snapshot holds is removed from the log (7)",
            Rule::Apply => "committed and durable entries are applied, in order, each once (5.3)",
            Rule::Answer => "a command is done when its entry is committed, and superseded when it isn't (8)",
            Rule::Restart => "what was durable is unchanged after a restart (5.1)",
            Rule::Promise => "a promise is sent only when what it promises is durable (5.1)",
            Rule::Message => "a message tells the sender's true state (Figure 2)",
            Rule::Persist => "writes are one stream without gaps, and only what was written becomes durable",
            Rule::Refinement => "the core's state equals the model's after each step",
            Rule::Halt => "no transition of the model makes a replica stop",
        }
    }
}

/// A step of the core that is not a step of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deviation {
    /// The number of the step, counted over all replicas from 1.
    pub step: u64,
    /// The replica that took it.
    pub replica: NodeId,
    /// The rule that forbids it.
    pub rule: Rule,
    /// What the replica did.
    pub what: String,
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Deviation { step, replica, rule, what } = self;
        write!(f, "step {step}: {replica} {what}; {rule:?} forbids it: {}", rule.text())
    }
}

impl std::error::Error for Deviation {}

/// The result of a check: the broken rule, without its step.
pub(super) type Checked = Result<(), (Rule, String)>;

/// Checks a rule; `what` describes a violation.
pub(super) fn check(holds: bool, rule: Rule, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err((rule, what())) }
}
