use std::path::{Path, PathBuf};

use candle_core::Device;

use super::config::{Architecture, Config};
use super::packed::PackedBert;
use super::parts::Parts;
use super::tensors::TensorBert;
use super::{HeadKind, ModelDirectory};
use crate::{LoadOptions, Precision, Target, Weights};

/// A model that ships, opened.
struct Zoo {
    directory: ModelDirectory,
    config: Config,
    weights: Weights,
    prefix: &'static str,
    heads: Vec<HeadKind>,
}

impl Zoo {
    fn open(path: &Path) -> Self {
        let directory = ModelDirectory::new(path);
        let config = Config::read(&directory).unwrap();
        let weights = directory.weights(&Device::Cpu).unwrap();
        let (prefix, heads) = match config.architecture().unwrap() {
            Architecture::Classification => ("bert.", vec![HeadKind::Classifier { labels: 2 }]),
            Architecture::Embedding => ("", vec![HeadKind::Mean, HeadKind::Cls]),
        };
        Self { directory, config, weights, prefix, heads }
    }

    fn parts(&self) -> Parts<'_> {
        let Self { directory, config, weights, prefix, .. } = self;
        Parts { directory, config, weights, prefix }
    }

    fn on_cpu(&self, head: HeadKind, precision: Precision) -> PackedBert {
        PackedBert::load(self.parts(), head, &target(Device::Cpu, precision)).unwrap()
    }
}

fn target(device: Device, precision: Precision) -> Target {
    Target { device, precision, team: LoadOptions::default().team }
}

fn zoo() -> impl Iterator<Item = PathBuf> {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo");
    ["tiny-bert-sentiment", "encoder-mini"].into_iter().map(move |model| zoo.join(model))
}

/// Ids and segments of each text.
type Texts = Vec<(Vec<u32>, Vec<u32>)>;

fn texts(tokens: &[u32]) -> Texts {
    let text = |tokens: &u32| {
        ((0..*tokens).map(|at| 1000 + at * 37 % 4000).collect(), (0..*tokens).map(|at| at % 2).collect())
    };
    tokens.iter().map(text).collect()
}

fn items(texts: &Texts) -> Vec<(&[u32], &[u32])> {
    texts.iter().map(|(ids, kinds)| (&ids[..], &kinds[..])).collect()
}

/// The largest difference, as a part of the largest number expected in the row where that is more than 1.
fn largest_gap(got: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let gaps = got.iter().zip(expected).flat_map(|(got, expected)| {
        assert_eq!(got.len(), expected.len());
        let largest = expected.iter().fold(1.0, |largest, x| x.abs().max(largest));
        got.iter().zip(expected).map(move |(got, expected)| (got - expected).abs() / largest)
    });
    // `f32::max` would pass over a NaN.
    gaps.fold(0.0, |worst, gap| if gap <= worst { worst } else { gap })
}

