//! Encoders on CUDA devices: the fused kernels of `sconce-kernels` and a head on the device, without candle.

use sconce_kernels::cuda::Gpu;
use sconce_kernels::embedding::TableFormat;
use sconce_kernels::encoder::cuda::{CudaEncoder, CudaPrecision, HeadWeights};
use sconce_kernels::encoder::{EncoderSpec, FusedBlocks, HeadFunction, HeadRows, HeadSpec, HeadStep};
use sconce_kernels::pooling::Pooling;

use super::batch::PackedBatch;
use super::{EncoderEngine, EncoderPart, EncoderWeights, Tokens};
use crate::{ForwardError, LoadError, Precision};

/// An encoder and a head on a device.
pub(crate) struct CudaTextEncoder {
    encoder: CudaEncoder,
    batch: PackedBatch,
}

/// A head that runs on the device.
enum FusedHead {
    Pool(Pooling),
    /// Two products of the first token's vector, with a function between them.
    Classifier(HeadFunction),
}

impl FusedHead {
    /// The head as the device runs it; `None` if it cannot.
    fn of(head: &HeadSpec) -> Option<Self> {
        let HeadRows::Pooled(poolings) = &head.rows else { return None };
        match (&poolings[..], &head.steps[..]) {
            ([pooling @ (Pooling::Mean | Pooling::Cls)], []) => Some(Self::Pool(*pooling)),
            (
                [Pooling::Cls],
                [
                    HeadStep::Product { function: function @ (HeadFunction::Tanh | HeadFunction::Relu), .. },
                    HeadStep::Product { function: HeadFunction::Identity, .. },
                ],
            ) => Some(Self::Classifier(*function)),
            _ => None,
        }
    }
}

impl CudaTextEncoder {
    /// The precisions of CUDA's kernels, f32 first.
    pub(crate) const PRECISIONS: [Precision; 4] = [Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8];

    /// The blocks as CUDA's kernels run them; `None` if they cannot, so that candle's operations must run the encoder.
    pub(crate) fn fused(spec: &EncoderSpec) -> Option<FusedBlocks> {
        let heads_fit = spec.blocks.iter().all(|block| block.attention.head_size <= CudaEncoder::MAX_HEAD_SIZE);
        spec.fused().ok().filter(|_| heads_fit && FusedHead::of(&spec.head).is_some())
    }

    /// Reads an encoder whose spec is `fused`. If `graphs` is true, calls [`CudaEncoder::use_graphs`].
    pub(crate) fn load(
        weights: &EncoderWeights<'_>,
        fused: FusedBlocks,
        precision: Precision,
        ordinal: usize,
        graphs: bool,
    ) -> Result<Self, LoadError> {
        let precision = match precision {
            Precision::F16 => CudaPrecision::F16,
            Precision::Bf16 => CudaPrecision::Bf16,
            Precision::Int8 => CudaPrecision::Int8,
            _ => CudaPrecision::F32,
        };
        let head = match FusedHead::of(&weights.spec().head).expect("the caller has a head that is fused") {
            FusedHead::Pool(pooling) => HeadWeights::Pool(pooling),
            FusedHead::Classifier(function) => HeadWeights::Classifier {
                pooler: weights.dense(EncoderPart::Head(0))?,
                function,
                classifier: weights.dense(EncoderPart::Head(1))?,
            },
        };
        let embeddings = weights.embeddings(TableFormat::F32)?;
        let gpu = weights.fits(Gpu::open(ordinal))?;
        let FusedBlocks { heads, inner, .. } = fused;
        let mut encoder = weights.fits(CudaEncoder::new(gpu, precision, &embeddings, heads, inner, &head))?;
        for index in 0..weights.spec().blocks.len() {
            weights.fits(encoder.push(&weights.block(index)?))?;
        }
        if graphs {
            encoder.use_graphs();
        }
        Ok(Self { encoder, batch: PackedBatch::default() })
    }
}

impl EncoderEngine for CudaTextEncoder {
    fn forward(&mut self, texts: &[Tokens<'_>]) -> Result<Vec<Vec<f32>>, ForwardError> {
        self.batch.pack(texts.iter().copied());
        let columns = self.encoder.outputs();
        let mut rows = vec![0.0; texts.len() * columns];
        self.encoder.forward(self.batch.tokens(), &mut rows)?;
        Ok(rows.chunks_exact(columns).map(<[f32]>::to_vec).collect())
    }
}
