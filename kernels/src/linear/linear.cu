// y = activation(x·Wᵀ + bias) where both sides are bytes, the sums exact in i32.
//
// With x = s·(q - z) per row and w = t·v per output: s·t·(Σ q·v - z·Σ v) + bias, as in int8.rs.
//
// Shapes:  x [rows, stride] i8 with scales and zeros [rows] (quantize.cu); weights [outputs, stride] i8, 0 beyond the
//          inputs, with weight_scales, weight_sums (Σ v) and bias [outputs]; y [rows, outputs] of the element type. stride
//          is a multiple of 64.
// Launch:  grid (ceil(outputs / 64), ceil(rows / 64)).
//          linear_int8_dp4a_*: 256 threads, each 4 x 4 outputs; every device.
//          linear_int8_mma_*:  128 threads, each warp 32 x 32 outputs by tensor cores, compute_80 and up:
//          mma.sync.m16n8k32.row.col.s32.s8.s8.s32; fragments are read from shared memory without ldmatrix.
// Formula: the reference is reference.rs.
// Last run: simulator, 2026-11-25; no real device yet.
#include "activation.cuh"
#include "element.cuh"

// The tile of y that a block computes, and the bytes of the inner dimension that it takes at once.
constexpr int TILE = 64, DEPTH = 64;

struct Product {
    const signed char* x;
    const float* scales;
    const int* zeros;
    const signed char* weights;
    const float* weight_scales;
    const int* weight_sums;
    const float* bias;
    int rows, outputs, stride, activation;
};

template <typename T> __device__ __forceinline__ void finish(const Product& p, T* y, int row, int output, int sum) {
    if (row >= p.rows || output >= p.outputs) return;
    const float exact = (float)(sum - p.zeros[row] * p.weight_sums[output]);
    const float value = fmaf(exact, p.scales[row] * p.weight_scales[output], p.bias[output]);
    y[(size_t)row * p.outputs + output] = narrow<T>(activate(value, p.activation));
}

// 16 bytes of a row; zeros beyond the last row.
__device__ __forceinline__ int4 sixteen(const signed char* rows, int row, int count, int stride, int byte) {
    if (row >= count) return make_int4(0, 0, 0, 0);
    return *reinterpret_cast<const int4*>(rows + (size_t)row * stride + byte);
}

