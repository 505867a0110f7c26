//! The keepers of leases (C4). A keeper has a lease granted, attaches a key to it, keeps it alive for a while, and then
//! revokes it or just stops. A lease must live as long as its keeper was promised, whichever replica leads. Once nobody
//! keeps it alive, it must end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bowline_kv::store::{
    Command, LeaseChange, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, Renewal, Renewed,
    Response as StoreResponse,
};
use bowline_member::{LeaderRequest, LeaseTime};
use bowline_node::{Failure, NodeInput, NotDone, Response};
use bowline_raft::{NodeId, ReadKind};
use bytes::Bytes;

use crate::cluster::Sabotage;
use crate::cluster::clients::Request;
use crate::cluster::clock::Moment;
use crate::cluster::context::Context;
use crate::cluster::dice::Dice;
use crate::cluster::event::Event;
use crate::cluster::faults::Fault;
use crate::cluster::host::{Asker, Host};
use crate::cluster::machine::Applied;
use crate::cluster::network::Network;
use crate::cluster::numbered::Numbered;
use crate::cluster::oracle::{Judged, Rule};
use crate::cluster::plan::{Clocks, MILLI, Plan, SECOND};
use crate::cluster::shape::reply_of;

/// The numbers of commands about leases start here, beyond all operations of clients.
pub(crate) const LEASE_OPS: u64 = 1 << 48;
/// Maximum time to live that a keeper asks for, in seconds.
const LONGEST_TTL: u64 = 4;

/// A keeper's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The command of this number.
    Write(u64),
    /// To keep a lease alive.
    Renew(i64),
}

/// The answer to a keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The store's reply to a command.
    Done(Bytes),
    Alive,
    Gone,
    /// Nothing was done; this replica may be the leader.
    Elsewhere(Option<NodeId>),
    /// The outcome is unknown.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Resting,
    Granting,
    Attaching,
    Keeping,
    Revoking,
}

#[derive(Debug)]
struct Keeper {
    dice: Dice,
    guess: usize,
    step: Step,
    lease: i64,
    ttl: u64,
    /// Renewals until it stops keeping its lease alive.
    left: u64,
    /// Its last request, and whether to send it again.
    ask: Ask,
    again: bool,
    /// Counts its steps. A timer or an answer of an earlier step is ignored.
    call: u64,
    /// The term in which its lease was confirmed last.
    term: u64,
}

/// A promise that a lease lives until a time, in true time.
#[derive(Clone, Copy, Debug)]
struct Promise {
    made: Moment,
    until: Moment,
    /// When the first replica expired the lease.
    ended: Option<Moment>,
}

#[derive(Debug)]
pub(crate) struct Keepers {
    keepers: Vec<Keeper>,
    dice: Dice,
    commands: Numbered,
    promises: BTreeMap<i64, Promise>,
    /// Leases that their keepers have ended themselves.
    revoked: BTreeSet<i64>,
    /// When clocks jumped ahead, and by how much. A leader can't tell such a jump from passing time.
    leaps: Vec<(Moment, u64)>,
    /// How much the fastest clock gains, in parts per million.
    gains_ppm: u64,
    /// When the keepers stopped, if they have.
    stopped: Option<Moment>,
}

impl Keepers {
    pub(crate) fn new(plan: &Plan) -> Keepers {
        let keeper = |at: usize| Keeper {
            dice: Dice::new(plan.chance(), 0x1ea5_e000 + at as u64),
            guess: 0,
            step: Step::Resting,
            lease: 0,
            ttl: 1,
            left: 0,
            ask: Ask::Renew(0),
            again: false,
            call: 0,
            term: 0,
        };
        let gains_ppm = match plan.clocks {
            Clocks::True => 0,
            Clocks::Drifting => plan.settings.drift_ppm.into(),
            Clocks::Wild => 400_000,
        };
        Keepers {
            keepers: (0..plan.workload.keepers).map(keeper).collect(),
            dice: Dice::new(plan.chance(), 0x1ea5_0000),
            commands: Numbered::new(LEASE_OPS),
            promises: BTreeMap::new(),
            revoked: BTreeSet::new(),
            leaps: Vec::new(),
            gains_ppm,
            stopped: None,
        }
    }

