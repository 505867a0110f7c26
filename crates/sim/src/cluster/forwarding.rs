//! Whole members forward what only the leader can serve, as on a server. Each pair of hosts has a connection for that,
//! which delivers in order, late, or up to some message only: then it is lost, and each end notices by itself.

use std::collections::BTreeMap;

use bowline_member::{Arrived, Attempt, Calls, LeaderRequest, ToLeader, encode_answer, receive};
use bowline_node::{Failure, NotDone, Response, Unknown};
use bowline_raft::{NodeId, Time, Token};
use bytes::{Bytes, BytesMut};

use crate::cluster::clock::Moment;
use crate::cluster::context::Context;
use crate::cluster::dice::Dice;
use crate::cluster::event::Event;
use crate::cluster::faults::Fault;
use crate::cluster::host::Asker;
use crate::cluster::network::Network;
use crate::cluster::plan::{MILLI, Plan, SECOND};
use crate::cluster::system::System;

/// How long a member works on a request of its client, if the client does not say how long it waits.
const PATIENCE: Moment = 5 * SECOND;

/// A connection: the host that asks, the one that is asked and the run of its process, and a number that no other
/// connection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) asking: usize,
    pub(crate) asked: usize,
    pub(crate) run: u32,
    pub(crate) number: u64,
}

/// The asking end of a connection.
#[derive(Debug)]
struct Open {
    line: Line,
    calls: Calls<Token>,
    /// When the last message to the host that is asked arrives, and the last one back.
    latest: [Moment; 2],
    /// It delivers nothing any more, but this end has not noticed yet.
    broken: bool,
}

/// A request of a member's client.
#[derive(Debug)]
struct Waiting {
    request: ToLeader,
    /// Counts the attempts and the pauses.
    step: u64,
    /// In a pause: the leader that was known when it began.
    pause: Option<Option<NodeId>>,
}

#[derive(Debug)]
pub(crate) struct Forwarding {
    /// By host, and by the token of the client's request.
    waiting: BTreeMap<(usize, Token), Waiting>,
    /// By the host that asks and the one that is asked.
    lines: BTreeMap<(usize, usize), Open>,
    /// How many connections there have been.
    made: u64,
    /// When two hosts may connect again.
    connects: BTreeMap<(usize, usize), Moment>,
    dice: Dice,
}

impl Forwarding {
    pub(crate) fn new(plan: &Plan) -> Forwarding {
        Forwarding {
            waiting: BTreeMap::new(),
            lines: BTreeMap::new(),
            made: 0,
            connects: BTreeMap::new(),
            dice: Dice::new(plan.chance(), 17),
        }
    }

    /// The connection between two hosts; `None` if there is none and none can be made now.
    fn line(&mut self, now: Moment, network: &Network, asking: usize, (asked, run): (usize, u32)) -> Option<Line> {
        let ends = (asking, asked);
        if !self.lines.contains_key(&ends) {
            let too_early = self.connects.get(&ends).is_some_and(|at| *at > now);
            if too_early || network.is_cut(asking, asked) || network.is_cut(asked, asking) {
                return None;
            }
            self.made += 1;
            let line = Line { asking, asked, run, number: self.made };
            self.lines.insert(ends, Open { line, calls: Calls::default(), latest: [now; 2], broken: false });
        }
        self.lines.get(&ends).map(|open| open.line)
    }

    fn open(&mut self, line: Line) -> Option<&mut Open> {
        self.lines.get_mut(&(line.asking, line.asked)).filter(|open| open.line == line)
    }

    /// When a message on a connection arrives; `None` if it does not, and neither does any later one.
    fn arrival(&mut self, ctx: &mut Context<'_>, network: &Network, line: Line, back: bool) -> Option<Moment> {
        let (from, to) = if back { (line.asked, line.asking) } else { (line.asking, line.asked) };
        let breaks = self.dice.chance(network.plan.breaks);
        let slow = network.plan.tail > 0 && self.dice.percent(2);
        let late = if slow { self.dice.magnitude(MILLI, SECOND) } else { 0 };
        let at = ctx.now + network.plan.delay.draw(&mut self.dice) + late;
        let lost = breaks || network.is_cut(from, to);
        let open = self.open(line)?;
        if lost && !open.broken {
            self.breaks(ctx, line);
            return None;
        }
        if open.broken {
            return None;
        }
        let latest = &mut open.latest[usize::from(back)];
        *latest = at.max(*latest);
        Some(*latest)
    }

