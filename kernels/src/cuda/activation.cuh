// Activation functions applied to a product, numbered as in `cuda/activation.rs`.
#pragma once

enum Activation { IDENTITY = 0, RELU = 1, GELU_ERF = 2, GELU_TANH = 3, TANH = 4, SILU = 5, SIGMOID = 6 };

// x/2 * (1 + erf(x/sqrt(2))); below -14 nothing is left of it in f32, and the formula would give -inf * 0.
__device__ __forceinline__ float gelu_erf(float x) {
    return x < -14.0f ? 0.0f : 0.5f * x * (1.0f + erff(x * 0.707106781f));
}

// x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))
__device__ __forceinline__ float gelu_tanh(float x) {
    return x < -14.0f ? 0.0f : 0.5f * x * (1.0f + tanhf(0.797884561f * fmaf(0.044715f * x * x, x, x)));
}

// NaN stays NaN.
__device__ __forceinline__ float relu(float x) { return x < 0.0f ? 0.0f : x; }

// One branch for the whole grid. Not inlined: the end of a product calls it for each of a thread's outputs, and 16 copies
// of both forms of gelu made a megabyte of PTX.
__device__ __noinline__ float activate(float x, int activation) {
    switch (activation) {
    case RELU: return relu(x);
    case GELU_ERF: return gelu_erf(x);
    case GELU_TANH: return gelu_tanh(x);
    case TANH: return tanhf(x);
    case SILU: return x / (1.0f + expf(-x));
    case SIGMOID: return 1.0f / (1.0f + expf(-x));
    default: return x;
    }
}
