//! The commands `alarm ...`.

use std::io::Write;

use bowline_api::etcdserverpb::{AlarmMember, AlarmType};
use bowline_client::Client;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::output::{Format, OutputArgs, write_json};
use super::{Once, Request};
use crate::exit::Exit;
use crate::out::Out;

const EXAMPLES: &str = "Examples:
  bowline alarm list      which member has no space (NOSPACE) or a state unlike the others (CORRUPT)
  bowline alarm disarm    deactivate all alarms, after their causes are gone

With NOSPACE, puts and new leases are refused. With CORRUPT, everything about keys and leases is \
refused. A member that reached --quota-backend-bytes takes its alarm back by itself when its state is smaller again.";

/// The commands for alarms.
#[derive(Subcommand, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) enum AlarmCommand {
    /// Lists the active alarms.
    List(Once<AlarmListArgs>),
    /// Deactivates all alarms.
    Disarm(Once<DisarmArgs>),
}

impl AlarmCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            AlarmCommand::List(command) => command.run(),
            AlarmCommand::Disarm(command) => command.run(),
        }
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Exit codes: 0 printed, even if there are no alarms; 1 no member answers; 2 bad input.")]
pub(crate) struct AlarmListArgs {}

impl Request for AlarmListArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let alarms = client.alarms().await?;
        print("alarms", &alarms, output, out)
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Prints the alarms that it deactivated.

Exit codes: 0 done, even if there were no alarms; 1 failed, outcome unknown, or done but not printed; 2 bad input.")]
pub(crate) struct DisarmArgs {}

impl Request for DisarmArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let mut disarmed = Vec::new();
        for alarm in client.alarms().await? {
            if client.disarm(alarm).await? {
                out.done();
                disarmed.push(alarm);
            }
        }
        print("disarmed", &disarmed, output, out)
    }
}

fn print(name: &str, alarms: &[AlarmMember], output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
    let kind = |alarm: &AlarmMember| AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |kind| kind.as_str_name());
    if output.format() == Format::Json {
        let json = |alarm: &AlarmMember| json!({ "member": alarm.member_id, "alarm": kind(alarm) });
        let list: Value = alarms.iter().map(json).collect();
        write_json(&json!({ name: list }), out)?;
    } else {
        // As etcdctl.
        let line = |alarm: &AlarmMember| writeln!(out, "memberID:{} alarm:{}", alarm.member_id, kind(alarm));
        alarms.iter().try_for_each(line)?;
    }
    Ok(Exit::Passed)
}
