//! Puts every mutant of the catalogue into the text of the sources, with a switch that selects it at run time.
//!
//! This module only transforms texts: the caller reads the files, writes them into a copy of the workspace, and builds
//! it. An edit finds its place by the text there, which must occur exactly once in the file. Several mutants may change
//! the same text; other overlaps are refused.

use std::collections::BTreeMap;

use super::{Edit, Kind, Mutant};

/// The placeholder for a mutant's switch in the text of a [`Kind::Patch`].
const PLACEHOLDER: &str = "MUTANT";

/// The source of the switch, a module of the core in the copy.
pub const CORE_SWITCH: &str = "//! Which mutant this process carries.

use std::sync::atomic::{AtomicUsize, Ordering};

static CHOSEN: AtomicUsize = AtomicUsize::new(0);

/// Chooses a mutant by its number; 0: none.
pub fn choose(number: usize) {
    CHOSEN.store(number, Ordering::SeqCst);
}

/// The number of the chosen mutant; 0: none.
#[must_use]
pub fn chosen() -> usize {
    CHOSEN.load(Ordering::Relaxed)
}

/// Whether this mutant is chosen.
#[must_use]
#[inline]
pub fn on(number: usize) -> bool {
    chosen() == number
}
";

/// The source that replaces this crate's `mutation/switch.rs` in the copy.
pub const SIM_SWITCH: &str = "//! Which mutant all replicas of this process carry, and what looks for it.

#[path = \"layers.rs\"]
mod built_in;

pub const BUILT_IN: bool = true;
pub use built_in::layers;

pub(super) use bowline_raft::switch::{choose, chosen};
";

/// Why the mutants can't be put into the sources.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// A file that a mutant changes can't be read.
    #[error("{mutant}: there is no file {file}: {reason}")]
    Unreadable {
        /// The mutant's name.
        mutant: &'static str,
        /// Relative to the workspace's folder.
        file: &'static str,
        /// Why it can't be read.
        reason: String,
    },
    /// The text that a mutant replaces is missing, or occurs more than once.
    #[error("{mutant}: {file} has {times} times, instead of once, the text that the mutant replaces: {text:?}")]
    NotOnce {
        /// The mutant's name.
        mutant: &'static str,
        /// Relative to the workspace's folder.
        file: &'static str,
        /// How often it occurs.
        times: usize,
        /// The text.
        text: String,
    },
    /// Two mutants change texts that overlap but are not the same.
    #[error("{one} and {other} change overlapping parts of {file}; make the parts disjoint or equal")]
    Overlap {
        /// A mutant's name.
        one: &'static str,
        /// Another's.
        other: &'static str,
        /// Relative to the workspace's folder.
        file: &'static str,
    },
    /// A file belongs to a crate that has no access to the switch.
    #[error("{mutant}: the crate of {file} has no access to the mutants' switch")]
    NoSwitch {
        /// The mutant's name.
        mutant: &'static str,
        /// Relative to the workspace's folder.
        file: &'static str,
    },
}

/// The bytes of a file that an edit replaces. Empty for an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    start: usize,
    end: usize,
}

/// All edits at one place of a file.
struct Place {
    /// Each edit with the name and the number of its mutant.
    edits: Vec<(&'static str, usize, Edit)>,
}

/// Puts `mutants` into the files that they change; the first has number 1. `read` gets a path relative to the
/// workspace's folder. Returns the new texts by their paths.
///
/// # Errors
/// A text is not found exactly once, or two mutants change overlapping texts.
pub fn with_mutants(
    mutants: &[&'static Mutant],
    read: impl Fn(&str) -> Result<String, String>,
) -> Result<BTreeMap<&'static str, String>, CopyError> {
    let mut texts: BTreeMap<&'static str, String> = BTreeMap::new();
    let mut places: BTreeMap<&'static str, BTreeMap<Span, Place>> = BTreeMap::new();
    for (number, mutant) in (1..).zip(mutants) {
        for edit in mutant.edits {
            if !texts.contains_key(edit.file) {
                let unreadable = |reason| CopyError::Unreadable { mutant: mutant.name, file: edit.file, reason };
                texts.insert(edit.file, read(edit.file).map_err(unreadable)?);
            }
            let span = find(&texts[edit.file], mutant.name, edit)?;
            let place = places.entry(edit.file).or_default().entry(span).or_insert(Place { edits: Vec::new() });
            place.edits.push((mutant.name, number, *edit));
        }
    }
    for (file, places) in &places {
        refuse_overlaps(file, places)?;
        let text = texts.get_mut(file).expect("it was read");
        for (span, place) in places.iter().rev() {
            text.replace_range(span.start..span.end, &place.text(file)?);
        }
    }
    Ok(texts)
}

fn find(text: &str, mutant: &'static str, edit: &Edit) -> Result<Span, CopyError> {
    let wanted = format!("{}{}", edit.after, edit.original);
    let times = text.matches(&wanted).count();
    if times != 1 {
        return Err(CopyError::NotOnce { mutant, file: edit.file, times, text: wanted });
    }
    let end = text.find(&wanted).expect("it occurs once") + wanted.len();
    Ok(Span { start: end - edit.original.len(), end })
}

fn refuse_overlaps(file: &'static str, places: &BTreeMap<Span, Place>) -> Result<(), CopyError> {
    for (span, place) in places {
        let (one, _, first) = place.edits[0];
        // The same text must not be changed in two ways that a switch can't separate.
        let same =
            |edit: &Edit| edit.kind == first.kind && (edit.kind == Kind::Branch || edit.mutated == first.mutated);
        if let Some((other, ..)) = place.edits.iter().find(|(_, _, edit)| !same(edit)) {
            return Err(CopyError::Overlap { one, other, file });
        }
        let crossing = places.iter().find(|(next, _)| *next > span && next.start < span.end);
        if let Some((_, next)) = crossing {
            return Err(CopyError::Overlap { one, other: next.edits[0].0, file });
        }
    }
    Ok(())
}

impl Place {
    /// The text that replaces the original.
    fn text(&self, file: &'static str) -> Result<String, CopyError> {
        let (mutant, _, first) = self.edits[0];
        let switch = switch_of(file).ok_or(CopyError::NoSwitch { mutant, file })?;
        let on = |number: usize| format!("{switch}({number})");
        if first.kind == Kind::Patch {
            let any: Vec<String> = self.edits.iter().map(|(_, number, _)| on(*number)).collect();
            return Ok(first.mutated.replace(PLACEHOLDER, &format!("({})", any.join(" || "))));
        }
        let branch = |(_, number, edit): &(_, usize, Edit)| format!("if {} {{ {} }}", on(*number), edit.mutated);
        let mut branches: Vec<String> = self.edits.iter().map(branch).collect();
        if !first.original.is_empty() {
            branches.push(format!("{{ {} }}", first.original));
        }
        let insertion = first.original.is_empty();
        Ok(branches.join(" else ") + if insertion { "\n" } else { "" })
    }
}

/// The function that tells whether a mutant is chosen, as seen from a file's crate.
fn switch_of(file: &str) -> Option<&'static str> {
    let (folder, _) = file.strip_prefix("crates/")?.split_once('/')?;
    match folder {
        "raft" => Some("crate::switch::on"),
        "node" | "storage" | "sim" => Some("bowline_raft::switch::on"),
        "kv" | "lan" | "member" => Some("bowline_node::raft::switch::on"),
        _ => None,
    }
}
