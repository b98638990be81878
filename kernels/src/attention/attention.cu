// Attention within each of the sequences that lie end to end: softmax(Q·Kᵀ)·V per head, without padding or a mask. The
// 1/√d is already in Q.
//
// Shapes:  query_key_value [tokens, 3, heads, size] of the element type; bias [3, heads, size] f32, added to all three, or
//          null; tiles [number][3] i32: for each block the first token of its sequence, the length of that, and the
//          first query of the block in it (a length of 0: nothing to do); out [tokens, heads, size].
// Launch:  grid (tiles, heads), 128 threads. A head has at most 32, 64 or 128 elements by the entry's name.
//          attention_plain_*: 16 queries a block, 4 a warp; a lane per key, then a lane per column; every device.
//          attention_mma_*:   64 queries a block, 16 a warp, by tensor cores; f16 and bf16, compute_80 and up, an even
//          head size: mma.sync.m16n8k16.row.col.f32.{f16.f16,bf16.bf16}.f32; fragments are read from shared memory
//          without ldmatrix.
// Formula: keys come in blocks, with the running maximum and sum of the online softmax (Milakov and Gimelshein,
//          arXiv:1805.02867; Dao, FlashAttention-2, arXiv:2307.08691). The reference is reference.rs.
// Last run: simulator, 2026-11-25; no real device yet.
#include "element.cuh"

constexpr int WARPS = 4;
#define MINUS_INFINITY (-__int_as_float(0x7f800000)) // NVRTC has no INFINITY

struct Tile {
    int sequence, length, query;
};

// One head's columns of the packed matrix.
template <typename T> struct Packed {
    const T* rows;
    const float* bias;
    int hidden, head, size;

    // Query is part 0, key 1, value 2.
    __device__ __forceinline__ float at(int part, int row, int column) const {
        const int offset = part * hidden + head * size + column;
        return widen(rows[(size_t)row * 3 * hidden + offset]) + (bias == nullptr ? 0.0f : bias[offset]);
    }
};

__device__ __forceinline__ Tile tile_of(const int* tiles) {
    const int* tile = tiles + 3 * blockIdx.x;
    return {tile[0], tile[1], tile[2]};
}

template <typename T, int WIDTH> __device__ void attend_plain(const Packed<T>& packed, Tile tile, T* out) {
    constexpr int KEYS = WARP, QUERIES = 4, PARTS = WIDTH / WARP;
    __shared__ float queries[WARPS * QUERIES][WIDTH], keys[KEYS][WIDTH + 1], values[KEYS][WIDTH];
    const int lane = threadIdx.x % WARP, first = threadIdx.x / WARP * QUERIES, size = packed.size;
    for (int at = threadIdx.x; at < WARPS * QUERIES * WIDTH; at += blockDim.x) {
        const int query = at / WIDTH, column = at % WIDTH;
        const bool there = tile.query + query < tile.length && column < size;
        queries[query][column] = there ? packed.at(0, tile.sequence + tile.query + query, column) : 0.0f;
    }
    float maxima[QUERIES], sums[QUERIES] = {}, mixed[QUERIES][PARTS] = {};
#pragma unroll
    for (int query = 0; query < QUERIES; ++query) maxima[query] = MINUS_INFINITY;

    for (int block = 0; block < tile.length; block += KEYS) {
        __syncthreads(); // the block before has been read
        for (int at = threadIdx.x; at < KEYS * WIDTH; at += blockDim.x) {
            const int key = at / WIDTH, column = at % WIDTH;
            const bool there = block + key < tile.length && column < size;
            keys[key][column] = there ? packed.at(1, tile.sequence + block + key, column) : 0.0f;
            values[key][column] = there ? packed.at(2, tile.sequence + block + key, column) : 0.0f;
        }
        __syncthreads();
        const int count = min(KEYS, tile.length - block);
#pragma unroll
        for (int query = 0; query < QUERIES; ++query) {
            float score = 0.0f;
            for (int column = 0; column < size; ++column) {
                score = fmaf(queries[first + query][column], keys[lane][column], score);
            }
            if (lane >= count) score = MINUS_INFINITY;
            const float largest = fmaxf(maxima[query], over_warp(score, Largest()));
            const float weight = expf(score - largest), kept = expf(maxima[query] - largest);
            maxima[query] = largest;
            sums[query] = fmaf(sums[query], kept, over_warp(weight, Sum()));
#pragma unroll
            for (int part = 0; part < PARTS; ++part) mixed[query][part] *= kept;
#pragma unroll 1
            for (int key = 0; key < count; ++key) {
                const float of_key = __shfl_sync(ALL_LANES, weight, key);
#pragma unroll
                for (int part = 0; part < PARTS; ++part) {
                    mixed[query][part] = fmaf(of_key, values[key][part * WARP + lane], mixed[query][part]);
                }
            }
        }
    }
#pragma unroll
    for (int query = 0; query < QUERIES; ++query) {
        const int row = tile.query + first + query;
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {
            const int column = part * WARP + lane;
            if (row >= tile.length || column >= size) continue;
            const size_t to = (size_t)(tile.sequence + row) * packed.hidden + packed.head * size + column;
            out[to] = narrow<T>(mixed[query][part] / sums[query]);
        }
    }
}

