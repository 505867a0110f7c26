//! The system that faults and the operator act on: the hosts with their replicas, the network, the clients, the
//! keepers and the watchers. This file starts, stops and pauses processes, and handles failed disks: a disk that can't be read now is
//! tried again later; one that can't be used at all is lost. The steps of a running process are in `steps.rs`.

use bowline_kv::store::Lessor;
use bowline_node::{Node, NodeConfig, NodeEffect};
use bowline_raft::probe::{Probe, hit};
use bowline_raft::{ConfigError, Membership, NodeId, PersistId, ReadKind, Time};

use crate::cluster::clients::Clients;
use crate::cluster::clock::Moment;
use crate::cluster::context::Context;
use crate::cluster::disk::{Damage, Ended, Room, Rot, Start};
use crate::cluster::duties::OwnDuties;
use crate::cluster::event::Event;
use crate::cluster::faults::{Fault, Restored};
use crate::cluster::forwarding::Forwarding;
use crate::cluster::host::Host;
use crate::cluster::hosts::Hosts;
use crate::cluster::keepers::Keepers;
use crate::cluster::machine::{Applied, Machine};
use crate::cluster::members::Members;
use crate::cluster::model::Model;
use crate::cluster::network::Network;
use crate::cluster::operator::Loss;
use crate::cluster::oracle::{Rule, Shadow};
use crate::cluster::plan::{MILLI, SECOND, Sabotage};
use crate::cluster::reduction::run_dice;
use crate::cluster::replica::{Replica, Whole};
use crate::cluster::watchers::Watchers;

pub(crate) struct System<'a> {
    pub(crate) ctx: Context<'a>,
    pub(crate) hosts: Hosts,
    pub(crate) network: Network,
    pub(crate) clients: Clients,
    pub(crate) keepers: Keepers,
    pub(crate) watchers: Watchers,
    pub(crate) members: Members,
    pub(crate) forwarding: Forwarding,
    pub(crate) model: Model,
    /// The replica that came back with an old image and doesn't know it yet.
    pub(crate) restored: Option<Restored>,
    /// The groups of the next joint configuration are cut apart.
    pub(crate) splits_groups: bool,
    /// Disks that were lost since the operator last looked.
    pub(crate) losses: Vec<Loss>,
    /// Buffers for the effects and the news of a step; empty between steps.
    pub(super) effects: Vec<NodeEffect>,
    pub(super) news: Vec<Applied>,
}

/// Makes the process of a replica that starts.
fn replica(
    config: NodeConfig,
    stores: bool,
    start: Start,
    read_kind: ReadKind,
    witness: (u64, u64),
    now: Time,
) -> Result<Replica, ConfigError> {
    if let Some(member) = start.member {
        let whole = Whole::new(config, read_kind, member, witness, now)?;
        return Ok(Replica::Whole(Box::new(whole)));
    }
    let machine = Machine::new(stores);
    Node::new(config, machine, start.found, now).map(|node| Replica::InMemory(Box::new(node)))
}

