//! The commands `role ...`.

use std::io::Write;

use anyhow::bail;
use bowline_client::{Access, Client, Keys, Permission};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::output::{Format, OutputArgs, key, write_json};
use super::users::{list, told};
use super::{Notation, Once, RangeArgs, Request, Table, words};
use crate::exit::Exit;
use crate::out::Out;

const EXAMPLES: &str = "Examples:
  bowline role add app
  bowline role grant-permission app readwrite app/ --prefix    all keys that begin with app/
  bowline role grant-permission app read config                one key
  bowline role grant-permission app read a c                   from a up to, but not including, c
  bowline role grant-permission app read '' --prefix           all keys
  bowline role get app
  bowline role revoke-permission app app/ --prefix
  bowline user grant-role alice app

The role root may do everything, and exists always.";

const CODES: &str = "Exit codes: 0 done; 1 refused, failed, outcome unknown, or done but not printed; 2 bad input.";

/// The commands for roles.
#[derive(Subcommand, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) enum RoleCommand {
    /// Adds a role, without permissions.
    Add(Once<RoleAddArgs>),
    /// Shows the permissions of a role.
    Get(Once<RoleGetArgs>),
    /// Lists the roles.
    List(Once<RoleListArgs>),
    /// Deletes a role, and takes it from all users.
    Delete(Once<RoleDeleteArgs>),
    /// Allows a role to read or write keys.
    GrantPermission(Once<GrantPermissionArgs>),
    /// Takes a permission from a role.
    RevokePermission(Once<RevokePermissionArgs>),
}

impl RoleCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self {
            RoleCommand::Add(command) => command.run(),
            RoleCommand::Get(command) => command.run(),
            RoleCommand::List(command) => command.run(),
            RoleCommand::Delete(command) => command.run(),
            RoleCommand::GrantPermission(command) => command.run(),
            RoleCommand::RevokePermission(command) => command.run(),
        }
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = CODES)]
pub(crate) struct RoleAddArgs {
    /// Name of the new role.
    role: String,
}

impl Request for RoleAddArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let role = &self.role;
        client.role_add(role).await?;
        told(&format!("Role {role} created"), &json!({ "role": role, "change": "created" }), output, out)
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = "Exit codes: 0 printed; 1 no such role, refused, or no member answers; 2 bad input.")]
pub(crate) struct RoleGetArgs {
    /// Name of the role.
    role: String,
    #[command(flatten)]
    notation: Notation,
}

impl Request for RoleGetArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let permissions = client.role_get(&self.role).await?;
        match output.format() {
            Format::Json => write_json(&json(&self.role, &permissions, self.notation), out)?,
            _ => write(&self.role, &permissions, self.notation, out)?,
        }
        Ok(Exit::Passed)
    }
}

#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 printed, even if there are no roles; 1 refused, or no member answers; 2 bad input."
)]
pub(crate) struct RoleListArgs {}

impl Request for RoleListArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        list("roles", client.role_list().await?, output, out)
    }
}

#[derive(Args, Clone, Debug)]
#[command(after_help = CODES)]
pub(crate) struct RoleDeleteArgs {
    /// Name of the role.
    role: String,
}

impl Request for RoleDeleteArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let role = &self.role;
        client.role_delete(role).await?;
        told(&format!("Role {role} deleted"), &json!({ "role": role, "change": "deleted" }), output, out)
    }
}

/// What a permission allows.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "lower")]
enum Allowed {
    Read,
    Write,
    ReadWrite,
}

#[derive(Args, Clone, Debug)]
// The keys come last.
#[command(mut_arg("key", |key| key.index(3)), mut_arg("range_end", |end| end.index(4)), after_help = CODES)]
pub(crate) struct GrantPermissionArgs {
    /// Name of the role.
    #[arg(index = 1)]
    role: String,
    /// What is allowed.
    #[arg(index = 2, value_enum)]
    access: Allowed,
    #[command(flatten)]
    range: RangeArgs,
}

impl Request for GrantPermissionArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let (role, keys) = (&self.role, keys(&self.range)?);
        let access = match self.access {
            Allowed::Read => Access::Read,
            Allowed::Write => Access::Write,
            Allowed::ReadWrite => Access::ReadWrite,
        };
        client.role_grant_permission(role, Permission { access, keys }).await?;
        told(&format!("Role {role} updated"), &json!({ "role": role, "change": "granted" }), output, out)
    }
}

