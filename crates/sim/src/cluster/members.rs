//! The members' records: requests of an operator and of the members themselves, which go through the log like any
//! client's write. What each does is compared with the [`rules`] (I29).
//!
//! An answer may get lost. Then the outcome is unknown, and the request is made again, or not.

mod rules;

use std::collections::{BTreeMap, BTreeSet};

use bowline_kv::store::{Command, KvError, Member, MemberChange, MemberRequest};
use bowline_kv::versions;
use bowline_member::Duty;
use bowline_node::{Failure, NodeInput, NotDone, Response, Unknown};
use bowline_raft::probe::{Probe, hit};
use bowline_raft::{Index, NodeId};

use crate::cluster::clock::Moment;
use crate::cluster::context::Context;
use crate::cluster::dice::Dice;
use crate::cluster::event::Event;
use crate::cluster::host::{Asker, Host};
use crate::cluster::keepers::{LEASE_OPS, Said};
use crate::cluster::machine::Applied;
use crate::cluster::network::Network;
use crate::cluster::numbered::Numbered;
use crate::cluster::operator::Loss;
use crate::cluster::oracle::{Judged, Rule};
use crate::cluster::plan::{MILLI, Plan};
use crate::cluster::shape::reply_of;

pub(crate) use rules::Rules;

/// The numbers of commands about members and of automatic compactions start here, beyond those about leases.
pub(crate) const MEMBER_OPS: u64 = LEASE_OPS << 1;
/// Most tries of one request.
const MOST_TRIES: u32 = 12;

/// A request that waits for its answer.
#[derive(Debug)]
struct Call {
    /// The host that asks, the run of its process, and what it does; `None` if an operator asks.
    from: Option<(usize, u32, Duty)>,
    command: Command,
    guess: usize,
    /// The number of the command in its latest try.
    number: u64,
    tries: u32,
}

#[derive(Debug)]
pub(crate) struct Members {
    pub(crate) dice: Dice,
    pub(crate) commands: Numbered,
    calls: BTreeMap<u64, Call>,
    made: u64,
    /// The records in the committed log.
    pub(crate) rules: Rules,
    /// The version of the cluster in the committed log.
    pub(crate) version: u32,
    /// Leaders take no steps before this moment.
    pub(crate) steps_from: Moment,
    /// Hosts that an operator wants to add.
    pub(crate) newcomers: Vec<NodeId>,
    /// Members whose disks are lost, with the hosts that take their places.
    pub(crate) replaced: BTreeMap<u64, u64>,
    /// Members that an operator has added and that are no voters yet.
    pub(crate) joining: BTreeSet<u64>,
    /// Members that an operator has removed and that are still in the configuration.
    pub(crate) leaving: BTreeSet<u64>,
    /// The latest mark at which all members had the same state.
    pub(crate) agreed: Index,
}

/// The address of a host for other members.
pub(crate) fn url(id: u64) -> String {
    format!("http://n{id}:2380")
}

/// What a host publishes about itself.
pub(crate) fn own_record(id: NodeId) -> Member {
    let client_urls = vec![format!("http://n{}:2379", id.0)];
    Member { id: id.0, name: id.to_string(), client_urls, incarnation: 1_000 + id.0, ..Member::default() }
}

pub(crate) fn changed(change: MemberChange) -> Command {
    Command::Member(MemberRequest { change: Some(change) })
}

impl Members {
    pub(crate) fn new(plan: &Plan) -> Members {
        Members {
            dice: Dice::new(plan.chance(), 0x3e3b_e500),
            commands: Numbered::new(MEMBER_OPS),
            calls: BTreeMap::new(),
            made: 0,
            rules: Rules::default(),
            version: 0,
            steps_from: 0,
            newcomers: Vec::new(),
            replaced: BTreeMap::new(),
            joining: BTreeSet::new(),
            leaving: BTreeSet::new(),
            agreed: Index(0),
        }
    }

    /// Notes which disks were lost for good.
    pub(crate) fn note_losses(&mut self, losses: &[Loss]) {
        for loss in losses {
            let Some(newcomer) = loss.newcomer else { continue };
            self.newcomers.push(newcomer);
            if self.rules.get(loss.id.0).is_some() {
                self.replaced.insert(loss.id.0, newcomer.0);
            }
        }
    }

    /// Number of an operator's requests that wait for an answer.
    pub(crate) fn open(&self) -> usize {
        self.calls.values().filter(|call| call.from.is_none()).count()
    }

