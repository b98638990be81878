// Attention within each of the sequences that lie end to end: softmax(Q·Kᵀ + B)·V per head, without padding. The 1/√d is
// already in Q, or in the norm of Q. B depends on the distance of query and key, and is -∞ where a query does not see a key.
//
// Shapes:  query_key_value [tokens, queries + 2 * keys, size] of the element type, the heads of the query first, then those
//          of key and value, which `queries / keys` heads of the query share; bias [queries + 2 * keys, size] f32, added to
//          all, or null; tiles [number][3] i32: for each block the first token of its sequence, the length of that, and the
//          first query of the block in it (a length of 0: nothing to do); out [tokens, queries, size].
//          attention_*_by_distance_*: a query sees `before` keys before it and `after` behind it; distances [queries, row]
//          f32 or null: what scores get, for the distance 0 in the middle of a row, for keys behind the query after that.
//          attention_prepare_*: adds the bias to query, key and value, in place; then each head of query and key goes
//          through a norm of its elements, and is rotated: position_ids [tokens] i32, rotation [positions, size] f32, of each
//          row first the cosines of half the elements, then the sines. The norm's weights and biases are [size] f32.
// Launch:  grid (tiles, queries), 128 threads. A head has at most 32, 64 or 128 elements by the entry's name. An entry
//          without by_distance sees all keys and has no B.
//          attention_plain_*: 16 queries a block, 4 a warp; a lane per key, then a lane per column; every device.
//          attention_mma_*:   64 queries a block, 16 a warp, by tensor cores; f16 and bf16, compute_80 and up, an even
//          head size: mma.sync.m16n8k16.row.col.f32.{f16.f16,bf16.bf16}.f32; fragments are read from shared memory
//          without ldmatrix.
//          attention_prepare_*: grid (tokens, ceil(heads / 4)), 128 threads; a warp a head of at most 128 elements.
// Formula: keys come in blocks, with the running maximum and sum of the online softmax (Milakov and Gimelshein,
//          arXiv:1805.02867; Dao, FlashAttention-2, arXiv:2307.08691). The reference is reference.rs.
// Last run: simulator, 2026-11-28; without B, shared keys and preparation on an H200, 2026-11-27.
#include "row.cuh"

constexpr int WARPS = 4;
#define MINUS_INFINITY (-__int_as_float(0x7f800000)) // NVRTC has no INFINITY

struct Tile {
    int sequence, length, query;
};

// One head's columns of the packed matrix.
template <typename T> struct Packed {
    const T* rows;
    const float* bias;
    int stride;    // columns of a row
    int offset[3]; // the head's first columns of query, key and value
    int size;
    int to, out_stride; // the same of the output

    __device__ __forceinline__ Packed(const T* rows, const float* bias, int queries, int keys, int head, int size)
        : rows(rows), bias(bias), stride((queries + 2 * keys) * size), size(size), to(head * size),
          out_stride(queries * size) {
        const int shared = head / (queries / keys);
        offset[0] = head * size;
        offset[1] = (queries + shared) * size;
        offset[2] = (queries + keys + shared) * size;
    }

    // Query is part 0, key 1, value 2.
    __device__ __forceinline__ float at(int part, int row, int column) const {
        const int from = offset[part] + column;
        return widen(rows[(size_t)row * stride + from]) + (bias == nullptr ? 0.0f : bias[from]);
    }
};

// What scores depend on beside query and key.
struct Distances {
    int before, after;   // positions that a query sees
    const float* biases; // of this head, at the distance 0; null if there are none

    // The score, for a query and a key of the sequence.
    __device__ __forceinline__ float of(float score, int query, int key) const {
        const int distance = key - query;
        if (distance > after || -distance > before) return MINUS_INFINITY;
        return biases == nullptr ? score : score + biases[distance];
    }
};

// The keys that some query of a tile of `QUERIES` sees.
struct Range {
    int first, end;
};

template <bool BY_DISTANCE>
__device__ __forceinline__ Range keys_of(const Tile& tile, const Distances& distances, int queries) {
    if (!BY_DISTANCE) return {0, tile.length};
    const int last = min(tile.query + queries, tile.length) - 1;
    return {max(tile.query - distances.before, 0), min(last + distances.after + 1, tile.length)};
}

// What exponents are taken from: the largest score, or 0 where a query has not seen a key yet.
template <bool BY_DISTANCE> __device__ __forceinline__ float base_of(float largest) {
    return BY_DISTANCE && largest == MINUS_INFINITY ? 0.0f : largest;
}

__device__ __forceinline__ Tile tile_of(const int* tiles) {
    const int* tile = tiles + 3 * blockIdx.x;
    return {tile[0], tile[1], tile[2]};
}

