//! Matrix products of floats by cuBLAS.

use std::ffi::c_void;

use cudarc::cublas::{result, sys};
use cudarc::driver::sys::CUstream;

use super::error::Named as _;
use super::memory::{Element, Matrix};
use super::{int, mismatch};
use crate::KernelError;

/// A handle whose products are queued on one stream.
pub(crate) struct Blas(sys::cublasHandle_t);

impl Blas {
    pub(super) fn new(stream: CUstream) -> Result<Self, KernelError> {
        let blas = Self(result::create_handle().named("cublasCreate")?);
        // SAFETY: both handles are live; the owner of the stream drops this first.
        unsafe { result::set_stream(blas.0, stream.cast()).named("cublasSetStream")? };
        Ok(blas)
    }

    /// `y = x·Wᵀ`, with `weight` as `[outputs, inputs]`; sums in f32 (not in TF32).
    ///
    /// # Errors
    /// If the shapes or the elements do not fit together.
    pub(crate) fn times(&self, x: Matrix<'_>, weight: Matrix<'_>, y: Matrix<'_>) -> Result<(), KernelError> {
        let (rows, inputs, outputs, element) = (x.rows(), x.columns(), weight.rows(), x.element());
        if weight.shape() != (outputs, inputs, element) || y.shape() != (rows, outputs, element) {
            return Err(mismatch(format!("a product of {x:?} and {weight:?} into {y:?}")));
        }
        if rows == 0 {
            return Ok(());
        }
        let kind = kind_of(element);
        let (one, zero) = (1.0_f32, 0.0_f32);
        let (rows, inputs, outputs) = (int(rows)?, int(inputs)?, int(outputs)?);
        // cuBLAS is column-major: to it this is yᵀ = W·xᵀ, and no matrix is rearranged.
        // SAFETY: the matrices are within their buffers and have the shapes checked above.
        unsafe {
            result::gemm_ex(
                self.0,
                sys::cublasOperation_t::CUBLAS_OP_T,
                sys::cublasOperation_t::CUBLAS_OP_N,
                outputs,
                rows,
                inputs,
                (&raw const one).cast(),
                weight.pointer() as *const c_void,
                kind,
                inputs,
                x.pointer() as *const c_void,
                kind,
                inputs,
                (&raw const zero).cast(),
                y.pointer() as *mut c_void,
                kind,
                outputs,
                sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
            .named("cublasGemmEx")
        }
    }
}

fn kind_of(element: Element) -> sys::cudaDataType {
    match element {
        Element::F32 => sys::cudaDataType::CUDA_R_32F,
        Element::F16 => sys::cudaDataType::CUDA_R_16F,
        Element::Bf16 => sys::cudaDataType::CUDA_R_16BF,
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: created here; the owner has made the context current.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}