    /// The longest time that a lease lives without renewal, by any clock; `None` if there are no keepers.
    pub(crate) fn longest_lease(&self) -> Option<Moment> {
        (!self.keepers.is_empty()).then(|| self.longest(LONGEST_TTL))
    }

    /// When the keepers stopped, if they have.
    pub(crate) fn stopped(&self) -> Option<Moment> {
        self.stopped
    }

    /// A clock jumps ahead.
    pub(crate) fn leapt(&mut self, now: Moment, by: u64) {
        self.leaps.push((now, by));
    }

    pub(crate) fn stop(&mut self, now: Moment) {
        self.stopped = Some(now);
    }

    /// Returns the command that took effect. Each may do so only once.
    pub(crate) fn took_effect(&mut self, applied: &Applied) -> Result<Command, (Rule, String)> {
        self.commands.took_effect(applied)
    }

    /// The shortest true time of a time to live, by any clock.
    fn shortest(&self, ttl: u64) -> Moment {
        let (nanos, million) = (u128::from(ttl * SECOND), 1_000_000_u128);
        u64::try_from(nanos * million / (million + u128::from(self.gains_ppm))).unwrap_or(0)
    }

    /// The longest true time of a time to live, by any clock.
    fn longest(&self, ttl: u64) -> Moment {
        ttl * SECOND * 1_000_000 / (1_000_000 - self.gains_ppm)
    }

    fn leapt_since(&self, since: Moment) -> u64 {
        self.leaps.iter().filter(|(at, _)| *at >= since).map(|(_, by)| by).fold(0, |sum, by| sum.saturating_add(*by))
    }

    /// A keeper was told that its lease lives, as of `made`.
    fn promise(&mut self, id: i64, made: Moment, ttl: u64) -> Judged {
        let until = made + self.shortest(ttl);
        let promise = self.promises.entry(id).or_insert(Promise { made, until, ended: None });
        if promise.until <= until {
            (promise.made, promise.until) = (made, until);
        }
        let promise = *promise;
        promise.ended.map_or(Ok(()), |ended| self.judge_end(id, &promise, ended))
    }

    /// Checks the changes of leases by a command, when the first replica applies it.
    pub(crate) fn changed(&mut self, command: &Command, changes: &[LeaseChange], now: Moment) -> Judged {
        for change in changes {
            match (command, change) {
                (Command::LeaseExpire(_), LeaseChange::Gone(id)) => self.expired(*id, now)?,
                // Its keeper revoked it.
                (_, LeaseChange::Gone(id)) => {
                    self.revoked.insert(*id);
                }
                (_, LeaseChange::Granted(_)) => {}
            }
        }
        Ok(())
    }

    /// The first replica expired a lease.
    fn expired(&mut self, id: i64, now: Moment) -> Judged {
        let Some(promise) = self.promises.get_mut(&id) else { return Ok(()) };
        promise.ended = Some(now);
        let promise = *promise;
        self.judge_end(id, &promise, now)
    }

    fn judge_end(&self, id: i64, promise: &Promise, ended: Moment) -> Judged {
        let excused = self.revoked.contains(&id);
        if excused || ended.saturating_add(self.leapt_since(promise.made)) >= promise.until {
            return Ok(());
        }
        let seconds = |moment: Moment| moment as f64 / 1e9;
        let (made, until, ended) = (seconds(promise.made), seconds(promise.until), seconds(ended));
        let what = format!("lease {id} ends at {ended:.6} s, promised at {made:.6} s until {until:.6} s");
        Err((Rule::LeasesAreKept, what))
    }
}

