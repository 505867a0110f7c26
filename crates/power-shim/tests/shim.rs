//! A process that uses plain files, with the library loaded into it; it is killed, and the power is lost.
//!
//! The process is this test's own program once more: the test `child` does what a variable names.

#![cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use bowline_power::{Crash, Lost, Place, lose};
use bowline_raft::Random;

const SCENE: &str = "BOWLINE_POWER_TEST";

/// What a process does in its folder.
type Scene = fn();

const SCENES: [(&str, Scene); 6] = [
    ("synced and unsynced", synced_and_unsynced),
    ("every call", every_call),
    ("refusals", refusals),
    ("many threads", many_threads),
    ("descriptors", descriptors),
    ("endless", endless),
];

/// Does nothing unless a test has started it.
#[test]
fn child() {
    let Ok(wanted) = std::env::var(SCENE) else { return };
    let (_, scene) = SCENES.iter().find(|(name, _)| *name == wanted).expect("a scene");
    scene();
    ready();
    // Until it is killed.
    std::thread::park();
}

fn ready() {
    println!("ready");
}

fn sync_folder(path: &str) {
    File::open(path).expect("it is there").sync_all().expect("synced");
}

/// The library. Cargo does not build one that can't be linked before it runs a test, so the test does that.
fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let program = std::env::current_exe().expect("this program");
        let profile = program.ancestors().nth(2).expect("a test is in target/PROFILE/deps");
        let target = profile.parent().expect("as above");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--package", "bowline-power-shim", "--target-dir"]).arg(target);
        cargo.args((!cfg!(debug_assertions)).then_some("--release")).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().expect("cargo starts").success(), "{cargo:?}");
        profile.join("libbowline_power_shim.so")
    })
}

struct Stage {
    folder: tempfile::TempDir,
    place: Place,
}

impl Stage {
    fn new() -> Stage {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::new(&folder.path().join("data"), &folder.path().join("record"));
        fs::create_dir(place.folder()).expect("made");
        Stage { folder, place }
    }

    fn start(&self, scene: &str, lies: bool) -> Child {
        Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child", "--nocapture"])
            .current_dir(self.place.folder())
            .env("LD_PRELOAD", library())
            .env("BOWLINE_POWER_FOLDER", self.place.folder())
            .env("BOWLINE_POWER_RECORD", self.folder.path().join("record"))
            .env("BOWLINE_POWER_LIES", if lies { "1" } else { "0" })
            .env(SCENE, scene)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts")
    }

    /// Runs a scene to its end, then kills the process.
    fn run(&self, scene: &str, lies: bool) {
        let mut child = self.start(scene, lies);
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = lines.map_while(Result::ok).any(|line| line.ends_with("ready"));
        child.kill().and_then(|()| child.wait()).expect("killed");
        assert!(ready, "the scene {scene} failed");
    }

    fn lose(&self, crash: Crash, seed: u64) -> Lost {
        lose(&self.place, crash, &mut Random::new(seed)).expect("the power is lost")
    }

    fn files(&self) -> Vec<(String, String)> {
        let mut files = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(self.place.folder().join(&folder)).expect("listed") {
                let path = folder.join(entry.expect("listed").file_name());
                match fs::read_to_string(self.place.folder().join(&path)) {
                    Ok(text) => files.push((path.display().to_string(), text)),
                    Err(_) => folders.push(path),
                }
            }
        }
        files.sort();
        files
    }
}

