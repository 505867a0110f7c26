//! The worker of the snapshots: writes snapshots to files, sends pieces of them, restores states from received pieces,
//! and rewrites the state's file. It never holds a whole snapshot in memory, and a slow follower never delays the state.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bowline_kv::store::{Dump, RedbEngine, RedbRecords, RestoreError};
use bowline_node::raft::probe::{Probe, hit};
use bowline_node::raft::{Index, NodeId, Position, SnapshotHeader};
use bowline_node::{Job, NodeMessage, Piece, Report, SnapshotChunk, SnapshotTransfer};
use bowline_storage::{Arrival, Arriving, Disk, DiskError, SnapshotError, SnapshotReader, SnapshotWriter, Snapshots};
use bytes::Bytes;
use tracing::{error, info};

use crate::disk::StateDisk;
use crate::instruments::Instruments;
use crate::outlet::{Fatal, Outlet};
use crate::queue::Event;
use crate::rewriting::Rewriting;
use crate::shared::{Restored, Shared};
use crate::state_files::StateFiles;

/// So many accepted states may wait for the log. Each of them is a whole file.
const MAX_ACCEPTED: usize = 2;

/// A job for the worker.
pub enum SnapshotJob {
    /// Write this dump to a file, and keep the file ready for sending.
    Dump(SnapshotHeader, Box<Dump<RedbRecords>>),
    /// A job of the core about sending or receiving.
    Other(Job),
    /// Rewrite the state's file, in steps between other work.
    Rewrite,
    /// Drop the old file of the state.
    Drop(Box<RedbEngine>),
}

impl fmt::Debug for SnapshotJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotJob::Dump(header, _) => f.debug_tuple("Dump").field(header).finish(),
            SnapshotJob::Other(job) => f.debug_tuple("Other").field(job).finish(),
            SnapshotJob::Rewrite => f.write_str("Rewrite"),
            SnapshotJob::Drop(_) => f.write_str("Drop"),
        }
    }
}

/// The worker.
pub struct SnapshotWorker<D: StateDisk> {
    snapshots: Snapshots<D>,
    files: StateFiles<D>,
    arriving: Option<Arriving<D>>,
    shared: Arc<Shared<D>>,
    /// The snapshots that are ready for sending.
    ready: BTreeMap<Index, SnapshotReader<D::File>>,
    /// The running rewrite, if there is one.
    rewriting: Option<Rewriting<D>>,
    /// Whether the member is stopping, so that long work is given up.
    ending: Arc<AtomicBool>,
    instruments: Arc<dyn Instruments>,
}

impl<D: StateDisk> fmt::Debug for SnapshotWorker<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotWorker").field("files", &self.files).field("ready", &self.ready.keys()).finish()
    }
}

impl<D: StateDisk> Drop for SnapshotWorker<D> {
    fn drop(&mut self) {
        // Nobody will take a finished rewrite, so remove its file.
        self.shared.put_rewritten(None);
    }
}

impl<D: StateDisk> SnapshotWorker<D> {
    /// For a member that starts, with a snapshot that an earlier run had received in part. Once `ending` is set, long
    /// work is given up.
    pub fn new(
        snapshots: Snapshots<D>,
        files: StateFiles<D>,
        arriving: Option<Arriving<D>>,
        shared: Arc<Shared<D>>,
        ending: Arc<AtomicBool>,
        instruments: Arc<dyn Instruments>,
    ) -> SnapshotWorker<D> {
        let ready = BTreeMap::new();
        SnapshotWorker { snapshots, files, arriving, shared, ready, rewriting: None, ending, instruments }
    }

    /// Whether there is work without a job: a rewrite is under way.
    #[must_use]
    pub fn is_rewriting(&self) -> bool {
        self.rewriting.is_some()
    }

