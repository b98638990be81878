//! The launches of an encoder, made once from its steps.
//!
//! A product of floats leaves its bias to the launch that reads it; int8 adds it at once. A residual connection and the
//! norm after it are one launch, which keeps the sums where they are needed. A launch that makes the rows of an int8
//! product quantises them.

use crate::cuda::Activation;
use crate::encoder::steps::{EncoderStep, StepMatrix};

/// A place in the workspace, one row per token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DevicePlace {
    /// Rows of the tables, where a product makes vectors of `hidden` from them.
    Embedded,
    /// The tokens' vectors, also in the middle of a block: no step reads them after those are written.
    X,
    /// The output of a norm that comes before a half of a block.
    Normed,
    /// Query, key and value side by side; after attention, the inner vectors, or gates and ups side by side.
    Wide,
    /// The inner vectors that were gates and ups before.
    Gated,
    /// The output of all heads.
    Attended,
    /// The output of a product before the residual connection.
    Projected,
}

/// A launch. Linear layers, norms and heads are numbers in the encoder's lists; `bias` is the layer whose bias is added
/// to `x` first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Launch {
    /// The sums of the rows of the tables, also quantised if `quantize` is true.
    Embed { to: DevicePlace, quantize: bool },
    /// `sums = x + bias + residual`, `to = norm(sums)`, also quantised if `quantize` is true.
    Norm {
        x: DevicePlace,
        bias: Option<usize>,
        residual: Option<DevicePlace>,
        sums: Option<DevicePlace>,
        norm: Option<usize>,
        to: DevicePlace,
        quantize: bool,
    },
    /// `to = x·Wᵀ`; in int8 `activation(x·Wᵀ + b)` of the quantised rows.
    Product { x: DevicePlace, linear: usize, activation: Activation, to: DevicePlace },
    /// `wide = activation(wide + bias)`
    Activate { linear: usize, activation: Activation },
    /// `gated = activation(gates + bias)·(ups + bias)`
    Gate { linear: usize, activation: Activation },
    /// The quantised rows of x for a layer; with a gate, of `gate(gates)·ups`.
    Quantize { x: DevicePlace, linear: usize, gate: Option<Activation> },
    /// Norms and rotations of queries and keys.
    Prepare { heads: usize, bias: Option<usize> },
    /// Attention of every sequence.
    Attend { heads: usize, bias: Option<usize> },
}

/// The parts of an encoder that decide on its launches.
pub(super) trait LaunchParts {
    /// True if products are of bytes.
    fn int8(&self) -> bool;
    /// True if a layer makes gates and ups.
    fn is_gated(&self, linear: usize) -> bool;
    /// True if queries and keys have norms or rotations.
    fn prepares(&self, heads: usize) -> bool;
}

/// The launches of these steps, then of the norm after the last block.
pub(super) fn launches(steps: &[EncoderStep], final_norm: Option<usize>, parts: &impl LaunchParts) -> Vec<Launch> {
    let mut compiler = Compiler { parts, launches: Vec::new(), bias: None, gate: None, inner: DevicePlace::Wide };
    for step in steps {
        compiler.step(*step);
    }
    if let Some(norm) = final_norm {
        compiler.norm(DevicePlace::X, None, Some(norm), DevicePlace::X);
    }
    compiler.launches
}

struct Compiler<'a, P> {
    parts: &'a P,
    launches: Vec<Launch>,
    /// The layer whose bias the next launch adds.
    bias: Option<usize>,
    /// The gate that the next quantisation applies.
    gate: Option<Activation>,
    /// The place of the inner vectors.
    inner: DevicePlace,
}

