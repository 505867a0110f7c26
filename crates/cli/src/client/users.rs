//! The commands `user ...`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use bowline_client::{Client, Password};
use clap::{ArgAction, Args, Subcommand};
use serde_json::{Value, json};

use super::login::{Named, ask_for_new, from_file};
use super::output::{Format, OutputArgs, write_json};
use super::{Notation, Once, Request, roles};
use crate::exit::Exit;
use crate::out::Out;

const EXAMPLES: &str = "Examples:
  bowline user add root                       asks for a password, twice
  bowline user grant-role root root           root may do everything
  bowline user add alice --new-password-file alice.txt
  bowline user grant-role alice app           alice may do what the role app may
  bowline user get alice --detail
  bowline user passwd alice
  bowline auth enable                         from now on, each command needs a user
  bowline get app/greeting --user alice

`bowline role --help` tells how a role gets its permissions. Once the users are enabled, only users with the role root may \
manage users; others may look at themselves.";

const CODES: &str = "Exit codes: 0 done; 1 refused, failed, outcome unknown, or done but not printed; 2 bad input.";

/// The commands for users.
#[derive(Subcommand, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) enum UserCommand {
    /// Adds a user.
    Add(Once<UserAddArgs>),
    /// Shows the roles of a user.
    Get(Once<UserGetArgs>),
    /// Lists the users.
    List(Once<UserListArgs>),
    /// Deletes a user.
    Delete(Once<UserDeleteArgs>),
    /// Changes the password of a user.
    Passwd(Once<UserPasswdArgs>),
    /// Gives a role to a user.
    GrantRole(Once<UserGrantRoleArgs>),
    /// Takes a role from a user.
    RevokeRole(Once<UserRevokeRoleArgs>),
}

impl UserCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            UserCommand::Add(command) => command.run(),
            UserCommand::Get(command) => command.run(),
            UserCommand::List(command) => command.run(),
            UserCommand::Delete(command) => command.run(),
            UserCommand::Passwd(command) => command.run(),
            UserCommand::GrantRole(command) => command.run(),
            UserCommand::RevokeRole(command) => command.run(),
        }
    }
}

/// Where a new password comes from; by default, the terminal is asked twice.
#[derive(Args, Clone, Debug)]
struct NewPasswordArgs {
    /// File whose first line is the new password; - is standard input [default: ask the terminal, twice]
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// The option of etcdctl: false means --new-password-file -.
    #[arg(long, hide = true, action = ArgAction::Set, default_value_t = true, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true")]
    interactive: bool,
}

impl NewPasswordArgs {
    fn read(&self, user: &str) -> anyhow::Result<Password> {
        match &self.new_password_file {
            Some(file) => from_file(file, "--new-password-file"),
            None if !self.interactive => from_file("-".as_ref(), "--new-password-file"),
            None => ask_for_new(user),
        }
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = CODES)]
pub(crate) struct UserAddArgs {
    /// Name of the new user. With :PASSWORD, as in etcdctl, others on this machine can see the password.
    #[arg(value_name = "NAME[:PASSWORD]")]
    name: Named,
    /// Add a user without a password, who can only log in with a certificate whose common name is NAME.
    #[arg(long, conflicts_with = "new_password_file")]
    no_password: bool,
    #[command(flatten)]
    new: NewPasswordArgs,
}

impl UserAddArgs {
    fn password(&self) -> anyhow::Result<Option<Password>> {
        let name = &self.name.name;
        match &self.name.password {
            _ if name.is_empty() => bail!("NAME is empty; allowed: at least one character"),
            Some(_) if self.no_password || self.new.new_password_file.is_some() => {
                bail!("NAME has a password already; leave :PASSWORD out, or the other option")
            }
            None if self.no_password => Ok(None),
            Some(password) if password.reveal().is_empty() => {
                bail!("the password after {name}: is empty; allowed: at least one character, or --no-password")
            }
            Some(password) => Ok(Some(password.clone())),
            None => self.new.read(name).map(Some),
        }
    }
}

