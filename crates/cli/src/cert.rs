//! `bowline cert` makes a CA and certificates for the members and clients of a cluster.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bowline_server::paste::quote;
use bowline_tls::issue::{Ca, Order, Role, Span, now, write};
use bowline_tls::{Facts, date, read_certificates};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::out::Out;

const EXAMPLES: &str = "Examples:
  bowline cert                                               for members on this machine
  bowline cert --hosts 10.0.0.1,10.0.0.2,db.example.org      one certificate for all members
  bowline cert --members a=10.0.0.1,b=10.0.0.2,c=10.0.0.3    one for each member
  bowline cert renew --days 90                               new certificates, the same CA
  bowline cert show certs/member.crt

Files: NAME.crt and NAME.key of each member and client, and ca.crt and ca.key. A CA that is there already signs what is \
made. Members reload files that change, without a restart. Whoever has ca.key can make certificates: keep it off the \
members.

Exit codes: 0 made or shown; 1 the certificate is not valid today, or a file can't be written; 2 bad input.";

/// For how many days a CA is valid, unless a certificate that it signs is valid longer.
const CA_DAYS: u32 = 3_650;

/// The name of the CA's files.
const CA: &str = "ca";

/// Most names of members or clients.
const MOST_NAMES: usize = 64;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct CertCommand {
    #[command(subcommand)]
    command: Option<CertSubcommand>,
    #[command(flatten)]
    make: MakeArgs,
}

#[derive(Subcommand, Debug)]
enum CertSubcommand {
    /// Makes all certificates of a folder anew, with the names that they have, signed by the same CA.
    Renew(RenewArgs),
    /// Shows what is in the certificates of a file.
    Show(ShowArgs),
}

#[derive(Args, Debug)]
struct MakeArgs {
    /// Folder of the files; created if it does not exist.
    #[arg(long, default_value = "certs", value_name = "FOLDER")]
    dir: PathBuf,
    /// Host names and IP addresses of all members, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = ["127.0.0.1".to_owned(), "localhost".to_owned()], value_name = "HOST")]
    hosts: Vec<String>,
    /// Names of members, each with its own certificate, separated by commas; NAME=HOST adds a host to --hosts.
    #[arg(long, value_delimiter = ',', default_values_t = ["member".to_owned()], value_name = "NAME[=HOST]")]
    members: Vec<String>,
    /// Names of clients, each with its own certificate, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = ["client".to_owned()], value_name = "NAME")]
    client: Vec<String>,
    /// For how many days the certificates are valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Replace certificates that are there already, but not the CA.
    #[arg(long)]
    force: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct RenewArgs {
    /// Folder of the files.
    #[arg(long, default_value = "certs", value_name = "FOLDER")]
    dir: PathBuf,
    /// For how many days the certificates are valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// A file with certificates, in PEM.
    file: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A certificate that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    /// The name of its files.
    file: String,
    /// The common name.
    name: String,
    hosts: Vec<String>,
    role: Role,
}

impl CertCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        match self.command {
            None => self.make.run(),
            Some(CertSubcommand::Renew(renew)) => renew.run(),
            Some(CertSubcommand::Show(show)) => show.run(),
        }
    }
}

impl MakeArgs {
    fn run(self) -> anyhow::Result<Exit> {
        let wanted = wanted(&self.hosts, &self.members, &self.client)?;
        let there: Vec<String> = wanted
            .iter()
            .flat_map(|wanted| paths(&self.dir, &wanted.file))
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .collect();
        if !there.is_empty() && !self.force {
            bail!(
                "{} is there already; --force replaces it, and `bowline cert renew` renews all certificates of a folder",
                there.join(", ")
            );
        }
        let ca = open(&self.dir, self.days)?;
        make(&ca, &self.dir, &wanted, self.days)?;
        tell(&self.dir, &wanted, self.json)
    }
}

/// Makes the certificates of a cluster on this machine in a folder, unless they are there.
pub(crate) fn make_local(dir: &Path) -> anyhow::Result<()> {
    let own = |text: &str| vec![text.to_owned()];
    let wanted = wanted(&["127.0.0.1".to_owned(), "localhost".to_owned()], &own("member"), &own("client"))?;
    if wanted.iter().flat_map(|wanted| paths(dir, &wanted.file)).all(|path| path.exists()) {
        return Ok(());
    }
    make(&open(dir, CA_DAYS)?, dir, &wanted, CA_DAYS)
}

