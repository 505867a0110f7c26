//! Section 5.3 of the paper and the AppendEntries part of Figure 2, sentence by sentence.

mod support;

use bowline_raft::{AppendOutcome, Body, Effect, Index, ReadKind, Session, Term, Write};
use support::bench::*;

/// Entries that don't follow each other, or `prev`, or have a term later than the leader's, are
/// taken from nobody, wherever in the range of numbers they are (S25).
#[test]
fn a_malformed_append_is_ignored() {
    let mut bench = one_of_three().term(3).start();
    let gap = vec![entry(1, 1), entry(3, 1)];
    let falling = vec![entry(1, 2), entry(2, 1)];
    let cases = [
        append(position(0, 0), gap, 0),
        append(position(0, 0), falling, 0),
        append(position(0, 0), entries(2, &[1]), 0),
        append(position(0, 0), entries(0, &[1]), 0),
        append(position(0, 0), entries(1, &[4]), 0),
        append(position(7, 4), vec![], 0),
        append(position(u64::MAX, 1), entries(0, &[1]), 0),
        append(position(u64::MAX, 1), vec![entry(u64::MAX, 1)], 0),
    ];
    for case in cases {
        assert!(bench.append(N2, 3, case).is_empty());
    }
    let mut no_session = append(position(0, 0), entries(1, &[1]), 0);
    no_session.session = Session(0);
    assert!(bench.append(N2, 3, no_session).is_empty());
    assert_eq!(bench.raft.log().last().index, Index(0));
}

/// A follower that refuses what it acknowledged in the same session has lost its promises. It is
/// not asked again at the speed of the network, only when a retry is due.
#[test]
fn a_follower_that_lost_what_it_acknowledged_is_not_asked_in_a_tight_loop() {
    let mut bench = one_of_three().lead_and_commit();
    bench.propose("x");
    bench.all_accept();
    let effects = bench.propose("y");
    let first = appends_to(&effects, N2)[0].clone();
    // The retry falls back to a probe at what matches; the wiped follower refuses that too.
    let effects = bench.wait(ms(60));
    let again = appends_to(&effects, N2).into_iter().find(|append| !append.entries.is_empty());
    let again = again.expect("a retry").clone();
    assert_eq!(again.prev, first.prev);
    for _ in 0..5 {
        let effects = bench.reject(N2, &again, position(0, 0));
        assert!(appends_to(&effects, N2).is_empty());
    }
}

/// AppendEntries, receiver 1: reply false if term < currentTerm; the answer tells the current one.
#[test]
fn an_append_of_an_earlier_term_is_refused() {
    let mut bench = one_of_three().term(5).start();
    let effects = bench.append(N2, 4, append(position(0, 0), entries(1, &[4]), 1));
    assert!(matches!(reply(&effects), AppendOutcome::Rejected { .. }));
    assert!(matches!(&effects[0], Effect::Send { message, .. } if message.term == Term(5)));
    assert!(bench.terms().is_empty() && bench.raft.leader().is_none());
}

/// Receiver 2: reply false if the log has no entry at prevLogIndex whose term matches.
#[test]
fn an_append_after_an_unknown_entry_is_refused() {
    for prev in [position(3, 2), position(2, 2), position(9, 2)] {
        let mut bench = one_of_three().log(&[1, 1]).term(2).start();
        let effects = bench.append(N2, 2, append(prev, entries(prev.index.0 + 1, &[2]), 9));
        assert!(matches!(reply(&effects), AppendOutcome::Rejected { prev_index, .. } if prev_index == prev.index));
        assert_eq!(bench.terms(), [1, 1]);
        assert_eq!(bench.raft.commit_index(), Index(0), "nothing is verified, so nothing is committed");
    }
}

/// Receiver 3: an existing entry that conflicts is deleted, with all that follow it.
#[test]
fn a_conflicting_entry_is_deleted_with_all_that_follow() {
    let mut bench = one_of_three().log(&[1, 1, 1, 1]).term(2).start();
    let effects = bench.append(N2, 2, append(position(1, 1), entries(2, &[2]), 0));
    assert_eq!(bench.terms(), [1, 2]);
    assert_eq!(reply(&effects), accepted(2));
    let list = writes(&effects);
    assert_eq!(list, [&Write::Truncate { from: Index(2) }, &Write::Append(entries(2, &[2]))]);
}

