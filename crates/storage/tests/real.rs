//! The same on this machine's own disk.

mod common;

use std::os::unix::fs::PermissionsExt;

use bowline_storage::{Disk, OpenError, RealDisk};
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

#[test]
fn what_is_made_is_its_owners_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = RealDisk::new(folder.path().join("a/b"));
    make(&disk, &options(4096));
    let opened = reopen(&disk, &options(4096)).expect("it was just made");
    opened.snapshots.store(&header(50, 1), b"data").expect("there is room");
    let mode = |path: &str| {
        let path = folder.path().join("a/b").join(path);
        path.metadata().unwrap_or_else(|why| panic!("{}: {why}", path.display())).permissions().mode() & 0o777
    };
    for dir in ["../../a", "", "log", "snap"] {
        assert_eq!(mode(dir), 0o700, "{dir:?}");
        for name in disk.list(dir).expect("it is there") {
            let path = format!("{dir}/{name}");
            let path = path.trim_start_matches('/');
            assert!([0o600, 0o700].contains(&mode(path)), "{path}: {:o}", mode(path));
        }
    }
}
