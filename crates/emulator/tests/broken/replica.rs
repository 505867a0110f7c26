//! A tiny replicated store without consensus, right as long as nothing fails, and with one fault
//! to choose.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bowline_lan::LanId;
use bowline_lan::message::{Content, Envelope};
use bowline_lan::socket::arguments::Arguments;
use bowline_lan::socket::{Received, ReplicaSocket, SocketError};
use serde_json::{Map, Value};

/// How often a replica says that it lives.
const HEARTBEAT: Duration = Duration::from_millis(100);
/// Who was not heard of for so long is taken for dead.
const TIMEOUT: Duration = Duration::from_millis(400);

/// What is wrong with a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Answers a put at once and replicates it later.
    Hasty,
    /// Answers gets from a copy that lags behind, and sends its clients to others to be nice.
    StaleReads,
    /// Begins with an empty store when it becomes the leader.
    Forgetful,
    /// Says everything to clients twice.
    Twice,
    /// Broadcasts far too much.
    Storm,
    /// Sends masses of bytes that are no messages.
    Garbage,
    /// Dies of its tenth put.
    Crash,
    /// Hears puts, but never answers them.
    Mute,
    /// Tells nobody of anything.
    Lonely,
    /// Closes its socket after its tenth put, and lives on.
    HangUp,
    /// Ends as soon as it has said hello.
    Fleeting,
}

impl Fault {
    pub(crate) const ALL: [Fault; 12] = [
        Fault::None,
        Fault::Hasty,
        Fault::StaleReads,
        Fault::Forgetful,
        Fault::Twice,
        Fault::Storm,
        Fault::Garbage,
        Fault::Crash,
        Fault::Mute,
        Fault::Lonely,
        Fault::HangUp,
        Fault::Fleeting,
    ];

    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }
}

/// Runs until the socket closes.
pub(crate) fn run(fault: Fault, arguments: &Arguments) -> Result<(), SocketError> {
    println!("{}", std::process::id());
    eprintln!("replica {} is {fault:?}", arguments.own);
    let socket = match arguments.port {
        Some(port) => ReplicaSocket::udp(port)?,
        None => ReplicaSocket::local(arguments.own.as_str().as_ref(), None)?,
    };
    let mut replica = Replica::new(fault, socket, arguments);
    if arguments.port.is_some() {
        replica.send(LanId::BROADCAST, Content::Hello)?;
    }
    if fault == Fault::Fleeting {
        std::process::exit(4);
    }
    let mut buffer = Vec::new();
    loop {
        let wait = replica.next_deadline().saturating_duration_since(Instant::now());
        let message = match replica.socket.receive(Some(wait), &mut buffer)? {
            Received::Closed => return Ok(()),
            Received::Timeout => None,
            Received::Message(bytes) => Envelope::parse(bytes).ok(),
        };
        replica.wake()?;
        if let Some(message) = message {
            replica.handle(message)?;
        }
        if replica.fault == Fault::HangUp && replica.puts >= 10 {
            drop(replica);
            std::thread::sleep(Duration::from_secs(60));
            return Ok(());
        }
    }
}

struct Put {
    client: LanId,
    mid: String,
    key: String,
    value: String,
    missing: usize,
}

struct Replica {
    fault: Fault,
    socket: ReplicaSocket,
    own: LanId,
    peers: Vec<LanId>,
    heard: BTreeMap<LanId, Instant>,
    was_leader: bool,
    store: BTreeMap<String, String>,
    under_way: BTreeMap<u64, Put>,
    puts: u64,
    answers: usize,
    next_heartbeat: Instant,
    /// Copies to send, or to take over, later.
    later: VecDeque<(Instant, Fields)>,
}

type Fields = Map<String, Value>;

impl Replica {
    fn new(fault: Fault, socket: ReplicaSocket, arguments: &Arguments) -> Replica {
        let now = Instant::now();
        let mut replica = Replica {
            fault,
            socket,
            own: arguments.own,
            peers: arguments.peers.clone(),
            heard: arguments.peers.iter().map(|peer| (*peer, now)).collect(),
            was_leader: false,
            store: BTreeMap::new(),
            under_way: BTreeMap::new(),
            puts: 0,
            answers: 0,
            next_heartbeat: now,
            later: VecDeque::new(),
        };
        replica.was_leader = replica.leader() == replica.own;
        replica
    }

    /// The lowest id that seems to live.
    fn leader(&self) -> LanId {
        let alive = self.heard.iter().filter(|(_, at)| at.elapsed() < TIMEOUT);
        let lowest = alive.map(|(id, _)| *id).min();
        lowest.map_or(self.own, |lowest| lowest.min(self.own))
    }

    fn send(&mut self, dst: LanId, content: Content) -> Result<(), SocketError> {
        let leader = self.leader();
        self.send_naming(leader, dst, content)
    }

    fn send_naming(&mut self, leader: LanId, dst: LanId, content: Content) -> Result<(), SocketError> {
        let envelope = Envelope { src: self.own, dst, leader, content, spelled_dest: false };
        self.socket.send(&envelope.encode())
    }

