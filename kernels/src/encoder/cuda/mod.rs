//! The encoder with its head on a GPU: a batch goes in as one copy of numbers and comes out as one copy of rows.
//!
//! A layer is eight launches in floats (four products by cuBLAS, four kernels), nine in int8 (without cuBLAS). A kernel
//! that reads a product adds its bias, and a kernel that makes int8 rows quantises them, so that no launch is needed
//! only for that. After the first batch of the largest size, nothing is allocated, no event is created, and each launch
//! is one call.
//!
//! Sums are f32 in every precision. In int8 the matrices between the products are f16; products and activations have the
//! same numbers as the CPU's int8 with VNNI (`quantize.cu`). Heads are f32 in every precision.

mod graphs;
mod shape;
#[cfg(test)]
mod tests;
mod workspace;

use crate::KernelError;
use crate::attention::cuda::{MAX_HEAD_SIZE, Path as AttentionPath, attention};
use crate::bias_gelu::cuda::bias_activate;
use crate::cuda::{Activation, Element, Gpu, mismatch};
use crate::embedding::Embeddings;
use crate::embedding::cuda::DeviceEmbeddings;
use crate::encoder::{Dense, HeadFunction, LayerWeights, PackedTokens};
use crate::linear::cuda::{FloatLinear, Int8Linear, LinearPath};
use crate::pooling::Pooling;
use crate::pooling::cuda::{Length, pool};
use crate::quantize::cuda::quantize;
use crate::residual_norm::cuda::DeviceNorm;
use graphs::{Graphs, Next};
use shape::Shape;
use workspace::{Layout, Matrices, Widths, Workspace};

/// The storage of an encoder's weights on a GPU, and the arithmetic of its products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CudaPrecision {
    /// 32-bit floats, without TF32.
    F32,
    /// 16-bit floats, sums in f32.
    F16,
    /// 16-bit floats with the range of f32, sums in f32.
    Bf16,
    /// 8-bit weights and activations with exact sums; f16 between the products.
    Int8,
}

impl CudaPrecision {
    fn element(self) -> Element {
        match self {
            Self::F32 => Element::F32,
            Self::F16 | Self::Int8 => Element::F16,
            Self::Bf16 => Element::Bf16,
        }
    }
}

/// The weights of a head: the step from token vectors to one row per sequence.
#[derive(Debug)]
pub enum HeadWeights {
    /// The pooled vector.
    Pool(Pooling),
    /// `classifier(function(pooler(first token's vector)))`, in f32.
    Classifier {
        /// The first product, from `hidden`.
        pooler: Dense,
        /// The function between the two products.
        function: HeadFunction,
        /// The second product, to the logits.
        classifier: Dense,
    },
}

/// An encoder and a head in a device's memory, with the buffers that they work in.
pub struct CudaEncoder {
    embeddings: DeviceEmbeddings,
    layers: Vec<Layer>,
    head: Head,
    /// Declared before `workspace`, so that graphs are dropped before the memory that they use.
    graphs: Option<Graphs>,
    workspace: Workspace,
    widths: Widths,
    heads: usize,
    precision: CudaPrecision,
    paths: Paths,
    /// Declared last, so that it is dropped after everything in its memory.
    gpu: Gpu,
}

struct Layer {
    products: Products,
    activation: Activation,
    attention_norm: DeviceNorm,
    output_norm: DeviceNorm,
}

/// The four products of a layer: query, key and value; attention output; up; down.
enum Products {
    Float([FloatLinear; 4]),
    Int8([Int8Linear; 4]),
}

enum Head {
    Pool(Pooling),
    Classifier { pooler: FloatLinear, function: Activation, classifier: FloatLinear },
}

#[derive(Debug, Clone, Copy)]
struct Paths {
    attention: AttentionPath,
    int8: LinearPath,
}

impl CudaEncoder {
    /// Most elements of a head that attention takes.
    pub const MAX_HEAD_SIZE: usize = MAX_HEAD_SIZE;

