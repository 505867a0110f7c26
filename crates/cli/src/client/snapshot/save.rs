//! The command `snapshot save`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bowline_client::{Client, Snapshot};
use bowline_storage::private_options;
use clap::Args;
use sha2::{Digest, Sha256};

use super::file;
use crate::client::Request;
use crate::client::output::{Format, OutputArgs, human_size, write_json};
use crate::exit::{Exit, NotDone};
use crate::live::Live;
use crate::out::{Out, remark};

#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Only one member is asked, the first that can be reached. The snapshot has everything that was \
acknowledged before, or a remark says that the member has no leader. FILE appears when it is complete and verified.

Exit codes: 0 saved; 1 failed, and FILE is as it was; 2 bad input."
)]
pub(crate) struct SaveArgs {
    /// The file to save to.
    file: PathBuf,
    /// Replace FILE if it exists.
    #[arg(long)]
    force: bool,
}

impl Request for SaveArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        if !self.force && self.file.symlink_metadata().is_ok() {
            bail!("FILE is {}, which exists already; choose another name, or replace it with --force", self.place());
        }
        let snapshot = client.snapshot().await?;
        let endpoint = snapshot.endpoint().to_owned();
        if !snapshot.is_recent() {
            remark!("{endpoint} has no leader, so the snapshot may lack what was acknowledged last");
        }
        let mut part = Part::create(&self.file)?;
        receive(snapshot, &mut part).await?;
        let (backup, checked) = file::open(&part.path)?;
        if checked != file::Checked::Right {
            bail!(NotDone(format!("{endpoint} has sent no checksum; nothing was saved")));
        }
        let summary = backup.summary().context("the snapshot is not valid")?;
        part.finish(&self.file)?;
        out.done();
        if output.format() == Format::Json {
            let mut json = file::json(&summary);
            json["file"] = self.file.to_string_lossy().into();
            json["endpoint"] = endpoint.into();
            write_json(&json, out)?;
        } else {
            writeln!(out, "saved the state of {endpoint} to {}: {}", self.place(), file::text(&summary))?;
        }
        Ok(Exit::Passed)
    }
}

impl SaveArgs {
    fn place(&self) -> std::path::Display<'_> {
        self.file.display()
    }
}

/// Receives a snapshot, and compares its checksum.
async fn receive(mut snapshot: Snapshot, part: &mut Part) -> anyhow::Result<()> {
    let endpoint = snapshot.endpoint().to_owned();
    let mut live: Option<Live> = None;
    let (mut hash, mut last, mut received) = (Sha256::new(), None, 0);
    while let Some(message) = snapshot.next().await? {
        // The last message is the checksum of the others.
        if let Some(before) = last.replace(message.blob.clone()) {
            hash.update(&before);
        }
        received += message.blob.len() as u64;
        part.file.write_all(&message.blob).with_context(|| part.path.display().to_string())?;
        let total = received + message.remaining_bytes;
        let line = live.get_or_insert_with(|| {
            let live = Live::new(total, false);
            live.title("saving");
            live
        });
        let size = |bytes| human_size(i64::try_from(bytes).unwrap_or(i64::MAX));
        line.step(received, format!("{} of {}", size(received), size(total)));
    }
    if let Some(live) = live {
        live.end();
    }
    if last.is_none_or(|last| last != hash.finalize()[..]) {
        bail!(NotDone(format!("{endpoint}: the snapshot was damaged or cut off on its way; nothing was saved")));
    }
    Ok(())
}

/// The file until it is complete: beside its place, under another name. It is removed on drop.
struct Part {
    path: PathBuf,
    file: File,
    stays: bool,
}

impl Part {
    fn create(whole: &Path) -> anyhow::Result<Part> {
        let Some(name) = whole.file_name() else { bail!("FILE is {}, which is no file name", whole.display()) };
        let mut part = OsString::from(".");
        part.push(name);
        part.push(format!(".{}.part", std::process::id()));
        let path = whole.with_file_name(part);
        let file = private_options().write(true).create_new(true).open(&path);
        Ok(Part { file: file.with_context(|| path.display().to_string())?, path, stays: false })
    }

    /// Gives it its name, durably.
    fn finish(&mut self, whole: &Path) -> anyhow::Result<()> {
        let place = || whole.display().to_string();
        self.file.sync_all().with_context(place)?;
        fs::rename(&self.path, whole).with_context(place)?;
        self.stays = true;
        let folder = whole.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).with_context(place)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.stays {
            // It may be gone.
            let _ = fs::remove_file(&self.path);
        }
    }
}
