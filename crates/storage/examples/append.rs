//! How fast the log is on a real folder: appends a second, and how long a sync takes.
//!
//! `cargo run --release -p bowline-storage --example append -- FOLDER [SYNCS] [BYTES] [ENTRIES A SYNC]`

use std::time::{Duration, Instant};

use bowline_raft::{Entry, Group, HardState, Index, Membership, NodeId, Payload, Term, Write};
use bowline_storage::{ClusterId, Disk, File, Identity, Options, RealDisk, create, open};
use bytes::Bytes;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("name an empty folder to write to")?;
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (syncs, bytes, batch) = (number(2_000)?, number(256)?, number(1)?);
    let disk = RealDisk::new(folder);

    println!("{syncs} syncs of {batch} x {bytes} bytes");
    let mut plain = Vec::new();
    disk.make_dir("")?;
    let mut file = disk.create("plain-append")?;
    let data = vec![7; usize::try_from(bytes * batch)?];
    for count in 0..syncs {
        let start = Instant::now();
        file.write_at(count * bytes * batch, &data)?;
        file.sync_data()?;
        plain.push(start.elapsed());
    }
    disk.remove("plain-append")?;
    report("a plain file that grows", batch, plain);

    let identity = Identity { cluster: ClusterId(1), replica: NodeId(1), incarnation: 1 };
    let options = Options::default();
    create(&disk, &identity, Some(Membership::simple(Group::of_voters([NodeId(1)]))), &options)?;
    let mut log = open(&disk, identity.cluster, identity.replica, &options)?.log;
    log.append(&Write::HardState(HardState { term: Term(1), voted_for: Some(NodeId(1)) }))?;
    log.sync()?;
    let payload = Payload::Command(Bytes::from(vec![7; usize::try_from(bytes)?]));
    let mut spans = Vec::new();
    for count in 0..syncs {
        let first = count * batch + 1;
        let entries =
            (first..first + batch).map(|index| Entry { index: Index(index), term: Term(1), payload: payload.clone() });
        let write = Write::Append(entries.collect());
        let start = Instant::now();
        log.append(&write)?;
        log.sync()?;
        spans.push(start.elapsed());
        if let Some(job) = log.spare_job()? {
            job.run()?;
        }
    }
    report("the log", batch, spans);
    let stats = log.stats();
    println!("{} bytes written for {} of payload", stats.bytes_written, syncs * batch * bytes);
    drop(log);
    let start = Instant::now();
    let found = open(&disk, identity.cluster, identity.replica, &options)?.recovery.recovered.entries.len();
    println!("recovery of {found} entries: {:?}", start.elapsed());
    Ok(())
}

fn report(what: &str, batch: u64, mut spans: Vec<Duration>) {
    let all: Duration = spans.iter().sum();
    spans.sort();
    let at = |percent: usize| spans[(spans.len() - 1) * percent / 100];
    let rate = (spans.len() as u64 * batch) as f64 / all.as_secs_f64();
    println!("{what}: {rate:.0} appends/s, sync p50 {:?}, p99 {:?}", at(50), at(99));
}