    /// A connection breaks. The asking end notices later.
    fn breaks(&mut self, ctx: &mut Context<'_>, line: Line) {
        let notices = ctx.now + self.dice.magnitude(MILLI, ctx.plan.settings.election_max * 4);
        if let Some(open) = self.open(line)
            && !std::mem::replace(&mut open.broken, true)
        {
            ctx.coverage.struck(Fault::LineBreaks);
            ctx.trace(Some(line.asking), || format!("its connection for requests to n{} breaks", line.asked + 1));
            ctx.queue.push(notices, Event::LineLost { line });
        }
    }

    /// A process has died, and with it its ends of all connections.
    pub(crate) fn died(&mut self, ctx: &mut Context<'_>, host: usize) {
        self.waiting.retain(|(at, _), _| *at != host);
        self.lines.retain(|(asking, _), _| *asking != host);
        let lost: Vec<Line> = self.lines.values().map(|open| open.line).filter(|line| line.asked == host).collect();
        lost.into_iter().for_each(|line| self.breaks(ctx, line));
    }
}

/// The asking end.
impl System<'_> {
    /// A member takes a client's request that only the leader can serve.
    pub(crate) fn ask_leader(&mut self, host: usize, token: Token, request: LeaderRequest, deadline: Option<Time>) {
        let shown = self.hosts[host].clock.shows(self.ctx.now);
        let deadline = deadline.unwrap_or(shown.after(std::time::Duration::from_nanos(PATIENCE)));
        let waiting = Waiting { request: ToLeader::new(request, deadline), step: 0, pause: None };
        self.forwarding.waiting.insert((host, token), waiting);
        self.attempt(host, token);
    }

    fn attempt(&mut self, host: usize, token: Token) {
        let Some(raft) = self.hosts.raft(host) else { return };
        let attempt = ToLeader::attempt(raft.id(), raft.leader());
        let Some(waiting) = self.forwarding.waiting.get_mut(&(host, token)) else { return };
        waiting.step += 1;
        waiting.pause = None;
        let (request, deadline) = (waiting.request.request().clone(), waiting.request.deadline());
        match attempt {
            Attempt::Nowhere => self.attempted(host, token, Err(Failure::not_leader(None))),
            Attempt::Here => {
                let own = self.hosts[host].token(Asker::Attempt { token });
                self.request_whole(host, own, request, deadline);
            }
            Attempt::At(leader) => {
                let sent = self.send_request(host, token, leader, &request, deadline);
                if !sent {
                    self.attempted(host, token, Err(NotDone::Unreachable.into()));
                }
            }
        }
    }

    /// Sends a request to the leader. Returns whether it was sent.
    fn send_request(
        &mut self,
        host: usize,
        token: Token,
        leader: NodeId,
        request: &LeaderRequest,
        deadline: Time,
    ) -> bool {
        let asked = leader.0 as usize - 1;
        let Some(run) = self.hosts.get(asked).filter(|it| it.is_up()).map(|it| it.run) else { return false };
        let Some(line) = self.forwarding.line(self.ctx.now, &self.network, host, (asked, run)) else { return false };
        let patience = deadline.since(self.hosts[host].clock.shows(self.ctx.now));
        let mut out = BytesMut::new();
        if let Some(open) = self.forwarding.open(line) {
            open.calls.ask(request, patience, token, &mut out);
        }
        self.ctx.trace(Some(host), || format!("forwards a request to n{}", asked + 1));
        if let Some(at) = self.forwarding.arrival(&mut self.ctx, &self.network, line, false) {
            self.ctx.queue.push(at, Event::Forwarded { line, body: out.freeze() });
        }
        self.look_again(host, token, deadline);
        true
    }

    /// Plans to look again at a request, unless something happens to it earlier.
    fn look_again(&mut self, host: usize, token: Token, at: Time) {
        let it = &self.hosts[host];
        let Some(waiting) = self.forwarding.waiting.get(&(host, token)) else { return };
        let (run, step) = (it.run, waiting.step);
        let at = it.clock.moment_of(at).max(self.ctx.now);
        self.ctx.queue.push(at, Event::Attempt { host, run, token, step });
    }

    /// An attempt has ended.
    pub(crate) fn attempted(&mut self, host: usize, token: Token, answer: Response) {
        let leader = self.hosts.raft(host).and_then(|raft| raft.leader());
        let Some(waiting) = self.forwarding.waiting.get_mut(&(host, token)) else { return };
        if let Some(answer) = waiting.request.ends_with(answer) {
            return self.settled(host, token, answer);
        }
        let now = self.hosts[host].clock.shows(self.ctx.now);
        waiting.step += 1;
        waiting.pause = Some(leader);
        let pause = waiting.request.pause(now, leader);
        self.look_again(host, token, now.after(pause));
    }

    /// The pause after an attempt is over, or the time to wait for an answer.
    pub(crate) fn attempt_again(&mut self, host: usize, run: u32, token: Token, step: u64) {
        let it = &mut self.hosts[host];
        if it.run != run {
            return;
        }
        if it.paused {
            return it.wait(Event::Attempt { host, run, token, step });
        }
        let now = it.clock.shows(self.ctx.now);
        let Some(waiting) = self.forwarding.waiting.get(&(host, token)).filter(|it| it.step == step) else { return };
        if waiting.pause.is_none() {
            return self.settled(host, token, Err(Unknown::Expired.into()));
        }
        match waiting.request.expires(now) {
            Some(answer) => self.settled(host, token, answer),
            None => self.attempt(host, token),
        }
    }

    /// After a round: those that wait for another leader may have one.
    pub(crate) fn look_for_leader(&mut self, host: usize) {
        let Some(raft) = self.hosts.raft(host) else { return };
        let leader = raft.leader();
        let all = self.forwarding.waiting.range((host, Token(0))..=(host, Token(u64::MAX)));
        let changed = |waiting: &Waiting| waiting.pause.is_some_and(|before| before != leader);
        let again: Vec<(Token, u64)> =
            all.filter(|(_, it)| changed(it)).map(|((_, token), it)| (*token, it.step)).collect();
        let run = self.hosts[host].run;
        for (token, step) in again {
            self.ctx.queue.push(self.ctx.now, Event::Attempt { host, run, token, step });
        }
    }

    /// The client is answered.
    fn settled(&mut self, host: usize, token: Token, answer: Response) {
        self.forwarding.waiting.remove(&(host, token));
        self.respond(host, token, answer);
    }

    /// The answer of the member that was asked arrives.
    pub(crate) fn forward_answered(&mut self, line: Line, body: Bytes) {
        let it = &mut self.hosts[line.asking];
        if it.paused {
            return it.wait(Event::ForwardAnswered { line, body });
        }
        let answered = self.forwarding.open(line).and_then(|open| open.calls.answered(body));
        if let Some((token, answer)) = answered {
            self.ctx.coverage.struck(Fault::Forwarded);
            self.attempted(line.asking, token, answer);
        }
    }

    /// The asking end notices that a connection is lost.
    pub(crate) fn line_lost(&mut self, line: Line) {
        let it = &mut self.hosts[line.asking];
        if it.paused {
            return it.wait(Event::LineLost { line });
        }
        let ends = (line.asking, line.asked);
        if self.forwarding.open(line).is_none() {
            return;
        }
        let Some(open) = self.forwarding.lines.remove(&ends) else { return };
        let again = self.ctx.now + self.forwarding.dice.magnitude(MILLI, self.ctx.plan.settings.election_max);
        self.forwarding.connects.insert(ends, again);
        for (token, answer) in open.calls.lost() {
            self.attempted(line.asking, token, answer);
        }
    }
}

/// The answering end.
impl System<'_> {
    /// A forwarded request arrives. It is served even if the asking end has lost the connection meanwhile.
    pub(crate) fn forwarded(&mut self, line: Line, body: Bytes) {
        let host = line.asked;
        let it = &mut self.hosts[host];
        if it.run != line.run {
            return;
        }
        if it.paused {
            return it.wait(Event::Forwarded { line, body });
        }
        match receive(body, it.clock.shows(self.ctx.now)) {
            Ok(Arrived::Request { id, request, deadline }) => {
                let token = it.token(Asker::Forwarded { line, id });
                self.request_whole(host, token, request, deadline);
            }
            Ok(Arrived::Refused { id, answer }) => self.answer_forwarded(line, id, &answer),
            Err(error) => unreachable!("a member of this version has encoded it: {error}"),
        }
    }

    /// The leader answers a forwarded request.
    pub(crate) fn answer_forwarded(&mut self, line: Line, id: u64, answer: &Response) {
        let mut out = BytesMut::new();
        encode_answer(id, answer, &mut out);
        if let Some(at) = self.forwarding.arrival(&mut self.ctx, &self.network, line, true) {
            self.ctx.queue.push(at, Event::ForwardAnswered { line, body: out.freeze() });
        }
    }
}
