//! The steps of a running replica: it handles an input, the oracle checks it, and its effects are carried out.

use bowline_kv::store::{Command, TxnRequest};
use bowline_node::{NodeEffect, NodeInput, NodeMessage, Response, StoredSnapshot};
use bowline_raft::probe::{Probe, hit};
use bowline_raft::{Body, HardState, Index, MembershipChange, NodeId, Token, Write};
use bytes::Bytes;

use crate::cluster::clients::Request;
use crate::cluster::clock::Moment;
use crate::cluster::disk::{Ended, Item};
use crate::cluster::event::Event;
use crate::cluster::faults::{Fault, FollowUp, asks_for_votes, has_become_joint, has_voted, has_won};
use crate::cluster::host::Asker;
use crate::cluster::keepers::{Ask, LEASE_OPS};
use crate::cluster::leader_rules::{heard_in, takes_no_more_than_it_may};
use crate::cluster::machine::Applied;
use crate::cluster::members::MEMBER_OPS;
use crate::cluster::oracle::{Judged, Rule};
use crate::cluster::plan::{MILLI, SECOND, Sabotage};
use crate::cluster::replica::Replica;
use crate::cluster::shape::reply_of;
use crate::cluster::system::System;
use crate::cluster::trace::{describe, describe_response};
use crate::cluster::wire::arrived;

/// Events that reach a process.
impl System<'_> {
    /// A message arrives.
    pub(crate) fn deliver(&mut self, from: usize, to: usize, message: NodeMessage) {
        let it = &mut self.hosts[to];
        if it.node.is_none() {
            return;
        }
        if it.paused {
            return it.wait(Event::Message { from, to, message });
        }
        let Some(mut message) = arrived(from, &message) else { return };
        if let NodeMessage::Raft(message) = &message
            && it.node.as_ref().is_some_and(|node| {
                node.whole().is_some() && node.raft().is_leader() && message.term > node.raft().term()
            })
        {
            self.keepers.ask_at_once(&mut self.ctx, to);
        }
        let it = &mut self.hosts[to];
        // A whole member leaves them by itself.
        let leaves = it.node.as_ref().is_some_and(|node| node.whole().is_none()) && !it.disk.has_room();
        it.left_entries = leaves && leave_entries(&mut message);
        self.ctx.trace(Some(to), || format!("<- n{} {}", from + 1, describe(&message)));
        self.step(to, NodeInput::Receive { from: NodeId(from as u64 + 1), message });
    }

    /// A replica's wake-up time has come.
    pub(crate) fn wake(&mut self, host: usize, run: u32) {
        let it = &mut self.hosts[host];
        if it.run != run || it.wake_at != self.ctx.now || it.paused {
            return;
        }
        it.wake_at = Moment::MAX;
        if it.node.as_ref().is_some_and(|node| node.whole().is_some()) {
            let _ = self.round(host);
        } else if it.is_due(self.ctx.now) {
            self.step(host, NodeInput::Wake);
        } else {
            self.end_leases(host);
            self.hosts[host].reschedule(&mut self.ctx);
        }
    }

    /// A sync of a disk ends.
    pub(crate) fn synced(&mut self, host: usize, run: u32) {
        if self.hosts[host].run != run {
            return;
        }
        let it = &mut self.hosts[host];
        if it.paused {
            // The disk works on, but the process hears of it later.
            return it.wait(Event::Synced { host, run });
        }
        if std::mem::take(&mut it.fail_sync) {
            it.disk.fail_soon(&mut self.ctx.chances.disk);
        }
        let ended = it.disk.finish_sync();
        let Some(synced) = self.unless_stuck(host, ended, Event::Synced { host, run }) else { return };
        let it = &self.hosts[host];
        if let Some(up_to) = synced.up_to {
            self.model.durable(it.id, up_to);
        }
        for index in synced.files {
            self.step(host, NodeInput::SnapshotStored { index });
        }
        if let Some(up_to) = synced.up_to
            && self.hosts[host].run == run
        {
            self.hosts[host].durable = up_to;
            // The waiting messages leave before or after the replica hears of the sync.
            let first = self.ctx.chances.disk.percent(50);
            if first {
                self.release_held(host);
            }
            self.step(host, NodeInput::Persisted { up_to });
            self.release_held(host);
        }
        self.hosts[host].start_sync(&mut self.ctx);
    }

    /// Returns the result of the disk. Without room the disk tries `again` later; after a failure the process stops.
    /// Both give `None`.
    fn unless_stuck<T>(&mut self, host: usize, ended: Ended<T>, again: Event) -> Option<T> {
        match ended {
            Ended::Done(done) => Some(done),
            Ended::NoSpace => {
                self.ctx.trace(Some(host), || "has no room on its disk, and tries again later".to_owned());
                let at = self.ctx.now + self.ctx.chances.disk.between(10 * MILLI, 250 * MILLI);
                self.ctx.queue.push(at, again);
                None
            }
            Ended::Failed(why) => {
                self.stop_for(host, &why);
                None
            }
        }
    }

    fn release_held(&mut self, host: usize) {
        let durable = self.hosts[host].durable;
        while let Some((_, to, message)) = self.hosts[host].held.pop_front_if(|(after, ..)| *after <= durable) {
            self.send(host, to, message);
        }
    }

    /// A snapshot's file is durable.
    pub(crate) fn stored(&mut self, host: usize, run: u32) {
        let it = &mut self.hosts[host];
        if it.run != run {
            return;
        }
        if it.paused {
            return it.wait(Event::Stored { host, run });
        }
        let ended = it.disk.finish_storing();
        if let Some(Some(index)) = self.unless_stuck(host, ended, Event::Stored { host, run }) {
            self.step(host, NodeInput::SnapshotStored { index });
        }
    }
}

