//! `bowline lan run`: real processes in real time.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use bowline_emulator::harness::{
    Event, FloorOptions, Interrupts, Output, Program, RunOptions, RunOutcome, SocketChoice, measure_floor, run,
};
use bowline_emulator::report::{Floor, Line, Report, table_json, table_text};
use bowline_emulator::scenario::Scenario;
use clap::Args;

use super::{write_history_file, write_page};
use crate::exit::Exit;
use crate::live::{Live, at, describe};
use crate::out::{self, remark, tell};
use crate::scenarios;

#[derive(Args)]
#[command(after_help = "Examples:
  bowline lan run                   the main job, with bowline's own replicas
  bowline lan run crash-4 --socket stream
  bowline lan run mine.json --program ./kvstore --html run.html
  bowline lan run --all --jobs 4    every built-in scenario, one table

Exit codes: 0 passed; 1 failed; 2 bad input.")]
pub(crate) struct RunCommand {
    /// A scenario file, or the name of a built-in scenario [default: the main job, simple-2]
    scenario: Option<String>,
    /// Run every built-in scenario and print one table.
    #[arg(long, conflicts_with_all = ["scenario", "html", "history"])]
    all: bool,
    /// With --all: number of scenarios to run at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    jobs: u64,
    /// Program to test, started as PROGRAM [port] own-id peer-id... [default: bowline's own replica]
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
    /// Type of the socket: udp, packets, stream, or auto, the first of them that the program can use.
    #[arg(long, default_value = "auto", value_parser = parse_socket)]
    socket: SocketChoice,
    /// Tuning of bowline's own replicas: frugal or paper.
    #[arg(long, default_value = "frugal", value_parser = ["frugal", "paper"], conflicts_with = "program")]
    profile: String,
    /// Seed of the network [default: the scenario's, or else random]
    #[arg(long)]
    seed: Option<u64>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Also write the report as a web page.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Also write the history of all operations, for `bowline check`.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Write what the replicas print to files in this folder.
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
}

fn parse_socket(name: &str) -> Result<SocketChoice, String> {
    name.parse().map_err(|_| "allowed: auto, udp, packets, stream".to_owned())
}

