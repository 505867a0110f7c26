//! Ranges of keys, and which of them hold a key, in less than linear time.
//!
//! An interval tree: a search tree by the start of the ranges, in which each node also knows how far the ranges below it
//! extend. It is a treap: random priorities keep it balanced. Clients choose the ranges, so they
//! must not know the seed: who knows the priorities can choose ranges that make the tree a list.

use bowline_node::raft::Random;
use bytes::Bytes;

/// Ranges, each with its owner. No owner has two ranges with the same start.
#[derive(Debug)]
pub(crate) struct IntervalTree<W> {
    root: Link<W>,
    len: usize,
    priorities: Random,
}

type Link<W> = Option<Box<Node<W>>>;

#[derive(Debug)]
struct Node<W> {
    start: Bytes,
    /// `None` if the range has no end.
    end: Option<Bytes>,
    owner: W,
    priority: u64,
    /// The latest end of the ranges of this node and of those below it; `None` if one of them has no end.
    furthest: Option<Bytes>,
    left: Link<W>,
    right: Link<W>,
}

impl<W: Copy + Ord> IntervalTree<W> {
    /// An empty tree, whose priorities come from this seed.
    pub(crate) fn new(seed: u64) -> IntervalTree<W> {
        IntervalTree { root: None, len: 0, priorities: Random::new(seed) }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a range, from `start` to before `end`.
    pub(crate) fn insert(&mut self, start: Bytes, end: Option<Bytes>, owner: W) {
        self.len += 1;
        let (less, greater) = split(self.root.take(), (&start[..], owner));
        let (furthest, priority) = (end.clone(), self.priorities.next_u64());
        let node = Box::new(Node { start, end, owner, priority, furthest, left: None, right: None });
        self.root = merge(merge(less, Some(node)), greater);
    }

    /// Removes the range of an owner that begins at `start`. Returns whether there was one.
    pub(crate) fn remove(&mut self, start: &[u8], owner: W) -> bool {
        let removed = remove(&mut self.root, (start, owner));
        self.len -= usize::from(removed);
        removed
    }

    /// Calls `found` with the owner of each range that holds the key.
    pub(crate) fn find(&self, key: &[u8], found: &mut dyn FnMut(W)) {
        find(&self.root, key, found);
    }
}

impl<W: Copy + Ord> Node<W> {
    fn place(&self) -> (&[u8], W) {
        (&self.start, self.owner)
    }

    /// Computes `furthest` again after a change below.
    fn update(&mut self) {
        let below = [&self.left, &self.right].into_iter().flatten();
        self.furthest = below.map(|node| &node.furthest).fold(self.end.clone(), |furthest, other| match other {
            Some(other) => furthest.map(|furthest| furthest.max(other.clone())),
            None => None,
        });
    }
}

fn find<W: Copy + Ord>(link: &Link<W>, key: &[u8], found: &mut dyn FnMut(W)) {
    let Some(node) = link else { return };
    let is_beyond = |end: &Option<Bytes>| end.as_ref().is_some_and(|end| key >= &end[..]);
    if is_beyond(&node.furthest) {
        return;
    }
    find(&node.left, key, found);
    if &node.start[..] <= key {
        if !is_beyond(&node.end) {
            found(node.owner);
        }
        find(&node.right, key, found);
    }
}

/// Splits a tree into the nodes before a place and those from it on.
fn split<W: Copy + Ord>(link: Link<W>, place: (&[u8], W)) -> (Link<W>, Link<W>) {
    let Some(mut node) = link else { return (None, None) };
    if node.place() < place {
        let (less, greater) = split(node.right.take(), place);
        node.right = less;
        node.update();
        (Some(node), greater)
    } else {
        let (less, greater) = split(node.left.take(), place);
        node.left = greater;
        node.update();
        (less, Some(node))
    }
}

/// Joins two trees; all nodes of the first come before those of the second.
fn merge<W: Copy + Ord>(first: Link<W>, second: Link<W>) -> Link<W> {
    match (first, second) {
        (None, link) | (link, None) => link,
        (Some(mut first), Some(mut second)) => {
            if first.priority > second.priority {
                first.right = merge(first.right.take(), Some(second));
                first.update();
                Some(first)
            } else {
                second.left = merge(Some(first), second.left.take());
                second.update();
                Some(second)
            }
        }
    }
}

fn remove<W: Copy + Ord>(link: &mut Link<W>, place: (&[u8], W)) -> bool {
    let Some(node) = link else { return false };
    let removed = match place.cmp(&node.place()) {
        std::cmp::Ordering::Less => remove(&mut node.left, place),
        std::cmp::Ordering::Greater => remove(&mut node.right, place),
        std::cmp::Ordering::Equal => {
            let (left, right) = (node.left.take(), node.right.take());
            *link = merge(left, right);
            return true;
        }
    };
    node.update();
    removed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Vec<u8>, Option<Vec<u8>>),
        Remove(prop::sample::Index),
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0..4_u8, 0..4)
    }

    fn depth(link: &Link<u32>) -> usize {
        link.as_ref().map_or(0, |node| 1 + depth(&node.left).max(depth(&node.right)))
    }

    proptest! {
        #[test]
        fn it_finds_what_a_list_finds(
            steps in prop::collection::vec(prop_oneof![
                3 => (key(), prop::option::of(key())).prop_map(|(start, end)| Step::Insert(start, end)),
                1 => any::<prop::sample::Index>().prop_map(Step::Remove),
            ], 0..60),
            keys in prop::collection::vec(key(), 8),
        ) {
            let (mut tree, mut list) = (IntervalTree::new(1), Vec::new());
            for (owner, step) in (0_u32..).zip(steps) {
                match step {
                    Step::Insert(start, end) => {
                        list.push((start.clone(), end.clone(), owner));
                        tree.insert(start.into(), end.map(Bytes::from), owner);
                    }
                    Step::Remove(index) if !list.is_empty() => {
                        let (start, _, owner) = list.remove(index.index(list.len()));
                        prop_assert!(tree.remove(&start, owner));
                        prop_assert!(!tree.remove(&start, owner));
                    }
                    Step::Remove(_) => {}
                }
            }
            prop_assert_eq!(tree.len(), list.len());
            for key in keys {
                let (mut found, mut expected) = (Vec::new(), Vec::new());
                tree.find(&key, &mut |owner| found.push(owner));
                let holds = |start: &Vec<u8>, end: &Option<Vec<u8>>| {
                    start <= &key && end.as_ref().is_none_or(|end| &key < end)
                };
                expected.extend(list.iter().filter(|(start, end, _)| holds(start, end)).map(|(_, _, owner)| *owner));
                found.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn it_stays_balanced() {
        let mut tree = IntervalTree::new(1);
        for number in 0..100_000_u32 {
            let start = number.to_be_bytes();
            tree.insert(
                Bytes::copy_from_slice(&start),
                Some(Bytes::copy_from_slice(&(number + 1).to_be_bytes())),
                number,
            );
        }
        assert!(depth(&tree.root) < 60, "{}", depth(&tree.root));
        let mut found = Vec::new();
        tree.find(&77_777_u32.to_be_bytes(), &mut |owner| found.push(owner));
        assert_eq!(found, [77_777]);
    }
}
