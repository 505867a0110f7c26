use super::*;

#[test]
fn nothing_is_wrong_near_any_start() {
    for start in STARTS {
        let report = explore(start, 30_000, &mut |_, _| true);
        assert_eq!(report.violation, None, "{}", start.name);
        assert!(report.states >= 30_000, "{}: only {} states", start.name, report.states);
    }
}

/// The core doesn't depend on names: a step under other names is the same step. If a renaming forgot a name, different
/// states would count as one.
#[test]
fn a_step_under_other_names_is_the_same_step() {
    for start in STARTS.iter().filter(|start| start.name != "2015") {
        let mut bounds = Bounds::default();
        (start.bounds)(&mut bounds);
        let mut space = Space::new(bounds);
        let state = space.fresh();
        let mut script = Script { space: &mut space, state };
        (start.script)(&mut script).expect("the beginning can be played");
        let mut states = vec![script.state];
        let mut seen = std::collections::BTreeSet::new();
        let mut at = 0;
        while at < states.len() && at < 1500 {
            let state = states[at].clone();
            at += 1;
            for action in space.actions(&state) {
                let Ok(Some(next)) = space.after(&state, action) else { continue };
                let (expected, _) = space.canonical(&next);
                for naming in 1..space.namings() {
                    let code = space.encoded(&state, naming);
                    let renamed = space.decoded(&code);
                    let action = space.called_after(action, naming);
                    let reached = space.after(&renamed, action).expect("no rule is broken").expect("within the bounds");
                    assert_eq!(space.canonical(&reached).0, expected, "{}: {action:?}", start.name);
                }
                if seen.insert(expected) {
                    states.push(next);
                }
            }
        }
        assert!(at >= 1000, "{}: {at} states", start.name);
    }
}

#[test]
fn a_search_ends_when_it_is_told_to() {
    let mut asked = 0;
    let report = explore(&STARTS[0], u64::MAX, &mut |states, _| {
        asked += 1;
        states < 5_000
    });
    assert!(asked > 1 && report.states >= 5_000 && !report.exhausted, "{} states, asked {asked} times", report.states);
}
