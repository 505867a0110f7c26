//! Loses the power: undoes what was not synced, and does a random choice of it again.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bowline_raft::Random;
use bowline_storage::{Chooser, Crash, Keep, pieces};

use crate::entry::{Change, ChangeKind};
use crate::names::{Redo, drop_homeless, establish, locate, read};
use crate::record::Record;
use crate::{Place, PowerError, refused};

/// What a loss of power did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// What was to survive.
    pub crash: Crash,
    /// How many unsynced writes and resizes there were.
    pub writes: usize,
    /// How many of them were lost, in whole or in part.
    pub lost_writes: usize,
    /// How many unsynced changes of names there were.
    pub names: usize,
    /// How many of them were lost.
    pub lost_names: usize,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lost { crash, writes, lost_writes, names, lost_names } = self;
        write!(f, "{crash:?}: {lost_writes} of {writes} unsynced writes lost, {lost_names} of {names} names")
    }
}

/// A change of a file's content that can be done again.
enum Done {
    Write { offset: u64, data: Vec<u8> },
    Resize { bytes: u64 },
}

/// Puts the folder of a dead process into a state in which a loss of power may leave it: what was synced is there; of what
/// was not, `crash` and `random` decide what survives. What is there then is durable, so the record is empty. Without a
/// record, nothing is lost.
///
/// # Errors
/// The record is damaged, the folder was changed by a call that was not recorded, or the system refuses. The folder is
/// then of no use.
pub fn lose(place: &Place, crash: Crash, random: &mut Random) -> Result<Lost, PowerError> {
    let record = Record::open(place)?;
    let (changes, files) = record.into_changes()?;
    let now = read(&place.folder)?;
    let places = locate(place, &now, &changes);

    let mut names = now.clone();
    let mut redo: Vec<Redo<'_>> = changes.iter().rev().filter_map(|change| Redo::undo(change, &mut names)).collect();
    redo.reverse();
    let writes: usize = files.values().map(Vec::len).sum();
    let mut chooser = Chooser::new(crash, writes, redo.len(), random);
    let mut lost = Lost { crash, writes, lost_writes: 0, names: redo.len(), lost_names: 0 };
    for change in &redo {
        if chooser.keeps_name() {
            change.apply(&mut names);
        } else {
            lost.lost_names += 1;
        }
    }
    drop_homeless(&mut names);

    // In the order of all changes, so that a prefix is one in time, across files.
    let mut order: Vec<&Change> = files.values().flatten().collect();
    order.sort_by_key(|change| change.number);
    let keeps: BTreeMap<u64, Keep> =
        order.iter().map(|change| (change.number, chooser.begin_write(sectors(change.kind)))).collect();
    for (inode, changes) in &files {
        // A file without a name is gone with its process.
        if let Some(path) = places.get(inode) {
            lost.lost_writes += forget(path, changes, &keeps, &mut chooser)?;
        }
    }
    establish(place, &now, &names, &places)?;
    Record::open(place)?.clear()?;
    Ok(lost)
}

/// How many sectors a change touches: each may survive on its own.
fn sectors(kind: ChangeKind) -> usize {
    let sector = bowline_storage::SECTOR as u64;
    match kind {
        ChangeKind::Write { offset, length } => {
            usize::try_from((offset + length).div_ceil(sector) - offset / sector).expect("a write fits into memory")
        }
        ChangeKind::Resize { .. } => 1,
    }
}

/// Undoes all unsynced changes of a file's content, and does those again that survive. Returns how many did not, or not
/// as a whole.
fn forget(
    path: &Path,
    changes: &[Change],
    keeps: &BTreeMap<u64, Keep>,
    chooser: &mut Chooser<'_>,
) -> Result<usize, PowerError> {
    let file = File::options().read(true).write(true).open(path).map_err(refused("open", path))?;
    let mut redo = Vec::with_capacity(changes.len());
    for change in changes.iter().rev() {
        let bytes = file.metadata().map_err(refused("read", path))?.len();
        if bytes > change.before.max(change.kind.after(change.before)) {
            return Err(PowerError::Unrecorded { path: path.to_owned(), bytes });
        }
        redo.push((change.number, undo(&file, bytes, change).map_err(refused("restore", path))?));
    }
    let mut lost = 0;
    for (number, change) in redo.into_iter().rev() {
        let whole = again(&file, &change, keeps[&number], chooser).map_err(refused("restore", path))?;
        lost += usize::from(!whole);
    }
    Ok(lost)
}

/// Undoes a change of a file, which has `bytes` now. What it wrote is what stands in its place until then.
fn undo(file: &File, bytes: u64, change: &Change) -> io::Result<Done> {
    let done = match change.kind {
        ChangeKind::Write { offset, length } => {
            let length = bytes.min(offset + length).saturating_sub(offset);
            let mut data = vec![0; usize::try_from(length).expect("a write fits into memory")];
            file.read_exact_at(&mut data, offset)?;
            Done::Write { offset, data }
        }
        ChangeKind::Resize { .. } => Done::Resize { bytes },
    };
    file.set_len(change.before)?;
    let (from, _) = change.kind.replaces(change.before);
    file.write_all_at(&change.old, from)?;
    Ok(done)
}

/// Does a change again, as far as it survives. Returns whether that is all of it.
fn again(file: &File, change: &Done, keep: Keep, chooser: &mut Chooser<'_>) -> io::Result<bool> {
    let mut whole = true;
    match change {
        Done::Write { offset, data } => {
            for (at, (offset, piece)) in pieces(*offset, data).enumerate() {
                if keep.sector(at, chooser) {
                    file.write_all_at(piece, offset)?;
                } else {
                    whole = false;
                }
            }
        }
        Done::Resize { bytes } => {
            whole = keep.sector(0, chooser);
            if whole {
                file.set_len(*bytes)?;
            }
        }
    }
    Ok(whole)
}

#[cfg(test)]
mod tests;
