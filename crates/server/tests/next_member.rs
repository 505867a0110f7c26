//! A member of the next version: what `bowline serve` is of this one, with its settings from the environment alone.
//! Stops in good order when its standard input ends.

use std::io::Read;

use bowline_server::config::Layers;
use bowline_server::journal::{Journal, Level};
use bowline_server::{Listeners, Server, folder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut layers = Layers::new();
    layers.add_environment(|name| std::env::var(name).ok());
    let config = layers.check()?;
    let journal = Journal::stderr(Level::Info);
    let listeners = Listeners::bind(&config)?;
    let disk = folder::open(&config, &journal)?;
    let failures = journal.clone();
    let failed = move |why: String| {
        failures.error(format_args!("stopped at once: {why}"));
        std::process::exit(1);
    };
    let server = Server::start(&config, disk, listeners, &journal, failed)?;
    let mut buffer = [0; 64];
    while std::io::stdin().read(&mut buffer).is_ok_and(|read| read > 0) {}
    let _ = server.stop();
    Ok(())
}
