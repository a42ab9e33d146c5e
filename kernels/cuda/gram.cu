// The Gram matrix of a stream of rows: C += ZᵀZ, of which the lower triangle is computed.
//
//   C[i][j] += Σ_n Z[n][i]·Z[n][j],  i ≥ j
//
// Z (n, d) row-major in bf16, f16 or f32, C (d, d) row-major in f64. Entries above the diagonal are neither read nor written; gram_mirror
// copies the lower triangle there.
//
// gram_partial_*: a block multiplies one tile of C (TILE×128, TILE = 256 for 16-bit rows, 128 for f32) over one range of rows. Both
// operands are columns of Z: a stage in shared memory holds panels of 128 columns as they lie in memory (32 rows of 16 bits, 16 of f32),
// 16-byte chunks swizzled within 128 bytes, so that copies and fragment loads have no bank conflicts; ldmatrix transposes. Tiles on
// the diagonal find their right operand in the left one's panels and load nothing for it; warps wholly above the diagonal rest.
// 16-bit rows: mma m16n8k16, f32 sums over the range. f32 rows: x = hi + lo in tf32, hi·hi + hi·lo + lo·hi by mma m16n8k8; every 16 rows
// begin at zero and are added to an f32 sum that is rounded to nearest, since tensor cores truncate theirs.
// Grid: tiles · ranges, tiles fastest: blocks that run together read the same rows, which L2 holds. Block: 256 threads, 4×2 warps of
// TILE/4×64. Shared memory: 4 stages of (TILE/128 + 1) panels of 8 KB: 96 KB (16-bit), 64 KB (f32).
//
// gram_merge: adds the ranges' tiles to C in f64, in the order of the ranges. Grid: tiles · TILE/8. Block: 256, 4 entries a thread.
//
// All are deterministic; the ranges, and with them the rounding, depend on the plan's number of multiprocessors.
#include "common.cuh"

constexpr int PANEL = 128;
constexpr int STAGES = 4;
constexpr int THREADS = 256;
// Bytes of a panel in a stage: 16-byte chunks, two a thread.
constexpr int PANEL_BYTES = 2 * THREADS * 16;

// The tile of this number in the lower triangle: row I of tiles has `ratio`·(I + 1) of them.
__device__ __forceinline__ void locate(int tile, int ratio, int& row, int& column) {
    auto before = [=](int i) { return Offset(ratio) * i * (i + 1) / 2; };
    row = static_cast<int>((sqrtf(1.0f + 8.0f * static_cast<float>(tile) / static_cast<float>(ratio)) - 1.0f) * 0.5f);
    while (before(row) > tile) --row;
    while (before(row + 1) <= tile) ++row;
    column = tile - static_cast<int>(before(row));
}

__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], bf16) { mma_bf16(d, a, b); }
__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], f16) { mma_f16(d, a, b); }

// How a warp takes its operands from panels and multiplies them, for 16-bit rows: 64×64 of C.
template <class T>
struct Warp {
    using Element = T;
    static constexpr int TILE = 256, M = 4;  // fragments of 16 columns of the left operand; 8 of 8 columns of the right one
    static constexpr int DEPTH = 16;         // rows of a fragment

    float sum[M][8][4] = {};
    struct Fragments {
        unsigned left[M][4], right[8][2];
    };

    // The chunk of row k where chunk c lies is c ^ swizzle(k).
    static __device__ __forceinline__ int swizzle(int k) { return k % 8; }

