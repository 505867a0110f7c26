//! What operators do: members come and go, and the leadership moves.

use std::time::Duration;

use bowline_node::raft::{MembershipChange, MembershipError, NodeId, Refusal, Token};
use bowline_node::{Failure, NodeInput, NotDone, Unknown};

use crate::cluster::{AN_ELECTION, Cluster, n};

const A_MOMENT: Duration = Duration::from_millis(100);

fn change(cluster: &mut Cluster, at: NodeId, change: MembershipChange) -> Token {
    let token = cluster.operate(at, |token| NodeInput::ChangeMembership { token, change });
    cluster.pass(A_MOMENT);
    token
}

fn transfer(cluster: &mut Cluster, at: NodeId, to: Option<NodeId>) -> Token {
    cluster.operate(at, |token| NodeInput::TransferLeadership { token, to })
}

#[test]
fn a_member_joins_catches_up_votes_and_leaves() {
    let mut cluster = Cluster::new(3);
    let (leader, _) = cluster.elect();
    cluster.fill(leader, "w", 5);
    cluster.add_stranger(n(4));
    let joined = change(&mut cluster, leader, MembershipChange::AddLearner(n(4)));
    assert_eq!(cluster.response(joined), Some(&Ok("".into())));
    cluster.pass(A_MOMENT);
    assert_eq!(cluster.lines(n(4)).len(), 5, "a learner has it all");
    let promoted = change(&mut cluster, leader, MembershipChange::Promote(n(4)));
    assert_eq!(cluster.response(promoted), Some(&Ok("".into())));
    assert!(cluster.ids().iter().all(|id| cluster.node(*id).raft().membership().is_voter(n(4))));
    // Three of four are needed now.
    let lost = cluster.ids().into_iter().find(|id| *id != leader && *id != n(4)).unwrap();
    cluster.crash(lost);
    cluster.fill(leader, "x", 1);
    let removed = change(&mut cluster, leader, MembershipChange::Remove(lost));
    assert_eq!(cluster.response(removed), Some(&Ok("".into())));
    assert_eq!(cluster.node(leader).waiting(), 0);
}

#[test]
fn a_change_that_can_not_be_is_refused_with_its_reason() {
    let mut cluster = Cluster::new(3);
    let (leader, others) = cluster.elect();
    let again = change(&mut cluster, leader, MembershipChange::Revert);
    let refused = Err(Failure::refused(MembershipError::NothingToRevert));
    assert_eq!(cluster.response(again), Some(&refused));
    let elsewhere = change(&mut cluster, others[0], MembershipChange::Remove(others[1]));
    assert_eq!(cluster.response(elsewhere), Some(&Err(Failure::not_leader(Some(leader)))));
    assert_eq!(cluster.node(others[0]).waiting(), 0);
}

#[test]
fn a_leader_that_is_removed_answers_and_makes_room() {
    let mut cluster = Cluster::new(3);
    let (old, others) = cluster.elect();
    let token = change(&mut cluster, old, MembershipChange::Remove(old));
    assert_eq!(cluster.response(token), Some(&Ok("".into())));
    cluster.pass(AN_ELECTION);
    let new = cluster.leader().unwrap();
    assert!(others.contains(&new));
    cluster.fill(new, "w", 1);
}

#[test]
fn the_leadership_moves_where_it_is_sent() {
    let mut cluster = Cluster::new(3);
    let (old, others) = cluster.elect();
    cluster.fill(old, "w", 3);
    let token = transfer(&mut cluster, old, Some(others[1]));
    let meanwhile = cluster.write(old, "meanwhile");
    assert_eq!(cluster.response(meanwhile), Some(&Err(NotDone::TryAgain.into())));
    cluster.pass(A_MOMENT);
    assert_eq!(cluster.response(token), Some(&Ok("".into())));
    assert_eq!(cluster.leader(), Some(others[1]));
    cluster.fill(others[1], "x", 1);
    assert_eq!(cluster.unanswered(), []);
}

#[test]
fn a_transfer_that_leads_nowhere_ends_too() {
    let mut cluster = Cluster::new(3);
    let (leader, others) = cluster.elect();
    let nowhere = transfer(&mut cluster, leader, Some(n(9)));
    assert_eq!(cluster.response(nowhere), Some(&Err(Failure::refused(Refusal::NotAVoter(n(9))))));
    cluster.isolate(others[0]);
    let cut_off = transfer(&mut cluster, leader, Some(others[0]));
    assert_eq!(cluster.response(cut_off), None);
    cluster.pass(AN_ELECTION);
    assert_eq!(cluster.response(cut_off), Some(&Err(Unknown::Expired.into())));
    let leader = cluster.leader().unwrap();
    cluster.fill(leader, "w", 1);
}