/// What keepers do.
impl Keepers {
    pub(crate) fn begin(&mut self, ctx: &mut Context<'_>) {
        for keeper in 0..self.keepers.len() {
            let at = self.keepers[keeper].dice.waiting(SECOND);
            ctx.queue.push(ctx.now + at, Event::Keep { keeper, call: 0 });
        }
    }

    /// A keeper takes its next step, or waits no longer for an answer.
    pub(crate) fn keep(&mut self, ctx: &mut Context<'_>, network: &mut Network, keeper: usize, call: u64) {
        let it = &mut self.keepers[keeper];
        if it.call != call || self.stopped.is_some() {
            return;
        }
        if std::mem::take(&mut it.again) {
            return self.send(ctx, network, keeper);
        }
        match it.step {
            Step::Resting => {
                // An identity that was never used before.
                it.lease = (it.lease / 100 + 1) * 100 + keeper as i64 + 1;
                it.ttl = 1 + it.dice.below(LONGEST_TTL);
                it.left = it.dice.below(12);
                it.term = 0;
                let grant = LeaseGrantRequest { id: it.lease, ttl: it.ttl as i64 };
                self.write(ctx, network, keeper, Step::Granting, Command::LeaseGrant(grant));
            }
            Step::Keeping if it.left == 0 => {
                if it.dice.percent(30) {
                    let revoke = LeaseRevokeRequest { id: it.lease };
                    self.write(ctx, network, keeper, Step::Revoking, Command::LeaseRevoke(revoke));
                } else {
                    self.rest(ctx, keeper);
                }
            }
            Step::Keeping => {
                it.ask = Ask::Renew(it.lease);
                self.send(ctx, network, keeper);
            }
            // The outcome is unknown, and the command must not take effect twice.
            Step::Granting | Step::Attaching | Step::Revoking => self.rest(ctx, keeper),
        }
    }

    /// A message arrives that ends the leadership of this host. Often a keeper's request to it arrives at the same moment:
    /// the host may take both in one round.
    pub(crate) fn ask_at_once(&mut self, ctx: &mut Context<'_>, host: usize) {
        let keeps = |it: &Keeper| it.step == Step::Keeping && it.left > 0 && it.guess == host && !it.again;
        let Some(keeper) = self.keepers.iter().position(keeps).filter(|_| self.stopped.is_none()) else { return };
        if self.dice.percent(50) {
            self.wait(ctx, keeper, ctx.plan.workload.timeout);
            let it = &mut self.keepers[keeper];
            it.ask = Ask::Renew(it.lease);
            let (call, ask) = (it.call, it.ask);
            ctx.trace(None, || format!("keeper {keeper} asks n{} at once: {ask:?}", host + 1));
            ctx.queue.push(ctx.now, Event::KeeperAsks { host, keeper, call, ask });
        }
    }

    fn write(&mut self, ctx: &mut Context<'_>, network: &mut Network, keeper: usize, step: Step, command: Command) {
        let number = self.commands.number(command);
        let it = &mut self.keepers[keeper];
        (it.step, it.ask) = (step, Ask::Write(number));
        self.send(ctx, network, keeper);
    }

    fn rest(&mut self, ctx: &mut Context<'_>, keeper: usize) {
        let it = &mut self.keepers[keeper];
        it.step = Step::Resting;
        let pause = it.dice.waiting(2 * SECOND);
        self.wait(ctx, keeper, pause);
    }

    /// Takes its next step later. Earlier answers no longer count.
    fn wait(&mut self, ctx: &mut Context<'_>, keeper: usize, pause: Moment) {
        let it = &mut self.keepers[keeper];
        it.call += 1;
        ctx.queue.push(ctx.now + pause, Event::Keep { keeper, call: it.call });
    }

