//! The comparison of the members' states: who is found out, and who is not.

use bowline_kv::store::*;
use bowline_node::StateMachine;

use crate::bench::*;

/// The states of members, which apply the same commands.
struct Members {
    states: Vec<(u64, Kv)>,
}

impl Members {
    fn founded(ids: &[u64]) -> Members {
        let mut members = Members { states: ids.iter().map(|id| (*id, Kv::new())).collect() };
        for id in ids {
            members.adopt(*id);
        }
        members
    }

    fn adopt(&mut self, id: u64) {
        let member = Member { id, peer_urls: vec![format!("http://host-{id}:2380")], ..Member::default() };
        self.all(&MemberRequest { change: Some(MemberChange::Adopt(member)) }.into());
    }

    /// All apply a command.
    fn all(&mut self, command: &Command) {
        self.states.iter_mut().for_each(|(_, state)| state.apply(command).map(|_| ()).expect("nothing forbids it"));
    }

    /// All apply a put, but one applies another.
    fn diverge(&mut self, wrong: u64) {
        for (id, state) in &mut self.states {
            state.put("k", if *id == wrong { "wrong" } else { "right" });
        }
    }

    fn mark(&mut self) {
        self.all(&step(CompareStep::Mark(())));
    }

    /// The members report what they owe.
    fn report(&mut self, members: &[u64]) {
        for id in members {
            while let Some(report) = self.owed(*id) {
                self.all(&step(report));
            }
        }
    }

    fn owed(&self, id: u64) -> Option<CompareStep> {
        self.state(id).store.report_of(id)
    }

    fn state(&self, id: u64) -> &Kv {
        let found = self.states.iter().find(|(member, _)| *member == id);
        &found.expect("it is a member").1
    }

    /// The members with the alarm CORRUPT, which all members know.
    fn corrupt(&self) -> Vec<u64> {
        let alarms = |state: &Kv| state.store.alarms().map(|alarm| (alarm.member, alarm.kind())).collect::<Vec<_>>();
        let all: Vec<_> = self.states.iter().map(|(_, state)| alarms(state)).collect();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "the members differ about alarms: {all:?}");
        let corrupt = all[0].iter().filter(|(_, kind)| *kind == AlarmKind::Corrupt);
        corrupt.map(|(member, _)| *member).collect()
    }

    fn scrub(&mut self) {
        self.states.iter_mut().for_each(|(_, state)| state.scrub());
    }
}

fn step(step: CompareStep) -> Command {
    CompareRequest { step: Some(step) }.into()
}

fn some_put() -> Command {
    put("key", "value").into()
}

#[test]
fn members_with_equal_states_agree() {
    let mut members = Members::founded(&[1, 2, 3]);
    assert_eq!(members.owed(1), None, "there was no mark");
    members.mark();
    members.all(&some_put());
    assert!(members.state(1).store.is_mark_due());
    members.mark();
    assert!(!members.state(1).store.is_mark_due());
    members.report(&[1, 2]);
    assert_eq!(members.state(3).store.agreed_at().0, 0);
    assert_eq!(members.state(3).store.marked_at().0, 6);
    members.report(&[3]);
    assert_eq!(members.state(1).store.agreed_at(), members.state(2).store.agreed_at());
    assert_eq!(members.state(1).store.agreed_at().0, 6);
    assert!(!members.state(1).store.is_mark_due(), "reports are no reason for the next mark");
    assert_eq!(members.corrupt(), []);
}

#[test]
fn the_member_that_differs_from_a_majority_is_corrupt() {
    for wrong in 1..=3 {
        let mut members = Members::founded(&[1, 2, 3]);
        members.mark();
        members.diverge(wrong);
        members.mark();
        let right = [1, 2, 3].map(|id| id % 3 + 1).into_iter().filter(|id| *id != wrong).collect::<Vec<_>>();
        members.report(&[right[0], wrong]);
        assert_eq!(members.corrupt(), [], "there is no majority yet");
        members.report(&[right[1]]);
        assert_eq!(members.corrupt(), [wrong]);
        let refused = members.states[0].1.try_put(put("k", "v"));
        assert_eq!(refused, Err(KvError::Corrupt));
        assert_eq!(members.state(1).store.agreed_at().0, 0);
    }
}

#[test]
fn an_alarm_that_was_deactivated_is_raised_again_while_the_state_differs() {
    let mut members = Members::founded(&[1, 2, 3]);
    members.mark();
    members.diverge(3);
    members.mark();
    members.report(&[1, 2, 3]);
    assert_eq!(members.corrupt(), [3]);
    let kind = AlarmKind::Corrupt.into();
    members.all(&AlarmRequest { member: 3, kind, automatic: false, active: false }.into());
    assert_eq!(members.corrupt(), []);
    assert!(members.state(1).store.is_mark_due());
    members.mark();
    members.report(&[1, 2, 3]);
    assert_eq!(members.corrupt(), [3]);
}

#[test]
fn a_report_that_was_answered_is_not_repeated() {
    let report = |at| Some(CompareStep::Effects(MemberChecksum { member: 1, at, checksum: 7 }));
    let mut reports = Reports::default();
    assert_eq!(reports.next(report(5)), report(5));
    assert_eq!(reports.next(report(5)), report(5), "there was no answer");
    reports.answered(report(5).expect("a report"));
    assert_eq!(reports.next(report(5)), None);
    assert_eq!(reports.next(report(9)), report(9));
    assert_eq!(reports.next(None), None);
}

