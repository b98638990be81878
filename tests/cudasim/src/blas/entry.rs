//! The entry points of cuBLAS that candle and cudarc call.

use std::ffi::{c_int, c_void};

use super::gemm::{Element, Gemm, Operand, Scalar};
use crate::device::error::Status;
use crate::device::host::{Out, put, value};
use crate::device::simulator::{self, Simulator};
use crate::device::work::Work;

/// `cublasStatus_t`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct BlasStatus(pub u32);

impl From<Status> for BlasStatus {
    fn from(status: Status) -> Self {
        Self(match status {
            Status::SUCCESS => 0,
            Status::INVALID_HANDLE => 1,
            Status::OUT_OF_MEMORY => 3,
            Status::INVALID_VALUE => 7,
            Status::NOT_SUPPORTED => 15,
            Status::UNKNOWN => 14,
            _ => 13,
        })
    }
}

macro_rules! blas_entry_points {
    ($($(#[$meta:meta])* fn $name:ident($simulator:ident $(, $argument:ident: $ty:ty)* $(,)?) $body:block)*) => {$(
        $(#[$meta])*
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $ty),*) -> BlasStatus {
            simulator::call(stringify!($name), |$simulator| $body).into()
        }
    )*};
}

/// The element type of a `cudaDataType`.
fn element(code: c_int) -> Result<Element, Status> {
    Ok(match code {
        0 => Element::F32,
        1 => Element::F64,
        2 => Element::F16,
        3 => Element::S8,
        10 => Element::S32,
        14 => Element::Bf16,
        _ => return Err(Status::NOT_SUPPORTED),
    })
}

/// α or β for a `cublasComputeType_t`: sums are of f32 where the type is f16, as cuBLAS may do.
fn scalar(compute: c_int, pointer: *const c_void) -> Result<Scalar, Status> {
    Ok(match compute {
        64 | 65 => Scalar::Float(f64::from(value::<half::f16>(pointer)?.to_f32())),
        68 | 69 | 74..=79 => Scalar::Float(f64::from(value::<f32>(pointer)?)),
        70 | 71 => Scalar::Float(value::<f64>(pointer)?),
        72 | 73 => Scalar::Integer(value::<i32>(pointer)?),
        _ => return Err(Status::NOT_SUPPORTED),
    })
}

/// Arguments of a product, in one form for all entry points.
struct Request {
    handle: u64,
    transposed: [c_int; 2],
    shape: [c_int; 3],
    scalars: [Scalar; 2],
    a: (u64, Element, c_int, i64),
    b: (u64, Element, c_int, i64),
    c: (u64, Element, c_int, i64),
    batch: c_int,
}

impl Request {
    fn submit(self, simulator: &mut Simulator) -> Result<(), Status> {
        let (stream, _) = *simulator.blas_handles.get(&self.handle).ok_or(Status::INVALID_HANDLE)?;
        let [m, n, k] = self.shape.map(usize::try_from);
        let (Ok(m), Ok(n), Ok(k), Ok(batch)) = (m, n, k, usize::try_from(self.batch)) else {
            return Err(Status::INVALID_VALUE);
        };
        let [a_turned, b_turned] = self.transposed.map(|operation| operation != 0);
        let operand = |(address, element, leading, stride): (u64, Element, c_int, i64), transposed, rows: usize| {
            let leading = usize::try_from(leading).map_err(|_| Status::INVALID_VALUE)?;
            if leading < rows.max(1) {
                return Err(Status::INVALID_VALUE);
            }
            Ok(Operand { address, element, transposed, leading, stride })
        };
        let gemm = Gemm {
            m,
            n,
            k,
            batch,
            alpha: self.scalars[0],
            beta: self.scalars[1],
            a: operand(self.a, a_turned, if a_turned { k } else { m })?,
            b: operand(self.b, b_turned, if b_turned { n } else { k })?,
            c: operand(self.c, false, m)?,
        };
        check_types(&gemm)?;
        let device = simulator.streams.get(&stream).ok_or(Status::INVALID_HANDLE)?.device;
        let work = Work::Gemm { device, gemm: gemm.into() };
        simulator.before_work(&work)?;
        simulator.enqueue(stream, work)
    }
}

/// Returns an error for combinations of types that cuBLAS does not document, or that are not simulated.
fn check_types(gemm: &Gemm) -> Result<(), Status> {
    use Element::{Bf16, F16, F32, F64, S8, S32};
    let integer = matches!(gemm.alpha, Scalar::Integer(_));
    let allowed = match (gemm.a.element, gemm.b.element, gemm.c.element) {
        (S8, S8, S32) => integer,
        (F16, F16, F16 | F32) | (Bf16, Bf16, Bf16 | F32) | (F32, F32, F32) | (F64, F64, F64) => !integer,
        _ => false,
    };
    if !allowed {
        return Err(Status::NOT_SUPPORTED);
    }
    // "lda and ldb must be multiples of 4" and the pointers aligned to as much, for 8-bit integers.
    let aligned = |operand: &Operand| operand.leading.is_multiple_of(4) && operand.address.is_multiple_of(4);
    if integer && !(aligned(&gemm.a) && aligned(&gemm.b)) {
        return Err(Status::NOT_SUPPORTED);
    }
    Ok(())
}