/// Receiver 3, the other half: entries that match are left alone, with all that follow (S21).
#[test]
fn a_matching_entry_is_left_alone_with_all_that_follow() {
    let mut bench = one_of_three().log(&[1, 1, 1, 1]).start();
    let effects = bench.append(N2, 1, append(position(1, 1), entries(2, &[1]), 0));
    assert_eq!(reply(&effects), accepted(2), "only what was sent is known to match");
    assert!(writes(&effects).is_empty());
    assert_eq!(bench.terms(), [1, 1, 1, 1]);
}

/// Receiver 4: append any new entries not already in the log.
#[test]
fn only_new_entries_are_appended() {
    let mut bench = one_of_three().log(&[1, 1]).start();
    let effects = bench.append(N2, 1, append(position(0, 0), entries(1, &[1, 1, 1, 1]), 0));
    assert_eq!(reply(&effects), accepted(4));
    assert_eq!(writes(&effects), [&Write::Append(entries(3, &[1, 1]))]);
}

/// Receiver 5: commitIndex = min(leaderCommit, index of last new entry) (S22).
#[test]
fn a_follower_commits_no_further_than_what_was_verified() {
    let mut bench = one_of_three().log(&[1, 1, 1, 1]).term(2).start();
    let effects = bench.append(N2, 2, append(position(1, 1), entries(2, &[1]), 4));
    assert_eq!(bench.raft.commit_index(), Index(2));
    assert_eq!(applied(&effects), [1, 2]);
    bench.append(N2, 2, append(position(2, 1), vec![], 1));
    assert_eq!(bench.raft.commit_index(), Index(2), "it never goes back");
    bench.append(N2, 2, append(position(4, 1), vec![], 3));
    assert_eq!(bench.raft.commit_index(), Index(3));
}

/// Figure 2: persistent state is updated before responding: the acknowledgement waits for the entries.
#[test]
fn an_acknowledgement_waits_for_the_disk() {
    let mut bench = one_of_three().term(1).start();
    bench.manual_disk = true;
    let effects = bench.append(N2, 1, append(position(0, 0), entries(1, &[1]), 0));
    assert_eq!(waits_for(&effects), [Some(bench.written)]);
    let effects = bench.append(N2, 1, append(position(1, 1), vec![], 0));
    assert_eq!(waits_for(&effects), [Some(bench.written)], "an empty one promises the same (S32)");
    bench.sync();
    let effects = bench.append(N2, 1, append(position(1, 1), vec![], 0));
    assert_eq!(waits_for(&effects), [None]);
}

/// S10: whatever becomes of its message, the leader was heard.
#[test]
fn a_refused_append_still_resets_the_election_timer() {
    let mut bench = one_of_three().term(1).start();
    for _ in 0..10 {
        bench.append(N2, 1, append(position(9, 1), vec![], 0));
        assert!(sent(&bench.wait(ms(149))).is_empty());
    }
    assert_eq!(bench.raft.leader(), Some(N2));
}

/// Figure 2, leaders: nextIndex starts at the index just after the last one in the leader's log.
#[test]
fn a_new_leader_begins_after_its_own_log() {
    let mut bench = one_of_three().log(&[1, 1, 1]).start();
    let effects = bench.win();
    let append = appends_to(&effects, N2)[0];
    assert_eq!((append.prev, append.entries[0].position()), (position(3, 1), position(4, 2)));
}

/// Figure 2, leaders: a command is appended to the local log, and sent to the followers at once; the
/// leader's own disk works at the same time (thesis 10.2.1).
#[test]
fn a_command_is_written_and_sent_at_the_same_time() {
    let mut bench = one_of_three().lead_and_commit();
    bench.manual_disk = true;
    let effects = bench.propose("x");
    assert_eq!(writes(&effects).len(), 1);
    for id in [N2, N3] {
        assert_eq!(appends_to(&effects, id)[0].entries[0].position(), position(2, 1));
    }
    assert_eq!(waits_for(&effects), [None, None]);
}