impl<P: LaunchParts> Compiler<'_, P> {
    fn step(&mut self, step: EncoderStep) {
        match step {
            EncoderStep::Embed { to } => self.launches.push(Launch::Embed { to: self.place(to), quantize: false }),
            EncoderStep::Norm { x, residual, norm, to } => {
                let (x, to) = (self.place(x), self.place(to));
                self.norm(x, residual.map(|residual| self.place(residual)), norm, to);
            }
            EncoderStep::Product { x, linear, activation, to } => {
                let (x, activation) = (self.place(x), activation.into());
                if self.parts.int8() {
                    self.int8_product(x, linear, activation, to);
                } else {
                    self.float_product(x, linear, activation, to);
                }
            }
            EncoderStep::Attend { heads } => {
                let mut bias = self.bias.take();
                if self.parts.prepares(heads) {
                    self.launches.push(Launch::Prepare { heads, bias: bias.take() });
                }
                self.launches.push(Launch::Attend { heads, bias });
            }
        }
    }

    fn norm(&mut self, x: DevicePlace, residual: Option<DevicePlace>, norm: Option<usize>, to: DevicePlace) {
        // A norm of sums that the launch before has just made.
        if let Some(Launch::Norm { sums: sums @ None, norm: of_sums @ None, to: of_last, .. }) =
            self.launches.last_mut()
            && residual.is_none()
            && *of_last == x
        {
            *sums = (to != x).then_some(x);
            (*of_sums, *of_last) = (norm, to);
            return;
        }
        let bias = self.bias.take();
        self.launches.push(Launch::Norm { x, bias, residual, sums: None, norm, to, quantize: false });
    }

    fn float_product(&mut self, x: DevicePlace, linear: usize, activation: Activation, to: StepMatrix) {
        if to != StepMatrix::Inner {
            self.launches.push(Launch::Product { x, linear, activation: Activation::Identity, to: self.place(to) });
            self.bias = Some(linear);
            return;
        }
        self.launches.push(Launch::Product { x, linear, activation: Activation::Identity, to: DevicePlace::Wide });
        let gated = self.parts.is_gated(linear);
        self.inner = if gated { DevicePlace::Gated } else { DevicePlace::Wide };
        self.launches.push(if gated {
            Launch::Gate { linear, activation }
        } else {
            Launch::Activate { linear, activation }
        });
    }

    fn int8_product(&mut self, x: DevicePlace, linear: usize, activation: Activation, to: StepMatrix) {
        let gate = self.gate.take();
        match self.launches.last_mut() {
            Some(Launch::Embed { to, quantize } | Launch::Norm { to, quantize, .. }) if *to == x => *quantize = true,
            _ => self.launches.push(Launch::Quantize { x, linear, gate }),
        }
        let gated = self.parts.is_gated(linear);
        self.gate = gated.then_some(activation);
        let activation = if gated { Activation::Identity } else { activation };
        self.launches.push(Launch::Product { x, linear, activation, to: self.place(to) });
    }

    fn place(&self, matrix: StepMatrix) -> DevicePlace {
        match matrix {
            StepMatrix::Embedded => DevicePlace::Embedded,
            StepMatrix::X | StepMatrix::Middle => DevicePlace::X,
            StepMatrix::Normed => DevicePlace::Normed,
            StepMatrix::QueryKeyValue => DevicePlace::Wide,
            StepMatrix::Inner => self.inner,
            StepMatrix::Attended => DevicePlace::Attended,
            StepMatrix::Projected => DevicePlace::Projected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::cases::bert;
    use crate::encoder::steps::{LayerNumbers, Steps};
    use crate::encoder::{EncoderSpec, NormOrder};

    struct Like {
        int8: bool,
        gated: bool,
        prepares: bool,
    }

    impl LaunchParts for Like {
        fn int8(&self) -> bool {
            self.int8
        }
        fn is_gated(&self, linear: usize) -> bool {
            self.gated && linear == 2
        }
        fn prepares(&self, _heads: usize) -> bool {
            self.prepares
        }
    }

    /// The launches of one block, whose layers are 0 to 3 and whose norms are 4 and 5.
    fn of(spec: &EncoderSpec, final_norm: Option<usize>, parts: &Like) -> Vec<Launch> {
        let numbers = LayerNumbers {
            query_key_value: 0,
            heads: 0,
            attention_output: 1,
            attention_norm: Some(4),
            up: 2,
            down: 3,
            output_norm: Some(5),
        };
        launches(&Steps::new(spec, None, &[numbers]).list, final_norm, parts)
    }

    fn norm(bias: usize, sums: Option<DevicePlace>, norm: Option<usize>, to: DevicePlace, quantize: bool) -> Launch {
        let (x, residual) = (DevicePlace::Projected, Some(DevicePlace::X));
        Launch::Norm { x, bias: Some(bias), residual, sums, norm, to, quantize }
    }

    fn product(x: DevicePlace, linear: usize, to: DevicePlace) -> Launch {
        Launch::Product { x, linear, activation: Activation::Identity, to }
    }

    #[test]
    fn a_block_of_bert_in_floats_is_four_products_and_four_launches() {
        let spec = bert([8, 16, 2, 10, 10], 1);
        let got = of(&spec, None, &Like { int8: false, gated: false, prepares: false });
        let expected = [
            Launch::Embed { to: DevicePlace::X, quantize: false },
            product(DevicePlace::X, 0, DevicePlace::Wide),
            Launch::Attend { heads: 0, bias: Some(0) },
            product(DevicePlace::Attended, 1, DevicePlace::Projected),
            norm(1, None, Some(4), DevicePlace::X, false),
            product(DevicePlace::X, 2, DevicePlace::Wide),
            Launch::Activate { linear: 2, activation: Activation::GeluErf },
            product(DevicePlace::Wide, 3, DevicePlace::Projected),
            norm(3, None, Some(5), DevicePlace::X, false),
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn norms_before_each_half_are_made_with_the_residual_connection_before_them() {
        let mut spec = bert([8, 16, 2, 10, 10], 1);
        spec.blocks[0].order = NormOrder::Pre;
        let got = of(&spec, Some(6), &Like { int8: false, gated: true, prepares: true });
        let first = Launch::Norm {
            x: DevicePlace::X,
            bias: None,
            residual: None,
            sums: None,
            norm: Some(4),
            to: DevicePlace::Normed,
            quantize: false,
        };
        let expected = [
            Launch::Embed { to: DevicePlace::X, quantize: false },
            first,
            product(DevicePlace::Normed, 0, DevicePlace::Wide),
            Launch::Prepare { heads: 0, bias: Some(0) },
            Launch::Attend { heads: 0, bias: None },
            product(DevicePlace::Attended, 1, DevicePlace::Projected),
            norm(1, Some(DevicePlace::X), Some(5), DevicePlace::Normed, false),
            product(DevicePlace::Normed, 2, DevicePlace::Wide),
            Launch::Gate { linear: 2, activation: Activation::GeluErf },
            product(DevicePlace::Gated, 3, DevicePlace::Projected),
            norm(3, None, Some(6), DevicePlace::X, false),
        ];
        assert_eq!(got, expected);
    }

    #[test]
    fn rows_of_int8_products_are_quantised_by_the_launch_that_makes_them_if_it_can() {
        let spec = bert([8, 16, 2, 10, 10], 1);
        let got = of(&spec, None, &Like { int8: true, gated: true, prepares: false });
        let norm = |norm, quantize| Launch::Norm {
            x: DevicePlace::Projected,
            bias: None,
            residual: Some(DevicePlace::X),
            sums: None,
            norm: Some(norm),
            to: DevicePlace::X,
            quantize,
        };
        let expected = [
            Launch::Embed { to: DevicePlace::X, quantize: true },
            product(DevicePlace::X, 0, DevicePlace::Wide),
            Launch::Attend { heads: 0, bias: None },
            Launch::Quantize { x: DevicePlace::Attended, linear: 1, gate: None },
            product(DevicePlace::Attended, 1, DevicePlace::Projected),
            norm(4, true),
            product(DevicePlace::X, 2, DevicePlace::Wide),
            Launch::Quantize { x: DevicePlace::Wide, linear: 3, gate: Some(Activation::GeluErf) },
            product(DevicePlace::Wide, 3, DevicePlace::Projected),
            norm(5, false),
        ];
        assert_eq!(got, expected);
    }
}
