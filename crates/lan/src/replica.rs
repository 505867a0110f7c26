//! The LAN replica, pure: a [`Node`] that speaks the JSON protocol.
//!
//! It never answers a `MID` twice, and answers every request as soon as it can. If it can read only who sent a request,
//! it answers `fail`. It holds a request while it knows no leader. It also holds the request of a client that it
//! redirected to the leader if it has not heard from the leader since then: the leader is probably dead, and another
//! redirect would only send the client round again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bowline_node::raft::{ConfigError, Fault, Group, Membership, NodeId, ReadKind, Recovered, Time, Token};
use bowline_node::{Failure, Node, NodeConfig, NodeEffect, NodeInput, NodeMessage, RecoveredNode, Response};

use crate::lan_id::LanId;
use crate::map::{Command, Map};
use crate::message::{Asker, Content, Envelope, Header, MessageError};
use crate::wire;

/// The most requests that are held at once; a further one is answered `fail`.
pub const MAX_HELD: usize = 4_096;

/// The most requests that wait for the replica's log at once; a further one is answered `fail`.
pub const MAX_WAITING: usize = 16_384;

/// How many of the latest answered requests are remembered, so that none is answered twice. A
/// request without an answer is never forgotten.
pub const MAX_REMEMBERED: usize = 16_384;

/// The longest key and value together, in bytes as messages have them, with escapes. A put must fit
/// into one message between replicas, and its value into the answer to a get.
pub const MAX_PUT_BYTES: usize = 40_000;

/// The messages that a replica ignored, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Neither a message of the protocol nor a request that could be answered `fail`.
    pub unreadable: u64,
    /// From or to a wrong id, or of a `type` that the sender must not send to a replica.
    pub foreign: u64,
    /// From a replica, but not a valid message between replicas.
    pub malformed: u64,
    /// A request that was received before.
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
    /// When each client was last redirected.
    redirected: BTreeMap<LanId, Time>,
    /// Every request without an answer, and the latest answered ones.
    heard: BTreeSet<(LanId, String)>,
    /// The answered requests in `heard`, oldest first.
    answered: VecDeque<(LanId, String)>,
    ignored: Ignored,
    /// The error of the first unreadable message.
    first_unreadable: Option<MessageError>,
    effects: Vec<NodeEffect>,
}

impl LanReplica {
    /// A replica without any state.
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

    /// The first message of a replica on UDP, which tells the network its port.
    #[must_use]
    pub fn hello(&self) -> Envelope {
        self.envelope(LanId::BROADCAST, false, Content::Hello)
    }

    /// Handles a message and appends the messages to send to `out`. Invalid messages are ignored and
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

    /// Why the replica stopped, if it did: it saw that it or a peer broke a promise. It sends nothing
    /// from then on, and its host should end it.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.node.raft().fault()
    }

    /// How many messages the replica ignored.
    #[must_use]
    pub fn ignored(&self) -> Ignored {
        self.ignored
    }

    /// The error of the first unreadable message.
    #[must_use]
    pub fn first_unreadable(&self) -> Option<&MessageError> {
        self.first_unreadable.as_ref()
    }

    /// The Raft replica inside.
    #[must_use]
    pub fn node(&self) -> &Node<Map> {
        &self.node
    }

    /// How many requests have no answer yet.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.waiting.len() + self.held.len()
    }

    /// Handles a message from a peer whose header was read.
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

    /// Handles bytes that are not a message. If they contain a client's request, answers it with `fail`.
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

    /// Remembers a request. Returns `false` if it was received before: then it has an answer or will get one.
    fn is_new(&mut self, asker: &Asker) -> bool {
        let new = self.heard.insert((asker.src, asker.mid.clone()));
        self.ignored.repeated += u64::from(!new);
        new
    }

    /// Handles a client's request.
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

    /// Submits the request as the leader, redirects it or holds it.
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

    /// Serves held requests as soon as this replica leads, or has heard from a leader since it held them.
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

    /// Gives the Raft replica an input and carries out its effects. State in memory counts as durable
    /// at once, because the LAN protocol lets a replica lose its state with its process.
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
                    // The replica sends nothing from now on, see `fault`.
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
            // The request has had no effect and will have none, so it can be served again.
            Err(failure) if failure.is_passing() => self.serve(now, request, out),
            Err(Failure::NotDone(why)) => self.fail(&request.asker, why.to_string(), out),
            Err(Failure::Unknown(_)) => {
                self.fail(&request.asker, "it is not known whether this took effect".to_owned(), out);
            }
        }
    }

    /// Answers a request. From now on it may be forgotten.
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