    // `left` and `right` are this warp's columns in their panels, a multiple of 64, at row k.
    static __device__ __forceinline__ void load(Fragments& f, const T* left, const T* right) {
        int lane = threadIdx.x % 32, r = lane % 8, low = lane / 8 % 2, high = lane / 16;
#pragma unroll
        for (int i = 0; i < M; ++i) load_matrices_transposed(f.left[i], left + (r + 8 * high) * PANEL + ((2 * i + low) ^ r) * 8);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            unsigned four[4];
            load_matrices_transposed(four, right + (r + 8 * low) * PANEL + ((2 * j + high) ^ r) * 8);
            f.right[2 * j][0] = four[0];
            f.right[2 * j][1] = four[1];
            f.right[2 * j + 1][0] = four[2];
            f.right[2 * j + 1][1] = four[3];
        }
    }
    __device__ __forceinline__ void add(const Fragments& f) {
#pragma unroll
        for (int i = 0; i < M; ++i) {
#pragma unroll
            for (int j = 0; j < 8; ++j) multiply(sum[i][j], f.left[i], f.right[j], T{});
        }
    }
    __device__ __forceinline__ void end_stage() {}

    // To this warp's place in a tile.
    __device__ __forceinline__ void store(float* out) const {
        int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int i = 0; i < M; ++i) {
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                float* at = out + (16 * i + g) * PANEL + 8 * j + 2 * t;
                *reinterpret_cast<float2*>(at) = float2{sum[i][j][0], sum[i][j][1]};
                *reinterpret_cast<float2*>(at + 8 * PANEL) = float2{sum[i][j][2], sum[i][j][3]};
            }
        }
    }
};

// The same for f32 rows: 32×64 of C. The order of columns within a fragment is free, so lane (g, t) takes neighbouring ones, 16
// bytes at once: row 2i + h of its four on the left (fragment i, half h), column j of its eight on the right (fragment j).
template <>
struct Warp<float> {
    using Element = float;
    static constexpr int TILE = 128, M = 2;
    static constexpr int DEPTH = 8;

    float total[M][8][4] = {}, sum[M][8][4] = {};
    struct Fragments {
        Pack<float> left[2], right[2][2];  // [k = t or t + 4]
    };

    // Conflict-free for lanes (g, t) that read chunk g (left) and chunks 2g, 2g + 1 (right) of row t.
    static __device__ __forceinline__ int swizzle(int k) { return (k & 1) * 4 ^ (k >> 1 & 1) * 3; }

    static __device__ __forceinline__ void load(Fragments& f, const float* left, const float* right) {
        int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, s = swizzle(t);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            f.left[h] = load_pack(left + (t + 4 * h) * PANEL + (g ^ s) * 4);
#pragma unroll
            for (int c = 0; c < 2; ++c) f.right[h][c] = load_pack(right + (t + 4 * h) * PANEL + ((2 * g + c) ^ s) * 4);
        }
    }
    static __device__ __forceinline__ void split(float x, unsigned& high, unsigned& low) {
        high = to_tf32(x);
        low = to_tf32(x - __uint_as_float(high));
    }
    __device__ __forceinline__ void add(const Fragments& f) {
        unsigned high[M][4], low[M][4];
#pragma unroll
        for (int i = 0; i < M; ++i) {
#pragma unroll
            for (int e = 0; e < 4; ++e) split(f.left[e / 2].at[2 * i + e % 2], high[i][e], low[i][e]);
        }
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            unsigned right[2], rest[2];
#pragma unroll
            for (int h = 0; h < 2; ++h) split(f.right[h][j / 4].at[j % 4], right[h], rest[h]);
#pragma unroll
            for (int i = 0; i < M; ++i) {
                mma_tf32(sum[i][j], low[i], right);
                mma_tf32(sum[i][j], high[i], rest);
                mma_tf32(sum[i][j], high[i], right);
            }
        }
    }
    __device__ __forceinline__ void end_stage() {
#pragma unroll
        for (int i = 0; i < M; ++i) {
#pragma unroll
            for (int j = 0; j < 8; ++j) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    total[i][j][e] += sum[i][j][e];
                    sum[i][j][e] = 0.0f;
                }
            }
        }
    }
    __device__ __forceinline__ void store(float* out) const {
        int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int i = 0; i < M; ++i) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                float* at = out + (4 * g + 2 * i + e / 2) * PANEL + 8 * (2 * t + e % 2);
