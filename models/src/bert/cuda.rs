//! BERT on CUDA devices: the encoder of `sconce-kernels` with its head on the device, without candle.

use candle_core::DeviceLocation;
use sconce_kernels::KernelError;
use sconce_kernels::cuda::Gpu;
use sconce_kernels::embedding::TableFormat;
use sconce_kernels::encoder::cuda::{CudaEncoder, CudaPrecision, HeadWeights};
use sconce_kernels::pooling::Pooling;

use super::HeadKind;
use super::batch::Batch;
use super::parts::Parts;
use crate::{LoadError, Precision, Target};

/// An encoder and a head on a device.
pub(super) struct CudaBert {
    encoder: CudaEncoder,
    batch: Batch,
}

impl CudaBert {
    pub(super) fn load(parts: Parts<'_>, head: HeadKind, target: &Target) -> Result<Self, LoadError> {
        let DeviceLocation::Cuda { gpu_id } = target.device.location() else {
            unreachable!("the caller has a CUDA device");
        };
        let precision = match target.precision {
            Precision::F32 => CudaPrecision::F32,
            Precision::F16 => CudaPrecision::F16,
            Precision::Bf16 => CudaPrecision::Bf16,
            Precision::Int8 => CudaPrecision::Int8,
            Precision::Q8_0 | Precision::Q4K => unreachable!("the family has them on the CPU alone"),
        };
        let config = parts.config;
        let (heads, inner) = (config.num_attention_heads, config.intermediate_size);
        let head = match head {
            HeadKind::Mean => HeadWeights::Pool(Pooling::Mean),
            HeadKind::Cls => HeadWeights::Pool(Pooling::Cls),
            HeadKind::Classifier { labels } => {
                let [pooler, classifier] = parts.classifier(labels)?;
                HeadWeights::Classifier { pooler, classifier }
            }
        };
        let embeddings = parts.embeddings(TableFormat::F32)?;
        let gpu = parts.fits(Gpu::open(gpu_id))?;
        let mut encoder = parts.fits(CudaEncoder::new(gpu, precision, &embeddings, heads, inner, &head))?;
        for index in 0..config.num_hidden_layers {
            parts.fits(encoder.push(&parts.layer(index)?))?;
        }
        Ok(Self { encoder, batch: Batch::default() })
    }

    /// See [`CudaEncoder::use_graphs`].
    pub(super) fn use_graphs(&mut self) {
        self.encoder.use_graphs();
    }

    /// One row per item, each of them ids and segments that are within the tables.
    pub(super) fn forward(&mut self, items: &[(&[u32], &[u32])]) -> Result<Vec<Vec<f32>>, KernelError> {
        self.batch.pack(items.iter().copied());
        let columns = self.encoder.outputs();
        let mut rows = vec![0.0; items.len() * columns];
        self.encoder.forward(self.batch.tokens(), &mut rows)?;
        Ok(rows.chunks_exact(columns).map(<[f32]>::to_vec).collect())
    }
}