    /// Does a job, if there is one, and then a step of the running rewrite.
    ///
    /// # Errors
    /// The disk failed.
    pub fn work<R>(&mut self, job: Option<SnapshotJob>, outlet: &mut impl Outlet<R>) -> Result<(), Fatal> {
        if self.ending.load(Ordering::Relaxed) {
            self.rewriting = None;
            return Ok(());
        }
        if let Some(job) = job
            && let Some(report) = self.do_job(job, outlet)?
        {
            outlet.event(Event::Report(report));
        }
        self.rewrite();
        Ok(())
    }

    fn do_job<R>(&mut self, job: SnapshotJob, outlet: &mut impl Outlet<R>) -> Result<Option<Report>, Fatal> {
        Ok(match job {
            SnapshotJob::Dump(header, dump) => Some(self.dump(header, &dump)?),
            SnapshotJob::Rewrite => {
                match Rewriting::begin(&mut self.files, &self.shared) {
                    Ok(rewriting) => self.rewriting = Some(rewriting),
                    Err(given_up) => self.shared.put_rewritten(Some(Err(given_up))),
                }
                None
            }
            SnapshotJob::Drop(engine) => {
                drop(engine);
                None
            }
            SnapshotJob::Other(Job::Send { to, piece }) => self.send(to, piece, outlet),
            SnapshotJob::Other(Job::Release { index }) => self.release(index)?,
            SnapshotJob::Other(Job::Add { from, chunk }) => Some(self.add(from, &chunk)?),
            SnapshotJob::Other(Job::Restore { transfer, header }) => Some(self.restore(transfer, header)?),
            SnapshotJob::Other(other) => unreachable!("{other:?} is not for this worker"),
        })
    }

    /// Does a step of the running rewrite.
    fn rewrite(&mut self) {
        let Some(mut rewriting) = self.rewriting.take() else { return };
        match rewriting.step(&self.shared) {
            Ok(false) => self.rewriting = Some(rewriting),
            Ok(true) => self.shared.put_rewritten(Some(Ok(rewriting))),
            Err(given_up) => {
                // Remove its file before the failure is reported.
                drop(rewriting);
                self.shared.put_rewritten(Some(Err(given_up)));
            }
        }
    }

    fn dump(&mut self, header: SnapshotHeader, dump: &Dump<RedbRecords>) -> Result<Report, Fatal> {
        let began = self.instruments.stopwatch();
        let written = self.write(&header, dump);
        match written.and_then(|bytes| Ok((bytes, self.snapshots.open(header.position)?))) {
            Ok((bytes, reader)) => {
                self.instruments.dumped(self.instruments.stopwatch().saturating_sub(began));
                let position = header.position;
                info!(snapshot = %position, mib = bytes >> 20, "wrote a snapshot for a follower");
                self.ready.insert(position.index, reader);
                Ok(Report::Ready { header, bytes })
            }
            Err(error) if is_passing(&error) || self.ending.load(Ordering::Relaxed) => {
                error!(%error, "can't write a snapshot for a follower for now");
                Ok(Report::NotReady)
            }
            Err(error) => Err(Fatal(error.to_string())),
        }
    }

    fn write(&self, header: &SnapshotHeader, dump: &Dump<RedbRecords>) -> Result<u64, SnapshotError> {
        let mut out = Out { writer: self.snapshots.write(header)?, failed: None, ending: &self.ending };
        match dump.write_to(&mut out) {
            Ok(bytes) => out.writer.finish().map(|()| bytes),
            Err(error) => Err(out.failed.unwrap_or_else(|| unreadable(header.position, &error))),
        }
    }

    /// Sends a piece from the file.
    fn send<R>(&self, to: NodeId, piece: Piece, outlet: &mut impl Outlet<R>) -> Option<Report> {
        let index = piece.header.position.index;
        let read = self.ready.get(&index).map(|reader| reader.read_at(piece.offset, piece.length));
        match read {
            Some(Ok(data)) => {
                outlet.send(to, NodeMessage::Chunk(piece.filled(Bytes::from(data))));
                return None;
            }
            Some(Err(error)) => {
                hit(Probe::SnapshotUnreadable);
                error!(snapshot = %piece.header.position, %error, "can't send a snapshot");
            }
            // It is not kept ready any more. The core asks for another one.
            None => {}
        }
        Some(Report::Unreadable { index })
    }

