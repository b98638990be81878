// Rows to signed bytes, each row with its scale and zero point; or the same of activation(gate) * up, where each row holds
// gates and ups side by side.
//
// Shapes:  x [rows, columns] of the element type, with a gate [rows, 2 * columns], the gate first; values [rows, stride] i8,
//          0 beyond the columns; scales [rows] f32; zeros [rows] i32.
// Launch:  grid (rows), 128 threads, columns * 4 bytes of shared memory.
// Formula: row.cuh; the reference is reference.rs with a largest byte of 255, its bytes and zero points less 128.
// Last run: simulator, 2026-11-28; without a gate on an H200, 2026-11-27.
#include "activation.cuh"
#include "row.cuh"

// `gate` is an activation, or below 0 where there is no gate.
template <typename T> __device__ void quantize_rows(const T* x, QuantizedRows quantized, int columns, int gate) {
    extern __shared__ float v[];
    const T* row = x + (size_t)blockIdx.x * columns * (gate < 0 ? 1 : 2);
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        const float value = widen(row[column]);
        v[column] = gate < 0 ? value : activate(value, gate) * widen(row[columns + column]);
    }
    quantize(v, columns, quantized, blockIdx.x);
}

#define ENTRY(T, NAME)                                                                                                 \
    extern "C" __global__ void quantize_##NAME(const T* x, signed char* values, float* scales, int* zeros,             \
                                               int stride, int columns, int gate) {                                    \
        quantize_rows<T>(x, {values, scales, zeros, stride}, columns, gate);                                           \
    }
FOR_EACH_ELEMENT(ENTRY)
