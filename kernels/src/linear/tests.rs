use std::num::NonZeroUsize;

use rand::{SeedableRng as _, rngs::StdRng};

use super::cases::{ACTIVATIONS, Case, cases, int8_cases, numbers};
use super::*;
use crate::bias_gelu::GeluForm;

fn team(threads: usize) -> Team {
    Team::new(NonZeroUsize::new(threads).unwrap()).unwrap()
}

const FORMATS: [WeightFormat; 4] = [
    WeightFormat::F32,
    WeightFormat::Int8,
    WeightFormat::Blocks(BlockFormat::Q8_0),
    WeightFormat::Blocks(BlockFormat::Q4K),
];

/// Runs `check` with a layer of this shape, its weights and its bias on every instruction set.
fn each_layer(inputs: usize, outputs: usize, format: WeightFormat, check: impl Fn(&Linear, &[f32], &[f32])) {
    let mut random = StdRng::seed_from_u64((inputs * 1000 + outputs) as u64);
    let (weight, bias) = (numbers(&mut random, inputs * outputs), numbers(&mut random, outputs));
    for isa in Isa::available() {
        let layer = Linear::for_isa(*isa, &weight, Some(&bias), inputs, outputs, format).unwrap();
        check(&layer, &weight, &bias);
    }
}

