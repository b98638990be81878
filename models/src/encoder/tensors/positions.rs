//! The tensors by which attention depends on positions: angles, masks and biases of scores.

use candle_core::{Device, Result, Tensor};
use sconce_kernels::encoder::{AttentionPositions, AttentionSpec, Mask, RelativeBias, Rotary};

use super::Run;

/// The tensors that depend on the positions in a run's texts alone, the same for all blocks with one [`AttentionSpec`].
pub(super) struct RunPositions {
    /// Cosines and sines of rotary positions.
    pub(super) rotations: Option<(Tensor, Tensor)>,
    /// A number to add to each score, `[1 or heads, length, length]`: −∞ where a query does not see a key.
    pub(super) bias: Option<Tensor>,
}

impl RunPositions {
    pub(super) fn new(
        spec: &AttentionSpec,
        run: Run,
        relative: Option<&(RelativeBias, Tensor)>,
        device: &Device,
    ) -> Result<Self> {
        let rotations = match spec.positions {
            AttentionPositions::Rotary(rotary) => Some(rotations(run.length, spec.head_size, rotary, device)?),
            AttentionPositions::None | AttentionPositions::Alibi => None,
        };
        let parts = [
            mask_of(spec.mask, run.length, device)?,
            alibi(spec, run.length, device)?,
            relative.map(|(bias, table)| of_distances(*bias, table, run.length)).transpose()?,
        ];
        let mut bias: Option<Tensor> = None;
        for part in parts.into_iter().flatten() {
            bias = Some(match bias {
                Some(bias) => bias.broadcast_add(&part)?,
                None => part,
            });
        }
        Ok(Self { rotations, bias })
    }
}

/// Cosines and sines of the angles of rotary positions, `[length, size / 2]`.
fn rotations(length: usize, size: usize, rotary: Rotary, device: &Device) -> Result<(Tensor, Tensor)> {
    let angles = (0..length).flat_map(|at| (0..size / 2).map(move |i| rotary.angle(at, i, size)));
    #[expect(clippy::cast_possible_truncation, reason = "candle computes in f32")]
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
    let shape = (length, size / 2);
    Ok((Tensor::from_vec(cos, shape, device)?, Tensor::from_vec(sin, shape, device)?))
}

/// The biases of ALiBi, `[heads, length, length]`.
fn alibi(spec: &AttentionSpec, length: usize, device: &Device) -> Result<Option<Tensor>> {
    if spec.positions != AttentionPositions::Alibi {
        return Ok(None);
    }
    let pairs = (0..length).flat_map(|query| (0..length).map(move |key| query.abs_diff(key) as f32));
    let distances = Tensor::from_vec(pairs.collect(), (1, length, length), device)?;
    let slopes: Vec<f32> = (0..spec.heads).map(|head| -spec.alibi_slope(head)).collect();
    distances.broadcast_mul(&Tensor::from_vec(slopes, (spec.heads, 1, 1), device)?).map(Some)
}

/// The relative biases `[heads, length, length]` from a table of `[buckets, heads]`.
fn of_distances(bias: RelativeBias, table: &Tensor, length: usize) -> Result<Tensor> {
    let distance = |query: usize, key: usize| key.cast_signed() - query.cast_signed();
    let pairs = (0..length).flat_map(|query| (0..length).map(move |key| bias.bucket(distance(query, key))));
    let rows: Vec<u32> = pairs.map(|row| u32::try_from(row).unwrap_or(u32::MAX)).collect();
    let rows = Tensor::from_vec(rows, length * length, table.device())?;
    table.index_select(&rows, 0)?.reshape((length, length, ()))?.permute((2, 0, 1))?.contiguous()
}

/// A mask of `[1, length, length]` with −∞ where a query does not see a key, else 0; `None` if each query sees all keys.
fn mask_of(mask: Mask, length: usize, device: &Device) -> Result<Option<Tensor>> {
    if mask == Mask::Full {
        return Ok(None);
    }
    let sees = |query: usize, key: usize| match mask {
        Mask::Full => true,
        Mask::Causal => key <= query,
        Mask::Window(most) => query.abs_diff(key) <= most,
    };
    let pairs = (0..length).flat_map(|query| (0..length).map(move |key| (query, key)));
    let mask: Vec<f32> = pairs.map(|(query, key)| if sees(query, key) { 0.0 } else { f32::NEG_INFINITY }).collect();
    if mask.iter().all(|value| *value >= 0.0) {
        return Ok(None);
    }
    Tensor::from_vec(mask, (1, length, length), device).map(Some)
}