#if __CUDA_ARCH__ >= 800
// Two elements in a register, the first in its low half.
__device__ __forceinline__ unsigned pair(float low, float high, __half) {
    const __half2 two = __floats2half2_rn(low, high);
    return *reinterpret_cast<const unsigned*>(&two);
}
__device__ __forceinline__ unsigned pair(float low, float high, __nv_bfloat16) {
    const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const unsigned*>(&two);
}

__device__ __forceinline__ void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, __half) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void mma(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, __nv_bfloat16) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// A warp holds 16 queries. In a fragment, lane 4·group + quad has rows group and group + 8 and columns 2·quad and on.
template <typename T, int WIDTH> __device__ void attend_mma(const Packed<T>& packed, Tile tile, T* out) {
    constexpr int KEYS = 64, STEPS = WIDTH / 16, COLUMNS = WIDTH / 8;
    // 8 elements more than a row needs: the rows that a warp reads at once begin in different banks.
    __shared__ __align__(16) T keys[KEYS][WIDTH + 8];
    __shared__ __align__(16) T values[WIDTH][KEYS + 8]; // transposed: neighbouring keys make a register
    const int lane = threadIdx.x % WARP, group = lane / 4, quad = lane % 4, size = packed.size;
    const int first = tile.query + threadIdx.x / WARP * 16 + group;

    const auto query = [&](int row, int column) {
        const bool there = row < tile.length && column < size;
        const int from = tile.sequence + row;
        return there ? pair(packed.at(0, from, column), packed.at(0, from, column + 1), T()) : 0u;
    };
    unsigned queries[STEPS][4];
#pragma unroll
    for (int step = 0; step < STEPS; ++step) {
        const int column = step * 16 + quad * 2;
        queries[step][0] = query(first, column);
        queries[step][1] = query(first + 8, column);
        queries[step][2] = query(first, column + 8);
        queries[step][3] = query(first + 8, column + 8);
    }
    float maxima[2] = {MINUS_INFINITY, MINUS_INFINITY}, sums[2] = {}, mixed[COLUMNS][4] = {};

    for (int block = 0; block < tile.length; block += KEYS) {
        __syncthreads(); // the block before has been read
        for (int at = threadIdx.x; at < KEYS * WIDTH; at += blockDim.x) {
            const int key = at / WIDTH, column = at % WIDTH, from = tile.sequence + block + key;
            const bool there = block + key < tile.length && column < size;
            keys[key][column] = narrow<T>(there ? packed.at(1, from, column) : 0.0f);
            values[column][key] = narrow<T>(there ? packed.at(2, from, column) : 0.0f);
        }
        __syncthreads();

        float scores[KEYS / 8][4] = {};
#pragma unroll
        for (int key = 0; key < KEYS / 8; ++key) {
#pragma unroll
            for (int step = 0; step < STEPS; ++step) {
                const T* from = &keys[key * 8 + group][step * 16 + quad * 2];
                mma(scores[key], queries[step], *reinterpret_cast<const unsigned*>(from),
                    *reinterpret_cast<const unsigned*>(from + 8), T());
            }
        }

        float largest[2] = {maxima[0], maxima[1]};
#pragma unroll
        for (int key = 0; key < KEYS / 8; ++key) {
#pragma unroll
            for (int at = 0; at < 4; ++at) {
                if (block + key * 8 + quad * 2 + at % 2 >= tile.length) scores[key][at] = MINUS_INFINITY;
                largest[at / 2] = fmaxf(largest[at / 2], scores[key][at]);
            }
        }
        float kept[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            // Over the four lanes that share a row.
            largest[half] = fmaxf(largest[half], __shfl_xor_sync(ALL_LANES, largest[half], 1));
            largest[half] = fmaxf(largest[half], __shfl_xor_sync(ALL_LANES, largest[half], 2));
            kept[half] = expf(maxima[half] - largest[half]);
            maxima[half] = largest[half];
            sums[half] *= kept[half];
        }
#pragma unroll
        for (int key = 0; key < KEYS / 8; ++key) {
#pragma unroll
            for (int at = 0; at < 4; ++at) {
                scores[key][at] = expf(scores[key][at] - largest[at / 2]);
                sums[at / 2] += scores[key][at];
            }
        }
#pragma unroll
        for (int column = 0; column < COLUMNS; ++column) {
#pragma unroll
            for (int at = 0; at < 4; ++at) mixed[column][at] *= kept[at / 2];
        }
        // The weights of 16 keys as they come from two products are the left side of the next one.
#pragma unroll
        for (int step = 0; step < KEYS / 16; ++step) {
            const float(&low)[4] = scores[2 * step], (&high)[4] = scores[2 * step + 1];
            const unsigned weights[4] = {pair(low[0], low[1], T()), pair(low[2], low[3], T()),
                                         pair(high[0], high[1], T()), pair(high[2], high[3], T())};
#pragma unroll
            for (int column = 0; column < COLUMNS; ++column) {
                const T* from = &values[column * 8 + group][step * 16 + quad * 2];
                mma(mixed[column], weights, *reinterpret_cast<const unsigned*>(from),
                    *reinterpret_cast<const unsigned*>(from + 8), T());
            }
        }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float sum = sums[half];
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        const int row = first + half * 8;
        if (row >= tile.length) continue;
        T* to = out + (size_t)(tile.sequence + row) * packed.hidden + packed.head * size;
#pragma unroll
        for (int column = 0; column < COLUMNS; ++column) {
            const int at = column * 8 + quad * 2;
            if (at >= size) continue;
            to[at] = narrow<T>(mixed[column][half * 2] / sum);
            to[at + 1] = narrow<T>(mixed[column][half * 2 + 1] / sum);
        }
    }
}
#endif

#define ENTRY_OF(PATH, T, NAME, WIDTH)                                                                                 \
    extern "C" __global__ void __launch_bounds__(128) attention_##PATH##_##NAME##_##WIDTH(                             \
        const T* query_key_value, const float* bias, const int* tiles, T* out, int heads, int size) {                  \
        const Tile tile = tile_of(tiles);                                                                              \
        if (tile.length == 0) return;                                                                                  \
        attend_##PATH<T, WIDTH>({query_key_value, bias, heads * size, (int)blockIdx.y, size}, tile, out);              \
    }

#define ENTRY(T, NAME) ENTRY_OF(plain, T, NAME, 32) ENTRY_OF(plain, T, NAME, 64) ENTRY_OF(plain, T, NAME, 128)
FOR_EACH_ELEMENT(ENTRY)
#undef ENTRY

#if __CUDA_ARCH__ >= 800
#define ENTRY(T, NAME) ENTRY_OF(mma, T, NAME, 32) ENTRY_OF(mma, T, NAME, 64) ENTRY_OF(mma, T, NAME, 128)
ENTRY(__half, f16)
ENTRY(__nv_bfloat16, bf16)
#endif