    fn send(&mut self, ctx: &mut Context<'_>, network: &mut Network, keeper: usize) {
        let (hosts, timeout) = (network.size(), ctx.plan.workload.timeout);
        self.wait(ctx, keeper, timeout);
        let it = &mut self.keepers[keeper];
        let host = match &ctx.whole[..] {
            [] if it.dice.percent(10) => it.dice.index(hosts),
            [] => it.guess,
            only if only.contains(&it.guess) => it.guess,
            only => only[it.dice.index(only.len())],
        };
        let (call, ask) = (it.call, it.ask);
        let arrives = network.client_way(ctx.now, host, &mut self.dice);
        let what = match ask {
            Ask::Renew(lease) => format!("keep lease {lease} alive"),
            Ask::Write(number) => format!("{:?}", self.commands.command(number)),
        };
        ctx.trace(None, || format!("keeper {keeper} asks n{}: {what}", host + 1));
        if let Some(at) = arrives {
            ctx.queue.push(at, Event::KeeperAsks { host, keeper, call, ask });
        }
    }

    /// A keeper receives an answer.
    pub(crate) fn hear(&mut self, ctx: &mut Context<'_>, network: &mut Network, keeper: usize, call: u64, said: &Said) {
        let it = &mut self.keepers[keeper];
        if it.call != call || self.stopped.is_some() {
            return;
        }
        let (heartbeat, count) = (ctx.plan.settings.heartbeat, network.size());
        let reply = if let Said::Done(bytes) = said { reply_of(bytes) } else { None };
        match (it.step, said, reply) {
            (_, Said::Elsewhere(leader), _) => {
                it.guess = match leader {
                    Some(NodeId(leader)) if (1..=count as u64).contains(leader) => *leader as usize - 1,
                    _ => it.dice.index(count),
                };
                it.again = true;
                let pause = it.dice.between(MILLI, heartbeat);
                self.wait(ctx, keeper, pause);
            }
            (Step::Granting, _, Some(Ok(StoreResponse::LeaseGrant(grant)))) => {
                let (id, key) = (grant.id, Bytes::from(format!("lease{}", grant.id)));
                let put = PutRequest { key, value: Bytes::from_static(b"held"), lease: id, ..PutRequest::default() };
                self.write(ctx, network, keeper, Step::Attaching, Command::Put(put));
            }
            (Step::Attaching, _, Some(Ok(_))) | (Step::Keeping, Said::Alive, _) => {
                it.step = Step::Keeping;
                it.left = it.left.saturating_sub(1);
                // Renews mostly in time, sometimes late.
                let pause = it.dice.between(it.ttl * SECOND / 6, it.ttl * SECOND / 2);
                let pause = if it.dice.percent(10) { pause * 3 } else { pause };
                self.wait(ctx, keeper, pause);
            }
            _ => self.rest(ctx, keeper),
        }
    }
}

/// What replicas do for keepers.
impl Keepers {
    /// A keeper's request arrives at a replica. Returns the replica's input, if there is one.
    pub(crate) fn asked(
        &mut self,
        ctx: &mut Context<'_>,
        network: &mut Network,
        it: &mut Host,
        (keeper, call, ask): (usize, u64, Ask),
    ) -> Option<Request> {
        let host = it.at();
        let Some(node) = &it.node else {
            self.tell(ctx, network, host, keeper, call, Said::Elsewhere(None));
            return None;
        };
        if it.paused {
            it.wait(Event::KeeperAsks { host, keeper, call, ask });
            return None;
        }
        let (leads, leader) = (node.raft().is_leader(), node.raft().leader());
        if let (Ask::Renew(id), true) = (ask, node.whole().is_some()) {
            let deadline = it.deadline(ctx);
            let token = it.token(Asker::Keeper { keeper, call, ask, begun: ctx.now, renewal: None });
            let request = LeaderRequest::Lease { id, renew: true };
            return Some(Request::ToLeader { token, request, deadline });
        }
        let shown = it.clock.shows(ctx.now);
        match ask {
            Ask::Write(_) if !it.disk.has_room() => {
                self.tell(ctx, network, host, keeper, call, Said::Elsewhere(None));
                None
            }
            Ask::Write(number) => {
                let command = self.commands.encoded(number);
                let token = it.token(Asker::Keeper { keeper, call, ask, begun: ctx.now, renewal: None });
                Some(Request::Step(NodeInput::Write { token, command, deadline: it.deadline(ctx) }))
            }
            Ask::Renew(_) if !leads => {
                self.tell(ctx, network, host, keeper, call, Said::Elsewhere(leader));
                None
            }
            Ask::Renew(id) => {
                let renewal = it.lessor.begin_renewal(shown, id);
                if ctx.plan.sabotage == Some(Sabotage::HastyRenewals) {
                    let again = self.renewal_read(ctx, network, it, (keeper, call, ask), (ctx.now, renewal));
                    return again.map(Request::Step);
                }
                Some(Request::Step(self.confirm_renewal(ctx, it, (keeper, call, ask), renewal)))
            }
        }
    }

