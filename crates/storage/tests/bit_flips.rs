//! Every single bit of a whole folder flips, one at a time: each flip is found out, or proven to say
//! nothing, and nothing that was acknowledged is lost in silence.

mod common;

use std::collections::BTreeMap;

use bowline_raft::{Entry, Write};
use bowline_storage::{OpenError, Recovery, SECTOR, Severity, SimDisk};
use common::{append, entry, header, make, options, reopen, vote};

const SEGMENT: u64 = 8192;
const FIXTURE_BYTES: u64 = 64 << 10;

/// A folder of exactly 64 KiB: identity, two copies of the hard state, a snapshot, recycled segments with
/// remains of their earlier lives, and a spare.
fn fixture() -> SimDisk {
    let disk = SimDisk::new();
    make(&disk, &options(SEGMENT));
    let mut opened = reopen(&disk, &options(SEGMENT)).expect("it was just made");
    let log = &mut opened.log;
    let mut index = 0;
    let mut more = |log: &mut bowline_storage::Log<SimDisk>, term: u64, count: u64, size: usize| {
        let entries: Vec<Entry> = (1..=count).map(|offset| entry(index + offset, term, size)).collect();
        index += count;
        log.append(&Write::Append(entries)).expect("there is room");
        log.sync().expect("the disk is in order");
        index
    };
    log.append(&vote(1, 2)).expect("there is room");
    while log.stats().segments < 4 {
        more(log, 1, 2, 700);
    }
    let last = more(log, 1, 1, 0);
    let snapshot = header(last, 1);
    // The rest of the 64 KiB: two small files of two sectors, and six files of the log.
    let data = FIXTURE_BYTES - 2 * 2 * SECTOR as u64 - 6 * SEGMENT;
    let overhead = {
        opened.snapshots.store(&snapshot, &[]).expect("there is room");
        disk.files().iter().find(|(path, _)| path.starts_with("snap/")).expect("it is stored").1 + 8
    };
    let data: Vec<u8> = (0..data - overhead).map(|at| (at % 251) as u8).collect();
    opened.snapshots.store(&snapshot, &data).expect("there is room");
    log.compact(&snapshot).expect("there is room");
    log.sync().expect("the disk is in order");
    log.append(&vote(2, 3)).expect("there is room");
    // Into the recycled segments, each record small, so that much of what was there before remains.
    while log.stats().segments + log.stats().spares < 6 || log.stats().segments < 4 {
        more(log, 2, 3, 150);
    }
    log.append(&Write::Truncate { from: bowline_raft::Index(index) }).expect("there is room");
    log.append(&append(index, 2)).expect("there is room");
    log.sync().expect("the disk is in order");
    log.append(&vote(3, 1)).expect("there is room");
    log.append(&append(index + 1, 3)).expect("there is room");
    log.sync().expect("the disk is in order");
    drop(opened);
    let files: BTreeMap<String, u64> = disk.files().into_iter().collect();
    assert_eq!(files.values().sum::<u64>(), FIXTURE_BYTES, "{files:#?}");
    disk
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    harmless: u64,
    repaired: u64,
    suspect: u64,
    refused: u64,
}

fn same(one: &Recovery, other: &Recovery) -> bool {
    let (one, other) = (&one.recovered, &other.recovered);
    (one.hard_state, &one.snapshot, &one.entries) == (other.hard_state, &other.snapshot, &other.entries)
}

/// Opens a folder with one bit flipped, and says what was made of it.
fn judge(disk: &SimDisk, clean: &Recovery, what: &str, tally: &mut Tally) {
    let opened = match reopen(disk, &options(SEGMENT)) {
        Ok(opened) => opened,
        Err(OpenError::IdentityDamaged { .. } | OpenError::HardStateLost { .. } | OpenError::LogLost { .. }) => {
            tally.refused += 1;
            return;
        }
        Err(error) => panic!("{what}: {error}"),
    };
    let found = &opened.recovery;
    assert_eq!(found.recovered.hard_state, clean.recovered.hard_state, "{what}: term and vote");
    let worst = found.findings.iter().map(|finding| finding.severity).max();
    let Some(suspect) = found.suspect else {
        assert!(same(found, clean), "{what}: lost in silence");
        match worst {
            Some(Severity::Repaired) => tally.repaired += 1,
            Some(Severity::Suspect) => panic!("{what}: {:?} without a suspicion", found.findings),
            Some(Severity::Harmless) | None => tally.harmless += 1,
        }
        return;
    };
    tally.suspect += 1;
    assert_eq!(worst, Some(Severity::Suspect), "{what}: {:?}", found.findings);
    let last = clean.recovered.entries.last().expect("the fixture has entries").index;
    assert!(suspect.last_possible.is_none_or(|index| index >= last), "{what}: {suspect:?} denies {last}");
    // The entry before the last one was replaced once: where that is lost, its first version is there.
    let certain = |recovery: &Recovery| {
        let entries = recovery.recovered.entries.iter();
        entries.filter(|entry| entry.index.next() < last).cloned().collect::<Vec<Entry>>()
    };
    assert!(certain(clean).starts_with(&certain(found)), "{what}: not a prefix");
    let end = found.recovered.entries.last().map(|entry| entry.index);
    let base = found.recovered.snapshot.as_ref().map_or(bowline_raft::Index(0), |snapshot| snapshot.position.index);
    assert_eq!(suspect.valid_up_to.index, end.unwrap_or(base), "{what}");
}

