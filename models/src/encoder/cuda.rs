//! Encoders on CUDA devices: the fused kernels of `sconce-kernels` and a head on the device, without candle.

use sconce_kernels::cuda::Gpu;
use sconce_kernels::embedding::TableFormat;
use sconce_kernels::encoder::cuda::{CudaEncoder, CudaPrecision, HeadWeights, OuterWeights};
use sconce_kernels::encoder::{EncoderSpec, HeadRows, HeadStep};

use super::batch::PackedBatch;
use super::head::{positive, texts};
use super::{EncoderEngine, EncoderPart, EncoderWeights, Tokens};
use crate::{ForwardError, LoadError, Precision};

/// An encoder and a head on a device.
pub(crate) struct CudaTextEncoder {
    encoder: CudaEncoder,
    rows: HeadRows,
    batch: PackedBatch,
}

impl CudaTextEncoder {
    /// The precisions in which CUDA's kernels run an encoder, f32 first; none if a size is larger than they take, so that
    /// candle's operations must run it.
    pub(crate) fn precisions(spec: &EncoderSpec) -> Vec<Precision> {
        let all = [Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8];
        all.into_iter().filter(|precision| CudaEncoder::check(spec, of(*precision)).is_ok()).collect()
    }

    /// Reads an encoder in one of its [`precisions`](Self::precisions). If `graphs` is true, calls
    /// [`CudaEncoder::use_graphs`].
    pub(crate) fn load(
        weights: &EncoderWeights<'_>,
        precision: Precision,
        ordinal: usize,
        graphs: bool,
    ) -> Result<Self, LoadError> {
        let spec = weights.spec();
        let step = |(index, step): (usize, &HeadStep)| {
            let part = EncoderPart::Head(index);
            Ok(match step {
                HeadStep::Product { .. } => HeadWeights::Product(weights.dense(part)?),
                HeadStep::Norm(_) => HeadWeights::Norm(weights.row_norm(part)?.expect("the step is a norm")),
            })
        };
        let projection = |_| weights.dense(EncoderPart::EmbeddingProjection);
        let outer = OuterWeights {
            embeddings: weights.embeddings(TableFormat::F32)?,
            embedding_projection: spec.embeddings.projected_from.map(projection).transpose()?,
            relative_bias: weights.relative_bias()?,
            final_norm: weights.row_norm(EncoderPart::FinalNorm)?,
            head: spec.head.steps.iter().enumerate().map(step).collect::<Result<_, LoadError>>()?,
        };
        let gpu = weights.fits(Gpu::open(ordinal))?;
        let mut encoder = weights.fits(CudaEncoder::new(gpu, of(precision), spec, outer))?;
        for index in 0..spec.blocks.len() {
            weights.fits(encoder.push(&weights.block(index)?))?;
        }
        if graphs {
            encoder.use_graphs();
        }
        Ok(Self { encoder, rows: spec.head.rows.clone(), batch: PackedBatch::default() })
    }
}

fn of(precision: Precision) -> CudaPrecision {
    match precision {
        Precision::F16 => CudaPrecision::F16,
        Precision::Bf16 => CudaPrecision::Bf16,
        Precision::Int8 => CudaPrecision::Int8,
        _ => CudaPrecision::F32,
    }
}

impl EncoderEngine for CudaTextEncoder {
    fn forward(&mut self, batch: &[Tokens<'_>]) -> Result<Vec<Vec<f32>>, ForwardError> {
        self.batch.pack(batch.iter().copied());
        let (columns, lengths) = (self.encoder.outputs(), &self.batch.lengths);
        let mut rows = vec![0.0; self.encoder.rows(lengths) * columns];
        self.encoder.forward(self.batch.tokens(), &mut rows)?;
        Ok(match self.rows {
            HeadRows::Pooled(_) => rows.chunks_exact(columns).map(<[f32]>::to_vec).collect(),
            HeadRows::Tokens => {
                texts(lengths).map(|text| rows[text.start * columns..text.end * columns].to_vec()).collect()
            }
            HeadRows::Sparse => rows.chunks_exact(columns).map(positive).collect(),
        })
    }
}
