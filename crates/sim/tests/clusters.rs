//! The simulator is tested: it finds nothing in honest replicas, each seed gives the same run every time, and
//! it sees what is broken on purpose.

use std::time::Duration;

use bowline_sim::cluster::{
    Coverage, Fault, Line, Plan, Probe, Reduction, Rule, Sabotage, Start, Strike, Summary, parse_list, run, shrink,
    shrink_while,
};

/// Runs a seed in which nothing may be violated.
fn flawless(seed: u64) -> Summary {
    let outcome = run(&Plan::drawn(seed), None);
    if let Some(violation) = &outcome.violation {
        panic!("seed {seed}: {violation}\n  bowline sim replay {seed}");
    }
    outcome
}

#[test]
fn nothing_is_violated_in_fifty_clusters() {
    let mut coverage = Coverage::default();
    let mut done = 0;
    for seed in 1..=50 {
        let outcome = flawless(seed);
        coverage.add(&outcome.coverage);
        done += outcome.operations.1;
    }
    assert!(done > 10_000, "the clients get something done: {done} operations");
    let struck = coverage.by_fault().filter(|(_, count)| *count > 0).count();
    assert!(struck * 10 >= Fault::COUNT * 9, "most kinds of fault strike: {struck} of {}", Fault::COUNT);
    let visited = coverage.by_probe().filter(|(_, count)| *count > 0).count();
    assert!(visited * 10 >= Probe::COUNT * 8, "most rare paths are taken: {visited} of {}", Probe::COUNT);
}

/// Seeds that found something once, and do so no more: a replica with a long log to apply and a
/// tight limit exhausted its stack (100); a client's read stuck at a replica that is no member any more
/// (1728). Since the log is the real one: rot in a segment's earlier life, which made the log suspect at each
/// start (134); a follower with a full disk, whose answers brought the same entries at once again (241); a
/// snapshot that takes the place of a rotten log (774); term and vote on the disk before the log (46); a core
/// that could elect nobody, as its most up-to-date log belonged to a learner (100593). Since states are in files: one
/// that a dead disk could not show any more, taken for another state (298); a term that a failed sync left in the copy of
/// term and vote only, and that nobody was told before it rotted (2385); a client that asked one removed member again and
/// again (4589); an old image whose replica took itself for the only voter, as it once was (3291). And: a peer that got
/// one entry a heartbeat of a leader that knew of no commit (7469); a search for an order among thousands of writes of
/// which hardly any had happened (13735); a mark in the log that rotted together with the snapshot that it names (4771); a
/// member 5,000 entries behind, without which there was no quorum, and limits that let it have one at a time (5015). Since
/// members have records: a leader that removed a voter while another was silent, so that nothing could be committed any
/// more (326, with the draws of today). Since requests are forwarded here too: a second snapshot from a leader, for which the
/// file of the first was removed, though a crash left a log that begins after the first (842); bits that flipped in a
/// write before it was synced, and a power failure in which the simulated disk made that write again, so that it undid the
/// damage (664). Since restarts within a lease are sought: a late answer that took the vote of a replica which its leader
/// had repaired, so that nobody could be elected (651).
#[test]
fn what_was_found_once_stays_fixed() {
    flawless(326);
    // As it was when it was found: members were not compared.
    let mut plan = Plan::drawn(326);
    plan.without(Fault::Comparison);
    assert_eq!(run(&plan, None).violation, None, "seed 326, without the comparison");
    flawless(842);
    flawless(2523);
    flawless(664);
    flawless(651);
    for seed in [100, 1728, 46, 134, 241, 774, 100_593, 298, 2385, 4589, 3291, 7469, 13_735, 4771, 5015] {
        flawless(seed);
        // As it was when it was found: members had no records, and nobody compacted automatically; or held leases.
        let mut plan = Plan::drawn(seed);
        for later in [&[Fault::RecordedJoin, Fault::AutoCompaction, Fault::Comparison][..], &[Fault::LeaseMoves]] {
            if later.iter().any(|kind| plan.kinds().contains(kind)) {
                later.iter().for_each(|kind| plan.without(*kind));
                assert_eq!(run(&plan, None).violation, None, "seed {seed}, without {later:?}");
            }
        }
    }
}

