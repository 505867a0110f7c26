//! What operators do: members come and go, and the leadership moves.

use std::time::Duration;

use bowline_node::raft::{MembershipChange, MembershipError, NodeId, Refusal, Token};
use bowline_node::{Failure, NodeInput, NotDone, Unknown};

use crate::world::{AN_ELECTION, World, n};

const A_MOMENT: Duration = Duration::from_millis(100);

fn change(world: &mut World, at: NodeId, change: MembershipChange) -> Token {
    let token = world.operate(at, |token| NodeInput::ChangeMembership { token, change });
    world.pass(A_MOMENT);
    token
}

fn transfer(world: &mut World, at: NodeId, to: Option<NodeId>) -> Token {
    world.operate(at, |token| NodeInput::TransferLeadership { token, to })
}

#[test]
fn a_member_joins_catches_up_votes_and_leaves() {
    let mut world = World::new(3);
    let (leader, _) = world.elect();
    world.fill(leader, "w", 5);
    world.add_stranger(n(4));
    let joined = change(&mut world, leader, MembershipChange::AddLearner(n(4)));
    assert_eq!(world.response(joined), Some(&Ok("".into())));
    world.pass(A_MOMENT);
    assert_eq!(world.lines(n(4)).len(), 5, "a learner has it all");
    let promoted = change(&mut world, leader, MembershipChange::Promote(n(4)));
    assert_eq!(world.response(promoted), Some(&Ok("".into())));
    assert!(world.ids().iter().all(|id| world.node(*id).raft().membership().is_voter(n(4))));
    // Three of four are needed now.
    let lost = world.ids().into_iter().find(|id| *id != leader && *id != n(4)).unwrap();
    world.crash(lost);
    world.fill(leader, "x", 1);
    let removed = change(&mut world, leader, MembershipChange::Remove(lost));
    assert_eq!(world.response(removed), Some(&Ok("".into())));
    assert_eq!(world.node(leader).waiting(), 0);
}

#[test]
fn a_change_that_can_not_be_is_refused_with_its_reason() {
    let mut world = World::new(3);
    let (leader, others) = world.elect();
    let again = change(&mut world, leader, MembershipChange::Revert);
    let refused = Err(Failure::refused(MembershipError::NothingToRevert));
    assert_eq!(world.response(again), Some(&refused));
    let elsewhere = change(&mut world, others[0], MembershipChange::Remove(others[1]));
    assert_eq!(world.response(elsewhere), Some(&Err(Failure::not_leader(Some(leader)))));
    assert_eq!(world.node(others[0]).waiting(), 0);
}

#[test]
fn a_leader_that_is_removed_answers_and_makes_room() {
    let mut world = World::new(3);
    let (old, others) = world.elect();
    let token = change(&mut world, old, MembershipChange::Remove(old));
    assert_eq!(world.response(token), Some(&Ok("".into())));
    world.pass(AN_ELECTION);
    let new = world.leader().unwrap();
    assert!(others.contains(&new));
    world.fill(new, "w", 1);
}

#[test]
fn the_leadership_moves_where_it_is_sent() {
    let mut world = World::new(3);
    let (old, others) = world.elect();
    world.fill(old, "w", 3);
    let token = transfer(&mut world, old, Some(others[1]));
    let meanwhile = world.write(old, "meanwhile");
    assert_eq!(world.response(meanwhile), Some(&Err(NotDone::TryAgain.into())));
    world.pass(A_MOMENT);
    assert_eq!(world.response(token), Some(&Ok("".into())));
    assert_eq!(world.leader(), Some(others[1]));
    world.fill(others[1], "x", 1);
    assert_eq!(world.unanswered(), []);
}

#[test]
fn a_transfer_that_leads_nowhere_ends_too() {
    let mut world = World::new(3);
    let (leader, others) = world.elect();
    let nowhere = transfer(&mut world, leader, Some(n(9)));
    assert_eq!(world.response(nowhere), Some(&Err(Failure::refused(Refusal::NotAVoter(n(9))))));
    world.isolate(others[0]);
    let cut_off = transfer(&mut world, leader, Some(others[0]));
    assert_eq!(world.response(cut_off), None);
    world.pass(AN_ELECTION);
    assert_eq!(world.response(cut_off), Some(&Err(Unknown::Expired.into())));
    let leader = world.leader().unwrap();
    world.fill(leader, "w", 1);
}