    fn release(&mut self, index: Index) -> Result<Option<Report>, Fatal> {
        if let Some(reader) = self.ready.remove(&index) {
            self.snapshots.remove(reader.header().position).map_err(fatal)?;
        }
        Ok(None)
    }

    fn add(&mut self, from: NodeId, chunk: &SnapshotChunk) -> Result<Report, Fatal> {
        let transfer = chunk.transfer(from);
        let arrival = Arrival {
            from,
            term: chunk.term,
            session: chunk.session,
            header: chunk.header.clone(),
            total: chunk.total,
        };
        let received = self.try_add(arrival, chunk);
        match received {
            Ok(received) => Ok(Report::Added { transfer, received }),
            Err(error) if error.is_passing() => {
                error!(member = from.0, %error, "can't keep a snapshot from the leader for now");
                let received = self.arriving.as_ref().map_or(0, Arriving::received);
                Ok(Report::Added { transfer, received })
            }
            Err(error) => Err(fatal(error)),
        }
    }

    fn try_add(&mut self, arrival: Arrival, chunk: &SnapshotChunk) -> Result<u64, DiskError> {
        let current = self.arriving.as_ref().is_some_and(|arriving| *arriving.arrival() == arrival);
        if !current || chunk.offset == 0 {
            self.arriving = None;
            // The leader sends the first piece again later. No snapshot is of use before the log has caught up.
            if chunk.offset > 0 || self.shared.accepted() >= MAX_ACCEPTED {
                return Ok(0);
            }
            self.arriving = Some(self.snapshots.begin_arriving(arrival)?);
        }
        let Some(arriving) = &mut self.arriving else { return Ok(0) };
        if arriving.received() == chunk.offset {
            arriving.add(&chunk.data)?;
        }
        Ok(arriving.received())
    }

    fn restore(&mut self, transfer: SnapshotTransfer, header: SnapshotHeader) -> Result<Report, Fatal> {
        let arriving = self.arriving.take().filter(|arriving| {
            let Arrival { from, term, session, .. } = *arriving.arrival();
            SnapshotTransfer { from, term, session } == transfer
        });
        let Some(arriving) = arriving else { return Ok(Report::Restored { transfer, whole: false }) };
        self.instruments.restoring(true);
        let restored = self.files.restore(&header, &mut arriving.pieces());
        self.instruments.restoring(false);
        let whole = restored.is_ok();
        let from = transfer.from;
        self.instruments.received(from, whole);
        match restored {
            Ok(state) => {
                info!(member = from.0, snapshot = %header.position, "received a snapshot");
                self.shared.put_restored(Some(Restored { transfer, header, state }));
            }
            // The core asks for it again, from its start.
            Err(error @ (RestoreError::Invalid(_) | RestoreError::Read(_) | RestoreError::Engine(_))) => {
                error!(member = from.0, %error, "can't use the snapshot from the leader");
            }
        }
        arriving.remove().map_err(fatal)?;
        Ok(Report::Restored { transfer, whole })
    }
}

/// Writes a dump to a snapshot's file, until the replica stops.
struct Out<'a, D: Disk> {
    writer: SnapshotWriter<D>,
    failed: Option<SnapshotError>,
    ending: &'a AtomicBool,
}

impl<D: Disk> Write for Out<'_, D> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.ending.load(Ordering::Relaxed) {
            return Err(io::Error::other("the replica is stopping"));
        }
        match self.writer.put(data) {
            Ok(()) => Ok(data.len()),
            Err(error) => {
                let told = io::Error::other(error.to_string());
                self.failed = Some(error);
                Err(told)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_passing(error: &SnapshotError) -> bool {
    matches!(error, SnapshotError::Disk(error) if error.is_passing())
}

/// The error if the state itself can't be read.
fn unreadable(position: Position, error: &io::Error) -> SnapshotError {
    SnapshotError::Source { position, reason: error.to_string() }
}

fn fatal(error: DiskError) -> Fatal {
    Fatal(error.to_string())
}
