//! Products of matrices by cuBLAS.

use std::ffi::c_void;

use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr as _, DevicePtrMut as _};
use candle_core::{Error, Result, bail};

use super::cuda::Gpu;
use super::is_exact_f32;
use super::machine::{Matrix, Product};
use crate::Precision;

/// cuBLAS counts by columns: the row-major product `out = left·right` is its `outᵀ = rightᵀ·leftᵀ`.
pub(super) fn multiply(gpu: &Gpu, product: Product<'_, CudaSlice<f32>>) -> Result<()> {
    let Product {
        rows,
        columns,
        inner,
        left,
        right,
        out,
        out_offset,
        out_pitch,
        is_out_single,
    } = product;
    let sizes = [rows, columns, inner, left.pitch, right.pitch, out_pitch].map(i32::try_from);
    let [
        Ok(rows),
        Ok(columns),
        Ok(inner),
        Ok(left_pitch),
        Ok(right_pitch),
        Ok(out_pitch),
    ] = sizes
    else {
        bail!("a product of {rows}×{inner} and {inner}×{columns} is too large for cuBLAS");
    };
    let of_activations = match gpu.precision {
        Precision::Single => sys::cudaDataType_t::CUDA_R_32F,
        Precision::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
    };
    let of_out = match is_out_single {
        true => sys::cudaDataType_t::CUDA_R_32F,
        false => of_activations,
    };
    let compute = match gpu.precision {
        Precision::Single if !is_exact_f32() => {
            sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
        }
        _ => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
    };
    let operation = |matrix: &Matrix<'_, CudaSlice<f32>>| match matrix.is_transposed {
        true => sys::cublasOperation_t::CUBLAS_OP_T,
        false => sys::cublasOperation_t::CUBLAS_OP_N,
    };
    let (alpha, beta) = (1f32, 0f32);
    let number = |value: &f32| std::ptr::from_ref(value).cast::<c_void>();
    let stream = gpu.stream();
    let blas = gpu.device.cublas_handle();
    let (left_address, _left) = left.memory.device_ptr(stream);
    let (right_address, _right) = right.memory.device_ptr(stream);
    let (out_address, _out) = out.device_ptr_mut(stream);
    let bytes = |offset: usize, is_single: bool| (offset * if is_single { 4 } else { 2 }) as u64;
    let is_single = gpu.precision == Precision::Single;
    let left_address = left_address + bytes(left.offset, is_single);
    let right_address = right_address + bytes(right.offset, is_single);
    let out_address = out_address + bytes(out_offset, is_single || is_out_single);
    // SAFETY: the three matrices lie inside their memory, which the emulator's product would show by a panic, and
    // the scalars outlive the call. cudarc has no safe product of bf16 with a single-precision result.
    unsafe {
        result::gemm_ex(
            *blas.handle(),
            operation(&right),
            operation(&left),
            columns,
            rows,
            inner,
            number(&alpha),
            right_address as *const c_void,
            of_activations,
            right_pitch,
            left_address as *const c_void,
            of_activations,
            left_pitch,
            number(&beta),
            out_address as *mut c_void,
            of_out,
            out_pitch,
            compute,
            sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
        )
    }
    .map_err(Error::wrap)
}
