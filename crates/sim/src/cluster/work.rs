//! The work of whole members: the host plans when each worker works, and hands on what comes out.

use bowline_member::{ApplyJob, Fatal, LeaderRequest, LogStep, RequestBody};
use bowline_node::{Job, NodeEffect, NodeInput};
use bowline_raft::probe::{Probe, hit};
use bowline_raft::{Time, Token};

use crate::cluster::Sabotage;
use crate::cluster::event::Event;
use crate::cluster::faults::Fault;
use crate::cluster::host::{Asker, Host};
use crate::cluster::oracle::Rule;
use crate::cluster::plan::MILLI;
use crate::cluster::replica::{Output, Reads, Replica, Whole, Worker};
use crate::cluster::system::System;

impl Host {
    fn whole(&mut self) -> Option<&mut Whole> {
        self.node.as_mut().and_then(Replica::whole_mut)
    }
}

impl System<'_> {
    /// An input comes into a whole member's queue.
    pub(crate) fn put(&mut self, host: usize, input: NodeInput) {
        if let NodeInput::Write { token, command, deadline } = &input
            && matches!(
                self.hosts[host].tokens.get(token),
                Some(Asker::Client { .. } | Asker::Keeper { .. } | Asker::Member { .. } | Asker::Duty { .. })
            )
        {
            return self.ask_leader(host, *token, LeaderRequest::Write(command.clone()), *deadline);
        }
        let refused = self.hosts[host].whole().and_then(|member| member.put(input));
        if let Some((token, failure)) = refused {
            self.respond(host, token, Err(failure));
        }
        self.plan_work(host);
    }

    /// A request comes into a whole member's queue that only the leader can serve.
    pub(crate) fn request_whole(&mut self, host: usize, token: Token, request: LeaderRequest, deadline: Time) {
        let refused = self.hosts[host].whole().and_then(|member| member.request(request.into(), Some(deadline), token));
        if let Some((token, failure)) = refused {
            self.respond(host, token, Err(failure));
        }
        self.plan_work(host);
    }

    /// A whole member is asked to rewrite its state's file.
    pub(crate) fn rewrite_state(&mut self, host: usize) {
        let token = self.hosts[host].token(Asker::Operator);
        let refused = self.hosts[host].whole().and_then(|member| member.request(RequestBody::Shrink, None, token));
        if let Some((token, failure)) = refused {
            self.respond(host, token, Err(failure));
        }
        self.plan_work(host);
    }

    /// A whole member stops in good order, as a server does: it takes no request any more, does all that it has taken
    /// in, and answers the rest. Its process may die on the way.
    pub(crate) fn stop(&mut self, host: usize) {
        let run = self.hosts[host].run;
        if let Some(member) = self.hosts[host].whole() {
            member.close();
        }
        while self.hosts[host].run == run && !self.round(host) {}
        if self.hosts[host].run != run {
            return;
        }
        for (token, answer) in self.hosts[host].whole().map(Whole::stop).unwrap_or_default() {
            self.respond(host, token, answer);
        }
        for worker in [Worker::Log, Worker::Apply, Worker::Snapshots] {
            while self.hosts[host].whole().is_some_and(|member| member.has_jobs(worker)) {
                if worker == Worker::Log {
                    self.hosts[host].whole().into_iter().for_each(|member| member.begin_logging(100));
                }
                if !self.work_now(host, worker) || self.hosts[host].run != run {
                    break;
                }
            }
        }
        if self.hosts[host].run == run {
            self.ctx.trace(Some(host), || "stops".to_owned());
            self.crash(host, false);
        }
    }

    /// Plans the work of all workers that have some.
    pub(crate) fn plan_work(&mut self, host: usize) {
        for worker in Worker::ALL {
            let it = &mut self.hosts[host];
            let (now, busy) = (self.ctx.now, self.ctx.now < it.busy_until);
            let slow = now < it.slow_until;
            let run = it.run;
            let Some(member) = it.whole() else { return };
            let (dice, plan) = (&mut self.ctx.chances.hosts, &self.ctx.plan);
            let wait = match (member.has_work(worker), member.looks_again(worker)) {
                (false, None) => continue,
                (false, Some(pause)) => pause,
                (true, _) => match worker {
                    // Mostly it wakes at once; sometimes more gathers meanwhile.
                    Worker::Consensus if dice.percent(80) => 0,
                    Worker::Consensus => dice.magnitude(1, plan.settings.heartbeat / 8),
                    Worker::Log | Worker::Segment => {
                        let dice = &mut self.ctx.chances.disk;
                        if worker == Worker::Log {
                            let share = if plan.disk.partial { dice.between(1, 100) } else { 100 };
                            member.begin_logging(share);
                        }
                        let span = dice.between(plan.disk.sync_low, plan.disk.sync_high);
                        if slow { span * dice.between(10, 200) + dice.magnitude(MILLI, 1_000 * MILLI) } else { span }
                    }
                    Worker::Apply if busy && dice.percent(20) => {
                        dice.magnitude(plan.settings.election_max / 64, plan.settings.election_max * 2)
                    }
                    Worker::Apply | Worker::Snapshots if dice.percent(80) => 0,
                    Worker::Apply | Worker::Snapshots => dice.magnitude(1, plan.settings.heartbeat / 4),
                },
            };
            if member.plan(worker, now + wait) {
                self.ctx.queue.push(now + wait, Event::Work { host, run, worker });
            }
        }
    }

    /// A worker works.
    pub(crate) fn work(&mut self, host: usize, run: u32, worker: Worker) {
        let it = &mut self.hosts[host];
        if it.run != run {
            return;
        }
        if it.paused {
            return it.wait(Event::Work { host, run, worker });
        }
        let now = self.ctx.now;
        let fails = matches!(worker, Worker::Log | Worker::Apply) && std::mem::take(&mut it.fail_sync);
        if fails {
            it.disk.fail_soon(&mut self.ctx.chances.disk);
        }
        let Some(member) = it.whole() else { return };
        if !member.begins(worker, now) {
            return;
        }
        self.work_now(host, worker);
        self.plan_work(host);
    }

    /// A worker does its next work. Returns whether it was done: the disk may have no room for it.
    fn work_now(&mut self, host: usize, worker: Worker) -> bool {
        let it = &mut self.hosts[host];
        let shown = it.clock.shows(self.ctx.now);
        let Some(member) = it.whole() else { return false };
        match worker {
            Worker::Consensus => _ = self.round(host),
            Worker::Log => {
                let logged = member.end_logging();
                return self.logged(host, logged);
            }
            Worker::Segment => member.prepare_segment(),
            Worker::Apply => {
                let done = member.work_on_state(shown);
                self.handed_on(host, done);
            }
            Worker::Snapshots => {
                let done = self.work_on_snapshots(host);
                done.into_iter().for_each(|done| self.handed_on(host, done));
            }
        }
        true
    }

    /// The snapshots' worker does its next work. A read of it may fail.
    fn work_on_snapshots(&mut self, host: usize) -> Option<Result<Output, Fatal>> {
        let Host { disk, node, unreadable_snapshot, unreadable_pieces, .. } = &mut self.hosts[host];
        let member = node.as_mut().and_then(Replica::whole_mut)?;
        let reads = member.reads_next();
        // Another snapshot replaces the one with the bad sector.
        *unreadable_pieces &= reads != Some(Reads::State);
        let Some(reads) = reads.filter(|reads| *unreadable_snapshot || *unreadable_pieces && *reads == Reads::Piece)
        else {
            return Some(member.work_on_snapshots());
        };
        let dice = &mut self.ctx.chances.disk;
        // A piece is read at once; a whole state, or what was received of one, in many parts.
        let skip = if reads == Reads::Piece { 0 } else { dice.magnitude(1, 64) - 1 };
        let (done, failed) = disk.failing_to_read(skip, || member.work_on_snapshots());
        if failed {
            *unreadable_snapshot = false;
            *unreadable_pieces |= reads == Reads::Piece && dice.percent(50);
            self.ctx.coverage.struck(Fault::UnreadableSnapshot);
            self.ctx.trace(Some(host), || "can't read a snapshot".to_owned());
        }
        Some(done)
    }

    /// The log has ended its work. Returns whether there was room for it.
    fn logged(&mut self, host: usize, logged: Result<Option<Output>, Fatal>) -> bool {
        let mut output = match logged {
            Ok(Some(output)) => output,
            Ok(None) => {
                self.ctx.trace(Some(host), || "has no room on its disk, and tries again later".to_owned());
                let wait = self.ctx.chances.disk.between(10 * MILLI, 250 * MILLI);
                let (at, it) = (self.ctx.now + wait, &mut self.hosts[host]);
                let run = it.run;
                if it.whole().is_some_and(|member| member.plan(Worker::Log, at)) {
                    self.ctx.queue.push(at, Event::Work { host, run, worker: Worker::Log });
                }
                return false;
            }
            Err(Fatal(why)) => {
                self.stop_for(host, &why);
                return true;
            }
        };
        let it = &mut self.hosts[host];
        if let Some(up_to) = it.disk.logged(std::mem::take(&mut output.logged)) {
            it.durable = up_to;
            self.model.durable(it.id, up_to);
        }
        self.handed_on(host, Ok(output));
        true
    }

    /// Hands on what a worker has done.
    fn handed_on(&mut self, host: usize, done: Result<Output, Fatal>) {
        let output = match done {
            Ok(output) => output,
            Err(Fatal(why)) => return self.stop_for(host, &why),
        };
        let it = &mut self.hosts[host];
        let Some(applied) = it.whole().map(|member| member.machine().applied()) else { return };
        if output.replaced {
            let witness = self.ctx.oracle.commits.last_up_to(applied);
            if let Some(member) = it.whole() {
                member.machine_mut().replaced(witness);
            }
            it.installed(applied);
        }
        if output.rewritten
            && let Some(written) = self.hosts[host].whole().and_then(|member| member.machine().written())
        {
            self.hosts[host].disk.rewritten(written);
            self.ctx.trace(Some(host), || format!("has rewritten its state's file, up to {written}"));
        }
        // The oracle must know all that was applied before it judges the state.
        self.inspect(host);
        for header in &output.stored {
            let position = header.position;
            self.hosts[host].disk.checkpointed(applied);
            self.ctx.trace(Some(host), || format!("has stored its state up to {position}"));
            if let Some(node) = &self.hosts[host].node {
                let judged = self.clients.judge_stored_state(node.machine());
                let judged = judged.map_err(|what| (Rule::StatesAreEqual, format!("n{}: {what}", host + 1)));
                self.ctx.judge(judged);
            }
        }
        for (to, message) in output.messages {
            self.send(host, to, message);
        }
    }

    /// A round of a member's consensus. Returns whether it was the last one: the queue is closed and empty, or the process
    /// has died.
    pub(crate) fn round(&mut self, host: usize) -> bool {
        let it = &mut self.hosts[host];
        let now = it.clock.shows(self.ctx.now);
        let dice = &mut self.ctx.chances.hosts;
        let most = if dice.percent(50) { 1 } else { dice.between(1, 64) as usize };
        let Some(member) = it.whole() else { return true };
        let (before, led, mut lease_asked) = (member.raft().last_applied(), member.raft().is_leader(), false);
        let mut portion = member.begin_round(now, most);
        let mut observed = 0;
        // Each input is judged as if it were alone: what was right after it may not be right any more after the next one.
        while let Some(taken) = self.hosts[host].whole().and_then(|member| member.take_input(now, &mut portion)) {
            observed += taken.writes.len();
            lease_asked |= taken.asks_lease;
            taken.writes.iter().for_each(|write| self.observe_write(host, write));
            self.watch_core(host);
            self.ctx.judge(self.hosts.judge_leader(host, taken.heard));
        }
        let Some(member) = self.hosts[host].whole() else { return true };
        let mut round = member.finish_round(now);
        let applied = member.raft().last_applied() > before;
        if lease_asked && led && !member.raft().is_leader() {
            hit(Probe::LeaseAskedAtEnd);
        }
        let writes = round.log.steps.iter().filter_map(|step| match step {
            LogStep::Write(_, write) => Some(write),
            LogStep::Compact(_) => None,
        });
        writes.skip(observed).for_each(|write| self.observe_write(host, write));
        for job in &round.apply {
            if let ApplyJob::Of(Job::StoreState { header }) = job {
                let judged = self.hosts[host].shadow.judge_header(header);
                self.ctx.judge(judged);
            }
        }
        self.inspect(host);
        self.ctx.judge(self.hosts.judge_leader(host, None));
        // The model comes after the invariants, because a broken invariant says more.
        self.ctx.judge(self.model.judged());
        let mut effects: Vec<NodeEffect> = Vec::new();
        let send = |(to, message)| NodeEffect::Send { to, message, after: None };
        if self.ctx.plan.sabotage == Some(Sabotage::HastyMessages) {
            effects.extend(round.log.messages.drain(..).map(send));
        }
        effects.extend(round.messages.drain(..).map(send));
        effects.extend(round.fault.take().map(|fault| NodeEffect::Halt { fault }));
        let run = self.hosts[host].run;
        self.carry_out(host, &mut effects);
        if self.hosts[host].run != run {
            // It has crashed before it handed anything over.
            return true;
        }
        if let Some(member) = self.hosts[host].whole() {
            member.hand_over(&mut round);
        }
        let answers = round.answers.into_iter();
        effects.extend(answers.map(|(token, response)| NodeEffect::Respond { token, response }));
        self.carry_out(host, &mut effects);
        if self.hosts[host].run != run {
            return true;
        }
        self.judge_return(host);
        self.mind_duties(host);
        self.look_for_leader(host);
        if applied {
            self.stay_busy(host);
        }
        self.hosts[host].reschedule(&mut self.ctx);
        self.plan_work(host);
        portion.closed
    }
}
