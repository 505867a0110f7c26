//! The command `mirror`: keeps a part of another cluster equal to a part of this one.
//!
//! ```text
//! source ── pages at one revision ──▶ differences ──▶ destination        a copy: at first, and after a compaction
//! source ── events, by revision ────▶ one transaction each ──▶           following: from then on
//! ```
//!
//! The position (the last revision that was mirrored) is a key of the destination. Each transaction also writes it, if
//! nobody else has written it since. So it is right whatever fails at either end; a write whose outcome is unknown is
//! done once; and of two mirrors to the same place one gives up.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use anyhow::bail;
use bowline_client::{ClientError, WatchEvent, WatchItem, WatchRequest, Watcher};
use clap::Args;

use super::login::{DestLoginArgs, LoginArgs};
use super::tls::{DestTlsArgs, TlsArgs};
use super::{runtime, words};
use crate::exit::{Exit, NotDone};
use copy::copy;
use destination::Destination;
use mapping::Mapping;
use position::Position;
use report::{Remarks, Report, State};
use source::{Source, is_compacted};

mod copy;
mod destination;
mod mapping;
mod position;
mod report;
mod source;

/// How often the source is asked for its revision, to report the lag.
const LOOK: Duration = Duration::from_secs(1);

/// How many looks lie between two writes of the position while there is nothing to mirror.
const QUIET_LOOKS: u32 = 60;

#[derive(Args, Debug)]
#[command(
    after_help = "First copies the keys of FROM that begin with --prefix, all at one revision; then follows: each \
revision of FROM becomes one transaction at TO (several, if it has more than 127 events or a mebibyte). Runs until \
Ctrl-C, and goes on where it was when it is started again. The keys of TO that begin with --dest-prefix belong to the \
mirror: what FROM does not have is deleted there. So at the first start there must be none, or --overwrite.

The position is a key of TO, whose name begins with \\x00bowline-mirror. If FROM has compacted the history after it, \
mirror copies again, and writes only what differs.

Leases are not mirrored: mirrored keys have none, and are deleted when FROM deletes them. Revisions and versions at TO \
are its own.

Once a second, if something has changed, standard error tells how many revisions TO is behind.

Examples:
  bowline mirror 10.0.0.1:2379,10.0.0.2:2379 10.9.0.1:2379
  bowline mirror 10.0.0.1:2379 10.9.0.1:2379 --prefix app/ --dest-prefix copy/app/ --json

Exit codes: 1 refused, or another mirror writes there; 2 bad input."
)]
pub(crate) struct MirrorCommand {
    /// Addresses of members of the source, separated by commas.
    #[arg(value_name = "FROM")]
    source: String,
    /// Addresses of members of the destination, separated by commas.
    #[arg(value_name = "TO")]
    destination: String,
    /// Mirror the keys that begin with this [default: all keys]
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: OsString,
    /// Replace --prefix by this in each key; may be empty [default: keep the keys]
    #[arg(long, value_name = "PREFIX")]
    dest_prefix: Option<OsString>,
    /// Copy nothing; follow from this revision on.
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..), conflicts_with = "overwrite")]
    rev: Option<i64>,
    /// Replace what TO has under --dest-prefix, even if it is not a copy of FROM.
    #[arg(long)]
    overwrite: bool,
    /// Report in JSON, one object a line.
    #[arg(long)]
    json: bool,
    /// Time limit of a request, in seconds; requests are repeated.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=600), value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    dest_tls: DestTlsArgs,
    #[command(flatten)]
    login: LoginArgs,
    #[command(flatten)]
    dest_login: DestLoginArgs,
}

impl MirrorCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let client = |endpoints: &str, tls: &TlsArgs| {
            let endpoints: Vec<String> = endpoints.split(',').map(str::to_owned).collect();
            tls.client(&endpoints, Duration::from_secs(self.timeout))
        };
        // The same files and the same user, unless others are given.
        let dest_tls = self.dest_tls.clone().over(&self.tls);
        let login = self.login.credentials()?;
        let dest_login = self.dest_login.over(&login)?;
        let prefix = self.prefix.clone().into_vec();
        let dest = self.dest_prefix.clone().map_or_else(|| prefix.clone(), OsString::into_vec);
        let mapping = Mapping::new(prefix.into(), dest.into());
        let remarks = Remarks { json: self.json };
        let source = Source::new(login.apply(client(&self.source, &self.tls)?), remarks);
        let destination = dest_login.apply(client(&self.destination, &dest_tls)?);
        runtime()?.block_on(async {
            let destination = Destination::open(destination, remarks, &mapping).await?;
            let mut mirror = Mirror { source, destination, mapping, remarks, report: Report::new(remarks) };
            mirror.run(&self).await
        })
    }
}

/// A running mirror.
struct Mirror {
    source: Source,
    destination: Destination,
    mapping: Mapping,
    remarks: Remarks,
    report: Report,
}