fn named(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn synced_and_unsynced() {
    fs::create_dir("log").expect("made");
    let log = File::create_new("log/1").expect("made");
    log.write_all_at(b"synced ", 0).expect("written");
    log.sync_data().expect("synced");
    sync_folder("log");
    fs::write("state", b"old").expect("written");
    File::open("state").expect("open").sync_all().expect("synced");
    fs::write("gone", b"removed").expect("written");
    File::open("gone").expect("open").sync_all().expect("synced");
    sync_folder(".");
    log.write_all_at(b"unsynced", 7).expect("written");
    log.write_all_at(b"S", 0).expect("written");
    fs::write("state.tmp", b"new").expect("written");
    File::open("state.tmp").expect("open").sync_all().expect("synced");
    fs::rename("state.tmp", "state").expect("renamed");
    fs::remove_file("gone").expect("removed");
    fs::write("log/2", b"nameless").expect("written");
}

#[test]
fn what_was_synced_is_there_and_the_rest_is_not() {
    let stage = Stage::new();
    stage.run("synced and unsynced", false);
    let written = [("log/1", "Synced unsynced"), ("log/2", "nameless"), ("state", "new")];
    assert_eq!(stage.files(), named(&written), "a kill loses nothing");
    let lost = stage.lose(Crash::KeepNone, 1);
    assert_eq!(stage.files(), named(&[("gone", "removed"), ("log/1", "synced "), ("state", "old")]), "{lost}");
    assert_eq!((lost.lost_writes, lost.lost_names), (3, 4), "{lost}");
}

#[test]
fn if_everything_survives_the_folder_is_as_it_was() {
    let stage = Stage::new();
    for scene in ["synced and unsynced", "every call"] {
        stage.run(scene, false);
        let before = stage.files();
        stage.lose(Crash::KeepAll, 1);
        assert_eq!(stage.files(), before);
        let lost = stage.lose(Crash::KeepNone, 1);
        assert_eq!((lost.writes, lost.names), (0, 0));
        fs::remove_dir_all(stage.place.folder()).and_then(|()| fs::create_dir(stage.place.folder())).expect("emptied");
    }
}

#[test]
fn a_disk_that_lies_keeps_nothing() {
    let stage = Stage::new();
    stage.run("synced and unsynced", true);
    assert_eq!(stage.files().len(), 3);
    stage.lose(Crash::KeepNone, 1);
    assert_eq!(stage.files(), named(&[]));
}

fn every_call() {
    let path = |name: &str| std::ffi::CString::new(name).expect("no zero byte");
    fs::create_dir_all("a/b").expect("made");
    let mut file = File::options().create(true).append(true).open("a/b/appended").expect("made");
    file.write_all(b"one ").expect("written");
    let pieces = [b"two ".as_slice(), b"three"].map(std::io::IoSlice::new);
    assert_eq!(file.write_vectored(&pieces).expect("written"), 9);
    let mut file = File::create("a/streamed").expect("made");
    file.write_all(b"0123456789").expect("written");
    file.seek(std::io::SeekFrom::Start(3)).expect("moved");
    file.write_all(b"xyz").expect("written");
    file.set_len(8).expect("cut");
    file.try_clone().expect("a second descriptor").write_all(b"!").expect("written");
    fs::copy("a/streamed", "a/copied").expect("copied");
    fs::write("a/truncated", b"long text").expect("written");
    fs::write("a/truncated", b"short").expect("written");
    fs::write("a/b/removed", b"text").expect("written");
    // SAFETY: the names and the buffers are good.
    unsafe {
        assert_eq!(libc::truncate64(path("a/truncated").as_ptr(), 4), 0);
        assert_eq!(libc::fallocate64(file.as_raw_fd(), 0, 0, 12), 0);
        assert_eq!(libc::posix_fallocate64(file.as_raw_fd(), 0, 14), 0);
        let pieces = [libc::iovec { iov_base: b"vec".as_ptr().cast_mut().cast(), iov_len: 3 }];
        assert_eq!(libc::pwritev64(file.as_raw_fd(), pieces.as_ptr(), 1, 9), 3);
        let made = libc::creat(path("a/created").as_ptr(), 0o600);
        assert!(made >= 0 && libc::write(made, b"c".as_ptr().cast(), 1) == 1 && libc::close(made) == 0);
        let folder = File::open("a").expect("open");
        let (one, other) = (path("created"), path("renamed"));
        assert_eq!(libc::renameat(folder.as_raw_fd(), one.as_ptr(), folder.as_raw_fd(), other.as_ptr()), 0);
        assert_eq!(libc::mkdirat(folder.as_raw_fd(), path("c").as_ptr(), 0o700), 0);
    }
    assert!(fs::rename("a/nothing", "a/streamed").is_err());
    assert!(fs::remove_file("a/nothing").is_err());
    assert!(File::create_new("a/renamed").is_err());
    fs::remove_dir("a/c").expect("removed");
    fs::write("a/empty", b"").expect("written");
    fs::remove_file("a/empty").expect("removed");
    fs::create_dir_all("old/er").expect("made");
    fs::write("old/er/file", b"text").expect("written");
    fs::remove_dir_all("old").expect("removed");
    fs::remove_file("a/b/removed").expect("removed");
}

#[test]
fn every_kind_of_call_is_seen_and_can_be_undone() {
    let stage = Stage::new();
    stage.run("every call", false);
    let files = [
        ("a/b/appended", "one two three"),
        ("a/copied", "012xyz!7"),
        ("a/renamed", "c"),
        ("a/streamed", "012xyz!7\0vec\0\0"),
        ("a/truncated", "shor"),
    ];
    assert_eq!(stage.files(), named(&files));
    let lost = stage.lose(Crash::KeepNone, 1);
    assert_eq!(stage.files(), named(&[]), "{lost}");
}

fn refusals() {
    let error = |name: &str, outcome: std::io::Result<()>| {
        assert!(outcome.is_err(), "{name} is not refused");
    };
    fs::write("file", b"text").expect("written");
    fs::create_dir("folder").expect("made");
    error("a hard link", fs::hard_link("file", "other"));
    error("a symbolic link", std::os::unix::fs::symlink("file", "other"));
    error("a move", fs::rename("file", "folder/file"));
    error("a folder's new name", fs::rename("folder", "other"));
    error("a move out of the folder", fs::rename("file", "../file"));
    let file = File::options().read(true).write(true).open("file").expect("open");
    let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_raw_fd());
    // SAFETY: the calls are refused, or map a file that stays open.
    unsafe {
        assert_eq!(libc::mmap64(std::ptr::null_mut(), 4, access, libc::MAP_SHARED, fd, 0), libc::MAP_FAILED);
        assert_ne!(libc::mmap64(std::ptr::null_mut(), 4, access, libc::MAP_PRIVATE, fd, 0), libc::MAP_FAILED);
        let (mut from, null) = (0, std::ptr::null_mut());
        assert_eq!(libc::sendfile64(fd, fd, &mut from, 2), -1);
        assert_eq!(libc::copy_file_range(fd, &mut from, fd, null, 2, 0), -1);
        assert_eq!(libc::syscall(libc::SYS_pwrite64, fd, b"x".as_ptr(), 1, 0), -1);
        assert_eq!(libc::syscall(libc::SYS_io_uring_setup, 1, null), -1);
        assert!(libc::syscall(libc::SYS_getpid) > 0, "other calls pass");
    }
}