/// In a part of the clusters an operator writes records of the members, and leaders make the configuration follow them.
#[test]
fn members_join_leave_and_are_replaced_through_their_records() {
    let mut coverage = Coverage::default();
    for plan in (1..).map(Plan::drawn).filter(Plan::has_records).take(30) {
        let outcome = flawless(plan.seed);
        if plan.seed < 10 {
            assert_eq!(run(&plan, None), outcome, "seed {}", plan.seed);
        }
        coverage.add(&outcome.coverage);
    }
    let count = |wanted: Fault| coverage.by_fault().find(|(fault, _)| *fault == wanted).map_or(0, |(_, count)| count);
    let counts =
        [Fault::RecordedJoin, Fault::RecordedRemoval, Fault::Replacement, Fault::AutoCompaction, Fault::Comparison]
            .map(count);
    assert!(counts[0] >= 10 && counts[1] >= 10 && counts[2] >= 1 && counts[3] >= 10 && counts[4] >= 10, "{counts:?}");
    for probe in [Probe::RecordsAhead, Probe::LeaderRemovesItself, Probe::RemovedIdRefused] {
        assert!(coverage.probes[probe as usize] > 0, "{} never", probe.title());
    }
}

/// In a part of the clusters the state is in redb on the simulated disk: it is made durable before the log is cut, found
/// again, and the same run all over again gives the same bytes in the same order.
#[test]
fn states_in_files_outlive_crashes_and_runs_are_the_same_twice() {
    let mut coverage = Coverage::default();
    let on_disk = (1..).map(Plan::drawn).filter(Plan::has_states_on_disk).take(6);
    for plan in on_disk {
        assert!(plan.has_stores(), "seed {}", plan.seed);
        let outcome = flawless(plan.seed);
        assert_eq!(run(&plan, None), outcome, "seed {}", plan.seed);
        coverage.add(&outcome.coverage);
    }
    for probe in [Probe::StateCheckpointed, Probe::StateBehindLog] {
        assert!(coverage.probes[probe as usize] > 0, "{} never", probe.title());
    }
}

#[test]
fn the_same_seed_gives_the_same_run_traced_or_not() {
    for seed in [3, 17, 40] {
        let plan = Plan::drawn(seed);
        let first = run(&plan, None);
        let mut lines = 0;
        let mut tell = |line: Line| lines += usize::from(!line.to_string().is_empty());
        let second = run(&plan, Some(&mut tell));
        assert_eq!(first, second, "seed {seed}");
        assert!(lines > 100, "the trace of seed {seed} has {lines} lines");
    }
    assert_ne!(run(&Plan::drawn(3), None).trace_hash, run(&Plan::drawn(4), None).trace_hash);
}

/// The first violation that `sabotage` leads to within `seeds` seeds.
fn found(sabotage: Sabotage, seeds: u64) -> (u64, Plan, Summary) {
    // Where no lease is kept alive, nothing of leases can break.
    let of_leases = matches!(sabotage, Sabotage::HastyRenewals | Sabotage::LocalLessors);
    for seed in 1..=seeds {
        let mut plan = Plan::drawn(seed);
        if of_leases && !plan.kinds().contains(&Fault::LeaseMoves) {
            continue;
        }
        plan.sabotage = Some(sabotage);
        // The simulator's own judges are under test here.
        plan.watched = false;
        let outcome = run(&plan, None);
        if outcome.violation.is_some() {
            return (seed, plan, outcome);
        }
    }
    panic!("{sabotage:?} was not found in {seeds} seeds");
}

