//! A replica whose disk has lost a part of what it acknowledged, and knows it (`damage.rs`).

mod support;

use bowline_raft::{AppendOutcome, Body, Effect, Index, RoleExplanation, Write};
use support::bench::*;

/// What is left is one entry of term 1; the log had reached index 3 in term 2.
fn damaged() -> Bench {
    one_of_three().log(&[1]).term(2).suspect(position(3, 2)).start()
}

fn votes(effects: &[Effect]) -> Vec<bool> {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::Send { message, .. } => Some(&message.body),
        _ => None,
    });
    sent.filter_map(|body| match body {
        Body::PreVoteReply { granted } | Body::RequestVoteReply { granted } => Some(*granted),
        _ => None,
    })
    .collect()
}

fn is_repaired(effects: &[Effect]) -> bool {
    writes(effects).contains(&&Write::Repaired)
}

#[test]
fn a_suspect_replica_votes_for_nobody() {
    let mut bench = damaged();
    bench.until_deadline();
    let last = position(9, 9);
    assert_eq!(votes(&bench.receive(N2, 3, Body::PreVote { last })), [false]);
    assert_eq!(votes(&bench.request_vote(N2, 3, last)), [false]);
    let transferred = Body::RequestVote { last, transfer: true };
    assert_eq!(votes(&bench.receive(N3, 4, transferred)), [false]);
    assert_eq!(bench.raft.voted_for(), None);
    assert_eq!(bench.raft.term().0, 4, "terms spread all the same");
}

#[test]
fn a_suspect_replica_never_stands() {
    let mut bench = damaged();
    let last_possible = position(3, 2);
    assert!(bench.wait(ms(5_000)).iter().all(|effect| !matches!(effect, Effect::Send { .. })));
    assert_eq!(bench.raft.explain().role, RoleExplanation::Suspect { last_possible });
    bench.heartbeat(N2, 2);
    bench.receive(N2, 2, Body::TimeoutNow);
    assert_eq!(bench.raft.term().0, 2, "nor does it when it is told to");
}

#[test]
fn it_is_repaired_where_its_log_is_as_up_to_date_as_it_ever_was() {
    let mut bench = damaged();
    let effects = bench.append(N2, 2, append(position(1, 1), entries(2, &[2]), 1));
    assert!(!is_repaired(&effects), "index 3 may be missing");
    assert_eq!(bench.raft.suspect(), Some(position(3, 2)));
    let effects = bench.append(N2, 2, append(position(2, 2), entries(3, &[2]), 1));
    let stream: Vec<_> = writes(&effects);
    assert_eq!(stream, [&Write::Append(entries(3, &[2])), &Write::Repaired], "in this order");
    assert_eq!(bench.raft.suspect(), None);
    bench.wait(ms(149));
    assert!(!is_repaired(&bench.heartbeat(N2, 2)), "once is enough");
    bench.until_deadline();
    assert_eq!(votes(&bench.request_vote(N3, 9, position(3, 2))), [true]);
}

#[test]
fn an_entry_of_a_later_leader_is_as_good() {
    // Nobody knows how far it reached, but in term 2 it was.
    let mut bench = one_of_three().log(&[1]).term(2).suspect(position(u64::MAX, 2)).start();
    let effects = bench.append(N2, 2, append(position(1, 1), entries(2, &[2, 2, 2]), 1));
    assert!(!is_repaired(&effects));
    let effects = bench.append(N3, 3, append(position(4, 2), entries(5, &[3]), 1));
    assert!(is_repaired(&effects), "that leader was elected without it, and has all that is committed");
}

#[test]
fn what_the_leader_has_not_confirmed_repairs_nothing() {
    // Its own entries reach far enough, but they are not the leader's.
    let mut bench = one_of_three().log(&[1, 2, 2]).term(2).suspect(position(2, 2)).start();
    assert!(!is_repaired(&bench.heartbeat(N2, 3)));
    assert_eq!(bench.raft.suspect(), Some(position(2, 2)));
    assert!(is_repaired(&bench.append(N2, 3, append(position(1, 1), entries(2, &[3]), 1))));
}

#[test]
fn a_snapshot_repairs_too() {
    let mut bench = damaged();
    let effects = bench.install(N2, 3, position(7, 3), simple(&[1, 2, 3]));
    assert!(is_repaired(&effects));
    assert_eq!(bench.raft.suspect(), None);
}