/// Processes.
impl<'a> System<'a> {
    /// A system without replicas.
    pub(crate) fn new(ctx: Context<'a>) -> System<'a> {
        System {
            hosts: Hosts::default(),
            network: Network::new(ctx.plan.network.clone()),
            clients: Clients::new(&ctx.plan.workload),
            keepers: Keepers::new(&ctx.plan),
            watchers: Watchers::new(&ctx.plan),
            members: Members::new(&ctx.plan),
            forwarding: Forwarding::new(&ctx.plan),
            model: Model::new(ctx.plan.watched),
            restored: None,
            splits_groups: false,
            losses: Vec::new(),
            effects: Vec::new(),
            news: Vec::new(),
            ctx,
        }
    }

    /// Adds and starts a replica: a founder, or one that will join later.
    pub(crate) fn add_host(&mut self, founders: Option<Membership>) -> Option<NodeId> {
        let host = self.network.attach()?;
        let mut it = Host::new(host, founders, &self.ctx.plan);
        it.set_clock(&mut self.ctx);
        let id = it.id;
        self.hosts.push(it);
        self.start(host);
        Some(id)
    }

    /// Starts a replica's process, if it is down and may start.
    pub(crate) fn start(&mut self, host: usize) {
        let own_ways = self.hosts[host].own_ways;
        let it = &self.hosts[host];
        if it.lost || it.node.is_some() || it.stays_down {
            return;
        }
        let Some(start) = self.recovered(host) else { return };
        let applied = start.member.as_ref().map(|member| member.state.machine.applied());
        let witness = applied.map_or((0, 0), |applied| self.ctx.oracle.commits.last_up_to(applied));
        let recovered = &start.found.raft;
        let it = &mut self.hosts[host];
        let judged = self.ctx.oracle.promises.restarted(it.id, recovered, &it.disk);
        let mut run_dice = run_dice(self.ctx.plan.chance(), host, it.run);
        let config = self.ctx.plan.config(it.id, &mut run_dice, own_ways);
        let last = recovered.entries.last().map(|entry| entry.index);
        let term = recovered.hard_state.term;
        it.looks_at_state(&start);
        let read_kind = if run_dice.percent(50) { ReadKind::Lease } else { ReadKind::Quorum };
        let (stores, now) = (self.ctx.plan.workload.stores, it.clock.shows(self.ctx.now));
        let made = replica(config, stores, start, read_kind, witness, now);
        self.ctx.judge(judged);
        match made {
            Ok(mut node) => {
                self.ctx.judge(self.model.started(&mut node));
                let judged = self.clients.judge_state(node.machine());
                self.ctx.judge(judged.map_err(|what| (Rule::StatesAreEqual, format!("n{} starts: {what}", host + 1))));
                let it = &mut self.hosts[host];
                it.run += 1;
                it.shadow = Shadow::of(node.raft());
                it.shadow.repaired_in = it.disk.repaired.then_some(term);
                it.durable = PersistId(0);
                it.node = Some(node);
                self.ctx.trace(Some(host), || match last {
                    Some(last) => format!("starts in {term} with entries up to {last}"),
                    None => format!("starts in {term} without entries"),
                });
                if self.hosts.iter().any(|host| host.holds_lease(self.ctx.now)) {
                    hit(Probe::RestartInLease);
                }
                self.inspect(host);
                self.hosts[host].reschedule(&mut self.ctx);
            }
            Err(error) => {
                self.ctx.judge(Err((Rule::RestartKeepsPromises, format!("n{} can't start: {error}", host + 1))))
            }
        }
    }

    /// Kills a process at once; `power` says whether its machine lost power too.
    pub(crate) fn crash(&mut self, host: usize, power: bool) {
        let it = &mut self.hosts[host];
        let Some(mut node) = it.node.take() else { return };
        it.run += 1;
        it.paused = false;
        it.crash_in = None;
        it.fail_sync = false;
        it.wake_at = Moment::MAX;
        it.held.clear();
        it.backlog.clear();
        it.tokens.clear();
        it.lessor = Lessor::default();
        it.hub = None;
        it.duties = OwnDuties::default();
        self.hosts.leads_no_more(host);
        self.forwarding.died(&mut self.ctx, host);
        let it = &mut self.hosts[host];
        let member = node.whole_mut().map(|member| (member, it.clock.shows(self.ctx.now)));
        match it.disk.crash(power && self.ctx.plan.disk.lost_writes, member, &mut self.ctx.chances.disk) {
            Ok(damage) => {
                self.note_crash(host, &damage);
                self.forget_witness(host);
            }
            Err(what) => self.ctx.judge(Err((Rule::RestartKeepsPromises, format!("n{} crashes: {what}", host + 1)))),
        }
    }

    fn note_crash(&mut self, host: usize, damage: &Damage) {
        if damage.lost > 0 {
            self.ctx.coverage.struck(Fault::LostWrites);
        }
        if damage.torn {
            self.ctx.coverage.struck(Fault::TornWrite);
        }
        self.ctx.trace(Some(host), || match (damage.lost, damage.torn) {
            (0, false) => "CRASHES".to_owned(),
            (lost, torn) => format!("CRASHES, {lost} unsynced writes lost{}", if torn { ", one torn" } else { "" }),
        });
        self.is_damaged(host, damage);
    }

    /// Pauses a process without its noticing, like SIGSTOP.
    pub(crate) fn pause(&mut self, host: usize, span: Moment, leap: bool) {
        let it = &mut self.hosts[host];
        if it.node.is_none() || it.paused {
            return;
        }
        it.paused = true;
        let run = it.run;
        self.ctx.queue.push(self.ctx.now + span, Event::Resume { host, run, leap });
        self.ctx.trace(Some(host), || format!("PAUSES for {:.3} s", span as f64 / 1e9));
    }

    /// Resumes a process. The events that waited happen now, in half of the cases in random order.
    pub(crate) fn resume(&mut self, host: usize, run: u32, leap: bool) {
        let it = &mut self.hosts[host];
        if it.run != run || !it.paused {
            return;
        }
        it.paused = false;
        if leap {
            // The clock jumps ahead after the suspension.
            let by = self.ctx.chances.hosts.below(SECOND);
            it.clock.jump(self.ctx.now, by);
            self.keepers.leapt(self.ctx.now, by);
        }
        let mut backlog = std::mem::take(&mut it.backlog);
        if self.ctx.chances.hosts.percent(50) {
            self.ctx.chances.hosts.shuffle(&mut backlog);
        }
        self.ctx.trace(Some(host), || format!("resumes, {} events waited", backlog.len()));
        self.hosts[host].reschedule_anew(&mut self.ctx);
        for event in backlog {
            self.ctx.queue.push(self.ctx.now, event);
        }
    }

    /// Plans a restart, mostly soon.
    pub(crate) fn restart_soon(&mut self, host: usize) {
        let dice = &mut self.ctx.chances.faults;
        let span = match dice.below(4) {
            0 => dice.below(5 * MILLI),
            1 => dice.magnitude(100 * MILLI, 10 * SECOND),
            _ => dice.magnitude(MILLI, SECOND),
        };
        if dice.percent(30) {
            // The machine restarts too, and so does its clock.
            self.hosts[host].set_clock(&mut self.ctx);
        }
        self.ctx.after(span, Event::Start { host });
    }
}

/// Disks.
impl System<'_> {
    /// What a replica finds on its disk when it starts; `None` if it can't start.
    pub(crate) fn recovered(&mut self, host: usize) -> Option<Start> {
        let sabotage = self.ctx.plan.sabotage;
        let strikes = !self.ctx.healed;
        let it = &mut self.hosts[host];
        if sabotage == Some(Sabotage::OldImages) {
            it.restore_image();
        }
        let readable = it.unreadable == 0 || !strikes;
        it.unreadable = it.unreadable.saturating_sub(1);
        match it.disk.start(readable, &mut self.ctx.chances.disk) {
            Ok(Ok(mut start)) => {
                if sabotage == Some(Sabotage::ForgottenVotes) {
                    it.disk.forget_vote(&mut start.found);
                }
                if sabotage == Some(Sabotage::OldImages) {
                    it.note_image();
                }
                Some(start)
            }
            Ok(Err(what)) => {
                it.disk.close();
                self.ctx.judge(Err((Rule::RestartKeepsPromises, format!("n{} starts: {what}", host + 1))));
                None
            }
            Err(why) => {
                if !readable {
                    self.ctx.coverage.struck(Fault::ReadError);
                }
                self.ctx.trace(Some(host), || format!("can't start, and tries again later: {why}"));
                let at = self.ctx.now + self.ctx.chances.faults.between(100 * MILLI, 3 * SECOND);
                self.ctx.queue.push(at, Event::Start { host });
                None
            }
        }
    }