/// Thesis 10.2.1: the leader may commit before its own disk has the entry, if a majority of
/// followers have it, but never counts itself before.
#[test]
fn a_leader_counts_itself_only_for_what_is_on_its_disk() {
    let mut bench = one_of_three().lead_and_commit();
    bench.manual_disk = true;
    let effects = bench.propose("x");
    let (to_n2, to_n3) = (appends_to(&effects, N2)[0].clone(), appends_to(&effects, N3)[0].clone());
    bench.accept(N2, &to_n2);
    assert_eq!(bench.raft.commit_index(), Index(1), "n2 alone is no majority");
    let effects = bench.accept(N3, &to_n3);
    assert_eq!(bench.raft.commit_index(), Index(2));
    assert!(applied(&effects).is_empty(), "it could still forget it itself (S71)");
    assert_eq!(applied(&bench.sync()), [2]);
}

/// Figure 2, leaders: if successful, update nextIndex and matchIndex for the follower.
#[test]
fn an_acknowledgement_moves_match_and_next_index() {
    let mut bench = one_of_three().lead_and_commit();
    let effects = bench.propose("x");
    let first = appends_to(&effects, N2)[0].clone();
    bench.accept(N2, &first);
    assert_eq!(bench.raft.explain().peers[0].match_index, Index(2));
    let effects = bench.propose("y");
    assert_eq!(appends_to(&effects, N2)[0].prev, position(2, 1));
}

/// 5.3: after a rejection the leader decrements nextIndex and retries; here by whole terms.
#[test]
fn a_refusal_moves_next_index_back_and_is_answered_at_once() {
    let mut bench = one_of_three().log(&[1, 1, 2, 2]).start();
    let effects = bench.win();
    let first = appends_to(&effects, N2)[0].clone();
    let effects = bench.reject(N2, &first, position(2, 1));
    let again = appends_to(&effects, N2);
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].prev, again[0].entries.len()), (position(2, 1), 3));
}

/// 5.3: the search for the point where two logs part takes a probe for each term, not for each of
/// ten thousand entries (S38).
#[test]
fn ten_thousand_divergent_entries_cost_a_probe_for_each_term() {
    let terms = |list: &[u64]| list.iter().flat_map(|term| vec![*term; 2000]).collect::<Vec<u64>>();
    let mine = terms(&[1, 3, 5, 7, 9]);
    let theirs = terms(&[1, 2, 4, 6, 8]);
    let mut leader = one_of_three().log(&mine).term(10).start();
    let mut follower = Setup::new(N2, simple(&[1, 2, 3])).log(&theirs).term(10).start();
    let effects = leader.win();
    let term = leader.raft.term().0;
    let mut next = Some(appends_to(&effects, N2)[0].clone());
    let mut probes = 0;
    while let Some(probe) = next {
        probes += 1;
        let outcome = reply(&follower.append(N1, term, probe.clone()));
        let effects = leader.answer(N2, &probe, outcome);
        let refused = matches!(outcome, AppendOutcome::Rejected { .. });
        next = appends_to(&effects, N2).first().filter(|_| refused).map(|append| (*append).clone());
    }
    assert!(probes <= 6, "{probes} probes for five terms");
    assert_eq!(follower.terms()[..2000], mine[..2000]);
    assert_eq!(follower.raft.log().term_at(Index(2001)), Some(Term(3)));
}

/// 5.3: the leader retries AppendEntries indefinitely, less and less often, with heartbeats between.
#[test]
fn a_leader_retries_for_ever() {
    let mut bench = one_of_three().lead_and_commit();
    bench.propose("x");
    let mut retries = 0;
    for _ in 0..100 {
        let effects = bench.wait(ms(50));
        assert!(!appends_to(&effects, N3).is_empty(), "n3 hears of its leader all the time");
        retries += appends_to(&effects, N3).iter().filter(|append| !append.entries.is_empty()).count();
        let n2 = appends_to(&effects, N2).last().map(|append| (*append).clone()).expect("a heartbeat");
        bench.accept(N2, &n2);
    }
    assert!((5..40).contains(&retries), "{retries} retries in 5 s");
}

