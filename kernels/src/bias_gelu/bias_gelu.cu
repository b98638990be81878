// y = activation(x + bias), in place: bias + gelu (both forms), bias + relu, bias + tanh, bias alone, and so on; and the
// gate of a feed-forward network, y = activation(x + bias) * (x' + bias'), where x and x' lie side by side.
//
// Shapes:  values [rows, columns] of the element type, overwritten; bias [columns] f32.
//          Of the gate: values [rows, 2 * columns], bias [2 * columns], the gate's first; y [rows, columns].
// Launch:  grid (rows, ceil(columns / 512)), 128 threads; a thread takes 4 neighbouring columns.
// Formula: activation.cuh; the reference is reference.rs.
// Last run: simulator, 2026-11-28; all but the gate, SiLU and the sigmoid on an H200, 2026-11-27.
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

template <typename T>
__device__ void gate(const T* values, const float* bias, T* y, int columns, int activation) {
    const int first = (blockIdx.y * blockDim.x + threadIdx.x) * PER_THREAD;
    const T* gates = values + (size_t)blockIdx.x * 2 * columns;
    const T* ups = gates + columns;
    T* row = y + (size_t)blockIdx.x * columns;
    const auto gated = [&](T gate, T up, int column) {
        return narrow<T>(activate(widen(gate) + bias[column], activation) * (widen(up) + bias[columns + column]));
    };
    if (columns % PER_THREAD == 0 && first < columns) {
        const Four<T> gate = *reinterpret_cast<const Four<T>*>(gates + first);
        const Four<T> up = *reinterpret_cast<const Four<T>*>(ups + first);
        Four<T> four;
#pragma unroll
        for (int at = 0; at < PER_THREAD; ++at) four.at[at] = gated(gate.at[at], up.at[at], first + at);
        *reinterpret_cast<Four<T>*>(row + first) = four;
        return;
    }
    for (int column = first; column < min(first + PER_THREAD, columns); ++column) {
        row[column] = gated(gates[column], ups[column], column);
    }
}

#define ENTRY(T, NAME)                                                                                                 \
    extern "C" __global__ void bias_gelu_##NAME(T* values, const float* bias, int columns, int activation) {           \
        bias_activate<T>(values, bias, columns, activation);                                                           \
    }                                                                                                                  \
    extern "C" __global__ void gate_##NAME(const T* values, const float* bias, T* y, int columns, int activation) {    \
        gate<T>(values, bias, y, columns, activation);                                                                 \
    }
FOR_EACH_ELEMENT(ENTRY)
