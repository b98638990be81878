//! A device with a stream, its functions, and the verbs: launch, copy, wait.

use std::cell::OnceCell;
use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::{CudaContext, result, sys};

use super::blas::Blas;
use super::error::Named as _;
use super::memory::{Buffer, Element, Pinned, View, converted};
use super::ptx::{self, PtxSource, PtxVersion};
use crate::KernelError;
use crate::aligned::Number;

/// A GPU with the kernels loaded and a stream of its own.
///
/// Dropping it waits for all queued work.
pub struct Gpu {
    /// Dropped before the stream and the modules, which it uses.
    blas: OnceCell<Blas>,
    pub(crate) functions: Functions,
    version: PtxVersion,
    /// Compute capability of the device, which may be higher than that of the PTX.
    capability: (i32, i32),
    modules: Vec<sys::CUmodule>,
    stream: sys::CUstream,
    context: Arc<CudaContext>,
}

// SAFETY: the handles may be used from any thread on which the context is current, one at a time; `Gpu` is not `Sync`,
// and its verbs make the context current.
unsafe impl Send for Gpu {}

impl Gpu {
    /// Opens device `ordinal` and loads the kernels.
    ///
    /// # Errors
    /// [`KernelError::Device`] where there is no driver or no such device, [`KernelError::OldDevice`] where there is no
    /// PTX for it.
    pub fn open(ordinal: usize) -> Result<Self, KernelError> {
        Self::with_version(ordinal, None)
    }

    /// Opens a device with a certain version of the PTX, for tests.
    pub(crate) fn with_version(ordinal: usize, version: Option<PtxVersion>) -> Result<Self, KernelError> {
        let context = CudaContext::new(ordinal).named("opening the device")?;
        let (major, minor) = context.compute_capability().named("cuDeviceGetAttribute")?;
        let best = PtxVersion::for_device(major, minor)?;
        let version = version.unwrap_or(best);
        // Not the default stream of the thread, which is a different one on another thread.
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).named("cuStreamCreate")?;
        let mut gpu = Self {
            blas: OnceCell::new(),
            functions: Functions::default(),
            version,
            capability: (major, minor),
            modules: Vec::new(),
            stream,
            context,
        };
        gpu.functions = Functions::load(&mut gpu)?;
        Ok(gpu)
    }

    /// True if cuBLAS multiplies bf16 on the device.
    pub(crate) fn has_bf16(&self) -> bool {
        self.capability >= (8, 0)
    }

    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    pub(super) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    fn load_module(&mut self, source: &PtxSource) -> Result<sys::CUmodule, KernelError> {
        let text = source.of(self.version);
        // SAFETY: PTX that ends in a 0; the context is current.
        let module = unsafe { result::module::load_data(text.as_ptr().cast()).named("cuModuleLoadData")? };
        self.modules.push(module);
        Ok(module)
    }

    #[cfg(test)]
    pub(crate) fn version(&self) -> PtxVersion {
        self.version
    }

    /// Makes this device current on the calling thread.
    pub(crate) fn bind(&self) -> Result<(), KernelError> {
        self.context.bind_to_thread().named("cuCtxSetCurrent")
    }

    /// cuBLAS on this stream, opened on first use: int8 does not need it.
    pub(crate) fn blas(&self) -> Result<&Blas, KernelError> {
        if let Some(blas) = self.blas.get() {
            return Ok(blas);
        }
        let blas = Blas::new(self.stream)?;
        Ok(self.blas.get_or_init(|| blas))
    }

    /// Queues a launch. An empty grid queues nothing.
    ///
    /// # Safety
    /// `arguments` are the function's parameters, in order; each pointer among them points to as much memory as the
    /// function touches when launched with this shape.
    pub(crate) unsafe fn launch<const N: usize>(
        &self,
        function: EntryPoint,
        shape: LaunchShape,
        arguments: [Argument; N],
    ) -> Result<(), KernelError> {
        let LaunchShape { grid: [x, y], block, shared } = shape;
        if x == 0 || y == 0 {
            return Ok(());
        }
        let mut pointers =
            arguments.each_ref().map(|Argument(bits)| std::ptr::from_ref(bits).cast_mut().cast::<c_void>());
        // SAFETY: the function belongs to this context; the pointers lead to `arguments`, which the driver has read when
        // the call returns (little-endian, so the low bytes come first); the caller vouches for the rest.
        unsafe {
            result::launch_kernel(function.0, (x, y, 1), (block, 1, 1), shared, self.stream, &mut pointers)
                .named("cuLaunchKernel")
        }
    }

    /// Allocates uninitialised device memory.
    pub(crate) fn allocate(&self, bytes: usize) -> Result<Buffer, KernelError> {
        Buffer::new(&self.context, bytes)
    }

    /// Allocates pinned memory of the host.
    pub(crate) fn pinned<T: Number>(&self, length: usize) -> Result<Pinned<T>, KernelError> {
        Pinned::new(&self.context, length)
    }

    /// Copies `values` to new device memory.
    pub(crate) fn upload<T: Number>(&self, values: &[T]) -> Result<Buffer, KernelError> {
        let buffer = self.allocate(size_of_val(values))?;
        self.copy_in(values, buffer.view(0, values.len()))?;
        Ok(buffer)
    }

    /// Copies `values`, converted to `element`, to new device memory.
    pub(crate) fn upload_as(&self, element: Element, values: &[f32]) -> Result<Buffer, KernelError> {
        match element {
            Element::F32 => self.upload(values),
            _ => self.upload(&converted(element, values)?),
        }
    }

    /// Queues a copy to the device. Memory that is not pinned is read before the call returns.
    pub(crate) fn copy_in<T: Number>(&self, from: &[T], to: View<'_, T>) -> Result<(), KernelError> {
        assert!(from.len() <= to.len());
        // SAFETY: the view is within its buffer; `from` is pageable and read by the time the call returns, or pinned and
        // left alone by its owner until `wait`.
        unsafe { result::memcpy_htod_async(to.pointer(), from, self.stream).named("cuMemcpyHtoDAsync") }
    }

    /// Queues a copy from the device to pinned memory, which must not be read before [`Gpu::wait`].
    pub(crate) fn copy_out<T: Number>(
        &self,
        from: View<'_, T>,
        to: &mut Pinned<T>,
        length: usize,
    ) -> Result<(), KernelError> {
        assert!(length <= from.len());
        // SAFETY: the view is within its buffer; pinned memory is given back only after its owner has waited.
        unsafe { result::memcpy_dtoh_async(&mut to[..length], from.pointer(), self.stream).named("cuMemcpyDtoHAsync") }
    }

    /// Waits until all queued work is done. Failures on the device are reported here.
    pub(crate) fn wait(&self) -> Result<(), KernelError> {
        // SAFETY: the stream belongs to `self`.
        unsafe { result::stream::synchronize(self.stream).named("cuStreamSynchronize") }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // A lost device refuses all of these calls and has nothing left to free.
        if self.bind().is_err() || self.wait().is_err() {
            return;
        }
        self.blas.take();
        // SAFETY: nothing runs any more, and nothing else holds the handles.
        unsafe {
            for module in self.modules.drain(..) {
                let _ = result::module::unload(module);
            }
            let _ = result::stream::destroy(self.stream);
        }
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu(cuda:{}, {:?})", self.context.ordinal(), self.version)
    }
}