    /// An encoder without layers; `inner` is the inner size of the layers that [`push`](Self::push) will add. The tables
    /// of `embeddings` must be f32.
    ///
    /// # Errors
    /// If the parts do not fit together, or the device lacks the precision or has no room.
    pub fn new(
        gpu: Gpu,
        precision: CudaPrecision,
        embeddings: &Embeddings,
        heads: usize,
        inner: usize,
        head: &HeadWeights,
    ) -> Result<Self, KernelError> {
        gpu.bind()?;
        let (hidden, element) = (embeddings.columns(), precision.element());
        if precision == CudaPrecision::Bf16 && !gpu.has_bf16() {
            return Err(mismatch(format!("bf16 needs compute capability 8.0, which {gpu:?} has not; choose f16")));
        }
        if heads == 0 || !hidden.is_multiple_of(heads) {
            return Err(mismatch(format!("{heads} heads do not divide vectors of {hidden}")));
        }
        let paths =
            Paths { attention: AttentionPath::best(&gpu, element, hidden / heads)?, int8: LinearPath::best(&gpu) };
        let head = Head::new(&gpu, head, hidden)?;
        let (pooler, outputs) = match &head {
            Head::Pool(_) => (0, hidden),
            Head::Classifier { pooler, classifier, .. } => (pooler.outputs(), classifier.outputs()),
        };
        let int8 = precision == CudaPrecision::Int8;
        let widths = Widths { hidden, inner, pooler, outputs, element, int8, queries: paths.attention.queries() };
        let embeddings = DeviceEmbeddings::new(&gpu, embeddings, element)?;
        let workspace = Workspace::default();
        Ok(Self { embeddings, layers: Vec::new(), head, graphs: None, workspace, widths, heads, precision, paths, gpu })
    }

    /// Adds a layer at the end.
    ///
    /// # Errors
    /// [`KernelError::Mismatch`] names the first part of another width; else as [`CudaEncoder::new`].
    pub fn push(&mut self, weights: &LayerWeights) -> Result<(), KernelError> {
        self.gpu.bind()?;
        let (gpu, Widths { hidden, inner, element, .. }, index) = (&self.gpu, self.widths, self.layers.len());
        let linears = [
            ("query_key_value", &weights.query_key_value, hidden, 3 * hidden),
            ("attention_output", &weights.attention_output, hidden, hidden),
            ("up", &weights.up, hidden, inner),
            ("down", &weights.down, inner, hidden),
        ];
        for (name, dense, inputs, outputs) in linears {
            if dense.bias.len() != outputs || dense.weight.len() != inputs * outputs {
                let (weights, bias) = (dense.weight.len(), dense.bias.len());
                let what =
                    format!("layer {index}: {name} of {weights} weights and {bias} biases: {inputs} to {outputs}");
                return Err(mismatch(what));
            }
        }
        for (name, norm) in [("attention_norm", &weights.attention_norm), ("output_norm", &weights.output_norm)] {
            if norm.columns() != hidden {
                let what = format!("layer {index}: {name} has {} columns, not {hidden}", norm.columns());
                return Err(mismatch(what));
            }
        }
        let products = if self.widths.int8 {
            let made = linears.map(|(_, dense, inputs, _)| Int8Linear::new(gpu, &dense.weight, &dense.bias, inputs));
            Products::Int8(all(made)?)
        } else {
            let made =
                linears.map(|(_, dense, inputs, _)| FloatLinear::new(gpu, &dense.weight, &dense.bias, inputs, element));
            Products::Float(all(made)?)
        };
        // Graphs recorded so far lack the new layer.
        self.graphs = self.graphs.take().map(|_| Graphs::default());
        let attention_norm = DeviceNorm::new(gpu, &weights.attention_norm)?;
        let output_norm = DeviceNorm::new(gpu, &weights.output_norm)?;
        self.layers.push(Layer { products, activation: weights.activation.into(), attention_norm, output_norm });
        Ok(())
    }

