//! The encoder with its head on a GPU: a batch goes in as one copy of numbers and comes out as one copy of rows.
//!
//! The launches are made once, of the same steps as the CPU's (`launches.rs`). A layer of BERT is eight of them in floats
//! (four products by cuBLAS, four kernels), nine in int8 (without cuBLAS); one more where queries and keys have norms or
//! rotations. A kernel that reads a product adds its bias, and a kernel that makes int8 rows quantises them, so that no
//! launch is needed only for that. After the first batch of the largest size, nothing is allocated, no event is created,
//! and each launch is one call.
//!
//! Sums are f32 in every precision. In int8 the matrices between the products are f16; products and activations have the
//! same numbers as the CPU's int8 with VNNI (`quantize.cu`). Heads are f32 in every precision.

mod graphs;
mod head;
mod launches;
mod parts;
mod positions;
mod shape;
#[cfg(test)]
mod tests;
mod workspace;

use crate::KernelError;
use crate::attention::cuda::{AttentionMatrices, MAX_HEAD_SIZE, Path as AttentionPath, attention, prepare};
use crate::bias_gelu::cuda::{bias_activate, gate};
use crate::cuda::{Element, Gpu, LaunchShape, QuantizedMatrix, View, mismatch};
use crate::embedding::Embeddings;
use crate::encoder::spec::{BlockSpec, EncoderSpec, HeadRows, HeadStep};
use crate::encoder::steps::{LayerNumbers, Steps};
use crate::encoder::{Dense, LayerWeights, PackedTokens};
use crate::linear::cuda::{FloatLinear, LinearPath};
use crate::quantize::cuda::quantize;
use crate::residual_norm::RowNorm;
use crate::residual_norm::cuda::{NormMatrices, norm_of_sums};
use graphs::{Graphs, Next};
use head::CudaHead;
pub use head::HeadWeights;
use launches::{DevicePlace, Launch, launches};
use parts::{DeviceLinear, DeviceParts, DeviceWeights};
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

/// The weights of an encoder but for its layers.
#[derive(Debug)]
pub struct OuterWeights {
    /// The tables, in f32, and their norm.
    pub embeddings: Embeddings,
    /// The product that makes vectors of `hidden` from rows of the tables.
    pub embedding_projection: Option<Dense>,
    /// The learned bias of scores, `[buckets, heads]`.
    pub relative_bias: Option<Vec<f32>>,
    /// The norm after the last layer.
    pub final_norm: Option<RowNorm>,
    /// The steps of the head, in order.
    pub head: Vec<HeadWeights>,
}

/// An encoder and a head in a device's memory, with the buffers that they work in.
pub struct CudaEncoder {
    spec: EncoderSpec,
    parts: DeviceParts,
    /// The numbers of the layers so far.
    layers: Vec<LayerNumbers>,
    /// Empty until all layers are there.
    launches: Vec<Launch>,
    head: CudaHead,
    /// Declared before `workspace`, so that graphs are dropped before the memory that they use.
    graphs: Option<Graphs>,
    workspace: Workspace,
    widths: Widths,
    precision: CudaPrecision,
    paths: Paths,
    /// Declared last, so that it is dropped after everything in its memory.
    gpu: Gpu,
}

#[derive(Debug, Clone, Copy)]
struct Paths {
    attention: AttentionPath,
    int8: LinearPath,
}

impl Paths {
    /// The fastest that the device has for all blocks: their tiles of attention are the same.
    fn best(gpu: &Gpu, spec: &EncoderSpec, element: Element) -> Result<Self, KernelError> {
        let mut paths = Self { attention: AttentionPath::Mma, int8: LinearPath::best(gpu) };
        for BlockSpec { attention, .. } in &spec.blocks {
            if AttentionPath::best(gpu, element, attention.head_size)? == AttentionPath::Plain {
                paths.attention = AttentionPath::Plain;
            }
        }
        Ok(paths)
    }
}