blas_entry_points! {
    /// Creates a handle.
    fn cublasCreate_v2(simulator, handle: Out<u64>) {
        let stream = simulator.stream(0)?;
        let new = simulator.new_handle();
        simulator.blas_handles.insert(new, (stream, 0));
        put(handle, new)
    }

    /// Destroys a handle.
    fn cublasDestroy_v2(simulator, handle: u64) {
        simulator.blas_handles.remove(&handle).map(|_| ()).ok_or(Status::INVALID_HANDLE)
    }

    /// Sets the stream that a handle works on.
    fn cublasSetStream_v2(simulator, handle: u64, stream: u64) {
        let stream = simulator.stream(stream)?;
        simulator.blas_handles.get_mut(&handle).ok_or(Status::INVALID_HANDLE)?.0 = stream;
        Ok(())
    }

    /// Gives a handle a workspace: none is needed.
    fn cublasSetWorkspace_v2(simulator, handle: u64, _workspace: u64, _bytes: usize) {
        if simulator.blas_handles.contains_key(&handle) { Ok(()) } else { Err(Status::INVALID_HANDLE) }
    }

    /// Sets the precision of f32 products; the simulator always computes them in full.
    fn cublasSetMathMode(simulator, handle: u64, mode: u32) {
        simulator.blas_handles.get_mut(&handle).ok_or(Status::INVALID_HANDLE)?.1 = mode;
        Ok(())
    }

    /// The current mode.
    fn cublasGetMathMode(simulator, handle: u64, mode: Out<u32>) {
        put(mode, simulator.blas_handles.get(&handle).ok_or(Status::INVALID_HANDLE)?.1)
    }

    /// A batched product of any types.
    fn cublasGemmStridedBatchedEx(
        simulator, handle: u64, turn_a: c_int, turn_b: c_int, m: c_int, n: c_int, k: c_int, alpha: *const c_void,
        a: u64, a_type: c_int, lda: c_int, stride_a: i64, b: u64, b_type: c_int, ldb: c_int, stride_b: i64,
        beta: *const c_void, c: u64, c_type: c_int, ldc: c_int, stride_c: i64, batch: c_int, compute: c_int,
        _algorithm: c_int,
    ) {
        Request {
            handle,
            transposed: [turn_a, turn_b],
            shape: [m, n, k],
            scalars: [scalar(compute, alpha)?, scalar(compute, beta)?],
            a: (a, element(a_type)?, lda, stride_a),
            b: (b, element(b_type)?, ldb, stride_b),
            c: (c, element(c_type)?, ldc, stride_c),
            batch,
        }
        .submit(simulator)
    }

    /// A product of any types.
    fn cublasGemmEx(
        simulator, handle: u64, turn_a: c_int, turn_b: c_int, m: c_int, n: c_int, k: c_int, alpha: *const c_void,
        a: u64, a_type: c_int, lda: c_int, b: u64, b_type: c_int, ldb: c_int, beta: *const c_void, c: u64,
        c_type: c_int, ldc: c_int, compute: c_int, _algorithm: c_int,
    ) {
        Request {
            handle,
            transposed: [turn_a, turn_b],
            shape: [m, n, k],
            scalars: [scalar(compute, alpha)?, scalar(compute, beta)?],
            a: (a, element(a_type)?, lda, 0),
            b: (b, element(b_type)?, ldb, 0),
            c: (c, element(c_type)?, ldc, 0),
            batch: 1,
        }
        .submit(simulator)
    }
}

/// Defines the products whose types are in their names.
macro_rules! typed_products {
    ($($single:ident, $batched:ident, $element:ident, $compute:literal;)*) => {
        blas_entry_points! {$(
            /// A product of one type.
            fn $single(
                simulator, handle: u64, turn_a: c_int, turn_b: c_int, m: c_int, n: c_int, k: c_int,
                alpha: *const c_void, a: u64, lda: c_int, b: u64, ldb: c_int, beta: *const c_void, c: u64, ldc: c_int,
            ) {
                Request {
                    handle,
                    transposed: [turn_a, turn_b],
                    shape: [m, n, k],
                    scalars: [scalar($compute, alpha)?, scalar($compute, beta)?],
                    a: (a, Element::$element, lda, 0),
                    b: (b, Element::$element, ldb, 0),
                    c: (c, Element::$element, ldc, 0),
                    batch: 1,
                }
                .submit(simulator)
            }

            /// A batched product of one type.
            fn $batched(
                simulator, handle: u64, turn_a: c_int, turn_b: c_int, m: c_int, n: c_int, k: c_int,
                alpha: *const c_void, a: u64, lda: c_int, stride_a: i64, b: u64, ldb: c_int, stride_b: i64,
                beta: *const c_void, c: u64, ldc: c_int, stride_c: i64, batch: c_int,
            ) {
                Request {
                    handle,
                    transposed: [turn_a, turn_b],
                    shape: [m, n, k],
                    scalars: [scalar($compute, alpha)?, scalar($compute, beta)?],
                    a: (a, Element::$element, lda, stride_a),
                    b: (b, Element::$element, ldb, stride_b),
                    c: (c, Element::$element, ldc, stride_c),
                    batch,
                }
                .submit(simulator)
            }
        )*}
    };
}

typed_products! {
    cublasSgemm_v2, cublasSgemmStridedBatched, F32, 68;
    cublasHgemm, cublasHgemmStridedBatched, F16, 64;
    cublasDgemm_v2, cublasDgemmStridedBatched, F64, 70;
}
