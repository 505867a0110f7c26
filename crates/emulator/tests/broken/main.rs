//! The harness and the judge, end to end, against real processes: a replica that is right passes
//! over every socket, and each of eleven that are broken is caught with the right verdict.
//!
//! The replicas are this same program, started again as `replica <fault> <arguments>...`. All cases
//! run at the same time: they mostly wait.

use std::io::{BufRead, BufReader};
use std::panic::{catch_unwind, resume_unwind};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bowline_emulator::emulation::{Bad, End};
use bowline_emulator::harness::{
    Event, FloorOptions, HarnessError, Interrupts, Output, Program, RunOptions, RunOutcome, SocketChoice,
    measure_floor, run, run_null_replica,
};
use bowline_emulator::judge::{Check, Status};
use bowline_emulator::report::Report;
use bowline_emulator::scenario::{self, Benchmarks, EventKind, Scenario};
use bowline_lan::socket::SocketKind;
use bowline_lan::socket::arguments::Arguments;
use rustix::process::{Pid, Signal, kill_process};

mod replica;

use replica::Fault;

type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("a_right_replica_passes_over_udp", right_over_udp),
    ("a_right_replica_passes_over_packets", right_over_packets),
    ("a_right_replica_passes_over_a_stream", right_over_a_stream),
    ("the_form_of_socket_is_found_out", the_form_is_found_out),
    ("answers_before_the_commit_are_caught", hasty),
    ("stale_reads_are_caught", stale_reads),
    ("forgetting_at_an_election_is_caught", forgetful),
    ("answers_that_come_twice_are_caught", twice),
    ("a_message_storm_is_caught", storm),
    ("a_flood_of_garbage_is_caught", garbage),
    ("a_crash_is_caught_with_its_last_words", crash),
    ("puts_that_are_never_answered_are_caught", mute),
    ("a_store_that_is_not_replicated_is_caught", lonely),
    ("a_closed_socket_is_caught", hang_up),
    ("a_missing_program_is_named", missing_program),
    ("a_program_that_ends_at_once_is_shown", ends_at_once),
    ("a_program_that_does_not_connect_is_shown", never_connects),
    ("replicas_that_leave_after_hello_are_caught", fleeting),
    ("no_process_outlives_a_stopped_run", nothing_outlives_a_stop),
    ("no_process_outlives_a_panic", nothing_outlives_a_panic),
    ("no_process_or_folder_outlives_ctrl_c", nothing_outlives_ctrl_c),
    ("the_floor_is_measured", floor),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, name, rest @ ..] = &arguments[..]
        && first == "replica"
    {
        return be_a_replica(name, rest);
    }
    if let [first, folder] = &arguments[..]
        && first == "run-until-stopped"
    {
        return run_until_stopped(Path::new(folder));
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let chosen = |case: &&Case| filter.is_none_or(|filter| case.0.contains(filter.as_str()));
    let chosen: Vec<&Case> = CASES.iter().filter(chosen).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let running: Vec<_> =
        chosen.into_iter().map(|&(name, case)| (name, thread::spawn(move || catch_unwind(case).is_ok()))).collect();
    let mut failed = 0;
    for (name, thread) in running {
        let ok = thread.join().is_ok_and(|ok| ok);
        failed += u32::from(!ok);
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
    }
    println!("test result: {failed} failed; finished in {:.2?}", started.elapsed());
    ExitCode::from(u8::from(failed > 0))
}