#pragma unroll
                for (int j = 0; j < 8; j += 4) {
                    store_pack(at + j, Pack<float>{total[i][j][e], total[i][j + 1][e], total[i][j + 2][e], total[i][j + 3][e]});
                }
            }
        }
    }
};

// Brings rows from `row` on (those before `end`, else zeros) of the panels that begin at `columns` into a stage. WHOLE: rows are
// whole 16-byte chunks.
template <class W, bool WHOLE, int PANELS, class T>
__device__ __forceinline__ void fetch(T* stage, const T* z, int d, int row, int end, const int (&columns)[PANELS], int n_panels) {
    constexpr int N = Pack<T>::N, CHUNKS = PANEL / N;
    int chunk = threadIdx.x % CHUNKS;
#pragma unroll
    for (int p = 0; p < PANELS; ++p) {
        if (p >= n_panels) break;
        int column = columns[p] + chunk * N;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            int k = threadIdx.x / CHUNKS + half * (THREADS / CHUNKS);
            T* to = stage + p * (PANEL_BYTES / int(sizeof(T))) + k * PANEL + (chunk ^ W::swizzle(k)) * N;
            bool inside = k < end - row;
            const T* from = z + Offset(row + (inside ? k : 0)) * d + column;
            if constexpr (WHOLE) {
                bool valid = inside && column < d;
                copy_async(to, valid ? from : z, valid);
            } else {
                Pack<T> pack;
                for (int i = 0; i < N; ++i) pack.at[i] = inside && column + i < d ? from[i] : T{};
                store_pack(to, pack);
            }
        }
    }
}

// The tile of this block over its range of rows.
template <class W, bool WHOLE>
__device__ __forceinline__ void partial(const typename W::Element* z, float* tiles, int n, int d, int range, int n_tiles) {
    using T = typename W::Element;
    constexpr int RATIO = W::TILE / PANEL, PANELS = RATIO + 1, PANEL_SIZE = PANEL_BYTES / int(sizeof(T)), STAGE = PANELS * PANEL_SIZE;
    constexpr int ROWS = PANEL_SIZE / PANEL, STEPS = ROWS / W::DEPTH, WIDTH = 16 * W::M;
    static_assert(STEPS == 2, "the fragments of one step are loaded while the other's are multiplied");
    T* shared = shared_memory<T>();
    int tile_row, tile_column;
    locate(blockIdx.x % n_tiles, RATIO, tile_row, tile_column);
    int begin = static_cast<int>(blockIdx.x / n_tiles) * range, end = begin + min(range, n - begin);

    int columns[PANELS];
    for (int p = 0; p < RATIO; ++p) columns[p] = tile_row * W::TILE + p * PANEL;
    columns[RATIO] = tile_column * PANEL;
    bool diagonal = tile_column / RATIO == tile_row;
    int n_panels = diagonal ? RATIO : PANELS;

    int warp = threadIdx.x / 32, left = warp / 2 * WIDTH, right = warp % 2 * 64;
    bool active = tile_row * W::TILE + left + WIDTH > tile_column * PANEL + right && tile_row * W::TILE + left < d;
    const T* left_panel = shared + left / PANEL * PANEL_SIZE + left % PANEL;
    const T* right_panel = shared + (diagonal ? tile_column % RATIO : RATIO) * PANEL_SIZE + right;

    int n_stages = (end - begin + ROWS - 1) / ROWS;
    for (int s = 0; s < STAGES - 1; ++s) {
        if (s < n_stages) fetch<W, WHOLE>(shared + s * STAGE, z, d, begin + s * ROWS, end, columns, n_panels);
        copy_commit();
    }
    copy_wait<STAGES - 2>();
    __syncthreads();
    W sums;
    typename W::Fragments first, second;
    if (active) W::load(first, left_panel, right_panel);
    for (int s = 0; s < n_stages; ++s) {
        const T* stage = shared + s % STAGES * STAGE;
        if (active) W::load(second, left_panel + (stage - shared) + W::DEPTH * PANEL, right_panel + (stage - shared) + W::DEPTH * PANEL);
        // Into the stage before this one: the barrier below was passed by all once they had read it.
        int next = s + STAGES - 1;
        if (next < n_stages) fetch<W, WHOLE>(shared + next % STAGES * STAGE, z, d, begin + next * ROWS, end, columns, n_panels);
        copy_commit();
        if (active) sums.add(first);
        copy_wait<STAGES - 2>();
        __syncthreads();
        int following = (s + 1) % STAGES * STAGE;
        if (active && s + 1 < n_stages) W::load(first, left_panel + following, right_panel + following);
        if (active) {
            sums.add(second);
            sums.end_stage();
        }
    }
    if (active) sums.store(tiles + Offset(blockIdx.x) * (W::TILE * PANEL) + left * PANEL + right);
}

