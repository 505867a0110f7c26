//! The command `top`: a live view of a cluster.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use bowline_client::ClientError;
use bowline_emulator::harness::Interrupts;
use bowline_server::config::parse_duration;
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::runtime::Runtime;

use crate::client::{Cluster, runtime};
use crate::exit::Exit;
use crate::out::Out;
use fetch::Reader;
use figures::{Figures, Sample};
use view::{Order, View};

mod fetch;
mod figures;
mod metrics;
mod view;

/// How often keys and signals are looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Longest time limit of a member's answer: others must not wait long for a silent one.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
#[command(after_help = "It asks each member for its state and its page /metrics, also members that are not among \
the endpoints.

LAG is the number of committed log entries that a member has not applied yet. REQ/S, P50 and P99 are of reads and writes \
of keys, and FSYNC P99 is of the log; all since the last refresh. QUOTA is the part of --quota-backend-bytes that is \
used. SLOW is the number of watchers that are behind. A real etcd tells latencies only with --metrics extensive.

Keys: q or Ctrl-C ends it, s sorts by requests, p99, lag or name.

Examples:
  bowline top
  bowline top --interval 5s
  bowline top --once --json | jq .totals.requests_per_second

Exit codes: 0 ended, or printed; 1 no member answers; 2 bad input.")]
pub(crate) struct TopCommand {
    /// Time between two refreshes, from 100ms to 1h.
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = interval)]
    interval: Duration,
    /// Print one sample, measured over one interval, and end. Implied if standard output is not a terminal.
    #[arg(long)]
    once: bool,
    /// Print that sample as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

fn interval(text: &str) -> Result<Duration, String> {
    let bounds = Duration::from_millis(100)..=Duration::from_secs(3_600);
    parse_duration(text)
        .filter(|time| bounds.contains(time))
        .ok_or("allowed: a time from 100ms to 1h, such as 1s".into())
}

impl TopCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let mut reader = Reader::new(self.cluster.client()?, self.cluster.patience().min(PATIENCE));
        let runtime = runtime()?;
        let first = runtime.block_on(reader.sample());
        require_one(&first)?;
        if !self.once && !self.json && std::io::stdout().is_terminal() {
            return self.show(first, reader, runtime);
        }
        let second = runtime.block_on(async {
            tokio::time::sleep(self.interval).await;
            reader.sample().await
        });
        require_one(&second)?;
        let (figures, mut out) = (Figures::of(&second, Some(&first)), Out::lock());
        if self.json {
            writeln!(out, "{}", figures.json())?;
        } else {
            view::write(&figures, &mut out)?;
        }
        out.flush()?;
        Ok(Exit::Passed)
    }

    /// Shows the cluster until a key or a signal ends it.
    fn show(&self, first: Sample, reader: Reader, runtime: Runtime) -> anyhow::Result<Exit> {
        let interrupts = Interrupts::watch().context("can't handle signals")?;
        let samples = keep_reading(runtime, reader, self.interval);
        let mut terminal = ratatui::try_init().context("can't use the terminal")?;
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let view = View { order: Order::Name, colours, interval: self.interval };
        let shown = refresh(&mut terminal, view, first, &samples, &interrupts.flag());
        ratatui::restore();
        shown?;
        Ok(Exit::Passed)
    }
}

/// Draws the figures, and again whenever something changes them, until the user wants to quit.
fn refresh(
    terminal: &mut ratatui::DefaultTerminal,
    mut view: View,
    first: Sample,
    samples: &Receiver<Sample>,
    stop: &Arc<AtomicBool>,
) -> std::io::Result<()> {
    let (mut figures, mut last) = (Figures::of(&first, None), first);
    loop {
        terminal.draw(|frame| view.draw(&figures, frame))?;
        // Wait for something that changes the view.
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if let Ok(sample) = samples.try_recv() {
                figures = Figures::of(&sample, Some(&last));
                last = sample;
                break;
            }
            if event::poll(LOOK)? {
                match told(&event::read()?) {
                    Told::Quit => return Ok(()),
                    Told::Sort => view.order = view.order.next(),
                    Told::Nothing => {}
                }
                break;
            }
        }
    }
}

/// What the user wants.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Quit,
    Sort,
    Nothing,
}

fn told(event: &Event) -> Told {
    let Event::Key(key) = event else { return Told::Nothing };
    match key.code {
        _ if key.kind == KeyEventKind::Release => Told::Nothing,
        KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => Told::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Told::Quit,
        KeyCode::Char('s') => Told::Sort,
        _ => Told::Nothing,
    }
}

/// Reads samples in a thread of its own, so that a silent member does not delay the keys.
fn keep_reading(runtime: Runtime, mut reader: Reader, interval: Duration) -> Receiver<Sample> {
    let (send, samples) = channel();
    std::thread::spawn(move || {
        let mut next = Instant::now() + interval;
        loop {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            next = Instant::now() + interval;
            if send.send(runtime.block_on(reader.sample())).is_err() {
                return;
            }
        }
    });
    samples
}

/// At least one member must answer.
fn require_one(sample: &Sample) -> Result<(), ClientError> {
    let mut why = "no answer".to_owned();
    for answer in &sample.answers {
        match &answer.told {
            Ok(_) => return Ok(()),
            Err(error) => why.clone_from(error),
        }
    }
    let tried: Vec<&str> = sample.answers.iter().map(|answer| answer.address.as_str()).collect();
    Err(ClientError::Unreachable { tried: tried.join(", "), why })
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn keys_mean_what_the_help_says() {
        let key = |code, modifiers| told(&Event::Key(KeyEvent::new(code, modifiers)));
        for code in [KeyCode::Char('q'), KeyCode::Esc] {
            assert_eq!(key(code, KeyModifiers::NONE), Told::Quit);
        }
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Told::Quit);
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), Told::Nothing);
        assert_eq!(key(KeyCode::Char('s'), KeyModifiers::NONE), Told::Sort);
        assert_eq!(told(&Event::Resize(80, 24)), Told::Nothing);
    }

    #[test]
    fn an_interval_has_bounds() {
        assert_eq!(interval("1m30s"), Ok(Duration::from_secs(90)));
        for text in ["0s", "99ms", "61m", "1", "soon"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
