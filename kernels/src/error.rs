//! Errors of the kernels.

/// Arguments that do not fit together, after which nothing has been written, or a failure of a device.
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
    /// The weights of a layer do not match its inputs and outputs.
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
        /// The largest number allowed.
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
        /// Its value.
        value: String,
    },
    /// The matrices do not have the columns of a layer, or not the same number of rows.
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
        /// The parts, and how they differ.
        what: String,
    },
    /// A weight does not fit the element that a GPU keeps it in.
    #[error("weight {at} is {value}: too large for {element}; choose bf16 or f32")]
    TooLarge {
        /// Its index.
        at: usize,
        /// Its value.
        value: String,
        /// The element.
        element: &'static str,
    },
    /// The device has no room left. A smaller batch may fit.
    #[error("{call}: the device has no room left; use smaller batches, or unload a model")]
    OutOfDeviceMemory {
        /// The call that failed.
        call: &'static str,
    },
    /// The device is older than any committed PTX.
    #[error("the device has compute capability {major}.{minor}; the kernels need 7.5 or higher")]
    OldDevice {
        /// Major number of its compute capability.
        major: i32,
        /// Minor number of its compute capability.
        minor: i32,
    },
    /// The device, or this process's connection to it, is lost: every later call fails too. Use another device.
    #[error("{call}: the device is lost: {error}")]
    DeviceLost {
        /// The call that failed.
        call: &'static str,
        /// The driver's message.
        error: String,
    },
    /// The driver refused a call.
    #[error("{call}: {error}")]
    Device {
        /// The call that failed.
        call: &'static str,
        /// The driver's message.
        error: String,
    },
}