/// 5.2: heartbeats are sent in idle periods.
#[test]
fn an_idle_leader_sends_heartbeats() {
    let mut bench = one_of_three().lead_and_commit();
    let effects = bench.wait(ms(50));
    for id in [N2, N3] {
        let list = appends_to(&effects, id);
        assert_eq!(list.len(), 1);
        assert!(list[0].entries.is_empty());
    }
}

/// Thesis 10.2.2: entries are sent ahead of their acknowledgements, within the window of messages.
#[test]
fn a_pipeline_is_bounded_in_messages() {
    let mut bench = one_of_three().with(|config| config.max_inflight_messages = 3).lead_and_commit();
    let mut first = None;
    for (count, command) in ["a", "b", "c", "d"].iter().enumerate() {
        let effects = bench.propose(command);
        let list = appends_to(&effects, N2);
        assert_eq!(list.len(), usize::from(count < 3));
        first = first.or(list.first().map(|append| (*append).clone()));
    }
    let effects = bench.accept(N2, &first.expect("a was sent"));
    assert_eq!(appends_to(&effects, N2)[0].entries[0].index, Index(5), "the window opens again");
}

/// The same in bytes.
#[test]
fn a_pipeline_is_bounded_in_bytes() {
    let mut bench = one_of_three().with(|config| config.max_inflight_bytes = 200).lead_and_commit();
    let sent: Vec<usize> =
        (0..4).map(|_| appends_to(&bench.propose("0123456789012345678901234567890123456789"), N2).len()).collect();
    assert_eq!(sent, [1, 1, 0, 0], "104 bytes each");
}

/// One message is bounded in entries and in bytes; a single entry may be larger.
#[test]
fn a_message_is_bounded_in_entries_and_bytes() {
    let setup = |change: fn(&mut bowline_raft::Config)| one_of_three().log(&[1; 10]).with(change).lead();
    let mut by_entries = setup(|config| config.max_message_entries = 4);
    let mut by_bytes = setup(|config| config.max_message_bytes = 150);
    let mut tiny = setup(|config| config.max_message_bytes = 1);
    for (bench, expected) in [(&mut by_entries, 4), (&mut by_bytes, 2), (&mut tiny, 1)] {
        let probe = bench.heartbeat_to(N2);
        let effects = bench.reject(N2, &probe, position(0, 0));
        assert_eq!(appends_to(&effects, N2)[0].entries.len(), expected);
    }
}

/// S27: doubled, late and reordered answers move nothing back.
#[test]
fn late_answers_move_nothing_back() {
    let mut bench = one_of_three().lead_and_commit();
    let (a, b) = (bench.propose("a"), bench.propose("b"));
    let (a, b) = (appends_to(&a, N2)[0].clone(), appends_to(&b, N2)[0].clone());
    bench.accept(N2, &b);
    assert_eq!(bench.raft.commit_index(), Index(3));
    for effects in [bench.accept(N2, &a), bench.accept(N2, &b), bench.reject(N2, &a, position(0, 0))] {
        assert!(sent(&effects).is_empty());
    }
    assert_eq!(bench.raft.explain().peers[0].match_index, Index(3));
}

/// An acknowledgement of what the leader never had, of another session, or from a stranger counts
/// for nothing.
#[test]
fn impossible_acknowledgements_are_ignored() {
    let mut bench = one_of_three().lead_and_commit();
    let effects = bench.propose("x");
    let good = appends_to(&effects, N2)[0].clone();
    bench.answer(N2, &good, accepted(99));
    let foreign = bowline_raft::AppendEntries { session: Session(77), ..good.clone() };
    bench.accept(N2, &foreign);
    bench.accept(bowline_raft::NodeId(9), &good);
    let future = bowline_raft::AppendEntries { round: bowline_raft::Round(50), ..good.clone() };
    bench.accept(N2, &future);
    assert_eq!(bench.raft.commit_index(), Index(1));
    bench.accept(N2, &good);
    assert_eq!(bench.raft.commit_index(), Index(2));
}

