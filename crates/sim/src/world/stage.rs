//! The stage: everything that is, what will happen next, and the loop that lets it happen.

use bowline_checker::trace::TraceHash;
use bowline_node::{Failure, NodeMessage, NotDone, Response};
use bowline_raft::{Body, Entry, Group, Membership, NodeId};

use crate::world::Outcome;
use crate::world::clients::Clients;
use crate::world::clock::Moment;
use crate::world::coverage::{Coverage, Fault};
use crate::world::dice::Dice;
use crate::world::host::Host;
use crate::world::image::Restored;
use crate::world::keepers::{Ask, Keepers, Said};
use crate::world::machine::Applied;
use crate::world::model::Model;
use crate::world::nemesis::Mend;
use crate::world::network::{MAX_HOSTS, Network};
use crate::world::operator::Operator;
use crate::world::oracle::{Oracle, Rule, mix};
use crate::world::page::Camera;
use crate::world::plan::{Plan, SECOND};
use crate::world::queue::Queue;
use crate::world::reduction::Script;
use crate::world::story::Line;

/// Most things that may happen at one moment: more means that something goes round in circles.
const MOST_AT_ONCE: u32 = 200_000;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    Message {
        from: usize,
        to: usize,
        message: NodeMessage,
    },
    Wake {
        host: usize,
        life: u32,
    },
    Synced {
        host: usize,
        life: u32,
    },
    Stored {
        host: usize,
        life: u32,
    },
    Start {
        host: usize,
    },
    Resume {
        host: usize,
        life: u32,
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
    /// A keeper of a lease goes on.
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
    Strike(Fault),
    Mend(Box<Mend>),
    Operate,
}

/// One source of chance for each purpose.
#[derive(Debug)]
pub(crate) struct Chances {
    pub(crate) network: Dice,
    pub(crate) disk: Dice,
    pub(crate) nemesis: Dice,
    pub(crate) hosts: Dice,
}

pub(crate) struct World<'a> {
    pub(crate) plan: Plan,
    pub(crate) now: Moment,
    pub(crate) queue: Queue<Event>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) network: Network,
    pub(crate) clients: Clients,
    pub(crate) keepers: Keepers,
    pub(crate) operator: Operator,
    pub(crate) oracle: Oracle,
    pub(crate) model: Model,
    pub(crate) chances: Chances,
    pub(crate) script: Script,
    pub(crate) coverage: Coverage,
    /// Hosts that lead, each in its own view.
    pub(crate) leading: Vec<usize>,
    /// When the last of them began to.
    pub(crate) led_since: Moment,
    /// From here on nothing strikes any more; cuts from before it are not mended.
    pub(crate) epoch: u32,
    /// Who came back with an old image and has not been told.
    pub(crate) restored: Option<Restored>,
    pub(crate) effects: Vec<bowline_node::NodeEffect>,
    pub(crate) news: Vec<Applied>,
    /// Films it all for a page.
    pub(crate) camera: Option<Camera>,
    teller: Option<&'a mut dyn FnMut(Line)>,
    trace: TraceHash,
    events: u64,
    at_once: u32,
}