#[test]
fn f32_agrees_with_the_reference_at_every_size_and_activation() {
    for Case { inputs, outputs, weight, bias, x } in cases() {
        let bound = 1e-6 * (inputs as f64).sqrt().max(1.0) + 3e-7;
        for (x, activation) in x.iter().flat_map(|x| ACTIVATIONS.map(|activation| (x, activation))) {
            let rows = x.len() / inputs;
            let expected = reference::linear(x, &weight, &bias, inputs, activation);
            for isa in Isa::available() {
                let layer = Linear::for_isa(*isa, &weight, Some(&bias), inputs, outputs, WeightFormat::F32).unwrap();
                let mut y = vec![f32::NAN; rows * outputs];
                layer.forward(&team(1), x, &mut y, activation).unwrap();
                for (at, (got, expected)) in y.iter().zip(&expected).enumerate() {
                    assert!(
                        (f64::from(*got) - expected).abs() <= bound,
                        "{layer:?} {rows} rows {activation:?} at {at}: {got} for {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn int8_agrees_with_exact_sums_of_what_was_quantised() {
    for Case { inputs, outputs, weight, bias, x } in int8_cases() {
        for (x, isa) in x.iter().flat_map(|x| Isa::available().iter().map(move |isa| (x, isa))) {
            let layer = Linear::for_isa(*isa, &weight, Some(&bias), inputs, outputs, WeightFormat::Int8).unwrap();
            let rows = x.len() / inputs;
            let mut y = vec![f32::NAN; rows * outputs];
            layer.forward(&team(1), x, &mut y, Activation::Identity).unwrap();
            let expected = reference::linear_int8(x, &weight, &bias, inputs, isa.max_u8());
            // The bound allows for rounding the result. Without fused multiply-add one byte in some hundred thousand may
            // also be rounded the other way, which changes a sum by one weight.
            let one_byte = 1.01 / 127.0 * 2.0 / f64::from(isa.max_u8()) * 127.0;
            let largest = expected.iter().fold(1.0, |largest: f64, y| largest.max(y.abs()));
            for (at, (got, expected)) in y.iter().zip(&expected).enumerate() {
                let error = (f64::from(*got) - expected).abs();
                let bound = if isa.name() == "portable" { one_byte } else { 0.0 } + 1e-6 * largest;
                assert!(error <= bound, "{layer:?} {rows} rows at {at}: {got} for {expected}");
            }
        }
    }
}

#[test]
fn every_format_stays_within_its_error_of_the_f32_layer() {
    // Root mean square of the error over that of the outputs.
    for (format, bound) in FORMATS.into_iter().zip([1e-6, 0.02, 0.01, 0.12]) {
        each_layer(512, 96, format, |layer, weight, bias| {
            let x = numbers(&mut StdRng::seed_from_u64(9), 10 * 512);
            let mut y = vec![f32::NAN; 10 * 96];
            layer.forward(&team(1), &x, &mut y, Activation::Identity).unwrap();
            let expected = reference::linear(&x, weight, bias, 512, Activation::Identity);
            let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
            let error = square(&mut y.iter().zip(&expected).map(|(got, expected)| f64::from(*got) - expected));
            let error = (error / square(&mut expected.iter().copied())).sqrt();
            assert!(error < bound, "{layer:?} {format:?}: {error:.2e}");
        });
    }
}

#[test]
fn a_row_gives_the_same_bits_in_every_batch_at_every_place_and_on_any_number_of_threads() {
    // A size at which the largest batches occupy five threads.
    const ROWS: usize = 30;
    const INPUTS: usize = 512;
    const OUTPUTS: usize = 300;
    const { assert!(ROWS * INPUTS * OUTPUTS > 4 * PRODUCTS_PER_HELPER) };
    for format in FORMATS {
        each_layer(INPUTS, OUTPUTS, format, |layer, _, _| {
            let x = numbers(&mut StdRng::seed_from_u64(10), ROWS * INPUTS);
            let mut alone = vec![0.0; ROWS * OUTPUTS];
            for (x, y) in x.chunks_exact(INPUTS).zip(alone.chunks_exact_mut(OUTPUTS)) {
                layer.forward(&team(1), x, y, Activation::Gelu(GeluForm::Erf)).unwrap();
            }
            for threads in [1, 2, 3, 7] {
                let team = team(threads);
                for rows in [1, 2, 3, 7, 12, 13, 29, ROWS] {
                    for (x, alone) in x.chunks(rows * INPUTS).zip(alone.chunks(rows * OUTPUTS)) {
                        let mut y = vec![f32::NAN; alone.len()];
                        layer.forward(&team, x, &mut y, Activation::Gelu(GeluForm::Erf)).unwrap();
                        let same = y.iter().zip(alone).all(|(y, alone)| y.to_bits() == alone.to_bits());
                        assert!(same, "{layer:?} in batches of {rows} on {threads} threads");
                    }
                }
            }
        });
    }
}

#[test]
fn formats_hold_what_they_promise_in_memory() {
    let weight = vec![0.5; 512 * 512];
    let bytes = |format| Linear::new(&weight, None, 512, 512, format).unwrap().bytes() as f64 / (512.0 * 512.0);
    let [f32, int8, q8_0, q4k] = FORMATS.map(bytes);
    assert!(f32 < 4.05 && int8 < 1.05 && q8_0 < 1.08 && q4k < 0.58, "{f32} {int8} {q8_0} {q4k}");
}

#[test]
fn shapes_that_do_not_fit_and_weights_that_are_not_finite_are_refused() {
    let new = |weight: &[f32], bias: Option<&[f32]>, inputs, outputs, format| {
        Linear::new(weight, bias, inputs, outputs, format).map(|_| ()).unwrap_err().to_string()
    };
    let f32 = WeightFormat::F32;
    assert!(new(&[1.0; 5], None, 2, 3, f32).contains("5 weights"));
    assert!(new(&[1.0; 6], Some(&[0.0; 2]), 2, 3, f32).contains("a bias of 2"));
    assert!(new(&[], None, 0, 3, f32).contains("0 inputs"));
    assert!(new(&[], None, usize::MAX, 2, f32).contains("0 weights"));
    let mut weight = [1.0; 6];
    weight[4] = f32::NAN;
    assert_eq!(new(&weight, None, 2, 3, WeightFormat::Int8), "weight 4 is NaN; only finite weights can be quantised");
    assert!(new(&vec![0.0; 70_000], None, 70_000, 1, WeightFormat::Int8).contains("at most 65536"));
    assert!(new(&[1.0; 33], None, 33, 1, FORMATS[2]).contains("a multiple of 32"));

    let layer = Linear::new(&[1.0; 6], None, 2, 3, f32).unwrap();
    for (x, y) in [(3, 3), (2, 2), (4, 3)] {
        let mut y = vec![7.0; y];
        let refused = layer.forward(&team(1), &vec![0.0; x], &mut y, Activation::Identity).unwrap_err();
        assert!(refused.to_string().contains("do not hold the same number of rows"), "{refused}");
        assert!(y.iter().all(|y| y.to_bits() == 7.0_f32.to_bits()));
    }
}

#[test]
fn tiles_take_as_many_rows_as_fit_and_end_evenly() {
    let cut = |mut rows: usize| {
        let mut tiles = Vec::new();
        while rows > 0 {
            tiles.push(tile::next_rows(rows, 6));
            rows -= tiles[tiles.len() - 1];
        }
        tiles
    };
    assert_eq!((cut(16), cut(6), cut(7), cut(13)), (vec![6, 5, 5], vec![6], vec![4, 3], vec![6, 4, 3]));
}

#[test]
fn a_tensor_goes_through_the_same_layer() {
    use candle_core::{Device, Tensor};
    let team = std::sync::Arc::new(team(2));
    each_layer(20, 33, WeightFormat::F32, |layer, weight, bias| {
        let layer = Linear::for_isa(layer.isa, weight, Some(bias), 20, 33, WeightFormat::F32).unwrap();
        let layer = std::sync::Arc::new(layer);
        let x = Tensor::randn(0.0_f32, 1.0, (2, 3, 20), &Device::Cpu).unwrap();
        let y = linear_tensor(&layer, &team, &x, Activation::Relu).unwrap();
        assert_eq!(y.dims(), [2, 3, 33]);
        let x: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
        let mut expected = vec![0.0; 6 * 33];
        layer.forward(&team, &x, &mut expected, Activation::Relu).unwrap();
        assert_eq!(y.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected);

        let wide = Tensor::zeros((2, 21), candle_core::DType::F32, &Device::Cpu).unwrap();
        for wrong in [wide.clone(), wide.t().unwrap(), wide.narrow(1, 0, 20).unwrap()] {
            assert!(linear_tensor(&layer, &team, &wrong, Activation::Relu).is_err(), "{wrong:?}");
        }
    });
}

#[test]
fn windows_that_overlap_are_a_convolution() {
    // 10 positions of 3 channels, windows of 4 positions.
    for format in [WeightFormat::F32, WeightFormat::Int8] {
        each_layer(12, 20, format, |layer, _, _| {
            let x = numbers(&mut StdRng::seed_from_u64(11), 30);
            let copied: Vec<f32> = (0..7).flat_map(|window| x[window * 3..][..12].to_vec()).collect();
            let (mut got, mut expected) = (vec![f32::NAN; 7 * 20], vec![f32::NAN; 7 * 20]);
            layer.forward_windows(&team(2), &x, 3, &mut got, Activation::Relu).unwrap();
            layer.forward(&team(1), &copied, &mut expected, Activation::Relu).unwrap();
            assert!(got.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{layer:?}");
            assert!(layer.forward_windows(&team(1), &x, 0, &mut got, Activation::Relu).is_err());
            assert!(layer.forward_windows(&team(1), &x[..27], 3, &mut got, Activation::Relu).is_err());
            layer.forward_windows(&team(1), &x[..11], 3, &mut [], Activation::Relu).unwrap();
        });
    }
}

#[test]
fn a_gated_layer_is_two_products_multiplied_in_every_format_and_at_every_size() {
    const GATES: [Activation; 5] = [ACTIVATIONS[0], ACTIVATIONS[1], ACTIVATIONS[2], ACTIVATIONS[3], Activation::Silu];
    let tolerance = |format| match format {
        WeightFormat::F32 => 1e-5,
        WeightFormat::Int8 | WeightFormat::Blocks(BlockFormat::Q8_0) => 0.2,
        WeightFormat::Blocks(BlockFormat::Q4K) => 1.0,
    };
    for (inputs, outputs) in [(32, 1), (64, 5), (256, 48), (32, 70)] {
        let mut random = StdRng::seed_from_u64((inputs * 1000 + outputs) as u64);
        let [gate, up] = [(); 2].map(|()| (numbers(&mut random, inputs * outputs), numbers(&mut random, outputs)));
        let x = numbers(&mut random, 27 * inputs);
        for (format, activation) in FORMATS.into_iter().flat_map(|format| GATES.map(|activation| (format, activation)))
        {
            let of = |(weight, bias): &(Vec<f32>, Vec<f32>), activation| {
                reference::linear(&x, weight, bias, inputs, activation)
            };
            let (gates, ups) = (of(&gate, activation), of(&up, Activation::Identity));
            let expected: Vec<f64> = gates.iter().zip(ups).map(|(gate, up)| gate * up).collect();
            for isa in Isa::available() {
                let both = [&gate, &up].map(|(weight, bias)| (&weight[..], &bias[..]));
                let layer = Linear::gated_for_isa(*isa, both, inputs, outputs, format).unwrap();
                assert_eq!((layer.outputs(), layer.is_gated()), (outputs, true));
                let mut y = vec![f32::NAN; expected.len()];
                layer.forward(&team(1), &x, &mut y, activation).unwrap();
                let largest = expected.iter().fold(1.0, |largest: f64, y| largest.max(y.abs()));
                for (got, expected) in y.iter().zip(&expected) {
                    let error = (f64::from(*got) - expected).abs() / largest;
                    assert!(error < tolerance(format), "{layer:?} {activation:?}: {got} for {expected}");
                }
                // Alone and on several threads: the same bits.
                let mut again = vec![f32::NAN; expected.len()];
                for (x, y) in x.chunks_exact(inputs).zip(again.chunks_exact_mut(outputs)) {
                    layer.forward(&team(1), x, y, activation).unwrap();
                }
                assert!(y.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()), "{layer:?} {activation:?}");
                layer.forward(&team(3), &x, &mut again, activation).unwrap();
                assert!(y.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()), "{layer:?} {activation:?}");
            }
        }
    }
    let refused = Linear::gated([(&[0.0; 6], &[0.0; 2]), (&[0.0; 5], &[0.0; 2])], 3, 2, WeightFormat::F32);
    assert!(refused.unwrap_err().to_string().contains("5 weights and a bias of 2"));
}

#[test]
fn silu_keeps_its_limits_and_nan() {
    let layer = Linear::new(&[1.0], None, 1, 1, WeightFormat::F32).unwrap();
    let x = [0.0, 1.0, -1.0, 30.0, -30.0, 200.0, -200.0, f32::INFINITY, f32::NAN];
    let mut y = [f32::NAN; 9];
    layer.forward(&team(1), &x, &mut y, Activation::Silu).unwrap();
    for (x, y) in x.iter().zip(y) {
        let expected = reference::linear(&[*x], &[1.0], &[0.0], 1, Activation::Silu)[0];
        let near = (f64::from(y) - expected).abs() <= 3e-7 * expected.abs().max(1.0);
        assert!(near || f64::from(y).total_cmp(&expected).is_eq() || (x.is_nan() && y.is_nan()), "{x}: {y} {expected}");
    }
}