impl Request for UserAddArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let name = &self.name.name;
        client.user_add(name, self.password()?).await?;
        told(&format!("User {name} created"), &json!({ "user": name, "change": "created" }), output, out)
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Exit codes: 0 printed; 1 no such user, refused, or no member answers; 2 bad input.")]
pub(crate) struct UserGetArgs {
    /// Name of the user.
    #[arg(value_name = "NAME")]
    name: String,
    /// Also show the permissions of each role.
    #[arg(long)]
    detail: bool,
    #[command(flatten)]
    notation: Notation,
}

impl Request for UserGetArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let roles = client.user_get(&self.name).await?;
        let mut details = Vec::new();
        if self.detail {
            for role in &roles {
                details.push((role, client.role_get(role).await?));
            }
        }
        if output.format() == Format::Json {
            let mut answer = json!({ "user": self.name, "roles": roles });
            if self.detail {
                let json = details.iter().map(|(role, permissions)| roles::json(role, permissions, self.notation));
                answer["details"] = json.collect();
            }
            write_json(&answer, out)?;
            return Ok(Exit::Passed);
        }
        writeln!(out, "User: {}\nRoles: {}", self.name, roles.join(" "))?;
        for (role, permissions) in &details {
            writeln!(out)?;
            roles::write(role, permissions, self.notation, out)?;
        }
        Ok(Exit::Passed)
    }
}

#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 printed, even if there are no users; 1 refused, or no member answers; 2 bad input."
)]
pub(crate) struct UserListArgs {}

impl Request for UserListArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        list("users", client.user_list().await?, output, out)
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = CODES)]
pub(crate) struct UserDeleteArgs {
    /// Name of the user.
    #[arg(value_name = "NAME")]
    name: String,
}

impl Request for UserDeleteArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        client.user_delete(&self.name).await?;
        let json = json!({ "user": self.name, "change": "deleted" });
        told(&format!("User {} deleted", self.name), &json, output, out)
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = CODES)]
pub(crate) struct UserPasswdArgs {
    /// Name of the user.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    new: NewPasswordArgs,
}

impl Request for UserPasswdArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        client.user_change_password(&self.name, self.new.read(&self.name)?).await?;
        told("Password updated", &json!({ "user": self.name, "change": "password" }), output, out)
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = CODES)]
pub(crate) struct UserGrantRoleArgs {
    /// Name of the user.
    user: String,
    /// Name of the role.
    role: String,
}

impl Request for UserGrantRoleArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let UserGrantRoleArgs { user, role } = self;
        client.user_grant_role(user, role).await?;
        let json = json!({ "user": user, "role": role, "change": "granted" });
        told(&format!("Role {role} is granted to user {user}"), &json, output, out)
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = CODES)]
pub(crate) struct UserRevokeRoleArgs {
    /// Name of the user.
    user: String,
    /// Name of the role.
    role: String,
}

impl Request for UserRevokeRoleArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let UserRevokeRoleArgs { user, role } = self;
        client.user_revoke_role(user, role).await?;
        let json = json!({ "user": user, "role": role, "change": "revoked" });
        told(&format!("Role {role} is revoked from user {user}"), &json, output, out)
    }
}

/// Says that something was changed.
pub(super) fn told(text: &str, json: &Value, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
    out.done();
    match output.format() {
        Format::Json => write_json(json, out)?,
        _ => writeln!(out, "{text}")?,
    }
    Ok(Exit::Passed)
}

/// Prints names, one a line.
pub(super) fn list(what: &str, names: Vec<String>, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
    match output.format() {
        Format::Json => write_json(&json!({ what: names }), out)?,
        _ => names.iter().try_for_each(|name| writeln!(out, "{name}"))?,
    }
    Ok(Exit::Passed)
}
