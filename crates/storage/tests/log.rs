//! The log through restarts, faults and full disks.

mod common;

use bowline_raft::{HardState, Index, NodeId, Payload, Position, Random, Term, Write};
use bowline_storage::{
    ClusterId, Crash, Identity, Injection, Log, LogError, OpenError, Opened, Operation, SECTOR, Severity, SimDisk,
    create, open,
};
use common::{IDENTITY, append, entry, founders, header, indexes, make, options, reopen, vote};

const SEGMENT: u64 = 4096;

fn fresh() -> (SimDisk, Opened<SimDisk>) {
    let disk = SimDisk::new();
    make(&disk, &options(SEGMENT));
    let opened = reopen(&disk, &options(SEGMENT)).expect("it was just made");
    (disk, opened)
}

fn write(log: &mut Log<SimDisk>, writes: &[Write]) {
    writes.iter().for_each(|write| log.append(write).expect("there is room"));
    log.sync().expect("the disk is in order");
}

fn again(disk: &SimDisk) -> Opened<SimDisk> {
    reopen(disk, &options(SEGMENT)).expect("it opens")
}

/// The segment in use and the sector after its last batch, as seen from outside: the last one that isn't
/// zero.
fn last_sector(disk: &SimDisk) -> (String, u64) {
    let path = disk.files().into_iter().rfind(|(path, _)| path.ends_with(".seg")).expect("there is a log").0;
    let bytes = disk.content(&path).expect("it is there");
    let last = bytes.chunks(SECTOR).rposition(|sector| sector.iter().any(|byte| *byte != 0)).expect("written");
    (path, last as u64)
}

#[test]
fn a_founding_member_starts_with_the_founders() {
    let (_, opened) = fresh();
    let recovered = opened.recovery.recovered;
    assert_eq!(recovered.snapshot.expect("the founders").membership, founders());
    assert_eq!((recovered.hard_state, recovered.entries.len()), (HardState::default(), 0));
    let joining = SimDisk::new();
    create(&joining, &IDENTITY, None, &options(SEGMENT)).expect("an empty folder");
    assert_eq!(again(&joining).recovery.recovered.snapshot, None);
}

#[test]
fn one_stream_holds_votes_entries_truncations_and_configurations() {
    let (disk, mut opened) = fresh();
    let mut configuration = entry(3, 2, 0);
    configuration.payload = Payload::Membership(founders());
    write(&mut opened.log, &[vote(1, 1), append(1, 1), append(2, 1)]);
    write(&mut opened.log, &[vote(2, 3), Write::Truncate { from: Index(2) }, append(2, 2)]);
    write(&mut opened.log, &[Write::Append(vec![configuration.clone()])]);
    opened.log.append(&append(4, 2)).expect("there is room");
    drop(opened);
    let found = again(&disk).recovery;
    assert_eq!(found.recovered.entries, vec![entry(1, 1, 0), entry(2, 2, 0), configuration]);
    assert_eq!(found.recovered.hard_state, HardState { term: Term(2), voted_for: Some(NodeId(3)) });
    assert!(found.findings.is_empty() && found.suspect.is_none());
}

#[test]
fn segments_are_recycled_when_a_snapshot_covers_them() {
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1)]);
    let mut most = 0;
    for index in 1..=400 {
        write(&mut opened.log, &[Write::Append(vec![entry(index, 1, 300)])]);
        if index.is_multiple_of(20) {
            let snapshot = header(index - 5, 1);
            opened.snapshots.store(&snapshot, b"state").expect("there is room");
            opened.log.compact(&snapshot).expect("there is room");
            write(&mut opened.log, &[]);
            opened.snapshots.prune(snapshot.position.index).expect("the disk is in order");
        }
        most = most.max(disk.used());
    }
    assert!(most < 20 * SEGMENT, "{most} bytes");
    assert_eq!(opened.snapshots.list().expect("the disk is in order").len(), 1);
    drop(opened);
    let found = again(&disk).recovery;
    assert_eq!(found.snapshot, Some(Position::new(Index(395), Term(1))));
    assert_eq!(indexes(&found.recovered.entries), (396..=400).collect());
}