    /// D9: nobody knows what is durable, so the process stops.
    pub(crate) fn stop_for(&mut self, host: usize, why: &str) {
        self.ctx.coverage.struck(Fault::SyncError);
        self.ctx.trace(Some(host), || format!("its disk fails, so it stops: {why}"));
        if self.ctx.chances.disk.percent(50) {
            self.hosts[host].disk.forget_dirty();
        }
        let power = self.ctx.chances.disk.percent(50);
        self.crash(host, power);
        let at = self.ctx.now + self.ctx.chances.faults.between(100 * MILLI, 3 * SECOND);
        self.ctx.queue.push(at, Event::Start { host });
    }

    /// Flips bits of what a replica has stored, if the cluster survives its loss. Until it is repaired, no other disk
    /// may lose anything.
    pub(crate) fn rot(&mut self, host: usize, where_to: Rot) -> bool {
        if !self.may_lose(host) {
            return false;
        }
        if where_to == Rot::Snapshot && self.ctx.plan.sabotage == Some(Sabotage::TrustedRot) {
            let bit = self.ctx.chances.faults.word();
            self.hosts[host].disk.rot_unseen(bit);
            self.crash(host, false);
            self.restart_soon(host);
            return true;
        }
        self.crash(host, false);
        if self.hosts[host].lost {
            return false;
        }
        let rotten = self.hosts[host].disk.rot(where_to, &mut self.ctx.chances.faults);
        self.restart_soon(host);
        match rotten {
            Ok(Some((path, damage))) => {
                self.ctx.trace(Some(host), || format!("bits of {path} flip"));
                self.is_damaged(host, &damage);
                true
            }
            Ok(None) => false,
            Err(what) => {
                self.ctx.judge(Err((Rule::RestartKeepsPromises, format!("n{} rots: {what}", host + 1))));
                true
            }
        }
    }

