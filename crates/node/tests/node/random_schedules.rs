//! A hundred seeds of everything at once: losses, cuts, crashes, slow disks, reads and writes.

use std::collections::BTreeMap;
use std::time::Duration;

use bowline_node::raft::{NodeId, Random, ReadKind, Token};
use bowline_node::{Failure, NodeConfig, NodeInput};

use crate::cluster::Cluster;
use crate::ledger::count;

const SEEDS: u64 = 100;
const STEPS: usize = 300;

fn small(config: &mut NodeConfig) {
    config.raft.max_retained_bytes = 500;
    config.snapshot_at_bytes = 1_000;
    config.chunk_bytes = 200;
    config.raft.max_uncommitted_bytes = 2_000;
}

/// What the clients know: the ledger only grows, so that a count says all about freshness.
#[derive(Default)]
struct Clients {
    writes: BTreeMap<Token, String>,
    /// Linearizable reads, with what was known to be in the ledger when they were asked.
    reads: BTreeMap<Token, usize>,
    /// The most lines that any answer has named.
    known: usize,
}

impl Clients {
    /// Takes the answers. An old one says nothing new.
    fn listen(&mut self, cluster: &Cluster) {
        for (token, response) in &cluster.responses {
            let Ok(bytes) = response else { continue };
            if self.writes.contains_key(token) {
                self.known = self.known.max(count(bytes));
            } else if let Some(known) = self.reads.get(token) {
                let read = count(bytes);
                assert!(read >= *known, "a read saw {read} lines, {known} were acknowledged before it");
                self.known = self.known.max(read);
            }
        }
    }
}

fn disturb(cluster: &mut Cluster, random: &mut Random) {
    let ids = cluster.ids();
    let some = ids[(random.next_u64() % ids.len() as u64) as usize];
    let up = ids.iter().filter(|id| cluster.is_up(**id)).count();
    match random.next_u64() % 40 {
        0 => cluster.isolate(some),
        1 => {
            let other = ids[(random.next_u64() % ids.len() as u64) as usize];
            cluster.cut.insert((some, other));
        }
        2..=4 => cluster.cut.clear(),
        5 if up > ids.len() / 2 => cluster.crash(some),
        6..=8 if !cluster.is_up(some) => cluster.start(some),
        9 => cluster.lost = random.next_u64() % 30,
        10 => cluster.doubled = random.next_u64() % 30,
        11 => cluster.delay = Duration::from_micros(random.next_u64() % 30_000),
        12 => cluster.disk = Duration::from_micros(random.next_u64() % 20_000),
        13 => cluster.lost = 0,
        14 => {
            let leader = cluster.leader();
            if let Some(leader) = leader {
                cluster.operate(leader, |token| NodeInput::TransferLeadership { token, to: None });
            }
        }
        _ => {}
    }
}

fn ask(cluster: &mut Cluster, random: &mut Random, clients: &mut Clients, number: usize) {
    let ids: Vec<NodeId> = cluster.ids().into_iter().filter(|id| cluster.is_up(*id)).collect();
    let any = ids[(random.next_u64() % ids.len() as u64) as usize];
    let at = if random.next_u64().is_multiple_of(4) { any } else { cluster.leader().unwrap_or(any) };
    match random.next_u64() % 4 {
        0 | 1 => {
            let line = format!("line {number}");
            let deadline = (random.next_u64().is_multiple_of(4)).then(|| cluster.now.after(Duration::from_millis(100)));
            let token = cluster.write_until(at, &line, deadline);
            clients.writes.insert(token, line);
        }
        2 => {
            let kind = if random.next_u64().is_multiple_of(2) { ReadKind::Lease } else { ReadKind::Quorum };
            let known = clients.known;
            let token = cluster.read(at, kind);
            clients.reads.insert(token, known);
        }
        _ => {}
    }
}

/// Returns how many writes were done, and how many snapshots stored. State machines are late by so much
/// at most, if at all.
fn run(seed: u64, late: Option<Duration>) -> (usize, usize) {
    let mut random = Random::new(seed);
    let mut cluster = Cluster::with_machines(3 + 2 * (seed % 2), seed, small, late);
    cluster.watch();
    let mut clients = Clients::default();
    for number in 0..STEPS {
        disturb(&mut cluster, &mut random);
        ask(&mut cluster, &mut random, &mut clients, number);
        cluster.pass(Duration::from_micros(random.next_u64() % 30_000));
        clients.listen(&cluster);
    }
    cluster.cut.clear();
    (cluster.lost, cluster.doubled, cluster.delay, cluster.disk) = (0, 0, Duration::ZERO, Duration::from_micros(200));
    for id in cluster.ids().into_iter().filter(|id| !cluster.is_up(*id)).collect::<Vec<_>>() {
        cluster.start(id);
    }
    let (leader, others) = cluster.elect();
    cluster.fill(leader, "last", 1);
    cluster.elect();
    clients.listen(&cluster);
    assert_eq!(cluster.unanswered(), [], "seed {seed}: everything that was asked of a living replica has its end");
    let lines = cluster.lines(leader);
    for id in others {
        assert_eq!(cluster.lines(id), lines, "seed {seed}: {id} agrees with {leader}");
    }
    let mut done = 0;
    for (token, line) in &clients.writes {
        let times = lines.iter().filter(|known| *known == line).count();
        match cluster.response(*token) {
            Some(Ok(receipt)) => {
                assert_eq!(
                    lines.get(count(receipt) - 1),
                    Some(line),
                    "seed {seed}: {line:?} is where its receipt says"
                );
                assert_eq!(times, 1, "seed {seed}: {line:?}");
                done += 1;
            }
            // A crash took its answer, or nobody can tell.
            None | Some(Err(Failure::Unknown(_))) => assert!(times <= 1, "seed {seed}: {line:?}"),
            Some(refusal) => assert_eq!(times, 0, "seed {seed}: {line:?} had no effect: {refusal:?}"),
        }
    }
    (done, cluster.stored.len())
}

fn run_all(late: Option<Duration>) {
    let (mut done, mut stored) = (0, 0);
    for seed in 1..=SEEDS {
        let (writes, snapshots) = run(seed, late);
        done += writes;
        stored += snapshots;
    }
    // A schedule in which nothing succeeds proves nothing.
    assert!(done > 30 * SEEDS as usize, "{done}");
    assert!(stored > 5 * SEEDS as usize, "{stored}");
}

#[test]
fn whatever_happens_nothing_that_was_acknowledged_is_lost() {
    run_all(None);
}

#[test]
fn a_state_machine_may_be_as_late_as_it_will() {
    run_all(Some(Duration::from_millis(1)));
    run_all(Some(Duration::from_millis(80)));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(7, None), run(7, None));
    let late = Some(Duration::from_millis(30));
    assert_eq!(run(8, late), run(8, late));
}
