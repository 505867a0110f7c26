use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use super::*;
use crate::LIMIT;

/// A folder with a process that notes what it does, without the shim.
struct Noting {
    _folder: tempfile::TempDir,
    place: Place,
    record: Record,
}

impl Noting {
    fn new() -> Noting {
        let folder = tempfile::tempdir().expect("a folder");
        let place = Place::new(&folder.path().join("data"), &folder.path().join("record"));
        fs::create_dir(&place.folder).expect("made");
        let record = Record::open(&place).expect("a record");
        Noting { _folder: folder, place, record }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.folder.join(name)
    }

    fn create(&mut self, name: &str) {
        self.record.create(Path::new(name)).expect("noted");
        File::create_new(self.path(name)).expect("made");
    }

    fn write(&mut self, name: &str, offset: u64, data: &[u8]) {
        let file = File::options().read(true).write(true).open(self.path(name)).expect("it is there");
        let stat = file.metadata().expect("it has a size");
        let old = |from: u64, length: u64| {
            let mut old = vec![0; length as usize];
            file.read_exact_at(&mut old, from).expect("the record asks for what is there");
            Ok(old)
        };
        self.record.write(stat.ino(), (offset, data.len() as u64), stat.len(), old).expect("noted");
        file.write_all_at(data, offset).expect("written");
    }

    fn resize(&mut self, name: &str, bytes: u64) {
        let file = File::options().read(true).write(true).open(self.path(name)).expect("it is there");
        let (stat, content) = (file.metadata().expect("a size"), fs::read(self.path(name)).expect("read"));
        let old = |from: u64, length: u64| Ok(content[from as usize..][..length as usize].to_vec());
        self.record.resize(stat.ino(), bytes, stat.len(), old).expect("noted");
        file.set_len(bytes).expect("resized");
    }

    fn remove(&mut self, name: &str) {
        let stat = self.path(name).metadata().expect("it is there");
        self.record.remove(Path::new(name), stat.ino(), stat.len()).expect("noted");
        fs::remove_file(self.path(name)).expect("removed");
    }

    fn rename(&mut self, from: &str, to: &str) {
        let inode = self.path(from).metadata().expect("it is there").ino();
        let replaced = self.path(to).metadata().ok().map(|stat| (stat.ino(), stat.len()));
        self.record.rename((Path::new(from), Path::new(to)), inode, replaced).expect("noted");
        fs::rename(self.path(from), self.path(to)).expect("renamed");
    }

    fn sync(&mut self, name: &str) {
        let since = self.record.now();
        let inode = self.path(name).metadata().expect("it is there").ino();
        self.record.synced_file(inode, since).expect("noted");
    }

    fn sync_folder(&mut self, name: &str) {
        let since = self.record.now();
        self.record.synced_folder(Path::new(name), since).expect("noted");
    }

    /// A file with this content that is durable.
    fn durable(&mut self, name: &str, data: &[u8]) {
        self.create(name);
        self.write(name, 0, data);
        self.sync(name);
        self.sync_folder("");
    }

    fn lose(&self, crash: Crash, seed: u64) -> Lost {
        lose(&self.place, crash, &mut Random::new(seed)).expect("it can be lost")
    }

    /// All files with their contents.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let names = read(&self.place.folder).expect("it can be listed");
        let file =
            |path: &PathBuf| (path.display().to_string(), fs::read(self.place.folder.join(path)).unwrap_or_default());
        names.keys().map(file).collect()
    }
}

fn text(name: &str, data: &[u8]) -> (String, Vec<u8>) {
    (name.to_owned(), data.to_vec())
}

/// Unsynced: all kinds of changes of a file and of its name.
fn busy() -> Noting {
    let mut noting = Noting::new();
    noting.durable("log", b"durable entry|");
    noting.durable("state", b"old state");
    noting.durable("gone", b"removed");
    noting.write("log", 14, b"new entry|");
    noting.write("log", 0, b"DURABLE");
    noting.create("state.tmp");
    noting.write("state.tmp", 0, b"new state");
    noting.rename("state.tmp", "state");
    noting.remove("gone");
    noting
}

