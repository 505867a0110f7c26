//! Tests that the model finds wrong steps: three real replicas reach a state by right steps, then one takes a wrong
//! step.

use std::collections::{BTreeMap, VecDeque};

use bowline_raft::{
    AppendEntries, AppendEntriesReply, AppendOutcome, Body, Config, Effect, Effects, Entry, Group, HardState, Index,
    Input, Membership, Message, NodeId, Outcome, Payload, PersistId, Position, Raft, Recovered, Round, Session, Term,
    Time, Token, Write,
};

use super::{Lockstep, Rule};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);

/// Three replicas whose writes are durable at once.
struct Cluster {
    model: Lockstep,
    rafts: BTreeMap<NodeId, Raft>,
    written: BTreeMap<NodeId, PersistId>,
    network: VecDeque<(NodeId, NodeId, Message)>,
    now: Time,
    /// The replicas whose writes are not durable at once.
    slow: Option<NodeId>,
}

fn founders() -> Membership {
    Membership::simple(Group::of_voters([N1, N2, N3]))
}

fn position(index: u64, term: u64) -> Position {
    Position::new(Index(index), Term(term))
}

fn receive(from: NodeId, term: u64, body: Body) -> Input {
    Input::Receive { from, message: Message { term: Term(term), body } }
}

fn command(index: u64, term: u64, text: &'static str) -> Entry {
    Entry { index: Index(index), term: Term(term), payload: Payload::Command(text.as_bytes().into()) }
}

fn accepted(match_index: u64) -> Body {
    let outcome = AppendOutcome::Accepted { match_index: Index(match_index) };
    Body::AppendEntriesReply(AppendEntriesReply { session: Session(1), round: Round(0), sent_at: Time(1), outcome })
}

fn append(prev: Position, entries: Vec<Entry>, commit_index: u64) -> Body {
    let (session, round, sent_at, commit_index) = (Session(1), Round(0), Time(1), Index(commit_index));
    Body::AppendEntries(AppendEntries { session, round, sent_at, prev, entries, commit_index, durable_index: Index(0) })
}

fn send(to: NodeId, term: u64, body: Body) -> Effect {
    Effect::Send { to, message: Message { term: Term(term), body }, after: None }
}

impl Cluster {
    fn new() -> Cluster {
        let mut model = Lockstep::new();
        let start = |id| Raft::new(Config::new(id, 7), Recovered::founding(founders()), Time::ZERO);
        let rafts: BTreeMap<_, _> = [N1, N2, N3].map(|id| (id, start(id).expect("a valid start"))).into();
        rafts.values().for_each(|raft| model.started(raft).expect("a first start"));
        let written = rafts.keys().map(|id| (*id, PersistId(0))).collect();
        Cluster { model, rafts, written, network: VecDeque::new(), now: Time(1), slow: None }
    }

    /// The state after the election of `n1` in term 1, with its blank entry everywhere.
    fn led() -> Cluster {
        let mut it = Cluster::new();
        it.elect(N1);
        it.deliver(|_| true);
        assert!(it.rafts[&N1].is_leader() && it.rafts[&N1].commit_index() == Index(1));
        it
    }

    fn feed(&mut self, id: NodeId, input: Input) {
        let raft = self.rafts.get_mut(&id).expect("it is one of three");
        let mut out = Effects::new();
        self.model.drive(raft, self.now, input, &mut out).expect("a right step");
        let (mut wrote, mut applied) = (false, None);
        for effect in out.drain() {
            match effect {
                Effect::Persist { id: at, .. } => {
                    self.written.insert(id, at);
                    wrote = true;
                }
                Effect::Send { to, message, .. } => self.network.push_back((id, to, message)),
                Effect::Apply { entries } => applied = entries.last().map(|entry| entry.index),
                _ => {}
            }
        }
        if wrote && self.slow != Some(id) {
            self.feed(id, Input::Persisted { up_to: self.written[&id] });
        }
        if let Some(index) = applied {
            self.feed(id, Input::Applied { index });
        }
    }

    /// Delivers the chosen messages, and loses the rest.
    fn deliver(&mut self, arrives: impl Fn(&(NodeId, NodeId, Message)) -> bool) {
        while let Some(sent) = self.network.pop_front() {
            if arrives(&sent) {
                let (from, to, message) = sent;
                self.feed(to, Input::Receive { from, message });
            }
        }
    }