impl RunCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let interrupts = Interrupts::watch().context("can't watch for Ctrl-C")?;
        let stop = interrupts.flag();
        if self.all { self.run_all(&stop) } else { self.run_one(&stop) }
    }

    fn run_one(&self, stop: &Arc<AtomicBool>) -> anyhow::Result<Exit> {
        let scenario = scenarios::find(self.scenario.as_deref().unwrap_or(scenarios::MAIN_JOB))?;
        let live = Live::new(1_000, self.json);
        let (report, outcome_notes) = self.measure(scenario, stop, &live)?;
        live.end();
        for note in outcome_notes {
            remark!("{note}");
        }
        write_page(self.html.as_ref(), || report.html())?;
        if let Some(file) = &self.history {
            write_history_file(file, &report.record)?;
        }
        if self.json {
            tell!("{}", report.json())?;
        } else {
            out::print(report.text(true))?;
        }
        Ok(Exit::of(report.judgement.passed))
    }

    fn run_all(&self, stop: &Arc<AtomicBool>) -> anyhow::Result<Exit> {
        let all = scenarios::all();
        let count = all.len();
        let queue = Mutex::new(all.into_iter().enumerate().collect::<VecDeque<_>>());
        let lines = Mutex::new(Vec::new());
        let live = Live::new(count as u64, self.json);
        live.title("scenarios");
        live.step(0, format!("0/{count} done"));
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.jobs.min(count as u64))
                .map(|_| {
                    scope.spawn(|| -> anyhow::Result<()> {
                        loop {
                            // A separate statement, so that the lock is released before the scenario runs.
                            let next = lock(&queue).pop_front();
                            let Some((place, scenario)) = next else { return Ok(()) };
                            let hidden = Live::new(1_000, true);
                            let (report, notes) = self.measure(scenario, stop, &hidden)?;
                            let line = Line::of(&report);
                            let word = if line.passed { "passed" } else { "FAILED" };
                            live.say(&format!("{:<14} {word}", line.scenario));
                            notes.iter().for_each(|note| live.say(&format!("  {note}")));
                            let mut lines = lock(&lines);
                            lines.push((place, line));
                            live.step(lines.len() as u64, format!("{}/{count} done", lines.len()));
                        }
                    })
                })
                .collect();
            for worker in workers {
                if let Err(error) = worker.join().expect("the workers don't panic") {
                    stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
            Ok(())
        })?;
        live.end();
        let mut lines = lines.into_inner().expect("the workers don't panic");
        lines.sort_by_key(|(place, _)| *place);
        let lines: Vec<Line> = lines.into_iter().map(|(_, line)| line).collect();
        if self.json {
            tell!("{}", table_json(&lines))?;
        } else {
            out::print(table_text(&lines, true))?;
        }
        Ok(Exit::of(lines.iter().all(|line| line.passed)))
    }

    /// Measures the latency floor of the machine, then runs a scenario.
    fn measure(
        &self,
        scenario: Scenario,
        stop: &Arc<AtomicBool>,
        live: &Live,
    ) -> anyhow::Result<(Report, Vec<String>)> {
        let own = std::env::current_exe().context("can't find the path of this program")?;
        let (program, name) = match &self.program {
            Some(path) => (Program::new(path), path.display().to_string()),
            None => (self.own_replica(&own), format!("bowline, profile {}", self.profile)),
        };
        // The seed is the network's; the program draws its own random numbers.
        let seed = self.seed.or(scenario.seed).map_or_else(random_seed, Ok)?;
        live.title(&scenario.name);
        let mut options = RunOptions::new(scenario.clone(), seed, program);
        options.socket = self.socket;
        options.stop = Some(Arc::clone(stop));
        if let Some(folder) = &self.logs {
            options.output = Output::Files(folder.join(&scenario.name));
        }
        let floor_kind = self.socket.kinds()[0];
        live.step(0, "measuring the latency of this machine alone".to_owned());
        let null = Program::new(&own).with_argument("lan").with_argument("null-replica");
        let mut floor_options = FloorOptions::like(&scenario, null, floor_kind);
        floor_options.stop = Some(Arc::clone(stop));
        let floor = measure_floor(&floor_options)?;
        let outcome = run(&options, &mut |event| watch(&event, live))?;
        let notes = notes_on(&outcome);
        let mut report = Report::judged(outcome.record);
        report.program = Some(name);
        report.socket = Some(outcome.socket.to_string());
        report.floor = Some(Floor { median: floor.median, samples: floor.samples });
        Ok((report, notes))
    }

    fn own_replica(&self, own: &std::path::Path) -> Program {
        let words = ["lan", "replica", "--profile", self.profile.as_str()];
        words.into_iter().fold(Program::new(own), Program::with_argument)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("the workers don't panic")
}

/// Shows an event of the run.
fn watch(event: &Event<'_>, live: &Live) {
    match event {
        Event::Starting(kind) => live.step(0, format!("starting the replicas ({kind})")),
        Event::Unsuitable(kind, error) => live.say(&format!("can't use {kind}: {error}")),
        Event::Started(kind) => live.step(0, format!("all replicas are connected ({kind})")),
        Event::Progress(progress) => {
            let share = progress.time.div_duration_f64(progress.duration.max(progress.time));
            live.step((share * 1_000.0) as u64, describe(progress));
        }
        Event::Note(time, note) => live.say(&format!("{}  {note}", at(*time))),
    }
}

/// Notes that are not in the report.
fn notes_on(outcome: &RunOutcome) -> Vec<String> {
    let mut notes = Vec::new();
    if !outcome.silent.is_empty() {
        let silent: Vec<String> = outcome.silent.iter().map(ToString::to_string).collect();
        notes.push(format!("replicas that never connected: {}", silent.join(", ")));
    }
    if outcome.counters.is_notable() {
        notes.push(outcome.counters.to_string());
    }
    for exit in outcome.exits.iter().filter(|exit| exit.by_itself) {
        notes.push(format!("replica {} ended by itself: {}{}", exit.id, exit.status, exit.last_words));
    }
    if outcome.lateness.as_millis() >= 20 {
        let late = outcome.lateness;
        notes.push(format!("the machine was busy: the network was up to {late:.0?} late, so latencies are unreliable"));
    }
    notes
}

fn random_seed() -> anyhow::Result<u64> {
    // Short enough to type.
    Ok(getrandom::u64()? % 1_000_000)
}
