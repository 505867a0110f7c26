//! The log of a member: writes the events of its server to standard error.

use std::io::stderr;

use anstream::{AutoStream, ColorChoice};
use bowline_server::config::LogFormat;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Starts to write all events of this project down to level `least`, and the warnings of libraries.
pub(super) fn start(format: LogFormat, least: Level) {
    let wanted = Targets::new().with_default(least.min(Level::WARN)).with_target("bowline", least);
    // If standard error can't be written, the failure can't be reported either.
    let layer = fmt::layer().with_writer(stderr).log_internal_errors(false);
    let layer = match format {
        LogFormat::Text => {
            let colours = AutoStream::choice(&stderr()) != ColorChoice::Never;
            layer.with_ansi(colours).with_target(false).boxed()
        }
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(wanted)).init();
}