template <typename T> __device__ void product_dp4a(const Product& p, T* y) {
    constexpr int WORDS = DEPTH / 4, SIDE = 16, EACH = TILE / SIDE;
    // One word more than a row needs: neighbouring rows begin in different banks.
    __shared__ int x[TILE][WORDS + 1], w[TILE][WORDS + 1];
    const int first_row = blockIdx.y * TILE, first_output = blockIdx.x * TILE;
    const int column = threadIdx.x % SIDE, line = threadIdx.x / SIDE;
    int sums[EACH][EACH] = {};
    for (int depth = 0; depth < p.stride; depth += DEPTH) {
        // 256 threads bring 64 rows of 4 times 16 bytes of each side.
        const int row = threadIdx.x / 4, word = threadIdx.x % 4 * 4;
        const int4 from_x = sixteen(p.x, first_row + row, p.rows, p.stride, depth + word * 4);
        const int4 from_w = sixteen(p.weights, first_output + row, p.outputs, p.stride, depth + word * 4);
        x[row][word] = from_x.x, x[row][word + 1] = from_x.y, x[row][word + 2] = from_x.z, x[row][word + 3] = from_x.w;
        w[row][word] = from_w.x, w[row][word + 1] = from_w.y, w[row][word + 2] = from_w.z, w[row][word + 3] = from_w.w;
        __syncthreads();
#pragma unroll
        for (int at = 0; at < WORDS; ++at) {
            int left[EACH], right[EACH];
#pragma unroll
            for (int each = 0; each < EACH; ++each) {
                left[each] = x[line + each * SIDE][at];
                right[each] = w[column + each * SIDE][at];
            }
#pragma unroll
            for (int i = 0; i < EACH; ++i) {
#pragma unroll
                for (int j = 0; j < EACH; ++j) sums[i][j] = __dp4a(left[i], right[j], sums[i][j]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < EACH; ++i) {
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            finish(p, y, first_row + line + i * SIDE, first_output + column + j * SIDE, sums[i][j]);
        }
    }
}

#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ void mma(int (&c)[4], const int (&a)[4], const int (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <typename T> __device__ void product_mma(const Product& p, T* y) {
    // Rows of 80 bytes: the 8 rows and 4 words that a warp reads at once lie in 32 different banks.
    constexpr int WORDS = (DEPTH + 16) / 4, STEP = 32 / 4;
    constexpr int DOWN = 2, ACROSS = 4; // products of 16 x 8 that make the 32 x 32 of a warp
    __shared__ __align__(16) int x[TILE][WORDS];
    __shared__ __align__(16) int w[TILE][WORDS];
    const int first_row = blockIdx.y * TILE, first_output = blockIdx.x * TILE;
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, group = lane / 4, quad = lane % 4;
    const int warp_row = warp / 2 * 32, warp_output = warp % 2 * 32;
    int sums[DOWN][ACROSS][4] = {};
    for (int depth = 0; depth < p.stride; depth += DEPTH) {
        // 128 threads bring 64 rows of 4 times 16 bytes of each side, in two rounds.
#pragma unroll
        for (int round = 0; round < 2; ++round) {
            const int row = threadIdx.x / 4 + round * 32, word = threadIdx.x % 4 * 4;
            *reinterpret_cast<int4*>(&x[row][word]) = sixteen(p.x, first_row + row, p.rows, p.stride, depth + word * 4);
            *reinterpret_cast<int4*>(&w[row][word]) =
                sixteen(p.weights, first_output + row, p.outputs, p.stride, depth + word * 4);
        }
        __syncthreads();
#pragma unroll
        for (int at = 0; at < DEPTH / 4; at += STEP) {
            int a[DOWN][4], b[ACROSS][2];
#pragma unroll
            for (int i = 0; i < DOWN; ++i) {
                const int row = warp_row + i * 16 + group;
                a[i][0] = x[row][at + quad];
                a[i][1] = x[row + 8][at + quad];
                a[i][2] = x[row][at + quad + 4];
                a[i][3] = x[row + 8][at + quad + 4];
            }
#pragma unroll
            for (int j = 0; j < ACROSS; ++j) {
                const int output = warp_output + j * 8 + group;
                b[j][0] = w[output][at + quad];
                b[j][1] = w[output][at + quad + 4];
            }
#pragma unroll
            for (int i = 0; i < DOWN; ++i) {
#pragma unroll
                for (int j = 0; j < ACROSS; ++j) mma(sums[i][j], a[i], b[j]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < DOWN; ++i) {
#pragma unroll
        for (int j = 0; j < ACROSS; ++j) {
            const int row = first_row + warp_row + i * 16 + group;
            const int output = first_output + warp_output + j * 8 + quad * 2;
            finish(p, y, row, output, sums[i][j][0]);
            finish(p, y, row, output + 1, sums[i][j][1]);
            finish(p, y, row + 8, output, sums[i][j][2]);
            finish(p, y, row + 8, output + 1, sums[i][j][3]);
        }
    }
}
#endif

#define PARAMETERS(T)                                                                                                  \
    const signed char *x, const float *scales, const int *zeros, const signed char *weights,                           \
        const float *weight_scales, const int *weight_sums, const float *bias, T *y, int rows, int outputs,            \
        int stride, int activation
#define ARGUMENTS {x, scales, zeros, weights, weight_scales, weight_sums, bias, rows, outputs, stride, activation}

#define ENTRY(T, NAME)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256) linear_int8_dp4a_##NAME(PARAMETERS(T)) {                         \
        product_dp4a<T>(ARGUMENTS, y);                                                                                 \
    }
FOR_EACH_ELEMENT(ENTRY)
#undef ENTRY

#if __CUDA_ARCH__ >= 800
#define ENTRY(T, NAME)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(128) linear_int8_mma_##NAME(PARAMETERS(T)) {                          \
        product_mma<T>(ARGUMENTS, y);                                                                                  \
    }
FOR_EACH_ELEMENT(ENTRY)
#endif