impl CudaEncoder {
    /// Checks that the kernels run an encoder in a precision. They run all whose sizes they take.
    ///
    /// # Errors
    /// [`KernelError::Mismatch`] names the first size that is larger than a kernel takes, or does not fit the others.
    pub fn check(spec: &EncoderSpec, precision: CudaPrecision) -> Result<(), KernelError> {
        spec.check()?;
        let int8 = precision == CudaPrecision::Int8;
        let mut rows = vec![("hidden", spec.hidden), ("projected_from", spec.embedding_size())];
        for (index, BlockSpec { attention, feed_forward, .. }) in spec.blocks.iter().enumerate() {
            if attention.head_size > MAX_HEAD_SIZE {
                let size = attention.head_size;
                return Err(mismatch(format!(
                    "block {index}: head_size is {size}; a GPU takes at most {MAX_HEAD_SIZE}"
                )));
            }
            if int8 {
                rows.push(("inner", feed_forward.inner));
                rows.push(("heads times head_size", attention.heads * attention.head_size));
            }
        }
        let mut width = spec.head.inputs(spec.hidden);
        for step in &spec.head.steps {
            match step {
                HeadStep::Product { outputs, .. } => width = *outputs,
                HeadStep::Norm(_) => rows.push(("a norm of the head", width)),
            }
        }
        for (name, columns) in rows {
            LaunchShape::row_by_row(1, columns).map_err(|error| mismatch(format!("{name}: {error}")))?;
        }
        Ok(())
    }

    /// An encoder without layers, to which [`push`](Self::push) adds those of the spec's blocks.
    ///
    /// # Errors
    /// As [`CudaEncoder::check`]; if the parts do not fit the spec, or the device lacks the precision or has no room.
    pub fn new(
        gpu: Gpu,
        precision: CudaPrecision,
        spec: &EncoderSpec,
        weights: OuterWeights,
    ) -> Result<Self, KernelError> {
        gpu.bind()?;
        Self::check(spec, precision)?;
        let element = precision.element();
        if precision == CudaPrecision::Bf16 && !gpu.has_bf16() {
            return Err(mismatch(format!("bf16 needs compute capability 8.0, which {gpu:?} has not; choose f16")));
        }
        let paths = Paths::best(&gpu, spec, element)?;
        let widths = Widths::new(spec, element, precision == CudaPrecision::Int8, paths.attention.queries());
        let head = CudaHead::new(&gpu, &spec.head, spec.hidden, &weights.head)?;
        let parts = DeviceParts::new(&gpu, precision, spec, weights)?;
        let (spec, workspace) = (spec.clone(), Workspace::default());
        let (layers, launches) = (Vec::new(), Vec::new());
        let mut encoder =
            Self { spec, parts, layers, launches, head, graphs: None, workspace, widths, precision, paths, gpu };
        encoder.compile();
        Ok(encoder)
    }

    /// Adds the layer of the next block.
    ///
    /// # Errors
    /// [`KernelError::Mismatch`] names the first part that does not fit the block; else as [`CudaEncoder::new`].
    pub fn push(&mut self, weights: &LayerWeights) -> Result<(), KernelError> {
        self.gpu.bind()?;
        let index = self.layers.len();
        let Some(block) = self.spec.blocks.get(index) else {
            return Err(mismatch(format!("layer {index}: the spec has {index} blocks")));
        };
        let numbers = self.parts.layer(&self.gpu, block, weights).map_err(|error| match error {
            KernelError::Mismatch { what } => mismatch(format!("layer {index}: {what}")),
            other => other,
        })?;
        self.layers.push(numbers);
        self.compile();
        Ok(())
    }

    /// Makes the launches if all layers are there.
    fn compile(&mut self) {
        if self.layers.len() == self.spec.blocks.len() {
            let steps = Steps::new(&self.spec, self.parts.projection, &self.layers);
            self.launches = launches(&steps.list, self.parts.final_norm, &self.parts);
        }
    }