#[test]
fn nothing_unsynced_survives_if_none_is_kept() {
    let noting = busy();
    let lost = noting.lose(Crash::KeepNone, 1);
    let expected = [text("gone", b"removed"), text("log", b"durable entry|"), text("state", b"old state")];
    assert_eq!(noting.files(), expected);
    assert_eq!((lost.writes, lost.lost_writes, lost.names, lost.lost_names), (3, 3, 3, 3));
    assert_eq!(lost.to_string(), "KeepNone: 3 of 3 unsynced writes lost, 3 of 3 names");
}

#[test]
fn everything_survives_if_all_is_kept_and_is_durable_then() {
    let noting = busy();
    noting.lose(Crash::KeepAll, 1);
    let expected = [text("log", b"DURABLE entry|new entry|"), text("state", b"new state")];
    assert_eq!(noting.files(), expected);
    let lost = noting.lose(Crash::KeepNone, 1);
    assert_eq!((lost.writes, lost.names), (0, 0));
    assert_eq!(noting.files(), expected);
    assert!(numbered_files(&noting.place.removed).is_empty(), "nothing is kept any more");
}

fn numbered_files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map_or(Vec::new(), |entries| entries.map(|entry| entry.expect("listed").path()).collect())
}

#[test]
fn a_sync_keeps_what_it_covers_and_shrinks_the_record() {
    let mut noting = busy();
    noting.sync("log");
    noting.sync("state");
    let all = noting.record.bytes();
    noting.sync_folder("");
    assert!(all > 0 && noting.record.bytes() == 0);
    let lost = noting.lose(Crash::KeepNone, 1);
    assert_eq!((lost.writes, lost.names), (0, 0));
    assert_eq!(noting.files(), [text("log", b"DURABLE entry|new entry|"), text("state", b"new state")]);
}

#[test]
fn a_sync_of_a_folder_or_a_file_is_not_one_of_the_other() {
    let mut noting = Noting::new();
    noting.create("named");
    noting.sync_folder("");
    noting.write("named", 0, b"lost");
    noting.create("nameless");
    noting.write("nameless", 0, b"synced");
    noting.sync("nameless");
    noting.lose(Crash::KeepNone, 1);
    assert_eq!(noting.files(), [text("named", b"")]);
}

#[test]
fn what_came_during_a_sync_is_not_durable() {
    let mut noting = Noting::new();
    noting.durable("log", b"");
    noting.write("log", 0, b"before");
    noting.create("before");
    let since = noting.record.now();
    noting.write("log", 6, b"during");
    noting.create("during");
    let inode = noting.path("log").metadata().expect("there").ino();
    noting.record.synced_file(inode, since).expect("noted");
    noting.record.synced_folder(Path::new(""), since).expect("noted");
    noting.lose(Crash::KeepNone, 1);
    assert_eq!(noting.files(), [text("before", b""), text("log", b"before")]);
}

#[test]
fn a_prefix_is_one_in_the_order_of_all_writes() {
    for seed in 0..50 {
        let mut noting = Noting::new();
        noting.durable("a", &[0; 10]);
        noting.durable("b", &[0; 10]);
        for at in 0..10 {
            noting.write(["a", "b"][at % 2], at as u64, b"x");
        }
        let lost = noting.lose(Crash::Prefix, seed);
        let files = noting.files();
        let survived: Vec<bool> = (0..10).map(|at| files[at % 2].1[at] == b'x').collect();
        let count = survived.iter().filter(|survived| **survived).count();
        assert!(survived[..count].iter().all(|survived| *survived), "{survived:?}");
        assert_eq!(10 - lost.lost_writes, count);
    }
}