#[test]
fn the_engine_of_the_cpu_agrees_with_candles_operations() {
    for model in zoo().map(|path| Zoo::open(&path)) {
        for head in &model.heads {
            let mut packed = model.on_cpu(*head, Precision::F32);
            let Zoo { directory, config, weights, prefix, .. } = &model;
            let tensors = TensorBert::load(directory, config, weights, prefix, *head, &Device::Cpu).unwrap();
            let texts = texts(&[1, 5, 64, 5, 60, 33]);
            let items = items(&texts);
            let (packed, tensors) = (packed.forward(&items).unwrap(), tensors.forward(&items).unwrap());
            let worst = largest_gap(&packed, &tensors);
            assert!(packed.len() == items.len() && worst < 1e-5, "{directory:?} {head:?}: {worst:e}");
        }
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use sconce_kernels::device::{DeviceError, open_cuda};

    use super::super::cuda::CudaBert;
    use super::*;

    const PRECISIONS: [Precision; 4] = [Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8];

    /// The first device; says so where there is none.
    fn device() -> Option<Device> {
        match open_cuda(0) {
            Ok(device) => Some(device),
            Err(error @ (DeviceError::NoDriver { .. } | DeviceError::NoDevice)) => {
                assert!(std::env::var_os("SCONCE_EXPECT_GPU").is_none(), "a GPU is expected, but {error}");
                println!("SKIPPED: {error}");
                None
            }
            Err(error) => panic!("there is a device, but {error}"),
        }
    }

    /// The root of the mean square of the differences.
    fn deviation(got: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
        let pairs = got.iter().flatten().zip(expected.iter().flatten());
        let squares: Vec<f32> = pairs.map(|(got, expected)| (got - expected).powi(2)).collect();
        (squares.iter().sum::<f32>() / squares.len() as f32).sqrt()
    }

    /// In every precision and with every head; and each text alone like in the batch.
    fn check(path: &Path, tokens: &[u32]) {
        let Some(device) = device() else { return };
        let model = Zoo::open(path);
        let texts = texts(tokens);
        let items = items(&texts);
        for head in &model.heads {
            let expected = model.on_cpu(*head, Precision::F32).forward(&items).unwrap();
            let int8 = model.on_cpu(*head, Precision::Int8).forward(&items).unwrap();
            for precision in PRECISIONS {
                let target = target(device.clone(), precision);
                let mut engine = CudaBert::load(model.parts(), *head, &target).unwrap();
                let got = engine.forward(&items).unwrap();
                let (error, bound) = match precision {
                    Precision::F32 => (largest_gap(&got, &expected), 1e-5),
                    Precision::F16 => (largest_gap(&got, &expected), 2e-3),
                    Precision::Bf16 => (largest_gap(&got, &expected), 1e-2),
                    // As far from f32 as the CPU's int8; which of two roundings comes nearer is chance.
                    _ => (deviation(&got, &expected), 1.25 * deviation(&int8, &expected)),
                };
                let what = format!("{} {head:?} in {precision}", path.display());
                println!("{what}: {error:.1e}, allowed {bound:.1e}");
                assert!(error <= bound, "{what}: {error:e}, allowed {bound:e}");
                for (item, together) in items.iter().zip(&got) {
                    let alone = engine.forward(&[*item]).unwrap();
                    let gap = largest_gap(&alone, std::slice::from_ref(together));
                    assert!(gap <= bound, "{what}, {} tokens alone: {gap:e}", item.0.len());
                }
            }
        }
    }

    /// Candle's operations on the device, which the engine of its own is compared with.
    fn check_tensors(path: &Path, tokens: &[u32]) {
        let Some(device) = device() else { return };
        let model = Zoo::open(path);
        let on_device = model.directory.weights(&device).unwrap();
        let texts = texts(tokens);
        let items = items(&texts);
        for head in &model.heads {
            let Zoo { directory, config, prefix, .. } = &model;
            let tensors = TensorBert::load(directory, config, &on_device, prefix, *head, &device).unwrap();
            let expected = model.on_cpu(*head, Precision::F32).forward(&items).unwrap();
            let worst = largest_gap(&tensors.forward(&items).unwrap(), &expected);
            assert!(worst <= 1e-5, "{} {head:?}: {worst:e}", path.display());
        }
    }

    #[test]
    fn the_engine_of_a_gpu_agrees_with_that_of_the_cpu_in_every_precision() {
        for path in zoo() {
            check(&path, &[1, 5, 64, 5, 60, 33]);
        }
    }

    #[test]
    fn candles_operations_on_a_gpu_agree_with_the_engine_of_the_cpu() {
        for path in zoo() {
            check_tensors(&path, &[1, 5, 33, 5]);
        }
    }

    #[test]
    fn minilm_on_a_gpu_agrees_with_the_cpu_in_every_precision() {
        match std::env::var_os("SCONCE_MINILM") {
            Some(path) => {
                check(Path::new(&path), &[16, 16]);
                check_tensors(Path::new(&path), &[16, 16]);
            }
            None => println!("SKIPPED: SCONCE_MINILM is not set"),
        }
    }

    #[test]
    fn weights_too_large_for_f16_are_refused_by_name_of_the_file() {
        let Some(device) = device() else { return };
        let path = zoo().next().unwrap();
        let copy = tempfile::tempdir().unwrap();
        for file in ["config.json", "tokenizer.json"] {
            std::fs::copy(path.join(file), copy.path().join(file)).unwrap();
        }
        let weights = candle_core::safetensors::load(path.join("model.safetensors"), &Device::Cpu).unwrap();
        let scaled = weights.into_iter().map(|(name, tensor)| {
            let tensor = tensor.to_dtype(candle_core::DType::F32).unwrap();
            (name.clone(), if name.ends_with("query.weight") { (tensor * 1e9).unwrap() } else { tensor })
        });
        let scaled = scaled.collect::<std::collections::HashMap<_, _>>();
        candle_core::safetensors::save(&scaled, copy.path().join("model.safetensors")).unwrap();
        let model = Zoo::open(copy.path());
        let load =
            |precision| CudaBert::load(model.parts(), model.heads[0], &target(device.clone(), precision)).map(|_| ());
        let refused = load(Precision::F16).unwrap_err().to_string();
        assert!(
            refused.contains("model.safetensors") && refused.contains("too large for f16; choose bf16"),
            "{refused}"
        );
        load(Precision::Bf16).unwrap();
    }
}
