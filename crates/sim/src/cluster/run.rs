//! A running cluster: its actors, and the loop that hands each event to its actor.

use bowline_checker::trace::TraceHash;
use bowline_raft::{Group, Membership, NodeId};

use crate::cluster::Summary;
use crate::cluster::clock::Moment;
use crate::cluster::context::Context;
use crate::cluster::event::Event;
use crate::cluster::faults::{self, Fault};
use crate::cluster::operator::Operator;
use crate::cluster::oracle::Rule;
use crate::cluster::schedule::{self, Choice};
use crate::cluster::system::System;

/// Maximum number of events at one moment. More would mean an endless loop.
const MOST_AT_ONCE: u32 = 200_000;

pub(crate) struct Cluster<'a> {
    pub(crate) system: System<'a>,
    operator: Operator,
    hash: TraceHash,
    events: u64,
    at_once: u32,
    /// How many choices of the schedule were made, and how many events happen in turn before the next.
    chosen: usize,
    in_turn: u32,
}

impl<'a> Cluster<'a> {
    pub(crate) fn new(ctx: Context<'a>) -> Cluster<'a> {
        let operator = Operator::default();
        let mut cluster = Cluster {
            system: System::new(ctx),
            operator,
            hash: TraceHash::new(),
            events: 0,
            at_once: 0,
            chosen: 0,
            in_turn: 0,
        };
        cluster.populate();
        cluster.look();
        cluster
    }

    fn populate(&mut self) {
        let plan = self.system.ctx.plan.clone();
        let founders = Membership::simple(Group::of_voters((1..=plan.voters as u64).map(NodeId)));
        for _ in 0..plan.voters {
            self.system.add_host(Some(founders.clone()));
        }
        let spares = if plan.faults.iter().any(|(fault, _)| *fault == Fault::Churn) { 2 } else { 0 };
        for at in 0..plan.learners + spares {
            let newcomer = self.system.add_host(None);
            let newcomer = newcomer.filter(|_| at < plan.learners);
            self.operator.newcomers.extend(newcomer);
            self.system.members.newcomers.extend(newcomer);
        }
        let ctx = &mut self.system.ctx;
        for client in 0..plan.workload.clients {
            if let Some(at) = ctx.script.first_start(client, plan.workload.pause) {
                ctx.queue.push(at, Event::Next { client });
            }
        }
        self.system.keepers.begin(ctx);
        let by_themselves = if plan.schedule.is_none() { plan.faults } else { Vec::new() };
        for (fault, mean) in by_themselves {
            if let Some(mut dice) = ctx.script.first_strike(fault) {
                ctx.queue.push(dice.waiting(mean), Event::Strike(fault));
            }
        }
        ctx.queue.push(plan.settings.election_max * 3, Event::Operate);
    }

    /// Does the whole run: the safety phase, the liveness phase, and the check of the history.
    pub(crate) fn run(&mut self) {
        self.run_until(self.system.ctx.plan.safety);
        if self.system.ctx.plan.liveness {
            self.heal_and_serve();
        }
        if !self.is_violated() {
            self.system.clients.check_history(&mut self.system.ctx);
        }
    }

    pub(crate) fn is_violated(&self) -> bool {
        self.system.ctx.oracle.violation.is_some()
    }

    pub(crate) fn now(&self) -> Moment {
        self.system.ctx.now
    }

    /// Handles all events up to `end`.
    pub(crate) fn run_until(&mut self, end: Moment) {
        while !self.is_violated() && self.system.ctx.queue.next_at().is_some_and(|at| at <= end) {
            if self.choose() {
                continue;
            }
            let ctx = &mut self.system.ctx;
            let Some((at, event)) = ctx.queue.pop() else { break };
            self.at_once = if at == ctx.now { self.at_once + 1 } else { 0 };
            ctx.now = at;
            self.events += 1;
            if self.at_once > MOST_AT_ONCE {
                let what = format!("more than {MOST_AT_ONCE} events at one moment");
                ctx.judge(Err((Rule::Serves, what)));
            }
            self.hash.number(at);
            self.hash.number(event.fingerprint());
            self.happen(event);
            self.look();
        }
        if !self.is_violated() {
            self.system.ctx.now = self.now().max(end);
        }
    }

    /// Does what the schedule says before the next event, if there is a schedule. Returns whether that may have changed
    /// which event is the next one.
    fn choose(&mut self) -> bool {
        let ctx = &mut self.system.ctx;
        if self.in_turn > 0 || ctx.healed {
            self.in_turn = self.in_turn.saturating_sub(1);
            return false;
        }
        let Some(choice) = ctx.plan.schedule.as_ref().and_then(|schedule| schedule.choice(self.chosen)) else {
            return false;
        };
        self.chosen += 1;
        match choice {
            Choice::InTurn(count) => self.in_turn = count,
            Choice::Strike(kind) => {
                if ctx.plan.faults.iter().any(|(fault, _)| *fault == kind) {
                    ctx.queue.push(ctx.now, Event::Strike(kind));
                }
            }
            Choice::Postpone(doublings) => {
                let Some((at, event)) = ctx.queue.pop() else { return false };
                let may_wait = event.may_wait(ctx.plan.network.in_order);
                let wait = if may_wait { schedule::wait(doublings, ctx.plan.settings.election_max) } else { 0 };
                ctx.queue.push(at + wait, event);
            }
        }
        true
    }

    /// Hands an event to its actor.
    fn happen(&mut self, event: Event) {
        let system = &mut self.system;
        let (ctx, network) = (&mut system.ctx, &mut system.network);
        match event {
            Event::Message { from, to, message } => system.deliver(from, to, message),
            Event::Wake { host, run } => system.wake(host, run),
            Event::Synced { host, run } => system.synced(host, run),
            Event::Stored { host, run } => system.stored(host, run),
            Event::Work { host, run, worker } => system.work(host, run, worker),
            Event::Attempt { host, run, token, step } => system.attempt_again(host, run, token, step),
            Event::Forwarded { line, body } => system.forwarded(line, body),
            Event::ForwardAnswered { line, body } => system.forward_answered(line, body),
            Event::LineLost { line } => system.line_lost(line),
            Event::Start { host } => system.start(host),
            Event::Resume { host, run, leap } => system.resume(host, run, leap),
            Event::Request { host, op, attempt } => system.client_asks(host, op, attempt),
            Event::Answer { op, attempt, response } => system.clients.answered(ctx, network, op, attempt, response),
            Event::GiveUp { op, attempt } => system.clients.give_up(ctx, network, op, attempt),
            Event::Try { op } => system.clients.attempt(ctx, network, op),
            Event::Next { client } => system.clients.next_operation(ctx, network, client),
            Event::Keep { keeper, call } => system.keepers.keep(ctx, network, keeper, call),
            Event::KeeperAsks { host, keeper, call, ask } => system.keeper_asks(host, (keeper, call, ask)),
            Event::KeeperHears { keeper, call, said } => system.keepers.hear(ctx, network, keeper, call, &said),
            Event::MemberAsks { host, call, number } => system.member_asks(host, (call, number)),
            Event::MemberHears { call, number, said } => system.members.hear(ctx, network, call, number, &said),
            Event::MemberTries { call } => system.members.send(ctx, network, call),
            Event::Duties { host, run } => system.do_duties(host, run),
            Event::DutyEnded { host, run, duty, answer } => system.duty_ended(host, run, duty, answer),
            Event::Strike(fault) => faults::strike(system, fault),
            Event::FollowUp(next) => faults::follow_up(system, *next),
            Event::Operate if ctx.plan.workload.records => system.operate_by_records(),
            Event::Operate => {
                let losses = std::mem::take(&mut system.losses);
                if let Some(change) = self.operator.operate(ctx, &system.hosts, losses) {
                    system.ask_for(change);
                }
            }
        }
    }

    /// Shows all replicas to the recorder, if there is one.
    pub(crate) fn look(&mut self) {
        let System { ctx, hosts, network, .. } = &mut self.system;
        if let Some(recorder) = &mut ctx.recorder {
            recorder.look(ctx.now, hosts, network);
        }
    }

    pub(crate) fn into_outcome(mut self) -> Summary {
        let ctx = &mut self.system.ctx;
        ctx.coverage.take_probes();
        if let Some(violation) = ctx.oracle.violation.clone() {
            ctx.trace(None, || format!("VIOLATED: {violation}"));
        }
        Summary {
            violation: ctx.oracle.violation.clone(),
            trace_hash: self.hash.value(),
            events: self.events,
            simulated: ctx.now,
            operations: self.system.clients.counts(),
            committed: ctx.oracle.commits.len(),
            elections: ctx.oracle.elections() as u64,
            coverage: std::mem::take(&mut ctx.coverage),
        }
    }
}
