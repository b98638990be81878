// One vector per sequence: the mean of its tokens' vectors or the first of them, divided by its length if asked.
//
// Shapes:  tokens [tokens, columns] of the element type; starts [sequences + 1] i32, where each sequence begins and the
//          last ends; out [sequences, columns] f32, zeros for a sequence without tokens.
// Launch:  grid (sequences), 128 threads, columns * 4 bytes of shared memory.
// Formula: sum(x) / n; normalised, x / |x|, and zeros stay zeros. The reference is reference.rs.
// Last run: simulator, 2026-11-25; no real device yet.
#include "element.cuh"

enum Pooling { MEAN = 0, CLS = 1 };

template <typename T>
__device__ void pool(const T* tokens, const int* starts, float* out, int columns, int pooling, int normalize) {
    extern __shared__ float pooled[];
    const int first = starts[blockIdx.x], length = starts[blockIdx.x + 1] - first;
    const int count = pooling == CLS ? min(length, 1) : length;
    float squares = 0.0f;
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        const T* x = tokens + (size_t)first * columns + column;
        float sum = 0.0f;
        for (int token = 0; token < count; ++token) sum += widen(x[(size_t)token * columns]);
        pooled[column] = sum / max(count, 1);
        squares = fmaf(pooled[column], pooled[column], squares);
    }
    float norm = 1.0f;
    if (normalize) {
        norm = sqrtf(over_block(squares, Sum(), 0.0f));
        if (!(norm > 0.0f)) norm = 1.0f;
    }
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        out[(size_t)blockIdx.x * columns + column] = pooled[column] / norm;
    }
}

#define ENTRY(T, NAME)                                                                                                 \
    extern "C" __global__ void pooling_##NAME(const T* tokens, const int* starts, float* out, int columns,             \
                                              int pooling, int normalize) {                                            \
        pool<T>(tokens, starts, out, columns, pooling, normalize);                                                     \
    }
FOR_EACH_ELEMENT(ENTRY)