#[test]
fn what_can_not_be_recorded_is_refused() {
    let stage = Stage::new();
    stage.run("refusals", false);
    assert_eq!(stage.files(), named(&[("file", "text")]));
}

/// Threads with a file each, all in one file, and two that make and remove names.
fn many_threads() {
    let shared = File::create("shared").expect("made");
    shared.set_len(8 << 9).expect("sized");
    shared.sync_all().expect("synced");
    sync_folder(".");
    // After it, no thread syncs any more.
    let done = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let (shared, done) = (&shared, &done);
            scope.spawn(move || {
                let own = File::create(format!("own-{thread}")).expect("made");
                for round in 1..=50_u8 {
                    own.write_all_at(&[round; 100], 0).expect("written");
                    shared.write_all_at(&[round; 512], u64::from(thread) << 9).expect("written");
                    own.sync_data().expect("synced");
                    shared.sync_data().expect("synced");
                    let name = format!("name-{thread}");
                    fs::write(&name, [round]).expect("written");
                    fs::rename(&name, format!("{name}.new")).expect("renamed");
                    fs::remove_file(format!("{name}.new")).expect("removed");
                    sync_folder(".");
                }
                done.wait();
                own.write_all_at(&[99; 100], 0).expect("written");
                shared.write_all_at(&[99; 512], u64::from(thread) << 9).expect("written");
            });
        }
    });
}

#[test]
fn writers_at_the_same_time_lose_only_what_they_did_not_sync() {
    let stage = Stage::new();
    stage.run("many threads", false);
    let lost = stage.lose(Crash::KeepNone, 1);
    let is = |name: &str, byte| {
        let bytes = fs::read(stage.place.folder().join(name)).expect("read");
        bytes.iter().all(|found| *found == byte)
    };
    assert!(is("shared", 50), "{lost}");
    assert!((0..8).all(|thread| is(&format!("own-{thread}"), 50)), "{lost}");
    assert_eq!(stage.files().len(), 9);
    assert_eq!((lost.lost_writes, lost.lost_names), (16, 0), "{lost}");
}

