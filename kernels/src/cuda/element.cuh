// Element types, and reductions over a warp and a block. Every kernel reads its elements into f32 and computes in f32.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// Writes one entry point per element type: ENTRY(type, name).
#define FOR_EACH_ELEMENT(ENTRY) ENTRY(float, f32) ENTRY(__half, f16) ENTRY(__nv_bfloat16, bf16)

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ __half narrow<__half>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

struct Sum {
    __device__ float operator()(float a, float b) const { return a + b; }
};
struct Largest {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// Every lane gets the result.
template <typename Reduce> __device__ __forceinline__ float over_warp(float value, Reduce reduce) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        value = reduce(value, __shfl_xor_sync(ALL_LANES, value, distance));
    }
    return value;
}

// Every thread of a block of whole warps gets the result. `neutral` changes nothing in a reduction.
template <typename Reduce> __device__ __forceinline__ float over_block(float value, Reduce reduce, float neutral) {
    __shared__ float by_warp[WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    value = over_warp(value, reduce);
    if (lane == 0) by_warp[warp] = value;
    __syncthreads();
    value = over_warp(lane < warps ? by_warp[lane] : neutral, reduce);
    __syncthreads(); // before the next reduction writes
    return value;
}
