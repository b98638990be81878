// y = layer_norm(x + projection_bias + residual), and the same rows quantised where int8 layers follow.
//
// Shapes:  x, residual, y [rows, columns] of the element type (y may be either of them); projection_bias [columns] f32 or
//          null; weight, bias [columns] f32; quantized as in row.cuh, its values null where it is not wanted.
// Launch:  grid (rows), 128 threads, columns * 4 bytes of shared memory.
// Formula: (v - mean(v)) / sqrt(var(v) + eps) * weight + bias; the reference is reference.rs.
// Last run: simulator, 2026-11-25; no real device yet.
#include "row.cuh"

template <typename T>
__device__ void residual_norm(const T* x, const float* projection_bias, const T* residual, const float* weight,
                              const float* bias, float eps, T* y, QuantizedRows quantized, int columns) {
    extern __shared__ float v[];
    const size_t row = (size_t)blockIdx.x * columns;
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        const float added = projection_bias == nullptr ? 0.0f : projection_bias[column];
        v[column] = widen(x[row + column]) + added + widen(residual[row + column]);
    }
    layer_norm(v, columns, weight, bias, eps);
    store_row(v, columns, y, quantized, blockIdx.x);
}

#define ENTRY(T, NAME)                                                                                                 \
    extern "C" __global__ void residual_norm_##NAME(const T* x, const float* projection_bias, const T* residual,       \
                                                    const float* weight, const float* bias, float eps, T* y,           \
                                                    signed char* values, float* scales, int* zeros, int stride,        \
                                                    int columns) {                                                     \
        residual_norm<T>(x, projection_bias, residual, weight, bias, eps, y, {values, scales, zeros, stride},          \
                         columns);                                                                                     \
    }
FOR_EACH_ELEMENT(ENTRY)
