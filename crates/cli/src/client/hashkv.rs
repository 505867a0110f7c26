//! The command `hashkv`: compares the states of all members.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb::HashKvResponse;
use bowline_client::Client;
use clap::Args;
use serde_json::{Value, json};

use super::output::{Format, OutputArgs, write_json};
use super::{Request, Table};
use crate::exit::Exit;
use crate::out::{Out, remark};

/// Time limit for a member to catch up with another one: the cluster may be taking writes meanwhile.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Pause before the members are asked again.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Args, Clone, Debug)]
#[command(after_help = "Compares the members that --endpoints lists, so list all of them. A member that has not \
reached the revision after 2 s is reported as behind.

Exit codes: 0 all members are equal; 1 members differ, are behind, or do not answer; 2 bad input.")]
pub(crate) struct HashKvArgs {
    /// Revision at which to compare [default: the highest that any member has]
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..), hide_default_value = true)]
    rev: i64,
}

/// The answer of one member.
enum Member {
    Hash(HashKvResponse),
    /// It has not reached the revision; this is the one that it has, and its id.
    Behind {
        revision: i64,
        id: u64,
    },
    Silent(String),
}

impl Request for HashKvArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let (revision, behind) = wait_for(client, self.rev).await;
        let members: Vec<(String, Member)> = client
            .hash_kv(revision)
            .await
            .into_iter()
            .map(|(endpoint, answer)| {
                let member = match (answer, behind.get(&endpoint)) {
                    (Ok(hash), _) => Member::Hash(hash),
                    (Err(_), Some(&(revision, id))) => Member::Behind { revision, id },
                    (Err(why), None) => Member::Silent(why),
                };
                (endpoint, member)
            })
            .collect();
        let hashes = members.iter().filter_map(|(_, member)| match member {
            // The checksum depends on the compaction, too.
            Member::Hash(hash) => Some((hash.hash, hash.compact_revision, hash.hash_revision)),
            _ => None,
        });
        let hashes: Vec<_> = hashes.collect();
        let equal = hashes.windows(2).all(|pair| pair[0] == pair[1]);
        let late = members.iter().any(|(_, member)| matches!(member, Member::Behind { .. }));
        let same = equal && !late;
        if output.format() == Format::Json {
            let list: Value = members.iter().map(|(endpoint, member)| member.json(endpoint, revision)).collect();
            write_json(&json!({ "same": same, "revision": revision, "members": list }), out)?;
        } else {
            let mut table = Table::new(&["ENDPOINT", "MEMBER", "REVISION", "COMPACTED", "HASH"]);
            members.iter().for_each(|(endpoint, member)| table.row(member.cells(endpoint)));
            table.write(out)?;
            if !equal {
                remark!("members differ");
            }
            for (endpoint, member) in &members {
                if let Member::Behind { revision: has, id } = member {
                    remark!(
                        "member {id} at {endpoint} is behind: it has revision {has}, another member has {revision}"
                    );
                }
            }
        }
        Ok(Exit::of(same && hashes.len() == members.len()))
    }
}

impl Member {
    fn json(&self, endpoint: &str, wanted: i64) -> Value {
        match self {
            Member::Hash(hash) => json!({
                "endpoint": endpoint, "member": hash.header.map_or(0, |header| header.member_id),
                "revision": hash.hash_revision, "compact_revision": hash.compact_revision,
                "hash": format!("{:08x}", hash.hash),
            }),
            Member::Behind { revision, id } => {
                json!({ "endpoint": endpoint, "member": id, "revision": revision, "behind": wanted - revision })
            }
            Member::Silent(why) => json!({ "endpoint": endpoint, "error": why }),
        }
    }

    fn cells(&self, endpoint: &str) -> Vec<String> {
        let endpoint = endpoint.to_owned();
        match self {
            Member::Hash(hash) => vec![
                endpoint,
                hash.header.map_or(0, |header| header.member_id).to_string(),
                hash.hash_revision.to_string(),
                if hash.compact_revision < 0 { "-".to_owned() } else { hash.compact_revision.to_string() },
                format!("{:08x}", hash.hash),
            ],
            Member::Behind { revision, id } => {
                vec![endpoint, id.to_string(), revision.to_string(), "-".to_owned(), "behind".to_owned()]
            }
            Member::Silent(why) => vec![endpoint, why.clone()],
        }
    }
}

/// Waits until all members that answer have reached `revision`; 0 means the highest that any of them has now. Returns
/// that revision, and for each endpoint that is behind its own revision and its member id.
async fn wait_for(client: &Client, revision: i64) -> (i64, BTreeMap<String, (i64, u64)>) {
    let (mut wanted, mut until) = (revision, None);
    loop {
        let headers = client.status().await.into_iter();
        let headers: Vec<_> = headers.filter_map(|(endpoint, status)| Some((endpoint, status.ok()?.header?))).collect();
        let highest = headers.iter().map(|(_, header)| header.revision).max().unwrap_or(0);
        if wanted == 0 {
            wanted = highest;
        }
        let late = headers.into_iter().filter(|(_, header)| header.revision < wanted);
        let late: BTreeMap<_, _> = late.map(|(at, header)| (at, (header.revision, header.member_id))).collect();
        // If no member has the revision, don't wait: the members' answers report that.
        if highest < wanted {
            return (wanted, BTreeMap::new());
        }
        // The time runs from the first answers on, so that every member is asked at least twice.
        if late.is_empty() || Instant::now() >= *until.get_or_insert_with(|| Instant::now() + CATCH_UP) {
            return (wanted, late);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