#define GRAM(name, T, WHOLE)                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS, 1)                                        \
        gram_partial_##name(const T* z, float* tiles, int n, int d, int range, int n_tiles) {       \
        partial<Warp<T>, WHOLE>(z, tiles, n, d, range, n_tiles);                                    \
    }                                                                                               \
    EMULATED(gram_partial_##name)

GRAM(bf16, bf16, true)
GRAM(f16, f16, true)
GRAM(f32, float, true)
GRAM(single_bf16, bf16, false)
GRAM(single_f16, f16, false)
GRAM(single_f32, float, false)

// C += the sum of the ranges' tiles. `ratio` is TILE/128.
extern "C" __global__ void __launch_bounds__(THREADS)
    gram_merge(const float* tiles, double* c, int d, int n_tiles, int n_ranges, int ratio) {
    int blocks = 16 * ratio, tile = blockIdx.x / blocks;  // 8 rows of a tile each
    int row, column;
    locate(tile, ratio, row, column);
    int at = (blockIdx.x % blocks * THREADS + threadIdx.x) * 4;
    Offset i = Offset(row) * ratio * PANEL + at / PANEL, j = Offset(column) * PANEL + at % PANEL;
    if (i < d && j <= i) {
        double sum[4] = {};
        Offset size = Offset(ratio) * PANEL * PANEL;
        const float* from = tiles + tile * size + at;
#pragma unroll 4
        for (int r = 0; r < n_ranges; ++r) {
            Pack<float> pack = load_pack(from + r * size * n_tiles);
            for (int e = 0; e < 4; ++e) sum[e] += pack.at[e];
        }
        for (int e = 0; e < 4; ++e) {
            if (j + e <= i) c[i * d + j + e] += sum[e];
        }
    }
}
EMULATED(gram_merge)

// C[j][i] = C[i][j] for j < i. Grid: tiles of 32×32 in the lower triangle. Block: 256. Shared memory: 32×33 doubles.
extern "C" __global__ void __launch_bounds__(THREADS) gram_mirror(double* c, int d) {
    constexpr int SIDE = 32;
    double* shared = shared_memory<double>();
    int row, column, x = threadIdx.x % SIDE;
    locate(blockIdx.x, 1, row, column);
    for (int y = threadIdx.x / SIDE; y < SIDE; y += THREADS / SIDE) {
        int i = row * SIDE + y, j = column * SIDE + x;
        if (i < d && j < i) shared[y * (SIDE + 1) + x] = c[Offset(i) * d + j];
    }
    __syncthreads();
    for (int y = threadIdx.x / SIDE; y < SIDE; y += THREADS / SIDE) {
        int i = row * SIDE + x, j = column * SIDE + y;
        if (i < d && j < i) c[Offset(j) * d + i] = shared[x * (SIDE + 1) + y];
    }
}
EMULATED(gram_mirror)
