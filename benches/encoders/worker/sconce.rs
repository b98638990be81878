//! Sconce, as an embedding program uses it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use sconce_kernels::Team;
use sconce_models::{Features, LoadOptions, Network, Precision, Registry, cpu};

use super::{Encoder, Inputs, of_shape};
use crate::Result;

pub(super) struct Sconce {
    network: Box<dyn Network>,
    batches: BTreeMap<String, Vec<Features>>,
}

impl Sconce {
    pub(super) fn load(directory: &Path, precision: Precision, threads: NonZeroUsize, inputs: &Inputs) -> Result<Self> {
        let team = Arc::new(Team::new(threads)?);
        let options = LoadOptions { precision: Some(precision), device: cpu(team) };
        let network = Registry::default().load(directory, &options)?.network;
        let features = |ids: &Vec<u32>| Features::Tokens { input_ids: ids.clone(), token_type_ids: vec![0; ids.len()] };
        let batch = |texts: &Vec<Vec<u32>>| texts.iter().map(features).collect();
        let batches = inputs.iter().map(|(shape, texts)| (shape.clone(), batch(texts))).collect();
        Ok(Self { network, batches })
    }
}

impl Encoder for Sconce {
    fn forward(&mut self, shape: &str) -> Result<Vec<f32>> {
        Ok(self.network.forward(of_shape(&self.batches, shape)?)?.concat())
    }
}