    /// Lets `id` win an election with all votes. Its messages as a leader stay on their way.
    fn elect(&mut self, id: NodeId) {
        // The previous leader has heard nobody for so long that it steps down.
        for leader in [N1, N2, N3].into_iter().filter(|id| self.rafts[id].is_leader()).collect::<Vec<_>>() {
            self.now = self.now.after(Config::new(id, 7).election_timeout_max * 2);
            self.feed(leader, Input::Wake);
        }
        self.network.clear();
        self.now = self.now.after(Config::new(id, 7).election_timeout_max * 2);
        self.feed(id, Input::Wake);
        for _ in 0..100 {
            if self.rafts[&id].is_leader() {
                return;
            }
            let Some((from, to, message)) = self.network.pop_front() else { break };
            self.feed(to, Input::Receive { from, message });
        }
        panic!("{id} wins no election");
    }

    fn propose(&mut self, id: NodeId, token: u64, text: &'static str) {
        self.feed(id, Input::Propose { token: Token(token), command: text.as_bytes().into(), deadline: None });
    }

    /// The next write of `id`.
    fn persist(&self, id: NodeId, write: Write) -> Effect {
        Effect::Persist { id: PersistId(self.written[&id].0 + 1), write }
    }

    fn vote(&self, id: NodeId, term: u64, voted_for: Option<NodeId>) -> Effect {
        self.persist(id, Write::HardState(HardState { term: Term(term), voted_for }))
    }

    /// Checks a step that `id` did not take. Returns the rule that forbids it.
    fn wrong(&mut self, id: NodeId, input: Input, effects: &[Effect]) -> Rule {
        let raft = self.rafts[&id].clone();
        self.wrong_as(&raft, input, effects)
    }

    fn wrong_as(&mut self, raft: &Raft, input: Input, effects: &[Effect]) -> Rule {
        let violation = self.model.step(raft, self.now, &input, effects).expect_err("a wrong step");
        assert_eq!(self.model.violation(), Some(&violation));
        assert_eq!((violation.replica, violation.step), (raft.id(), self.model.steps()));
        assert!(violation.to_string().contains(violation.rule.text()), "{violation}");
        violation.rule
    }

    fn restart(&mut self, id: NodeId, term: u64, voted_for: Option<NodeId>, entries: Vec<Entry>) -> Option<Rule> {
        let hard_state = HardState { term: Term(term), voted_for };
        let recovered = Recovered { hard_state, entries, ..Recovered::founding(founders()) };
        let raft = Raft::new(Config::new(id, 8), recovered, self.now).expect("a consistent disk");
        self.model.started(&raft).err().map(|violation| violation.rule)
    }
}

#[test]
fn right_steps_are_steps_of_the_model() {
    let mut it = Cluster::led();
    it.propose(N1, 1, "x");
    it.deliver(|_| true);
    it.elect(N2);
    it.deliver(|_| true);
    assert_eq!(it.model.violation(), None);
    assert!(it.model.steps() > 20);
    assert_eq!(it.rafts[&N2].commit_index(), Index(3));
}

#[test]
fn a_second_vote() {
    let mut it = Cluster::led();
    let asks = || receive(N3, 1, Body::RequestVote { last: position(1, 1), transfer: true });
    let written = it.vote(N2, 1, Some(N3));
    assert_eq!(it.wrong(N2, asks(), &[written]), Rule::GrantVote);
    let mut it = Cluster::led();
    let told = send(N3, 1, Body::RequestVoteReply { granted: true });
    assert_eq!(it.wrong(N2, asks(), &[told]), Rule::GrantVote);
}

#[test]
fn a_vote_for_a_stale_log() {
    let mut it = Cluster::led();
    let asks = receive(N3, 2, Body::RequestVote { last: Position::ORIGIN, transfer: true });
    let adopted = it.vote(N2, 2, None);
    let next = PersistId(it.written[&N2].0 + 2);
    let write = Write::HardState(HardState { term: Term(2), voted_for: Some(N3) });
    assert_eq!(it.wrong(N2, asks, &[adopted, Effect::Persist { id: next, write }]), Rule::GrantVote);
}

#[test]
fn a_vote_of_one_that_has_just_heard_its_leader() {
    let mut it = Cluster::led();
    let asks = receive(N3, 2, Body::RequestVote { last: position(1, 1), transfer: false });
    let adopted = it.vote(N2, 2, None);
    assert_eq!(it.wrong(N2, asks, &[adopted]), Rule::Stickiness);
}

