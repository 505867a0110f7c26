//! The same on this machine's own disk.

mod common;

use bowline_storage::{OpenError, RealDisk};
use common::{append, header, indexes, make, options, reopen, vote};

#[test]
fn a_real_folder_is_made_locked_filled_and_read_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = RealDisk::new(folder.path().join("a/b"));
    assert!(matches!(reopen(&disk, &options(4096)).err(), Some(OpenError::Missing { .. })));
    make(&disk, &options(4096));
    let mut opened = reopen(&disk, &options(4096)).expect("it was just made");
    let second = reopen(&disk, &options(4096)).err().expect("it is in use");
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
    opened.log.append(&vote(1, 2)).expect("there is room");
    for index in 1..=60 {
        opened.log.append(&append(index, 1)).expect("there is room");
        opened.log.sync().expect("the disk is in order");
    }
    let snapshot = header(50, 1);
    opened.snapshots.store(&snapshot, &vec![9; 1_000_000]).expect("there is room");
    opened.log.compact(&snapshot).expect("there is room");
    opened.log.sync().expect("the disk is in order");
    if let Some(job) = opened.log.spare_job().expect("the disk is in order") {
        std::thread::spawn(move || job.run()).join().expect("no panic").expect("there is room");
    }
    drop(opened);
    let opened = reopen(&disk, &options(4096)).expect("it is whole");
    assert!(opened.recovery.findings.is_empty(), "{:?}", opened.recovery.findings);
    assert_eq!(indexes(&opened.recovery.recovered.entries), (51..=60).collect());
    let (_, data) = opened.snapshots.load(snapshot.position, 1 << 20).expect("it is whole");
    assert_eq!(data, vec![9; 1_000_000]);
}
