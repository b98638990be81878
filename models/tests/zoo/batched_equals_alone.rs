//! The suite that every model runs: an answer does not depend on the batch around it.

use sconce_models::Features;

use crate::{ZOO, largest_gap, load, prepare, varied_inputs};

const MAX_BATCH: usize = 33;
const TOLERANCE: f32 = 1e-5;

#[test]
fn batched_equals_alone_at_every_size_and_in_any_order() {
    for name in ZOO {
        let mut model = load(name);
        let items: Vec<Features> =
            varied_inputs(name, MAX_BATCH).into_iter().map(|input| prepare(&model, input)).collect();
        let alone: Vec<Vec<f32>> = items
            .iter()
            .map(|item| model.network.forward(std::slice::from_ref(item)).unwrap().swap_remove(0))
            .collect();
        for size in 1..=MAX_BATCH {
            // 7 shares no factor with 33, so this is another order of other items for each size.
            let chosen: Vec<usize> = (0..size).map(|at| (at * 7 + size) % MAX_BATCH).collect();
            let batch: Vec<Features> = chosen.iter().map(|item| items[*item].clone()).collect();
            let rows = model.network.forward(&batch).unwrap();
            assert_eq!(rows.len(), size, "{name}");
            for (row, item) in rows.iter().zip(&chosen) {
                let gap = largest_gap(row, &alone[*item]);
                assert!(gap <= TOLERANCE, "{name}: item {item} in a batch of {size} is off by {gap}");
            }
        }
    }
}

#[test]
fn an_empty_batch_gives_no_rows() {
    for name in ZOO {
        assert!(load(name).network.forward(&[]).unwrap().is_empty(), "{name}");
    }
}
