//! etcd's API for keys and leases as a checklist: one test a line, named after it, through gRPC.
//!
//! Without more it is our own server that is asked. To see whether the tests themselves are right, point them
//! at a real etcd:
//!
//! - `BOWLINE_CHECKLIST_ETCD=/usr/bin/etcd`: the tests start that program wherever they need one.
//! - `BOWLINE_CHECKLIST_ENDPOINT=http://127.0.0.1:2379`: a server that runs already. Lines that need a store of
//!   their own are skipped, unless the other variable is there too.

mod a;
mod c;
mod e;
mod etcd;
mod g;
mod gateway;
mod h;
mod k;
mod l;
mod line;
mod m;
mod p;
mod r;
mod requests;
mod s;
mod site;
mod t;
mod w;
mod web;
mod x;

#[path = "../cluster/harness.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod cluster;

use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

use line::Line;
use site::Target;

/// The sections, and how many lines each has.
fn sections() -> [(&'static str, usize, Vec<Line>); 14] {
    [
        ("a", 15, a::lines()),
        ("h", 13, h::lines()),
        ("r", 21, r::lines()),
        ("p", 8, p::lines()),
        ("t", 14, t::lines()),
        ("c", 7, c::lines()),
        ("e", 7, e::lines()),
        ("g", 11, g::lines()),
        ("s", 2, s::lines()),
        ("k", 9, k::lines()),
        ("l", 11, l::lines()),
        ("m", 6, m::lines()),
        ("w", 23, w::lines()),
        ("x", 14, x::lines()),
    ]
}

fn main() {
    let arguments = Arguments::from_args();
    let sections = sections();
    let mut trials = vec![Trial::test("every_line_has_its_test_or_a_reason", {
        let named: Vec<_> = sections.iter().map(|(name, count, lines)| (*name, *count, names(lines))).collect();
        move || every_line_is_there(&named)
    })];
    // Nobody is asked by whoever only wants to know what there is.
    let target = (!arguments.list).then(|| Arc::new(Target::from_environment()));
    for line in sections.into_iter().flat_map(|(_, _, lines)| lines) {
        trials.push(line.into_trial(target.clone()));
    }
    if let Some(target) = &target {
        println!("asked: {}", target.name());
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(target);
    conclusion.exit();
}

fn names(lines: &[Line]) -> Vec<&'static str> {
    lines.iter().map(|line| line.name).collect()
}

/// A line may have several tests, but not none.
fn every_line_is_there(sections: &[(&str, usize, Vec<&str>)]) -> Result<(), Failed> {
    for (section, count, names) in sections {
        for number in 1..=*count {
            let start = format!("{section}{number:02}_");
            if !names.iter().any(|name| name.starts_with(&start)) {
                return Err(format!("nothing is said about {}{number}", section.to_uppercase()).into());
            }
        }
        if let Some(stray) = names.iter().find(|name| !name.starts_with(section)) {
            return Err(format!("{stray} is not of section {section}").into());
        }
    }
    Ok(())
}
