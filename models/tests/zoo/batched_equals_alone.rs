//! The suite that every model runs: an answer depends neither on the rest of the batch nor on the number of threads.

use std::num::NonZeroUsize;
use std::sync::Arc;

use sconce_models::{Features, LoadOptions, LoadedModel, Precision, Registry, Team, cpu};

use crate::{ZOO, directory, load, prepare, varied_inputs};

const MAX_BATCH: usize = 33;

/// A model of the zoo in every precision that it has on the CPU, computed by `threads` threads.
fn in_every_precision(name: &str, threads: usize) -> Vec<(Precision, LoadedModel)> {
    let registry = Registry::default();
    let team = Arc::new(Team::new(NonZeroUsize::new(threads).unwrap()).unwrap());
    let on = |precision| LoadOptions { device: cpu(Arc::clone(&team)), precision };
    let precisions = registry.survey(&directory(name), &on(None)).unwrap().precisions.into_iter();
    precisions.map(|precision| (precision, registry.load(&directory(name), &on(Some(precision))).unwrap())).collect()
}

fn bits(row: &[f32]) -> Vec<u32> {
    row.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn batched_equals_alone_to_the_bit_at_every_size_in_any_order_and_on_any_number_of_threads() {
    for name in ZOO {
        let model = load(name);
        let items: Vec<Features> =
            varied_inputs(name, MAX_BATCH).into_iter().map(|input| prepare(&model, input)).collect();
        let sequential: Vec<Vec<Vec<u32>>> = in_every_precision(name, 1)
            .into_iter()
            .map(|(_, mut model)| {
                let alone = items.iter().map(|item| model.network.forward(std::slice::from_ref(item)).unwrap());
                alone.map(|rows| bits(&rows[0])).collect()
            })
            .collect();
        for threads in [1, 2, 3] {
            for ((precision, mut model), alone) in in_every_precision(name, threads).into_iter().zip(&sequential) {
                for size in [1, 2, 3, 5, 8, 16, 17, 32, MAX_BATCH] {
                    // 7 and 33 share no factor, so each size gets different items in a different order.
                    let chosen: Vec<usize> = (0..size).map(|at| (at * 7 + size) % MAX_BATCH).collect();
                    let batch: Vec<Features> = chosen.iter().map(|item| items[*item].clone()).collect();
                    let rows = model.network.forward(&batch).unwrap();
                    assert_eq!(rows.len(), size, "{name}");
                    for (row, item) in rows.iter().zip(&chosen) {
                        let same = bits(row) == alone[*item];
                        assert!(same, "{name} in {precision}: item {item} of a batch of {size} on {threads} threads");
                    }
                }
            }
        }
    }
}

#[test]
fn an_empty_batch_gives_no_rows() {
    for name in ZOO {
        for (precision, mut model) in in_every_precision(name, 2) {
            assert!(model.network.forward(&[]).unwrap().is_empty(), "{name} in {precision}");
        }
    }
}
