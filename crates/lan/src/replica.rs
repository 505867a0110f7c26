//! The LAN replica, pure: a [`Node`] that speaks the JSON protocol.
//!
//! It never answers one `MID` twice, and answers every request that it has heard of as soon as it
//! can tell: `fail`, where it can read who asks but not what for. What it can't tell yet, it holds: while no
//! leader is known, and when a client that it sent to the leader comes back before it has heard the leader again,
//! which mostly means that the leader is dead. Sending such a client away again would only make it run in circles.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bowline_kv::{Command, Map};
use bowline_node::raft::{ConfigError, Fault, Group, Membership, NodeId, ReadKind, Recovered, Time, Token};
use bowline_node::{Failure, Node, NodeConfig, NodeEffect, NodeInput, NodeMessage, RecoveredNode, Response};

use crate::lan_id::LanId;
use crate::message::{Asker, Content, Envelope, Header, MessageError};
use crate::wire;

/// Most requests that are held at once; one more is answered `fail`.
pub const MAX_HELD: usize = 4_096;

/// Most requests that wait for the replica's log at once; one more is answered `fail`.
pub const MAX_WAITING: usize = 16_384;

/// How many of the latest answered requests are remembered, so that none is answered twice. One
/// that has no answer yet is never forgotten.
pub const MAX_REMEMBERED: usize = 16_384;

/// Longest key and value together, in bytes as they are written in messages, escapes included: a
/// put must fit into one message between replicas, and its value into the answer to a get.
pub const MAX_PUT_BYTES: usize = 40_000;

/// What a replica has ignored, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Not a message of the protocol, nor a request that could be answered `fail`.
    pub unreadable: u64,
    /// From or to someone who has no place here.
    pub foreign: u64,
    /// A replica's message that makes no sense.
    pub malformed: u64,
    /// A request that was heard before.
    pub repeated: u64,
}

/// A client's request.
#[derive(Clone, Debug)]
struct Request {
    asker: Asker,
    action: Action,
}

#[derive(Clone, Debug)]
enum Action {
    Get { key: String },
    Put { key: String, value: String },
}

/// A replica on the LAN.
#[derive(Debug)]
pub struct LanReplica {
    id: LanId,
    peers: BTreeMap<NodeId, LanId>,
    node: Node<Map>,
    next_token: u64,
    waiting: BTreeMap<Token, Request>,
    held: VecDeque<(Time, Request)>,
    /// When each client was last sent to the leader.
    redirected: BTreeMap<LanId, Time>,
    /// Every request that waits for its answer, and the latest that had it.
    heard: BTreeSet<(LanId, String)>,
    /// Those that had their answer, oldest first.
    answered: VecDeque<(LanId, String)>,
    ignored: Ignored,
    /// What was wrong with the first message that was unreadable.
    first_unreadable: Option<MessageError>,
    effects: Vec<NodeEffect>,
}

impl LanReplica {
    /// A replica that starts with an empty memory.
    ///
    /// # Errors
    /// The configuration is out of range.
    pub fn new(
        id: LanId,
        peers: &[LanId],
        configure: impl FnOnce(NodeId) -> NodeConfig,
        now: Time,
    ) -> Result<LanReplica, ConfigError> {
        let peers: BTreeMap<NodeId, LanId> = peers.iter().map(|peer| (node_id(*peer), *peer)).collect();
        let founders = Group::of_voters(peers.keys().copied().chain([node_id(id)]));
        let recovered = RecoveredNode { raft: Recovered::founding(Membership::simple(founders)), snapshot: None };
        let node = Node::new(configure(node_id(id)), Map::default(), recovered, now)?;
        Ok(LanReplica {
            id,
            peers,
            node,
            next_token: 0,
            waiting: BTreeMap::new(),
            held: VecDeque::new(),
            redirected: BTreeMap::new(),
            heard: BTreeSet::new(),
            answered: VecDeque::new(),
            ignored: Ignored::default(),
            first_unreadable: None,
            effects: Vec::new(),
        })
    }

    /// What a replica on UDP says first, so that the network learns its port.
    #[must_use]
    pub fn hello(&self) -> Envelope {
        self.envelope(LanId::BROADCAST, false, Content::Hello)
    }

    /// Takes a message, and appends what it has to say to `out`. What makes no sense is ignored and
    /// counted.
    pub fn receive(&mut self, now: Time, bytes: &[u8], out: &mut Vec<Envelope>) {
        if self.fault().is_some() {
            return;
        }
        match Envelope::peek(bytes) {
            Ok(header) if self.is_peer(header.src) => self.hear_peer(now, &header, bytes, out),
            Ok(_) => match Envelope::parse(bytes) {
                Ok(envelope) => self.hear_client(now, envelope, out),
                Err(error) => self.hear_badly(bytes, error, out),
            },
            Err(error) => self.hear_badly(bytes, error, out),
        }
        self.release_held(now, out);
    }

    /// Lets time pass.
    pub fn wake(&mut self, now: Time, out: &mut Vec<Envelope>) {
        self.run(now, NodeInput::Wake, out);
        self.release_held(now, out);
    }

