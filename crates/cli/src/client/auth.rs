//! The commands `auth ...`.

use std::io::Write;

use bowline_client::Client;
use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{Format, OutputArgs, write_json};
use super::users::told;
use super::{Once, Request};
use crate::exit::Exit;
use crate::out::Out;

const EXAMPLES: &str = "Examples:
  bowline user add root                  first, a user root
  bowline user grant-role root root      with the role root
  bowline auth enable                    from now on, each command needs a user
  bowline auth disable --user root

`bowline user --help` and `bowline role --help` tell how other users get permissions.";

const CODES: &str = "Exit codes: 0 done; 1 refused, failed, outcome unknown, or done but not printed; 2 bad input.";

/// The commands that enable and disable the users.
#[derive(Subcommand, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) enum AuthCommand {
    /// Enables the users: each command needs one then.
    Enable(Once<AuthEnableArgs>),
    /// Disables the users: everybody may do everything. Users and roles are kept.
    Disable(Once<AuthDisableArgs>),
    /// Says whether the users are enabled.
    Status(Once<AuthStatusArgs>),
}

impl AuthCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            AuthCommand::Enable(command) => command.run(),
            AuthCommand::Disable(command) => command.run(),
            AuthCommand::Status(command) => command.run(),
        }
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = CODES)]
pub(crate) struct AuthEnableArgs {}

impl Request for AuthEnableArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        client.auth_enable().await?;
        told("Authentication Enabled", &json!({ "enabled": true }), output, out)
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = CODES)]
pub(crate) struct AuthDisableArgs {}

impl Request for AuthDisableArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        client.auth_disable().await?;
        told("Authentication Disabled", &json!({ "enabled": false }), output, out)
    }
}

#[derive(Args, Clone, Debug)]
#[command(
    after_help = "AuthRevision is the number of changes of users, roles and permissions so far, from 1. etcd has \
this command since 3.5.

Exit codes: 0 printed, also if they are disabled; 1 refused, or no member answers; 2 bad input."
)]
pub(crate) struct AuthStatusArgs {}

impl Request for AuthStatusArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let status = client.auth_status().await?;
        let (enabled, revision) = (status.enabled, status.revision);
        match output.format() {
            Format::Json => write_json(&json!({ "enabled": enabled, "authRevision": revision }), out)?,
            _ => writeln!(out, "Authentication Status: {enabled}\nAuthRevision: {revision}")?,
        }
        Ok(Exit::Passed)
    }
}