/// Descriptors whose numbers are used again for something else.
fn descriptors() {
    let outside = File::create("../outside").expect("made");
    let mut inside = File::create("inside").expect("made");
    // SAFETY: both are open.
    assert_eq!(unsafe { libc::dup2(outside.as_raw_fd(), inside.as_raw_fd()) }, inside.as_raw_fd());
    inside.write_all(b"outside").expect("written");
    drop(inside);
    for round in 0..3 {
        let mut file = File::create(format!("file-{round}")).expect("made");
        file.write_all(b"inside").expect("written");
        drop(file);
        let mut file = File::create("../other").expect("made");
        file.write_all(b"other").expect("written");
        drop(file);
        let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
        writer.write_all(b"p").expect("written");
        reader.read_exact(&mut [0]).expect("read");
    }
}

#[test]
fn a_descriptor_is_what_it_is_now() {
    let stage = Stage::new();
    stage.run("descriptors", false);
    let lost = stage.lose(Crash::KeepNone, 1);
    assert_eq!((lost.writes, lost.names), (3, 4), "{lost}");
    assert_eq!(stage.files(), named(&[]));
    let outside = |name: &str| fs::read_to_string(stage.folder.path().join(name)).expect("read");
    assert_eq!((outside("outside"), outside("other")), ("outside".to_owned(), "other".to_owned()));
}

/// Counts up in a file as a log would do it, and tells each number that is durable.
fn endless() {
    let log = File::options().read(true).write(true).create(true).truncate(false).open("log").expect("open");
    sync_folder(".");
    let mut number = log.metadata().expect("it has a size").len() / 8;
    let mut last = [0; 8];
    if number > 0 {
        log.read_exact_at(&mut last, (number - 1) * 8).expect("read");
    }
    loop {
        number += 1;
        log.write_all_at(&number.to_le_bytes(), (number - 1) * 8).expect("written");
        fs::write("tmp", number.to_string()).expect("written");
        fs::rename("tmp", "latest").expect("renamed");
        log.sync_data().expect("synced");
        println!("durable {number}");
    }
}

#[test]
fn a_kill_at_any_moment_leaves_a_record_that_can_be_undone() {
    let stage = Stage::new();
    let mut random = Random::new(7);
    for round in 0..20 {
        let mut child = stage.start("endless", false);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let mut told =
            lines.by_ref().filter_map(|line| line.strip_prefix("durable ").and_then(|n| n.parse::<u64>().ok()));
        let first = told.next().expect("the first number");
        std::thread::sleep(std::time::Duration::from_micros(random.below(3_000)));
        child.kill().and_then(|()| child.wait()).expect("killed");
        let last = told.last().unwrap_or(first);
        // In some rounds, the next process goes on with what was not synced.
        if round % 3 != 0 {
            let crash = *random.pick(&Crash::ALL).expect("there are some");
            let lost = lose(&stage.place, crash, &mut random).expect("the power is lost");
            let log = fs::read(stage.place.folder().join("log")).expect("it was synced");
            let numbers = log.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight")));
            let right = (1..).zip(numbers).take_while(|(number, found)| number == found).count() as u64;
            assert!(right >= last && right <= last + 1, "{right} of {last} numbers, {lost}");
            assert_eq!(log.len() as u64 % 8, 0);
        }
        check_latest(&stage.place);
    }
}

/// A name that was never made durable may stand for any number, or for nothing; but not for half of a record.
fn check_latest(place: &Place) {
    if let Ok(text) = fs::read_to_string(place.folder().join("latest")) {
        assert!(text.is_empty() || text.parse::<u64>().is_ok(), "{text:?}");
    }
}

#[test]
fn a_process_whose_record_can_not_be_kept_says_so_and_ends() {
    let stage = Stage::new();
    fs::write(stage.folder.path().join("record"), b"no folder").expect("written");
    let mut command = Command::new("/bin/true");
    command.env("LD_PRELOAD", library()).env("BOWLINE_POWER_FOLDER", stage.place.folder());
    let output = command.env("BOWLINE_POWER_RECORD", Path::new(stage.folder.path()).join("record")).output();
    let output = output.expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(70), "{said}");
    assert!(said.contains("bowline-power-shim: can't create"), "{said}");
}