    /// When to call [`LanReplica::wake`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        self.node.next_deadline()
    }

    /// Why it has stopped, if it has: a broken promise, its own or a peer's, was seen. It is silent from
    /// then on, and its host should end it.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.node.raft().fault()
    }

    /// What it has ignored.
    #[must_use]
    pub fn ignored(&self) -> Ignored {
        self.ignored
    }

    /// What was wrong with the first of the messages that were unreadable.
    #[must_use]
    pub fn first_unreadable(&self) -> Option<&MessageError> {
        self.first_unreadable.as_ref()
    }

    /// The replica inside.
    #[must_use]
    pub fn node(&self) -> &Node<Map> {
        &self.node
    }

    /// How many requests have no answer yet.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.waiting.len() + self.held.len()
    }

    /// Another replica's message, of which the envelope was read.
    fn hear_peer(&mut self, now: Time, header: &Header<'_>, bytes: &[u8], out: &mut Vec<Envelope>) {
        if !self.is_mine(header.dst) || Content::is_of_the_protocol(&header.kind) {
            self.ignored.foreign += 1;
            return;
        }
        match wire::decode(&header.kind, bytes) {
            Ok(message) => self.run(now, NodeInput::Receive { from: node_id(header.src), message }, out),
            Err(_) => self.ignored.malformed += 1,
        }
    }

    fn hear_client(&mut self, now: Time, envelope: Envelope, out: &mut Vec<Envelope>) {
        let Envelope { src, dst, content, spelled_dest, .. } = envelope;
        let request = |mid, action| Request { asker: Asker { src, dst, spelled_dest, mid }, action };
        match content {
            _ if !self.is_mine(dst) || !self.is_client(src) => self.ignored.foreign += 1,
            Content::Get { mid, key } => self.hear(now, request(mid, Action::Get { key }), out),
            Content::Put { mid, key, value } => self.hear(now, request(mid, Action::Put { key, value }), out),
            _ => self.ignored.foreign += 1,
        }
    }

    /// What can't be read as a message. If it is a client's request, its client is told.
    fn hear_badly(&mut self, bytes: &[u8], error: MessageError, out: &mut Vec<Envelope>) {
        match Asker::of(bytes).filter(|asker| self.is_mine(asker.dst) && self.is_client(asker.src)) {
            Some(asker) if self.is_new(&asker) => self.fail(&asker, error.to_string(), out),
            Some(_) => {}
            None => {
                self.ignored.unreadable += 1;
                self.first_unreadable.get_or_insert(error);
            }
        }
    }

    fn is_mine(&self, dst: LanId) -> bool {
        dst == self.id || dst.is_broadcast()
    }

    fn is_peer(&self, src: LanId) -> bool {
        self.peers.contains_key(&node_id(src))
    }

    fn is_client(&self, src: LanId) -> bool {
        !self.is_peer(src) && src != self.id && !src.is_broadcast()
    }

    /// Remembers a request. One that was heard before has its answer, or will have it.
    fn is_new(&mut self, asker: &Asker) -> bool {
        let new = self.heard.insert((asker.src, asker.mid.clone()));
        self.ignored.repeated += u64::from(!new);
        new
    }

    /// A client's request arrives.
    fn hear(&mut self, now: Time, request: Request, out: &mut Vec<Envelope>) {
        if !self.is_new(&request.asker) {
            return;
        }
        if let Action::Put { key, value } = &request.action {
            let length = wire::escaped_length(key) + wire::escaped_length(value);
            if length > MAX_PUT_BYTES {
                let error = format!("key and value take {length} bytes in ASCII; allowed: {MAX_PUT_BYTES}");
                return self.fail(&request.asker, error, out);
            }
        }
        self.serve(now, request, out);
    }

    /// Leads, redirects or holds.
    fn serve(&mut self, now: Time, request: Request, out: &mut Vec<Envelope>) {
        if self.node.raft().is_leader() {
            return self.submit(now, request, out);
        }
        let sent_away = self.redirected.get(&request.asker.src).copied();
        let heard_since = self.node.raft().leader_contact().is_some_and(|contact| Some(contact) > sent_away);
        if self.node.raft().leader().is_some() && heard_since {
            return self.redirect(now, request, out);
        }
        self.hold(now, request, out);
    }

    fn submit(&mut self, now: Time, request: Request, out: &mut Vec<Envelope>) {
        if self.waiting.len() >= MAX_WAITING {
            let error = format!("{MAX_WAITING} requests wait already");
            return self.fail(&request.asker, error, out);
        }
        self.next_token += 1;
        let token = Token(self.next_token);
        let input = match &request.action {
            Action::Get { .. } => NodeInput::Read { token, kind: ReadKind::Lease, deadline: None },
            Action::Put { key, value } => {
                let origin = format!("{}/{}", request.asker.src, request.asker.mid);
                let command = Command::Put { origin, key: key.clone(), value: value.clone() }.encode();
                NodeInput::Write { token, command, deadline: None }
            }
        };
        self.waiting.insert(token, request);
        self.run(now, input, out);
    }

    fn redirect(&mut self, now: Time, request: Request, out: &mut Vec<Envelope>) {
        self.redirected.insert(request.asker.src, now);
        self.reply(&request.asker, Content::Redirect { mid: request.asker.mid.clone() }, out);
    }

    fn hold(&mut self, now: Time, request: Request, out: &mut Vec<Envelope>) {
        if self.held.len() >= MAX_HELD {
            let error = format!("no leader is known, and {MAX_HELD} requests wait for one already");
            return self.fail(&request.asker, error, out);
        }
        self.held.push_back((now, request));
    }

    fn fail(&mut self, asker: &Asker, error: String, out: &mut Vec<Envelope>) {
        self.reply(asker, Content::Fail { mid: asker.mid.clone(), error: Some(error) }, out);
    }

    /// Serves what was held, as soon as this replica leads or has heard of a leader since.
    fn release_held(&mut self, now: Time, out: &mut Vec<Envelope>) {
        if self.fault().is_some() {
            for (_, request) in std::mem::take(&mut self.held) {
                self.fail(&request.asker, "this replica has stopped".to_owned(), out);
            }
            return;
        }
        if self.node.raft().is_leader() {
            for (_, request) in std::mem::take(&mut self.held) {
                self.submit(now, request, out);
            }
            return;
        }
        if self.node.raft().leader().is_none() {
            return;
        }
        let contact = self.node.raft().leader_contact();
        while self.held.front().is_some_and(|(since, _)| contact >= Some(*since)) {
            if let Some((_, request)) = self.held.pop_front() {
                self.redirect(now, request, out);
            }
        }
    }

    /// Hands the replica an input and carries out what it says. Its memory is durable at once: that
    /// it may lose everything with its process is what the LAN protocol says of it.
    fn run(&mut self, now: Time, input: NodeInput, out: &mut Vec<Envelope>) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = std::mem::take(&mut self.effects);
            self.node.handle(now, input, &mut effects);
            let mut durable = None;
            for effect in effects.drain(..) {
                match effect {
                    NodeEffect::Persist { id, .. } => durable = Some(id),
                    NodeEffect::StoreSnapshot { snapshot } => {
                        inputs.push_back(NodeInput::SnapshotStored { index: snapshot.header.position.index });
                    }
                    NodeEffect::Send { to, message, .. } => self.send(to, &message, out),
                    NodeEffect::Respond { token, response } => self.respond(now, token, response, out),
                    // See `fault`: the replica falls silent.
                    NodeEffect::Halt { .. } => {}
                }
            }
            self.effects = effects;
            inputs.extend(durable.map(|up_to| NodeInput::Persisted { up_to }));
        }
    }

    fn send(&self, to: NodeId, message: &NodeMessage, out: &mut Vec<Envelope>) {
        if let Some(peer) = self.peers.get(&to) {
            let (kind, fields) = wire::encode(message);
            out.push(self.envelope(*peer, false, Content::Other { kind: kind.to_owned(), fields }));
        }
    }

    fn respond(&mut self, now: Time, token: Token, response: Response, out: &mut Vec<Envelope>) {
        let Some(request) = self.waiting.remove(&token) else { return };
        let mid = request.asker.mid.clone();
        match response {
            Ok(_) => {
                let value = match &request.action {
                    Action::Get { key } => Some(self.node.machine().get(key).to_owned()),
                    Action::Put { .. } => None,
                };
                self.reply(&request.asker, Content::Ok { mid, value }, out);
            }
            // Nothing was done and nothing will be: whoever leads now may be asked again.
            Err(failure) if failure.is_passing() => self.serve(now, request, out),
            Err(Failure::NotDone(why)) => self.fail(&request.asker, why.to_string(), out),
            Err(Failure::Unknown(_)) => {
                self.fail(&request.asker, "it is not known whether this took effect".to_owned(), out);
            }
        }
    }

    /// Answers a request, which from now on may be forgotten.
    fn reply(&mut self, asker: &Asker, content: Content, out: &mut Vec<Envelope>) {
        out.push(self.envelope(asker.src, asker.spelled_dest, content));
        self.answered.push_back((asker.src, asker.mid.clone()));
        if self.answered.len() > MAX_REMEMBERED
            && let Some(oldest) = self.answered.pop_front()
        {
            self.heard.remove(&oldest);
        }
    }

    fn envelope(&self, dst: LanId, spelled_dest: bool, content: Content) -> Envelope {
        let leader = match self.node.raft().leader() {
            Some(leader) if leader == node_id(self.id) => self.id,
            Some(leader) => self.peers.get(&leader).copied().unwrap_or(LanId::BROADCAST),
            None => LanId::BROADCAST,
        };
        Envelope { src: self.id, dst, leader, content, spelled_dest }
    }
}

fn node_id(id: LanId) -> NodeId {
    NodeId(id.value().into())
}

#[cfg(test)]
mod tests;