/// Thrifty: new entries go to a bare majority at once, to the others with their next heartbeat.
#[test]
fn thrifty_sends_to_a_bare_majority_first() {
    let mut bench = one_of_five().with(|config| config.thrifty = Some(ms(20))).lead_and_commit();
    let effects = bench.propose("x");
    let chosen: Vec<_> = sent(&effects).iter().map(|(to, _)| *to).collect();
    assert_eq!(chosen.len(), 2, "with the leader itself three of five");
    for id in &chosen {
        let append = appends_to(&effects, *id)[0].clone();
        bench.accept(*id, &append);
    }
    assert_eq!(bench.raft.commit_index(), Index(2));
    let effects = bench.wait(ms(50));
    for id in [N2, N3, N4, N5].iter().filter(|id| !chosen.contains(id)) {
        assert_eq!(appends_to(&effects, *id)[0].entries.len(), 1);
    }
}

/// Thrifty: a member of the bare majority that stays silent is replaced after the delay.
#[test]
fn thrifty_replaces_a_silent_member() {
    let mut bench = one_of_five().with(|config| config.thrifty = Some(ms(20))).lead_and_commit();
    // A read sends everyone a heartbeat, so that none, which would bring the entry too, is due soon.
    bench.read(ReadKind::Quorum);
    let effects = bench.propose("x");
    let chosen: Vec<_> = sent(&effects).iter().map(|(to, _)| *to).collect();
    let append = appends_to(&effects, chosen[0])[0].clone();
    bench.accept(chosen[0], &append);
    let effects = bench.wait(ms(20));
    let substitutes: Vec<_> = sent(&effects).iter().map(|(to, _)| *to).filter(|to| !chosen.contains(to)).collect();
    assert_eq!(substitutes.len(), 1);
    let append = appends_to(&effects, substitutes[0])[0].clone();
    bench.accept(substitutes[0], &append);
    assert_eq!(bench.raft.commit_index(), Index(2));
}

/// Thrifty: who lacks entries of earlier terms gets them with each of its answers, also from a leader that has restarted
/// and knows of no commit. Found by a simulated cluster (seed 7469): one message a heartbeat, to a peer without which there was no
/// quorum.
#[test]
fn thrifty_lets_nobody_wait_who_is_behind_a_new_leader() {
    let frugal = |config: &mut bowline_raft::Config| {
        (config.thrifty, config.max_message_entries, config.max_inflight_messages) = (Some(ms(20)), 1, 1);
    };
    let mut bench = one_of_five().log(&[1, 1, 1, 1]).term(1).with(frugal).lead();
    let probe = bench.heartbeat_to(N3);
    bench.reject(N3, &probe, position(1, 1));
    // What is sent now is answered, and so on, without any heartbeat between.
    let mut next = bench.heartbeat_to(N3);
    for index in 2..=5 {
        assert_eq!(next.entries.iter().map(|entry| entry.index.0).collect::<Vec<_>>(), [index]);
        let effects = bench.answer(N3, &next, accepted(index));
        match appends_to(&effects, N3).first() {
            Some(append) => next = (*append).clone(),
            None => assert_eq!(index, 5, "it has the blank entry, and with it all"),
        }
    }
}

/// 5.3: the leader includes its commit index in heartbeats too; with eager commit it does at once.
#[test]
fn followers_learn_what_is_committed() {
    let mut bench = one_of_three().lead_and_commit();
    bench.propose("x");
    bench.all_accept();
    assert_eq!(bench.heartbeat_to(N2).commit_index, Index(2));
    let mut eager = one_of_three().with(|config| config.eager_commit = true).lead_and_commit();
    let effects = eager.propose("x");
    let append = appends_to(&effects, N2)[0].clone();
    let effects = eager.accept(N2, &append);
    assert!(
        sent(&effects).iter().all(|(_, body)| matches!(body, Body::AppendEntries(a) if a.commit_index == Index(2)))
    );
    assert_eq!(sent(&effects).len(), 2);
}
