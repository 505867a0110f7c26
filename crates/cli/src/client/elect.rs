//! The command `elect`.

use std::ffi::OsString;
use std::io::Write;

use anyhow::Context;
use bowline_client::{Client, Election, KeyValue};
use clap::Args;

use super::hold::TtlArgs;
use super::lock::named;
use super::output::{Format, OutputArgs, Shown, pair, write_json, write_plain};
use super::{Notation, Request};
use crate::exit::Exit;
use crate::out::Out;

#[derive(Args, Clone, Debug)]
#[command(after_help = "Waits until this candidate is elected, prints its key and its value, and leads until Ctrl-C. \
Then it resigns, and the next candidate leads. If this program is killed, that happens when its lease ends.

With --listen, prints the key and the value of each leader, and of each value that it proclaims, until Ctrl-C.

`etcdctl elect` and the elections of etcd's Go package concurrency are the same elections.

Examples:
  bowline elect scheduler 10.0.0.7:80
  bowline elect --listen scheduler
  bowline elect -l scheduler --json     one line for each leader; create_revision is its fencing token

Exit codes: 0 resigned after Ctrl-C; 1 failed; 2 bad input; 75 the lease was lost; 128 plus its number if a signal ended \
the waiting.")]
pub(crate) struct ElectArgs {
    /// Name of the election.
    name: OsString,
    /// The value that this candidate proclaims as leader.
    #[arg(required_unless_present = "listen")]
    value: Option<OsString>,
    /// Print the leaders instead of being a candidate.
    #[arg(short, long, conflicts_with_all = ["value", "ttl"])]
    pub(super) listen: bool,
    #[command(flatten)]
    ttl: TtlArgs,
    #[command(flatten)]
    notation: Notation,
}

impl ElectArgs {
    fn print(&self, leader: &KeyValue, output: OutputArgs, out: &mut Out) -> std::io::Result<()> {
        match output.format() {
            Format::Json => write_json(&pair(leader, self.notation), out)?,
            Format::Raw => out.write_all(&leader.value)?,
            Format::Plain | Format::Table => {
                write_plain(std::slice::from_ref(leader), Shown::Both, self.notation, out)?;
            }
        }
        // A reader of the output must see it at once.
        out.flush()
    }
}

impl Request for ElectArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let election = Election::new(client, named(&self.name, self.notation)?);
        if self.listen {
            let mut observer = election.observe();
            loop {
                self.print(&observer.next().await?, output, out)?;
            }
        }
        let value = self.value.as_ref().context("VALUE is missing; allowed: elect NAME VALUE, or --listen")?;
        let value = self.notation.read("VALUE", value)?;
        let wait = async |lease| election.campaign(&lease, value).await;
        let mut reader = client.clone();
        let lead = async |held: &super::hold::Held<bowline_client::Leadership>| {
            let leader = reader.get(held.guard.key().clone()).await?;
            self.print(&leader.context("the leadership was lost at once: its key is gone")?, output, out)?;
            Ok(held.until_interrupted().await)
        };
        self.ttl.hold(client, wait, lead).await
    }
}
