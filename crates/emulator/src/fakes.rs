//! For tests: small scripted replicas, run in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use bowline_lan::LanId;
use bowline_lan::message::{Content, Envelope};

use crate::emulation::{Action, Emulation, ExtraFaults, Record};
use crate::scenario::Scenario;

/// How long every message to a replica takes.
pub(crate) const DELAY: Duration = Duration::from_millis(1);

/// Maps a message that reached a replica to the messages that the replica sends.
pub(crate) type Behaviour<'a> = &'a mut dyn FnMut(Seen<'_>) -> Vec<Vec<u8>>;

/// A message that reached a replica.
pub(crate) struct Seen<'a> {
    pub(crate) replica: usize,
    pub(crate) message: &'a Envelope,
}

impl Seen<'_> {
    /// A message from this replica to the sender of the message.
    pub(crate) fn reply(&self, leader: usize, content: Content) -> Vec<u8> {
        self.send(self.message.src, id(leader), content)
    }

    pub(crate) fn send(&self, dst: LanId, leader: LanId, content: Content) -> Vec<u8> {
        let src = id(self.replica);
        let spelled_dest = false;
        Envelope { src, dst, leader, content, spelled_dest }.encode()
    }

    pub(crate) fn mid(&self) -> String {
        self.message.content.mid().unwrap_or_default().to_owned()
    }

    pub(crate) fn is_request(&self) -> bool {
        matches!(self.message.content, Content::Get { .. } | Content::Put { .. })
    }
}

pub(crate) fn id(replica: usize) -> LanId {
    LanId::from_value(replica as u16)
}

/// A message between replicas.
pub(crate) fn own(kind: &str) -> Content {
    Content::Other { kind: kind.to_owned(), fields: serde_json::Map::new().into() }
}

/// One register for each key, shared by all replicas as if agreement took no time.
#[derive(Default)]
pub(crate) struct Registers(BTreeMap<String, String>);

impl Registers {
    /// The correct answer to a request; `None` if the message is not a request.
    pub(crate) fn answer(&mut self, content: &Content) -> Option<Content> {
        match content.clone() {
            Content::Get { mid, key } => {
                Some(Content::Ok { mid, value: Some(self.0.get(&key).cloned().unwrap_or_default()) })
            }
            Content::Put { mid, key, value } => {
                self.0.insert(key, value);
                Some(Content::Ok { mid, value: None })
            }
            _ => None,
        }
    }
}

/// Replicas that always answer correctly. For each put they send every other replica a message, as
/// if they had to agree. Replica 0 leads.
pub(crate) fn perfect() -> impl FnMut(Seen<'_>) -> Vec<Vec<u8>> {
    let mut registers = Registers::default();
    move |seen| {
        let mut sent = Vec::new();
        if let Content::Put { .. } = seen.message.content {
            sent.push(seen.send(LanId::BROADCAST, id(0), own("append")));
        }
        if let Some(answer) = registers.answer(&seen.message.content) {
            sent.push(seen.reply(0, answer));
        }
        sent
    }
}

/// A scenario with these fields. The default is five replicas and 100 requests in 10 s.
pub(crate) fn scenario(fields: &str) -> Scenario {
    let mut json: serde_json::Value = serde_json::from_str(fields).unwrap();
    for (field, value) in [("lifetime", 10), ("replicas", 5), ("requests", 100)] {
        let json = json.as_object_mut().unwrap();
        json.entry(field).or_insert(value.into());
    }
    Scenario::from_json("test", json.to_string().as_bytes()).unwrap()
}

/// Runs the emulation to its end in virtual time.
pub(crate) fn run(emulation: Emulation, behaviour: Behaviour<'_>) -> Record {
    run_with(emulation, behaviour, &mut |_, _, _| {})
}

/// The same as [`run`], but calls `meddle` before each step.
pub(crate) fn run_with(
    mut emulation: Emulation,
    behaviour: Behaviour<'_>,
    meddle: &mut dyn FnMut(Duration, &mut Emulation, &mut Vec<Action>),
) -> Record {
    let mut flying: BTreeMap<(Duration, u64), (usize, Vec<u8>)> = BTreeMap::new();
    let mut count = 0;
    let mut actions = Vec::new();
    while let Some(deadline) = emulation.next_deadline() {
        let arrival = flying.keys().next().map(|(at, _)| *at);
        let now = arrival.map_or(deadline, |at| at.min(deadline));
        meddle(now, &mut emulation, &mut actions);
        if arrival == Some(now) {
            let (_, (replica, bytes)) = flying.pop_first().unwrap();
            if emulation.is_alive(replica) {
                let message = &Envelope::parse(&bytes).unwrap();
                let seen = Seen { replica, message };
                for raw in behaviour(seen) {
                    emulation.receive(now, replica, &raw, &mut actions);
                }
            }
        } else {
            emulation.wake(now, &mut actions);
        }
        for action in actions.drain(..) {
            if let Action::Deliver { to, bytes, .. } = action {
                flying.insert((now + DELAY, count), (to, bytes.to_vec()));
                count += 1;
            }
        }
    }
    emulation.into_record()
}

/// An emulation of [`scenario`] without further faults. Its seed is one with which the situations that the tests wait
/// for occur.
pub(crate) fn emulation(fields: &str) -> Emulation {
    Emulation::new(scenario(fields), 3, ExtraFaults::default())
}