/// What a spare holds of its earlier use says nothing. If its rot came into use with it, each start would take
/// it for the rot of something acknowledged.
#[test]
fn rot_in_a_spare_does_not_come_into_use_with_it() {
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1)]);
    for index in 1..=12 {
        write(&mut opened.log, &[Write::Append(vec![entry(index, 1, 300)])]);
    }
    opened.snapshots.store(&header(12, 1), b"state").expect("there is room");
    opened.log.compact(&header(12, 1)).expect("there is room");
    write(&mut opened.log, &[]);
    let files = disk.files();
    for (spare, _) in files.iter().filter(|(path, _)| path.starts_with("log/spare")) {
        for sector in 0..SEGMENT / SECTOR as u64 {
            (0..9).for_each(|bit| disk.flip(spare, sector * 4096 + 900 + bit * 17));
        }
    }
    let used = |disk: &SimDisk| disk.files().iter().filter(|(path, _)| path.ends_with(".seg")).count();
    let before = used(&disk);
    let mut last = 12;
    while used(&disk) == before {
        last += 1;
        write(&mut opened.log, &[Write::Append(vec![entry(last, 1, 300)])]);
    }
    drop(opened);
    let found = again(&disk).recovery;
    assert_eq!((found.suspect, found.findings), (None, Vec::new()));
    assert_eq!(indexes(&found.recovered.entries), (13..=last).collect());
}

#[test]
fn an_entry_larger_than_a_segment_gets_one_of_its_own() {
    let (disk, mut opened) = fresh();
    let entries = vec![entry(1, 1, 10), entry(2, 1, 50_000), entry(3, 1, 10)];
    write(&mut opened.log, &[vote(1, 1), Write::Append(entries.clone())]);
    drop(opened);
    assert_eq!(again(&disk).recovery.recovered.entries, entries);
}

#[test]
fn a_flip_in_the_last_acknowledged_record_is_suspect_until_it_is_repaired() {
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1), append(1, 1)]);
    write(&mut opened.log, &[append(2, 1)]);
    write(&mut opened.log, &[append(3, 1)]);
    drop(opened);
    let (path, sector) = last_sector(&disk);
    disk.flip(&path, sector * 4096 + 555);
    let mut opened = again(&disk);
    let suspect = opened.recovery.suspect.expect("acknowledged, and damaged");
    assert_eq!(suspect.valid_up_to, Position::new(Index(2), Term(1)));
    assert_eq!(opened.recovery.recovered.suspect, Some(suspect.last_possible_position(Term(1))), "the core is told");
    assert!(suspect.last_possible.is_some_and(|index| (3..40).contains(&index.0)), "{suspect:?}");
    assert_eq!(indexes(&opened.recovery.recovered.entries), [1, 2].into());
    // It goes on, and the suspicion outlives restarts and segments.
    for index in 3..30 {
        write(&mut opened.log, &[Write::Append(vec![entry(index, 1, 400)])]);
    }
    drop(opened);
    let mut opened = again(&disk);
    assert_eq!(opened.recovery.suspect, Some(suspect));
    assert_eq!(opened.recovery.recovered.entries.len(), 29);
    assert!(opened.recovery.findings.is_empty(), "{:?}", opened.recovery.findings);
    opened.log.append(&Write::Repaired).expect("there is room");
    write(&mut opened.log, &[]);
    assert_eq!(opened.log.suspicion(), None);
    drop(opened);
    let found = again(&disk).recovery;
    assert_eq!((found.suspect, found.recovered.entries.len()), (None, 29));
}

#[test]
fn one_damaged_sector_of_a_large_last_batch_is_no_torn_write() {
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1), append(1, 1)]);
    write(&mut opened.log, &[Write::Append((2..=6).map(|index| entry(index, 1, 400)).collect())]);
    drop(opened);
    let (path, last) = last_sector(&disk);
    for sector in last - 4..=last {
        let disk = disk.fork();
        disk.flip(&path, sector * 4096 + 2222);
        let suspect = again(&disk).recovery.suspect.expect("acknowledged, and damaged");
        // The other sectors of the batch say how far it went.
        assert_eq!((suspect.valid_up_to.index, suspect.last_possible), (Index(1), Some(Index(6))));
    }
}