fn flip_all(path: &str, bits: std::ops::Range<u64>, step: usize) -> Tally {
    let disk = fixture();
    let clean = reopen(&disk.fork(), &options(SEGMENT)).expect("it is whole").recovery;
    assert!(clean.suspect.is_none() && clean.findings.is_empty(), "{:?}", clean.findings);
    let mut tally = Tally::default();
    for bit in bits.step_by(step) {
        let flipped = disk.fork();
        flipped.flip(path, bit);
        judge(&flipped, &clean, &format!("bit {bit} of {path}"), &mut tally);
    }
    tally
}

#[test]
fn every_flipped_bit_of_the_fixture_is_classified() {
    let step = if cfg!(debug_assertions) { 67 } else { 1 };
    let files = fixture().files();
    let mut total = Tally::default();
    let mut flips = 0;
    // Each file on a thread of its own: they take long, and know nothing of each other.
    let tallies: Vec<(String, u64, Tally)> = std::thread::scope(|scope| {
        let threads: Vec<_> = files
            .into_iter()
            .map(|(path, size)| scope.spawn(move || (path.clone(), size, flip_all(&path, 0..size * 8, step))))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("see its own message")).collect()
    });
    for (path, size, tally) in tallies {
        println!("{path}: {size} bytes: {tally:?}");
        flips += (size * 8).div_ceil(step as u64);
        total.harmless += tally.harmless;
        total.repaired += tally.repaired;
        total.suspect += tally.suspect;
        total.refused += tally.refused;
    }
    println!("{flips} flips: {total:?}");
    assert_eq!(total.harmless + total.repaired + total.suspect + total.refused, flips);
    assert!(total.harmless > 0 && total.repaired > 0 && total.suspect > 0);
    if step == 1 {
        assert_eq!(flips, 524_288);
    }
}

/// Nothing comes after it, so nothing but its own sectors can tell it from a torn write.
#[test]
fn a_flip_in_the_last_acknowledged_batch_is_never_taken_for_a_torn_write() {
    let disk = fixture();
    let path = disk.files().into_iter().rfind(|(path, _)| path.ends_with(".seg")).expect("there is a log").0;
    let clean = reopen(&disk.fork(), &options(SEGMENT)).expect("it is whole");
    let free = disk.content(&path).expect("it is there");
    // The last sector that a restart finds in use is that of the last batch.
    let used = (0..free.len() / SECTOR).rev().find(|sector| {
        let damaged = disk.fork();
        damaged.flip(&path, (*sector * SECTOR * 8 + 3000) as u64);
        let opened = reopen(&damaged, &options(SEGMENT)).expect("it opens");
        opened.recovery.suspect.is_some()
    });
    let used = used.expect("some sector matters") as u64;
    let sector_bits = SECTOR as u64 * 8;
    let bits = used * sector_bits..(used + 1) * sector_bits;
    let tally = flip_all(&path, bits, if cfg!(debug_assertions) { 7 } else { 1 });
    assert_eq!((tally.harmless, tally.repaired, tally.refused), (0, 0, 0), "{tally:?}");
    // And it is the last one: the entry that it holds is the only one lost.
    disk.flip(&path, used * sector_bits + 99);
    let opened = reopen(&disk, &options(SEGMENT)).expect("it opens");
    let suspect = opened.recovery.suspect.expect("a batch is lost");
    let last = clean.recovery.recovered.entries.last().expect("there are entries").index;
    assert_eq!(suspect.valid_up_to.index.next(), last);
}