template <typename T, int WIDTH, bool BY_DISTANCE>
__device__ void attend_plain(const Packed<T>& packed, const Distances& distances, Tile tile, T* out) {
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

    const Range seen = keys_of<BY_DISTANCE>(tile, distances, WARPS * QUERIES);
    for (int block = seen.first; block < seen.end; block += KEYS) {
        __syncthreads(); // the block before has been read
        for (int at = threadIdx.x; at < KEYS * WIDTH; at += blockDim.x) {
            const int key = at / WIDTH, column = at % WIDTH;
            const bool there = block + key < seen.end && column < size;
            keys[key][column] = there ? packed.at(1, tile.sequence + block + key, column) : 0.0f;
            values[key][column] = there ? packed.at(2, tile.sequence + block + key, column) : 0.0f;
        }
        __syncthreads();
        const int count = min(KEYS, seen.end - block);
#pragma unroll
        for (int query = 0; query < QUERIES; ++query) {
            float score = 0.0f;
            for (int column = 0; column < size; ++column) {
                score = fmaf(queries[first + query][column], keys[lane][column], score);
            }
            const int row = tile.query + first + query;
            if (lane >= count || (BY_DISTANCE && row >= tile.length)) {
                score = MINUS_INFINITY;
            } else if (BY_DISTANCE) {
                score = distances.of(score, row, block + lane);
            }
            const float largest = fmaxf(maxima[query], over_warp(score, Largest()));
            const float base = base_of<BY_DISTANCE>(largest);
            const float weight = expf(score - base), kept = expf(maxima[query] - base);
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
            const size_t to = (size_t)(tile.sequence + row) * packed.out_stride + packed.to + column;
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
template <typename T, int WIDTH, bool BY_DISTANCE>
__device__ void attend_mma(const Packed<T>& packed, const Distances& distances, Tile tile, T* out) {
    constexpr int KEYS = 64, QUERIES = WARPS * 16, STEPS = WIDTH / 16, COLUMNS = WIDTH / 8;
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

    const Range seen = keys_of<BY_DISTANCE>(tile, distances, QUERIES);
    for (int block = seen.first; block < seen.end; block += KEYS) {
        __syncthreads(); // the block before has been read
        for (int at = threadIdx.x; at < KEYS * WIDTH; at += blockDim.x) {
            const int key = at / WIDTH, column = at % WIDTH, from = tile.sequence + block + key;
            const bool there = block + key < seen.end && column < size;
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
                const int column = block + key * 8 + quad * 2 + at % 2, row = first + at / 2 * 8;
                if (column >= seen.end || (BY_DISTANCE && row >= tile.length)) {
                    scores[key][at] = MINUS_INFINITY;
                } else if (BY_DISTANCE) {
                    scores[key][at] = distances.of(scores[key][at], row, column);
                }
                largest[at / 2] = fmaxf(largest[at / 2], scores[key][at]);
            }
        }
        float kept[2], base[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            // Over the four lanes that share a row.
            largest[half] = fmaxf(largest[half], __shfl_xor_sync(ALL_LANES, largest[half], 1));
            largest[half] = fmaxf(largest[half], __shfl_xor_sync(ALL_LANES, largest[half], 2));
            base[half] = base_of<BY_DISTANCE>(largest[half]);
            kept[half] = expf(maxima[half] - base[half]);
            maxima[half] = largest[half];
            sums[half] *= kept[half];
        }
#pragma unroll
        for (int key = 0; key < KEYS / 8; ++key) {
#pragma unroll
            for (int at = 0; at < 4; ++at) {
                scores[key][at] = expf(scores[key][at] - base[at / 2]);
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
        T* to = out + (size_t)(tile.sequence + row) * packed.out_stride + packed.to;
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

// One head of one token, by a warp. A lane has the elements lane, lane + 32, ... of the first half, and those that lie half
// a head behind them.
template <typename T>
__device__ void prepare(T* x, const float* bias, const Norm& norm, const float* rotation, int size) {
    constexpr int EACH = 2; // 128 elements by 32 lanes in two halves
    const int lane = threadIdx.x % WARP, half = (size + 1) / 2;
    float low[EACH] = {}, high[EACH] = {};
    const auto at = [&](int each) { return lane + each * WARP; };
    const auto has_low = [&](int each) { return at(each) < half; };
    const auto has_high = [&](int each) { return at(each) < half && at(each) + half < size; };
#pragma unroll
    for (int each = 0; each < EACH; ++each) {
        const int column = at(each);
        if (has_low(each)) low[each] = widen(x[column]) + (bias == nullptr ? 0.0f : bias[column]);
        if (has_high(each)) high[each] = widen(x[column + half]) + (bias == nullptr ? 0.0f : bias[column + half]);
    }
    if (norm.kind != NO_NORM) {
        float mean = 0.0f, squares = 0.0f;
        if (norm.kind == LAYER_NORM) {
#pragma unroll
            for (int each = 0; each < EACH; ++each) mean += low[each] + high[each];
            mean = over_warp(mean, Sum()) / size;
        }
#pragma unroll
        for (int each = 0; each < EACH; ++each) {
            low[each] = has_low(each) ? low[each] - mean : 0.0f;
            high[each] = has_high(each) ? high[each] - mean : 0.0f;
            squares = fmaf(low[each], low[each], fmaf(high[each], high[each], squares));
        }
        const float deviation = sqrtf(over_warp(squares, Sum()) / size + norm.eps);
        const auto scaled = [&](float value, int column) {
            const float added = norm.bias == nullptr ? 0.0f : norm.bias[column];
            return fmaf(value / deviation, norm.weight[column], added);
        };
#pragma unroll
        for (int each = 0; each < EACH; ++each) {
            if (has_low(each)) low[each] = scaled(low[each], at(each));
            if (has_high(each)) high[each] = scaled(high[each], at(each) + half);
        }
    }
#pragma unroll
    for (int each = 0; each < EACH; ++each) {
        const int column = at(each);
        float a = low[each], b = high[each];
        if (rotation != nullptr && has_high(each)) {
            const float cosine = rotation[column], sine = rotation[half + column];
            a = fmaf(low[each], cosine, -high[each] * sine);
            b = fmaf(high[each], cosine, low[each] * sine);
        }
        if (has_low(each)) x[column] = narrow<T>(a);
        if (has_high(each)) x[column + half] = narrow<T>(b);
    }
}

#define ENTRY(T, NAME)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(128) attention_prepare_##NAME(                                        \
        T* query_key_value, const float* bias, const int* position_ids, const float* rotation, int norm,               \
        const float* query_weight, const float* query_bias, float query_eps, const float* key_weight,                  \
        const float* key_bias, float key_eps, int queries, int keys, int size) {                                       \
        const int head = blockIdx.y * WARPS + threadIdx.x / WARP, heads = queries + 2 * keys;                          \
        if (head >= heads) return;                                                                                     \
        const size_t first = (size_t)blockIdx.x * heads * size + head * size;                                          \
        const bool is_query = head < queries, is_value = head >= queries + keys;                                       \
        Norm of_head = {norm, query_weight, query_bias, query_eps};                                                    \
        if (!is_query) of_head = {norm, key_weight, key_bias, key_eps};                                                \
        if (is_value) of_head.kind = NO_NORM;                                                                          \
        const bool rotates = rotation != nullptr && !is_value;                                                         \
        const float* angles = rotates ? rotation + (size_t)position_ids[blockIdx.x] * size : nullptr;                  \
        prepare<T>(query_key_value + first, bias == nullptr ? nullptr : bias + head * size, of_head, angles, size);    \
    }
FOR_EACH_ELEMENT(ENTRY)
#undef ENTRY

#define ENTRY_OF(PATH, VARIANT, BY_DISTANCE, T, NAME, WIDTH)                                                           \
    extern "C" __global__ void __launch_bounds__(128) attention_##PATH##VARIANT##_##NAME##_##WIDTH(                    \
        const T* query_key_value, const float* bias, const int* tiles, T* out, int queries, int keys, int size,        \
        int before, int after, const float* distances, int row) {                                                      \
        const Tile tile = tile_of(tiles);                                                                              \
        if (tile.length == 0) return;                                                                                  \
        const int head = blockIdx.y;                                                                                   \
        const float* of_head = distances == nullptr ? nullptr : distances + (size_t)head * row + row / 2;              \
        attend_##PATH<T, WIDTH, BY_DISTANCE>({query_key_value, bias, queries, keys, head, size},                       \
                                             {before, after, of_head}, tile, out);                                     \
    }
#define VARIANTS(PATH, T, NAME, WIDTH)                                                                                 \
    ENTRY_OF(PATH, , false, T, NAME, WIDTH) ENTRY_OF(PATH, _by_distance, true, T, NAME, WIDTH)

#define ENTRY(T, NAME) VARIANTS(plain, T, NAME, 32) VARIANTS(plain, T, NAME, 64) VARIANTS(plain, T, NAME, 128)
FOR_EACH_ELEMENT(ENTRY)
#undef ENTRY

#if __CUDA_ARCH__ >= 800
#define ENTRY(T, NAME) VARIANTS(mma, T, NAME, 32) VARIANTS(mma, T, NAME, 64) VARIANTS(mma, T, NAME, 128)
ENTRY(__half, f16)
ENTRY(__nv_bfloat16, bf16)
#endif