#[test]
fn the_leader_is_told_that_old_acknowledgements_are_void() {
    let mut bench = damaged();
    let effects = bench.append(N2, 2, append(position(3, 2), vec![], 1));
    let (prev_index, hint) = (Index(3), position(1, 1));
    let [AppendOutcome::Damaged { loss_id, .. }] = outcomes(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!(outcomes(&effects), [AppendOutcome::Damaged { prev_index, hint, loss_id }]);
    let again = bench.append(N2, 2, append(position(4, 2), vec![], 1));
    assert!(matches!(outcomes(&again)[..], [AppendOutcome::Damaged { loss_id: same, .. }] if same == loss_id));
}

fn outcomes(effects: &[Effect]) -> Vec<AppendOutcome> {
    let replies = effects.iter().filter_map(|effect| match effect {
        Effect::Send { message, .. } => match &message.body {
            Body::AppendEntriesReply(reply) => Some(reply.outcome),
            _ => None,
        },
        _ => None,
    });
    replies.collect()
}

#[test]
fn a_leader_counts_only_what_a_damaged_peer_acknowledges_anew() {
    let mut leader = one_of_three().lead_and_commit();
    let before = leader.heartbeat_to(N2);
    let (prev_index, hint) = (before.prev.index, position(0, 0));
    let damaged = AppendOutcome::Damaged { prev_index, hint, loss_id: 7 };
    let effects = leader.answer(N2, &before, damaged);
    let again = appends_to(&effects, N2)[0].clone();
    assert_eq!(again.prev, position(0, 0), "it is sent everything anew");
    assert_ne!(again.session, before.session);
    let matched = |leader: &Bench| leader.raft.explain().peers.iter().find(|peer| peer.id == N2).unwrap().match_index;
    assert_eq!(matched(&leader), Index(0));
    // An acknowledgement from before the loss comes late.
    leader.accept(N2, &before);
    assert_eq!(matched(&leader), Index(0));
    leader.accept(N2, &again);
    assert_eq!(matched(&leader), leader.raft.log().last().index);
    // So does the report, in the session that it began: it is a late refusal.
    leader.answer(N2, &again, damaged);
    assert_eq!(matched(&leader), leader.raft.log().last().index);
    // The next loss is another one.
    leader.answer(N2, &again, AppendOutcome::Damaged { prev_index, hint, loss_id: 8 });
    assert_eq!(matched(&leader), Index(0));
}

#[test]
fn a_loss_in_a_later_term_than_the_replicas_is_a_contradiction() {
    let setup = one_of_three().log(&[1]).suspect(position(3, 2));
    let error = bowline_raft::Raft::new(setup.config, setup.recovered, bowline_raft::Time::ZERO);
    let error = error.expect_err("its term is 1");
    assert!(error.to_string().contains("the lost entries are of a later term"), "{error}");
}

#[test]
fn a_transfer_that_the_loss_interrupts_begins_anew() {
    let mut leader = one_of_three().with(|config| config.max_retained_bytes = 0).lead_and_commit();
    leader.propose("x");
    leader.all_accept();
    let before = leader.heartbeat_to(N2);
    let index = leader.raft.last_applied();
    leader.step(bowline_raft::Input::SnapshotStored { index });
    let fetched = |effects: &[Effect]| -> Vec<bowline_raft::Session> {
        let sessions = effects.iter().filter_map(|effect| match effect {
            Effect::FetchSnapshot { to, session } if *to == N2 => Some(*session),
            _ => None,
        });
        sessions.collect()
    };
    let (prev_index, hint) = (before.prev.index, position(0, 0));
    let first = leader.answer(N2, &before, AppendOutcome::Damaged { prev_index, hint, loss_id: 1 });
    let [session] = fetched(&first)[..] else { panic!("{first:?}") };
    // It crashes while the snapshot is on its way, and loses more.
    let heartbeat = leader.heartbeat_to(N2);
    assert_eq!(heartbeat.session, session);
    let again = leader.answer(N2, &heartbeat, AppendOutcome::Damaged { prev_index, hint, loss_id: 2 });
    assert!(matches!(fetched(&again)[..], [other] if other > session), "{again:?}");
}

#[test]
fn a_transfer_waits_for_a_target_that_has_lost_what_it_had() {
    let mut leader = one_of_three().lead_and_commit();
    let before = leader.heartbeat_to(N2);
    leader.accept(N2, &before);
    let told = leader.transfer(Some(N2));
    let is_told = |effect: &Effect| matches!(effect, Effect::Send { message, .. } if message.body == Body::TimeoutNow);
    assert!(told.iter().any(is_told));
    let (prev_index, hint) = (before.prev.index, position(0, 0));
    leader.answer(N2, &before, AppendOutcome::Damaged { prev_index, hint, loss_id: 7 });
    // It has nothing to tell the target now, and must not ask to be woken for it again and again.
    for _ in 0..20 {
        leader.until_deadline();
        assert!(leader.raft.next_deadline() > leader.now, "it asks to be woken at once");
    }
}