    /// Number of elements of a row of [`CudaEncoder::forward`].
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.widths.outputs
    }

    /// Bytes of the weights and the workspace on the device.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let layers = self.layers.iter().map(Layer::bytes).sum::<usize>();
        self.embeddings.bytes() + layers + self.head.bytes() + self.workspace.bytes()
    }

    /// Writes one row per sequence: `out` is `[sequences, outputs]`.
    ///
    /// # Errors
    /// If the lengths do not add up or an id is beyond its table; nothing is written then.
    /// [`KernelError::OutOfDeviceMemory`] if the batch is too large for the device; a smaller one may fit.
    /// [`KernelError::Device`] if the device fails.
    pub fn forward(&mut self, tokens: PackedTokens<'_>, out: &mut [f32]) -> Result<(), KernelError> {
        let PackedTokens { ids, segments, lengths } = tokens;
        let (count, rows) = (lengths.iter().sum::<usize>(), lengths.len());
        if [ids.len(), segments.len()] != [count; 2] || out.len() != rows * self.outputs() {
            let what = format!(
                "{count} tokens in {rows} sequences, but {} ids, {} segments and {} numbers of output",
                ids.len(),
                segments.len(),
                out.len()
            );
            return Err(mismatch(what));
        }
        self.embeddings.bounds().check(ids, segments, lengths)?;
        if rows == 0 {
            return Ok(());
        }
        self.gpu.bind()?;
        let shape = if self.graphs.is_some() { Shape::bucket } else { Shape::exact };
        let shape = shape(lengths, self.widths.queries);
        let layout = self.workspace.prepare(&self.gpu, &self.widths, shape, tokens)?;
        let queued = self.queue_or_replay(&layout);
        // Wait even if queueing failed: launches queued before the failure read memory that the next batch writes.
        let waited = self.gpu.wait();
        queued.and(waited)?;
        out.copy_from_slice(&self.workspace.outputs()[..out.len()]);
        Ok(())
    }

    /// Pads each batch to a bucket from now on. The launches of a bucket are recorded as a graph when it comes for the
    /// second time, and are then queued by one call. This takes up to half more tokens and memory, and helps if
    /// launching takes longer than computing, as with small batches.
    pub fn use_graphs(&mut self) {
        self.graphs = Some(Graphs::default());
    }

    fn queue_or_replay(&mut self, layout: &Layout) -> Result<(), KernelError> {
        let generation = self.workspace.generation();
        match self.graphs.as_mut().map_or(Next::Queue, |graphs| graphs.next(layout.shape, generation)) {
            Next::Queue => return self.queue(layout),
            Next::Replay => {}
            Next::Record => {
                self.gpu.begin_recording()?;
                let queued = self.queue(layout);
                let graph = self.gpu.end_recording();
                queued?;
                self.graphs.as_mut().expect("there is a next").keep(layout.shape, graph?);
            }
        }
        let graph = self.graphs.as_ref().and_then(|graphs| graphs.find(layout.shape)).expect("recorded by now");
        // SAFETY: `Graphs::next` forgets graphs when the workspace makes memory anew; weights stay as long as the encoder.
        unsafe { self.gpu.replay(graph) }
    }

    /// Queues every copy and launch of a batch.
    fn queue(&mut self, layout: &Layout) -> Result<(), KernelError> {
        self.workspace.copy_in(&self.gpu, layout)?;
        self.launch(&self.workspace.matrices(&self.widths, layout))?;
        self.workspace.copy_out(&self.gpu, &self.widths, layout)
    }

    fn launch(&self, matrices: &Matrices<'_>) -> Result<(), KernelError> {
        let first = if self.layers.is_empty() { None } else { matrices.quantized };
        self.embeddings.forward(&self.gpu, matrices.lookups, matrices.x, first)?;
        for (index, layer) in self.layers.iter().enumerate() {
            match &layer.products {
                Products::Float(products) => self.float_layer(layer, products, matrices)?,
                Products::Int8(products) => {
                    let last = index + 1 == self.layers.len();
                    self.int8_layer(layer, products, matrices, last)?;
                }
            }
        }
        self.head.queue(&self.gpu, matrices)
    }

    fn float_layer(
        &self,
        layer: &Layer,
        [query_key_value, attention_output, up, down]: &[FloatLinear; 4],
        matrices: &Matrices<'_>,
    ) -> Result<(), KernelError> {
        let (gpu, Matrices { x, attended, projected, inner, .. }) = (&self.gpu, *matrices);
        query_key_value.times(gpu, x, matrices.query_key_value)?;
        let bias = Some(query_key_value.bias());
        attention(gpu, matrices.query_key_value, bias, matrices.tiles, self.heads, attended, self.paths.attention)?;
        attention_output.times(gpu, attended, projected)?;
        layer.attention_norm.forward(gpu, [projected, x, x], Some(attention_output.bias()), None)?;
        up.times(gpu, x, inner)?;
        bias_activate(gpu, inner, up.bias(), layer.activation)?;
        down.times(gpu, inner, projected)?;
        layer.output_norm.forward(gpu, [projected, x, x], Some(down.bias()), None)
    }

    fn int8_layer(
        &self,
        layer: &Layer,
        [query_key_value, attention_output, up, down]: &[Int8Linear; 4],
        matrices: &Matrices<'_>,
        last: bool,
    ) -> Result<(), KernelError> {
        let (gpu, Matrices { x, attended, projected, inner, .. }, path) = (&self.gpu, *matrices, self.paths.int8);
        let quantized = matrices.quantized.expect("int8 has room for bytes");
        let quantized_inner = matrices.quantized_inner.expect("int8 has room for bytes");
        query_key_value.forward(gpu, quantized, matrices.query_key_value, Activation::Identity, path)?;
        attention(gpu, matrices.query_key_value, None, matrices.tiles, self.heads, attended, self.paths.attention)?;
        quantize(gpu, attended, quantized)?;
        attention_output.forward(gpu, quantized, projected, Activation::Identity, path)?;
        layer.attention_norm.forward(gpu, [projected, x, x], None, Some(quantized))?;
        up.forward(gpu, quantized, inner, layer.activation, path)?;
        quantize(gpu, inner, quantized_inner)?;
        down.forward(gpu, quantized_inner, projected, Activation::Identity, path)?;
        layer.output_norm.forward(gpu, [projected, x, x], None, (!last).then_some(quantized))
    }
}