/// The certificates that these arguments ask for.
fn wanted(hosts: &[String], members: &[String], clients: &[String]) -> anyhow::Result<Vec<Wanted>> {
    let (mut all, mut names) = (Vec::new(), BTreeSet::from([CA.to_owned()]));
    let members = members.iter().map(|member| match member.split_once('=') {
        None => (member.as_str(), None, Role::Member),
        Some((name, host)) => (name, Some(host), Role::Member),
    });
    let clients = clients.iter().map(|client| (client.as_str(), None, Role::Client));
    for (name, host, role) in members.chain(clients) {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if !plain || name.starts_with('.') || !(1..=64).contains(&name.len()) {
            bail!("{name:?} is no name of a certificate; allowed: 1 to 64 letters, digits, -, _ and . (not first)");
        }
        if !names.insert(name.to_owned()) {
            bail!("the name {name:?} is given twice, or is the CA's; allowed: each name once");
        }
        let mut own: Vec<String> = Vec::new();
        if role == Role::Member {
            own.extend(host.map(str::to_owned));
            own.extend(hosts.iter().map(|host| host.trim().to_owned()));
            own.dedup();
        }
        if let Some(bad) = own.iter().find(|host| !is_host(host)) {
            bail!("{bad:?} is no host; allowed: a host name or an IP address, without a port");
        }
        all.push(Wanted { file: name.to_owned(), name: name.to_owned(), hosts: own, role });
    }
    match all.len() > MOST_NAMES {
        true => bail!("there are {} names of members and clients; allowed: at most {MOST_NAMES}", all.len()),
        false => Ok(all),
    }
}

fn is_host(host: &str) -> bool {
    let named = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'*'));
    host.parse::<std::net::IpAddr>().is_ok() || ((1..=253).contains(&host.len()) && named)
}

/// The paths of a certificate and of its key.
fn paths(dir: &Path, name: &str) -> [PathBuf; 2] {
    ["crt", "key"].map(|end| dir.join(format!("{name}.{end}")))
}

/// The CA of a folder, which is made if it is not there.
fn open(dir: &Path, days: u32) -> anyhow::Result<Ca> {
    let [cert, key] = paths(dir, CA);
    match (cert.exists(), key.exists()) {
        (true, true) => return Ok(Ca::load(&cert, &key)?),
        (false, false) => {}
        (true, false) => bail!("{} is there, but {} is not: only with both can it sign", cert.display(), key.display()),
        (false, true) => bail!("{} is there, but {} is not: only with both can it sign", key.display(), cert.display()),
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("can't create {}", dir.display()))?;
    let ca = Ca::new(&format!("Bowline CA {}", date(now())), Span::days(CA_DAYS.max(days)))?;
    ca.pair().write(&cert, &key)?;
    Ok(ca)
}

fn make(ca: &Ca, dir: &Path, wanted: &[Wanted], days: u32) -> anyhow::Result<()> {
    for Wanted { file, name, hosts, role } in wanted {
        let pair = ca.issue(&Order { name, hosts, role: *role, span: Span::days(days) })?;
        let [cert, key] = paths(dir, file);
        // A member that reads them in between goes on with the earlier pair.
        write(&key, &pair.key)?;
        write(&cert, &pair.cert)?;
    }
    Ok(())
}

/// Tells what was made, and how it is used.
fn tell(dir: &Path, made: &[Wanted], json: bool) -> anyhow::Result<Exit> {
    let mut out = Out::lock();
    out.done();
    let text = |path: &Path| quote(path.as_os_str());
    let [ca, _] = paths(dir, CA);
    if json {
        let list = |role| {
            let of_role = made.iter().filter(|wanted| wanted.role == role).map(|wanted| {
                let [cert, key] = paths(dir, &wanted.file);
                json!({ "name": wanted.name, "hosts": wanted.hosts, "cert": cert, "key": key })
            });
            of_role.collect::<Value>()
        };
        let all = json!({ "ca": ca, "members": list(Role::Member), "clients": list(Role::Client) });
        writeln!(out, "{all}")?;
        out.flush()?;
        return Ok(Exit::Passed);
    }
    writeln!(out, "made in {}, signed by {}:", dir.display(), ca.display())?;
    for Wanted { file, hosts, role, .. } in made {
        let whom =
            if *role == Role::Member { format!("member, for {}", hosts.join(", ")) } else { "client".to_owned() };
        writeln!(out, "  {file}.crt, {file}.key    {whom}")?;
    }
    for wanted in made.iter().filter(|wanted| wanted.role == Role::Member) {
        let ([cert, key], ca) = (paths(dir, &wanted.file).map(|path| text(&path)), text(&ca));
        writeln!(out, "\nadd to `bowline serve` of {}:", wanted.name)?;
        writeln!(out, "  --cert-file {cert} --key-file {key} --trusted-ca-file {ca} \\")?;
        writeln!(out, "  --peer-cert-file {cert} --peer-key-file {key} --peer-trusted-ca-file {ca}")?;
    }
    if let Some(client) = made.iter().find(|wanted| wanted.role == Role::Client) {
        let ([cert, key], ca) = (paths(dir, &client.file).map(|path| text(&path)), text(&ca));
        writeln!(
            out,
            "\nclients:\n  export BOWLINE_CACERT={ca} BOWLINE_CERT={cert} BOWLINE_KEY={key}; bowline status"
        )?;
        writeln!(out, "  etcdctl --cacert {ca} --cert {cert} --key {key} endpoint health")?;
    }
    out.flush()?;
    Ok(Exit::Passed)
}