#[test]
fn damage_in_the_middle_keeps_what_is_before_and_says_how_far_the_log_went() {
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1)]);
    for index in 1..=40 {
        write(&mut opened.log, &[append(index, 1)]);
    }
    write(&mut opened.log, &[vote(4, 2)]);
    drop(opened);
    let path = "log/0000000000000001.seg";
    // Two checkpoints, the vote, then an entry in each sector: this is the third one's.
    disk.flip(path, (2 + 1 + 2) * 4096 + 2000);
    let opened = again(&disk);
    let suspect = opened.recovery.suspect.expect("acknowledged, and damaged");
    assert_eq!((suspect.valid_up_to.index, suspect.last_possible), (Index(2), Some(Index(40))));
    assert_eq!(indexes(&opened.recovery.recovered.entries), [1, 2].into());
    assert_eq!(opened.recovery.recovered.hard_state, HardState { term: Term(4), voted_for: Some(NodeId(2)) });
}

#[test]
fn a_damaged_vote_is_repaired_from_its_copy() {
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1), append(1, 1)]);
    write(&mut opened.log, &[vote(5, 3)]);
    drop(opened);
    let (path, sector) = last_sector(&disk);
    for lost in [false, true] {
        let disk = disk.fork();
        disk.damage(&path, |bytes| {
            let at = sector as usize * SECTOR;
            bytes[at..at + SECTOR].fill(0xa5);
        });
        if lost {
            disk.damage("hard-state", |bytes| bytes.fill(0xa5));
            let error = reopen(&disk, &options(SEGMENT)).err().expect("nobody knows the vote");
            assert!(matches!(error, OpenError::HardStateLost { .. }), "{error}");
            continue;
        }
        let found = again(&disk).recovery;
        assert_eq!(found.recovered.hard_state, HardState { term: Term(5), voted_for: Some(NodeId(3)) });
        assert_eq!(found.suspect, None);
        assert_eq!(found.findings.iter().map(|finding| finding.severity).max(), Some(Severity::Repaired));
        // Both copies are there again.
        disk.damage("hard-state", |bytes| bytes.fill(0xa5));
        assert_eq!(again(&disk).recovery.recovered.hard_state, found.recovered.hard_state);
    }
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    for operation in [Operation::Sync, Operation::Write] {
        let (disk, mut opened) = fresh();
        write(&mut opened.log, &[append(1, 1)]);
        opened.log.append(&append(2, 1)).expect("there is room");
        disk.inject(Injection::Fail { operation, skip: 0 });
        let error = opened.log.sync().expect_err("the disk is broken");
        assert!(matches!(error, LogError::Fatal(_)), "{error}");
        let syncs = disk.count(Operation::Sync);
        assert!(matches!(opened.log.sync(), Err(LogError::Fatal(_))));
        assert!(matches!(opened.log.append(&append(3, 1)), Err(LogError::Fatal(_))));
        assert!(!opened.log.admits(1));
        assert_eq!(disk.count(Operation::Sync), syncs, "it was tried again");
        drop(opened);
        // What comes back may or may not hold entry 2, but surely holds entry 1.
        assert_eq!(again(&disk).recovery.recovered.entries[0], entry(1, 1, 0));
    }
}

/// After a failed sync the pages may be in memory, marked as written: the next run must write them again
/// before it relies on them.
#[test]
fn what_only_memory_holds_is_written_again_before_it_counts() {
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[append(1, 1)]);
    opened.log.append(&append(2, 1)).expect("there is room");
    // The system forgets that the pages are dirty, as some do after an error.
    disk.inject(Injection::Fail { operation: Operation::Sync, skip: 0 });
    assert!(opened.log.sync().is_err());
    drop(opened);
    let (path, _) = last_sector(&disk);
    disk.forget_dirty(&path);
    let seen = again(&disk).recovery.recovered.entries.len();
    assert_eq!(seen, 2);
    let mut random = Random::new(1);
    let crashed = disk.crash(Crash::KeepNone, &mut random);
    assert_eq!(again(&crashed).recovery.recovered.entries.len(), 2, "it was relied on");
}