#[test]
fn each_write_or_each_sector_may_survive_alone() {
    let mut patterns = std::collections::BTreeSet::new();
    for (seed, crash) in (0..40).zip([Crash::SomeWrites, Crash::SomeSectors, Crash::AllButOneSector].iter().cycle()) {
        let mut noting = Noting::new();
        noting.durable("file", &[0; 2048]);
        noting.write("file", 0, &[1; 1024]);
        noting.write("file", 1024, &[2; 1024]);
        noting.lose(*crash, seed);
        let bytes = noting.files().swap_remove(0).1;
        assert_eq!(bytes.len(), 2048);
        let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
        assert!(bytes.chunks(512).zip(&sectors).all(|(sector, first)| sector.iter().all(|byte| byte == first)));
        let torn = |write: &[u8]| write[0] != write[1];
        match crash {
            Crash::SomeWrites => assert!(!torn(&sectors[..2]) && !torn(&sectors[2..]), "{sectors:?}"),
            Crash::AllButOneSector => assert_eq!(sectors.iter().filter(|first| **first == 0).count(), 1),
            _ => {}
        }
        patterns.insert((format!("{crash:?}"), sectors));
    }
    assert!(patterns.len() > 12, "{patterns:?}");
}

#[test]
fn a_lost_write_beyond_the_end_and_a_lost_cut_give_the_old_size() {
    let mut noting = Noting::new();
    noting.durable("grown", b"12345");
    noting.durable("cut", b"1234567890");
    noting.write("grown", 8, b"far");
    noting.resize("grown", 100);
    noting.resize("cut", 3);
    noting.write("cut", 3, b"abc");
    noting.lose(Crash::KeepNone, 1);
    assert_eq!(noting.files(), [text("cut", b"1234567890"), text("grown", b"12345")]);
}

#[test]
fn folders_come_and_go() {
    let mut noting = Noting::new();
    noting.record.make_folder(Path::new("log")).expect("noted");
    fs::create_dir(noting.path("log")).expect("made");
    noting.create("log/1");
    noting.sync_folder("log");
    // The file's name is durable in a folder that is not.
    noting.lose(Crash::KeepNone, 1);
    assert!(noting.files().is_empty());
    fs::create_dir(noting.path("old")).expect("made");
    fs::write(noting.path("old/1"), b"content").expect("written");
    noting.record = Record::open(&noting.place).expect("opened");
    noting.remove("old/1");
    noting.record.remove_folder(Path::new("old")).expect("noted");
    fs::remove_dir(noting.path("old")).expect("removed");
    noting.lose(Crash::KeepNone, 1);
    assert_eq!(noting.files(), [text("old", b""), text("old/1", b"content")]);
}

#[test]
fn two_files_that_exchanged_their_names_get_them_back() {
    let mut noting = Noting::new();
    noting.durable("a", b"A");
    noting.durable("b", b"B");
    noting.rename("a", "c");
    noting.rename("b", "a");
    noting.rename("c", "b");
    noting.lose(Crash::KeepNone, 1);
    assert_eq!(noting.files(), [text("a", b"A"), text("b", b"B")]);
}

#[test]
fn an_empty_file_that_was_removed_comes_back_whatever_its_inode_is_now() {
    let mut noting = Noting::new();
    noting.durable("empty", b"");
    noting.remove("empty");
    noting.durable("other", b"perhaps with the same inode");
    noting.record.create(Path::new("again")).expect("noted, but never made");
    noting.lose(Crash::KeepNone, 1);
    let files = noting.files();
    assert!(files.contains(&text("other", b"perhaps with the same inode")), "{files:?}");
}

#[test]
fn a_later_process_goes_on_with_the_record() {
    let mut noting = busy();
    noting.record = Record::open(&noting.place).expect("opened");
    noting.write("log", 24, b"later|");
    noting.lose(Crash::KeepNone, 1);
    assert_eq!(noting.files()[1], text("log", b"durable entry|"));
}

#[test]
fn a_change_that_was_noted_but_not_done_is_no_change() {
    let mut noting = Noting::new();
    noting.durable("a", b"A");
    noting.durable("b", b"B");
    let inode = |noting: &Noting, name: &str| noting.path(name).metadata().expect("there").ino();
    let (a, b) = (inode(&noting, "a"), inode(&noting, "b"));
    noting.record.write(a, (0, 5), 1, |_, _| Ok(b"A".to_vec())).expect("noted");
    noting.record.rename((Path::new("a"), Path::new("b")), a, Some((b, 1))).expect("noted");
    noting.record.remove(Path::new("a"), a, 1).expect("noted");
    noting.record.create(Path::new("c")).expect("noted");
    for crash in [Crash::KeepAll, Crash::KeepNone] {
        noting.lose(crash, 1);
        assert_eq!(noting.files(), [text("a", b"A"), text("b", b"B")]);
    }
    // A change that failed is taken back.
    noting.record = Record::open(&noting.place).expect("opened");
    noting.record.remove(Path::new("a"), a, 1).expect("noted");
    noting.record.failed().expect("taken back");
    assert_eq!((noting.record.bytes(), numbered_files(&noting.place.removed).len()), (0, 0));
}