fn be_a_replica(name: &str, rest: &[String]) -> ExitCode {
    if name == "Sleeper" {
        thread::sleep(Duration::from_secs(60));
        return ExitCode::SUCCESS;
    }
    let form = None;
    let arguments = Arguments::parse(rest, form).expect("the harness gives good arguments");
    if name.ends_with("Local") && arguments.port.is_some() {
        eprintln!("only local sockets are supported");
        return ExitCode::FAILURE;
    }
    let name = name.trim_end_matches("Local");
    let result = match Fault::ALL.into_iter().find(|fault| fault.name() == name) {
        Some(fault) => replica::run(fault, &arguments),
        None => run_null_replica(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What a command line does: runs a scenario that is longer than anybody waits.
fn run_until_stopped(output: &Path) -> ExitCode {
    let interrupts = Interrupts::watch().expect("handlers can be installed");
    let mut options = options(Fault::None);
    options.scenario.lifetime = Duration::from_secs(100);
    options.socket = SocketChoice::Only(SocketKind::Packets);
    options.output = Output::Files(output.to_owned());
    options.stop = Some(interrupts.flag());
    let result = run(&options, &mut |event| {
        if matches!(event, Event::Started(_)) {
            println!("started");
        }
    });
    match result {
        Err(HarnessError::Interrupted) => ExitCode::from(42),
        _ => ExitCode::FAILURE,
    }
}

fn program(name: &str) -> Program {
    let own = std::env::current_exe().expect("a running program has a path");
    Program::new(own).with_argument("replica").with_argument(name)
}

fn scenario() -> Scenario {
    Scenario {
        name: "short".to_owned(),
        lifetime: Duration::from_millis(2500),
        replicas: 5,
        requests: 500,
        mix: 0.5,
        start_wait: Duration::from_millis(100),
        end_wait: Duration::from_millis(300),
        drops: 0.0,
        seed: None,
        max_packets: 20_000,
        events: Vec::new(),
        benchmarks: Benchmarks::default(),
    }
}

fn options(fault: Fault) -> RunOptions {
    let socket = SocketChoice::Only(SocketKind::Udp);
    RunOptions { socket, ..RunOptions::new(scenario(), 7, program(&fault.name())) }
}

fn with_a_killed_leader(fault: Fault) -> RunOptions {
    let mut options = options(fault);
    options.scenario.events = vec![scenario::Event { kind: EventKind::KillLeader, time: Duration::from_millis(1200) }];
    options
}

fn judged(options: &RunOptions) -> (RunOutcome, Report) {
    let outcome = run(options, &mut |_| {}).expect("the run can be done");
    let report = Report::judged(outcome.record.clone());
    (outcome, report)
}

/// Exactly these checks failed, and so did the run.
fn assert_failed(report: &Report, checks: &[Check]) {
    let failed: Vec<Check> =
        Check::ALL.into_iter().filter(|check| report.judgement.verdict(*check).status == Status::Failed).collect();
    assert_eq!(failed, checks, "{:#?}", report.judgement.verdicts);
    assert_eq!(report.judgement.passed, checks.is_empty());
}

fn assert_right(socket: SocketKind) {
    let mut events = 0;
    let mut options = options(Fault::None);
    options.socket = SocketChoice::Only(socket);
    let (outcome, report) = judged(&options);
    assert_failed(&report, &[]);
    assert_eq!(outcome.socket, socket);
    assert!(outcome.silent.is_empty());
    assert_eq!(outcome.record.requests.len(), 500);
    assert!(outcome.record.requests.iter().all(|request| request.done.is_some()));
    assert_eq!(outcome.exits.len(), 5);
    assert!(outcome.exits.iter().all(|exit| !exit.by_itself));
    assert_eq!(outcome.counters, Default::default());
    // That an observer is told of it all.
    options.scenario.lifetime = Duration::from_millis(500);
    let outcome = run(&options, &mut |event| {
        if matches!(event, Event::Progress(_) | Event::Note(..) | Event::Started(_)) {
            events += 1;
        }
    });
    assert!(outcome.is_ok() && events >= 4, "{events} events");
}

fn right_over_udp() {
    assert_right(SocketKind::Udp);
}

fn right_over_packets() {
    assert_right(SocketKind::Packets);
}

fn right_over_a_stream() {
    assert_right(SocketKind::Stream);
}

fn the_form_is_found_out() {
    let mut options = options(Fault::None);
    options.socket = SocketChoice::Auto;
    options.scenario.lifetime = Duration::from_millis(300);
    options.scenario.requests = 20;
    let outcome = run(&options, &mut |_| {}).expect("the program speaks UDP");
    assert_eq!(outcome.socket, SocketKind::Udp);
    options.program = program("NoneLocal");
    let mut unsuitable = Vec::new();
    let outcome = run(&options, &mut |event| {
        if let Event::Unsuitable(kind, reason) = event {
            unsuitable.push((kind, reason.to_string()));
        }
    })
    .expect("the program speaks packets");
    assert_eq!(outcome.socket, SocketKind::Packets);
    let [(SocketKind::Udp, reason)] = &unsuitable[..] else {
        panic!("{unsuitable:?}");
    };
    assert!(reason.contains("only local sockets are supported"), "{reason}");
}

fn hasty() {
    let (_, report) = judged(&with_a_killed_leader(Fault::Hasty));
    assert_failed(&report, &[Check::RightGets, Check::Linearizable]);
    assert!(report.judgement.proof().count() >= 2);
}

fn stale_reads() {
    let (_, report) = judged(&options(Fault::StaleReads));
    assert_failed(&report, &[Check::RightGets, Check::Linearizable]);
}

fn forgetful() {
    let (outcome, report) = judged(&with_a_killed_leader(Fault::Forgetful));
    assert_failed(&report, &[Check::RightGets, Check::Linearizable]);
    let forgotten = report.judgement.wrong_gets.iter();
    assert!(forgotten.clone().any(|get| get.got.as_deref() == Some("")));
    assert_eq!(outcome.record.losses.len(), 1);
    // What forgets is caught, but the same without forgetting survives the same kill.
    let (_, report) = judged(&with_a_killed_leader(Fault::None));
    assert_eq!(report.judgement.wrong_gets, []);
}

fn twice() {
    let (outcome, report) = judged(&options(Fault::Twice));
    assert_failed(&report, &[Check::NoDuplicates]);
    assert!(outcome.record.misbehaviour.count(Bad::Duplicate) >= 500);
}

/// A run that lasts until the flood is noticed: on a busy machine datagrams get lost, and it takes longer.
fn until_it_floods(fault: Fault) -> RunOptions {
    let mut options = options(fault);
    options.scenario.lifetime *= 20;
    options.scenario.requests *= 20;
    options
}

fn storm() {
    let (outcome, report) = judged(&until_it_floods(Fault::Storm));
    assert_eq!(outcome.record.end, Some(End::MessageStorm));
    assert_eq!(report.judgement.verdict(Check::NoMessageStorm).status, Status::Failed);
    assert!(!report.judgement.passed);
}

fn garbage() {
    let (outcome, report) = judged(&until_it_floods(Fault::Garbage));
    assert_eq!(outcome.record.end, Some(End::Flood));
    assert_eq!(report.judgement.verdict(Check::NoFlood).status, Status::Failed);
    assert!(outcome.record.misbehaviour.count(Bad::Unparsable) > 10_000);
}

fn crash() {
    let (outcome, report) = judged(&options(Fault::Crash));
    assert_eq!(report.judgement.verdict(Check::ReplicasLived).status, Status::Failed);
    let first = &outcome.record.losses[0];
    let why = first.died_by_itself.as_deref().unwrap_or_default();
    assert_eq!(why, "exit status: 3: ten is too many");
    let exit = &outcome.exits[first.replica];
    assert!(exit.by_itself && exit.status.code() == Some(3));
    assert!(exit.last_words.ends_with("is Crash\nten is too many"), "{exit:?}");
}

fn mute() {
    let (_, report) = judged(&options(Fault::Mute));
    assert_eq!(report.judgement.verdict(Check::PutsAnswered).status, Status::Failed);
}

fn lonely() {
    let (_, report) = judged(&options(Fault::Lonely));
    assert_eq!(report.judgement.verdict(Check::EnoughMessages).status, Status::Failed);
}

fn hang_up() {
    let mut options = options(Fault::HangUp);
    options.socket = SocketChoice::Only(SocketKind::Stream);
    let (outcome, report) = judged(&options);
    assert_eq!(report.judgement.verdict(Check::ReplicasLived).status, Status::Failed);
    let why = outcome.record.losses[0].died_by_itself.as_deref();
    assert_eq!(why, Some("it closed its socket but did not exit"));
}

fn error(options: &RunOptions) -> HarnessError {
    match run(options, &mut |_| {}) {
        Ok(_) => panic!("it ran"),
        Err(error) => error,
    }
}

fn missing_program() {
    for kind in SocketKind::ALL {
        let mut options = options(Fault::None);
        options.program = Program::new("./no-such-program");
        options.socket = SocketChoice::Only(kind);
        let text = error(&options).to_string();
        assert!(text.starts_with("can't start ./no-such-program: "), "{text}");
    }
}

fn ends_at_once() {
    let mut options = options(Fault::None);
    options.program = Program::new("sh").with_argument("-c").with_argument("echo I quit >&2");
    let text = error(&options).to_string();
    let ended = text.contains("ended before it connected to its udp socket: exit status: 0");
    assert!(ended && text.ends_with("\n  I quit"), "{text}");
}

fn never_connects() {
    let mut options = options(Fault::None);
    options.program = program("Sleeper");
    options.patience = Duration::from_millis(300);
    let text = error(&options).to_string();
    assert!(text.starts_with("no replica connected to its udp socket within 300ms"), "{text}");
    options.socket = SocketChoice::Auto;
    let text = error(&options).to_string();
    assert!(text.contains("works with no form of socket:\nudp: no replica"), "{text}");
    assert!(text.contains("\npackets: no replica") && text.contains("\nstream: no replica"));
}

fn nothing_outlives_a_stop() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let output = folder.path().join("output");
    let mut options = options(Fault::None);
    options.output = Output::Files(output.clone());
    let stop = Arc::new(AtomicBool::new(false));
    options.stop = Some(Arc::clone(&stop));
    let started = Instant::now();
    let result = run(&options, &mut |event| {
        if matches!(event, Event::Started(_)) {
            stop.store(true, Ordering::Relaxed);
        }
    });
    assert!(matches!(result, Err(HarnessError::Interrupted)), "{result:?}");
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_no_replica_lives(&output);
}

/// By the process numbers that the replicas printed.
fn assert_no_replica_lives(output: &Path) {
    for id in ["0000", "0001", "0002", "0003", "0004"] {
        let printed = std::fs::read_to_string(output.join(format!("{id}.stdout")));
        let pid = printed.expect("there is a file");
        let pid: u32 = pid.trim().parse().expect("a number");
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{id} lives on as {pid}");
        let words = std::fs::read_to_string(output.join(format!("{id}.stderr")));
        let words = words.expect("there is a file");
        assert_eq!(words, format!("replica {id} is None\n"));
    }
}

fn nothing_outlives_a_panic() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let output = folder.path().join("output");
    let result = catch_unwind(|| {
        let mut options = options(Fault::None);
        options.output = Output::Files(output.clone());
        let _ = run(&options, &mut |event| {
            // Without the message that a panic prints.
            if matches!(event, Event::Note(..)) {
                resume_unwind(Box::new("the observer gives up"));
            }
        });
    });
    assert!(result.is_err());
    assert_no_replica_lives(&output);
}

fn fleeting() {
    for kind in SocketKind::ALL {
        let mut options = options(Fault::Fleeting);
        options.socket = SocketChoice::Only(kind);
        let (outcome, report) = judged(&options);
        assert_eq!(outcome.record.end, Some(End::NoReplicaLeft));
        assert_eq!(report.judgement.verdict(Check::ReplicasLived).status, Status::Failed);
        for loss in &outcome.record.losses {
            let why = loss.died_by_itself.as_deref().unwrap_or_default();
            assert!(why.starts_with("exit status: 4"), "{kind}: {why}");
        }
    }
}

fn nothing_outlives_ctrl_c() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let temporary = folder.path().join("temporary");
    std::fs::create_dir(&temporary).expect("a folder can be made");
    let output = folder.path().join("output");
    let own = std::env::current_exe().expect("a running program has a path");
    let mut child = Command::new(own)
        .arg("run-until-stopped")
        .arg(&output)
        .env("TMPDIR", &temporary)
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program can be started");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it prints text");
    assert_eq!(line, "started\n");
    let entries = || std::fs::read_dir(&temporary).expect("it is a folder").count();
    assert_eq!(entries(), 1);
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let status = child.wait().expect("it is a child");
    assert_eq!(status.code(), Some(42));
    assert_eq!(entries(), 0);
    assert_no_replica_lives(&output);
}

fn floor() {
    for socket in SocketKind::ALL {
        let mut options = FloorOptions::like(&scenario(), program("Null"), socket);
        assert_eq!(options.spacing, Duration::from_millis(5));
        options.samples = 50;
        let floor = measure_floor(&options).expect("the floor can be measured");
        assert_eq!(floor.samples, 50);
        assert!(floor.median > Duration::from_micros(5) && floor.median <= floor.p90);
        println!("floor over {socket}: median {:?}, p90 {:?}", floor.median, floor.p90);
    }
}
