use std::path::{Path, PathBuf};
use std::sync::Arc;

use sconce_kernels::Team;
use sconce_kernels::encoder::{EncoderSpec, HeadRows, HeadSpec};
use sconce_kernels::pooling::Pooling;

use super::reference::{random_weights, reference};
use super::{EncoderEngine, EncoderWeights, HeadTensors, TensorEncoder, TensorNames, Tokens};
use crate::{
    AttentionPositions, AttentionSpec, BlockSpec, Device, EmbeddingSpec, EncoderOrder, FeedForwardSpec, GeluForm,
    HeadFunction, HeadStep, InnerFunction, LoadError, Mask, ModelDirectory, ModelSettings, NormKind, NormOrder,
    NormSpec, PositionTable, Precision, RelativeBias, Rotary, TensorDevice, Weights, backend, bert,
};

/// An opened model of the zoo.
struct Zoo {
    path: PathBuf,
    /// The encoder's spec, once for each head that it can have.
    specs: Vec<EncoderSpec>,
    names: &'static TensorNames,
    head: Vec<HeadTensors>,
    weights: Weights,
}

impl Zoo {
    fn open(path: &Path) -> Self {
        let directory = ModelDirectory::new(path);
        let model = bert::read(&directory).unwrap();
        let spec = model.spec();
        let specs = if spec.head.steps.is_empty() {
            let with = |pooling| EncoderSpec { head: HeadSpec::pooled(pooling), ..spec.clone() };
            [Pooling::Mean, Pooling::Cls].map(with).into()
        } else {
            vec![spec.clone()]
        };
        let (names, head) = model.names();
        let head = head.to_vec();
        Self { path: path.to_owned(), specs, names, head, weights: directory.weights().unwrap() }
    }

    fn weights<'a>(&'a self, spec: &'a EncoderSpec) -> EncoderWeights<'a> {
        EncoderWeights::new(spec, &self.weights, self.names, &self.head)
    }

    fn on(
        &self,
        device: &dyn Device,
        spec: &EncoderSpec,
        precision: Precision,
    ) -> Result<Box<dyn EncoderEngine>, LoadError> {
        let settings = &ModelSettings::default();
        device.encoder(&EncoderOrder { weights: self.weights(spec), precision, settings })
    }

    fn on_cpu(&self, spec: &EncoderSpec, precision: Precision) -> Box<dyn EncoderEngine> {
        self.on(&*backend::cpu(Arc::default()), spec, precision).unwrap()
    }

    fn tensors(&self, spec: &EncoderSpec, device: &TensorDevice) -> TensorEncoder {
        TensorEncoder::load(&self.weights(spec), device, &Arc::default()).unwrap()
    }
}

fn zoo() -> impl Iterator<Item = PathBuf> {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("zoo");
    ["tiny-bert-sentiment", "encoder-mini"].into_iter().map(move |model| zoo.join(model))
}

/// Ids and segments of each text.
type Texts = Vec<(Vec<u32>, Vec<u32>)>;

/// One text for each of `tokens`, of that length, with ids below `words`.
fn texts(tokens: &[u32], words: u32) -> Texts {
    let text = |tokens: &u32| {
        ((0..*tokens).map(|at| (1000 + at * 37 % 4000) % words).collect(), (0..*tokens).map(|at| at % 2).collect())
    };
    tokens.iter().map(text).collect()
}

/// As [`texts`], within the tables of a small spec.
fn texts_for(spec: &EncoderSpec, tokens: &[u32]) -> Texts {
    let mut texts = texts(tokens, 60);
    if spec.embeddings.segments == 0 {
        for (_, segments) in &mut texts {
            segments.fill(0);
        }
    }
    texts
}

fn items(texts: &Texts) -> Vec<Tokens<'_>> {
    texts.iter().map(|(ids, segments)| Tokens { ids, segments }).collect()
}