#[test]
fn a_record_that_a_kill_cut_short_is_read_up_to_there() {
    let mut noting = Noting::new();
    noting.durable("log", b"0000000000");
    noting.write("log", 0, b"11111");
    let path = noting.place.files().join(noting.path("log").metadata().expect("there").ino().to_string());
    let one = fs::read(&path).expect("read").len();
    noting.write("log", 5, b"22222");
    noting.create("a");
    noting.create("b");
    let (files, names) = (fs::read(&path).expect("read"), fs::read(noting.place.names()).expect("read"));
    for cut in one..=files.len() {
        fs::write(&path, &files[..cut]).expect("written");
        let record = Record::open(&noting.place).expect("it is only cut short");
        let whole = if cut == files.len() { cut } else { one };
        assert_eq!(fs::read(&path).expect("read").len(), whole, "the rest is gone");
        drop(record);
    }
    for cut in 0..=names.len() {
        fs::write(noting.place.names(), &names[..cut]).expect("written");
        let (changes, _) = Record::open(&noting.place).expect("it is only cut short").into_changes().expect("read");
        assert_eq!(changes.len(), cut / (names.len() / 2), "at {cut}");
    }
}

#[test]
fn a_damaged_record_is_refused() {
    let mut noting = Noting::new();
    noting.durable("log", b"0");
    noting.write("log", 0, b"1");
    noting.create("a");
    let path = noting.place.files().join(noting.path("log").metadata().expect("there").ino().to_string());
    let (content, names) = (fs::read(&path).expect("read"), fs::read(noting.place.names()).expect("read"));
    // An unknown kind; the number zero; a size that no file has.
    for (at, value) in [(0, 9), (1, 0), (30, 255)] {
        let mut damaged = content.clone();
        damaged[at] = value;
        if at == 1 {
            damaged[1..9].fill(0);
        }
        fs::write(&path, &damaged).expect("written");
        let refused = lose(&noting.place, Crash::KeepNone, &mut Random::new(1));
        assert!(matches!(refused, Err(PowerError::Damaged { at: 0, .. })), "{at}: {refused:?}");
    }
    fs::write(&path, &content).expect("written");
    let last = names.len() - 1;
    for (at, value) in [(0, 9), (1, 3), (3, 255), (last, b'/')] {
        let mut damaged = names.clone();
        damaged[at] = value;
        fs::write(noting.place.names(), &damaged).expect("written");
        let refused = lose(&noting.place, Crash::KeepNone, &mut Random::new(1));
        assert!(matches!(refused, Err(PowerError::Damaged { at: 0, .. })), "{at}: {refused:?}");
    }
    fs::write(noting.place.names(), &names).expect("written");
    // What is on the disk is not what was recorded.
    File::options().append(true).open(noting.path("log")).expect("open").write_all(b"unseen").expect("written");
    let refused = lose(&noting.place, Crash::KeepNone, &mut Random::new(1));
    assert!(matches!(refused, Err(PowerError::Unrecorded { bytes: 7, .. })), "{refused:?}");
}

#[test]
fn a_record_has_a_largest_size() {
    let mut noting = Noting::new();
    noting.durable("file", &[0; 1 << 20]);
    let piece = vec![1; 1 << 20];
    for _ in 0..(LIMIT >> 20) + 2 {
        noting.write("file", 0, &piece);
        assert!(noting.record.bytes() < LIMIT + (2 << 20));
    }
    assert!(noting.record.bytes() < 4 << 20, "{}", noting.record.bytes());
    noting.lose(Crash::KeepNone, 1);
    assert_eq!(noting.files()[0].1, piece);
}