#[test]
fn disks_that_lose_what_they_acknowledged_are_found() {
    let (_, _, outcome) = found(Sabotage::LyingDisks, 5);
    let rule = outcome.violation.map(|violation| violation.rule);
    let of_disks = [
        Rule::AcknowledgedIsDurable,
        Rule::VoteIsDurable,
        Rule::TermNeverDecreases,
        Rule::CommittedIsDurableOnQuorum,
        Rule::RestartKeepsPromises,
    ];
    assert!(rule.is_some_and(|rule| of_disks.contains(&rule)), "{rule:?}");
}

#[test]
fn messages_that_leave_before_their_promise_is_durable_are_found() {
    found(Sabotage::HastyMessages, 5);
}

#[test]
fn a_vote_that_is_forgotten_in_a_restart_is_found() {
    let (_, _, outcome) = found(Sabotage::ForgottenVotes, 20);
    let rule = outcome.violation.map(|violation| violation.rule);
    assert!(rule == Some(Rule::RestartKeepsPromises) || rule == Some(Rule::VoteIsDurable), "{rule:?}");
}

#[test]
fn stale_reads_are_found_and_the_run_is_made_smaller() {
    let (seed, plan, outcome) = found(Sabotage::StaleReads, 20);
    let violation = outcome.violation.expect("just found");
    let (reduction, smaller) = shrink(&plan, &Reduction::default(), &violation, 30);
    assert_eq!(smaller.rule, violation.rule);
    assert!(!reduction.is_empty(), "something of seed {seed} can be left out");
    let mut plan = plan;
    reduction.apply(&mut plan);
    assert_eq!(run(&plan, None).violation, Some(smaller), "the smaller run fails in the same way each time");
}

#[test]
fn stale_reads_of_stores_and_of_maps_are_found() {
    for stores in [true, false] {
        let violation = (1..=40).find_map(|seed| {
            let mut plan = Plan::drawn(seed);
            plan.sabotage = Some(Sabotage::StaleReads);
            if plan.has_stores() == stores { run(&plan, None).violation } else { None }
        });
        let rule = violation.map(|violation| violation.rule);
        let of_reads = [Rule::ReadsSeeWhatWasCommitted, Rule::RevisionsCount, Rule::Linearizable];
        assert!(rule.is_some_and(|rule| of_reads.contains(&rule)), "stores {stores}: {rule:?}");
    }
}

/// The rule that `sabotage` breaks first within `seeds` seeds.
fn broken_by(sabotage: Sabotage, seeds: u64) -> Rule {
    found(sabotage, seeds).2.violation.expect("just found").rule
}

#[test]
fn a_rotten_snapshot_that_is_trusted_is_found() {
    // Either it can't be loaded, or the state is another one.
    let rule = broken_by(Sabotage::TrustedRot, 200);
    let of_rot = [Rule::RestartKeepsPromises, Rule::StatesAreEqual, Rule::Converges, Rule::Assertion];
    assert!(of_rot.contains(&rule), "{rule:?}");
}

#[test]
fn a_disk_that_is_restored_from_an_old_copy_is_found() {
    let rule = broken_by(Sabotage::OldImages, 20);
    assert!([Rule::RestartKeepsPromises, Rule::TermNeverDecreases].contains(&rule), "{rule:?}");
}

#[test]
fn a_stranger_that_is_taken_for_a_member_is_found() {
    // What a stranger has been believed may also show as something else, and first: a cluster that elects nobody.
    let broken = |seed: u64| {
        let mut plan = Plan::drawn(seed);
        (plan.sabotage, plan.watched) = (Some(Sabotage::TrustedStrangers), false);
        run(&plan, None).violation.map(|violation| violation.rule)
    };
    assert!((1..=200).any(|seed| broken(seed) == Some(Rule::StrangersChangeNothing)));
}

