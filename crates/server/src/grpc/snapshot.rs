//! Snapshot: sends the state as a database of etcd.
//!
//! The member first writes the file, from a view of its own state, and closes the view as soon as the file is complete:
//! so a client that reads slowly holds no view open. The file has no name, so the system frees it when it is closed, also
//! if the process is killed. There is one such file at a time; further calls wait. A client that takes nothing for a minute
//! loses its turn.

use std::io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bowline_api::etcdserverpb::SnapshotResponse;
use bowline_kv::store::{Authorized, BACKUP_VERSION, BackupOrigin, Dump, RedbRecords, Task};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::info;

use super::{Context, errors};
use crate::files::{self, File};

pub(super) type Blobs = ReceiverStream<Result<SnapshotResponse, Status>>;

/// Bytes of a blob, as in etcd.
const BLOB_BYTES: usize = 32 << 10;

/// Number of blobs that may wait for a slow client.
const AHEAD: usize = 8;

/// How long a client may take nothing.
const STALL: Duration = Duration::from_secs(60);

/// Bytes that the disk must have left when the file is complete, so that the member can go on.
const MARGIN_BYTES: u64 = 64 << 20;

/// How the names of the files begin, for the moment in which they have one.
const NAME: &str = "snapshot-";

/// Makes the temporary file names of one process unique.
static MADE: AtomicU64 = AtomicU64::new(0);

/// The member's part of Snapshot.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotSender {
    folder: PathBuf,
    /// Whose turn it is.
    turns: Arc<Semaphore>,
}

/// Stops the writing of a file whose client is gone.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl SnapshotSender {
    /// Its files are in the data folder.
    pub(crate) fn new(folder: &Path) -> SnapshotSender {
        // A killed process may have left a file whose name it had not removed yet.
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(NAME) {
                let _ = files::remove(&entry.path());
            }
        }
        SnapshotSender { folder: folder.to_owned(), turns: Arc::new(Semaphore::new(1)) }
    }

    /// Starts the stream.
    pub(super) fn start(&self, context: Context, permit: Authorized<Task>) -> Blobs {
        let (blobs, stream) = mpsc::channel(AHEAD);
        let sender = self.clone();
        tokio::spawn(async move {
            let sent = tokio::select! {
                sent = sender.send(&context, &permit, &blobs) => sent,
                () = blobs.closed() => return,
                status = context.stopped() => Err(status),
            };
            if let Err(status) = sent {
                // The client may be gone.
                let _ = blobs.send(Err(status)).await;
            }
        });
        ReceiverStream::new(stream)
    }

    async fn send(
        &self,
        context: &Context,
        permit: &Authorized<Task>,
        blobs: &mpsc::Sender<Result<SnapshotResponse, Status>>,
    ) -> Result<(), Status> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.expect("it is never closed");
        let (mut file, turn) = self.write(context, permit, turn).await?;
        let (mut hash, mut left) = (Sha256::new(), file.metadata().map_err(failed)?.len());
        let send = |remaining_bytes, blob| async move {
            let version = BACKUP_VERSION.to_owned();
            let response = SnapshotResponse { header: None, remaining_bytes, blob, version };
            match tokio::time::timeout(STALL, blobs.send(Ok(response))).await {
                Ok(sent) => sent.map_err(|_| Status::cancelled("etcdserver: request canceled")),
                Err(_) => Err(Status::deadline_exceeded("bowline: the client has taken nothing for 60 s")),
            }
        };
        while left > 0 {
            let mut blob = vec![0; BLOB_BYTES.min(usize::try_from(left).unwrap_or(BLOB_BYTES))];
            tokio::task::block_in_place(|| file.read_exact(&mut blob)).map_err(failed)?;
            hash.update(&blob);
            left -= blob.len() as u64;
            send(left, Bytes::from(blob)).await?;
        }
        send(0, Bytes::copy_from_slice(&hash.finalize())).await?;
        drop(turn);
        Ok(())
    }

    /// Writes the file, which begins to be read at its beginning. The turn ends with the file, whoever is still there.
    async fn write(
        &self,
        context: &Context,
        permit: &Authorized<Task>,
        turn: OwnedSemaphorePermit,
    ) -> Result<(File, OwnedSemaphorePermit), Status> {
        self.refuse_full_disk(context.replica.status().facts.db_size_in_use)?;
        let dump = context.replica.dump(permit).await.map_err(errors::of_request)?;
        let status = context.replica.status();
        let voters = status.membership.voters();
        let learners = status.membership.members().difference(&voters).map(|id| id.0).collect();
        let origin = BackupOrigin { term: status.term, voters: voters.iter().map(|id| id.0).collect(), learners };
        let stop = StopOnDrop(Arc::default());
        let (folder, stopped) = (self.folder.clone(), Arc::clone(&stop.0));
        let writing = tokio::task::spawn_blocking(move || (write(&folder, &dump, &origin, stopped), turn));
        let (written, turn) = writing.await.map_err(|error| Status::internal(format!("bowline: {error}")))?;
        let file = written.map_err(failed)?;
        info!(applied = status.applied_index, "wrote a snapshot for a client");
        Ok((file, turn))
    }

    /// Refuses a file that might fill the disk, which would make the member refuse writes.
    fn refuse_full_disk(&self, in_use: u64) -> Result<(), Status> {
        // If the free space is unknown, the write itself will find out.
        let Ok(disk) = rustix::fs::statvfs(&self.folder) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed = (in_use / 4).saturating_mul(5).saturating_add(MARGIN_BYTES);
        if free >= needed {
            return Ok(());
        }
        let (free, needed) = (free >> 20, needed.div_ceil(1 << 20));
        Err(Status::resource_exhausted(format!(
            "bowline: a snapshot needs {needed} MiB of free space in the data folder for a while, but {free} MiB are \
             free; make room, or ask another member"
        )))
    }
}

fn write(folder: &Path, dump: &Dump<RedbRecords>, origin: &BackupOrigin, stopped: Arc<AtomicBool>) -> io::Result<File> {
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("{NAME}{}-{number}", std::process::id()));
    let file = files::create(&path)?;
    files::remove(&path)?;
    let out = BufWriter::with_capacity(1 << 20, Until { file, stopped });
    let mut file = dump.write_backup(origin, out)?.into_inner().map_err(io::IntoInnerError::into_error)?.file;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// A file that can be written until somebody stops that.
struct Until {
    file: File,
    stopped: Arc<AtomicBool>,
}

impl Write for Until {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(io::Error::other("the client is gone"));
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Until {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

fn failed(error: io::Error) -> Status {
    let text = format!("bowline: can't write the snapshot: {error}");
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Status::resource_exhausted(text),
        _ => Status::unavailable(text),
    }
}
