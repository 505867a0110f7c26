//! Decides whether one given order of the writes explains a register's history. Given the order of the writes, the
//! reads need no search: each takes the first possible place, which leaves the most room for later ones.

use std::collections::{BTreeMap, BTreeSet};

use super::Operation;
use super::register::{INITIAL, Op, Register};

/// Splits an order of the whole history by key. Indices outside the history and repeated ones are ignored: if they
/// mattered, the order won't explain the history.
pub(super) fn order_by_key<'a>(history: &'a [Operation], order: &[usize]) -> BTreeMap<&'a str, Vec<usize>> {
    let mut seen = BTreeSet::new();
    let mut orders: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for &index in order {
        if let Some(operation) = history.get(index)
            && seen.insert(index)
        {
            orders.entry(&operation.key).or_default().push(index);
        }
    }
    orders
}

/// Whether the register's operations can be linearised with its writes in this order (indices into the history),
/// leaving out unanswered writes that are not in it.
pub(super) fn explains(register: &Register, order: &[usize]) -> bool {
    let Some(places) = Places::new(register, order) else {
        return false;
    };
    // The latest place of any operation that has returned. An operation called now comes after it.
    let mut floor = 0;
    let mut place_of = vec![0; register.ops.len()];
    for (_, is_return, at) in register.events() {
        if is_return {
            floor = floor.max(place_of[at]);
            continue;
        }
        let op = &register.ops[at];
        let place = match places.written_at[at] {
            Some(place) => (place > floor).then_some(place),
            None if op.is_write => continue,
            None => places.first_of(op.value, floor),
        };
        match place {
            Some(place) => place_of[at] = place,
            None => return false,
        }
    }
    true
}

/// The places in an order of writes: place 0 is the register's start, place n comes after the n-th write.
struct Places {
    /// By operation: the place of a write.
    written_at: Vec<Option<usize>>,
    /// By value: the places where the register has it, ascending.
    holding: Vec<Vec<usize>>,
}

impl Places {
    /// `None` if a finished write has no place.
    fn new(register: &Register, order: &[usize]) -> Option<Places> {
        let by_index: BTreeMap<usize, usize> =
            register.ops.iter().enumerate().filter(|(_, op)| op.is_write).map(|(at, op)| (op.index, at)).collect();
        let mut written_at = vec![None; register.ops.len()];
        let mut holding = vec![Vec::new(); register.values];
        holding[INITIAL as usize].push(0);
        let writes = order.iter().filter_map(|index| by_index.get(index));
        for (before, &at) in writes.enumerate() {
            written_at[at] = Some(before + 1);
            holding[register.ops[at].value as usize].push(before + 1);
        }
        let missing = |(op, place): (&Op, &Option<usize>)| op.is_write && op.ret.is_some() && place.is_none();
        (!register.ops.iter().zip(&written_at).any(missing)).then_some(Places { written_at, holding })
    }

    fn first_of(&self, value: u32, floor: usize) -> Option<usize> {
        let holding = &self.holding[value as usize];
        let next = holding.partition_point(|&place| place < floor);
        holding.get(next).copied()
    }
}
