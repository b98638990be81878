// Rows to signed bytes, each row with its scale and zero point.
//
// Shapes:  x [rows, columns] of the element type; values [rows, stride] i8, 0 beyond the columns; scales [rows] f32;
//          zeros [rows] i32.
// Launch:  grid (rows), 128 threads, columns * 4 bytes of shared memory.
// Formula: row.cuh; the reference is reference.rs with a largest byte of 255, its bytes and zero points less 128.
// Last run: simulator, 2026-11-25; no real device yet.
#include "row.cuh"

template <typename T> __device__ void quantize_rows(const T* x, QuantizedRows quantized, int columns) {
    extern __shared__ float v[];
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        v[column] = widen(x[(size_t)blockIdx.x * columns + column]);
    }
    quantize(v, columns, quantized, blockIdx.x);
}

#define ENTRY(T, NAME)                                                                                                 \
    extern "C" __global__ void quantize_##NAME(const T* x, signed char* values, float* scales, int* zeros,             \
                                               int stride, int columns) {                                              \
        quantize_rows<T>(x, {values, scales, zeros, stride}, columns);                                                 \
    }
FOR_EACH_ELEMENT(ENTRY)