#[test]
fn misplaced_and_missing_writes_are_found_out() {
    // A batch that lands two sectors on leaves its place unwritten, and is no batch where it is.
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1), append(1, 1)]);
    disk.inject(Injection::Misdirect { skip: 0, by: 2 });
    write(&mut opened.log, &[append(2, 1)]);
    drop(opened);
    let found = again(&disk).recovery;
    let suspect = found.suspect.expect("an acknowledged batch isn't in its place");
    assert_eq!(suspect.valid_up_to.index, Index(1));
    // A sync that lied, followed by an honest one, leaves a hole.
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1), append(1, 1)]);
    write(&mut opened.log, &[append(2, 1)]);
    write(&mut opened.log, &[append(3, 1)]);
    let (path, sector) = last_sector(&disk);
    drop(opened);
    disk.damage(&path, |bytes| bytes[(sector as usize - 1) * SECTOR..sector as usize * SECTOR].fill(0));
    let found = again(&disk).recovery;
    let suspect = found.suspect.expect("an acknowledged batch is missing");
    assert_eq!((suspect.valid_up_to.index, suspect.last_possible), (Index(1), Some(Index(3))));
}

#[test]
fn a_missing_segment_is_no_clean_start() {
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1)]);
    for index in 1..=40 {
        write(&mut opened.log, &[Write::Append(vec![entry(index, 1, 300)])]);
    }
    drop(opened);
    let segments: Vec<String> =
        disk.files().into_iter().map(|(path, _)| path).filter(|path| path.ends_with(".seg")).collect();
    assert!(segments.len() > 4);
    for missing in [0, 2] {
        let disk = disk.fork();
        disk.lose(&segments[missing]);
        let suspect = again(&disk).recovery.suspect.expect("entries are missing");
        assert_eq!(suspect.last_possible, Some(Index(40)));
    }
    let disk = disk.fork();
    segments.iter().for_each(|path| disk.lose(path));
    assert!(matches!(reopen(&disk, &options(SEGMENT)).err(), Some(OpenError::LogLost { .. })));
}

#[test]
fn a_damaged_snapshot_is_reported_and_kept() {
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1), append(1, 1), append(2, 1), append(3, 1)]);
    let snapshot = header(2, 1);
    opened.snapshots.store(&snapshot, &vec![7; 600_000]).expect("there is room");
    let path = disk.files().into_iter().find(|(path, _)| path.starts_with("snap/")).expect("it is stored").0;
    // Before the log relies on it, it is only a copy.
    let early = disk.fork();
    early.flip(&path, 2_000_000);
    let found = again(&early).recovery;
    assert_eq!((found.suspect, found.recovered.entries.len()), (None, 3));
    opened.log.compact(&snapshot).expect("there is room");
    write(&mut opened.log, &[]);
    drop(opened);
    disk.flip(&path, 2_000_000);
    let mut opened = again(&disk);
    let suspect = opened.recovery.suspect.expect("the state is gone");
    assert_eq!((suspect.valid_up_to, suspect.last_possible), (Position::ORIGIN, Some(Index(3))));
    assert_eq!(opened.recovery.recovered.snapshot, None);
    assert!(opened.recovery.recovered.entries.is_empty());
    assert!(opened.snapshots.load(snapshot.position, 1 << 30).is_err_and(|error| error.is_damage()));
    opened.snapshots.prune(Index(9)).expect("the disk is in order");
    assert!(disk.content(&path).is_some(), "the newest is never removed");
    // The leader brings another one.
    let newer = header(9, 2);
    opened.snapshots.store(&newer, b"whole").expect("there is room");
    write(&mut opened.log, &[vote(2, 1), Write::Snapshot(newer.clone()), append(10, 2)]);
    opened.log.append(&Write::Repaired).expect("there is room");
    write(&mut opened.log, &[]);
    drop(opened);
    let found = again(&disk).recovery;
    assert_eq!((found.suspect, found.snapshot), (None, Some(newer.position)));
    assert_eq!(indexes(&found.recovered.entries), [10].into());
}

