// One vector per sequence from the vectors of its tokens, divided by its length if asked; and the greatest number of each
// column among the rows of each sequence.
//
// Shapes:  tokens [tokens, columns] of the element type; starts [sequences + 1] i32, where each sequence begins and the
//          last ends, or null if each token is a sequence of its own; out [sequences, stride] f32, of which the first
//          columns are written, zeros for a sequence without tokens.
//          pooling_greatest: rows [count, columns] f32, which are the tokens from `from` on; out [sequences, columns] f32.
// Launch:  pooling_*: grid (sequences), 128 threads, columns * 4 bytes of shared memory.
//          pooling_greatest: grid (sequences, ceil(columns / 128)), 128 threads.
// Formula: the ways of pooling in mod.rs; normalised, x / |x|, and zeros stay zeros. The reference is reference.rs.
// Last run: simulator, 2026-11-28; mean and first token on an H200, 2026-11-27.
#include "element.cuh"

// Numbered as in `mod.rs`.
enum Pooling { MEAN = 0, CLS = 1, LARGEST = 2, LAST = 3, WEIGHTED_MEAN = 4, MEAN_SQRT_LENGTH = 5 };

// The greater of two numbers. fmaxf leaves out NaN, but 0 * NaN and 0 * infinity are NaN, which the host refuses.
__device__ __forceinline__ float greater(float a, float b) { return fmaf(a, 0.0f, fmaf(b, 0.0f, fmaxf(a, b))); }

// One column of the tokens of a sequence, of which there is at least one.
template <typename T> __device__ float pooled_column(const T* x, int length, int columns, int pooling) {
    const int last = length - 1, first = pooling == LAST ? last : 0, end = pooling == CLS ? 1 : length;
    float sum = pooling == LARGEST ? widen(x[0]) : 0.0f;
    for (int token = first; token < end; ++token) {
        const float value = widen(x[(size_t)token * columns]);
        switch (pooling) {
        case LARGEST: sum = greater(sum, value); break;
        case WEIGHTED_MEAN: sum = fmaf(value, token + 1, sum); break;
        default: sum += value;
        }
    }
    switch (pooling) {
    case MEAN: return sum / length;
    case MEAN_SQRT_LENGTH: return sum / sqrtf(length);
    case WEIGHTED_MEAN: return sum / (0.5f * length * (length + 1.0f));
    default: return sum;
    }
}

template <typename T>
__device__ void pool(const T* tokens, const int* starts, float* out, int columns, int stride, int pooling,
                     int normalize) {
    extern __shared__ float pooled[];
    const int first = starts == nullptr ? blockIdx.x : starts[blockIdx.x];
    const int length = starts == nullptr ? 1 : starts[blockIdx.x + 1] - first;
    float squares = 0.0f;
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        const T* x = tokens + (size_t)first * columns + column;
        pooled[column] = length == 0 ? 0.0f : pooled_column(x, length, columns, pooling);
        squares = fmaf(pooled[column], pooled[column], squares);
    }
    float norm = 1.0f;
    if (normalize) {
        norm = sqrtf(over_block(squares, Sum(), 0.0f));
        if (!(norm > 0.0f)) norm = 1.0f;
    }
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        out[(size_t)blockIdx.x * stride + column] = pooled[column] / norm;
    }
}

#define ENTRY(T, NAME)                                                                                                 \
    extern "C" __global__ void pooling_##NAME(const T* tokens, const int* starts, float* out, int columns, int stride, \
                                              int pooling, int normalize) {                                            \
        pool<T>(tokens, starts, out, columns, stride, pooling, normalize);                                             \
    }
FOR_EACH_ELEMENT(ENTRY)

// Rows come in several launches. In the first of them `out` is not read: numbers below 0 count as 0. NaN stays NaN.
extern "C" __global__ void pooling_greatest(const float* rows, const int* starts, float* out, int columns, int from,
                                            int count) {
    const int column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= columns) return;
    float* to = out + (size_t)blockIdx.x * columns + column;
    float most = from == 0 ? 0.0f : *to;
    const int first = max(starts[blockIdx.x], from), end = min(starts[blockIdx.x + 1], from + count);
    for (int token = first; token < end; ++token) {
        const float x = rows[(size_t)(token - from) * columns + column];
        if (most == most && (x > most || x != x)) most = x;
    }
    *to = most;
}
