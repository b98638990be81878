//! What a kernel refuses.

/// Arguments that do not fit together. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The values are not a whole number of rows as long as the bias.
    #[error("{values} values are not a whole number of rows of {bias}, the length of the bias")]
    RowLength {
        /// Elements of the values.
        values: usize,
        /// Elements of the bias.
        bias: usize,
    },
    /// The weights of a layer are not what its inputs and outputs ask for.
    #[error("{weights} weights and a bias of {bias} do not make a layer from {inputs} inputs to {outputs} outputs")]
    WeightShape {
        /// Elements of the weight.
        weights: usize,
        /// Elements of the bias.
        bias: usize,
        /// Columns of x.
        inputs: usize,
        /// Columns of y.
        outputs: usize,
    },
    /// A layer has more inputs than exact sums of its format allow.
    #[error("a layer of {inputs} inputs; int8 takes at most {max}")]
    TooManyInputs {
        /// Columns of x.
        inputs: usize,
        /// The bound.
        max: usize,
    },
    /// Weights in blocks need whole blocks.
    #[error("a layer of {inputs} inputs; weights in blocks need a multiple of {block}")]
    NotWholeBlocks {
        /// Columns of x.
        inputs: usize,
        /// Weights of a block.
        block: usize,
    },
    /// A weight cannot be quantised.
    #[error("weight {at} is {value}; only finite weights can be quantised")]
    NotFinite {
        /// Its index.
        at: usize,
        /// What it is.
        value: String,
    },
    /// A matrix is not what a layer takes or gives.
    #[error("x of {x} and y of {y} elements do not hold the same number of rows of {inputs} and {outputs}")]
    MatrixShape {
        /// Elements of x.
        x: usize,
        /// Elements of y.
        y: usize,
        /// Columns of x.
        inputs: usize,
        /// Columns of y.
        outputs: usize,
    },
    /// Parts of an encoder, or of a batch, that do not fit together.
    #[error("{what}")]
    Mismatch {
        /// Which, and how.
        what: String,
    },
    /// A weight does not fit the element that a GPU keeps it in.
    #[error("weight {at} is {value}: too large for {element}; choose bf16 or f32")]
    TooLarge {
        /// Its index.
        at: usize,
        /// What it is.
        value: String,
        /// The element.
        element: &'static str,
    },
    /// The device has no room left. A smaller batch may fit.
    #[error("{call}: the device has no room left; use smaller batches, or unload a model")]
    OutOfDeviceMemory {
        /// What asked for room.
        call: &'static str,
    },
    /// There is no PTX for a device as old.
    #[error("the device has compute capability {major}.{minor}; the kernels need 7.5 or higher")]
    OldDevice {
        /// Before the dot.
        major: i32,
        /// After it.
        minor: i32,
    },
    /// The device, or this process' hold on it, is gone: every later call fails, too. Go on elsewhere.
    #[error("{call}: the device is lost: {error}")]
    DeviceLost {
        /// What failed.
        call: &'static str,
        /// What the driver says.
        error: String,
    },
    /// The driver refuses.
    #[error("{call}: {error}")]
    Device {
        /// What it was asked for.
        call: &'static str,
        /// What it says.
        error: String,
    },
}
