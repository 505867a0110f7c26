//! What can be done to a member's disk: a small one that is filled, and bits that are flipped.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bowline_lan::random::Random;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A sector of the log.
const SECTOR: u64 = 512;

/// How often a written sector is looked for.
const TRIES: usize = 400;

/// A disk in memory with little room.
pub(super) struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Puts one of so many bytes at `folder`. Needs rights that not everybody has.
    pub(super) fn mount(folder: &Path, bytes: u64) -> anyhow::Result<SmallDisk> {
        fs::create_dir_all(folder)?;
        let options = CString::new(format!("size={bytes}")).expect("it holds no zero byte");
        mount("tmpfs", folder, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, &*options)?;
        Ok(SmallDisk { folder: folder.to_owned() })
    }

    fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }

    /// Takes all room that is left.
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
        // It isn't there unless the disk was filled.
        let _ = fs::remove_file(self.filler());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.folder, UnmountFlags::DETACH) {
            anstream::eprintln!("{} is still mounted: {error}", self.folder.display());
        }
    }
}

/// Flips bits in what is written of the log of a member that doesn't run. Says where.
pub(super) fn flip_bits(folder: &Path, bits: u64, random: &mut Random) -> anyhow::Result<String> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder.join("log")).context("the member has no log")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            segments.push(path);
        }
    }
    segments.sort();
    let mut flipped = Vec::new();
    for _ in 0..bits {
        flipped.push(flip_bit(&segments, random)?);
    }
    Ok(flipped.join(", "))
}

fn flip_bit(segments: &[PathBuf], random: &mut Random) -> anyhow::Result<String> {
    for _ in 0..TRIES {
        let Some(path) = random.pick(segments) else { break };
        let mut file = File::options().read(true).write(true).open(path)?;
        let sectors = file.metadata()?.len() / SECTOR;
        let at = random.below(sectors) * SECTOR;
        let mut sector = [0; SECTOR as usize];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut sector)?;
        if sector.iter().all(|byte| *byte == 0) {
            continue;
        }
        let byte = random.below(SECTOR);
        sector[usize::try_from(byte).unwrap_or(0)] ^= 1 << random.below(8);
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&sector)?;
        file.sync_all()?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Ok(format!("{name} at byte {}", at + byte));
    }
    bail!("no written sector of the log was found")
}
