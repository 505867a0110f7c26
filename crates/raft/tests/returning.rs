//! A replica that comes back asks its peers what they remember of it, and they tell (`returning.rs`, D14).

mod support;

use bowline_raft::{AppendOutcome, Body, Effect, Found, HardState, NodeId, Position, RoleExplanation, Term, Write};
use support::bench::*;

/// One of three that comes back with this log, in term 2.
fn returned(terms: &[u64]) -> Bench {
    one_of_three().log(terms).term(2).with(|config| config.return_check = true).restart()
}

/// A leader of term 1 that remembers, to which everybody was introduced; its log is at 1@1.
fn leader() -> Bench {
    let mut bench = one_of_three().with(|config| config.return_check = true).restart();
    let start_id = asked(&bench.until_deadline())[0].1;
    for id in [N2, N3] {
        bench.receive(id, 0, Body::Remembered { start_id, missing: None, leads: None });
    }
    bench.wait(ms(50));
    bench.win();
    bench.all_accept();
    bench
}

/// Whom it asks, as which start, with what it has found.
fn asked(effects: &[Effect]) -> Vec<(NodeId, u64, Found)> {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to, message, .. } => Some((*to, &message.body)),
        _ => None,
    });
    sent.filter_map(|(to, body)| match body {
        Body::Returned { start_id, found } => Some((to, *start_id, *found)),
        _ => None,
    })
    .collect()
}

fn found(term: u64, voted_for: Option<NodeId>, last: Position) -> Found {
    Found { hard_state: HardState { term: Term(term), voted_for }, last }
}

/// What `leader` says to `N2`, which returns with this.
fn told(bench: &mut Bench, found: Found) -> (Option<Term>, Option<Position>) {
    let effects = bench.receive(N2, found.hard_state.term.0, Body::Returned { start_id: 5, found });
    match sent_to(&effects, N2)[..] {
        [Body::Remembered { start_id: 5, missing, leads }] => (*missing, *leads),
        ref other => panic!("{other:?}"),
    }
}

fn remembered(
    bench: &mut Bench,
    from: NodeId,
    term: u64,
    missing: Option<u64>,
    leads: Option<Position>,
) -> Vec<Effect> {
    let start_id = asked(&bench.receive(NodeId(9), 0, Body::TimeoutNow))[0].1;
    bench.receive(from, term, Body::Remembered { start_id, missing: missing.map(Term), leads })
}

#[test]
fn whoever_starts_says_what_it_has_found_and_nothing_else() {
    let mut bench = returned(&[1, 2]);
    let asks = asked(&bench.until_deadline());
    let expected = found(2, None, position(2, 2));
    assert_eq!(asks.iter().map(|(to, _, found)| (*to, *found)).collect::<Vec<_>>(), [(N2, expected), (N3, expected)]);
    // A leader speaks, and is asked as well: what it said is lost.
    let effects = bench.append(N2, 2, append(position(2, 2), entries(3, &[2]), 1));
    assert!(matches!(sent_to(&effects, N2)[..], [Body::Returned { .. }]), "{effects:?}");
    assert_eq!((bench.raft.log().last(), bench.raft.leader()), (position(2, 2), None));
    // Who is silent is asked again.
    assert!(asked(&bench.wait(ms(200))).len() >= 4);
}

#[test]
fn without_the_check_nobody_is_asked() {
    let mut bench = one_of_three().log(&[1, 2]).restart();
    assert!(asked(&bench.wait(ms(100))).is_empty());
    assert!(bench.raft.has_met(N2));
}

#[test]
fn there_is_no_vote_before_a_quorum_has_answered() {
    let mut bench = returned(&[1]);
    bench.wait(ms(200));
    assert!(matches!(&bench.raft.explain().role, RoleExplanation::Returning { silent } if silent[..] == [N2, N3]));
    let effects = bench.request_vote(N2, 3, position(9, 3));
    assert!(matches!(sent_to(&effects, N2)[..], [Body::Returned { .. }]), "it doesn't even hear it");
    assert_eq!(bench.raft.term(), Term(2));
    remembered(&mut bench, N2, 2, None, None);
    let effects = bench.request_vote(N2, 3, position(9, 3));
    assert_eq!(sent_to(&effects, N2), [&Body::RequestVoteReply { granted: true }]);
}