    /// A whole member has answered whether a lease lives.
    fn judge_renewal(
        &mut self,
        ctx: &mut Context<'_>,
        it: &Host,
        (keeper, ask): (usize, Ask),
        begun: Moment,
        told: Bytes,
    ) -> Said {
        let (Ask::Renew(id), Ok(told)) = (ask, LeaseTime::decode(told)) else {
            ctx.judge(Err((Rule::AnswersAreTrue, format!("n{} gives no time of a lease", it.at() + 1))));
            return Said::Unknown;
        };
        let Some(time) = told else {
            ctx.judge(self.judge_gone(ctx.now, it.at(), ask));
            return Said::Gone;
        };
        ctx.judge(self.promise(id, begun, time.granted.unsigned_abs()));
        let term = it.node.as_ref().map_or(0, |node| node.raft().term().0);
        let before = std::mem::replace(&mut self.keepers[keeper].term, term);
        if before != 0 && before != term {
            ctx.coverage.struck(Fault::LeaseMoves);
        }
        Said::Alive
    }

    /// Starts the read that confirms a renewal.
    fn confirm_renewal(
        &mut self,
        ctx: &Context<'_>,
        it: &mut Host,
        (keeper, call, ask): (usize, u64, Ask),
        renewal: Renewal,
    ) -> NodeInput {
        let deadline = it.deadline(ctx);
        let token = it.token(Asker::Keeper { keeper, call, ask, begun: ctx.now, renewal: Some(renewal) });
        let kind = if self.dice.percent(50) { ReadKind::Lease } else { ReadKind::Quorum };
        NodeInput::Read { token, kind, deadline }
    }

    /// A replica answers a keeper, or first starts another read, which is returned.
    pub(crate) fn answered(
        &mut self,
        ctx: &mut Context<'_>,
        network: &mut Network,
        it: &mut Host,
        (keeper, call, ask): (usize, u64, Ask),
        (begun, renewal): (Moment, Option<Renewal>),
        response: Response,
    ) -> Option<NodeInput> {
        let said = match (response, renewal) {
            (Ok(_), Some(renewal)) => {
                return self.renewal_read(ctx, network, it, (keeper, call, ask), (begun, renewal));
            }
            (Ok(bytes), None) if matches!(ask, Ask::Renew(_)) => {
                self.judge_renewal(ctx, it, (keeper, ask), begun, bytes)
            }
            (Ok(bytes), None) => {
                if let Some(Ok(StoreResponse::LeaseGrant(grant))) = reply_of(&bytes) {
                    ctx.judge(self.promise(grant.id, begun, grant.ttl.unsigned_abs()));
                }
                Said::Done(bytes)
            }
            (Err(Failure::NotDone(NotDone::NotLeader { leader })), _) => Said::Elsewhere(leader),
            (Err(Failure::NotDone(_)), _) | (_, Some(_)) => Said::Elsewhere(None),
            // To renew a lease twice does no harm.
            (Err(Failure::Unknown(_)), None) if matches!(ask, Ask::Renew(_)) => Said::Elsewhere(None),
            (Err(Failure::Unknown(_)), None) => Said::Unknown,
        };
        self.tell(ctx, network, it.at(), keeper, call, said);
        None
    }

