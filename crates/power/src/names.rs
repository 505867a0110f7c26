//! The names in a folder: as they are, as they were when they were last durable, and as a loss of power leaves them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use bowline_storage::private_options;

use crate::entry::{Gone, NameChange, NameKind};
use crate::{Place, PowerError, or_none, refused};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    Folder,
    File(u64),
    /// A file that was empty when it was removed by the change with this number.
    Empty(u64),
}

/// What each path stands for. A folder comes before what is in it.
pub(crate) type Names = BTreeMap<PathBuf, Node>;

/// Reads all names in a folder.
pub(crate) fn read(root: &Path) -> Result<Names, PowerError> {
    let mut names = Names::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let whole = root.join(&folder);
        let Some(entries) = or_none(fs::read_dir(&whole)).map_err(refused("list", &whole))? else { continue };
        for entry in entries {
            let entry = entry.map_err(refused("list", &whole))?;
            let metadata = entry.metadata().map_err(refused("read", &entry.path()))?;
            let path = folder.join(entry.file_name());
            if metadata.is_dir() {
                folders.push(path.clone());
                names.insert(path, Node::Folder);
            } else {
                names.insert(path, Node::File(metadata.ino()));
            }
        }
    }
    Ok(names)
}

/// A change of names that can be done again.
#[derive(Debug)]
pub(crate) enum Redo<'a> {
    Make(&'a Path, Node),
    Remove(&'a Path),
    Rename(&'a Path, &'a Path),
}

impl<'a> Redo<'a> {
    /// Undoes a change. Returns how to do it again; `None` if it was not done, because the process was killed before
    /// that.
    pub(crate) fn undo(change: &'a NameChange, names: &mut Names) -> Option<Redo<'a>> {
        let path = change.path.as_path();
        let gone = |gone: Gone| if gone.kept { Node::File(gone.inode) } else { Node::Empty(change.number) };
        match &change.kind {
            NameKind::Create | NameKind::MakeFolder => names.remove(path).map(|node| Redo::Make(path, node)),
            NameKind::RemoveFolder => Redo::removed(path, Node::Folder, names),
            NameKind::Remove(file) => Redo::removed(path, gone(*file), names),
            NameKind::Rename { to, inode, replaces } => {
                if names.contains_key(path) || names.get(to) != Some(&Node::File(*inode)) {
                    return None;
                }
                names.remove(to);
                names.extend(replaces.map(|file| (to.clone(), gone(file))));
                names.insert(path.to_owned(), Node::File(*inode));
                Some(Redo::Rename(path, to))
            }
        }
    }

    fn removed(path: &'a Path, node: Node, names: &mut Names) -> Option<Redo<'a>> {
        if names.contains_key(path) {
            return None;
        }
        names.insert(path.to_owned(), node);
        Some(Redo::Remove(path))
    }

    /// Does it again, as far as what it needs has survived.
    pub(crate) fn apply(&self, names: &mut Names) {
        match *self {
            Redo::Make(path, node) => {
                names.insert(path.to_owned(), node);
            }
            Redo::Remove(path) => {
                names.remove(path);
            }
            Redo::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.to_owned(), node);
                }
            }
        }
    }
}

/// Removes names without a folder.
pub(crate) fn drop_homeless(names: &mut Names) {
    let folders: BTreeSet<PathBuf> =
        names.iter().filter(|(_, node)| **node == Node::Folder).map(|(path, _)| path.clone()).collect();
    let has_home =
        |path: &Path| path.ancestors().skip(1).all(|above| above == Path::new("") || folders.contains(above));
    names.retain(|path, _| has_home(path));
}

/// Where each file is now: in the folder, or kept beside it.
pub(crate) fn locate(place: &Place, now: &Names, changes: &[NameChange]) -> BTreeMap<u64, PathBuf> {
    let kept = changes.iter().filter_map(|change| Some((change.number, change.gone().filter(|gone| gone.kept)?)));
    let kept = kept.map(|(number, gone)| (gone.inode, place.kept(number)));
    let named = now.iter().filter_map(|(path, node)| match node {
        Node::File(inode) => Some((*inode, place.folder.join(path))),
        Node::Folder | Node::Empty(_) => None,
    });
    kept.chain(named).collect()
}

/// Gives the folder the names `wanted` instead of `now`.
pub(crate) fn establish(
    place: &Place,
    now: &Names,
    wanted: &Names,
    places: &BTreeMap<u64, PathBuf>,
) -> Result<(), PowerError> {
    let differs = |one: &Names, other: &Names| -> Vec<(PathBuf, Node)> {
        let different = one.iter().filter(|(path, node)| other.get(*path) != Some(node));
        different.map(|(path, node)| (path.clone(), *node)).collect()
    };
    let (new, old) = (differs(wanted, now), differs(now, wanted));
    // First every file gets a second name: its first one may be taken from it before it has its right one.
    let staged = |at: usize| place.removed.join(format!("staged-{at}"));
    for (at, (_, node)) in new.iter().enumerate() {
        let to = staged(at);
        fs::create_dir_all(&place.removed).map_err(refused("create", &place.removed))?;
        or_none(fs::remove_file(&to)).map_err(refused("remove", &to))?;
        match node {
            Node::Folder => {}
            Node::Empty(_) => {
                drop(private_options().write(true).create(true).open(&to).map_err(refused("create", &to))?)
            }
            Node::File(inode) => match places.get(inode) {
                Some(from) => fs::hard_link(from, &to).map_err(refused("restore", from))?,
                None => unreachable!("file {inode} has a name in the folder, or is kept by a change of the record"),
            },
        }
    }
    // What is in a folder goes before the folder.
    for (path, node) in old.iter().rev() {
        let path = place.folder.join(path);
        let removed = if *node == Node::Folder { fs::remove_dir(&path) } else { fs::remove_file(&path) };
        removed.map_err(refused("remove", &path))?;
    }
    for (at, (path, node)) in new.iter().enumerate() {
        let path = place.folder.join(path);
        let made = match node {
            Node::Folder => DirBuilder::new().mode(0o700).create(&path),
            Node::File(_) | Node::Empty(_) => fs::rename(staged(at), &path),
        };
        made.map_err(refused("restore", &path))?;
    }
    Ok(())
}