/// The largest difference, divided by the largest number expected in its row if that is above 1.
fn largest_gap(got: &[Vec<f32>], expected: &[Vec<f32>]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let gaps = got.iter().zip(expected).flat_map(|(got, expected)| {
        assert_eq!(got.len(), expected.len());
        let largest = expected.iter().fold(1.0, |largest, x| x.abs().max(largest));
        got.iter().zip(expected).map(move |(got, expected)| (got - expected).abs() / largest)
    });
    // Not `f32::max`, which skips NaN.
    gaps.fold(0.0, |worst, gap| if gap <= worst { worst } else { gap })
}

#[test]
fn the_engine_of_the_cpu_agrees_with_candles_operations() {
    for model in zoo().map(|path| Zoo::open(&path)) {
        for spec in &model.specs {
            let texts = texts(&[1, 5, 64, 5, 60, 33], 5000);
            let items = items(&texts);
            let packed = model.on_cpu(spec, Precision::F32).forward(&items).unwrap();
            let tensors = model.tensors(spec, &TensorDevice::cpu()).forward(&items).unwrap();
            let worst = largest_gap(&packed, &tensors);
            assert!(packed.len() == items.len() && worst < 1e-5, "{:?} {:?}: {worst:e}", model.path, spec.head);
        }
    }
}

/// A small encoder of BERT's kind, for tests to change.
fn small() -> EncoderSpec {
    let norm = Some(NormSpec { kind: NormKind::Layer { bias: true }, eps: 1e-6 });
    let block = BlockSpec {
        order: NormOrder::Post,
        attention_norm: norm,
        attention: AttentionSpec {
            heads: 4,
            key_value_heads: 4,
            head_size: 8,
            mask: Mask::Full,
            positions: AttentionPositions::None,
            head_norm: None,
            bias: true,
            output_bias: true,
        },
        output_norm: norm,
        feed_forward: FeedForwardSpec {
            inner: 48,
            function: InnerFunction::Gelu(GeluForm::Erf),
            gated: false,
            bias: true,
            output_bias: true,
        },
    };
    EncoderSpec {
        hidden: 32,
        embeddings: EmbeddingSpec {
            words: 60,
            positions: Some(PositionTable { rows: 40, first: 0 }),
            segments: 2,
            norm,
            projected_from: None,
        },
        relative_bias: None,
        blocks: vec![block; 3],
        block_runs: 1,
        final_norm: None,
        head: HeadSpec::pooled(Pooling::Mean),
    }
}

type Change = Box<dyn Fn(&mut EncoderSpec)>;

fn of_blocks(change: fn(&mut BlockSpec)) -> Change {
    Box::new(move |spec| spec.blocks.iter_mut().for_each(change))
}

/// A head of two products with a function between them.
fn two_products(function: HeadFunction) -> Change {
    let product = |outputs, function| HeadStep::Product { outputs, bias: true, function };
    Box::new(move |spec| {
        let steps = vec![product(32, function), product(3, HeadFunction::Identity)];
        spec.head = HeadSpec { rows: HeadRows::Pooled(vec![Pooling::Cls]), steps };
    })
}

const RMS: Option<NormSpec> = Some(NormSpec { kind: NormKind::Rms, eps: 1e-5 });

