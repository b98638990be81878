// y = norm(words[id] + segments[segment] + positions[position]), and the same rows quantised where int8 layers follow.
//
// Shapes:  ids, segment_ids, position_ids [tokens] i32, all within the tables (the host checks); words, segments, positions
//          [rows, columns] of the element type, the latter two null where there is no such table; the norm's weight and bias
//          [columns] f32; y [tokens, columns]; quantized as in row.cuh.
// Launch:  grid (tokens), 128 threads, columns * 4 bytes of shared memory.
// Formula: the reference is residual_norm/reference.rs on the sum of the rows.
// Last run: simulator, 2026-11-28; as layer norm of three rows on an H200, 2026-11-27.
#include "row.cuh"

template <typename T>
__device__ void embedding(const int* ids, const int* segment_ids, const int* position_ids, const T* words,
                          const T* segments, const T* positions, const Norm& norm, T* y, QuantizedRows quantized,
                          int columns) {
    extern __shared__ float v[];
    const T* word = words + (size_t)ids[blockIdx.x] * columns;
    const T* segment = segments == nullptr ? nullptr : segments + (size_t)segment_ids[blockIdx.x] * columns;
    const T* position = positions == nullptr ? nullptr : positions + (size_t)position_ids[blockIdx.x] * columns;
    for (int column = threadIdx.x; column < columns; column += blockDim.x) {
        const float of_segment = segment == nullptr ? 0.0f : widen(segment[column]);
        const float of_position = position == nullptr ? 0.0f : widen(position[column]);
        v[column] = widen(word[column]) + (of_segment + of_position);
    }
    normalize(v, columns, norm);
    store_row(v, columns, y, quantized, blockIdx.x);
}

#define ENTRY(T, NAME)                                                                                                 \
    extern "C" __global__ void embedding_##NAME(const int* ids, const int* segment_ids, const int* position_ids,       \
                                                const T* words, const T* segments, const T* positions, int norm,       \
                                                const float* weight, const float* bias, float eps, T* y,               \
                                                signed char* values, float* scales, int* zeros, int stride,            \
                                                int columns) {                                                         \
        embedding<T>(ids, segment_ids, position_ids, words, segments, positions, {norm, weight, bias, eps}, y,         \
                     {values, scales, zeros, stride}, columns);                                                        \
    }
FOR_EACH_ELEMENT(ENTRY)
