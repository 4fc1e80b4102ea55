//! Declared dependencies between siblings, turned into one start order.

use crate::error::SpecError;

/// Orders children so that each comes after everything it depends on; among those that are free,
/// the one declared first comes first (Kahn's algorithm with a stable choice).
///
/// `depends_on[i]` holds the indices that child `i` depends on.
///
/// # Errors
/// [`SpecError::DependencyCycle`] names the ids along one cycle.
pub(crate) fn start_order(
    ids: &[&str],
    depends_on: &[Vec<usize>],
) -> Result<Vec<usize>, SpecError> {
    let mut placed = vec![false; ids.len()];
    let mut order = Vec::with_capacity(ids.len());
    while order.len() < ids.len() {
        let free = (0..ids.len())
            .find(|&i| !placed[i] && depends_on[i].iter().all(|&needed| placed[needed]));
        match free {
            Some(i) => {
                placed[i] = true;
                order.push(i);
            }
            None => {
                return Err(SpecError::DependencyCycle { cycle: cycle(ids, depends_on, &placed) });
            }
        }
    }
    Ok(order)
}

/// Walks unplaced dependencies until an id comes up again: every unplaced child has one.
fn cycle(ids: &[&str], depends_on: &[Vec<usize>], placed: &[bool]) -> Vec<String> {
    let mut walk: Vec<usize> = Vec::new();
    let mut next = placed.iter().position(|placed| !placed);
    while let Some(at) = next {
        if let Some(start) = walk.iter().position(|&seen| seen == at) {
            walk.push(at);
            return walk[start..].iter().map(|&i| ids[i].to_owned()).collect();
        }
        walk.push(at);
        next = depends_on[at].iter().copied().find(|&needed| !placed[needed]);
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn declaration_order_stands_where_nothing_says_otherwise() {
        let order = start_order(&["a", "b", "c"], &[vec![], vec![], vec![]]);
        assert_eq!(order, Ok(vec![0, 1, 2]));
    }

    #[test]
    fn a_dependency_comes_first_even_if_declared_later() {
        let order = start_order(&["http", "bus", "pool"], &[vec![1, 2], vec![2], vec![]]);
        assert_eq!(order, Ok(vec![2, 1, 0]));
    }

    #[test]
    fn a_cycle_is_named() {
        let error = start_order(&["x", "a", "b", "c"], &[vec![], vec![2], vec![3], vec![1]]);
        let Err(SpecError::DependencyCycle { cycle }) = error else { panic!("{error:?}") };
        assert_eq!(cycle, ["a", "b", "c", "a"]);
    }

    proptest! {
        #[test]
        fn every_order_respects_every_dependency(
            edges in proptest::collection::vec((0usize..8, 0usize..8), 0..20)
        ) {
            let ids = ["a", "b", "c", "d", "e", "f", "g", "h"];
            let mut depends_on = vec![Vec::new(); ids.len()];
            for (child, needed) in edges {
                depends_on[child].push(needed);
            }
            match start_order(&ids, &depends_on) {
                Ok(order) => {
                    let at = |i: usize| order.iter().position(|&o| o == i).expect("all placed");
                    for (child, needed) in depends_on.iter().enumerate() {
                        for &needed in needed {
                            prop_assert!(at(needed) < at(child));
                        }
                    }
                }
                Err(SpecError::DependencyCycle { cycle }) => {
                    prop_assert!(cycle.len() >= 2);
                    prop_assert_eq!(cycle.first(), cycle.last());
                    let index = |id: &String| ids.iter().position(|i| i == id).expect("known");
                    for pair in cycle.windows(2) {
                        prop_assert!(depends_on[index(&pair[0])].contains(&index(&pair[1])));
                    }
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}
