//! The commands `member ...` and `move-leader`.

use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use bowline_api::etcdserverpb::{Member, StatusResponse};
use bowline_client::Client;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::{Format, OutputArgs, write_json};
use super::{Once, Request, Table};
use crate::exit::{Exit, NotDone};
use crate::out::{Out, remark};

const EXAMPLES: &str = "Examples:
  bowline member list
  bowline member add http://10.0.0.4:2380         then, on 10.0.0.4: bowline join 10.0.0.1:2379
  bowline member replace c http://10.0.0.4:2380   the same, and removes c when the new member votes
  bowline member remove 8e9e05c52164694d

`bowline join` on the new machine does all of it: it adds the member, starts it, and, with --replace, removes the old \
one.

MEMBER is an id (hexadecimal), or a name that only one member has. A new member becomes a voter by itself when it has \
caught up, unless it was added with --learner.";

/// Pause between two looks at the members.
const LOOK: Duration = Duration::from_millis(500);

/// The commands for members.
#[derive(Subcommand, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) enum MemberCommand {
    /// Lists the members and what each is doing.
    List(Once<MemberListArgs>),
    /// Adds a member, which is to be started then.
    Add(Once<MemberAddArgs>),
    /// Removes a member.
    Remove(Once<MemberRemoveArgs>),
    /// Makes a learner a voter.
    Promote(Once<MemberPromoteArgs>),
    /// Changes the address of a member for other members.
    Update(Once<MemberUpdateArgs>),
    /// Adds a member, waits until it votes, and removes another one.
    Replace(Once<MemberReplaceArgs>),
}

impl MemberCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            MemberCommand::List(command) => command.run(),
            MemberCommand::Add(command) => command.run(),
            MemberCommand::Remove(command) => command.run(),
            MemberCommand::Promote(command) => command.run(),
            MemberCommand::Update(command) => command.run(),
            MemberCommand::Replace(command) => command.run(),
        }
    }
}

const CODES: &str = "Exit codes: 0 done; 1 refused, failed, outcome unknown, or done but not printed; 2 bad input.";

#[derive(Args, Clone, Debug)]
#[command(
    after_help = "STATE is leader, follower, learner, catching up (a new member that will vote), not started, or \
unreachable.

Exit codes: 0 every member serves; 1 not every member does; 2 bad input."
)]
pub(crate) struct MemberListArgs {}

#[derive(Args, Clone, Debug)]
#[command(after_help = CODES)]
pub(crate) struct MemberAddArgs {
    /// Address at which other members can reach it.
    #[arg(value_name = "PEER_URL")]
    peer_url: String,
    /// Receive everything, but don't vote before it is promoted.
    #[arg(long)]
    learner: bool,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = CODES)]
pub(crate) struct MemberRemoveArgs {
    /// Id or name of the member.
    member: String,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = CODES)]
pub(crate) struct MemberPromoteArgs {
    /// Id or name of the learner.
    member: String,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = CODES)]
pub(crate) struct MemberUpdateArgs {
    /// Id or name of the member.
    member: String,
    /// The new address.
    #[arg(value_name = "PEER_URL")]
    peer_url: String,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "If it is interrupted, run it again: it goes on where it was.

Exit codes: 0 done; 1 refused, failed, outcome unknown, or done but not printed; 2 bad input.")]
pub(crate) struct MemberReplaceArgs {
    /// Id or name of the member to remove.
    member: String,
    /// Address at which other members can reach the new one.
    #[arg(value_name = "PEER_URL")]
    peer_url: String,
}

#[derive(Args, Clone, Debug)]
#[command(after_help = CODES)]
pub(crate) struct MoveLeaderArgs {
    /// Id or name of the member that is to lead.
    member: String,
}

impl Request for MemberListArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let members = client.member_list(true).await?.members;
        let states = states(client, &members).await;
        let well = states.iter().all(|state| state.serves());
        if output.format() == Format::Json {
            let json = members.iter().zip(&states).map(|(member, state)| {
                json!({
                    "id": hex(member.id), "name": member.name, "state": state.text(), "learner": member.is_learner,
                    "peer_urls": member.peer_ur_ls, "client_urls": member.client_ur_ls,
                })
            });
            write_json(&json!({ "healthy": well, "members": json.collect::<Value>() }), out)?;
            return Ok(Exit::of(well));
        }
        let mut table = Table::new(&["ID", "NAME", "STATE", "PEERS", "CLIENTS"]);
        let address = |urls: &[String]| match urls {
            [] => "-".to_owned(),
            urls => urls.iter().map(|url| url.trim_start_matches("http://")).collect::<Vec<_>>().join(","),
        };
        for (member, state) in members.iter().zip(&states) {
            let name = if member.name.is_empty() { "-" } else { &member.name };
            let (peers, clients) = (address(&member.peer_ur_ls), address(&member.client_ur_ls));
            table.row([hex(member.id), name.to_owned(), state.text().to_owned(), peers, clients]);
        }
        table.write(out)?;
        Ok(Exit::of(well))
    }
}