impl RenewArgs {
    fn run(self) -> anyhow::Result<Exit> {
        let [cert, key] = paths(&self.dir, CA);
        let ca = Ca::load(&cert, &key)?;
        let entries = self.dir.read_dir().with_context(|| format!("can't read {}", self.dir.display()))?;
        let mut names = BTreeSet::new();
        for entry in entries {
            let path = entry.with_context(|| format!("can't read {}", self.dir.display()))?.path();
            let name = path.file_stem().and_then(|name| name.to_str()).filter(|name| *name != CA);
            if let Some(name) = name.filter(|_| path.extension().is_some_and(|end| end == "crt"))
                && path.with_extension("key").exists()
            {
                names.insert(name.to_owned());
            }
        }
        let mut all = Vec::new();
        for file in names {
            let [path, _] = paths(&self.dir, &file);
            let facts = facts(&path)?.swap_remove(0);
            let role = if facts.for_servers { Role::Member } else { Role::Client };
            let name = facts.common_name.unwrap_or_else(|| file.clone());
            all.push(Wanted { file, name, hosts: facts.hosts, role });
        }
        if all.is_empty() {
            bail!("{} has no certificate with its key besides the CA", self.dir.display());
        }
        make(&ca, &self.dir, &all, self.days)?;
        tell(&self.dir, &all, self.json)
    }
}

/// What the certificates of a file say.
fn facts(path: &Path) -> anyhow::Result<Vec<Facts>> {
    let certificates = read_certificates(path)?;
    let all = certificates.iter().map(Facts::of).collect::<Option<Vec<Facts>>>();
    all.with_context(|| format!("{}: has a malformed certificate", path.display()))
}

impl ShowArgs {
    fn run(self) -> anyhow::Result<Exit> {
        let (all, now, mut out) = (facts(&self.file)?, now(), Out::lock());
        let is_valid = |facts: &Facts| (facts.not_before..=facts.not_after).contains(&now);
        if self.json {
            let list = all.iter().map(|facts| {
                json!({
                    "name": facts.common_name, "issuer": facts.issuer, "hosts": facts.hosts, "serial": facts.serial,
                    "not_before": date(facts.not_before), "not_after": date(facts.not_after),
                    "valid": is_valid(facts), "ca": facts.is_ca, "for_members": facts.for_servers,
                })
            });
            writeln!(out, "{}", list.collect::<Value>())?;
        }
        for facts in all.iter().filter(|_| !self.json) {
            let kind = match (facts.is_ca, facts.for_servers) {
                (true, _) => "CA",
                (false, true) => "member",
                (false, false) => "client",
            };
            let state = match now {
                now if now > facts.not_after => "EXPIRED",
                now if now < facts.not_before => "NOT VALID YET",
                _ => "valid",
            };
            let hosts = if facts.hosts.is_empty() { "none".to_owned() } else { facts.hosts.join(", ") };
            writeln!(out, "name     {}", facts.common_name.as_deref().unwrap_or("none"))?;
            writeln!(out, "kind     {kind}")?;
            writeln!(out, "hosts    {hosts}")?;
            writeln!(out, "issuer   {}", facts.issuer.as_deref().unwrap_or("none"))?;
            writeln!(out, "valid    {} to {}: {state}", date(facts.not_before), date(facts.not_after))?;
            writeln!(out, "serial   {}\n", facts.serial)?;
        }
        out.flush()?;
        Ok(Exit::of(all.iter().all(is_valid)))
    }
}