/// Requests.
impl System<'_> {
    /// A client's request arrives at a replica.
    pub(crate) fn client_asks(&mut self, host: usize, op: u64, attempt: u32) {
        match self.clients.request(&mut self.ctx, &mut self.hosts[host], op, attempt) {
            Some(Request::Step(input)) => self.step(host, input),
            Some(Request::ToLeader { token, request, deadline }) => self.ask_leader(host, token, request, deadline),
            Some(Request::ReadAtOnce { known }) => self.reply(host, (op, attempt, known), Ok(Bytes::new())),
            None => {}
        }
    }

    /// A keeper's request arrives at a replica.
    pub(crate) fn keeper_asks(&mut self, host: usize, call: (usize, u64, Ask)) {
        match self.keepers.asked(&mut self.ctx, &mut self.network, &mut self.hosts[host], call) {
            Some(Request::Step(input)) => self.step(host, input),
            Some(Request::ToLeader { token, request, deadline }) => self.ask_leader(host, token, request, deadline),
            Some(Request::ReadAtOnce { .. }) | None => {}
        }
    }

    /// Asks the leader for a change, if the cluster would survive it. Returns whether it was asked.
    pub(crate) fn ask_for(&mut self, change: MembershipChange) -> bool {
        let Some(leader) = self.hosts.running_leader() else { return false };
        if !self.hosts.raft(leader).is_some_and(|raft| self.hosts.survives(raft, &change)) {
            return false;
        }
        let reverts = change == MembershipChange::Revert;
        self.change_membership(leader, Asker::Operator, change);
        if !reverts && !self.ctx.healed && self.ctx.chances.faults.percent(30) {
            let heartbeat = self.ctx.plan.settings.heartbeat;
            let after = self.ctx.chances.faults.magnitude(heartbeat / 64, heartbeat * 2);
            self.ctx.after(after, Event::FollowUp(Box::new(FollowUp::Regret)));
        }
        true
    }

    /// Asks a replica for a change.
    pub(crate) fn change_membership(&mut self, host: usize, asker: Asker, change: MembershipChange) {
        let token = self.hosts[host].token(asker);
        self.ctx.trace(Some(host), || format!("is asked to change the membership: {change:?}"));
        self.step(host, NodeInput::ChangeMembership { token, change });
    }

    /// A request about the members arrives at a replica.
    pub(crate) fn member_asks(&mut self, host: usize, call: (u64, u64)) {
        let input = self.members.asked(&mut self.ctx, &mut self.network, &mut self.hosts[host], call);
        self.step_with(host, input);
    }

    /// Tells the leader to hand over. Returns whether there was a leader to tell.
    pub(crate) fn hand_over(&mut self) -> bool {
        let Some(leader) = self.hosts.running_leader() else { return false };
        // To any replica, even one that is down or not a member; or to one that the leader chooses.
        let dice = &mut self.ctx.chances.faults;
        let to = NodeId(dice.index(self.hosts.len()) as u64 + 1);
        let to = dice.percent(70).then_some(to);
        let token = self.hosts[leader].token(Asker::Operator);
        self.ctx.trace(Some(leader), || format!("is told to hand over to {to:?}"));
        self.step(leader, NodeInput::TransferLeadership { token, to });
        true
    }
}