/// Changes that together make every choice of the blocks and embeddings of an [`EncoderSpec`], each with a name.
fn changes() -> Vec<(&'static str, Change)> {
    vec![
        ("as BERT", Box::new(|_| {})),
        (
            "no segments, positions from 2",
            Box::new(|spec| {
                spec.embeddings.segments = 0;
                spec.embeddings.positions = Some(PositionTable { rows: 40, first: 2 });
            }),
        ),
        ("narrow embeddings", Box::new(|spec| spec.embeddings.projected_from = Some(20))),
        (
            "shared blocks",
            Box::new(|spec| {
                spec.blocks.truncate(2);
                spec.block_runs = 2;
            }),
        ),
        ("relu", of_blocks(|block| block.feed_forward.function = InnerFunction::Relu)),
        ("gelu by tanh", of_blocks(|block| block.feed_forward.function = InnerFunction::Gelu(GeluForm::Tanh))),
        (
            "no biases, norms without bias",
            of_blocks(|block| {
                (block.attention.bias, block.attention.output_bias) = (false, false);
                (block.feed_forward.bias, block.feed_forward.output_bias) = (false, false);
                let norm = Some(NormSpec { kind: NormKind::Layer { bias: false }, eps: 1e-6 });
                (block.attention_norm, block.output_norm) = (norm, norm);
            }),
        ),
        (
            "biases of outputs alone",
            of_blocks(|block| (block.attention.bias, block.feed_forward.bias) = (false, false)),
        ),
        (
            "no bias before a gelu by tanh",
            of_blocks(|block| {
                block.feed_forward.bias = false;
                block.feed_forward.function = InnerFunction::Gelu(GeluForm::Tanh);
            }),
        ),
        ("GeGLU", of_blocks(|block| block.feed_forward.gated = true)),
        (
            "norms before, none in the first block, and one at the end",
            Box::new(|spec| {
                spec.blocks.iter_mut().for_each(|block| block.order = NormOrder::Pre);
                spec.blocks[0].attention_norm = None;
                spec.final_norm = spec.embeddings.norm;
            }),
        ),
        ("causal", of_blocks(|block| block.attention.mask = Mask::Causal)),
        ("relative bias", Box::new(|spec| spec.relative_bias = Some(RelativeBias { buckets: 8, max_distance: 20 }))),
        ("ALiBi", of_blocks(|block| block.attention.positions = AttentionPositions::Alibi)),
        (
            "ALiBi of six heads, causal",
            of_blocks(|block| {
                block.attention.positions = AttentionPositions::Alibi;
                block.attention.mask = Mask::Causal;
                (block.attention.heads, block.attention.key_value_heads) = (6, 6);
            }),
        ),
        (
            "rotary, and a window in one block",
            Box::new(|spec| {
                spec.embeddings.positions = None;
                let rotary = AttentionPositions::Rotary(Rotary { base: 1e4, divisor: 2.0 });
                spec.blocks.iter_mut().for_each(|block| block.attention.positions = rotary);
                spec.blocks[1].attention.mask = Mask::Window(3);
            }),
        ),
        ("norms of heads", of_blocks(|block| block.attention.head_norm = RMS)),
        (
            "as a decoder",
            Box::new(|spec| {
                spec.embeddings =
                    EmbeddingSpec { words: 60, positions: None, segments: 0, norm: None, projected_from: None };
                spec.final_norm = RMS;
                for block in &mut spec.blocks {
                    block.order = NormOrder::Pre;
                    (block.attention_norm, block.output_norm) = (RMS, RMS);
                    block.attention = AttentionSpec {
                        heads: 4,
                        key_value_heads: 2,
                        head_size: 16,
                        mask: Mask::Causal,
                        positions: AttentionPositions::Rotary(Rotary { base: 1e6, divisor: 1.0 }),
                        head_norm: RMS,
                        bias: false,
                        output_bias: false,
                    };
                    block.feed_forward = FeedForwardSpec {
                        inner: 40,
                        function: InnerFunction::Silu,
                        gated: true,
                        bias: false,
                        output_bias: false,
                    };
                }
            }),
        ),
    ]
}

