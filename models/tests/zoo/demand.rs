//! The memory and operations that models state, compared with their files and with counts by hand.

use sconce_models::{Demand, LoadOptions, Precision, Registry};

use crate::{ZOO, directory, load};

fn demand(model: &str, precision: Precision) -> Demand {
    let options = LoadOptions { precision: Some(precision), ..LoadOptions::default() };
    Registry::default().survey(&directory(model), &options).unwrap().demand
}

#[test]
fn the_weights_that_are_told_without_loading_are_those_that_the_file_holds() {
    for model in ZOO {
        let told = demand(model, Precision::F32).weight_bytes;
        let held = 4 * load(model).signature.parameters as u64;
        assert_eq!(told, held, "{model}");
    }
}

#[test]
fn lower_precisions_ask_for_less_memory_and_for_the_same_work() {
    for model in ["encoder-mini", "tiny-bert-sentiment"] {
        let [f32, int8, q8_0, q4k] = [Precision::F32, Precision::Int8, Precision::Q8_0, Precision::Q4K]
            .map(|precision| demand(model, precision));
        assert!(int8.weight_bytes < f32.weight_bytes / 3 && q8_0.weight_bytes < f32.weight_bytes / 3, "{model}");
        assert!(q4k.weight_bytes < q8_0.weight_bytes, "{model}");
        let work = |demand: Demand| demand.flops_per_weight.to_bits();
        assert_eq!([int8, q8_0, q4k].map(work), [work(f32); 3], "{model}");
    }
}

#[test]
fn the_work_of_an_item_is_counted_as_by_hand() {
    // tiny-bert-sentiment: layers × (2·(4h² + 2hi) + 4·L·h).
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(directory("tiny-bert-sentiment").join("config.json")).unwrap()).unwrap();
    let size = |field: &str| usize::try_from(config[field].as_u64().unwrap()).unwrap();
    let (h, i) = (size("hidden_size"), size("intermediate_size"));
    let length = size("max_position_embeddings").min(128);
    let by_hand = size("num_hidden_layers") * (8 * h * h + 4 * h * i + 4 * length * h);
    let told = demand("tiny-bert-sentiment", Precision::F32);
    assert_eq!((told.flops_per_weight, told.unit), (by_hand as f64, "token"));
    // digits-cnn: 8×8 pixels, 3×3 kernels with padding 1, halved by each pool.
    let digits = demand("digits-cnn", Precision::F32);
    assert_eq!(digits.unit, "item");
    assert!((1e5..1e7).contains(&digits.flops_per_weight), "{digits:?}");
}
