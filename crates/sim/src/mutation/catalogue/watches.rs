//! Watches.

use super::{Mutant, remove, replace};

const HUB: &str = "crates/kv/src/watch/hub.rs";
const STREAM: &str = "crates/kv/src/watch/stream.rs";
const HISTORY: &str = "crates/kv/src/store/history.rs";

/// The mutants.
pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "WatchGapAtCompaction",
        origin: "60",
        breaks: "A watch whose next events are compacted goes on with the events that are left.",
        edits: &[replace(
            STREAM,
            "let is_lost = |watcher: &Watcher| ",
            "watcher.is_lagging && watcher.next < compact_revision",
            "watcher.is_lagging && watcher.next < compact_revision && compact_revision < 0",
        )],
    },
    Mutant {
        name: "WatchEventTwice",
        origin: "61",
        breaks: "A watch that lags reads events again that it has already sent.",
        edits: &[replace(
            STREAM,
            "watcher.next = ",
            "watcher.next.max(through.max(self.taken_through) + 1)",
            "watcher.next",
        )],
    },
    Mutant {
        name: "ProgressBeforeEvents",
        origin: "62",
        breaks: "Progress is told while a watch of the stream still reads history (etcd#15220).",
        edits: &[replace(STREAM, "if self.progress_wanted && ", "!self.is_lagging()", "true")],
    },
    Mutant {
        name: "FutureStartIgnored",
        origin: "watches",
        breaks: "A watch from a future revision gets earlier events (etcd#20221).",
        edits: &[replace(HUB, "live.is_some_and(|live| ", "event.revision() >= live.from", "live.from > 0")],
    },
    Mutant {
        name: "WatchEventsLostWhenSlow",
        origin: "watches",
        breaks: "The watches of a stream whose mailbox is full are forgotten (etcd#17529).",
        edits: &[remove(HUB, "", "mailbox.dropped.extend(watchers.keys().map(|watcher| (*watcher, through)));")],
    },
    Mutant {
        name: "WatchKeptOverSnapshot",
        origin: "watches",
        breaks: "After a snapshot was installed, a watch goes on without the events in between (etcd#15271).",
        edits: &[remove(HUB, "", "streams.iter().for_each(|stream| self.break_off(*stream));")],
    },
    Mutant {
        name: "WatchRevisionSplit",
        origin: "watches",
        breaks: "A portion of history ends in the middle of a revision.",
        edits: &[replace(HISTORY, "if ", "at.main > current", "at.main > current || counted")],
    },
    Mutant {
        name: "WatchPreviousKeyOfNow",
        origin: "watches",
        breaks: "The key before an event is that of the event itself.",
        edits: &[replace(HISTORY, "let at = ", "revision - 1", "revision")],
    },
];
