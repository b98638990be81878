//! The parts of an encoder in device memory, in lists from which its launches take them by number.

use super::launches::LaunchParts;
use super::positions::DevicePositions;
use super::{CudaPrecision, OuterWeights, check_dense};
use crate::KernelError;
use crate::attention::cuda::DeviceHeads;
use crate::cuda::{Gpu, mismatch};
use crate::embedding::cuda::DeviceEmbeddings;
use crate::encoder::parts::{check_norm, heads_of, relative_bias_of};
use crate::encoder::spec::{BlockSpec, EncoderSpec, NormSpec};
use crate::encoder::steps::LayerNumbers;
use crate::encoder::{Dense, LayerWeights};
use crate::linear::cuda::{FloatLinear, Int8Linear};
use crate::residual_norm::RowNorm;
use crate::residual_norm::cuda::DeviceNorm;

pub(super) struct DeviceParts {
    hidden: usize,
    precision: CudaPrecision,
    pub(super) embeddings: DeviceEmbeddings,
    /// The product after the tables.
    pub(super) projection: Option<usize>,
    pub(super) linears: Vec<DeviceLinear>,
    pub(super) norms: Vec<DeviceNorm>,
    pub(super) final_norm: Option<usize>,
    /// The heads of each block.
    pub(super) heads: Vec<DeviceHeads>,
    pub(super) positions: DevicePositions,
}

/// A linear layer.
pub(super) struct DeviceLinear {
    pub(super) weights: DeviceWeights,
    pub(super) inputs: usize,
    /// Number of elements of a row; those of gates and ups together.
    pub(super) outputs: usize,
    gated: bool,
}

pub(super) enum DeviceWeights {
    Float(FloatLinear),
    Int8(Int8Linear),
}

impl DeviceParts {
    /// Copies all parts but the layers and the head to the device.
    pub(super) fn new(
        gpu: &Gpu,
        precision: CudaPrecision,
        spec: &EncoderSpec,
        weights: OuterWeights,
    ) -> Result<Self, KernelError> {
        let OuterWeights { embeddings, embedding_projection, relative_bias, final_norm, .. } = weights;
        if embeddings.columns() != spec.embedding_size() {
            let columns = embeddings.columns();
            return Err(mismatch(format!("embeddings of {columns} columns, not {}", spec.embedding_size())));
        }
        let mut parts = Self {
            hidden: spec.hidden,
            precision,
            embeddings: DeviceEmbeddings::new(gpu, &embeddings, precision.element())?,
            projection: None,
            linears: Vec::new(),
            norms: Vec::new(),
            final_norm: None,
            heads: Vec::new(),
            positions: DevicePositions::default(),
        };
        parts.positions.kinds.relative = relative_bias_of(spec, relative_bias)?;
        parts.final_norm = parts.norm(gpu, "final_norm", final_norm.as_ref(), spec.final_norm)?;
        parts.projection = match (embedding_projection, spec.embeddings.projected_from) {
            (None, None) => None,
            (Some(dense), Some(from)) => {
                Some(parts.linear(gpu, "embedding_projection", [&dense], from, spec.hidden)?)
            }
            (dense, from) => {
                let has = if dense.is_some() { "is there" } else { "is absent" };
                return Err(mismatch(format!("embedding_projection {has}, but rows are projected from {from:?}")));
            }
        };
        Ok(parts)
    }

    /// Copies a layer to the device.
    pub(super) fn layer(
        &mut self,
        gpu: &Gpu,
        block: &BlockSpec,
        layer: &LayerWeights,
    ) -> Result<LayerNumbers, KernelError> {
        let (hidden, BlockSpec { attention, feed_forward, .. }) = (self.hidden, block);
        let heads = heads_of(&mut self.positions.kinds, attention, layer.head_norms.clone())?;
        let (packed, attended, inner) = (heads.packed_columns(), heads.columns(), feed_forward.inner);
        let up = match (&layer.gate, feed_forward.gated) {
            (Some(gate), true) => self.linear(gpu, "gate and up", [gate, &layer.up], hidden, inner)?,
            (None, false) => self.linear(gpu, "up", [&layer.up], hidden, inner)?,
            (gate, gated) => {
                let has = if gate.is_some() { "is there" } else { "is absent" };
                return Err(mismatch(format!("gate {has}, but gated is {gated}")));
            }
        };
        let numbers = LayerNumbers {
            query_key_value: self.linear(gpu, "query_key_value", [&layer.query_key_value], hidden, packed)?,
            heads: self.heads.len(),
            attention_output: self.linear(gpu, "attention_output", [&layer.attention_output], attended, hidden)?,
            attention_norm: self.norm(gpu, "attention_norm", layer.attention_norm.as_ref(), block.attention_norm)?,
            up,
            down: self.linear(gpu, "down", [&layer.down], inner, hidden)?,
            output_norm: self.norm(gpu, "output_norm", layer.output_norm.as_ref(), block.output_norm)?,
        };
        self.heads.push(DeviceHeads::new(gpu, heads)?);
        Ok(numbers)
    }

    /// Copies products of the same input and sizes to the device as one: alone, or a gate and what it gates.
    fn linear<const N: usize>(
        &mut self,
        gpu: &Gpu,
        name: &str,
        products: [&Dense; N],
        inputs: usize,
        outputs: usize,
    ) -> Result<usize, KernelError> {
        products.iter().try_for_each(|dense| check_dense(name, dense, inputs, outputs))?;
        let joined;
        let Dense { weight, bias } = if let [only] = &products[..] {
            only
        } else {
            let all = |part: fn(&Dense) -> &[f32]| products.iter().flat_map(|dense| part(dense)).copied().collect();
            joined = Dense { weight: all(|dense| &dense.weight), bias: all(|dense| &dense.bias) };
            &joined
        };
        let weights = match self.precision {
            CudaPrecision::Int8 => DeviceWeights::Int8(Int8Linear::new(gpu, weight, bias, inputs)?),
            precision => DeviceWeights::Float(FloatLinear::new(gpu, weight, bias, inputs, precision.element())?),
        };
        self.linears.push(DeviceLinear { weights, inputs, outputs: N * outputs, gated: N > 1 });
        Ok(self.linears.len() - 1)
    }

    fn norm(
        &mut self,
        gpu: &Gpu,
        name: &str,
        norm: Option<&RowNorm>,
        spec: Option<NormSpec>,
    ) -> Result<Option<usize>, KernelError> {
        check_norm(name, norm, spec, self.hidden)?;
        let Some(norm) = norm else { return Ok(None) };
        self.norms.push(DeviceNorm::new(gpu, norm)?);
        Ok(Some(self.norms.len() - 1))
    }

    pub(super) fn bytes(&self) -> usize {
        let of_linear = |linear: &DeviceLinear| match &linear.weights {
            DeviceWeights::Float(linear) => linear.bytes(),
            DeviceWeights::Int8(linear) => linear.bytes(),
        };
        let linears = self.linears.iter().map(of_linear).sum::<usize>();
        let norms = self.norms.iter().map(DeviceNorm::bytes).sum::<usize>();
        let heads = self.heads.iter().map(DeviceHeads::bytes).sum::<usize>();
        self.embeddings.bytes() + linears + norms + heads + self.positions.bytes()
    }
}

impl LaunchParts for DeviceParts {
    fn int8(&self) -> bool {
        self.precision == CudaPrecision::Int8
    }

    fn is_gated(&self, linear: usize) -> bool {
        self.linears[linear].gated
    }

    fn prepares(&self, heads: usize) -> bool {
        self.heads[heads].prepares()
    }
}