/// A step.
impl System<'_> {
    /// A replica takes an input.
    pub(crate) fn step(&mut self, host: usize, input: NodeInput) {
        let it = &mut self.hosts[host];
        let node = match &mut it.node {
            None => return,
            Some(Replica::Whole(_)) => return self.put(host, input),
            Some(Replica::InMemory(node)) => node,
        };
        let mut effects = std::mem::take(&mut self.effects);
        let (heard, before) = (heard_in(&input, node.raft()), node.raft().last_applied());
        node.handle(it.clock.shows(self.ctx.now), input, &mut effects);
        let applied = node.raft().last_applied() > before;
        if node.unrestored_snapshots() > 0 {
            let what = format!("n{} has received a snapshot that can't be restored", host + 1);
            self.ctx.judge(Err((Rule::StatesAreEqual, what)));
        }
        let it = &mut self.hosts[host];
        if std::mem::take(&mut it.left_entries) {
            effects.retain(|effect| !is_append_reply(effect));
        }
        for effect in &effects {
            if let NodeEffect::Persist { write, .. } = effect {
                self.observe_write(host, write);
            }
        }
        self.inspect(host);
        self.ctx.judge(self.hosts.judge_leader(host, heard));
        // The model comes after the invariants, because a broken invariant says more.
        self.ctx.judge(self.model.judged());
        self.carry_out(host, &mut effects);
        effects.clear();
        self.effects = effects;
        self.judge_return(host);
        self.end_leases(host);
        self.mind_duties(host);
        self.hosts[host].start_sync(&mut self.ctx);
        if applied {
            self.stay_busy(host);
        }
        self.hosts[host].reschedule(&mut self.ctx);
    }

    /// A step with this input, if there is one.
    fn step_with(&mut self, host: usize, input: Option<NodeInput>) {
        if let Some(input) = input {
            self.step(host, input);
        }
    }

    /// A leader proposes the end of the leases that have expired. A whole member does that by itself.
    fn end_leases(&mut self, host: usize) {
        let input = self.keepers.propose_ends(&mut self.ctx, &mut self.hosts[host]);
        self.step_with(host, input);
    }

    pub(crate) fn observe_write(&mut self, host: usize, write: &Write) {
        if let Write::HardState(HardState { voted_for: Some(candidate), .. }) = write
            && *candidate != self.hosts[host].id
        {
            has_voted(self, host);
        }
        let mut becomes_joint = false;
        let it = &mut self.hosts[host];
        let Some(node) = &it.node else { return };
        let judged = it.shadow.written(node.raft(), write, &mut self.ctx.oracle.links);
        let judged = match judged {
            Ok(true) => {
                it.matches.forget();
                becomes_joint = node.raft().is_leader() && it.shadow.membership().is_joint();
                it.shadow.change_is_sound(node.raft())
            }
            Ok(false) => takes_no_more_than_it_may(node.raft(), write),
            Err(violation) => Err(violation),
        };
        self.ctx.judge(judged);
        if becomes_joint {
            has_become_joint(self, host);
        }
    }

    /// Checks a replica after its step.
    pub(crate) fn inspect(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        let Some(node) = &it.node else { return };
        let raft = node.raft();
        let judged = it.shadow.agrees(raft);
        let leads = raft.is_leader().then(|| raft.term());
        node.machine().take_news(&mut self.news);
        let shown = it.clock.shows(self.ctx.now);
        let leases = node.machine().take_leases();
        // Another state, which nobody has seen.
        let replaced = leases.is_some();
        // A whole member knows its leases itself.
        let keeps_leases = node.whole().is_none();
        if let Some(leases) = leases.filter(|_| keeps_leases) {
            it.lessor.reset(shown, leases);
        }
        let writes: Vec<_> = self.news.iter_mut().flat_map(|applied| std::mem::take(&mut applied.writes)).collect();
        for change in self.news.iter().flat_map(|applied| &applied.leases).filter(|_| keeps_leases) {
            it.lessor.note(shown, *change);
        }
        let counts = match self.ctx.plan.sabotage {
            Some(Sabotage::LocalLessors) => Some(0),
            _ => leads.map(|term| term.0),
        };
        if keeps_leases {
            it.lessor.follow(shown, counts);
        }
        let witness = node.machine().witness();
        self.ctx.judge(judged);
        self.watch_core(host);
        self.judge_news(host, witness);
        if let Some(truth) = self.clients.true_events() {
            self.watchers.follow(&mut self.ctx, &mut self.hosts[host], truth, &writes, replaced);
        }
        if self.hosts.leading().len() > 1 && self.hosts[host].leads() {
            self.ctx.judge(self.hosts.judge_leases(self.ctx.now));
        }
    }

    /// Checks what a replica's core has become: a leader or none, with what is committed.
    pub(crate) fn watch_core(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        let Some(raft) = it.node.as_ref().map(Replica::raft) else { return };
        let (leads, after) = (raft.is_leader().then(|| raft.term()), raft.commit_index());
        let was = std::mem::replace(&mut it.shadow.leads, leads);
        let before = std::mem::replace(&mut it.shadow.commit, after);
        if leads != was {
            self.leadership_changed(host);
        }
        if after < before {
            let what = format!("the commit index of n{} goes back from {before} to {after}", host + 1);
            self.ctx.judge(Err((Rule::CommitNeverDecreases, what)));
        } else if after > before {
            self.commit_advanced(host, before);
        }
    }

    fn leadership_changed(&mut self, host: usize) {
        self.hosts.leads_no_more(host);
        let Some(raft) = self.hosts.raft(host) else { return };
        if raft.is_leader() {
            let (id, term) = (raft.id(), raft.term());
            let judged = self.ctx.oracle.leads(id, term).and_then(|()| self.ctx.oracle.commits.led_by(raft));
            self.ctx.judge(judged);
            self.hosts.leads(host, self.ctx.now);
            has_won(self, id);
            self.ctx.trace(Some(host), || format!("LEADS in {term}"));
        } else {
            self.ctx.trace(Some(host), || "leads no more".to_owned());
        }
    }

    fn commit_advanced(&mut self, host: usize, before: Index) {
        let Some(raft) = self.hosts.raft(host) else { return };
        let judged = self.ctx.oracle.commits.advanced(raft, before);
        let judged = judged.and_then(|new_from| match new_from {
            Some(_) => self.hosts.judge_commit(host),
            None => Ok(()),
        });
        self.ctx.judge(judged);
    }

    /// Checks what a replica has applied, and its state.
    fn judge_news(&mut self, host: usize, witness: (u64, u64)) {
        let id = self.hosts[host].id;
        let mut news = std::mem::take(&mut self.news);
        for applied in news.drain(..) {
            let judged = match self.ctx.oracle.commits.applied(id, &applied) {
                Ok(true) if applied.own.is_some() => self.note_own_command(&applied),
                Ok(true) if applied.op >= MEMBER_OPS && applied.op != u64::MAX => self.note_member_command(&applied),
                Ok(true) if applied.op >= LEASE_OPS && applied.op != u64::MAX => self.note_lease_command(&applied),
                Ok(true) => self.clients.took_effect(&applied, &mut self.ctx.oracle),
                Ok(false) => Ok(()),
                Err(violation) => Err(violation),
            };
            self.ctx.judge(judged);
        }
        self.news = news;
        let (index, digest) = witness;
        if index > 0 && self.ctx.oracle.commits.digest_at(index) != Some(digest) {
            self.ctx.judge(Err((Rule::StatesAreEqual, format!("{id} has a different state at index {index}"))));
        }
    }

    /// Checks the effect of a command about leases, when the first replica applies it.
    fn note_lease_command(&mut self, applied: &Applied) -> Judged {
        let command = self.keepers.took_effect(applied)?;
        self.clients.store_command(&command, applied)?;
        self.keepers.changed(&command, &applied.leases, self.ctx.now)
    }

    /// Checks the effect of a command that a member has proposed by itself: the end of leases.
    fn note_own_command(&mut self, applied: &Applied) -> Judged {
        let command = applied.own.as_deref().map(Command::from_bytes);
        let Some(Ok(command @ Command::LeaseExpire(_))) = command else {
            return Err((Rule::AnswersAreTrue, format!("nobody sent the command at {}: {command:?}", applied.index)));
        };
        self.clients.store_command(&command, applied)?;
        self.keepers.changed(&command, &applied.leases, self.ctx.now)
    }

    /// Checks the effect of a command about members, or of an automatic compaction, likewise.
    fn note_member_command(&mut self, applied: &Applied) -> Judged {
        let command = self.members.took_effect(applied)?;
        self.clients.store_command(&command, applied)?;
        self.clients.judge_alarms(self.members.rules.alarmed())?;
        if let (Command::Compact(compaction), Some(Ok(_))) = (command, applied.reply.as_deref().and_then(reply_of)) {
            self.note_compaction(compaction.revision);
        }
        Ok(())
    }

    /// A replica that has just applied something may be busy for a while and handle nothing else.
    pub(crate) fn stay_busy(&mut self, host: usize) {
        /// Maximum time that a state machine takes for one command.
        const LONGEST: Moment = 5 * SECOND;
        if self.ctx.now < self.hosts[host].busy_until && self.ctx.chances.hosts.percent(20) {
            let election = self.ctx.plan.settings.election_max;
            let span = self.ctx.chances.hosts.magnitude(election / 64, election * 4).min(LONGEST);
            self.ctx.coverage.struck(Fault::SlowApply);
            self.ctx.trace(Some(host), || "is busy applying".to_owned());
            self.pause(host, span, false);
        }
    }
}