impl<'a> World<'a> {
    pub(crate) fn new(plan: Plan, teller: Option<&'a mut dyn FnMut(Line)>) -> World<'a> {
        let seed = plan.chance();
        let chances = Chances {
            network: Dice::new(seed, 2),
            disk: Dice::new(seed, 3),
            nemesis: Dice::new(seed, 5),
            hosts: Dice::new(seed, 6),
        };
        let mut world = World {
            now: 0,
            queue: Queue::new(),
            hosts: Vec::new(),
            network: Network::new(plan.network.clone()),
            clients: Clients::new(&plan.workload),
            keepers: Keepers::new(&plan),
            operator: Operator::default(),
            oracle: Oracle::default(),
            model: Model::new(plan.watched),
            chances,
            script: Script::of(&plan),
            coverage: Coverage::default(),
            leading: Vec::new(),
            led_since: 0,
            epoch: 0,
            restored: None,
            effects: Vec::new(),
            news: Vec::new(),
            camera: None,
            teller,
            trace: TraceHash::new(),
            events: 0,
            at_once: 0,
            plan,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        let founders = Membership::simple(Group::of_voters((1..=self.plan.voters as u64).map(NodeId)));
        for _ in 0..self.plan.voters {
            self.add_host(Some(founders.clone()));
        }
        let spares = if self.plan.faults.iter().any(|(fault, _)| *fault == Fault::Churn) { 2 } else { 0 };
        for _ in 0..self.plan.learners + spares {
            let Some(host) = self.add_host(None) else { break };
            if self.operator.newcomers.len() < self.plan.learners {
                self.operator.newcomers.push(NodeId(host as u64 + 1));
            }
        }
        for client in 0..self.plan.workload.clients {
            if let Some(at) = self.script.first_start(client, self.plan.workload.pause) {
                self.queue.push(at, Event::Next { client });
            }
        }
        self.wake_keepers();
        for (fault, mean) in self.plan.faults.clone() {
            if let Some(mut dice) = self.script.first_strike(fault) {
                self.queue.push(dice.waiting(mean), Event::Strike(fault));
            }
        }
        self.queue.push(self.plan.settings.election_max * 3, Event::Operate);
    }

    /// A replica that starts now: a founder, or one that will be added.
    pub(crate) fn add_host(&mut self, founders: Option<Membership>) -> Option<usize> {
        if self.hosts.len() == MAX_HOSTS {
            return None;
        }
        let host = self.hosts.len();
        self.hosts.push(Host::new(host, founders, &self.plan));
        self.set_clock(host);
        self.start(host);
        Some(host)
    }

    /// Everything, from the beginning to the end.
    pub(crate) fn live(&mut self) {
        self.run_until(self.plan.safety);
        if self.plan.liveness {
            self.heal_and_serve();
        }
        if self.oracle.violation.is_none() {
            self.check_history();
        }
    }

    /// Lets everything happen that happens before `end`.
    pub(crate) fn run_until(&mut self, end: Moment) {
        while self.oracle.violation.is_none() && self.queue.next_at().is_some_and(|at| at <= end) {
            let Some((at, event)) = self.queue.pop() else { break };
            self.at_once = if at == self.now { self.at_once + 1 } else { 0 };
            self.now = at;
            self.events += 1;
            if self.at_once > MOST_AT_ONCE {
                let what = format!("more than {MOST_AT_ONCE} things happen at one moment");
                self.oracle.judge(at, Err((Rule::Serves, what)));
            }
            self.happen(event);
        }
        if self.oracle.violation.is_none() {
            self.now = self.now.max(end);
        }
    }

    fn happen(&mut self, event: Event) {
        self.trace.number(self.now);
        self.trace.number(fingerprint(&event));
        match event {
            Event::Message { from, to, message } => self.deliver(from, to, message),
            Event::Wake { host, life } => self.wake(host, life),
            Event::Synced { host, life } => self.synced(host, life),
            Event::Stored { host, life } => self.stored(host, life),
            Event::Start { host } => self.start(host),
            Event::Resume { host, life, leap } => self.resume(host, life, leap),
            Event::Request { host, op, attempt } => self.request(host, op, attempt),
            Event::Answer { op, attempt, response } => self.answered(op, attempt, response),
            Event::GiveUp { op, attempt } => self.give_up(op, attempt),
            Event::Try { op } => self.attempt(op),
            Event::Next { client } => self.next_operation(client),
            Event::Keep { keeper, call } => self.keep(keeper, call),
            Event::KeeperAsks { host, keeper, call, ask } => self.keeper_asks(host, keeper, call, ask),
            Event::KeeperHears { keeper, call, said } => self.keeper_hears(keeper, call, &said),
            Event::Strike(fault) => self.strike(fault),
            Event::Mend(mend) => self.mend(*mend),
            Event::Operate => self.operate(),
        }
        self.look();
    }

    /// Lets the camera see how things are, if there is one.
    pub(crate) fn look(&mut self) {
        if let Some(mut camera) = self.camera.take() {
            camera.look(self);
            self.camera = Some(camera);
        }
    }

    /// Adds a line to the story, if anyone listens.
    pub(crate) fn tell(&mut self, host: Option<usize>, text: impl FnOnce() -> String) {
        if self.teller.is_none() && self.camera.is_none() {
            return;
        }
        let text = text();
        if let Some(camera) = &mut self.camera {
            camera.told(self.now, host, text.clone());
        }
        if let Some(teller) = &mut self.teller {
            let id = host.map(|host| NodeId(host as u64 + 1));
            teller(Line { at: self.now, id, text });
        }
    }

    /// Judges something that was looked at.
    pub(crate) fn judge(&mut self, judged: Result<(), (Rule, String)>) {
        self.oracle.judge(self.now, judged);
    }

    pub(crate) fn into_outcome(mut self) -> Outcome {
        self.coverage.take_probes();
        if let Some(violation) = self.oracle.violation.clone() {
            self.tell(None, || format!("VIOLATED: {violation}"));
        }
        Outcome {
            violation: self.oracle.violation.clone(),
            trace_hash: self.trace.value(),
            events: self.events,
            simulated: self.now,
            operations: self.clients.counts(),
            committed: self.oracle.commits.len(),
            elections: self.oracle.elections() as u64,
            coverage: self.coverage,
        }
    }

    /// Whether it is still the time of faults.
    pub(crate) fn may_strike(&self) -> bool {
        self.epoch == 0
    }

    /// A wait for people: an operator, a restart by hand.
    pub(crate) fn patience(&self) -> Moment {
        (self.plan.settings.election_max * 4).min(SECOND * 4)
    }
}

fn fingerprint(event: &Event) -> u64 {
    let at = |kind: u64, host: usize, more: u64| mix(kind << 32 | host as u64, more);
    match event {
        Event::Message { from, to, message } => mix(at(1, *from, *to as u64), message_fingerprint(message)),
        Event::Wake { host, life } => at(2, *host, u64::from(*life)),
        Event::Synced { host, life } => at(3, *host, u64::from(*life)),
        Event::Stored { host, life } => at(4, *host, u64::from(*life)),
        Event::Start { host } => at(5, *host, 0),
        Event::Resume { host, .. } => at(6, *host, 0),
        Event::Request { host, op, attempt } => mix(at(7, *host, *op), u64::from(*attempt)),
        Event::Answer { op, attempt, response } => {
            let said = match response {
                Ok(bytes) => super::oracle::digest(bytes),
                Err(Failure::NotDone(NotDone::NotLeader { leader })) => leader.map_or(1, |leader| leader.0 + 100),
                Err(Failure::NotDone(NotDone::Overloaded { .. })) => 2,
                Err(Failure::NotDone(NotDone::Superseded)) => 3,
                Err(Failure::Unknown(_)) => 4,
                Err(Failure::NotDone(_)) => 5,
            };
            mix(at(8, *attempt as usize, *op), said)
        }
        Event::GiveUp { op, attempt } => at(9, *attempt as usize, *op),
        Event::Try { op } => at(10, 0, *op),
        Event::Next { client } => at(11, *client, 0),
        Event::Strike(fault) => at(12, *fault as usize, 0),
        Event::Mend(_) => at(13, 0, 0),
        Event::Operate => at(14, 0, 0),
        Event::Keep { keeper, call } => at(15, *keeper, *call),
        Event::KeeperAsks { host, keeper, call, .. } => mix(at(16, *host, *keeper as u64), *call),
        Event::KeeperHears { keeper, call, said } => {
            let said = match said {
                Said::Done(bytes) => super::oracle::digest(bytes),
                Said::Alive => 1,
                Said::Gone => 2,
                Said::Elsewhere(leader) => leader.map_or(3, |leader| leader.0 + 100),
                Said::Unknown => 4,
            };
            mix(at(17, *keeper, *call), said)
        }
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
            bowline_raft::AppendOutcome::Accepted { match_index } => mix(6, match_index.0),
            bowline_raft::AppendOutcome::Rejected { hint, .. } => mix(7, hint.index.0),
            bowline_raft::AppendOutcome::Damaged { hint, .. } => mix(12, hint.index.0),
        },
        Body::InstallSnapshot(install) => mix(8, install.snapshot.position.index.0),
        Body::TimeoutNow => 9,
        Body::ReadIndex { context, .. } => mix(10, *context),
        Body::ReadIndexReply { context, index } => mix(mix(11, *context), index.map_or(0, |index| index.0)),
        Body::Returned { life, found } => mix(mix(13, *life), found.last.index.0),
        Body::Remembered { life, missing, .. } => mix(mix(14, *life), missing.map_or(0, |term| term.0)),
    };
    mix(message.term.0, body)
}
