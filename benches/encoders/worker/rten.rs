//! rten on the plain graph, which it fuses at load.

use std::collections::BTreeMap;
use std::path::Path;

use rten::{Model, ModelOptions, NodeId, Value};

use super::{Encoder, Inputs, Padded, of_shape};
use crate::Result;

pub(super) struct Rten {
    model: Model,
    output: NodeId,
    batches: BTreeMap<String, Vec<(NodeId, Value)>>,
}

impl Rten {
    pub(super) fn load(graph: &Path, inputs: &Inputs) -> Result<Self> {
        let model = ModelOptions::with_all_ops().prepack_weights(true).load_file(graph)?;
        let mut batches = BTreeMap::new();
        for (shape, texts) in inputs {
            let padded = Padded::new(texts);
            let types = vec![0; padded.ids.len()];
            let mut batch = Vec::new();
            for (name, values) in
                [("input_ids", &padded.ids), ("attention_mask", &padded.mask), ("token_type_ids", &types)]
            {
                let values: Vec<i32> = values.iter().map(|value| value.cast_signed()).collect();
                batch.push((model.node_id(name)?, Value::from_shape([padded.texts, padded.tokens], values)?));
            }
            batches.insert(shape.clone(), batch);
        }
        Ok(Self { output: model.node_id("pooled")?, model, batches })
    }
}

impl Encoder for Rten {
    fn forward(&mut self, shape: &str) -> Result<Vec<f32>> {
        let batch = of_shape(&self.batches, shape)?;
        let inputs = batch.iter().map(|(node, value)| (*node, value.into())).collect();
        let [pooled] = self.model.run_n(inputs, [self.output], None)?;
        Ok(pooled.into_shape_vec::<f32, 2>()?.1)
    }
}
