//! The power fails at every write, sync and rename of a long trace, and everything acknowledged is there.

mod common;

use std::sync::{Arc, Mutex};

use bowline_raft::{HardState, Index, Random, SnapshotHeader, Write};
use bowline_storage::{Crash, Disk, DiskError, File, SECTOR, SimDisk, SimFile, SimLock};
use common::{Model, Step, draw, make, options, reopen, split};

const SEGMENT: u64 = 4096;
const UNPOISONED: &str = "no judge panics twice";

/// What may be found after a crash.
#[derive(Clone, Debug)]
struct Promise {
    acknowledged: Model,
    /// Written since, not acknowledged.
    since: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(Write),
    Compact(SnapshotHeader),
}

impl Promise {
    fn write(&mut self, write: &Write) {
        self.since.extend(split(write).into_iter().map(Change::Write));
    }

    fn acknowledge(&mut self) {
        self.acknowledged = self.states().pop().expect("there is one at least");
        self.since.clear();
    }

    /// What the writes lead to, from the acknowledged state on.
    fn states(&self) -> Vec<Model> {
        let mut states = vec![self.acknowledged.clone()];
        for change in &self.since {
            let mut next = states.last().expect("there is one at least").clone();
            match change {
                Change::Write(write) => next.apply(write),
                Change::Compact(header) => next.compact(header),
            }
            states.push(next);
        }
        states
    }
}

/// Lets the power fail before each change of the disk.
#[derive(Default)]
struct Judge {
    promise: Option<Promise>,
    random: Option<Random>,
    points: u64,
    images: u64,
    nested: u64,
    /// How many images of each point are looked at.
    kinds: Vec<Crash>,
    /// Every so many images the recovery itself is interrupted at each of its points.
    nest_every: u64,
}

type Shared = Arc<Mutex<Judge>>;

#[derive(Clone)]
struct Watched {
    disk: SimDisk,
    judge: Shared,
}

struct WatchedFile {
    file: SimFile,
    disk: Watched,
}

impl Watched {
    fn point(&self) {
        let mut judge = self.judge.lock().expect(UNPOISONED);
        let Some(promise) = judge.promise.clone() else { return };
        judge.points += 1;
        let states = promise.states();
        let mut random = judge.random.take().expect("it comes back");
        for crash in judge.kinds.clone() {
            judge.images += 1;
            let image = self.disk.crash(crash, &mut random);
            if judge.nest_every > 0 && judge.images.is_multiple_of(judge.nest_every) {
                judge.nested += interrupted_recovery(&image, &promise, random.next_u64());
            }
            look_at(&image, &states, crash, judge.images.is_multiple_of(16));
        }
        judge.random = Some(random);
    }
}

/// Crashes the recovery of an image at each of its points; returns how many images that made.
fn interrupted_recovery(image: &SimDisk, promise: &Promise, seed: u64) -> u64 {
    let judge = Judge {
        promise: Some(promise.clone()),
        random: Some(Random::new(seed)),
        kinds: vec![Crash::KeepNone, Crash::Prefix, Crash::SomeSectors],
        ..Judge::default()
    };
    let judge = Arc::new(Mutex::new(judge));
    let watched = Watched { disk: image.fork(), judge: Arc::clone(&judge) };
    drop(reopen(&watched, &options(SEGMENT)).expect("the image opens"));
    judge.lock().expect(UNPOISONED).images
}

/// Opens an image, and holds what is found against what was promised.
fn look_at(image: &SimDisk, states: &[Model], crash: Crash, go_on: bool) {
    let opened = reopen(image, &options(SEGMENT)).unwrap_or_else(|error| panic!("{crash:?}: {error}"));
    let recovery = &opened.recovery;
    assert_eq!(recovery.suspect, None, "{crash:?}: a crash is no damage: {:?}", recovery.findings);
    let shown = states.iter().position(|state| state.shows_log(recovery));
    let Some(shown) = shown else {
        panic!("{crash:?}: found {:#?}, none of {:#?}", recovery.recovered, states);
    };
    // The copy of the hard state goes ahead of the log, never behind.
    let hard_states: Vec<HardState> = states[shown..].iter().map(|state| state.hard_state).collect();
    assert!(hard_states.contains(&recovery.recovered.hard_state), "{crash:?}: {:?}", recovery.recovered.hard_state);
    if let Some(position) = recovery.snapshot {
        let (_, data) = opened.snapshots.load(position, 1 << 20).expect("a whole snapshot");
        assert_eq!(data, snapshot_data(position.index));
    }
    if !go_on {
        return;
    }
    // What was found must be found again, with what is written next.
    let mut expected = states[shown].clone();
    let mut log = opened.log;
    let last = recovery.recovered.entries.last().map_or(expected.base.position, |entry| entry.position());
    let last = last.max(recovery.recovered.snapshot.as_ref().expect("there always is one").position);
    let next = common::append(last.index.0 + 1, last.term.0.max(1));
    log.append(&next).expect("it fits");
    log.sync().expect("the disk is in order");
    drop((log, opened.snapshots));
    expected.apply(&next);
    let again = reopen(image, &options(SEGMENT)).expect("it opens again");
    assert!(again.recovery.findings.is_empty(), "{:?}", again.recovery.findings);
    assert!(expected.shows_log(&again.recovery), "{:#?} is not {expected:#?}", again.recovery.recovered);
    assert_eq!(again.recovery.recovered.hard_state, recovery.recovered.hard_state);
}

fn snapshot_data(index: Index) -> Vec<u8> {
    index.0.to_le_bytes().repeat(40 + (index.0 % 90) as usize)
}

impl Disk for Watched {
    type File = WatchedFile;
    type Lock = SimLock;

