//! The engines that are compared.

use std::fmt;

use clap::ValueEnum;

/// An engine in one precision, with the graph that it gets if it reads ONNX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Engine {
    /// Sconce
    SconceF32,
    /// Sconce, `Precision::Int8`
    SconceInt8,
    /// `candle_transformers::models::bert`, unchanged
    Candle,
    /// rten on the plain graph, weights packed at load
    RtenF32,
    /// rten on the plain graph after `quantize_dynamic`
    RtenInt8,
    /// ONNX Runtime on its own fused operators: the engine that the others are compared with
    OrtF32Fused,
    /// ONNX Runtime on standard operators, which it fuses itself at load
    OrtF32Plain,
    /// The fused graph after `quantize_dynamic`
    OrtInt8Fused,
    /// The plain graph after `quantize_dynamic`
    OrtInt8Plain,
}

/// Baselines in order of preference: the first one that runs is 1 in the tables.
pub(crate) const BASELINES: [Engine; 3] = [Engine::OrtF32Fused, Engine::Candle, Engine::SconceF32];

/// Our engines, each with the rivals whose better one it has to beat.
pub(crate) const CONTESTS: [(Engine, [Engine; 2], &str); 2] = [
    (Engine::SconceF32, [Engine::OrtF32Fused, Engine::OrtF32Plain], "the better ONNX Runtime f32"),
    (Engine::SconceInt8, [Engine::OrtInt8Fused, Engine::OrtInt8Plain], "the better ONNX Runtime int8"),
];

impl Engine {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().expect("no engine is hidden").get_name().to_owned()
    }

    /// The package whose version is reported.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::SconceF32 | Self::SconceInt8 => "sconce-models",
            Self::Candle => "candle-transformers",
            Self::RtenF32 | Self::RtenInt8 => "rten",
            Self::OrtF32Fused | Self::OrtF32Plain | Self::OrtInt8Fused | Self::OrtInt8Plain => "onnxruntime",
        }
    }

    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::SconceF32 | Self::SconceInt8)
    }

    pub(crate) fn is_onnx_runtime(self) -> bool {
        matches!(self, Self::OrtF32Fused | Self::OrtF32Plain | Self::OrtInt8Fused | Self::OrtInt8Plain)
    }

    pub(crate) fn needs_python(self) -> bool {
        self.graph().is_some()
    }

    /// The graph that `graphs.py` writes for the engine.
    pub(crate) fn graph(self) -> Option<&'static str> {
        match self {
            Self::SconceF32 | Self::SconceInt8 | Self::Candle => None,
            Self::RtenF32 | Self::OrtF32Plain => Some("plain.onnx"),
            Self::RtenInt8 | Self::OrtInt8Plain => Some("plain-int8.onnx"),
            Self::OrtF32Fused => Some("fused.onnx"),
            Self::OrtInt8Fused => Some("fused-int8.onnx"),
        }
    }

    /// Lowest cosine to the reference at which an answer is right.
    pub(crate) fn min_cosine(self) -> f64 {
        match self {
            Self::SconceF32 | Self::Candle | Self::RtenF32 | Self::OrtF32Fused | Self::OrtF32Plain => 0.999_999,
            Self::SconceInt8 => 0.99,
            // One scale for all activations of a call, outliers included, costs accuracy. A wrong answer is far below.
            Self::RtenInt8 | Self::OrtInt8Fused | Self::OrtInt8Plain => 0.95,
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}