    /// Checks a command when the first replica applies it, and returns it.
    pub(crate) fn took_effect(&mut self, applied: &Applied) -> Result<Command, (Rule, String)> {
        let command = self.commands.took_effect(applied)?;
        let reply = applied.reply.as_deref().and_then(reply_of);
        match (&command, &reply) {
            (Command::Alarm(alarm), Some(Ok(_))) => self.rules.alarm(alarm.member, alarm.active),
            (Command::ClusterVersion(raised), Some(Ok(_))) => self.version = self.version.max(raised.version),
            (Command::Member(MemberRequest { change: Some(change) }), Some(reply)) => {
                let done = self.rules.took_effect(change, reply);
                let done = done.map_err(|what| (Rule::MembersAreRecorded, what))?;
                match (change, reply) {
                    (MemberChange::Add(member), _) if done => {
                        self.joining.insert(member.id);
                    }
                    (MemberChange::Remove(id), _) if done => {
                        self.joining.remove(id);
                        self.leaving.insert(*id);
                    }
                    (MemberChange::Add(_), Err(KvError::TooFewStarted)) => hit(Probe::AdditionTooFewStarted),
                    (MemberChange::Remove(_), Err(KvError::TooFewStarted)) => hit(Probe::RemovalTooFewStarted),
                    (MemberChange::Add(member), _) if self.rules.is_removed(member.id) => hit(Probe::RemovedIdRefused),
                    (MemberChange::Publish(_), Err(KvError::OtherFolder)) => hit(Probe::OtherFolderRefused),
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(command)
    }
}

/// Requests, on the side of who makes them.
impl Members {
    /// Makes a request: an operator asks any host; a host that has something to do asks the leader that it knows.
    pub(crate) fn ask(
        &mut self,
        ctx: &mut Context<'_>,
        network: &mut Network,
        from: Option<(usize, u32, Duty)>,
        guess: usize,
        command: Command,
    ) {
        self.made += 1;
        self.calls.insert(self.made, Call { from, command, guess, number: 0, tries: 0 });
        self.send(ctx, network, self.made);
    }

    /// Sends a request, for the first time or again: each time as a command of its own, which may take effect too.
    pub(crate) fn send(&mut self, ctx: &mut Context<'_>, network: &mut Network, call: u64) {
        let Some(it) = self.calls.get_mut(&call) else { return };
        it.tries += 1;
        it.number = self.commands.number(it.command.clone());
        let number = it.number;
        let host = match &ctx.whole[..] {
            only if only.contains(&it.guess) || only.is_empty() => it.guess,
            only => only[self.dice.index(only.len())],
        };
        ctx.trace(it.from.map(|(host, ..)| host), || format!("asks n{}: {:?}", host + 1, it.command));
        let cut = it.from.is_some_and(|(from, ..)| network.is_cut(from, host));
        if let Some(at) = network.client_way(ctx.now, host, &mut self.dice).filter(|_| !cut) {
            ctx.queue.push(at, Event::MemberAsks { host, call, number });
        }
        ctx.after(ctx.plan.workload.timeout, Event::MemberHears { call, number, said: Said::Unknown });
    }

    /// An answer arrives, or the time to wait for it is over.
    pub(crate) fn hear(&mut self, ctx: &mut Context<'_>, network: &Network, call: u64, number: u64, said: &Said) {
        let Some(it) = self.calls.get_mut(&call).filter(|it| it.number == number) else { return };
        let again = match said {
            Said::Elsewhere(Some(NodeId(leader))) if (1..=network.size() as u64).contains(leader) => {
                it.guess = *leader as usize - 1;
                true
            }
            Said::Elsewhere(_) => {
                it.guess = self.dice.index(network.size());
                true
            }
            Said::Unknown => {
                it.guess = self.dice.index(network.size());
                self.dice.percent(50)
            }
            Said::Done(_) | Said::Alive | Said::Gone => false,
        };
        if again && it.tries < MOST_TRIES && it.from.is_none() {
            it.number = 0;
            let pause = self.dice.between(MILLI, ctx.plan.settings.heartbeat);
            return ctx.after(pause, Event::MemberTries { call });
        }
        let ended = self.calls.remove(&call);
        if let Some((host, run, duty)) = ended.and_then(|call| call.from) {
            let answer = match said {
                Said::Done(bytes) => Ok(bytes.clone()),
                Said::Elsewhere(leader) => Err(Failure::not_leader(*leader)),
                Said::Unknown | Said::Alive | Said::Gone => Err(Unknown::Expired.into()),
            };
            ctx.after(0, Event::DutyEnded { host, run, duty, answer });
        }
    }
}

/// Requests, on the side of who is asked.
impl Members {
    /// A request arrives at a replica. Returns the replica's input, if there is one.
    pub(crate) fn asked(
        &mut self,
        ctx: &mut Context<'_>,
        network: &mut Network,
        it: &mut Host,
        (call, number): (u64, u64),
    ) -> Option<NodeInput> {
        let host = it.at();
        if it.node.is_some() && it.paused {
            it.wait(Event::MemberAsks { host, call, number });
            return None;
        }
        if it.node.is_none() || !it.disk.has_room() {
            self.tell(ctx, network, host, (call, number), Said::Elsewhere(None));
            return None;
        }
        let command = self.commands.encoded(number);
        Some(NodeInput::Write { token: it.token(Asker::Member { call, number }), command, deadline: it.deadline(ctx) })
    }

    /// A replica answers a request.
    pub(crate) fn answered(
        &mut self,
        ctx: &mut Context<'_>,
        network: &mut Network,
        host: usize,
        (call, number): (u64, u64),
        response: Response,
    ) {
        ctx.judge(self.judge_answer(number, &response));
        let said = match response {
            Ok(bytes) => Said::Done(bytes),
            Err(Failure::NotDone(NotDone::NotLeader { leader })) => Said::Elsewhere(leader),
            Err(Failure::NotDone(_)) => Said::Elsewhere(None),
            Err(Failure::Unknown(_)) => Said::Unknown,
        };
        self.tell(ctx, network, host, (call, number), said);
    }

    /// I22: what is said to be done has taken effect; what is refused never does.
    pub(crate) fn judge_answer(&mut self, number: u64, response: &Response) -> Judged {
        match response {
            Ok(_) => self.commands.answered(number, true),
            Err(Failure::NotDone(_)) => self.commands.answered(number, false),
            Err(Failure::Unknown(_)) => Ok(()),
        }
    }

    fn tell(
        &mut self,
        ctx: &mut Context<'_>,
        network: &mut Network,
        host: usize,
        (call, number): (u64, u64),
        said: Said,
    ) {
        ctx.trace(Some(host), || format!("answers request {call} about the members: {said:?}"));
        if let Some(at) = network.client_way(ctx.now, host, &mut self.dice) {
            ctx.queue.push(at.max(ctx.now + 1), Event::MemberHears { call, number, said });
        }
    }

    /// The version that an operator's cluster needs before its members can change.
    pub(crate) fn needs_version(&self) -> bool {
        self.version < versions::MEMBERS
    }
}
