//! The links between replicas, and between clients and replicas: which of them work, and how fast.

use bowline_node::NodeMessage;
use bowline_raft::{Body, Entry};

use crate::cluster::clock::Moment;
use crate::cluster::context::Context;
use crate::cluster::dice::Dice;
use crate::cluster::event::Event;
use crate::cluster::faults::Fault;
use crate::cluster::mangle::mangled;
use crate::cluster::plan::{MILLI, NetworkPlan};
use crate::cluster::trace::describe;

/// Maximum number of replicas that a cluster can ever have.
const MAX_HOSTS: usize = 24;
/// A narrow link drops messages that would wait longer than this.
const LONGEST_QUEUE: Moment = 2_000 * MILLI;

/// A directed link, from a replica to another.
pub(crate) type Link = (usize, usize);

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) plan: NetworkPlan,
    /// How many replicas it links.
    size: usize,
    /// How many of the cuts in force block each link.
    blocked: [[u8; MAX_HOSTS]; MAX_HOSTS],
    /// Bytes per millisecond; 0 for no limit.
    capacity: [[u32; MAX_HOSTS]; MAX_HOSTS],
    busy_until: [[Moment; MAX_HOSTS]; MAX_HOSTS],
    latest: [[Moment; MAX_HOSTS]; MAX_HOSTS],
    /// How many cuts keep all clients away from a replica.
    clients_blocked: [u8; MAX_HOSTS],
}

/// When the copies of a message arrive.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    pub(crate) lost: bool,
    /// It is lost because of a cut, not at random.
    pub(crate) cut: bool,
    pub(crate) at: Moment,
    pub(crate) slow: bool,
    pub(crate) overtaken: bool,
    pub(crate) copy: Option<Moment>,
    pub(crate) replay: Option<Moment>,
    pub(crate) mangled: bool,
}

impl Network {
    pub(crate) fn new(plan: NetworkPlan) -> Network {
        Network {
            plan,
            size: 0,
            blocked: [[0; MAX_HOSTS]; MAX_HOSTS],
            capacity: [[0; MAX_HOSTS]; MAX_HOSTS],
            busy_until: [[0; MAX_HOSTS]; MAX_HOSTS],
            latest: [[0; MAX_HOSTS]; MAX_HOSTS],
            clients_blocked: [0; MAX_HOSTS],
        }
    }

    /// Adds a replica, if there is room for it.
    pub(crate) fn attach(&mut self) -> Option<usize> {
        (self.size < MAX_HOSTS).then(|| {
            self.size += 1;
            self.size - 1
        })
    }

    /// How many replicas it links.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Every link from and to a replica.
    pub(crate) fn around(&self, host: usize) -> Vec<Link> {
        (0..self.size).filter(|other| *other != host).flat_map(|other| [(host, other), (other, host)]).collect()
    }

    /// Every link to a replica.
    pub(crate) fn links_into(&self, host: usize) -> Vec<Link> {
        self.around(host).into_iter().filter(|(_, to)| *to == host).collect()
    }

    pub(crate) fn cut(&mut self, links: &[Link]) {
        for (from, to) in links {
            self.blocked[*from][*to] += 1;
        }
    }

    pub(crate) fn heal(&mut self, links: &[Link]) {
        for (from, to) in links {
            self.blocked[*from][*to] = self.blocked[*from][*to].saturating_sub(1);
        }
    }

    pub(crate) fn cut_clients(&mut self, host: usize, cut: bool) {
        let count = &mut self.clients_blocked[host];
        *count = if cut { *count + 1 } else { count.saturating_sub(1) };
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.blocked[from][to] > 0
    }

    pub(crate) fn is_cut_from_clients(&self, host: usize) -> bool {
        self.clients_blocked[host] > 0
    }

    pub(crate) fn narrow(&mut self, link: Link, bytes_per_milli: u32) {
        self.capacity[link.0][link.1] = bytes_per_milli;
    }