    fn send_own(&mut self, dst: LanId, kind: &str, fields: Fields) -> Result<(), SocketError> {
        let kind = kind.to_owned();
        self.send(dst, Content::Other { kind, fields: fields.into() })
    }

    fn answer(&mut self, client: LanId, content: Content) -> Result<(), SocketError> {
        self.answers += 1;
        let leader = match (self.fault, &content) {
            (Fault::StaleReads, Content::Ok { .. }) => self.peers[self.answers % self.peers.len()],
            _ => self.leader(),
        };
        if self.fault == Fault::Twice {
            self.send_naming(leader, client, content.clone())?;
        }
        self.send_naming(leader, client, content)
    }

    fn next_deadline(&self) -> Instant {
        let later = self.later.front().map(|(at, _)| *at);
        later.map_or(self.next_heartbeat, |at| at.min(self.next_heartbeat))
    }

    fn wake(&mut self) -> Result<(), SocketError> {
        let now = Instant::now();
        let leads = self.leader() == self.own;
        if leads && !self.was_leader && self.fault == Fault::Forgetful {
            self.store.clear();
        }
        self.was_leader = leads;
        if now >= self.next_heartbeat {
            self.next_heartbeat = now + HEARTBEAT;
            if self.fault != Fault::Lonely {
                self.send_own(LanId::BROADCAST, "alive", Fields::new())?;
            }
        }
        while self.later.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, fields)) = self.later.pop_front() else {
                break;
            };
            match self.fault {
                Fault::Hasty => self.send_own(LanId::BROADCAST, "copy", fields)?,
                _ => self.take_over(&fields),
            }
        }
        Ok(())
    }

    fn handle(&mut self, message: Envelope) -> Result<(), SocketError> {
        if let Some(heard) = self.heard.get_mut(&message.src) {
            *heard = Instant::now();
        }
        match message.content {
            Content::Get { mid, key } => self.get(message.src, mid, &key),
            Content::Put { mid, key, value } => {
                self.put(Put { client: message.src, mid, key, value, missing: self.peers.len().div_ceil(2) })
            }
            Content::Other { kind, fields } => match kind.as_str() {
                "copy" => self.copy(message.src, fields.to_map()),
                "copied" => self.copied(&fields.to_map()),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn get(&mut self, client: LanId, mid: String, key: &str) -> Result<(), SocketError> {
        let may = match self.fault {
            Fault::StaleReads | Fault::Lonely => true,
            _ => self.leader() == self.own,
        };
        let content = match may {
            true => Content::Ok { mid, value: Some(self.store.get(key).cloned().unwrap_or_default()) },
            false => Content::Redirect { mid },
        };
        self.answer(client, content)
    }

    fn put(&mut self, put: Put) -> Result<(), SocketError> {
        if self.leader() != self.own && self.fault != Fault::Lonely {
            return self.answer(put.client, Content::Redirect { mid: put.mid });
        }
        self.puts += 1;
        let number = self.puts;
        let fields = Fields::from_iter([
            ("number".to_owned(), Value::from(number)),
            ("key".to_owned(), Value::from(put.key.as_str())),
            ("value".to_owned(), Value::from(put.value.as_str())),
        ]);
        match self.fault {
            Fault::Hasty => {
                self.later.push_back((Instant::now() + Duration::from_millis(900), fields));
                return self.commit(put);
            }
            Fault::Lonely => return self.commit(put),
            Fault::Crash if number == 10 => {
                eprintln!("ten is too many");
                std::process::exit(3);
            }
            Fault::Storm => {
                for _ in 0..100 {
                    self.send_own(LanId::BROADCAST, "noise", Fields::new())?;
                }
            }
            Fault::Garbage => {
                for _ in 0..100 {
                    self.socket.send(b"no message at all\n")?;
                }
            }
            _ => {}
        }
        self.under_way.insert(number, put);
        self.send_own(LanId::BROADCAST, "copy", fields)
    }

    fn copy(&mut self, from: LanId, fields: Fields) -> Result<(), SocketError> {
        let number = fields.get("number").cloned().unwrap_or_default();
        if self.fault == Fault::StaleReads {
            let at = Instant::now() + Duration::from_millis(500);
            self.later.push_back((at, fields));
        } else {
            self.take_over(&fields);
        }
        let reply = Fields::from_iter([("number".to_owned(), number)]);
        self.send_own(from, "copied", reply)
    }

    fn take_over(&mut self, fields: &Fields) {
        let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        if let (Some(key), Some(value)) = (text("key"), text("value")) {
            self.store.insert(key, value);
        }
    }

    fn copied(&mut self, fields: &Fields) -> Result<(), SocketError> {
        let number = fields.get("number").and_then(Value::as_u64).unwrap_or(0);
        let Some(put) = self.under_way.get_mut(&number) else {
            return Ok(());
        };
        put.missing -= 1;
        match put.missing {
            0 => match self.under_way.remove(&number) {
                Some(put) => self.commit(put),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn commit(&mut self, put: Put) -> Result<(), SocketError> {
        self.store.insert(put.key, put.value);
        if self.fault == Fault::Mute {
            return Ok(());
        }
        let content = Content::Ok { mid: put.mid, value: None };
        self.answer(put.client, content)
    }
}