/// What a member is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Leader,
    Follower,
    NoLeader,
    Learner,
    CatchingUp,
    NotStarted,
    Unreachable,
}

impl State {
    fn of(member: &Member, status: Option<&StatusResponse>) -> State {
        match status {
            _ if member.client_ur_ls.is_empty() && member.name.is_empty() => State::NotStarted,
            None => State::Unreachable,
            Some(status) if status.leader == member.id => State::Leader,
            Some(status) if status.is_learner && member.is_learner => State::Learner,
            Some(status) if status.is_learner => State::CatchingUp,
            Some(status) if status.leader == 0 => State::NoLeader,
            Some(_) => State::Follower,
        }
    }

    fn text(self) -> &'static str {
        match self {
            State::Leader => "leader",
            State::Follower => "follower",
            State::NoLeader => "no leader",
            State::Learner => "learner",
            State::CatchingUp => "catching up",
            State::NotStarted => "not started",
            State::Unreachable => "unreachable",
        }
    }

    fn serves(self) -> bool {
        matches!(self, State::Leader | State::Follower | State::Learner)
    }
}

/// What each member is doing, asked at its own addresses for clients.
async fn states(client: &Client, members: &[Member]) -> Vec<State> {
    let mut states = Vec::new();
    for member in members {
        let mut status = None;
        // An address that is no endpoint is as good as none.
        if let Ok(client) = client.elsewhere(&member.client_ur_ls, Duration::from_secs(2)) {
            let answers = client.status().await.into_iter();
            let own = |status: &StatusResponse| status.header.is_some_and(|header| header.member_id == member.id);
            status = answers.filter_map(|(_, answer)| answer.ok()).find(own);
        }
        states.push(State::of(member, status.as_ref()));
    }
    states
}

impl Request for MemberAddArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let url = member_url(client, &self.peer_url).await?;
        let added = client.member_add(std::slice::from_ref(&url), self.learner).await?;
        out.done();
        let id = added.member.map_or(0, |member| member.id);
        match output.format() {
            Format::Json => write_json(&json!({ "added": hex(id), "learner": self.learner }), out)?,
            _ => {
                writeln!(out, "added member {}", hex(id))?;
                remark!("  start it on its machine: {}", start(client, &url));
            }
        }
        Ok(Exit::Passed)
    }
}

/// The command that starts a member that was added.
fn start(client: &Client, url: &str) -> String {
    let endpoint = client.endpoints().next().unwrap_or("MEMBER").trim_start_matches("http://");
    format!("bowline join {endpoint} --peer {}", url.trim_start_matches("http://"))
}

impl Request for MemberRemoveArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let member = find(client, &self.member).await?;
        client.member_remove(member.id).await?;
        told("removed", member.id, output, out)
    }
}

impl Request for MemberPromoteArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let member = find(client, &self.member).await?;
        client.member_promote(member.id).await?;
        told("promoted", member.id, output, out)
    }
}

impl Request for MemberUpdateArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let url = member_url(client, &self.peer_url).await?;
        let member = find(client, &self.member).await?;
        client.member_update(member.id, &[url]).await?;
        told("updated", member.id, output, out)
    }
}

impl Request for MemberReplaceArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let url = member_url(client, &self.peer_url).await?;
        let old = find(client, &self.member).await?;
        let members = client.member_list(true).await?.members;
        let added = members.into_iter().find(|member| member.peer_ur_ls.contains(&url));
        if added.as_ref().is_some_and(|member| member.id == old.id) {
            bail!("PEER_URL is {url}, the address of the member to remove; allowed: the address of another one");
        }
        let id = match added {
            Some(member) => member.id,
            None => {
                let added = client.member_add(std::slice::from_ref(&url), false).await?;
                out.done();
                added.member.map_or(0, |member| member.id)
            }
        };
        remark!("member {} is to replace {}; start it on its machine: {}", hex(id), hex(old.id), start(client, &url));
        let mut told_state = None;
        loop {
            let members = client.member_list(true).await?.members;
            let Some(new) = members.iter().find(|member| member.id == id) else {
                bail!(NotDone(format!("member {} was removed meanwhile", hex(id))));
            };
            let state = states(client, std::slice::from_ref(new)).await[0];
            if told_state != Some(state) {
                remark!("  {}: {}", hex(id), state.text());
                told_state = Some(state);
            }
            if matches!(state, State::Leader | State::Follower) {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        client.member_remove(old.id).await?;
        out.done();
        match output.format() {
            Format::Json => write_json(&json!({ "added": hex(id), "removed": hex(old.id) }), out)?,
            _ => writeln!(out, "replaced member {} by {}", hex(old.id), hex(id))?,
        }
        Ok(Exit::Passed)
    }
}