#[test]
fn a_leader_that_does_not_stay_is_found() {
    assert_eq!(broken_by(Sabotage::RestlessOperator, 40), Rule::Stays);
}

#[test]
fn a_leader_that_keeps_leases_alive_without_leading_is_found() {
    assert_eq!(broken_by(Sabotage::HastyRenewals, 1_000), Rule::LeasesAreKept);
}

#[test]
fn a_new_leader_that_does_not_know_what_the_one_before_promised_is_found() {
    assert_eq!(broken_by(Sabotage::LocalLessors, 40), Rule::LeasesAreKept);
}

/// Disks that lie, and messages that leave early, are the host's doing: the simulator's own judges see
/// them first. A vote that is gone is for the model, also if nobody has heard of it.
#[test]
fn the_model_finds_a_vote_that_is_forgotten() {
    let of_the_model = (1..=100).find_map(|seed| {
        let mut plan = Plan::drawn(seed);
        plan.sabotage = Some(Sabotage::ForgottenVotes);
        let violation = run(&plan, None).violation?;
        (violation.rule == Rule::Refinement && violation.what.contains("Restart forbids it")).then_some(violation)
    });
    assert!(of_the_model.is_some(), "the model sees no vote that is forgotten in 100 seeds");
}

#[test]
fn being_watched_changes_nothing() {
    for seed in [2, 9, 30] {
        let mut plan = Plan::drawn(seed);
        let watched = run(&plan, None);
        plan.watched = false;
        assert_eq!(watched, run(&plan, None), "seed {seed}");
    }
}

#[test]
fn a_failing_run_is_made_so_small_that_a_line_can_name_it() {
    let (_, plan, outcome) = found(Sabotage::StaleReads, 20);
    let violation = outcome.violation.expect("just found");
    let mut runs = 0;
    let (reduction, smaller) = shrink_while(&plan, &Reduction::default(), &violation, 300, &mut |step| {
        assert!(step.runs == runs + 1 && step.runs <= 300, "each run is counted: {step:?}");
        runs = step.runs;
        true
    });
    assert_eq!(smaller.rule, violation.rule);
    assert!(runs > 10, "{runs} runs, {violation} became {smaller}: {reduction}");
    let mut small = plan.clone();
    reduction.apply(&mut small);
    let again = run(&small, None);
    assert_eq!(again.violation.as_ref(), Some(&smaller), "{reduction}");
    assert!(again.operations.0 <= 12 && again.operations.0 * 4 < outcome.operations.0, "{reduction}");
    assert!(small.voters <= plan.voters && small.clients() <= plan.clients());
    // What is printed names the same run.
    let printed = reduction.to_string();
    let option = |name: &str| printed.split(&format!(" --{name} ")).nth(1).map(|rest| rest.split(' ').next().unwrap());
    let named = Reduction {
        strikes: option("strikes").map(|text| parse_list::<Strike>(text).expect("strikes")),
        operations: option("operations").map(|text| parse_list::<Start>(text).expect("operations")),
        ..reduction.clone()
    };
    assert_eq!(named, reduction);
}

#[test]
fn making_a_run_smaller_ends_when_it_is_told_to() {
    let (_, plan, outcome) = found(Sabotage::StaleReads, 20);
    let violation = outcome.violation.expect("just found");
    let mut runs = 0;
    let (_, smaller) = shrink_while(&plan, &Reduction::default(), &violation, 300, &mut |_| {
        runs += 1;
        runs < 4
    });
    assert_eq!((runs, smaller.rule), (4, violation.rule));
}

#[test]
fn the_standard_cluster_serves_fifty_operations_a_second() {
    let outcome = run(&Plan::standard(1, Duration::from_mins(2)), None);
    assert_eq!(outcome.violation, None);
    let rate = outcome.operations.1 as f64 / (outcome.simulated as f64 / 1e9);
    assert!((45.0..=55.0).contains(&rate), "{rate} operations a second");
}
