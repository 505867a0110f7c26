//! A rewrite that ends at any of its steps: what the next start finds.

use bowline_kv::store::{
    Command, CompactionRequest, DeleteRangeRequest, EngineError, HashKv, HashKvRequest, Principal, PutRequest,
};
use bowline_node::NodeMessage;
use bowline_node::raft::{Entry, Group, Index, Membership, NodeId, Payload, Position, SnapshotHeader, Term};
use bowline_storage::{ClusterId, Disk as _, Identity, SimDisk};

use super::*;
use crate::machine::{AppliedEntry, KvMachine};
use crate::state_files::StateFiles;
use crate::status::Published;

/// Keeps the jobs for the worker of the snapshots.
#[derive(Default)]
struct Jobs(Vec<SnapshotJob>);

impl Outlet<()> for Jobs {
    fn event(&mut self, _: Event<()>) {}

    fn snapshot_job(&mut self, job: SnapshotJob) {
        self.0.push(job);
    }

    fn send(&mut self, _: NodeId, _: NodeMessage) {}

    fn applied(&mut self, _: &[AppliedEntry], _: &Published) -> Result<(), EngineError> {
        Ok(())
    }

    fn replaced(&mut self, _: &Published) {}
}

fn identity() -> Identity {
    Identity { cluster: ClusterId(1), replica: NodeId(1), incarnation: 7 }
}

fn files(disk: &SimDisk) -> StateFiles<SimDisk> {
    StateFiles::new(disk.clone(), identity(), 1 << 20)
}

fn entry(index: u64) -> Entry {
    let command = match index % 10 {
        // Almost all is deleted, and given up with the compaction after it.
        _ if index == 2_000 => {
            let (key, range_end) = ("k1".into(), "k90".into());
            Command::DeleteRange(DeleteRangeRequest { key, range_end, prev_kv: false })
        }
        _ if index == 2_100 => Command::Compact(CompactionRequest { revision: 1_690, physical: false }),
        9 => {
            let key = format!("k{}", index % 300);
            Command::DeleteRange(DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() })
        }
        8 => Command::Compact(CompactionRequest { revision: index as i64 / 2, physical: false }),
        _ => {
            let (key, value) = (format!("k{}", index * 7 % 1_000), vec![index as u8; 3_000]);
            Command::Put(PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() })
        }
    };
    Entry { index: Index(index), term: Term(1), payload: Payload::Command(command.to_bytes()) }
}

/// Applies the log up to an entry.
fn apply(machine: &mut KvMachine, up_to: u64) {
    let entries: Vec<Entry> = (machine.applied().0 + 1..=up_to).map(entry).collect();
    machine.apply(&entries, &(), 0);
    while machine.is_untidy() {
        machine.tidy(1_024, &()).expect("the disk works");
    }
}

fn checkpoint(machine: &mut KvMachine) {
    let position = Position { index: machine.applied(), term: Term(1) };
    let membership = Membership::simple(Group::of_voters([NodeId(1)]));
    machine.checkpoint(&SnapshotHeader { position, membership }).expect("the disk works");
}

fn hash(machine: &KvMachine) -> HashKv {
    machine.ask(&Principal::Member, &HashKvRequest { revision: 0 }).0.expect("the disk works")
}

/// What a log leads to, in a file of its own.
fn expected(up_to: u64) -> HashKv {
    let mut machine = files(&SimDisk::new()).found_anew().expect("it can be made");
    apply(&mut machine, up_to);
    hash(&machine)
}

/// A member's folder in the middle of a rewrite.
struct Scene {
    disk: SimDisk,
    files: StateFiles<SimDisk>,
    shared: Shared<SimDisk>,
}

impl Scene {
    fn new() -> Scene {
        let disk = SimDisk::new();
        let files = files(&disk);
        let mut machine = files.found_anew().expect("it can be made");
        apply(&mut machine, 1_500);
        checkpoint(&mut machine);
        apply(&mut machine, 1_600);
        Scene { disk, files, shared: Shared::new(machine) }
    }

    fn apply(&self, up_to: u64) {
        let mut machine = self.shared.write();
        apply(&mut machine, up_to);
        let facts = machine.facts();
        drop(machine);
        self.shared.set_facts(facts);
    }

    fn names(&self) -> Vec<String> {
        names(&self.disk)
    }

    /// The process ends here: starts again with what the folder holds, and a log that begins after `base`.
    fn crash(&self, base: u64, up_to: u64) {
        restart(&self.disk.fork(), base, up_to);
        // The new name of a file may be lost with the power, or the whole file may.
        let image = self.disk.fork();
        for name in self.names().iter().filter(|name| *name != "state.redb") {
            image.lose(name);
            restart(&image.fork(), base, up_to);
        }
    }
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list("").expect("it is there")
}

fn restart(disk: &SimDisk, base: u64, up_to: u64) {
    let mut files = files(disk);
    let found = files.find().expect("the disk lets them be read");
    // As a start does: the first that is not behind the log's beginning.
    let fits = |applied: Index| applied.0 >= base && applied.0 <= up_to;
    assert!(found.iter().all(|found| fits(found.kept().applied)), "what is not complete was taken for whole");
    assert!(!found.is_empty(), "no state is left");
    let mut machine = files.choose(found, 0).expect("the disk works");
    assert_eq!(names(disk), ["state.redb"], "nothing is left over");
    apply(&mut machine, up_to);
    assert_eq!(hash(&machine), expected(up_to));
}

