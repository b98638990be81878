// Operations of all threads of a block on a row of f32 in shared memory: norms, and quantisation to bytes.
//
// A thread reads and writes the columns threadIdx.x, threadIdx.x + blockDim.x, ... and no others, so that the row
// itself needs no barrier.
#pragma once
#include "element.cuh"

// Destination of quantised rows; all null where they are not wanted.
struct QuantizedRows {
    signed char* values; // [rows, stride]; columns beyond the row's are 0
    float* scales;       // [rows]
    int* zeros;          // [rows]
    int stride;
};

// A norm of rows, numbered as in `residual_norm/cuda.rs`.
enum NormKind { NO_NORM = 0, LAYER_NORM = 1, RMS_NORM = 2 };

struct Norm {
    int kind;
    const float* weight; // [columns]; null without a norm
    const float* bias;   // [columns]; null but for a layer norm
    float eps;
};

// v = (v - mean(v)) / sqrt(var(v) + eps) * weight + bias, with the variance of the population.
__device__ __forceinline__ void layer_norm(float* v, int columns, const float* weight, const float* bias, float eps) {
    float sum = 0.0f;
    for (int column = threadIdx.x; column < columns; column += blockDim.x) sum += v[column];
    const float mean = over_block(sum, Sum(), 0.0f) / columns;
    float squares = 0.0f; // of centred values: nothing cancels
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        const float centred = v[column] - mean;
        squares = fmaf(centred, centred, squares);
    }
    const float deviation = sqrtf(over_block(squares, Sum(), 0.0f) / columns + eps);
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        v[column] = fmaf((v[column] - mean) / deviation, weight[column], bias[column]);
    }
}

// v = v / sqrt(mean(v^2) + eps) * weight
__device__ __forceinline__ void rms_norm(float* v, int columns, const float* weight, float eps) {
    float squares = 0.0f;
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        squares = fmaf(v[column], v[column], squares);
    }
    const float root = sqrtf(over_block(squares, Sum(), 0.0f) / columns + eps);
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        v[column] = v[column] / root * weight[column];
    }
}

__device__ __forceinline__ void normalize(float* v, int columns, const Norm& norm) {
    if (norm.kind == LAYER_NORM) layer_norm(v, columns, norm.weight, norm.bias, norm.eps);
    if (norm.kind == RMS_NORM) rms_norm(v, columns, norm.weight, norm.eps);
}

// s = (hi - lo)/255, z = round(-lo/s) - 128, q = round(x/s) + z within -128 and 127, so that x = s*(q - z) nearly.
// The bytes of `quantize/reference.rs` less 128: tensor cores and dp4a multiply signed bytes.
__device__ __forceinline__ void quantize(const float* v, int columns, const QuantizedRows& to, int row) {
    constexpr float LARGEST = 255.0f, OFFSET = 128.0f;
    float low = 0.0f, high = 0.0f;
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        low = fminf(low, v[column]);
        high = fmaxf(high, v[column]);
    }
    low = -over_block(-low, Largest(), 0.0f);
    high = over_block(high, Largest(), 0.0f);
    const float scale = high > low ? (high - low) / LARGEST : 1.0f;
    const float inverse = 1.0f / scale;
    const float zero = rintf(-low * inverse);
    signed char* values = to.values + (size_t)row * to.stride;
    for (int column = threadIdx.x; column < to.stride; column += blockDim.x) {
        float value = OFFSET;
        if (column < columns) value = fminf(fmaxf(rintf(fmaf(v[column], inverse, zero)), 0.0f), LARGEST);
        values[column] = (signed char)(int)(value - OFFSET);
    }
    if (threadIdx.x == 0) {
        to.scales[row] = scale;
        to.zeros[row] = (int)(zero - OFFSET);
    }
}

// Writes the row as elements, as bytes, or as both.
template <typename T>
__device__ __forceinline__ void store_row(const float* v, int columns, T* y, const QuantizedRows& quantized, int row) {
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        y[(size_t)row * columns + column] = narrow<T>(v[column]);
    }
    if (quantized.values != nullptr) quantize(v, columns, quantized, row);
}
