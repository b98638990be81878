//! The unchanged BERT of candle-transformers.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};

use super::{Encoder, Inputs, Padded, of_shape};
use crate::Result;

pub(super) struct Candle {
    model: BertModel,
    batches: BTreeMap<String, PaddedTensors>,
}

/// Padded texts as tensors of [texts, tokens], and `shares` of [texts, 1, tokens]: each token's share in the mean.
struct PaddedTensors {
    ids: Tensor,
    types: Tensor,
    mask: Tensor,
    shares: Tensor,
}

impl Candle {
    pub(super) fn load(directory: &Path, inputs: &Inputs) -> Result<Self> {
        let config: Config = serde_json::from_slice(&std::fs::read(directory.join("config.json"))?)?;
        let weights = std::fs::read(directory.join("model.safetensors"))?;
        let weights = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)?;
        let batches = inputs.iter().map(|(shape, texts)| Ok((shape.clone(), PaddedTensors::new(&Padded::new(texts))?)));
        Ok(Self { model: BertModel::load(weights, &config)?, batches: batches.collect::<Result<_>>()? })
    }
}

impl PaddedTensors {
    fn new(padded: &Padded) -> Result<Self> {
        let size = (padded.texts, padded.tokens);
        let mask = Tensor::from_slice(&padded.mask, size, &Device::Cpu)?;
        let kept = mask.to_dtype(DType::F32)?;
        Ok(Self {
            ids: Tensor::from_slice(&padded.ids, size, &Device::Cpu)?,
            types: Tensor::zeros(size, DType::U32, &Device::Cpu)?,
            shares: kept.broadcast_div(&kept.sum_keepdim(1)?)?.unsqueeze(1)?,
            mask,
        })
    }
}

impl Encoder for Candle {
    fn forward(&mut self, shape: &str) -> Result<Vec<f32>> {
        let batch = of_shape(&self.batches, shape)?;
        let hidden = self.model.forward(&batch.ids, &batch.types, Some(&batch.mask))?;
        // The mean as a product, because candle's sum over a middle dimension is many times slower.
        Ok(batch.shares.matmul(&hidden)?.flatten_all()?.to_vec1()?)
    }
}
