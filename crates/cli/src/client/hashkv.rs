//! `hashkv`: have all members the same state?

use bowline_client::Client;
use clap::Args;
use serde_json::{Value, json};

use super::output::{Format, OutputArgs, write_json};
use super::{Request, Table};
use crate::exit::Verdict;
use crate::out::{Out, remark};

#[derive(Args, Clone, Debug)]
#[command(after_help = "Members are asked one by one, so all must be named by --endpoints. Without --rev their states
are compared at the highest revision that all of them have.

Exit codes: 0 all the same, 1 not, or not all answer, 2 bad input.")]
pub(crate) struct HashKvArgs {
    /// At this revision [default: the highest that all have]
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..), hide_default_value = true)]
    rev: i64,
}

impl Request for HashKvArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Verdict> {
        let revision = match self.rev {
            0 => common_revision(client).await,
            revision => revision,
        };
        let all = client.hash_kv(revision).await;
        let mut hashes = Vec::new();
        let mut table = Table::new(&["ENDPOINT", "MEMBER", "REVISION", "COMPACTED", "HASH"]);
        let mut list = Vec::new();
        for (endpoint, answer) in &all {
            match answer {
                Ok(hash) => {
                    // Of states that are compacted differently the checksums differ too.
                    hashes.push((hash.hash, hash.compact_revision, hash.hash_revision));
                    let member = hash.header.map_or(0, |header| header.member_id);
                    let compacted = hash.compact_revision;
                    let text = format!("{:08x}", hash.hash);
                    list.push(json!({
                        "endpoint": endpoint, "member": member, "revision": hash.hash_revision,
                        "compact_revision": compacted, "hash": text,
                    }));
                    table.row([
                        endpoint.clone(),
                        member.to_string(),
                        hash.hash_revision.to_string(),
                        if compacted < 0 { "-".to_owned() } else { compacted.to_string() },
                        text,
                    ]);
                }
                Err(why) => {
                    list.push(json!({ "endpoint": endpoint, "error": why }));
                    table.row([endpoint.clone(), why.clone()]);
                }
            }
        }
        let same = hashes.windows(2).all(|pair| pair[0] == pair[1]);
        if output.format() == Format::Json {
            write_json(&json!({ "same": same, "members": Value::Array(list) }), out)?;
        } else {
            table.write(out)?;
            if !same {
                remark!("members differ");
            }
        }
        Ok(Verdict::of(same && hashes.len() == all.len()))
    }
}

/// The lowest latest revision; 0 if nobody answers.
async fn common_revision(client: &Client) -> i64 {
    let revisions = client.status().await.into_iter().filter_map(|(_, status)| status.ok()?.header);
    revisions.map(|header| header.revision).min().unwrap_or(0)
}
