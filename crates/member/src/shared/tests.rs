use bowline_kv::store::{Command, EngineError, PutRequest};
use bowline_node::raft::{Entry, Group, Index, Membership, NodeId, Payload, Position, Session, Term};
use bowline_node::{Job, NodeMessage, Report, SnapshotChunk};
use bowline_storage::{ClusterId, Disk as _, Identity, Options, SimDisk, create, open};
use bytes::Bytes;

use super::*;
use crate::machine::AppliedEntry;
use crate::outlet::Outlet;
use crate::queue::Event;
use crate::snapshots::{SnapshotJob, SnapshotWorker};
use crate::state_files::StateFiles;
use crate::status::Published;

const IDENTITY: Identity = Identity { cluster: ClusterId(1), replica: NodeId(1), incarnation: 7 };

fn files(disk: &SimDisk) -> StateFiles<SimDisk> {
    StateFiles::new(disk.clone(), IDENTITY, 1 << 20)
}

fn header(index: u64) -> SnapshotHeader {
    let position = Position { index: Index(index), term: Term(1) };
    SnapshotHeader { position, membership: Membership::simple(Group::of_voters([NodeId(1)])) }
}

/// A leader's snapshot of its state up to an entry.
fn snapshot(index: u64) -> Vec<u8> {
    let mut leader = files(&SimDisk::new()).found_anew().expect("it can be made");
    let put = |index: u64| PutRequest { key: index.to_string().into(), value: "v".into(), ..PutRequest::default() };
    let payload = |index: u64| Payload::Command(Command::Put(put(index)).to_bytes());
    let entry = |index: u64| Entry { index: Index(index), term: Term(1), payload: payload(index) };
    leader.apply(&(1..=index).map(entry).collect::<Vec<Entry>>(), &(), 0);
    let mut bytes = Vec::new();
    leader.dump().expect("it is whole").write_to(&mut bytes).expect("memory takes it");
    bytes
}

/// A snapshot arrives in full, and the core accepts it.
fn accept(shared: &Shared<SimDisk>, files: &mut StateFiles<SimDisk>, index: u64) {
    let (header, bytes) = (header(index), snapshot(index));
    let state = files.restore(&header, &mut &bytes[..]).expect("it is whole");
    let transfer = SnapshotTransfer { from: NodeId(2), term: Term(1), session: Session(index) };
    shared.put_restored(Some(Restored { transfer, header: header.clone(), state }));
    shared.accept(&header);
}

/// Keeps what a worker reports.
#[derive(Default)]
struct Reports(Vec<Report>);

impl Outlet<()> for Reports {
    fn event(&mut self, event: Event<()>) {
        if let Event::Report(report) = event {
            self.0.push(report);
        }
    }

    fn snapshot_job(&mut self, _: SnapshotJob) {}

    fn send(&mut self, _: NodeId, _: NodeMessage) {}

    fn applied(&mut self, _: &[AppliedEntry], _: &Published) -> Result<(), EngineError> {
        Ok(())
    }

    fn replaced(&mut self, _: &Published) {}
}

/// What a start finds after the process has died: where each state ends, in the order in which they are tried.
fn found(disk: &SimDisk) -> Vec<u64> {
    let found = files(&disk.fork()).find().expect("the disk lets them be read");
    found.iter().map(|state| state.kept().applied.0).collect()
}

/// A member whose log is slow, and the index of each snapshot that it has accepted meanwhile.
fn member_with_a_slow_log(disk: &SimDisk) -> (Shared<SimDisk>, Vec<u64>) {
    let mut files = files(disk);
    let shared = Shared::new(files.found_anew().expect("it can be made"));
    let indexes: Vec<u64> = (1..=11).collect();
    for index in &indexes {
        accept(&shared, &mut files, *index);
    }
    (shared, indexes)
}

#[test]
fn the_log_may_begin_after_any_accepted_state_so_all_of_them_stay() {
    let disk = SimDisk::new();
    let (shared, indexes) = member_with_a_slow_log(&disk);
    assert_eq!(shared.accepted(), 11);
    // The one in use, then the oldest first, also where names have more digits.
    assert_eq!(found(&disk), [vec![0], indexes].concat());
    // A later one was accepted before the log began after this one.
    let installed = shared.take_accepted(&header(3)).state.install().expect("the disk works");
    assert_eq!(installed.applied(), Index(3));
    assert_eq!(found(&disk), (3..=11).collect::<Vec<u64>>());
    // The log is durable up to the last one at once.
    drop(shared.take_accepted(&header(11)).state.install().expect("the disk works"));
    assert_eq!(found(&disk), [11]);
    assert_eq!(disk.list("").expect("it is there"), ["state.redb"]);
}

#[test]
fn an_accepted_state_stays_when_the_member_stops() {
    let disk = SimDisk::new();
    let (shared, indexes) = member_with_a_slow_log(&disk);
    // The log has written all that it was given, but nobody is left to install a state.
    drop(shared);
    assert_eq!(found(&disk), [vec![0], indexes].concat());
}

#[test]
fn a_snapshot_waits_while_the_log_is_behind_two_others() {
    let (disk, options) = (SimDisk::new(), Options::new(64 << 10, 4 << 10, 2));
    create(&disk, &IDENTITY, Some(header(1).membership), &options).expect("an empty disk takes a folder");
    let opened = open(&disk, IDENTITY.cluster, IDENTITY.replica, &options).expect("it was just made");
    let mut files = files(&disk);
    let shared = Arc::new(Shared::new(files.found_anew().expect("it can be made")));
    accept(&shared, &mut files, 1);
    let ending = Arc::new(AtomicBool::new(false));
    let instruments = Arc::new(());
    let mut worker = SnapshotWorker::new(opened.snapshots, files, None, Arc::clone(&shared), ending, instruments);
    // The first piece of the snapshot up to 4. Returns how much of it has arrived.
    let mut add = || {
        let (mut reports, data) = (Reports::default(), Bytes::from_static(b"piece"));
        let (term, session, header) = (Term(1), Session(4), header(4));
        let chunk = SnapshotChunk { term, session, header, total: 100, offset: 0, data };
        let job = SnapshotJob::Other(Job::Add { from: NodeId(2), chunk });
        worker.work(Some(job), &mut reports).expect("the disk works");
        match reports.0[..] {
            [Report::Added { received, .. }] => received,
            _ => panic!("{:?}", reports.0),
        }
    };
    assert_eq!(add(), 5);
    accept(&shared, &mut self::files(&SimDisk::new()), 2);
    assert_eq!(add(), 0);
    drop(shared.take_accepted(&header(1)));
    assert_eq!(add(), 5);
}
