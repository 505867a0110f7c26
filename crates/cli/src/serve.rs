//! `bowline serve` runs one member of a cluster.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bowline_emulator::harness::Interrupts;
use bowline_server::config::{Layers, SETTINGS, ServerConfig};
use bowline_server::replica::StopReason;
use bowline_server::{Listeners, Server, folder};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use tracing::{error, info, warn};

use crate::exit::{Exit, NotDone};

mod log;

/// Interval between checks of the stop flag.
const LOOK: Duration = Duration::from_millis(20);

const EXAMPLES: &str = "Examples:
  bowline serve
  bowline serve --name b --data-dir /var/lib/bowline \\
      --initial-cluster a=10.0.0.1:2380,b=10.0.0.2:2380,c=10.0.0.3:2380 \\
      --listen-client 0.0.0.0:2379 --advertise-client 10.0.0.2:2379
  bowline serve --cert-file a.crt --key-file a.key --trusted-ca-file ca.crt      with TLS: bowline cert makes them
  BOWLINE_HEARTBEAT=50ms bowline serve --config bowline.toml --log-format json

Each setting is a flag (--data-dir), an environment variable (BOWLINE_DATA_DIR) or a key of \
the TOML file (data_dir = \"...\"). A flag overrides a variable, and a variable overrides the \
file. SIGTERM or Ctrl-C stops the member cleanly.

Exit codes: 0 stopped; 1 failed; 2 bad input.";

/// Runs one member of a cluster, which serves the etcd v3 API.
#[derive(Debug, Default)]
pub(crate) struct ServeCommand {
    config: Option<PathBuf>,
    flags: Vec<(&'static str, String)>,
    stop_at_eof: bool,
}

impl FromArgMatches for ServeCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<ServeCommand, clap::Error> {
        let mut command = ServeCommand::default();
        command.update_from_arg_matches(matches)?;
        Ok(command)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>("config").cloned();
        self.stop_at_eof = matches.get_flag("stop_at_eof");
        let given = SETTINGS
            .iter()
            .filter_map(|setting| matches.get_one::<String>(setting.key).map(|value| (setting.key, value.clone())));
        self.flags = given.collect();
        Ok(())
    }
}

impl Args for ServeCommand {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config").long("config").value_name("FILE").help("TOML file with settings");
        let stop = Arg::new("stop_at_eof").long("stop-at-eof").hide(true).action(ArgAction::SetTrue);
        let settings = SETTINGS.iter().map(|setting| {
            let arg = Arg::new(setting.key).long(setting.flag).help(setting.help);
            match setting.is_switch() {
                true => arg.value_name("BOOL").num_args(0..=1).require_equals(true).default_missing_value("true"),
                false => arg.value_name("VALUE"),
            }
        });
        command.arg(config.value_parser(clap::value_parser!(PathBuf))).args(settings).arg(stop).after_help(EXAMPLES)
    }

    fn augment_args_for_update(command: Command) -> Command {
        ServeCommand::augment_args(command)
    }
}

impl ServeCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let config = self.layers()?.check()?;
        let listen = |config: &ServerConfig| Ok(Listeners::bind(config)?);
        run_member(&config, self.stop_at_eof, &[], listen, |_| {})
    }

    /// The settings from the file, the environment and the flags.
    pub(crate) fn layers(&self) -> anyhow::Result<Layers> {
        let mut layers = Layers::new();
        if let Some(file) = &self.config {
            layers.add_file(file)?;
        }
        layers.add_environment(|name| std::env::var(name).ok());
        for (key, value) in &self.flags {
            layers.add_flag(key, value.clone());
        }
        Ok(layers)
    }

    /// Whether to stop when the process that started this one is gone.
    pub(crate) fn stops_at_eof(&self) -> bool {
        self.stop_at_eof
    }
}

/// Runs a member until it is told to stop or is removed. Logs `notes` first, gets its ports from `listen`, and calls
/// `watch` again and again while it runs.
pub(crate) fn run_member(
    config: &ServerConfig,
    stop_at_eof: bool,
    notes: &[String],
    listen: impl FnOnce(&ServerConfig) -> anyhow::Result<Listeners>,
    mut watch: impl FnMut(&Server),
) -> anyhow::Result<Exit> {
    let interrupts = Interrupts::watch().context("can't handle signals")?;
    bowline_server::raise_limit();
    log::start(config.log_format, config.log_level);
    for note in notes {
        warn!("{note}");
    }
    config.check_schemes()?;
    bowline_server::check_tls(config)?;
    let listeners = listen(config)?;
    let disk = folder::open(config)?;
    let failed = |why: String| {
        // Nothing that is not durable may be acknowledged, so the process ends here.
        error!(%why, "stopping at once");
        std::process::exit(1);
    };
    let server = Server::start(config, disk, listeners, failed)?;
    let scheme = if config.listen_client[0].is_https() { "https" } else { "http" };
    let client_address = format!("{scheme}://{}", server.client_address());
    info!(
        name = config.name,
        member = format_args!("{:x}", server.identity().replica.0),
        cluster = format_args!("{:016x}", server.identity().cluster),
        listen_peer = config.listen_peer,
        "listening for clients at {client_address}"
    );
    let stop = interrupts.flag();
    if stop_at_eof {
        watch_for_eof(Arc::clone(&stop));
    }
    let mut ready = false;
    while !stop.load(Ordering::Relaxed) && !server.is_removed() {
        // Scripts wait for this line before they send requests, which would be refused without a leader.
        if !ready && server.replica().status().leader.is_some() {
            ready = true;
            info!("ready to serve client requests at {client_address}");
        }
        watch(&server);
        std::thread::sleep(LOOK);
    }
    let removed = server.is_removed();
    info!("stopping");
    match server.stop() {
        StopReason::Told if removed => bail!(NotDone(format!(
            "stopped: this member was removed from the cluster, and its data in {} is of no more use",
            config.data_dir.display()
        ))),
        StopReason::Told => {
            info!("stopped; every acknowledged write is on disk");
            Ok(Exit::Passed)
        }
        StopReason::Failed(why) => bail!(NotDone(format!("stopped: {why}"))),
    }
}

/// Stops when the process that started this one is gone.
fn watch_for_eof(stop: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while std::io::stdin().read(&mut buffer).is_ok_and(|read| read > 0) {}
        stop.store(true, Ordering::Relaxed);
    });
}
