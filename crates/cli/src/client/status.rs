//! The command `status`: shows the state of each member.

use bowline_api::etcdserverpb::StatusResponse;
use bowline_client::Client;
use clap::Args;
use serde_json::{Value, json};

use super::output::{Format, OutputArgs, human_size, write_json};
use super::{Request, Table, hex};
use crate::exit::Exit;
use crate::out::Out;

#[derive(Args, Clone, Debug)]
#[command(after_help = "LAG is the number of committed log entries that a member has not applied yet.

Exit codes: 0 every member answers and knows a leader; 1 not every member does; 2 bad input.")]
pub(crate) struct StatusArgs {}

impl Request for StatusArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let all = client.status().await;
        let known = all.iter().filter_map(|(_, status)| status.as_ref().ok());
        let committed = known.map(|status| status.raft_index).max().unwrap_or(0);
        let well = all.iter().all(|(_, status)| status.as_ref().is_ok_and(|status| status.leader != 0));
        if output.format() == Format::Json {
            let members: Vec<Value> =
                all.iter().map(|(endpoint, status)| member(endpoint, status, committed)).collect();
            write_json(&json!({ "healthy": well, "members": members }), out)?;
            return Ok(Exit::of(well));
        }
        let mut table = Table::new(&["ENDPOINT", "MEMBER", "ROLE", "TERM", "APPLIED", "LAG", "REVISION", "SIZE"]);
        for (endpoint, status) in &all {
            match status {
                Ok(status) => {
                    let header = status.header.unwrap_or_default();
                    table.row([
                        endpoint.clone(),
                        hex(header.member_id),
                        role(status).to_owned(),
                        status.raft_term.to_string(),
                        status.raft_applied_index.to_string(),
                        committed.saturating_sub(status.raft_applied_index).to_string(),
                        header.revision.to_string(),
                        human_size(status.db_size),
                    ]);
                }
                Err(why) => table.row([endpoint.clone(), "-".to_owned(), why.clone()]),
            }
        }
        table.write(out)?;
        Ok(Exit::of(well))
    }
}

fn role(status: &StatusResponse) -> &'static str {
    let id = status.header.map_or(0, |header| header.member_id);
    match status.leader {
        0 => "no leader",
        leader if leader == id => "leader",
        _ if status.is_learner => "learner",
        _ => "follower",
    }
}

fn member(endpoint: &str, status: &Result<StatusResponse, String>, committed: u64) -> Value {
    match status {
        Ok(status) => {
            let header = status.header.unwrap_or_default();
            json!({
                "endpoint": endpoint, "member": header.member_id, "role": role(status), "leader": status.leader,
                "term": status.raft_term, "commit_index": status.raft_index,
                "applied_index": status.raft_applied_index,
                "lag": committed.saturating_sub(status.raft_applied_index),
                "revision": header.revision, "size_bytes": status.db_size,
            })
        }
        Err(why) => json!({ "endpoint": endpoint, "error": why }),
    }
}