    /// The read that confirms a renewal is done. Returns another one, if it must be repeated.
    fn renewal_read(
        &mut self,
        ctx: &mut Context<'_>,
        network: &mut Network,
        it: &mut Host,
        (keeper, call, ask): (usize, u64, Ask),
        (begun, renewal): (Moment, Renewal),
    ) -> Option<NodeInput> {
        let shown = it.clock.shows(ctx.now);
        let term = it.node.as_ref().map_or(0, |node| node.raft().term().0);
        let said = match it.lessor.end_renewal(shown, renewal) {
            Renewed::Alive(lease) => {
                ctx.judge(self.promise(lease.id, begun, lease.ttl.unsigned_abs()));
                let before = std::mem::replace(&mut self.keepers[keeper].term, term);
                if before != 0 && before != term {
                    ctx.coverage.struck(Fault::LeaseMoves);
                }
                Said::Alive
            }
            Renewed::Again(renewal) => return Some(self.confirm_renewal(ctx, it, (keeper, call, ask), renewal)),
            Renewed::Gone => {
                ctx.judge(self.judge_gone(ctx.now, it.at(), ask));
                Said::Gone
            }
            Renewed::NotLeading => Said::Elsewhere(None),
        };
        self.tell(ctx, network, it.at(), keeper, call, said);
        None
    }

    /// A keeper is told that its lease is gone; that must not be before the promised time.
    fn judge_gone(&self, now: Moment, host: usize, ask: Ask) -> Judged {
        let Ask::Renew(id) = ask else { return Ok(()) };
        let Some(promise) = self.promises.get(&id) else { return Ok(()) };
        let judged = self.judge_end(id, promise, promise.ended.unwrap_or(now));
        judged.map_err(|(rule, what)| (rule, format!("n{} says that the lease is gone: {what}", host + 1)))
    }

    fn tell(
        &mut self,
        ctx: &mut Context<'_>,
        network: &mut Network,
        host: usize,
        keeper: usize,
        call: u64,
        said: Said,
    ) {
        ctx.trace(Some(host), || format!("tells keeper {keeper}: {said:?}"));
        if let Some(at) = network.client_way(ctx.now, host, &mut self.dice) {
            ctx.queue.push(at.max(ctx.now + 1), Event::KeeperHears { keeper, call, said });
        }
    }

    /// A leader proposes the end of the leases that have expired.
    pub(crate) fn propose_ends(&mut self, ctx: &mut Context<'_>, it: &mut Host) -> Option<NodeInput> {
        if !it.leads() || !it.disk.has_room() || it.node.as_ref().is_some_and(|node| node.whole().is_some()) {
            return None;
        }
        let term = it.node.as_ref().map_or(0, |node| node.raft().term().0);
        let request = it.lessor.expired(it.clock.shows(ctx.now))?;
        ctx.trace(Some(it.at()), || format!("proposes the end of leases {:?}", request.leases));
        let number = self.commands.number(Command::LeaseExpire(request));
        let command = self.commands.encoded(number);
        Some(NodeInput::Write { token: it.token(Asker::Lessor { number, term }), command, deadline: None })
    }

    /// Handles the outcome of such a proposal. It is repeated later if nothing was done.
    pub(crate) fn end_proposed(&self, now: Moment, it: &mut Host, (number, term): (u64, u64), response: &Response) {
        if let (Some(Command::LeaseExpire(request)), Err(Failure::NotDone(_))) =
            (self.commands.command(number), response)
        {
            let later = it.clock.shows(now).after(Duration::from_millis(100));
            it.lessor.retry(later, term, request);
        }
    }
}