#[test]
fn a_crash_at_any_step_of_a_rewrite_leaves_a_whole_state_that_fits_the_log() {
    let mut scene = Scene::new();
    let mut rewriting = Rewriting::begin(&mut scene.files, &scene.shared).expect("there is room");
    scene.crash(1_500, 1_600);
    let (mut up_to, mut steps) = (1_600, 0);
    loop {
        steps += 1;
        up_to += if steps < 8 { 100 } else { 0 };
        scene.apply(up_to);
        let done = rewriting.step(&scene.shared).expect("nothing stops it");
        scene.crash(1_500, up_to);
        if steps == 2 {
            // The log is cut meanwhile.
            checkpoint(&mut scene.shared.write());
            scene.crash(up_to, up_to);
        }
        if done {
            break;
        }
    }
    assert!(steps >= 4, "{steps} steps are no test");
    up_to += 50;
    scene.apply(up_to);
    // What `take_in_use` does, step by step.
    let (rewrite, mut file) = rewriting.into_parts();
    let rewritten = scene.shared.read().finish_rewrite(rewrite).expect("nothing stops it");
    assert_eq!(scene.names(), ["state-1.new", "state.redb"]);
    scene.crash(1_700, up_to);
    let old = scene.disk.content("state.redb").expect("it is there");
    file.take_name().expect("the disk works");
    assert_eq!(scene.names(), ["state.redb"]);
    scene.crash(1_700, up_to);
    // The power fails before the folder is synced: the old name is back.
    let undone = SimDisk::new();
    undone.put("state-1.new", scene.disk.content("state.redb").expect("it is there"));
    undone.put("state.redb", old);
    restart(&undone, 1_700, up_to);
    file.sync_name().expect("the disk works");
    drop(scene.shared.write().move_to(rewritten));
    scene.crash(1_700, up_to);
    up_to += 100;
    scene.apply(up_to);
    checkpoint(&mut scene.shared.write());
    scene.crash(up_to, up_to);
    assert_eq!(hash(&scene.shared.read()), expected(up_to));
}

#[test]
fn taking_the_new_file_in_use_leaves_one_file_that_is_smaller_and_a_start_finds_it() {
    let mut scene = Scene::new();
    scene.apply(2_105);
    let before = scene.shared.facts();
    assert!(before.compact_revision == 1_690 && before.db_size_in_use < before.db_size / 3, "{before:?}");
    let mut rewriting = Rewriting::begin(&mut scene.files, &scene.shared).expect("there is room");
    while !rewriting.step(&scene.shared).expect("nothing stops it") {}
    scene.apply(2_150);
    let mut jobs = Jobs::default();
    take_in_use(rewriting, &scene.shared, &mut jobs).expect("the disk works").expect("nothing stops it");
    assert!(matches!(jobs.0[..], [SnapshotJob::Drop(_)]));
    let after = scene.shared.facts();
    assert!(after.db_size < before.db_size / 2, "{after:?} after {before:?}");
    assert_eq!(scene.names(), ["state.redb"]);
    scene.crash(1_500, 2_150);
    // And once more, from the new one.
    let mut rewriting = Rewriting::begin(&mut scene.files, &scene.shared).expect("there is room");
    while !rewriting.step(&scene.shared).expect("nothing stops it") {}
    take_in_use(rewriting, &scene.shared, &mut jobs).expect("the disk works").expect("nothing stops it");
    scene.crash(1_500, 2_150);
}

#[test]
fn a_snapshot_that_is_installed_meanwhile_wins_and_the_new_file_goes() {
    for ready in [false, true] {
        let mut scene = Scene::new();
        let mut rewriting = Rewriting::begin(&mut scene.files, &scene.shared).expect("there is room");
        while ready && !rewriting.step(&scene.shared).expect("nothing stops it") {}
        let mut snapshot = Vec::new();
        scene.shared.read().dump().expect("it is whole").write_to(&mut snapshot).expect("memory takes it");
        let position = Position { index: Index(1_600), term: Term(1) };
        let header = SnapshotHeader { position, membership: Membership::simple(Group::of_voters([NodeId(1)])) };
        let state = scene.files.restore(&header, &mut &snapshot[..]).expect("it is whole");
        *scene.shared.write() = state.install().expect("the disk works");
        let given_up = if ready {
            take_in_use(rewriting, &scene.shared, &mut Jobs::default()).expect("the disk works")
        } else {
            let given_up = rewriting.step(&scene.shared).map(|_| ());
            drop(rewriting);
            given_up
        };
        assert_eq!(given_up, Err(GivenUp::Because("the state was replaced meanwhile".to_owned())));
        assert_eq!(scene.names(), ["state.redb"]);
        scene.crash(1_600, 1_600);
    }
}

#[test]
fn a_rewrite_that_is_let_go_leaves_nothing() {
    let mut scene = Scene::new();
    let mut rewriting = Rewriting::begin(&mut scene.files, &scene.shared).expect("there is room");
    rewriting.step(&scene.shared).expect("nothing stops it");
    assert_eq!(scene.names(), ["state-1.new", "state.redb"]);
    scene.shared.put_rewritten(Some(Ok(rewriting)));
    scene.shared.put_rewritten(None);
    assert_eq!(scene.names(), ["state.redb"]);
    scene.crash(1_500, 1_600);
}