#[test]
fn a_vote_that_is_told_before_it_is_durable() {
    let mut it = Cluster::new();
    it.now = it.now.after(Config::new(N1, 7).election_timeout_max * 2);
    let asks = receive(N1, 1, Body::RequestVote { last: Position::ORIGIN, transfer: false });
    let adopted = it.vote(N2, 1, None);
    let write = Write::HardState(HardState { term: Term(1), voted_for: Some(N1) });
    let granted = send(N1, 1, Body::RequestVoteReply { granted: true });
    assert_eq!(it.wrong(N2, asks, &[adopted, Effect::Persist { id: PersistId(2), write }, granted]), Rule::Promise);
}

#[test]
fn a_term_that_goes_back_or_comes_from_nowhere() {
    let mut it = Cluster::led();
    let written = it.vote(N2, 0, None);
    assert_eq!(it.wrong(N2, Input::Wake, &[written]), Rule::GrantVote);
    let mut it = Cluster::led();
    let written = it.vote(N2, 9, None);
    assert_eq!(it.wrong(N2, receive(N1, 2, Body::TimeoutNow), &[written]), Rule::UpdateTerm);
}

#[test]
fn a_higher_term_that_is_not_heeded() {
    let mut it = Cluster::led();
    assert_eq!(it.wrong(N1, receive(N2, 2, accepted(1)), &[]), Rule::UpdateTerm);
    let mut it = Cluster::led();
    assert_eq!(it.wrong(N2, receive(N3, 2, append(position(0, 0), vec![], 0)), &[]), Rule::UpdateTerm);
}

#[test]
fn a_candidacy_without_pre_votes() {
    let mut it = Cluster::led();
    let written = it.vote(N2, 2, Some(N2));
    assert_eq!(it.wrong(N2, Input::Wake, &[written]), Rule::Timeout);
}

#[test]
fn a_leader_without_a_quorum_of_votes() {
    let mut it = Cluster::led();
    it.feed(N2, receive(N1, 1, Body::TimeoutNow));
    assert_eq!(it.rafts[&N2].term(), Term(2));
    let blank = Entry { index: Index(2), term: Term(2), payload: Payload::Blank };
    let written = it.persist(N2, Write::Append(vec![blank]));
    assert_eq!(it.wrong(N2, Input::Wake, &[written]), Rule::BecomeLeader);
}

#[test]
fn a_leader_by_votes_that_nobody_gave() {
    let mut it = Cluster::led();
    it.feed(N2, receive(N1, 1, Body::TimeoutNow));
    let granted = receive(N3, 2, Body::RequestVoteReply { granted: true });
    let (raft, mut out) = (it.rafts.get_mut(&N2).expect("it is there"), Effects::new());
    let violation = it.model.drive(raft, it.now, granted, &mut out).expect_err("n3 has never voted");
    assert!(raft.is_leader(), "the core believes it");
    assert_eq!(violation.rule, Rule::BecomeLeader);
}

#[test]
fn a_commit_by_counting_an_entry_of_an_old_term() {
    let mut it = Cluster::led();
    it.propose(N1, 1, "x");
    // All replicas have the entry, but its leader never learns that.
    it.deliver(|(from, ..)| *from == N1);
    it.elect(N2);
    let old = send(N3, 2, append(position(2, 1), Vec::new(), 2));
    assert_eq!(it.wrong(N2, receive(N3, 2, accepted(2)), &[old]), Rule::AdvanceCommitIndex);
}

#[test]
fn a_commit_without_a_quorum_of_copies() {
    let mut it = Cluster::led();
    it.propose(N1, 1, "x");
    it.deliver(|_| false);
    let told = send(N2, 1, append(position(2, 1), Vec::new(), 2));
    assert_eq!(it.wrong(N1, receive(N2, 1, accepted(2)), &[told]), Rule::AdvanceCommitIndex);
}

#[test]
fn a_commit_with_a_copy_that_is_not_durable() {
    let mut it = Cluster::led();
    it.slow = Some(N2);
    it.propose(N1, 1, "x");
    it.deliver(|(from, to, _)| (*from, *to) == (N1, N2));
    assert_eq!(it.rafts[&N2].log().last(), position(2, 1));
    let told = send(N2, 1, append(position(2, 1), Vec::new(), 2));
    assert_eq!(it.wrong(N1, receive(N2, 1, accepted(2)), &[told]), Rule::AdvanceCommitIndex);
}