#[test]
fn a_full_disk_refuses_entries_keeps_voting_and_recovers() {
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1)]);
    disk.set_capacity(Some(disk.used()));
    let mut index = 0;
    while opened.log.admits(400) {
        index += 1;
        write(&mut opened.log, &[Write::Append(vec![entry(index, 1, 300)])]);
    }
    assert!(index > 5, "{index}");
    // A host that asks anyway is refused, once the reserve would be touched.
    let refused = loop {
        index += 1;
        let next = Write::Append(vec![entry(index, 1, 300)]);
        match opened.log.append(&next).and_then(|()| opened.log.sync()) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LogError::Passing(_)), "{refused}");
    let last = index - 1;
    write(&mut opened.log, &[vote(2, 3)]);
    drop(opened);
    let mut opened = again(&disk);
    assert_eq!(opened.recovery.recovered.hard_state, HardState { term: Term(2), voted_for: Some(NodeId(3)) });
    assert_eq!(opened.recovery.recovered.entries.len() as u64, last);
    assert!(!opened.log.admits(400));
    disk.set_capacity(None);
    opened.log.spare_job().expect("the disk is in order").expect("there is none").run().expect("there is room");
    write(&mut opened.log, &[Write::Append(vec![entry(last + 1, 1, 300)])]);
    assert!(opened.log.admits(400));
    drop(opened);
    assert_eq!(again(&disk).recovery.recovered.entries.len() as u64, last + 1);
}

/// "Too many open files", say: clients may hold all descriptors of the process.
#[test]
fn without_a_descriptor_for_a_segment_entries_wait_votes_go_on_and_nothing_is_lost() {
    let (disk, mut opened) = fresh();
    let refuse = || disk.inject(Injection::Refuse { operation: Operation::Name, skip: 0 });
    let (mut index, mut refusals) = (0, 0);
    while refusals < 5 {
        index += 1;
        let next = Write::Append(vec![entry(index, 1, 300)]);
        if !opened.log.admits(400) {
            refuse();
            let job = opened.log.spare_job().expect("nothing is broken").expect("there is none in reserve");
            assert!(job.run().expect_err("it is refused").is_passing());
            refuse();
            let refused = opened.log.append(&next).and_then(|()| opened.log.sync()).expect_err("there is no room");
            assert!(matches!(refused, LogError::Passing(_)), "{refused}");
            assert!(refused.to_string().contains("raise the limits"), "{refused}");
            write(&mut opened.log, &[vote(2 + refusals, 3)]);
            refusals += 1;
        }
        write(&mut opened.log, &[next]);
    }
    drop(opened);
    let recovered = again(&disk).recovery.recovered;
    assert_eq!(recovered.hard_state, HardState { term: Term(6), voted_for: Some(NodeId(3)) });
    assert_eq!(recovered.entries.len() as u64, index);
}

#[test]
fn a_missing_or_foreign_folder_says_how_to_go_on() {
    let disk = SimDisk::new();
    let missing = reopen(&disk, &options(SEGMENT)).err().expect("there is nothing");
    assert!(missing.to_string().contains("bowline join --replace 2"), "{missing}");
    make(&disk, &options(SEGMENT));
    let other = open(&disk, IDENTITY.cluster, NodeId(3), &options(SEGMENT)).err().expect("another's");
    assert!(other.to_string().contains("belongs to member 2 of cluster 0000000000c0ffee"), "{other}");
    let other = open(&disk, ClusterId(1), NodeId(2), &options(SEGMENT)).err().expect("another's");
    assert!(matches!(other, OpenError::Foreign { .. }), "{other}");
    let twice = create(&disk, &IDENTITY, None, &options(SEGMENT)).expect_err("there is one");
    assert!(matches!(twice, OpenError::AlreadyThere { .. }), "{twice}");
    disk.damage("identity", |bytes| bytes.fill(1));
    let damaged = reopen(&disk, &options(SEGMENT)).err().expect("nobody's");
    assert!(matches!(damaged, OpenError::IdentityDamaged { .. }), "{damaged}");
}

#[test]
fn data_without_an_identity_is_not_overwritten() {
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1), append(1, 1)]);
    drop(opened);
    let identity = disk.content("identity").expect("it is there");
    disk.lose("identity");
    let error = create(&disk, &IDENTITY, Some(founders()), &options(SEGMENT)).expect_err("somebody's data");
    assert!(matches!(error, OpenError::Unclaimed { .. }), "{error}");
    disk.put("identity", identity);
    assert_eq!(again(&disk).recovery.recovered.entries.len(), 1);
}

