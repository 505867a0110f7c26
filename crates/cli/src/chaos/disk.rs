//! Faults of a member's disk: a small disk that is filled, and flipped bits.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::out::remark;
use anyhow::Context;
use bowline_emulator::Random;
use bowline_storage::SECTOR;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A small disk in memory.
pub(super) struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of `bytes` at `folder`. Needs the right to mount.
    pub(super) fn mount(folder: &Path, bytes: u64) -> anyhow::Result<SmallDisk> {
        fs::create_dir_all(folder)?;
        let options = CString::new(format!("size={bytes}")).expect("it holds no zero byte");
        mount("tmpfs", folder, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, &*options)?;
        Ok(SmallDisk { folder: folder.to_owned() })
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }

    /// Fills the disk to the last byte.
    pub(super) fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::create(self.filler()).context("can't fill the small disk")?;
        let mut piece = 1 << 20;
        while piece > 0 {
            if file.write_all(&vec![0x5a; piece]).is_err() {
                piece /= 4;
            }
        }
        Ok(())
    }

    pub(super) fn clear(&self) {
        // There is no file unless the disk was filled.
        let _ = fs::remove_file(self.filler());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.folder, UnmountFlags::DETACH) {
            remark!("can't unmount {}: {error}", self.folder.display());
        }
    }
}

/// Flips bits in the written part of the log of a stopped member. Returns where.
///
/// A segment begins with two checkpoints, of one sector each with so few members. Only the one in sector `checkpoint`,
/// 0 or 1, is ever damaged: a log whose last segment has lost both is refused, and its member does not start again.
pub(super) fn flip_bits(folder: &Path, bits: u64, checkpoint: u64, random: &mut Random) -> anyhow::Result<String> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder.join("log")).context("the member has no log")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            segments.push(path);
        }
    }
    segments.sort();
    // A young log has written less than a hundredth of its first segment: drawing from all sectors would miss that.
    let mut written = Vec::new();
    for path in &segments {
        let sectors = written_sectors(path).with_context(|| format!("can't read {}", path.display()))?;
        written.extend(sectors.into_iter().filter(|number| *number != 1 - checkpoint).map(|number| (path, number)));
    }
    let mut flipped = Vec::new();
    for _ in 0..bits {
        let (path, sector) = *random.pick(&written).context("the log of the member holds nothing but zeros")?;
        let at = sector * SECTOR as u64 + random.below(SECTOR as u64);
        flip_bit(path, at, random.below(8)).with_context(|| format!("can't damage {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        flipped.push(format!("{name} at byte {at}"));
    }
    Ok(flipped.join(", "))
}

/// The numbers of the sectors of a file that are not all zeros.
fn written_sectors(path: &Path) -> io::Result<Vec<u64>> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let sectors = file.get_ref().metadata()?.len() / SECTOR as u64;
    let mut sector = [0; SECTOR];
    let mut written = Vec::new();
    for number in 0..sectors {
        file.read_exact(&mut sector)?;
        if sector != [0; SECTOR] {
            written.push(number);
        }
    }
    Ok(written)
}

/// Flips one bit (0 to 7) of the byte at `at`.
fn flip_bit(path: &Path, at: u64, bit: u64) -> io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    byte[0] ^= 1 << bit;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&byte)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use bowline_raft::{Group, Membership, NodeId};
    use bowline_storage::{ClusterId, Identity, OpenError, Options, RealDisk, create, open};

    use super::*;

    #[test]
    fn damage_finds_the_one_written_sector_of_a_young_log() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        let segment = folder.path().join("log").join("0000000000000001.seg");
        let whole = 64 << 20;
        File::create(&segment).unwrap().set_len(whole).unwrap();
        let mut random = Random::stream(1, 2);
        let error = flip_bits(folder.path(), 1, 0, &mut random).unwrap_err();
        assert!(format!("{error:#}").contains("nothing but zeros"), "{error:#}");

        // One sector of 131,072.
        let mut file = File::options().write(true).open(&segment).unwrap();
        file.seek(SeekFrom::Start(1024)).unwrap();
        file.write_all(&[0xff; 512]).unwrap();
        let told = flip_bits(folder.path(), 1, 0, &mut random).unwrap();
        let bytes = fs::read(&segment).unwrap();
        assert_eq!(bytes.len(), whole as usize);
        let differ: Vec<usize> = (1024..1536).filter(|at| bytes[*at] != 0xff).collect();
        assert_eq!(told, format!("0000000000000001.seg at byte {}", differ[0]));
        assert_eq!((differ.len(), bytes[differ[0]].count_zeros()), (1, 1));
        assert!(bytes[..1024].iter().chain(&bytes[1536..]).all(|byte| *byte == 0));
    }

    /// A new log of one of nine members, the most that a run can have.
    fn newborn(folder: &Path) -> (RealDisk, Options) {
        let (disk, options) = (RealDisk::new(folder), Options::new(64 << 10, 4 << 10, 2));
        let founders = Membership::simple(Group::of_voters((1..=9).map(NodeId)));
        let identity = Identity { cluster: ClusterId(7), replica: NodeId(1), incarnation: 99 };
        create(&disk, &identity, Some(founders), &options).unwrap();
        (disk, options)
    }

    #[test]
    fn damage_leaves_a_log_one_of_its_two_checkpoints() {
        for checkpoint in [0, 1] {
            let folder = tempfile::tempdir().unwrap();
            let (disk, options) = newborn(folder.path());
            let told = flip_bits(folder.path(), 3, checkpoint, &mut Random::stream(1, 2)).unwrap();
            assert_eq!(told.matches(" at byte ").count(), 3, "{told}");
            let opened = open(&disk, ClusterId(7), NodeId(1), &options).unwrap();
            assert!(!opened.recovery.findings.is_empty(), "damage is told: {told}");
        }
        // A log that has lost both is refused.
        let folder = tempfile::tempdir().unwrap();
        let (disk, options) = newborn(folder.path());
        for checkpoint in [0, 1] {
            flip_bits(folder.path(), 3, checkpoint, &mut Random::stream(1, 2)).unwrap();
        }
        let refused = open(&disk, ClusterId(7), NodeId(1), &options).err();
        assert!(matches!(refused, Some(OpenError::LogLost { .. })), "{refused:?}");
    }
}