#[test]
fn a_truncation_of_what_matches() {
    let mut it = Cluster::led();
    it.propose(N1, 1, "x");
    it.deliver(|(from, ..)| *from == N1);
    let blank = Entry { index: Index(1), term: Term(1), payload: Payload::Blank };
    let truncated = it.persist(N2, Write::Truncate { from: Index(2) });
    let older = receive(N1, 1, append(Position::ORIGIN, vec![blank], 1));
    assert_eq!(it.wrong(N2, older, &[truncated]), Rule::Truncate);
}

#[test]
fn a_change_of_the_log_after_a_place_that_does_not_match() {
    let mut it = Cluster::led();
    let entry = command(3, 1, "y");
    let written = it.persist(N2, Write::Append(vec![entry.clone()]));
    assert_eq!(it.wrong(N2, receive(N1, 1, append(position(2, 1), vec![entry], 1)), &[written]), Rule::TakeEntries);
}

#[test]
fn an_entry_that_no_leader_created() {
    let mut it = Cluster::led();
    let entry = command(2, 1, "forged");
    let written = it.persist(N2, Write::Append(vec![entry.clone()]));
    assert_eq!(it.wrong(N2, receive(N1, 1, append(position(1, 1), vec![entry], 1)), &[written]), Rule::TakeEntries);
}

#[test]
fn entries_from_one_that_does_not_lead() {
    let mut it = Cluster::led();
    it.propose(N1, 1, "x");
    it.deliver(|(_, to, _)| *to == N3);
    let entry = command(2, 1, "x");
    let written = it.persist(N2, Write::Append(vec![entry.clone()]));
    assert_eq!(it.wrong(N2, receive(N3, 1, append(position(1, 1), vec![entry], 1)), &[written]), Rule::Follow);
}

#[test]
fn a_follower_that_commits_what_was_not_verified() {
    let mut it = Cluster::led();
    it.propose(N1, 1, "x");
    it.deliver(|_| true);
    it.elect(N1);
    it.propose(N1, 2, "y");
    it.deliver(|(_, to, _)| *to != N3);
    it.deliver(|_| true);
    // It will know of the third entry; but from a message that shows the first one only it can't.
    let (mut later, mut out) = (it.rafts[&N3].clone(), Effects::new());
    let entries = it.rafts[&N1].log().slice(Index(3), Index(4), 9, 999);
    later.handle(it.now, receive(N1, 2, append(position(2, 1), entries, 4)), &mut out);
    assert_eq!(later.commit_index(), Index(4));
    let shown = receive(N1, 2, append(position(1, 1), Vec::new(), 4));
    assert_eq!(it.wrong_as(&later, shown, &[]), Rule::LearnCommitIndex);
}

#[test]
fn a_commit_index_that_goes_back() {
    let mut it = Cluster::led();
    let younger = Cluster::new().rafts[&N1].clone();
    assert_eq!(it.wrong_as(&younger, Input::Wake, &[]), Rule::AdvanceCommitIndex);
}

#[test]
fn a_leader_that_overwrites_its_log() {
    let mut it = Cluster::led();
    it.propose(N1, 1, "x");
    let proposes = || Input::Propose { token: Token(2), command: "y".into(), deadline: None };
    let overwritten = it.persist(N1, Write::Append(vec![command(2, 1, "y")]));
    assert_eq!(it.wrong(N1, proposes(), &[overwritten]), Rule::ClientRequest);
    let mut it = Cluster::led();
    let truncated = it.persist(N1, Write::Truncate { from: Index(1) });
    assert_eq!(it.wrong(N1, proposes(), &[truncated]), Rule::Follow);
}

#[test]
fn an_acknowledgement_before_the_disk_has_it() {
    let mut it = Cluster::led();
    it.slow = Some(N2);
    it.propose(N1, 1, "x");
    it.deliver(|(from, to, _)| (*from, *to) == (N1, N2));
    let again = receive(N1, 1, append(position(1, 1), vec![command(2, 1, "x")], 1));
    let (mut raft, mut out) = (it.rafts[&N2].clone(), Effects::new());
    raft.handle(it.now, again.clone(), &mut out);
    let told: Vec<Effect> = out.drain().collect();
    assert!(matches!(told[..], [Effect::Send { after: Some(_), .. }]), "the core waits for its disk: {told:?}");
    let early: Vec<Effect> = told
        .into_iter()
        .map(|effect| match effect {
            Effect::Send { to, message, .. } => Effect::Send { to, message, after: None },
            effect => effect,
        })
        .collect();
    assert_eq!(it.wrong_as(&raft, again, &early), Rule::Promise);
}