impl Mirror {
    async fn run(&mut self, command: &MirrorCommand) -> anyhow::Result<Exit> {
        let mut done = self.begin(command).await?;
        loop {
            let from = match done {
                Some(done) => done,
                None => {
                    self.report.enter(State::Copying);
                    copy(&mut self.source, &mut self.destination, &self.mapping, &mut self.report).await?
                }
            };
            self.follow(from).await?;
            self.remarks.say("the source has compacted the history that comes next; copying again");
            done = None;
        }
    }

    /// Decides where to begin: after a revision that was mirrored, or with a copy.
    async fn begin(&mut self, command: &MirrorCommand) -> anyhow::Result<Option<i64>> {
        let (cluster, revision) = self.source.look().await?;
        let (same, mapping) = (cluster == self.destination.cluster(), &self.mapping);
        if same && mapping.overlaps() {
            bail!(
                "FROM and TO are the same cluster, and --prefix and --dest-prefix overlap, so each copy would be copied \
                 again; choose another --dest-prefix"
            );
        }
        let key = words::quoted(self.destination.key());
        let fresh = Position::new(cluster, mapping.prefix());
        let found = self.destination.position().cloned();
        self.destination.set(fresh.clone());
        match found {
            Some(found) if found.is_of(&fresh) => {
                if command.rev.is_some() {
                    bail!("--rev is given, but TO has a position already, in the key {key}; leave --rev out");
                }
                Ok(found.revision.filter(|done| *done <= revision))
            }
            Some(_) if !command.overwrite => bail!(
                "TO has the position of another source or --prefix, in the key {key}; choose another --dest-prefix, or \
                 replace that mirror with --overwrite"
            ),
            None if command.rev.is_some() => Ok(command.rev.map(|revision| revision - 1)),
            None if !command.overwrite && self.destination.count(mapping).await? > 0 => bail!(
                "TO has keys under --dest-prefix, which the mirror would replace; choose another --dest-prefix, or \
                 replace them with --overwrite"
            ),
            _ => Ok(None),
        }
    }

    /// Mirrors everything after a revision. Returns when the source has compacted what comes next.
    async fn follow(&mut self, mut done: i64) -> anyhow::Result<()> {
        self.report.enter(State::Following);
        self.report.done(done);
        let Some(mut watcher) = self.watch(done).await? else { return Ok(()) };
        let (mut looks, mut written) = (tokio::time::interval(LOOK), (done, 0));
        loop {
            let item = tokio::select! {
                item = watcher.next() => item,
                _ = looks.tick() => {
                    let revision = self.source.revision().await;
                    self.report.source(revision);
                    if revision.is_some_and(|revision| revision > done) {
                        watcher.request_progress();
                    }
                    written.1 += 1;
                    if written.1 >= QUIET_LOOKS && done > written.0 {
                        self.destination.write(Vec::new(), Some(done)).await?;
                        written = (done, 0);
                    }
                    continue;
                }
            };
            match item {
                Some(Ok(WatchItem::Events { revision, events })) => {
                    self.apply(done, revision, events).await?;
                    (done, written) = (revision, (revision, 0));
                }
                Some(Ok(WatchItem::Progress { revision })) => done = done.max(revision),
                Some(Ok(WatchItem::Lost { why })) => {
                    self.remarks.say(&format!("the source was lost: {why}; trying to resume"));
                }
                Some(Ok(WatchItem::Resumed { endpoint })) => {
                    self.remarks.say(&format!("following {endpoint}"));
                }
                Some(Ok(_)) => {}
                Some(Err(ClientError::Compacted { .. })) => return Ok(()),
                Some(Err(error)) => return Err(error.into()),
                None => bail!(NotDone("the watch of the source has ended".to_owned())),
            }
            self.report.done(done);
        }
    }

    /// Begins to watch after a revision; `None` if that is compacted.
    async fn watch(&mut self, done: i64) -> anyhow::Result<Option<Watcher>> {
        let (key, end) = self.mapping.source_range();
        let request = WatchRequest::range(key, end).start_revision(done + 1).report_connection().progress_notify();
        match self.source.watch(request).await {
            Ok(watcher) => Ok(Some(watcher)),
            Err(error) if is_compacted(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Mirrors the events of a revision.
    async fn apply(&mut self, done: i64, revision: i64, events: Vec<WatchEvent>) -> anyhow::Result<()> {
        let position = self.destination.key().clone();
        let ops = events.iter().filter_map(|event| self.mapping.operation(event, &position)).collect();
        let mut parts = mapping::parts(ops);
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            self.report.wrote(&part);
            // If it ends here, the whole revision is mirrored again, which gives the same.
            self.destination.write(part, Some(done)).await?;
        }
        self.report.wrote(&last);
        self.destination.write(last, Some(revision)).await
    }
}