#[derive(Args, Clone, Debug)]
// As above.
#[command(mut_arg("key", |key| key.index(2)), mut_arg("range_end", |end| end.index(3)), after_help = CODES)]
pub(crate) struct RevokePermissionArgs {
    /// Name of the role.
    #[arg(index = 1)]
    role: String,
    #[command(flatten)]
    range: RangeArgs,
}

impl Request for RevokePermissionArgs {
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit> {
        let (role, keys) = (&self.role, keys(&self.range)?);
        client.role_revoke_permission(role, &keys).await?;
        let text = format!("Permission of {} is revoked from role {role}", shown(&keys, self.range.notation));
        told(&text, &json!({ "role": role, "change": "revoked" }), output, out)
    }
}

/// The selected keys.
fn keys(range: &RangeArgs) -> anyhow::Result<Keys> {
    let (key, range_end) = range.bounds(Notation::default())?;
    match Keys::of(key, range_end) {
        // etcd 3.4 accepts it, but it allows nothing.
        Keys::Range(key, end) if end <= key => bail!(
            "RANGE_END is {}, which is not after KEY, {}; allowed: a later key, or --prefix or --from-key without it",
            words::quoted(&end),
            words::quoted(&key)
        ),
        keys => Ok(keys),
    }
}

fn access(permission: &Permission) -> &'static str {
    match permission.access {
        Access::Read => "read",
        Access::Write => "write",
        Access::ReadWrite => "readwrite",
    }
}

/// The keys of a permission, for people.
fn shown(keys: &Keys, notation: Notation) -> String {
    let word = |key: &bytes::Bytes| notation.write(key).unwrap_or_else(|| words::as_word(key));
    match keys {
        Keys::One(key) => format!("key {}", word(key)),
        Keys::Range(key, end) => format!("range [{}, {})", word(key), word(end)),
        Keys::Prefix(prefix) if prefix.is_empty() => "all keys".to_owned(),
        Keys::Prefix(prefix) => format!("prefix {}", word(prefix)),
        Keys::From(key) => format!("keys from {} on", word(key)),
    }
}

/// A role as text.
pub(super) fn write(role: &str, permissions: &[Permission], notation: Notation, out: &mut Out) -> std::io::Result<()> {
    if permissions.is_empty() {
        let may = if role == "root" { "may do everything" } else { "has no permissions" };
        return writeln!(out, "Role {role} {may}");
    }
    writeln!(out, "Role {role}")?;
    let mut table = Table::new(&["ACCESS", "KEYS"]);
    for permission in permissions {
        table.row([access(permission).to_owned(), shown(&permission.keys, notation)]);
    }
    table.write(out)
}

/// A role as JSON.
pub(super) fn json(role: &str, permissions: &[Permission], notation: Notation) -> Value {
    let permission = |permission: &Permission| {
        let (first, end) = permission.keys.bounds();
        let mut json = key(&first, notation);
        json["permType"] = access(permission).to_uppercase().into();
        let end = key(&end, notation);
        json["range_end"] = end["key"].clone();
        if let Some(encoding) = end.get("key_encoding") {
            json["range_end_encoding"] = encoding.clone();
        }
        json["keys"] = match permission.keys {
            Keys::One(_) => "key",
            Keys::Range(..) => "range",
            Keys::Prefix(_) => "prefix",
            Keys::From(_) => "from-key",
        }
        .into();
        json
    };
    json!({ "role": role, "perm": permissions.iter().map(permission).collect::<Value>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_shown_by_their_kind() {
        let all = [
            (Keys::One("k".into()), "key k", "key"),
            (Keys::Range("a".into(), "c d".into()), r#"range [a, "c d")"#, "range"),
            (Keys::Prefix("app/".into()), "prefix app/", "prefix"),
            (Keys::Prefix("".into()), "all keys", "prefix"),
            (Keys::From("k".into()), "keys from k on", "from-key"),
        ];
        for (keys, text, kind) in all {
            assert_eq!(shown(&keys, Notation::default()), text);
            let json = json("r", &[Permission { access: Access::ReadWrite, keys }], Notation::default());
            let permission = &json["perm"][0];
            assert_eq!((&permission["keys"], &permission["permType"]), (&kind.into(), &"READWRITE".into()));
        }
        let odd = [Permission { access: Access::Read, keys: Keys::Prefix(bytes::Bytes::from_static(b"\xfe")) }];
        let odd = json("r", &odd, Notation::default());
        assert_eq!((&odd["perm"][0]["key"], &odd["perm"][0]["key_encoding"]), (&"/g==".into(), &"base64".into()));
        assert_eq!(odd["perm"][0]["range_end_encoding"], "base64");
    }
}
