//! The parts of an encoder in lists, from which its steps take them by number.

use super::spec::{AttentionPositions, AttentionSpec, BlockSpec, EncoderSpec, NormKind, NormSpec, RelativeBias};
use super::steps::{LayerNumbers, Steps};
use super::weights::{EncoderLayer, PackedParts};
use crate::KernelError;
use crate::attention::AttentionHeads;
use crate::attention::positions::{DistanceBias, HeadRotation, PositionKinds};
use crate::embedding::Embeddings;
use crate::linear::Linear;
use crate::residual_norm::RowNorm;

pub(super) struct EncoderParts {
    /// Elements of a token's vector.
    pub(super) hidden: usize,
    pub(super) embeddings: Embeddings,
    pub(super) linears: Vec<Linear>,
    pub(super) norms: Vec<RowNorm>,
    /// The heads of each block.
    pub(super) heads: Vec<AttentionHeads>,
    pub(super) final_norm: Option<RowNorm>,
    /// The biases by distance and the rotations of the blocks' heads.
    pub(super) positions: PositionKinds,
}

impl EncoderParts {
    /// Puts the parts into lists and makes the steps that use them.
    pub(super) fn new(spec: &EncoderSpec, weights: PackedParts) -> Result<(Self, Steps), KernelError> {
        let PackedParts { embeddings, embedding_projection, relative_bias, layers, final_norm } = weights;
        let hidden = spec.hidden;
        if layers.len() != spec.blocks.len() {
            return Err(mismatch(format!("{} layers for {} blocks", layers.len(), spec.blocks.len())));
        }
        if embeddings.columns() != spec.embedding_size() {
            let columns = embeddings.columns();
            return Err(mismatch(format!("embeddings of {columns} columns, not {}", spec.embedding_size())));
        }
        check_norm("final_norm", final_norm.as_ref(), spec.final_norm, hidden)?;
        let mut parts = Self {
            hidden,
            embeddings,
            linears: Vec::new(),
            norms: Vec::new(),
            heads: Vec::new(),
            final_norm,
            positions: PositionKinds::default(),
        };
        let from = spec.embeddings.projected_from;
        let projection = match (embedding_projection, from) {
            (None, None) => None,
            (Some(linear), Some(from)) => Some(parts.linear("embedding_projection", linear, from, hidden, false)?),
            (linear, from) => {
                return Err(mismatch(format!(
                    "embedding_projection is {linear:?}, but rows are projected from {from:?}"
                )));
            }
        };
        parts.positions.relative = relative_bias_of(spec, relative_bias)?;
        let numbers = spec.blocks.iter().zip(layers).enumerate().map(|(index, (block, layer))| {
            parts.layer(block, layer).map_err(|error| mismatch(format!("layer {index}: {error}")))
        });
        let numbers: Vec<_> = numbers.collect::<Result<_, _>>()?;
        let steps = Steps::new(spec, projection, &numbers);
        Ok((parts, steps))
    }

    fn layer(&mut self, block: &BlockSpec, layer: EncoderLayer) -> Result<LayerNumbers, KernelError> {
        let (hidden, BlockSpec { attention, feed_forward, .. }) = (self.hidden, block);
        let heads = heads_of(&mut self.positions, attention, layer.head_norms)?;
        let (packed, attended, inner) = (heads.packed_columns(), heads.columns(), feed_forward.inner);
        self.heads.push(heads);
        Ok(LayerNumbers {
            query_key_value: self.linear("query_key_value", layer.query_key_value, hidden, packed, false)?,
            heads: self.heads.len() - 1,
            attention_output: self.linear("attention_output", layer.attention_output, attended, hidden, false)?,
            attention_norm: self.norm("attention_norm", layer.attention_norm, block.attention_norm)?,
            up: self.linear("up", layer.up, hidden, inner, feed_forward.gated)?,
            down: self.linear("down", layer.down, inner, hidden, false)?,
            output_norm: self.norm("output_norm", layer.output_norm, block.output_norm)?,
        })
    }