/// Grid, block and shared memory of a launch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaunchShape {
    pub(crate) grid: [u32; 2],
    pub(crate) block: u32,
    /// Bytes of shared memory besides those that the function declares.
    pub(crate) shared: u32,
}

impl LaunchShape {
    /// A block of 128 threads per row, with a row of f32 in shared memory.
    pub(crate) fn row_by_row(rows: usize, columns: usize) -> Result<Self, KernelError> {
        /// Columns that fit the 48 KiB of shared memory that a function gets without asking for more.
        const MAX_COLUMNS: usize = 48 * 1024 / size_of::<f32>() - 256;
        if columns > MAX_COLUMNS {
            return Err(super::mismatch(format!("rows of {columns}; a GPU's kernels take at most {MAX_COLUMNS}")));
        }
        Ok(Self { grid: [dimension(rows)?, 1], block: 128, shared: dimension(columns * size_of::<f32>())? })
    }
}

/// A size as the driver takes it.
pub(crate) fn dimension(number: usize) -> Result<u32, KernelError> {
    Ok(super::int(number)?.unsigned_abs())
}

/// An argument of a launch: its bytes, the low ones first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Argument(u64);

impl From<i32> for Argument {
    fn from(value: i32) -> Self {
        Self(u64::from(value.cast_unsigned()))
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self(u64::from(value.to_bits()))
    }
}

/// A pointer to device memory.
impl From<u64> for Argument {
    fn from(pointer: u64) -> Self {
        Self(pointer)
    }
}

/// An entry point of a module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryPoint(sys::CUfunction);

impl Default for EntryPoint {
    fn default() -> Self {
        Self(std::ptr::null_mut())
    }
}

/// One entry point per type of element.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ByElement([EntryPoint; 3]);