/// Changes that together make every choice of a head, each with a name.
fn heads() -> Vec<(&'static str, Change)> {
    let pooled = |poolings: &[Pooling]| -> Change {
        let rows = HeadRows::Pooled(poolings.to_vec());
        Box::new(move |spec| spec.head = HeadSpec { rows: rows.clone(), steps: Vec::new() })
    };
    let words = |rows: HeadRows| -> Change {
        Box::new(move |spec| {
            let product = |outputs, function| HeadStep::Product { outputs, bias: false, function };
            let norm = HeadStep::Norm(NormSpec { kind: NormKind::Layer { bias: true }, eps: 1e-6 });
            let steps = vec![
                product(24, HeadFunction::Gelu(GeluForm::Erf)),
                norm,
                HeadStep::Norm(NormSpec { kind: NormKind::Rms, eps: 1e-6 }),
                product(60, HeadFunction::Identity),
            ];
            spec.head = HeadSpec { rows: rows.clone(), steps };
        })
    };
    let mut heads: Vec<(&'static str, Change)> = Pooling::ALL.map(|pooling| ("pooled", pooled(&[pooling]))).into();
    heads.extend([
        ("two poolings", pooled(&[Pooling::Cls, Pooling::Mean])),
        ("classifier, tanh", two_products(HeadFunction::Tanh)),
        ("classifier, relu", two_products(HeadFunction::Relu)),
        ("classifier, silu", two_products(HeadFunction::Silu)),
        ("classifier, sigmoid", two_products(HeadFunction::Sigmoid)),
        ("each token", words(HeadRows::Tokens)),
        ("sparse", words(HeadRows::Sparse)),
    ]);
    heads
}

/// Specs that together have every choice of an [`EncoderSpec`], each with a name.
fn specs() -> Vec<(&'static str, EncoderSpec)> {
    let made = changes().into_iter().chain(heads()).map(|(name, change)| {
        let mut spec = small();
        change(&mut spec);
        (name, spec)
    });
    made.collect()
}

#[test]
fn every_device_runs_every_spec_as_the_formulas_say() {
    let device = backend::cpu(Arc::default());
    for (name, spec) in specs() {
        let (weights, names, head) = random_weights(&spec);
        let weights = EncoderWeights::new(&spec, &weights, names, &head);
        let texts = texts_for(&spec, &[1, 5, 17, 5, 38]);
        let items = items(&texts);
        let expected: Vec<Vec<f32>> = items.iter().map(|text| reference(&weights, *text)).collect();
        let settings = &ModelSettings::default();
        let order = EncoderOrder { weights, precision: Precision::F32, settings };
        let engines: [Box<dyn EncoderEngine>; 2] = [
            device.encoder(&order).unwrap(),
            Box::new(TensorEncoder::load(&weights, &TensorDevice::cpu(), &Arc::new(Team::alone())).unwrap()),
        ];
        for (engine, mut which) in
            engines.into_iter().zip(["of the device", "of candle's operations"]).map(|(a, b)| (b, a))
        {
            let worst = largest_gap(&which.forward(&items).unwrap(), &expected);
            assert!(worst < 2e-5, "{name}, engine {engine}: {worst:e}");
        }
    }
}

#[test]
fn the_cpu_runs_every_spec_in_every_precision_that_it_offers() {
    let device = backend::cpu(Arc::default());
    let pooled = specs().into_iter().filter(|(_, spec)| spec.head.steps.is_empty());
    for (name, mut spec) in pooled {
        // Inner sizes that are not whole blocks leave f32 and int8.
        for whole_blocks in [false, true] {
            if whole_blocks {
                for block in &mut spec.blocks {
                    block.feed_forward.inner = 64;
                    block.attention.head_size = 16;
                }
                spec.embeddings.projected_from = spec.embeddings.projected_from.map(|_| 32);
            }
            let (weights, names, head) = random_weights(&spec);
            let weights = EncoderWeights::new(&spec, &weights, names, &head);
            let texts = texts_for(&spec, &[5, 17]);
            let items = items(&texts);
            let expected: Vec<Vec<f32>> = items.iter().map(|text| reference(&weights, *text)).collect();
            let precisions = device.encoder_precisions(&spec);
            let all = [Precision::F32, Precision::Int8, Precision::Q8_0, Precision::Q4K];
            assert_eq!(precisions, all[..if whole_blocks { 4 } else { 2 }], "{name}");
            for precision in precisions {
                let settings = &ModelSettings::default();
                let mut engine = device.encoder(&EncoderOrder { weights, precision, settings }).unwrap();
                let worst = largest_gap(&engine.forward(&items).unwrap(), &expected);
                let bound = if precision == Precision::F32 { 2e-5 } else { 0.15 };
                assert!(worst < bound, "{name} in {precision}: {worst:e}");
            }
        }
    }
}

#[test]
fn a_spec_whose_sizes_do_not_fit_is_refused_by_name() {
    let mut spec = small();
    let (weights, names, head) = random_weights(&spec);
    spec.blocks[1].attention.positions = AttentionPositions::Rotary(Rotary { base: f32::NAN, divisor: 1.0 });
    let weights = EncoderWeights::new(&spec, &weights, names, &head);
    let settings = &ModelSettings::default();
    let order = EncoderOrder { weights, precision: Precision::F32, settings };
    let refused = backend::cpu(Arc::default()).encoder(&order).err().unwrap().to_string();
    assert!(refused.contains("block 1: rotary positions of base NaN"), "{refused}");
}

#[cfg(feature = "cuda")]
mod cuda {
    use sconce_kernels::device::DeviceError;

    use super::*;
    use crate::{Backend as _, CudaBackend};

    const PRECISIONS: [Precision; 4] = [Precision::F32, Precision::F16, Precision::Bf16, Precision::Int8];

    /// The first CUDA device; `None`, with a note in the output, if there is none.
    fn device() -> Option<Arc<dyn Device>> {
        match CudaBackend.open(0) {
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

    /// Checks a model in every precision and with every head against the CPU, and each text alone against the batch.
    fn check(path: &Path, tokens: &[u32]) {
        let Some(device) = device() else { return };
        let model = Zoo::open(path);
        let texts = texts(tokens, 5000);
        let items = items(&texts);
        for spec in &model.specs {
            let expected = model.on_cpu(spec, Precision::F32).forward(&items).unwrap();
            let int8 = model.on_cpu(spec, Precision::Int8).forward(&items).unwrap();
            for precision in PRECISIONS {
                let mut engine = model.on(&*device, spec, precision).unwrap();
                let got = engine.forward(&items).unwrap();
                let (error, bound) = match precision {
                    Precision::F32 => (largest_gap(&got, &expected), 1e-5),
                    Precision::F16 => (largest_gap(&got, &expected), 2e-3),
                    Precision::Bf16 => (largest_gap(&got, &expected), 1e-2),
                    // About as far from f32 as the CPU's int8; which of the two is nearer is chance.
                    _ => (deviation(&got, &expected), 1.25 * deviation(&int8, &expected)),
                };
                let what = format!("{} {:?} in {precision}", path.display(), spec.head);
                println!("{what}: {error:.1e}, allowed {bound:.1e}");
                assert!(error <= bound, "{what}: {error:e}, allowed {bound:e}");
                for (item, together) in items.iter().zip(&got) {
                    let alone = engine.forward(&[*item]).unwrap();
                    let gap = largest_gap(&alone, std::slice::from_ref(together));
                    assert!(gap <= bound, "{what}, {} tokens alone: {gap:e}", item.ids.len());
                }
            }
        }
    }

    /// Checks candle's operations on the device against the CPU.
    fn check_tensors(path: &Path, tokens: &[u32]) {
        let Some(device) = device() else { return };
        let model = Zoo::open(path);
        let tensors = device.compute().unwrap().tensors();
        let texts = texts(tokens, 5000);
        let items = items(&texts);
        for spec in &model.specs {
            let mut tensors = model.tensors(spec, &tensors);
            let expected = model.on_cpu(spec, Precision::F32).forward(&items).unwrap();
            let worst = largest_gap(&tensors.forward(&items).unwrap(), &expected);
            assert!(worst <= 1e-5, "{} {:?}: {worst:e}", path.display(), spec.head);
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
    fn a_gpu_runs_every_spec_by_its_own_kernels_as_the_formulas_say() {
        let Some(device) = device() else { return };
        for (name, spec) in specs() {
            assert_eq!(device.encoder_precisions(&spec), PRECISIONS, "{name} is left to candle's operations");
            let (weights, names, head) = random_weights(&spec);
            let weights = EncoderWeights::new(&spec, &weights, names, &head);
            let texts = texts_for(&spec, &[1, 5, 17, 5]);
            let items = items(&texts);
            let expected: Vec<Vec<f32>> = items.iter().map(|text| reference(&weights, *text)).collect();
            let order = EncoderOrder { weights, precision: Precision::F32, settings: &ModelSettings::default() };
            let mut engine = device.encoder(&order).unwrap();
            let together = engine.forward(&items).unwrap();
            let worst = largest_gap(&together, &expected);
            assert!(worst < 2e-5, "{name}: {worst:e}");
            for (item, together) in items.iter().zip(&together) {
                let gap = largest_gap(&engine.forward(&[*item]).unwrap(), std::slice::from_ref(together));
                assert!(gap < 1e-5, "{name}, {} tokens alone: {gap:e}", item.ids.len());
            }
        }
    }

    #[test]
    fn a_gpu_runs_every_pooled_spec_in_every_precision() {
        let Some(device) = device() else { return };
        for (name, spec) in specs().into_iter().filter(|(_, spec)| spec.head.steps.is_empty()) {
            let (weights, names, head) = random_weights(&spec);
            let weights = EncoderWeights::new(&spec, &weights, names, &head);
            let texts = texts_for(&spec, &[5, 17]);
            let items = items(&texts);
            let expected: Vec<Vec<f32>> = items.iter().map(|text| reference(&weights, *text)).collect();
            for precision in PRECISIONS {
                let order = EncoderOrder { weights, precision, settings: &ModelSettings::default() };
                let got = device.encoder(&order).unwrap().forward(&items).unwrap();
                let worst = largest_gap(&got, &expected);
                let bound = match precision {
                    Precision::F32 => 2e-5,
                    Precision::F16 => 1e-2,
                    Precision::Bf16 => 8e-2,
                    _ => 0.15,
                };
                println!("{name} in {precision}: {worst:.1e} of {bound:.1e}");
                assert!(worst < bound, "{name} in {precision}: {worst:e}");
            }
        }
    }

    #[test]
    fn sizes_that_no_kernel_takes_are_left_to_candles_operations_and_int8_alone_where_only_it_is_concerned() {
        let Some(device) = device() else { return };
        let mut wide = small();
        wide.blocks[2].attention.head_size = 129;
        assert_eq!(device.encoder_precisions(&wide), [Precision::F32]);
        let (weights, names, head) = random_weights(&wide);
        let weights = EncoderWeights::new(&wide, &weights, names, &head);
        let texts = texts_for(&wide, &[5, 3]);
        let items = items(&texts);
        let expected: Vec<Vec<f32>> = items.iter().map(|text| reference(&weights, *text)).collect();
        let order = EncoderOrder { weights, precision: Precision::F32, settings: &ModelSettings::default() };
        let worst = largest_gap(&device.encoder(&order).unwrap().forward(&items).unwrap(), &expected);
        assert!(worst < 2e-5, "{worst:e}");
        let mut deep = small();
        deep.blocks[0].feed_forward.inner = 20_000;
        assert_eq!(device.encoder_precisions(&deep), PRECISIONS[..3]);
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
        let weights =
            candle_core::safetensors::load(path.join("model.safetensors"), &candle_core::Device::Cpu).unwrap();
        let scaled = weights.into_iter().map(|(name, tensor)| {
            let tensor = tensor.to_dtype(candle_core::DType::F32).unwrap();
            (name.clone(), if name.ends_with("query.weight") { (tensor * 1e9).unwrap() } else { tensor })
        });
        let scaled = scaled.collect::<std::collections::HashMap<_, _>>();
        candle_core::safetensors::save(&scaled, copy.path().join("model.safetensors")).unwrap();
        let model = Zoo::open(copy.path());
        let load = |precision| model.on(&*device, &model.specs[0], precision).map(|_| ());
        let refused = load(Precision::F16).unwrap_err().to_string();
        assert!(
            refused.contains("model.safetensors") && refused.contains("too large for f16; choose bf16"),
            "{refused}"
        );
        load(Precision::Bf16).unwrap();
    }
}
