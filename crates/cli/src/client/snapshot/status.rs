//! The command `snapshot status`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::file::{self, Checked};
use crate::client::Table;
use crate::client::output::{Format, OutputArgs, human_size, write_json};
use crate::exit::Exit;
use crate::out::Out;

#[derive(Args, Debug)]
#[command(
    after_help = "HASH and KEYS are over all buckets of the file, as in etcdutl. SHA256 is `right`, or `none` for a \
file without a checksum, such as the file `db` of etcd's data folder.

Exit codes: 0 the file is whole; 2 it is damaged, or no snapshot."
)]
pub(crate) struct StatusCommand {
    /// The file.
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

impl StatusCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let (backup, checked) = file::open(&self.file)?;
        let summary = backup.summary().with_context(|| self.file.display().to_string())?;
        let sha256 = if checked == Checked::Right { "right" } else { "none" };
        let mut out = Out::lock();
        if self.output.format() == Format::Json {
            let mut json = file::json(&summary);
            json["sha256"] = json!(sha256);
            write_json(&json, &mut out)?;
        } else {
            let mut table = Table::new(&["HASH", "REVISION", "KEYS", "SIZE", "VERSION", "SHA256"]);
            table.row([
                format!("{:08x}", summary.hash),
                summary.revision.to_string(),
                summary.total_keys.to_string(),
                human_size(i64::try_from(summary.total_bytes).unwrap_or(i64::MAX)),
                summary.version,
                sha256.to_owned(),
            ]);
            table.write(&mut out)?;
        }
        out.flush()?;
        Ok(Exit::Passed)
    }
}