#[test]
fn states_that_differ_in_leases_or_refusals_differ() {
    let ways: [fn(&mut Kv, bool); 3] = [
        |kv, wrong| _ = kv.grant(if wrong { 7 } else { 8 }, 60),
        |kv, wrong| _ = kv.try_put(PutRequest { ignore_value: wrong, value: bytes(""), ..put("none", "") }),
        |kv, wrong| _ = kv.compact(if wrong { 1 } else { 2 }),
    ];
    for way in ways {
        let mut members = Members::founded(&[1, 2, 3]);
        members.all(&some_put());
        members.mark();
        members.states.iter_mut().for_each(|(id, state)| way(state, *id == 2));
        members.mark();
        members.report(&[1, 2, 3]);
        assert_eq!(members.corrupt(), [2]);
    }
}

#[test]
fn without_a_majority_every_member_that_reported_is_suspect() {
    let mut two = Members::founded(&[1, 2]);
    two.mark();
    two.diverge(2);
    two.mark();
    two.report(&[1, 2]);
    assert_eq!(two.corrupt(), [1, 2]);

    let mut three = Members::founded(&[1, 2, 3]);
    three.mark();
    three.diverge(2);
    three.mark();
    three.report(&[1, 2]);
    assert_eq!(three.corrupt(), [], "the third may decide it");
    three.mark();
    assert_eq!(three.corrupt(), [1, 2], "the third did not report before the next mark");
}

#[test]
fn only_members_are_heard_and_only_about_the_latest_mark() {
    let mut members = Members::founded(&[1, 2, 3]);
    members.mark();
    members.mark();
    let report = |member, at| step(CompareStep::Effects(MemberChecksum { member, at, checksum: 99 }));
    for (_, state) in &mut members.states {
        assert_eq!(state.apply(&report(4, 5)), Err(KvError::MemberNotFound));
        assert_eq!(state.apply(&CompareRequest { step: None }.into()), Err(KvError::Unreadable));
    }
    members.all(&report(1, 4));
    assert!(members.owed(1).is_some(), "the report was for an older mark");
    members.report(&[1, 2, 3]);
    assert_eq!(members.corrupt(), []);
    assert_eq!(members.state(1).store.agreed_at().0, 5);
}

#[test]
fn a_removed_member_has_no_say() {
    let mut members = Members::founded(&[1, 2, 3]);
    members.mark();
    members.diverge(3);
    members.mark();
    members.report(&[1, 2, 3]);
    assert_eq!(members.corrupt(), [3]);
    // That the other two have started counts for its removal.
    for id in [1, 2, 3] {
        let started = Member { id, incarnation: 1, ..Member::default() };
        members.all(&MemberRequest { change: Some(MemberChange::Publish(started)) }.into());
    }
    members.all(&MemberRequest { change: Some(MemberChange::Remove(3)) }.into());
    assert_eq!(members.corrupt(), []);
    members.states.retain(|(id, _)| *id != 3);
    members.mark();
    members.report(&[1, 2]);
    assert_eq!(members.corrupt(), []);
    assert!(members.state(1).store.agreed_at().0 > 0);
}

#[test]
fn a_damaged_record_is_found_at_a_compaction() {
    let mut members = Members::founded(&[1, 2, 3]);
    // Before the first mark, so the checksum of effects does not show it.
    members.diverge(3);
    members.mark();
    members.all(&some_put());
    members.all(&CompactionRequest { revision: 3, physical: false }.into());
    members.mark();
    members.report(&[1, 2, 3]);
    assert_eq!(members.corrupt(), [], "the checksums of the compaction are not computed yet");
    members.scrub();
    members.report(&[1, 3]);
    assert_eq!(members.corrupt(), []);
    members.report(&[2]);
    assert_eq!(members.corrupt(), [3]);
}

#[test]
fn a_compaction_is_compared_until_all_have_reported_or_it_is_forgotten() {
    let mut members = Members::founded(&[1, 2, 3]);
    members.mark();
    let compact = |members: &mut Members| {
        members.all(&some_put());
        let revision = members.state(1).revision();
        members.all(&CompactionRequest { revision, physical: false }.into());
        members.scrub();
        revision
    };
    let at = |owed: Option<CompareStep>| match owed {
        Some(CompareStep::Compaction(report)) => report.at,
        other => panic!("{other:?} is no report of a compaction"),
    };
    let first = compact(&mut members);
    members.report(&[1, 2]);
    let second = compact(&mut members);
    members.report(&[1, 2]);
    assert_eq!(members.owed(1), None, "it waits for the third");
    members.all(&step(members.owed(3).expect("the mark")));
    assert_eq!(at(members.owed(3)), first);
    members.all(&step(members.owed(3).expect("the first compaction")));
    for id in [1, 2, 3] {
        assert_eq!(at(members.owed(id)), second);
    }
    members.report(&[1]);
    let mut last = second;
    for _ in 0..10 {
        last = compact(&mut members);
    }
    assert_eq!(at(members.owed(1)), last, "the second is no longer kept");
    members.report(&[1, 2, 3]);
    assert_eq!(members.corrupt(), []);
}

#[test]
fn the_comparison_goes_on_after_a_restart_and_a_snapshot() {
    let mut members = Members::founded(&[1, 2, 3]);
    members.mark();
    members.diverge(3);
    members.mark();
    members.report(&[1]);
    for (id, state) in &mut members.states {
        let snapshot = state.store.snapshot();
        let restored = <Store<MemoryEngine> as StateMachine>::restore(&snapshot).expect("a good snapshot");
        assert_eq!(restored.report_of(*id), state.store.report_of(*id));
        assert_eq!(restored.snapshot(), snapshot);
        state.store = restored;
    }
    members.report(&[2, 3]);
    assert_eq!(members.corrupt(), [3]);
}