/// Effects.
impl System<'_> {
    /// Carries out the effects of a step, one by one.
    pub(crate) fn carry_out(&mut self, host: usize, effects: &mut Vec<NodeEffect>) {
        let mut effects = effects.drain(..).peekable();
        while let Some(effect) = effects.next() {
            if let Some(left) = &mut self.hosts[host].crash_in {
                if *left == 0 {
                    self.ctx.coverage.struck(Fault::CrashInside);
                    self.crash(host, true);
                    self.restart_soon(host);
                    return;
                }
                *left -= 1;
            }
            if self.hosts[host].node.is_none() {
                // A read has made the process stop.
                return;
            }
            match effect {
                NodeEffect::Persist { id, write } => self.hosts[host].disk.write(Item::Write(id, write)),
                NodeEffect::StoreSnapshot { snapshot } => {
                    let of_the_stream = matches!(effects.peek(), Some(NodeEffect::Persist { write: Write::Snapshot(header), .. })
                        if *header == snapshot.header);
                    self.ctx.trace(Some(host), || format!("stores a snapshot up to {}", snapshot.header.position));
                    if of_the_stream {
                        self.hosts[host].disk.write(Item::File(snapshot));
                    } else {
                        let judged = self.hosts[host].shadow.judge_header(&snapshot.header);
                        let judged = judged.and_then(|()| self.judge_stored(&snapshot));
                        self.ctx.judge(judged);
                        self.hosts[host].disk.start_storing(snapshot);
                        let plan = &self.ctx.plan.disk;
                        let span = self.ctx.chances.disk.between(plan.sync_low, plan.sync_high * 4);
                        let run = self.hosts[host].run;
                        self.ctx.queue.push(self.ctx.now + span, Event::Stored { host, run });
                    }
                }
                NodeEffect::Send { to, message, after } => {
                    let durable = self.hosts[host].durable;
                    match after.filter(|after| *after > durable) {
                        Some(after) if self.ctx.plan.sabotage != Some(Sabotage::HastyMessages) => {
                            self.hosts[host].held.push_back((after, to, message));
                        }
                        _ => self.send(host, to, message),
                    }
                }
                NodeEffect::Respond { token, response } => self.respond(host, token, response),
                NodeEffect::Halt { fault } => {
                    self.ctx.judge(Err((Rule::NoReplicaHalts, format!("n{} halts: {fault}", host + 1))));
                }
            }
        }
    }

    /// I16: a snapshot that replaces the log must equal a replay of the log.
    fn judge_stored(&mut self, snapshot: &StoredSnapshot) -> Result<(), (Rule, String)> {
        self.clients.judge_snapshot(snapshot)
    }

    pub(crate) fn respond(&mut self, host: usize, token: Token, response: Response) {
        let it = &mut self.hosts[host];
        match it.tokens.remove(&token) {
            Some(Asker::Client { op, attempt, known }) => self.reply(host, (op, attempt, known), response),
            Some(Asker::Keeper { keeper, call, ask, begun, renewal }) => {
                let (call, begun) = ((keeper, call, ask), (begun, renewal));
                let next = self.keepers.answered(&mut self.ctx, &mut self.network, it, call, begun, response);
                self.step_with(host, next);
            }
            Some(Asker::Lessor { number, term }) => {
                self.keepers.end_proposed(self.ctx.now, it, (number, term), &response);
            }
            Some(Asker::Member { call, number }) => {
                self.members.answered(&mut self.ctx, &mut self.network, host, (call, number), response);
            }
            Some(Asker::Duty { duty, number }) => self.own_duty_ended(host, duty, number, response),
            Some(Asker::Attempt { token }) => self.attempted(host, token, response),
            Some(Asker::Forwarded { line, id }) => self.answer_forwarded(line, id, &response),
            Some(Asker::Operator) => {
                self.ctx.trace(Some(host), || format!("tells the operator: {}", describe_response(&response)));
            }
            None => {
                let what = format!("n{} answers a request that is not open", host + 1);
                self.ctx.judge(Err((Rule::EveryRequestEndsOnce, what)));
            }
        }
    }

    /// A replica replies to a client. The value of a read is looked up now.
    fn reply(&mut self, host: usize, (op, attempt, known): (u64, u32, u64), response: Response) {
        let response = match (response, self.clients.query(op)) {
            (Ok(_), Some((key, query))) => match self.read_now(host, &key, &query) {
                Some(seen) => Ok(seen),
                None => return,
            },
            (other, _) => other,
        };
        let it = &self.hosts[host];
        self.clients.replied(&mut self.ctx, &mut self.network, it, (op, attempt, known), response);
    }

    /// The answer to a read. A replica that can't read its disk stops and answers nobody.
    fn read_now(&mut self, host: usize, key: &str, query: &TxnRequest) -> Option<Bytes> {
        let node = self.hosts[host].node.as_mut()?;
        let seen = node.look(key, query);
        if let Some(why) = node.fault() {
            self.stop_for(host, why);
            return None;
        }
        Some(seen)
    }

    /// A message leaves a replica.
    pub(crate) fn send(&mut self, from: usize, to: NodeId, message: NodeMessage) {
        if let NodeMessage::Raft(message) = &message {
            let it = &self.hosts[from];
            let judged = self.ctx.oracle.promises.sent(it.id, to, message, &it.disk);
            self.ctx.judge(judged);
            self.ctx.judge(self.hosts.judge_claims(from, to, message));
            if matches!(message.body, Body::PreVote { .. }) {
                asks_for_votes(self, from);
            }
        }
        let to = to.0 as usize - 1;
        if matches!(message, NodeMessage::Chunk(_)) && self.hosts[from].has_fetched_state {
            hit(Probe::SnapshotPassedOn);
        }
        let kept_back = self.restored.is_some_and(|restored| restored.keeps_apart(from, to));
        if to < self.hosts.len() && !kept_back {
            self.network.send(&mut self.ctx, from, to, message);
        }
    }
}

/// Drops the entries of a message, because the disk is full; the leader will send them again. Returns whether there
/// were any. Then the replica's answer must not leave: it would say that no entry arrived, and the leader would send
/// all of them again at once, over and over, until there is room.
fn leave_entries(message: &mut NodeMessage) -> bool {
    match message {
        NodeMessage::Raft(bowline_raft::Message { body: Body::AppendEntries(append), .. }) => {
            !std::mem::take(&mut append.entries).is_empty()
        }
        _ => false,
    }
}

fn is_append_reply(effect: &NodeEffect) -> bool {
    matches!(effect, NodeEffect::Send { message: NodeMessage::Raft(message), .. }
        if matches!(message.body, Body::AppendEntriesReply(_)))
}
