// y = activation(x + bias), in place: bias + gelu (both forms), bias + relu, bias + tanh, bias alone.
//
// Shapes:  values [rows, columns] of the element type, overwritten; bias [columns] f32.
// Launch:  grid (rows, ceil(columns / 512)), 128 threads; a thread takes 4 neighbouring columns.
// Formula: activation.cuh; the reference is reference.rs.
// Last run: simulator, 2026-11-25; no real device yet.
#include "activation.cuh"
#include "element.cuh"

constexpr int PER_THREAD = 4;

template <typename T> struct alignas(PER_THREAD * sizeof(T)) Four {
    T at[PER_THREAD];
};

template <typename T> __device__ void bias_activate(T* values, const float* bias, int columns, int activation) {
    const int first = (blockIdx.y * blockDim.x + threadIdx.x) * PER_THREAD;
    T* row = values + (size_t)blockIdx.x * columns;
    if (columns % PER_THREAD == 0 && first < columns) {
        Four<T> four = *reinterpret_cast<const Four<T>*>(row + first);
#pragma unroll
        for (int at = 0; at < PER_THREAD; ++at) {
            four.at[at] = narrow<T>(activate(widen(four.at[at]) + bias[first + at], activation));
        }
        *reinterpret_cast<Four<T>*>(row + first) = four;
        return;
    }
    // Rows that do not begin where four elements can be read at once.
    for (int column = first; column < min(first + PER_THREAD, columns); ++column) {
        row[column] = narrow<T>(activate(widen(row[column]) + bias[column], activation));
    }
}

#define ENTRY(T, NAME)                                                                                                 \
    extern "C" __global__ void bias_gelu_##NAME(T* values, const float* bias, int columns, int activation) {           \
        bias_activate<T>(values, bias, columns, activation);                                                           \
    }
FOR_EACH_ELEMENT(ENTRY)