/// Whatever interrupts the making of a folder, it is whole afterwards, or can be made again.
#[test]
fn an_interrupted_making_can_be_made_again() {
    let mut random = Random::new(3);
    let mut interrupted = 0;
    for operation in [Operation::Write, Operation::Sync, Operation::Name, Operation::SyncDir] {
        for skip in 0.. {
            let disk = SimDisk::new();
            disk.inject(Injection::Fail { operation, skip });
            if create(&disk, &IDENTITY, Some(founders()), &options(SEGMENT)).is_ok() {
                break;
            }
            for crash in Crash::ALL {
                interrupted += 1;
                let image = disk.crash(crash, &mut random);
                match reopen(&image, &options(SEGMENT)).err() {
                    None => continue,
                    Some(OpenError::Missing { .. }) => make(&image, &options(SEGMENT)),
                    Some(error) => panic!("{operation:?} {skip} {crash:?}: {error}"),
                }
                assert!(again(&image).recovery.findings.is_empty());
            }
        }
    }
    assert!(interrupted > 100, "{interrupted}");
}

/// Damage in a segment whose entries are all in a snapshot takes nothing; a snapshot beyond the whole part
/// of the log takes its place.
#[test]
fn a_snapshot_saves_what_damage_would_take() {
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1)]);
    for index in 1..=12 {
        write(&mut opened.log, &[Write::Append(vec![entry(index, 1, 900)])]);
    }
    let snapshot = header(10, 1);
    opened.snapshots.store(&snapshot, b"state").expect("there is room");
    // The segments are still there: the mark's sync was interrupted before they went.
    let before = disk.fork();
    opened.log.compact(&snapshot).expect("there is room");
    write(&mut opened.log, &[]);
    drop(opened);
    let path = "log/0000000000000001.seg";
    before.flip(path, 3 * 4096 + 700);
    let opened = again(&before);
    // Without the mark, entries 11 and 12 are beyond the snapshot, and in doubt.
    let suspect = opened.recovery.suspect.expect("11 and 12 are behind the damage");
    assert_eq!((suspect.valid_up_to.index, suspect.last_possible), (Index(10), Some(Index(12))));
    assert_eq!(opened.recovery.snapshot, Some(snapshot.position));
    drop(opened);
    assert_eq!(again(&before).recovery.suspect, Some(suspect));
    // With the mark, and an early segment that came back, nothing is missing.
    let whole = again(&disk).recovery.recovered;
    disk.put(path, before.content(path).expect("it is there"));
    let found = again(&disk).recovery;
    assert_eq!((found.suspect, found.recovered.entries), (None, whole.entries));
}

#[test]
fn the_same_bytes_of_another_life_do_not_pass() {
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1), append(1, 1)]);
    drop(opened);
    let other = SimDisk::new();
    let reborn = Identity { incarnation: IDENTITY.incarnation + 1, ..IDENTITY };
    create(&other, &reborn, Some(founders()), &options(SEGMENT)).expect("an empty folder");
    for (path, _) in disk.files().into_iter().filter(|(path, _)| path.starts_with("log/")) {
        other.put(&path, disk.content(&path).expect("it is there"));
    }
    assert!(matches!(reopen(&other, &options(SEGMENT)).err(), Some(OpenError::LogLost { .. })));
}

#[test]
fn a_second_process_stays_out() {
    let (disk, opened) = fresh();
    let second = reopen(&disk, &options(SEGMENT)).err().expect("it is in use");
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    drop(opened);
    assert!(reopen(&disk, &options(SEGMENT)).is_ok());
}

#[test]
fn options_out_of_range_are_named() {
    let bad = bowline_storage::Options { segment_bytes: 5000, ..options(SEGMENT) };
    let error = create(&SimDisk::new(), &IDENTITY, None, &bad).expect_err("not a multiple of 512");
    assert!(error.to_string().starts_with("segment_bytes is 5000"), "{error}");
}

#[test]
fn an_unreadable_sector_stops_the_start_and_changes_nothing() {
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1), append(1, 1)]);
    drop(opened);
    let before: Vec<_> = disk.files().iter().map(|(path, _)| disk.content(path)).collect();
    disk.inject(Injection::Fail { operation: Operation::Read, skip: 3 });
    assert!(matches!(reopen(&disk, &options(SEGMENT)).err(), Some(OpenError::Disk(_))));
    let after: Vec<_> = disk.files().iter().map(|(path, _)| disk.content(path)).collect();
    assert_eq!(before, after);
    assert_eq!(again(&disk).recovery.recovered.entries.len(), 1);
}

#[test]
fn a_log_moves_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Log<bowline_storage::RealDisk>>();
    is_send::<bowline_storage::Snapshots<bowline_storage::RealDisk>>();
    is_send::<Log<SimDisk>>();
}

