//! What a replica's step brings: its effects, carried out one by one.

use bowline_node::{NodeEffect, NodeMessage, Response, StoredSnapshot};
use bowline_raft::{AppendOutcome, Body, Index, NodeId, Token, Write};

use crate::world::coverage::Fault;
use crate::world::disk::Item;
use crate::world::host::Asker;
use crate::world::mangle::mangled;
use crate::world::network::size_of;
use crate::world::oracle::Rule;
use crate::world::plan::Sabotage;
use crate::world::replica::Replica;
use crate::world::stage::{Event, World};
use crate::world::story::{describe, describe_response};

/// Effects.
impl World<'_> {
    pub(crate) fn carry_out(&mut self, host: usize, effects: &mut Vec<NodeEffect>) {
        let mut effects = effects.drain(..).peekable();
        while let Some(effect) = effects.next() {
            if let Some(left) = &mut self.hosts[host].crash_in {
                if *left == 0 {
                    self.coverage.struck(Fault::CrashInside);
                    self.crash(host, true);
                    self.restart_soon(host);
                    return;
                }
                *left -= 1;
            }
            if self.hosts[host].node.is_none() {
                // It has stopped over what it was asked to read.
                return;
            }
            match effect {
                NodeEffect::Persist { id, write } => self.hosts[host].disk.write(Item::Write(id, write)),
                NodeEffect::StoreSnapshot { snapshot } => {
                    let of_the_stream = matches!(effects.peek(), Some(NodeEffect::Persist { write: Write::Snapshot(header), .. })
                        if *header == snapshot.header);
                    self.tell(Some(host), || format!("stores a snapshot up to {}", snapshot.header.position));
                    if !of_the_stream {
                        let judged = self.hosts[host].shadow.judge_header(&snapshot.header);
                        let judged = judged.and_then(|()| self.judge_kept(host, &snapshot));
                        self.judge(judged);
                    }
                    if of_the_stream {
                        self.hosts[host].disk.write(Item::File(snapshot));
                    } else {
                        self.hosts[host].disk.start_storing(snapshot);
                        let plan = &self.plan.disk;
                        let span = self.chances.disk.between(plan.sync_low, plan.sync_high * 4);
                        let life = self.hosts[host].life;
                        self.queue.push(self.now + span, Event::Stored { host, life });
                    }
                }
                NodeEffect::Send { to, message, after } => {
                    let durable = self.hosts[host].durable;
                    match after.filter(|after| *after > durable) {
                        Some(after) if self.plan.sabotage != Some(Sabotage::HastyMessages) => {
                            self.hosts[host].held.push_back((after, to, message));
                        }
                        _ => self.send(host, to, message),
                    }
                }
                NodeEffect::Respond { token, response } => self.respond(host, token, response),
                NodeEffect::Halt { fault } => {
                    self.judge(Err((Rule::NoReplicaHalts, format!("n{} halts: {fault}", host + 1))));
                }
            }
        }
    }

    /// I16: what is to take the place of the log is what the log makes of nothing.
    fn judge_kept(&self, host: usize, snapshot: &StoredSnapshot) -> Result<(), (Rule, String)> {
        match &self.hosts[host].node {
            Some(node @ Replica::Kept(_)) => {
                let judged = self.clients.judge_state(node.machine());
                judged.map_err(|what| (Rule::StatesAreEqual, format!("n{}: {what}", host + 1)))
            }
            _ => self.clients.judge_snapshot(snapshot),
        }
    }

    fn respond(&mut self, host: usize, token: Token, response: Response) {
        match self.hosts[host].tokens.remove(&token) {
            Some(Asker::Client { op, attempt, known }) => self.replied(host, op, attempt, known, response),
            Some(Asker::Keeper { keeper, call, ask, begun, renewal }) => {
                self.keeper_answered(host, (keeper, call, ask), (begun, renewal), response);
            }
            Some(Asker::Lessor { number, term }) => self.end_proposed(host, (number, term), &response),
            Some(Asker::Operator) => {
                self.tell(Some(host), || format!("tells the operator: {}", describe_response(&response)));
            }
            None => {
                let what = format!("n{} answers a request that is not open", host + 1);
                self.judge(Err((Rule::EveryRequestEndsOnce, what)));
            }
        }
    }

    /// A message leaves a replica.
    pub(crate) fn send(&mut self, from: usize, to: NodeId, message: NodeMessage) {
        if let NodeMessage::Raft(message) = &message {
            let it = &self.hosts[from];
            let judged = self.oracle.promises.sent(it.id, to, message, &it.disk);
            self.judge(judged);
            self.judge_claims(from, to, message);
        }
        let to = to.0 as usize - 1;
        if to >= self.hosts.len() || self.keeps_apart(from, to) {
            return;
        }
        let fate = self.network.send(self.now, from, to, size_of(&message), &mut self.chances.network);
        if let Some(camera) = &mut self.camera {
            camera.sent(self.now, from, to, &message, &fate);
        }
        if fate.lost {
            if !fate.cut {
                self.coverage.struck(Fault::Drop);
            }
            self.tell(Some(from), || format!("-x n{} {}", to + 1, describe(&message)));
            return;
        }
        for (struck, fault) in [(fate.slow, Fault::Slow), (fate.overtaken, Fault::Reorder)] {
            if struck {
                self.coverage.struck(fault);
            }
        }
        for (at, fault) in [(fate.copy, Fault::Duplicate), (fate.replay, Fault::Replay)] {
            if let Some(at) = at {
                self.coverage.struck(fault);
                self.queue.push(at, Event::Message { from, to, message: message.clone() });
            }
        }
        if fate.mangled {
            self.coverage.struck(Fault::Mangle);
            let copy = mangled(&message, &mut self.chances.network);
            self.queue.push(fate.at, Event::Message { from, to, message: copy });
        }
        self.queue.push(fate.at, Event::Message { from, to, message });
    }

    /// What a message claims is true of the sender, and of the leader that it answers.
    fn judge_claims(&mut self, from: usize, to: NodeId, message: &bowline_raft::Message) {
        let Some(node) = &self.hosts[from].node else { return };
        let judged = match &message.body {
            Body::AppendEntries(append) if append.commit_index > node.raft().commit_index() => {
                let what = format!("n{} tells {to} that {} is committed", from + 1, append.commit_index);
                Err((Rule::CommitIsNotOverstated, what))
            }
            Body::AppendEntriesReply(reply) => match reply.outcome {
                AppendOutcome::Accepted { match_index } => self.matches_leader(from, to, message.term, match_index),
                AppendOutcome::Rejected { .. } | AppendOutcome::Damaged { .. } => Ok(()),
            },
            _ => Ok(()),
        };
        self.judge(judged);
    }

    /// I9: an acknowledged entry is the leader's own, on the follower's disk.
    fn matches_leader(
        &self,
        from: usize,
        to: NodeId,
        term: bowline_raft::Term,
        index: Index,
    ) -> Result<(), (Rule, String)> {
        let (disk, leader) = (&self.hosts[from].disk, self.hosts.get(to.0 as usize - 1));
        let Some(raft) = leader.and_then(|it| it.node.as_ref()).map(|node| node.raft()) else { return Ok(()) };
        if !raft.is_leader() || raft.term() != term || disk.hard_state().term > term {
            return Ok(());
        }
        match (disk.term_at(index), raft.log().term_at(index)) {
            (Some(held), Some(led)) if held != led => {
                let what = format!("n{} acknowledges {index}@{} where {to} has {index}@{}", from + 1, held.0, led.0);
                Err((Rule::AcknowledgedIsDurable, what))
            }
            _ => Ok(()),
        }
    }
}