#[test]
fn an_acknowledgement_of_more_than_was_shown() {
    let mut it = Cluster::led();
    let heartbeat = receive(N1, 1, append(position(1, 1), Vec::new(), 1));
    let (mut raft, mut out) = (it.rafts[&N2].clone(), Effects::new());
    raft.handle(it.now, heartbeat.clone(), &mut out);
    assert_eq!(it.wrong_as(&raft, heartbeat, &[send(N1, 1, accepted(2))]), Rule::Acknowledge);
}

#[test]
fn entries_that_are_not_the_leaders_own() {
    let mut it = Cluster::led();
    it.propose(N1, 1, "x");
    let sent = send(N2, 1, append(position(1, 1), vec![command(2, 1, "z")], 1));
    assert_eq!(it.wrong(N1, Input::Wake, &[sent]), Rule::AppendEntries);
    let mut it = Cluster::led();
    let sent = send(N1, 1, append(position(1, 1), Vec::new(), 1));
    assert_eq!(it.wrong(N2, Input::Wake, &[sent]), Rule::AppendEntries, "n2 does not lead");
}

#[test]
fn a_configuration_without_a_joint_one() {
    let mut it = Cluster::led();
    let payload = Payload::Membership(Membership::simple(Group::of_voters([N1])));
    let entry = Entry { index: Index(2), term: Term(1), payload };
    let written = it.persist(N1, Write::Append(vec![entry]));
    assert_eq!(it.wrong(N1, Input::Wake, &[written]), Rule::ChangeMembership);
}

#[test]
fn a_configuration_before_the_term_has_committed() {
    let mut it = Cluster::led();
    it.elect(N2);
    let payload = Payload::Membership(Membership::joint(Group::of_voters([N1, N2, N3]), Group::of_voters([N1, N2])));
    let entry = Entry { index: Index(3), term: Term(2), payload };
    let written = it.persist(N2, Write::Append(vec![entry]));
    assert_eq!(it.wrong(N2, Input::Wake, &[written]), Rule::ChangeMembership);
}

#[test]
fn entries_that_are_applied_too_early() {
    let mut it = Cluster::led();
    it.propose(N1, 1, "x");
    let applied = Effect::Apply { entries: vec![command(2, 1, "x")] };
    assert_eq!(it.wrong(N1, Input::Wake, &[applied]), Rule::Apply);
}

#[test]
fn a_command_that_is_done_before_it_is_committed() {
    let mut it = Cluster::led();
    it.propose(N1, 1, "x");
    let done = Effect::Answer { token: Token(1), outcome: Outcome::Done { position: position(2, 1) } };
    assert_eq!(it.wrong(N1, Input::Wake, &[done]), Rule::Answer);
}

#[test]
fn a_restart_that_forgets() {
    let blank = || Entry { index: Index(1), term: Term(1), payload: Payload::Blank };
    assert_eq!(Cluster::led().restart(N2, 1, Some(N1), vec![blank()]), None, "all is there");
    assert_eq!(Cluster::led().restart(N2, 1, Some(N1), Vec::new()), Some(Rule::Restart), "a durable entry");
    assert_eq!(Cluster::led().restart(N2, 1, None, vec![blank()]), Some(Rule::Restart), "its vote");
    assert_eq!(Cluster::led().restart(N2, 2, None, vec![blank()]), Some(Rule::Restart), "a term from nowhere");
    let more = vec![blank(), command(2, 1, "x")];
    assert_eq!(Cluster::led().restart(N2, 1, Some(N1), more), Some(Rule::Restart), "an entry from nowhere");
}

#[test]
fn a_restart_may_keep_what_was_being_written() {
    let mut it = Cluster::led();
    it.slow = Some(N2);
    it.propose(N1, 1, "x");
    it.deliver(|(from, to, _)| (*from, *to) == (N1, N2));
    let blank = || Entry { index: Index(1), term: Term(1), payload: Payload::Blank };
    assert_eq!(it.restart(N2, 1, Some(N1), vec![blank(), command(2, 1, "x")]), None);
    assert_eq!(it.restart(N2, 1, Some(N1), vec![blank()]), Some(Rule::Restart), "now it counts as durable");
}

#[test]
fn a_state_that_no_step_explains() {
    let mut it = Cluster::led();
    it.propose(N1, 1, "x");
    let behind = Cluster::led().rafts[&N1].clone();
    assert_eq!(it.wrong_as(&behind, Input::Wake, &[]), Rule::Refinement);
}