    /// Removes every cut and every limit.
    pub(crate) fn heal_all(&mut self) {
        self.blocked = [[0; MAX_HOSTS]; MAX_HOSTS];
        self.capacity = [[0; MAX_HOSTS]; MAX_HOSTS];
        self.clients_blocked = [0; MAX_HOSTS];
    }

    /// Sends a replica's message: plans the arrival of each copy, or loses it.
    pub(crate) fn send(&mut self, ctx: &mut Context<'_>, from: usize, to: usize, message: NodeMessage) {
        let fate = self.fate(ctx.now, from, to, size_of(&message), &mut ctx.chances.network);
        if let Some(recorder) = &mut ctx.recorder {
            recorder.sent(ctx.now, from, to, &message, &fate);
        }
        if fate.lost {
            if !fate.cut {
                ctx.coverage.struck(Fault::Drop);
            }
            ctx.trace(Some(from), || format!("-x n{} {}", to + 1, describe(&message)));
            return;
        }
        for (struck, fault) in [(fate.slow, Fault::Slow), (fate.overtaken, Fault::Reorder)] {
            if struck {
                ctx.coverage.struck(fault);
            }
        }
        for (at, fault) in [(fate.copy, Fault::Duplicate), (fate.replay, Fault::Replay)] {
            if let Some(at) = at {
                ctx.coverage.struck(fault);
                ctx.queue.push(at, Event::Message { from, to, message: message.clone() });
            }
        }
        if fate.mangled {
            ctx.coverage.struck(Fault::Mangle);
            let copy = mangled(&message, &mut ctx.chances.network);
            ctx.queue.push(fate.at, Event::Message { from, to, message: copy });
        }
        ctx.queue.push(fate.at, Event::Message { from, to, message });
    }

    /// Draws what happens to a message that is sent now.
    fn fate(&mut self, now: Moment, from: usize, to: usize, bytes: usize, dice: &mut Dice) -> Fate {
        let plan = &self.plan;
        if self.blocked[from][to] > 0 {
            return Fate { lost: true, cut: true, ..Fate::default() };
        }
        if dice.chance(plan.lost) {
            return Fate { lost: true, ..Fate::default() };
        }
        let slow = dice.chance(plan.tail);
        let usual = plan.delay.draw(dice);
        let mut at = now + if slow { usual * dice.between(10, 100) } else { usual };
        if let Some(way) = (bytes as u64 * MILLI).checked_div(u64::from(self.capacity[from][to])) {
            let busy = &mut self.busy_until[from][to];
            let start = (*busy).max(now);
            if start > now + LONGEST_QUEUE {
                return Fate { lost: true, ..Fate::default() };
            }
            *busy = start + way;
            at = at.max(*busy);
        }
        let latest = &mut self.latest[from][to];
        let mut overtaken = false;
        if plan.in_order {
            at = at.max(*latest);
        } else {
            overtaken = at < *latest;
        }
        *latest = at.max(*latest);
        Fate {
            lost: false,
            cut: false,
            at,
            slow,
            overtaken,
            copy: dice.chance(plan.doubled).then(|| now + plan.delay.draw(dice) * dice.between(1, 4)),
            replay: dice.chance(plan.replayed).then(|| now + dice.magnitude(50, 60_000) * MILLI),
            mangled: dice.chance(plan.mangled),
        }
    }

    /// When something between a client and a replica arrives; `None` if it doesn't.
    pub(crate) fn client_way(&mut self, now: Moment, host: usize, dice: &mut Dice) -> Option<Moment> {
        let lost = self.clients_blocked[host] > 0 || dice.chance(self.plan.lost / 4);
        (!lost).then(|| now + self.plan.delay.draw(dice))
    }
}

/// The approximate size of a message in bytes.
fn size_of(message: &NodeMessage) -> usize {
    let payload = match message {
        NodeMessage::Raft(message) => match &message.body {
            Body::AppendEntries(append) => append.entries.iter().map(Entry::size).sum(),
            _ => 0,
        },
        NodeMessage::Chunk(chunk) => chunk.data.len(),
        NodeMessage::ChunkReply(_) => 0,
    };
    payload + 60
}
