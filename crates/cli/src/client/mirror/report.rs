//! What a mirror says about itself, on standard error.

use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use pb::request_op::Request;
use serde_json::json;

use crate::out::remark;

/// Shortest time between two reports in the same state.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes remarks: as text, or as JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remarks {
    pub(super) json: bool,
}

impl Remarks {
    pub(super) fn say(self, text: &str) {
        if self.json {
            remark!("{}", json!({ "remark": text }));
        } else {
            remark!("{text}");
        }
    }
}

/// What a mirror is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Copying,
    Following,
}

/// The numbers of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Figures {
    state: State,
    /// The last revision that was mirrored.
    revision: i64,
    /// The latest known revision of the source.
    source: i64,
    puts: u64,
    deletions: u64,
}

pub(super) struct Report {
    remarks: Remarks,
    now: Figures,
    told: Option<(Figures, Instant)>,
}

impl Report {
    pub(super) fn new(remarks: Remarks) -> Report {
        let now = Figures { state: State::Copying, revision: 0, source: 0, puts: 0, deletions: 0 };
        Report { remarks, now, told: None }
    }

    pub(super) fn enter(&mut self, state: State) {
        self.now.state = state;
        self.tell();
    }

    /// Everything up to a revision is mirrored.
    pub(super) fn done(&mut self, revision: i64) {
        self.now.revision = revision;
        self.now.source = self.now.source.max(revision);
        self.tell();
    }

    /// The source has this revision, if it has answered.
    pub(super) fn source(&mut self, revision: Option<i64>) {
        self.now.source = revision.unwrap_or(self.now.source).max(self.now.revision);
        self.tell();
    }

    /// These writes are about to be done.
    pub(super) fn wrote(&mut self, ops: &[pb::RequestOp]) {
        let puts = ops.iter().filter(|op| matches!(op.request, Some(Request::RequestPut(_)))).count();
        self.now.puts += puts as u64;
        self.now.deletions += (ops.len() - puts) as u64;
        self.tell();
    }

    /// Reports if something has changed, but not too often.
    fn tell(&mut self) {
        if let Some((figures, at)) = self.told {
            let soon = figures.state == self.now.state && at.elapsed() < PAUSE;
            if figures == self.now || soon {
                return;
            }
        }
        self.told = Some((self.now, Instant::now()));
        let Figures { state, revision, source, puts, deletions } = self.now;
        let lag = source - revision;
        if self.remarks.json {
            let state = if state == State::Copying { "copying" } else { "following" };
            remark!(
                "{}",
                json!({
                    "state": state, "revision": revision, "source_revision": source, "lag": lag, "puts": puts,
                    "deletions": deletions,
                })
            );
        } else if state == State::Copying {
            remark!("copying: {puts} puts, {deletions} deletions");
        } else {
            remark!("at revision {revision}, {lag} behind: {puts} puts, {deletions} deletions");
        }
    }
}