    fn place(&self) -> String {
        self.disk.place()
    }
    fn open(&self, path: &str) -> Result<WatchedFile, DiskError> {
        Ok(WatchedFile { file: self.disk.open(path)?, disk: self.clone() })
    }
    fn create(&self, path: &str) -> Result<WatchedFile, DiskError> {
        self.point();
        Ok(WatchedFile { file: self.disk.create(path)?, disk: self.clone() })
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.point();
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.point();
        self.disk.remove(path)
    }
    fn size_of(&self, path: &str) -> Result<u64, DiskError> {
        self.disk.size_of(path)
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.disk.list(dir)
    }
    fn make_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.disk.make_dir(dir)
    }
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.point();
        self.disk.sync_dir(dir)
    }
    fn lock(&self, path: &str) -> Result<Option<SimLock>, DiskError> {
        self.disk.lock(path)
    }
}

impl File for WatchedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.file.read_at(offset, buffer)
    }
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.disk.point();
        self.file.write_at(offset, data)
    }
    fn set_size(&mut self, bytes: u64) -> Result<(), DiskError> {
        self.disk.point();
        self.file.set_size(bytes)
    }
    fn sync_data(&mut self) -> Result<(), DiskError> {
        self.disk.point();
        self.file.sync_data()
    }
    fn renamed(&mut self, path: &str) {
        self.file.renamed(path);
    }
    fn size(&self) -> Result<u64, DiskError> {
        self.file.size()
    }
}

/// Runs a trace of so many operations from a seed, with the power failing at every point.
fn run(seed: u64, operations: u64) -> (u64, u64, u64) {
    let judge: Shared = Arc::new(Mutex::new(Judge::default()));
    let disk = Watched { disk: SimDisk::new(), judge: Arc::clone(&judge) };
    make(&disk, &options(SEGMENT));
    let mut model = Model::founding();
    *judge.lock().expect(UNPOISONED) = Judge {
        promise: Some(Promise { acknowledged: model.clone(), since: Vec::new() }),
        random: Some(Random::new(!seed)),
        kinds: Crash::ALL.to_vec(),
        nest_every: 97,
        ..Judge::default()
    };
    let promise = |change: &dyn Fn(&mut Promise)| {
        change(judge.lock().expect(UNPOISONED).promise.as_mut().expect("a trace is under way"))
    };
    let mut random = Random::new(seed);
    let mut opened = Some(reopen(&disk, &options(SEGMENT)).expect("it was just made"));
    for _ in 0..operations {
        let step = draw(&mut random, &model, SEGMENT);
        let open = opened.as_mut().expect("it is open between the steps");
        match &step {
            Step::Write(write) => {
                promise(&|promise| promise.write(write));
                model.apply(write);
                open.log.append(write).expect("there is room");
            }
            Step::Install(header) => {
                open.snapshots.store(header, &snapshot_data(header.position.index)).expect("there is room");
                let write = Write::Snapshot(header.clone());
                promise(&|promise| promise.write(&write));
                model.apply(&write);
                open.log.append(&write).expect("there is room");
            }
            Step::Compact(header) => {
                // A snapshot never reaches beyond what is durable.
                open.log.sync().expect("the disk is in order");
                promise(&Promise::acknowledge);
                open.snapshots.store(header, &snapshot_data(header.position.index)).expect("there is room");
                promise(&|promise| promise.since.push(Change::Compact(header.clone())));
                model.compact(header);
                open.log.compact(header).expect("there is room");
            }
            Step::Sync | Step::Restart => {}
        }
        if matches!(step, Step::Sync | Step::Restart | Step::Compact(_)) {
            open.log.sync().expect("the disk is in order");
            promise(&Promise::acknowledge);
            open.snapshots.prune(model.base.position.index).expect("the disk is in order");
        }
        if matches!(step, Step::Restart) {
            drop(opened.take());
            let again = reopen(&disk, &options(SEGMENT)).expect("a clean restart");
            assert!(again.recovery.findings.is_empty(), "{:?}", again.recovery.findings);
            assert!(model.shows_log(&again.recovery));
            assert_eq!(again.recovery.recovered.hard_state, model.hard_state);
            opened = Some(again);
        }
    }
    let segments = opened.expect("it is open").log.stats().segments;
    assert!(segments < 40, "{segments} segments are left: old ones must go");
    let judge = judge.lock().expect(UNPOISONED);
    (judge.points, judge.images, judge.nested)
}

#[test]
fn power_loss_at_every_point_loses_nothing_acknowledged() {
    let operations = if cfg!(debug_assertions) { 400 } else { 10_000 };
    let (points, images, nested) = run(1, operations);
    println!("{operations} operations: {points} points, {images} images, {nested} more of interrupted recoveries");
    assert!(points > operations && images > 5 * points && nested > 0);
}

/// Of the simulated disk itself: the write that bits flip in was not synced.
#[test]
fn rot_stays_when_the_power_fails_afterwards() {
    let disk = SimDisk::new();
    disk.put("file", vec![0; SECTOR]);
    disk.open("file").and_then(|mut file| file.write_at(0, &[1; SECTOR])).expect("the disk works");
    disk.flip("file", 0);
    let rotten = disk.content("file").expect("it is there");
    assert!(!disk.is_dirty());
    for crash in Crash::ALL {
        for seed in 0..10 {
            let found = disk.crash(crash, &mut Random::new(seed)).content("file").expect("it is there");
            assert!(found == rotten, "{crash:?} undoes the rot");
        }
    }
}

#[test]
fn power_loss_in_short_lives_from_many_seeds() {
    let seeds = if cfg!(debug_assertions) { 4 } else { 60 };
    for seed in 100..100 + seeds {
        run(seed, 60);
    }
}