/// What a start leaves that dies in any of its operations, with the power.
fn interrupted_starts(disk: &SimDisk, random: &mut Random) -> Vec<SimDisk> {
    let mut images = Vec::new();
    for operation in [Operation::Write, Operation::Sync, Operation::Name, Operation::SyncDir] {
        for skip in 0.. {
            let start = disk.fork();
            start.inject(Injection::Die { operation, skip });
            if reopen(&start, &options(SEGMENT)).is_ok() {
                break;
            }
            let kinds = [Crash::KeepNone, Crash::KeepAll, Crash::SomeSectors];
            images.extend(kinds.map(|crash| start.crash(crash, random)));
        }
    }
    images
}

/// The repair of a vote wrote the next copy over the only one that said what the damaged sectors had held: if the
/// power failed right then, the next start took a repaired vote for lost entries (simulated cluster, seed 1163).
#[test]
fn the_repair_of_a_vote_may_be_interrupted_again_and_again() {
    let mut random = Random::new(1);
    let mut looked_at = 0;
    // The repair has room behind the damage, or, after four fillers, goes on in a new segment.
    for fillers in 0..5 {
        let (disk, mut opened) = fresh();
        write(&mut opened.log, &[vote(1, 1)]);
        for index in 1..=fillers {
            write(&mut opened.log, &[append(index, 1)]);
        }
        write(&mut opened.log, &[vote(2, 3)]);
        drop(opened);
        let (path, sector) = last_sector(&disk);
        disk.flip(&path, sector * SECTOR as u64 * 8 + 2000);
        let first = again(&disk.fork()).recovery;
        assert_eq!(first.findings.iter().map(|finding| finding.severity).max(), Some(Severity::Repaired));
        assert_eq!((first.suspect, first.recovered.hard_state.term), (None, Term(2)));
        let once = interrupted_starts(&disk, &mut random);
        let twice: Vec<SimDisk> =
            once.iter().step_by(3).flat_map(|disk| interrupted_starts(disk, &mut random)).collect();
        for disk in once.iter().chain(&twice) {
            let found = again(&disk.fork()).recovery;
            assert_eq!(found.recovered, first.recovered, "{fillers} fillers: {:?}", found.findings);
            looked_at += 1;
        }
    }
    assert!(looked_at > 1000, "{looked_at}");
}

/// A suspicion came back when the mark that had ended it was damaged, although a whole snapshot reached beyond all
/// that it could mean (simulated cluster, seed 1351).
#[test]
fn a_snapshot_beyond_a_suspicion_ends_it_without_its_mark() {
    let (disk, mut opened) = fresh();
    write(&mut opened.log, &[vote(1, 1), append(1, 1)]);
    write(&mut opened.log, &[append(2, 1)]);
    drop(opened);
    let (path, sector) = last_sector(&disk);
    disk.flip(&path, sector * SECTOR as u64 * 8 + 2000);
    let mut opened = again(&disk);
    let last_possible = opened.recovery.suspect.and_then(|suspicion| suspicion.last_possible).expect("an end is known");
    assert!(last_possible < Index(60));
    write(&mut opened.log, &[append(2, 1), Write::Repaired]);
    let (path, mark) = last_sector(&disk);
    opened.snapshots.store(&header(60, 1), b"all of it").expect("there is room");
    write(&mut opened.log, &[Write::Snapshot(header(60, 1))]);
    drop(opened);
    disk.flip(&path, mark * SECTOR as u64 * 8 + 2000);
    let found = again(&disk).recovery;
    assert_eq!(found.snapshot, Some(header(60, 1).position));
    assert_eq!(found.suspect, None, "{:?}", found.findings);
    // If the snapshot is damaged too, its name still says how far the log went (simulated cluster, seed 4771).
    let snapshot = disk.files().into_iter().find(|(path, _)| path.starts_with("snap/")).expect("it is stored").0;
    disk.flip(&snapshot, 700);
    let found = again(&disk).recovery;
    assert_eq!(found.suspect.expect("all is lost").last_possible, Some(Index(60)), "{:?}", found.findings);
    assert_eq!(again(&disk).recovery.suspect.and_then(|suspicion| suspicion.last_possible), Some(Index(60)), "kept");
}
