use std::path::Path;

use candle_core::Device;

use super::config::{Architecture, Config};
use super::packed::PackedBert;
use super::tensors::TensorBert;
use super::{HeadKind, ModelDirectory};
use crate::{LoadOptions, Precision, Target};

#[test]
fn the_engine_of_the_cpu_agrees_with_candles_operations() {
    for (model, classifier) in [("tiny-bert-sentiment", true), ("encoder-mini", false)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo").join(model);
        let directory = ModelDirectory::new(&path);
        let config = Config::read(&directory).unwrap();
        assert_eq!(config.architecture().unwrap() == Architecture::Classification, classifier);
        let weights = directory.weights(&Device::Cpu).unwrap();
        let (prefix, heads) = if classifier {
            ("bert.", vec![HeadKind::Classifier { labels: 2 }])
        } else {
            ("", vec![HeadKind::Mean, HeadKind::Cls])
        };
        for head in heads {
            let target = Target { device: Device::Cpu, precision: Precision::F32, team: LoadOptions::default().team };
            let mut packed = PackedBert::load(&directory, &config, &weights, prefix, head, &target).unwrap();
            let tensors = TensorBert::load(&directory, &config, &weights, prefix, head, &Device::Cpu).unwrap();
            let texts: Vec<(Vec<u32>, Vec<u32>)> = [1_u32, 5, 64, 5, 60, 33]
                .map(|tokens| {
                    ((0..tokens).map(|at| 1000 + at * 37 % 4000).collect(), (0..tokens).map(|at| at % 2).collect())
                })
                .into();
            let items: Vec<(&[u32], &[u32])> = texts.iter().map(|(ids, kinds)| (&ids[..], &kinds[..])).collect();
            let (packed, tensors) = (packed.forward(&items).unwrap(), tensors.forward(&items).unwrap());
            let worst =
                packed.iter().flatten().zip(tensors.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(packed.len() == items.len() && worst < 1e-5, "{model} {head:?}: {worst:e}");
        }
    }
}
