//! Arithmetic on majorities. Only this module knows what a quorum is.
//!
//! One rule serves votes, commit, check-quorum, reads and leases: a majority of the voters, and in
//! a joint configuration a majority of each half (section 6). An empty half agrees with everything,
//! so a simple configuration is a joint one whose other half is empty.

use std::collections::BTreeSet;

use crate::types::NodeId;

/// What a count of votes says so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// A quorum has granted its vote.
    Won,
    /// So many have refused that no quorum can be reached.
    Lost,
    /// Neither yet.
    Pending,
}

/// The voters whose agreement is needed: one majority, or one of each half.
#[derive(Clone, Copy, Debug)]
pub struct Quorum<'a> {
    halves: [&'a BTreeSet<NodeId>; 2],
}

/// Number of members of a majority of `voters` members.
#[must_use]
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

impl<'a> Quorum<'a> {
    /// The quorums of these voters; `outgoing` is empty unless the configuration is joint.
    #[must_use]
    pub fn new(incoming: &'a BTreeSet<NodeId>, outgoing: &'a BTreeSet<NodeId>) -> Quorum<'a> {
        Quorum { halves: [incoming, outgoing] }
    }

    /// The halves that have any voters.
    fn halves(&self) -> impl Iterator<Item = &'a BTreeSet<NodeId>> {
        self.halves.into_iter().filter(|half| !half.is_empty())
    }

    /// The result of a vote so far; `vote` returns each voter's answer, if there is one.
    pub fn vote_result(&self, vote: impl Fn(NodeId) -> Option<bool>) -> VoteResult {
        let mut result = VoteResult::Won;
        for half in self.halves() {
            let needed = majority(half.len());
            let granted = half.iter().filter(|id| vote(**id) == Some(true)).count();
            let refused = half.iter().filter(|id| vote(**id) == Some(false)).count();
            if half.len() - refused < needed {
                return VoteResult::Lost;
            }
            if granted < needed {
                result = VoteResult::Pending;
            }
        }
        result
    }

    /// Whether the members for which `member` holds include a quorum.
    pub fn is_reached_by(&self, member: impl Fn(NodeId) -> bool) -> bool {
        self.vote_result(|id| member(id).then_some(true)) == VoteResult::Won
    }

    /// The greatest value that a quorum has reached; `value` returns each voter's value, `None` if it has none.
    /// `None` if no quorum has reached any value, or if there are no voters.
    pub fn reached<T: Ord + Copy>(&self, value: impl Fn(NodeId) -> Option<T>) -> Option<T> {
        let mut lowest: Option<T> = None;
        for half in self.halves() {
            let mut values: Vec<T> = half.iter().filter_map(|id| value(*id)).collect();
            values.sort_unstable_by(|a, b| b.cmp(a));
            let reached = *values.get(majority(half.len()) - 1)?;
            lowest = Some(lowest.map_or(reached, |low| low.min(reached)));
        }
        lowest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(bits: u32) -> BTreeSet<NodeId> {
        (0..5).filter(|bit| bits & (1 << bit) != 0).map(NodeId).collect()
    }

    /// The definition: more than half of each half that has members.
    fn brute_force(halves: [u32; 2], members: u32) -> bool {
        halves.iter().all(|half| *half == 0 || (half & members).count_ones() * 2 > half.count_ones())
    }

    #[test]
    fn agrees_with_the_definition_for_all_configurations_of_up_to_five() {
        for incoming in 1..32 {
            for outgoing in 0..32 {
                let (a, b) = (set(incoming), set(outgoing));
                let quorum = Quorum::new(&a, &b);
                for members in 0..32 {
                    let expected = brute_force([incoming, outgoing], members);
                    let agreed = set(members);
                    assert_eq!(quorum.is_reached_by(|id| agreed.contains(&id)), expected);
                }
            }
        }
    }

    #[test]
    fn a_vote_is_lost_exactly_when_the_undecided_could_not_win_it_any_more() {
        for incoming in 1..32 {
            for outgoing in [0, 7, 21, 31] {
                let (a, b) = (set(incoming), set(outgoing));
                let quorum = Quorum::new(&a, &b);
                for granted in 0..32_u32 {
                    for refused in (0..32_u32).filter(|refused| refused & granted == 0) {
                        let result = quorum.vote_result(|id| match 1 << id.0 {
                            bit if granted & bit != 0 => Some(true),
                            bit if refused & bit != 0 => Some(false),
                            _ => None,
                        });
                        let expected = if brute_force([incoming, outgoing], granted) {
                            VoteResult::Won
                        } else if brute_force([incoming, outgoing], 31 & !refused) {
                            VoteResult::Pending
                        } else {
                            VoteResult::Lost
                        };
                        assert_eq!(result, expected, "{incoming:b} {outgoing:b} {granted:b} {refused:b}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_value_reached_is_the_greatest_that_a_quorum_has() {
        // Every assignment of the values 0 to 3 (0: none) to up to five voters.
        for incoming in 1..32 {
            for outgoing in [0, 7, 28] {
                let (a, b) = (set(incoming), set(outgoing));
                let quorum = Quorum::new(&a, &b);
                for assignment in 0..1024_u32 {
                    let value = |id: NodeId| Some((assignment >> (2 * id.0)) & 3).filter(|v| *v > 0);
                    let expected = (1..=3_u32)
                        .rev()
                        .find(|floor| quorum.is_reached_by(|id| value(id).is_some_and(|v| v >= *floor)));
                    assert_eq!(quorum.reached(value), expected);
                }
            }
        }
    }

    #[test]
    fn no_voters_reach_nothing() {
        let none = BTreeSet::new();
        assert_eq!(Quorum::new(&none, &none).reached(|_| Some(1)), None);
    }
}
