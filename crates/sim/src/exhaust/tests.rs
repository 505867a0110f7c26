use super::*;

fn limits(states: u64) -> Limits {
    Limits { states, time: Duration::from_mins(5) }
}

#[cfg(feature = "museum")]
fn start(name: &str) -> &'static Start {
    STARTS.iter().find(|start| start.name == name).expect("there is such a start")
}

#[test]
fn nothing_is_wrong_near_any_start() {
    for start in STARTS {
        let report = explore(start, |_| (), &limits(30_000), &mut |_, _| ());
        assert_eq!(report.violation, None, "{}", start.name);
        assert!(report.states >= 30_000, "{}: only {} states", start.name, report.states);
    }
}

/// Names mean nothing to the core: what happens to a renamed replica is what happens to the replica,
/// renamed. Were a name forgotten in a renaming, states that differ would be taken for one.
#[test]
fn a_step_under_other_names_is_the_same_step() {
    for start in STARTS.iter().filter(|start| start.name != "2015") {
        let states = |symmetry| {
            let change = |bounds: &mut Bounds| {
                bounds.symmetry = symmetry;
                bounds.terms = bounds.terms.min(2);
                bounds.in_flight = 3;
            };
            explore(start, change, &limits(40_000), &mut |_, _| ())
        };
        let (plain, merged) = (states(false), states(true));
        assert_eq!((plain.violation, merged.violation), (None, None), "{}", start.name);
    }
}

#[cfg(feature = "museum")]
#[test]
fn figure_8_is_found() {
    let carry = |bounds: &mut Bounds| bounds.mutant = Some(bowline_raft::Mutant::CommitOldTermByCounting);
    let report = explore(start("figure-8"), carry, &limits(3_000_000), &mut |_, _| ());
    let violation = report.violation.expect("it is found");
    assert!(violation.rule.contains("Leader Completeness"), "{}", violation.story.join("\n"));
}

#[cfg(feature = "museum")]
#[test]
fn the_single_server_bug_of_2015_is_found() {
    let carry = |bounds: &mut Bounds| bounds.mutant = Some(bowline_raft::Mutant::SingleServerOf2015);
    let report = explore(start("2015"), carry, &limits(3_000_000), &mut |_, _| ());
    let violation = report.violation.expect("it is found");
    assert!(violation.rule.contains("Leader Completeness"), "{}", violation.story.join("\n"));
}

#[test]
#[ignore]
fn big() {
    let name = std::env::var("START").unwrap_or("fresh".into());
    let n: u64 = std::env::var("N").unwrap_or("1000000".into()).parse().unwrap();
    let start = STARTS.iter().find(|start| start.name == name).unwrap();
    let report = explore(start, |_| (), &limits(n), &mut |_, _| ());
    println!("{report:#?}");
    println!("{}", std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l| l.starts_with("VmHWM")).collect::<String>());
}