    fn linear(
        &mut self,
        name: &str,
        linear: Linear,
        inputs: usize,
        outputs: usize,
        gated: bool,
    ) -> Result<usize, KernelError> {
        if (linear.inputs(), linear.outputs(), linear.is_gated()) != (inputs, outputs, gated) {
            let gate = if gated { " with a gate" } else { "" };
            return Err(mismatch(format!("{name} must be {inputs} to {outputs}{gate}, but is {linear:?}")));
        }
        self.linears.push(linear);
        Ok(self.linears.len() - 1)
    }

    fn norm(
        &mut self,
        name: &str,
        norm: Option<RowNorm>,
        spec: Option<NormSpec>,
    ) -> Result<Option<usize>, KernelError> {
        check_norm(name, norm.as_ref(), spec, self.hidden)?;
        let Some(norm) = norm else { return Ok(None) };
        self.norms.push(norm);
        Ok(Some(self.norms.len() - 1))
    }

    pub(super) fn bytes(&self) -> usize {
        self.embeddings.bytes() + self.linears.iter().map(Linear::bytes).sum::<usize>()
    }
}

/// The learned bias of scores, checked against the spec.
pub(super) fn relative_bias_of(
    spec: &EncoderSpec,
    values: Option<Vec<f32>>,
) -> Result<Option<(RelativeBias, Vec<f32>)>, KernelError> {
    match (values, spec.relative_bias) {
        (None, None) => Ok(None),
        (Some(values), Some(bias)) => {
            let heads = spec.blocks.first().map_or(0, |block| block.attention.heads);
            if values.len() != bias.buckets * heads {
                let (values, buckets) = (values.len(), bias.buckets);
                return Err(mismatch(format!("a relative bias of {values} numbers, not {buckets}·{heads}")));
            }
            Ok(Some((bias, values)))
        }
        (values, bias) => {
            let values = values.map(|values| values.len());
            Err(mismatch(format!("relative_bias has {values:?} numbers, but the spec says {bias:?}")))
        }
    }
}

/// The heads of a block. Their biases and rotations are added to the kinds that the encoder needs.
pub(super) fn heads_of(
    positions: &mut PositionKinds,
    spec: &AttentionSpec,
    norms: Option<[RowNorm; 2]>,
) -> Result<AttentionHeads, KernelError> {
    let AttentionSpec { heads, key_value_heads, head_size, mask, .. } = *spec;
    for at in 0..2 {
        let norm = norms.as_ref().map(|norms| &norms[at]);
        check_norm(["query_norm", "key_norm"][at], norm, spec.head_norm, head_size)?;
    }
    let (relative, alibi) = (positions.relative.is_some(), spec.positions == AttentionPositions::Alibi);
    let bias = DistanceBias { heads, relative, alibi };
    let bias = (relative || alibi).then(|| PositionKinds::index_of(&mut positions.biases, bias));
    let rotation = match spec.positions {
        AttentionPositions::Rotary(rotary) => {
            let rotation = HeadRotation { rotary, head_size };
            Some(PositionKinds::index_of(&mut positions.rotations, rotation))
        }
        AttentionPositions::None | AttentionPositions::Alibi => None,
    };
    Ok(AttentionHeads { queries: heads, keys: key_value_heads, size: head_size, mask, bias, rotation, norms })
}

pub(super) fn check_norm(
    name: &str,
    norm: Option<&RowNorm>,
    spec: Option<NormSpec>,
    columns: usize,
) -> Result<(), KernelError> {
    let fits = match (norm, spec.map(|spec| spec.kind)) {
        (None, None) => true,
        (Some(RowNorm::Layer(norm)), Some(NormKind::Layer { .. })) => norm.columns() == columns,
        (Some(norm @ RowNorm::Rms(_)), Some(NormKind::Rms)) => norm.columns() == columns,
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let has = norm.map_or("is absent".to_owned(), |norm| match norm {
        RowNorm::Layer(norm) => format!("is a layer norm of {} columns", norm.columns()),
        RowNorm::Rms(_) => "is an RMS norm".to_owned(),
    });
    Err(mismatch(format!("{name} {has}, but must be {spec:?} of {columns} columns")))
}

fn mismatch(what: String) -> KernelError {
    KernelError::Mismatch { what }
}