    /// Number of elements of a row of [`CudaEncoder::forward`].
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.widths.head.outputs
    }

    /// Number of rows of [`CudaEncoder::forward`] for sequences of these lengths: one for each, or one for each of their
    /// tokens.
    #[must_use]
    pub fn rows(&self, lengths: &[usize]) -> usize {
        if self.spec.head.rows == HeadRows::Tokens { lengths.iter().sum() } else { lengths.len() }
    }

    /// Bytes of the weights and the workspace on the device.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.parts.bytes() + self.head.bytes() + self.workspace.bytes()
    }

    /// Writes the rows: `out` is `[rows, outputs]`. Those of a sparse head hold the greatest number of each column, 0 if
    /// none is above, of which the logarithm is still to be taken.
    ///
    /// # Errors
    /// If layers are missing, the lengths do not add up, or an id is beyond its table; nothing is written then.
    /// [`KernelError::OutOfDeviceMemory`] if the batch is too large for the device; a smaller one may fit.
    /// [`KernelError::Device`] if the device fails.
    pub fn forward(&mut self, tokens: PackedTokens<'_>, out: &mut [f32]) -> Result<(), KernelError> {
        let PackedTokens { ids, segments, lengths } = tokens;
        let (layers, blocks) = (self.layers.len(), self.spec.blocks.len());
        if layers != blocks {
            return Err(mismatch(format!("{layers} layers for {blocks} blocks; push the others first")));
        }
        let (count, rows) = (lengths.iter().sum::<usize>(), self.rows(lengths));
        if [ids.len(), segments.len()] != [count; 2] || out.len() != rows * self.outputs() {
            let what = format!(
                "{count} tokens in {} sequences, but {} ids, {} segments and {} numbers of output",
                lengths.len(),
                ids.len(),
                segments.len(),
                out.len()
            );
            return Err(mismatch(what));
        }
        self.parts.embeddings.bounds().check(ids, segments, lengths)?;
        if lengths.is_empty() {
            return Ok(());
        }
        self.gpu.bind()?;
        let shape = if self.graphs.is_some() { Shape::bucket } else { Shape::exact };
        let shape = shape(lengths, self.widths.queries);
        // The tokens that fill up a bucket are a sequence, too.
        let longest = lengths.iter().copied().chain([shape.tokens - count]).max().unwrap_or(0);
        self.parts.positions.reach(&self.gpu, longest)?;
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
        let generation = self.workspace.generation() + self.parts.positions.generation();
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
        // SAFETY: `Graphs::next` forgets graphs when the workspace or the positions make memory anew; weights stay as long
        // as the encoder.
        unsafe { self.gpu.replay(graph) }
    }

    /// Queues every copy and launch of a batch.
    fn queue(&mut self, layout: &Layout) -> Result<(), KernelError> {
        self.workspace.copy_in(&self.gpu, layout)?;
        let matrices = self.workspace.matrices(&self.widths, layout);
        self.launches.iter().try_for_each(|launch| self.launch(*launch, matrices))?;
        self.head.queue(&self.gpu, matrices.at(DevicePlace::X, self.widths.hidden), matrices)?;
        self.workspace.copy_out(&self.gpu, &self.widths, layout)
    }

    fn launch(&self, launch: Launch, matrices: Matrices<'_>) -> Result<(), KernelError> {
        let (Self { gpu, parts, widths, .. }, hidden) = (self, self.widths.hidden);
        match launch {
            Launch::Embed { to, quantize } => {
                let y = matrices.at(to, if to == DevicePlace::Embedded { widths.embedded } else { hidden });
                parts.embeddings.forward(gpu, matrices.lookups(), y, quantized_if(quantize, matrices, y.columns()))
            }
            Launch::Norm { x, bias, residual, sums, norm, to, quantize } => {
                let at = |place| matrices.at(place, hidden);
                let rows = NormMatrices { x: at(x), residual: residual.map(at), sums: sums.map(at), y: at(to) };
                let norm = norm.map(|norm| &parts.norms[norm]);
                norm_of_sums(gpu, norm, rows, self.bias(bias)?, quantized_if(quantize, matrices, hidden))
            }
            Launch::Product { x, linear, activation, to } => {
                let DeviceLinear { weights, inputs, outputs, .. } = &parts.linears[linear];
                let y = matrices.at(to, *outputs);
                match weights {
                    DeviceWeights::Float(linear) => linear.times(gpu, matrices.at(x, *inputs), y),
                    DeviceWeights::Int8(linear) => {
                        linear.forward(gpu, matrices.quantized(*inputs), y, activation, self.paths.int8)
                    }
                }
            }
            Launch::Activate { linear, activation } => {
                let linear = self.float(linear)?;
                bias_activate(gpu, matrices.at(DevicePlace::Wide, linear.outputs()), linear.bias(), activation)
            }
            Launch::Gate { linear, activation } => {
                let linear = self.float(linear)?;
                let (values, y) = (linear.outputs(), matrices.at(DevicePlace::Gated, linear.outputs() / 2));
                gate(gpu, matrices.at(DevicePlace::Wide, values), linear.bias(), activation, y)
            }
            Launch::Quantize { x, linear, gate } => {
                let inputs = parts.linears[linear].inputs;
                let columns = if gate.is_some() { 2 * inputs } else { inputs };
                quantize(gpu, matrices.at(x, columns), gate, matrices.quantized(inputs))
            }
            Launch::Prepare { heads, bias } => {
                let heads = &parts.heads[heads];
                let packed = matrices.at(DevicePlace::Wide, heads.heads().packed_columns());
                let rotation = heads.heads().rotation.map(|rotation| parts.positions.rotation(rotation));
                prepare(gpu, heads, packed, self.bias(bias)?, matrices.lookups().positions, rotation)
            }
            Launch::Attend { heads, bias } => {
                let heads = parts.heads[heads].heads();
                let attended = AttentionMatrices {
                    packed: matrices.at(DevicePlace::Wide, heads.packed_columns()),
                    bias: self.bias(bias)?,
                    tiles: matrices.tiles(),
                    biases: heads.bias.map(|bias| parts.positions.bias(bias)),
                    out: matrices.at(DevicePlace::Attended, heads.columns()),
                };
                attention(gpu, heads, attended, self.paths.attention)
            }
        }
    }

    fn float(&self, linear: usize) -> Result<&FloatLinear, KernelError> {
        match &self.parts.linears[linear].weights {
            DeviceWeights::Float(linear) => Ok(linear),
            DeviceWeights::Int8(_) => Err(mismatch("a product of bytes has added its bias already".to_owned())),
        }
    }

    fn bias(&self, linear: Option<usize>) -> Result<Option<View<'_, f32>>, KernelError> {
        linear.map(|linear| self.float(linear).map(FloatLinear::bias)).transpose()
    }
}

fn quantized_if(quantize: bool, matrices: Matrices<'_>, columns: usize) -> Option<QuantizedMatrix<'_>> {
    quantize.then(|| matrices.quantized(columns))
}

/// Checks the sizes of a product's weights.
fn check_dense(name: &str, dense: &Dense, inputs: usize, outputs: usize) -> Result<(), KernelError> {
    let (weights, bias) = (dense.weight.len(), dense.bias.len());
    if bias != outputs || Some(weights) != inputs.checked_mul(outputs) {
        return Err(mismatch(format!("{name} of {weights} weights and {bias} biases: {inputs} to {outputs}")));
    }
    Ok(())
}

impl std::fmt::Debug for CudaEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { spec: EncoderSpec { hidden, blocks, .. }, precision, gpu, .. } = self;
        write!(f, "CudaEncoder({} blocks of {hidden}, {precision:?}, {gpu:?})", blocks.len())
    }
}