#[test]
fn an_old_configuration_of_more_voters_delays_the_vote_and_does_not_prevent_it() {
    let mut bench = one_of_five().log(&[1]).with(|config| config.return_check = true).restart();
    bench.wait(ms(10));
    remembered(&mut bench, N2, 1, None, None);
    let effects = bench.receive(N2, 1, Body::PreVote { last: position(9, 1) });
    assert_eq!(sent_to(&effects, N2), [&Body::PreVoteReply { granted: false }]);
    bench.wait(ms(590));
    let effects = bench.request_vote(N2, 2, position(9, 1));
    assert_eq!(sent_to(&effects, N2), [&Body::RequestVoteReply { granted: true }], "one of four is enough then");
}

#[test]
fn an_answer_to_another_start_is_none() {
    let mut bench = returned(&[1]);
    bench.receive(N2, 7, Body::Remembered { start_id: 1, missing: Some(Term(7)), leads: None });
    assert!(!bench.raft.has_met(N2));
    assert_eq!((bench.raft.term(), bench.raft.suspect()), (Term(2), None));
}

#[test]
fn a_leader_remembers_what_it_was_acknowledged() {
    let mut bench = leader();
    bench.propose("a");
    bench.all_accept();
    let last = position(2, 1);
    assert_eq!(told(&mut bench, found(1, Some(N1), last)), (None, Some(last)));
    assert_eq!(told(&mut bench, found(1, Some(N1), position(1, 1))), (Some(Term(1)), Some(last)), "an entry less");
    assert_eq!(told(&mut bench, found(0, None, Position::ORIGIN)), (Some(Term(1)), Some(last)), "an earlier term");
    assert_eq!(
        told(&mut bench, found(2, None, position(1, 1))),
        (None, Some(last)),
        "a later one may have replaced it"
    );
}

#[test]
fn a_candidate_remembers_a_vote() {
    let mut bench = leader();
    let last = position(1, 1);
    assert_eq!(told(&mut bench, found(1, None, last)).0, Some(Term(1)));
    assert_eq!(told(&mut bench, found(1, Some(N3), last)).0, Some(Term(1)));
    assert_eq!(told(&mut bench, found(1, Some(N1), last)).0, None);
}

#[test]
fn a_follower_remembers_what_its_leader_kept() {
    let mut bench = returned(&[1]);
    bench.wait(ms(10));
    remembered(&mut bench, N2, 2, None, None);
    let mut entries = append(position(1, 1), entries(2, &[2, 2]), 1);
    entries.durable_index = bowline_raft::Index(2);
    bench.append(N2, 2, entries);
    assert_eq!(told(&mut bench, found(2, Some(N2), position(2, 2))), (None, None));
    assert_eq!(told(&mut bench, found(2, Some(N2), position(1, 1))), (Some(Term(2)), None));
}

#[test]
fn more_than_there_is_was_never_acknowledged() {
    let mut bench = leader();
    let heartbeat = bench.heartbeat_to(N2);
    bench.answer(N2, &heartbeat, AppendOutcome::Accepted { match_index: bowline_raft::Index(u64::MAX - 1) });
    assert_eq!(told(&mut bench, found(1, Some(N1), position(1, 1))).0, None);
}

#[test]
fn whoever_hears_of_a_loss_is_suspect_durably_until_a_later_leader_has_repaired_it() {
    let mut bench = returned(&[1]);
    bench.wait(ms(10));
    let effects = remembered(&mut bench, N3, 2, Some(4), None);
    let last_possible = position(u64::MAX, 4);
    assert_eq!(bench.raft.suspect(), Some(last_possible));
    let state = HardState { term: Term(4), voted_for: None };
    assert_eq!(writes(&effects), [&Write::HardState(state), &Write::Suspect { last_possible }]);
    bench.wait(ms(700));
    let effects = bench.request_vote(N3, 5, position(9, 4));
    assert_eq!(sent_to(&effects, N3), [&Body::RequestVoteReply { granted: false }]);
    let effects = bench.append(N3, 5, append(position(1, 1), entries(2, &[3, 5]), 1));
    assert!(writes(&effects).contains(&&Write::Repaired));
}

