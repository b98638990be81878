// sums = x + projection_bias + residual, y = norm(sums), and the rows of y quantised where int8 layers follow.
//
// Shapes:  x, residual, sums, y [rows, columns] of the element type (sums and y may be either of the former); projection_bias
//          [columns] f32; residual, sums and projection_bias null where there are none; the norm's weight and bias
//          [columns] f32; quantized as in row.cuh, its values null where it is not wanted.
// Launch:  grid (rows), 128 threads, columns * 4 bytes of shared memory.
// Formula: row.cuh; the reference is reference.rs.
// Last run: simulator, 2026-11-28; as layer norm of a sum on an H200, 2026-11-27.
#include "row.cuh"

template <typename T>
__device__ void residual_norm(const T* x, const float* projection_bias, const T* residual, T* sums, const Norm& norm,
                              T* y, QuantizedRows quantized, int columns) {
    extern __shared__ float v[];
    const size_t row = (size_t)blockIdx.x * columns;
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        const float added = projection_bias == nullptr ? 0.0f : projection_bias[column];
        v[column] = widen(x[row + column]) + added + (residual == nullptr ? 0.0f : widen(residual[row + column]));
        if (sums != nullptr) sums[row + column] = narrow<T>(v[column]);
    }
    normalize(v, columns, norm);
    store_row(v, columns, y, quantized, blockIdx.x);
}

#define ENTRY(T, NAME)                                                                                                 \
    extern "C" __global__ void residual_norm_##NAME(const T* x, const float* projection_bias, const T* residual,       \
                                                    T* sums, int norm, const float* weight, const float* bias,         \
                                                    float eps, T* y, signed char* values, float* scales, int* zeros,   \
                                                    int stride, int columns) {                                         \
        residual_norm<T>(x, projection_bias, residual, sums, {norm, weight, bias, eps}, y,                             \
                         {values, scales, zeros, stride}, columns);                                                    \
    }
FOR_EACH_ELEMENT(ENTRY)