impl ByElement {
    pub(crate) fn of(&self, element: Element) -> EntryPoint {
        self.0[element as usize]
    }
}

/// One [`ByElement`] per bound on the size of a head.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ByWidth([ByElement; 3]);

impl ByWidth {
    pub(crate) const WIDTHS: [usize; 3] = [32, 64, 128];

    /// The entry points for heads of `size` elements, if there are any.
    pub(crate) fn of(&self, size: usize) -> Option<&ByElement> {
        let at = Self::WIDTHS.iter().position(|width| size <= *width)?;
        Some(&self.0[at])
    }
}

/// Every entry point of the kernels.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Functions {
    pub(crate) attention_plain: ByWidth,
    /// For f16 and bf16, where the PTX uses tensor cores.
    pub(crate) attention_mma: Option<ByWidth>,
    /// With masks and biases by distance.
    pub(crate) attention_plain_by_distance: ByWidth,
    pub(crate) attention_mma_by_distance: Option<ByWidth>,
    pub(crate) attention_prepare: ByElement,
    pub(crate) bias_gelu: ByElement,
    pub(crate) gate: ByElement,
    pub(crate) embedding: ByElement,
    pub(crate) linear_dp4a: ByElement,
    pub(crate) linear_mma: Option<ByElement>,
    pub(crate) pooling: ByElement,
    pub(crate) pooling_greatest: EntryPoint,
    pub(crate) quantize: ByElement,
    pub(crate) residual_norm: ByElement,
}

impl Functions {
    fn load(gpu: &mut Gpu) -> Result<Self, KernelError> {
        let tensor_cores = gpu.version.has_tensor_cores();
        let attention = gpu.load_module(&ptx::ATTENTION)?;
        let linear = gpu.load_module(&ptx::LINEAR)?;
        let (bias_gelu, pooling) = (gpu.load_module(&ptx::BIAS_GELU)?, gpu.load_module(&ptx::POOLING)?);
        let mut only = |source: &PtxSource, name: &str| by_element(gpu.load_module(source)?, name, "", &Element::ALL);
        let mma =
            |name: &str| tensor_cores.then(|| by_width(attention, name, &[Element::F16, Element::Bf16])).transpose();
        Ok(Self {
            bias_gelu: by_element(bias_gelu, "bias_gelu", "", &Element::ALL)?,
            gate: by_element(bias_gelu, "gate", "", &Element::ALL)?,
            embedding: only(&ptx::EMBEDDING, "embedding")?,
            pooling: by_element(pooling, "pooling", "", &Element::ALL)?,
            pooling_greatest: function(pooling, "pooling_greatest")?,
            quantize: only(&ptx::QUANTIZE, "quantize")?,
            residual_norm: only(&ptx::RESIDUAL_NORM, "residual_norm")?,
            linear_dp4a: by_element(linear, "linear_int8_dp4a", "", &Element::ALL)?,
            linear_mma: tensor_cores.then(|| by_element(linear, "linear_int8_mma", "", &Element::ALL)).transpose()?,
            attention_plain: by_width(attention, "attention_plain", &Element::ALL)?,
            attention_mma: mma("attention_mma")?,
            attention_plain_by_distance: by_width(attention, "attention_plain_by_distance", &Element::ALL)?,
            attention_mma_by_distance: mma("attention_mma_by_distance")?,
            attention_prepare: by_element(attention, "attention_prepare", "", &Element::ALL)?,
        })
    }
}

fn by_width(module: sys::CUmodule, name: &str, elements: &[Element]) -> Result<ByWidth, KernelError> {
    let mut functions = ByWidth::default();
    for (functions, width) in functions.0.iter_mut().zip(ByWidth::WIDTHS) {
        *functions = by_element(module, name, &format!("_{width}"), elements)?;
    }
    Ok(functions)
}

/// Loads the functions `<name>_<element><suffix>`.
fn by_element(module: sys::CUmodule, name: &str, suffix: &str, elements: &[Element]) -> Result<ByElement, KernelError> {
    let mut functions = ByElement::default();
    for element in elements {
        functions.0[*element as usize] = function(module, &format!("{name}_{}{suffix}", element.name()))?;
    }
    Ok(functions)
}

fn function(module: sys::CUmodule, name: &str) -> Result<EntryPoint, KernelError> {
    let name = CString::new(name).expect("no 0 in a name");
    // SAFETY: the module has been loaded and not yet unloaded.
    Ok(EntryPoint(unsafe { result::module::get_function(module, name).named("cuModuleGetFunction")? }))
}