    /// A disk has lost what was promised. Its replica will notice.
    pub(crate) fn is_damaged(&mut self, host: usize, damage: &Damage) {
        if damage.suspect {
            let id = self.hosts[host].id;
            self.ctx.oracle.promises.damaged(id);
            self.ctx.trace(Some(host), || "has LOST a part of its log, and will notice".to_owned());
        }
        if let Some(why) = &damage.ruined {
            self.ctx.trace(Some(host), || format!("can't use its disk any more: {why}"));
            self.lose(host);
        }
    }

    /// Limits a disk; `None` lifts the limit.
    pub(crate) fn limit_disk(&mut self, host: usize, room: Option<Room>) {
        if let Ended::Failed(why) = self.hosts[host].disk.limit(room)
            && self.hosts[host].is_up()
        {
            self.stop_for(host, &why);
        }
    }

    /// Whether nothing that may be in force depends on this disk.
    pub(crate) fn may_lose(&self, host: usize) -> bool {
        self.hosts.may_lose(host, self.ctx.oracle.commits.len())
    }

    /// Loses a disk for good, with everything on it; a new replica takes its place. Never loses so many that a
    /// configuration which may be in force has no majority left.
    pub(crate) fn wipe(&mut self, host: usize) -> bool {
        if !self.may_lose(host) {
            return false;
        }
        if !self.hosts[host].disk.refuses_nothing() {
            let what = format!("n{} starts with an empty folder and forgets its promises", host + 1);
            self.ctx.judge(Err((Rule::RestartKeepsPromises, what)));
        }
        self.lose(host);
        true
    }

    /// Loses a disk; a new replica takes its place.
    pub(crate) fn lose(&mut self, host: usize) {
        self.hosts[host].lost = true;
        self.ctx.trace(Some(host), || "its DISK IS LOST".to_owned());
        self.crash(host, true);
        let id = self.hosts[host].id;
        let newcomer = self.add_host(None);
        self.losses.push(Loss { id, newcomer });
    }
}

/// Disks that were restored from an old image.
impl System<'_> {
    /// Once a restored replica has heard its witness, it must know of its loss.
    pub(crate) fn judge_return(&mut self, host: usize) {
        let Some(Restored { witness, .. }) = self.restored.filter(|restored| restored.host == host) else { return };
        let Some(node) = &self.hosts[host].node else { return };
        if !node.raft().has_met(self.hosts[witness].id) {
            return;
        }
        self.restored = None;
        if node.raft().suspect().is_none() {
            let what = format!("n{} came back with an old image and did not notice", host + 1);
            self.ctx.judge(Err((Rule::RestartKeepsPromises, what)));
        }
    }

    /// A process has died and forgotten what it was promised.
    pub(crate) fn forget_witness(&mut self, died: usize) {
        if self.restored.is_some_and(|restored| restored.witness == died) {
            self.give_restored_up();
        }
    }

    /// Gives up a restored disk, because nobody can tell any more what is missing on it.
    pub(crate) fn give_restored_up(&mut self) {
        if let Some(Restored { host, .. }) = self.restored.take() {
            self.ctx.trace(Some(host), || "nobody is left who knows what is missing on its disk".to_owned());
            self.lose(host);
        }
    }
}