#[test]
fn the_leader_itself_tells_how_much_is_needed_and_has_the_vote() {
    let mut bench = returned(&[1]);
    bench.wait(ms(10));
    // Another one first: nobody knows how far it reached in term 2.
    remembered(&mut bench, N3, 2, Some(2), None);
    assert_eq!(bench.raft.suspect(), Some(position(u64::MAX, 2)));
    let last = position(3, 2);
    let effects = remembered(&mut bench, N2, 2, Some(2), Some(last));
    let state = HardState { term: Term(2), voted_for: Some(N2) };
    assert_eq!(writes(&effects), [&Write::Suspect { last_possible: last }, &Write::HardState(state)]);
    let effects = bench.append(N2, 2, append(position(1, 1), entries(2, &[2, 2]), 1));
    assert!(writes(&effects).contains(&&Write::Repaired), "that leader's term goes on, and so does the replica");
    // It has a vote again, but not in the term in which it may have given it.
    let effects = bench.request_vote(N3, 2, position(9, 2));
    assert_eq!(sent_to(&effects, N3), [&Body::RequestVoteReply { granted: false }]);
}

#[test]
fn a_disk_that_knows_its_own_loss_needs_no_telling() {
    let last_possible = position(3, 2);
    let setup = one_of_three().log(&[1]).term(2).suspect(last_possible);
    let mut bench = setup.with(|config| config.return_check = true).restart();
    bench.wait(ms(10));
    remembered(&mut bench, N2, 2, Some(2), None);
    assert_eq!(bench.raft.suspect(), Some(last_possible), "and not the whole of term 2");
}

/// Its disk could only say that 40 entries may have been there, and the leader stopped at the third: nobody could repair
/// the replica any more, and when the leader was removed, the two that were left could not elect another one (simulated
/// cluster, seed 627).
#[test]
fn a_leader_tells_how_little_a_damaged_disk_may_have_lost() {
    let setup = one_of_three().log(&[1]).term(2).voted_for(N2).suspect(position(40, 2));
    let mut bench = setup.with(|config| config.return_check = true).restart();
    bench.wait(ms(10));
    let last = position(3, 2);
    let effects = remembered(&mut bench, N2, 2, None, Some(last));
    assert_eq!(writes(&effects), [&Write::Suspect { last_possible: last }]);
    let effects = bench.append(N2, 2, append(position(1, 1), entries(2, &[2, 2]), 1));
    assert!(writes(&effects).contains(&&Write::Repaired));
}

#[test]
fn a_leader_with_a_longer_log_raises_no_bound() {
    let last_possible = position(3, 2);
    let setup = one_of_three().log(&[1]).term(2).voted_for(N2).suspect(last_possible);
    let mut bench = setup.with(|config| config.return_check = true).restart();
    bench.wait(ms(10));
    remembered(&mut bench, N2, 2, None, Some(position(9, 2)));
    assert_eq!(bench.raft.suspect(), Some(last_possible));
}

/// A replica was repaired by its leader, and heard only then from another peer how much it had once promised. Suspect
/// again, it refused its vote; the leader had died, and no majority was left without it (simulated cluster, seed 651).
#[test]
fn a_late_answer_takes_no_vote_from_a_replica_that_its_leader_has_repaired() {
    let mut bench = returned(&[1]);
    bench.wait(ms(10));
    let last = position(3, 2);
    remembered(&mut bench, N2, 2, Some(2), Some(last));
    let effects = bench.append(N2, 2, append(position(1, 1), entries(2, &[2, 2]), 1));
    assert!(writes(&effects).contains(&&Write::Repaired));
    remembered(&mut bench, N3, 2, Some(2), None);
    assert_eq!(bench.raft.suspect(), None);
}

#[test]
fn a_late_answer_counts_if_the_leader_has_more_than_the_replica() {
    let mut bench = returned(&[1]);
    bench.wait(ms(10));
    remembered(&mut bench, N2, 2, None, Some(position(3, 2)));
    bench.append(N2, 2, append(position(1, 1), entries(2, &[2]), 1));
    remembered(&mut bench, N3, 2, Some(2), None);
    assert_eq!(bench.raft.suspect(), Some(position(3, 2)));
}

/// The lost vote may have been for the leader.
#[test]
fn a_replica_whose_leader_needs_to_tell_nothing_keeps_the_vote_for_it() {
    let mut bench = returned(&[1]);
    bench.wait(ms(10));
    remembered(&mut bench, N2, 2, None, Some(position(1, 1)));
    bench.append(N2, 2, append(position(1, 1), entries(2, &[2]), 1));
    let effects = remembered(&mut bench, N3, 2, Some(2), None);
    assert_eq!(bench.raft.suspect(), None);
    let state = HardState { term: Term(2), voted_for: Some(N2) };
    assert_eq!(writes(&effects), [&Write::HardState(state)]);
}