impl Request for MoveLeaderArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let members = client.member_list(true).await?.members;
        let target = choose(&members, &self.member)?;
        let all = states(client, &members).await;
        let leader = members.iter().zip(all).find(|(_, state)| *state == State::Leader).map(|(member, _)| member);
        let Some(leader) = leader else {
            bail!(NotDone("the leader can't be found; `bowline member list` shows what the members do".to_owned()));
        };
        if leader.id != target.id {
            // Only the leader itself can do it.
            let mut of_leader = client.elsewhere(&leader.client_ur_ls, Duration::from_secs(10))?;
            of_leader.move_leader(target.id).await?;
        }
        told("leads", target.id, output, out)
    }
}

fn told(what: &str, id: u64, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
    out.done();
    match output.format() {
        Format::Json => write_json(&json!({ what: hex(id) }), out)?,
        _ if what == "leads" => writeln!(out, "member {} leads", hex(id))?,
        _ => writeln!(out, "{what} member {}", hex(id))?,
    }
    Ok(Exit::Passed)
}

/// A member's id for people: hexadecimal, as in etcd.
pub(crate) fn hex(id: u64) -> String {
    format!("{id:x}")
}

/// Checks an address for other members. Without a scheme, it gets that of the members.
async fn member_url(client: &mut Client, text: &str) -> anyhow::Result<String> {
    let url = peer_url(text, false)?;
    if text.contains("://") {
        return Ok(url);
    }
    let members = client.member_list(false).await?.members;
    let https = members.iter().flat_map(|member| &member.peer_ur_ls).any(|url| url.starts_with("https://"));
    peer_url(text, https)
}

/// Checks an address for other members, and completes it; `https` says with which scheme.
pub(crate) fn peer_url(text: &str, https: bool) -> anyhow::Result<String> {
    let url = bowline_server::config::Url::parse_with(text, https).filter(bowline_server::config::Url::can_be_reached);
    match url {
        Some(url) => Ok(url.to_string()),
        None => bail!(
            "PEER_URL is {text:?}; allowed: http://host:port, https://host:port or host:port that other members can reach"
        ),
    }
}

/// The member of this id or name.
pub(crate) async fn find(client: &mut Client, named: &str) -> anyhow::Result<Member> {
    let members = client.member_list(true).await?.members;
    choose(&members, named).cloned()
}

fn choose<'a>(members: &'a [Member], named: &str) -> anyhow::Result<&'a Member> {
    let known =
        || members.iter().map(|member| format!("{:x} {}", member.id, member.name)).collect::<Vec<_>>().join(", ");
    let by_name: Vec<&Member> = members.iter().filter(|member| member.name == named).collect();
    match by_name[..] {
        [member] => return Ok(member),
        [] => {}
        _ => bail!("MEMBER is {named:?}, which several members are called; allowed: an id ({})", known()),
    }
    let id = u64::from_str_radix(named.trim_start_matches("0x"), 16).ok();
    let by_id = members.iter().find(|member| Some(member.id) == id);
    by_id.ok_or_else(|| anyhow::anyhow!("MEMBER is {named:?}; allowed: an id or a name of {}", known()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str) -> Member {
        Member { id, name: name.to_owned(), ..Member::default() }
    }

    #[test]
    fn a_member_is_known_by_its_name_or_its_id() {
        let members = [member(0xab, "a"), member(0xc, "b"), member(3, "b")];
        let found = |named| choose(&members, named).map(|member| member.id).map_err(|error| error.to_string());
        assert_eq!((found("a"), found("ab"), found("0xc"), found("3")), (Ok(0xab), Ok(0xab), Ok(0xc), Ok(3)));
        let several = "MEMBER is \"b\", which several members are called; allowed: an id (ab a, c b, 3 b)";
        assert_eq!(found("b"), Err(several.to_owned()));
        let unknown = "MEMBER is \"zz\"; allowed: an id or a name of ab a, c b, 3 b";
        assert_eq!(found("zz"), Err(unknown.to_owned()));
    }

    #[test]
    fn a_state_is_what_a_member_says_of_itself() {
        let started = Member { client_ur_ls: vec!["http://a:1".to_owned()], ..member(7, "a") };
        let status = |leader, is_learner| StatusResponse { leader, is_learner, ..StatusResponse::default() };
        assert_eq!(State::of(&member(7, ""), None), State::NotStarted);
        assert_eq!(State::of(&started, None), State::Unreachable);
        assert_eq!(State::of(&started, Some(&status(7, false))), State::Leader);
        assert_eq!(State::of(&started, Some(&status(8, false))), State::Follower);
        assert_eq!(State::of(&started, Some(&status(0, false))), State::NoLeader);
        assert_eq!(State::of(&started, Some(&status(8, true))), State::CatchingUp);
        let learner = Member { is_learner: true, ..started };
        assert_eq!(State::of(&learner, Some(&status(8, true))), State::Learner);
    }

    #[test]
    fn addresses_are_completed_and_checked() {
        assert_eq!(peer_url("10.0.0.4:2380", false).expect("good"), "http://10.0.0.4:2380");
        for bad in ["", "host", "0.0.0.0:2380", "host:0", "ftp://host:1"] {
            assert!(peer_url(bad, false).expect_err(bad).to_string().starts_with("PEER_URL is"), "{bad}");
        }
    }
}