impl Layer {
    fn bytes(&self) -> usize {
        let products: usize = match &self.products {
            Products::Float(products) => products.iter().map(FloatLinear::bytes).sum(),
            Products::Int8(products) => products.iter().map(Int8Linear::bytes).sum(),
        };
        products + self.attention_norm.bytes() + self.output_norm.bytes()
    }
}

impl Head {
    fn new(gpu: &Gpu, weights: &HeadWeights, hidden: usize) -> Result<Self, KernelError> {
        Ok(match weights {
            HeadWeights::Pool(pooling) => Self::Pool(*pooling),
            HeadWeights::Classifier { pooler, function, classifier } => {
                let function = match function {
                    HeadFunction::Tanh => Activation::Tanh,
                    HeadFunction::Relu => Activation::Relu,
                    other => return Err(mismatch(format!("{other:?} in a head on CUDA, which has Tanh and Relu"))),
                };
                let dense =
                    |dense: &Dense, inputs| FloatLinear::new(gpu, &dense.weight, &dense.bias, inputs, Element::F32);
                let pooler = dense(pooler, hidden)?;
                Self::Classifier { classifier: dense(classifier, pooler.outputs())?, function, pooler }
            }
        })
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Pool(_) => 0,
            Self::Classifier { pooler, classifier, .. } => pooler.bytes() + classifier.bytes(),
        }
    }

    fn queue(&self, gpu: &Gpu, matrices: &Matrices<'_>) -> Result<(), KernelError> {
        let Matrices { x, starts, pooled, pooler: between, out, .. } = *matrices;
        match self {
            Self::Pool(pooling) => pool(gpu, x, starts, *pooling, Length::Kept, out),
            Self::Classifier { pooler, function, classifier } => {
                pool(gpu, x, starts, Pooling::Cls, Length::Kept, pooled)?;
                pooler.forward(gpu, pooled, between, *function)?;
                classifier.forward(gpu, between, out, Activation::Identity)
            }
        }
    }
}

/// The values, or the first error.
fn all<T>(made: [Result<T, KernelError>; 4]) -> Result<[T; 4], KernelError> {
    let [a, b, c, d] = made;
    Ok([a?, b?, c?, d?])
}

impl std::fmt::Debug for CudaEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { widths: Widths { hidden, inner, .. }, heads, precision, gpu, .. } = self;
        write!(
            f,
            "CudaEncoder({} layers of {hidden}/{inner}, {heads} heads, {precision:?}, {gpu:?})",
            self.layers.len()
        )
    }
}
