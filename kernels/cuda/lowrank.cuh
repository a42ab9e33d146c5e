// The products of the signed low-rank update, shared by projection.cu and adamw.cu:
//
//   A = (X Vᵀ) ⊙ c        X (n, d), V (r, d) with orthonormal rows, c (r): "coefficients"
//   Y = δ·X + A V         "expansion"
//
// A warp multiplies a 32×32 tile (2×4 fragments of 16×8) on tensor cores. 16-bit elements are multiplied as they are (A is rounded to
// their type), with sums in f32. f32 elements are split into two tf32 numbers, x = high + low, and multiplied three times, low·high +
// high·low + high·high (tf32x3): an error of 2⁻¹⁹ |x·y| at most for each product, of 2⁻²² typically. Tensor cores truncate when they add, which
// over thousands of terms is a bias; so they sum over 16 or 32 elements, and those sums are added up with rounding, outside of them.
//
// Two layouts in shared memory, both without bank conflicts and with accesses of 16 bytes:
//  - along a row of X and V ("slabs", for the coefficients): [64 bytes of a row][row]. Lane t of four takes bytes 16t to 16t + 15 of
//    the slab, for both factors: the order of the terms of a sum is free.
//  - across the rows of V (for the expansion): rows of columns, padded by 8 elements; lane group g takes columns 4g to 4g + 3 of f32.
#pragma once

constexpr int WARPS = 8, THREADS = 32 * WARPS;
constexpr int SLAB_BYTES = 64;
// Elements of a slab.
template <class T>
constexpr int SLAB = SLAB_BYTES / sizeof(T);

// Elements that a thread reads or writes at once.
template <class T, int W>
struct alignas(W * sizeof(T)) Group {
    T at[W];
};
template <class T>
constexpr int WIDTH = sizeof(T) == 4 ? 4 : 2;

template <class T, int W>
__device__ __forceinline__ void read(float (&out)[W], const T* row, int column, int d, int packed) {
    if (packed) {
        Group<T, W> group = *reinterpret_cast<const Group<T, W>*>(row + column);
        for (int i = 0; i < W; ++i) out[i] = to_float(group.at[i]);
    } else {
        for (int i = 0; i < W; ++i) out[i] = column + i < d ? to_float(row[column + i]) : 0.0f;
    }
}
template <class T, int W>
__device__ __forceinline__ void write(T* row, int column, int d, int packed, const float (&values)[W]) {
    if (packed) {
        Group<T, W> group;
        for (int i = 0; i < W; ++i) group.at[i] = from_float<T>(values[i]);
        *reinterpret_cast<Group<T, W>*>(row + column) = group;
    } else {
        for (int i = 0; i < W; ++i) {
            if (column + i < d) row[column + i] = from_float<T>(values[i]);
        }
    }
}

// Brings 16 bytes of a row into shared memory, with zeros from column `end` on. `packed` says that rows and `end` are whole packs; then
// the copy is asynchronous. `row` must be the start of a row even if `end` is 0.
template <class T>
__device__ __forceinline__ void fetch(void* shared, const T* row, int column, int end, int packed) {
    if (packed) {
        bool valid = column < end;
        copy_async(shared, valid ? row + column : row, valid);
    } else {
        Pack<T> pack = {};
        for (int i = 0; i < Pack<T>::N; ++i) {
            if (column + i < end) pack.at[i] = row[column + i];
        }
        store_pack(static_cast<T*>(shared), pack);
    }
}

// high + low = x to 2⁻²¹. Tensor cores ignore the 13 low bits. Truncation, for `high`, keeps NaN and infinity what they are.
__device__ __forceinline__ void split(unsigned x, unsigned& high, unsigned& low) {
    high = x & 0xffffe000u;
    low = __float_as_uint(__uint_as_float(x) - __uint_as_float(high)) + 0x1000u;
}

__device__ __forceinline__ void mma(bf16, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_bf16(d, a, b); }
__device__ __forceinline__ void mma(f16, float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { mma_f16(d, a, b); }

// sums += a·b for the first `n_m` fragments of rows: 16 terms of 16-bit elements, 8 of f32.
template <class T>
__device__ __forceinline__ void multiply(float (&sums)[2][4][4], const unsigned (&a)[2][4], const unsigned (&b)[4][2], int n_m) {
    if constexpr (sizeof(T) == 2) {
#pragma unroll
        for (int m = 0; m < 2; ++m) {
            if (m < n_m) {
#pragma unroll
                for (int n = 0; n < 4; ++n) mma(T{}, sums[m][n], a[m], b[n]);
            }
        }
    } else {
        unsigned high[4][2], low[4][2];
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            for (int i = 0; i < 2; ++i) split(b[n][i], high[n][i], low[n][i]);
        }
#pragma unroll
        for (int m = 0; m < 2; ++m) {
            if (m < n_m) {
                unsigned a_high[4], a_low[4];
                for (int i = 0; i < 4; ++i) split(a[m][i], a_high[i], a_low[i]);
#pragma unroll
                for (int n = 0; n < 4; ++n) mma_tf32(sums[m][n], a_low, high[n]);
#pragma unroll
                for (int n = 0; n < 4; ++n) mma_tf32(sums[m][n], a_high, low[n]);
#pragma unroll
                for (int n = 0; n < 4; ++n) mma_tf32(sums[m][n], a_high, high[n]);
            }
        }
    }
}

__device__ __forceinline__ void add(float (&sums)[2][4][4], const float (&more)[2][4][4]) {
#pragma unroll
    for (int i = 0; i < 32; ++i) sums[i / 16][i / 4 % 4][i % 4] += more[i / 16][i / 4 % 4][i % 4];
}

// sums[i][j] += Σ_k x[i][k]·v[j][k] over a slab: 32 rows of V, 16·n_m rows of X, 64 bytes each.
template <class T>
__device__ __forceinline__ void multiply_rows(float (&sums)[2][4][4], const unsigned char* x, const unsigned char* v, int n_m) {
    int lane = threadIdx.x % 32, place = lane / 4 * SLAB_BYTES + lane % 4 * 16;
    Group<unsigned, 4> right[4], left[2][2] = {};
#pragma unroll
    for (int n = 0; n < 4; ++n) right[n] = *reinterpret_cast<const Group<unsigned, 4>*>(v + 8 * n * SLAB_BYTES + place);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
        if (m < n_m) {
            left[m][0] = *reinterpret_cast<const Group<unsigned, 4>*>(x + 16 * m * SLAB_BYTES + place);
            left[m][1] = *reinterpret_cast<const Group<unsigned, 4>*>(x + (16 * m + 8) * SLAB_BYTES + place);
        }
    }
    float short_sums[2][4][4] = {};
#pragma unroll
    for (int k = 0; k < 4; k += 2) {
        unsigned a[2][4], b[4][2];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
            for (int i = 0; i < 4; ++i) a[m][i] = left[m][i % 2].at[k + i / 2];
        }
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            for (int i = 0; i < 2; ++i) b[n][i] = right[n].at[k + i];
        }
        if constexpr (sizeof(T) == 2) {
            multiply<T>(sums, a, b, n_m);
        } else {
            multiply<T>(short_sums, a, b, n_m);
        }
    }
    if constexpr (sizeof(T) == 4) add(sums, short_sums);
}

// sums[i][j] += Σ_k a[i][k]·v[k][j] over K rows of V and 32 columns; a in f32. The columns of f32 come in the order of `each`.
template <class T, int K>
__device__ __forceinline__ void multiply_columns(float (&sums)[2][4][4], const float* a, int a_stride, const T* v, int v_stride, int n_m) {
    int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    if constexpr (sizeof(T) == 2) {
#pragma unroll
        for (int k = 0; k < K; k += 16) {
            unsigned left[2][4] = {}, right[4][2];
#pragma unroll
            for (int n = 0; n < 4; n += 2) {
                unsigned both[4];
                load_matrices_transposed(both, v + (k + lane % 16) * v_stride + 8 * n + lane / 16 * 8);
                for (int i = 0; i < 4; ++i) right[n + i / 2][i % 2] = both[i];
            }
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                if (m < n_m) {
                    for (int i = 0; i < 4; ++i) {
                        const float* at = a + (16 * m + g + i % 2 * 8) * a_stride + k + i / 2 * 8 + 2 * t;
                        Group<float, 2> two = *reinterpret_cast<const Group<float, 2>*>(at);
                        left[m][i] = pair(from_float<T>(two.at[0]), from_float<T>(two.at[1]));
                    }
                }
            }
            multiply<T>(sums, left, right, n_m);
        }
    } else {
        float short_sums[2][4][4] = {};
#pragma unroll
        for (int k = 0; k < K; k += 8) {
            unsigned left[2][4] = {}, right[4][2];
            Group<unsigned, 4> first = *reinterpret_cast<const Group<unsigned, 4>*>(v + (k + t) * v_stride + 4 * g);
            Group<unsigned, 4> second = *reinterpret_cast<const Group<unsigned, 4>*>(v + (k + 4 + t) * v_stride + 4 * g);
#pragma unroll
            for (int n = 0; n < 4; ++n) {
                right[n][0] = first.at[n];
                right[n][1] = second.at[n];
            }
#pragma unroll
            for (int m = 0; m < 2; ++m) {
                // A 4-byte element is two of the 16-bit elements of `ldmatrix`.
                if (m < n_m) load_matrices(left[m], a + (16 * m + lane % 16) * a_stride + k + lane / 16 * 4);
            }
            multiply<T>(short_sums, left, right, n_m);
        }
        add(sums, short_sums);
    }
}

// Calls `f(row, column, two values)` for this lane's sums of `multiply_rows`.
template <class F>
__device__ __forceinline__ void each_coefficient(const float (&sums)[2][4][4], int n_m, F f) {
    int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < 2; ++m) {
        if (m < n_m) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                float values[2] = {sums[m][i / 2][i % 2 * 2], sums[m][i / 2][i % 2 * 2 + 1]};
                f(16 * m + i % 2 * 8 + g, i / 2 * 8 + 2 * t, values);
            }
        }
    }
}

// Calls `f(row, column, values of WIDTH columns)` for this lane's sums of `multiply_columns`.
template <class T, class F>
__device__ __forceinline__ void each(const float (&sums)[2][4][4], int n_m, F f) {
    if constexpr (sizeof(T) == 2) {
        each_coefficient(sums, n_m, f);
    } else {
        int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
        for (int m = 0; m < 2; ++m) {
            if (m < n_m) {
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    float values[4];
                    for (int n = 0; n < 4; ++n) values[n] = sums[m][n][i];
                    f(16 * m + i / 2 * 8 + g, 8 * t + i % 2 * 4, values);
                }
            }
        }
    }
}

// ---- Tiled products, for many rows --------------------------------------------------------------------------------------------

constexpr int TILE_ROWS = 64, TILE_COLUMNS = 128, TILE_STAGES = 3;

// The expansion for a block's tile of 64 rows and 128 columns: calls `f(row, column, values of A V)` for the elements of Y.
//
// `a` are `splits` partial sums of A, (splits, n, r_padded), r_padded a multiple of 32 with zeros from r on; they are added in order.
// Grid: (ceil(n/64), ceil(d/128)). Shared memory: 3 stages of 64 rows of A and 32 rows of V, padded.
template <class T, class F>
__device__ __forceinline__ void expand_tile(const float* a, const T* v, int n, int d, int r, int splits, int packed, F f) {
    constexpr int K = 32, A_STRIDE = K + (sizeof(T) == 4 ? 4 : 8), V_STRIDE = TILE_COLUMNS + 8;
    constexpr int A_BYTES = TILE_ROWS * A_STRIDE * 4, STAGE_BYTES = A_BYTES + K * V_STRIDE * int(sizeof(T));
    constexpr int PACKS = TILE_COLUMNS / Pack<T>::N;
    unsigned char* shared = shared_memory<unsigned char>();
    int warp = threadIdx.x / 32, first_row = blockIdx.x * TILE_ROWS, first_column = blockIdx.y * TILE_COLUMNS;
    int n_steps = (r + K - 1) / K, r_padded = n_steps * K;

    auto issue = [&](int step) {
        if (step < n_steps) {
            unsigned char* stage = shared + step % TILE_STAGES * STAGE_BYTES;
            for (int i = threadIdx.x; i < TILE_ROWS * K / 4; i += THREADS) {
                int row = i / (K / 4), k = i % (K / 4) * 4;
                bool valid = first_row + row < n;
                const float* from = a + (valid ? Offset(first_row + row) * r_padded + step * K + k : 0);
                float* to = reinterpret_cast<float*>(stage) + row * A_STRIDE + k;
                if (splits == 1) {
                    copy_async(to, from, valid);
                } else {
                    Pack<float> sum = {};
                    for (int s = 0; valid && s < splits; ++s) {
                        Pack<float> more = load_pack(from + Offset(s) * n * r_padded);
                        for (int j = 0; j < 4; ++j) sum.at[j] += more.at[j];
                    }
                    store_pack(to, sum);
                }
            }
            for (int i = threadIdx.x; i < K * PACKS; i += THREADS) {
                int k = i / PACKS, column = i % PACKS * Pack<T>::N, vector = step * K + k;
                bool valid = vector < r;
                T* to = reinterpret_cast<T*>(stage + A_BYTES) + k * V_STRIDE + column;
                fetch(to, v + (valid ? Offset(vector) * d : 0), first_column + column, valid ? d : 0, packed);
            }
        }
        copy_commit();
    };

    int row = warp / 4 * 32, column = warp % 4 * 32;
    int n_m = first_column + column < d ? max(0, min(2, (n - first_row - row + 15) / 16)) : 0;
    float sums[2][4][4] = {};
    for (int s = 0; s < TILE_STAGES - 1; ++s) issue(s);
    for (int step = 0; step < n_steps; ++step) {
        copy_wait<TILE_STAGES - 2>();
        __syncthreads();
        issue(step + TILE_STAGES - 1);
        const unsigned char* stage = shared + step % TILE_STAGES * STAGE_BYTES;
        if (n_m > 0) {
            multiply_columns<T, K>(sums, reinterpret_cast<const float*>(stage) + row * A_STRIDE, A_STRIDE,
                                   reinterpret_cast<const T*>(stage + A_BYTES) + column, V_STRIDE, n_m);
        }
    }
    copy_wait<0>();
    each<T>(sums, n_m, [&](int i, int j, float (&values)[WIDTH<T>]) {
        i += first_row + row;
        j += first_column + column;
        if (i < n && j < d) f(i, j, values);
    });
}

// ---- A cluster of blocks for a few rows ---------------------------------------------------------------------------------------
//
// Each block of the cluster owns a slice of the columns of the same 16 or 32 rows, and keeps it in shared memory. It multiplies its slice
// of X with that of V, which gives partial sums of all coefficients; these are added over the cluster through distributed shared memory; then
// it expands its slice. V streams through rings of 4 stages, one for each warp, so that no warp waits for another.

#if CLUSTERS
constexpr int RING_STAGES = 4, RING_STAGE_BYTES = 2560;

template <class T>
struct Slice {
    const T* v;
    int d, r, packed;
    int rows, n_m;        // rows of the tile, and fragments of 16 of them
    int first, end;       // columns
    int width;            // columns there is room for, a multiple of 32
    int k_parts, r_parts; // among how many warps the sums over the slice, and over r, are divided: 1, 2, 4 or 8
    int stride;           // of a row of coefficients
    unsigned char* tile;  // slabs of X, each followed by 64 bytes so that two neighbours lie in different banks
    float* coefficients;  // (k_parts, rows, stride)
    unsigned char* ring;  // of this warp

    // The block's part of the tile, with `rows` rows, in shared memory of `rows`·width + 64·slabs, coefficients and 8 rings.
    __device__ __forceinline__ Slice(const T* v, int d, int r, int packed, int rows, int width, int k_parts, int r_parts)
        : v(v), d(d), r(r), packed(packed), rows(rows), n_m(rows / 16), width(width), k_parts(k_parts), r_parts(r_parts) {
        first = cluster_rank() * width;
        end = min(d, first + width);
        stride = (r + 31) / 32 * 32 + (sizeof(T) == 4 ? 4 : 8);
        tile = shared_memory<unsigned char>();
        coefficients = reinterpret_cast<float*>(tile + width / SLAB<T> * slab_stride());
        ring = reinterpret_cast<unsigned char*>(coefficients + k_parts * rows * stride) + threadIdx.x / 32 * RING_STAGES * RING_STAGE_BYTES;
    }
    __device__ __forceinline__ int slab_stride() const { return (rows + 1) * SLAB_BYTES; }
    // Element (row, column) of the tile; columns count from `first`.
    __device__ __forceinline__ T* at(int row, int column) const {
        return reinterpret_cast<T*>(tile + column / SLAB<T> * slab_stride() + row * SLAB_BYTES) + column % SLAB<T>;
    }
    // Calls `f(row of the tile, column of X, address in the tile)` for each pack of 16 bytes of the slice, neighbours by neighbouring threads.
    template <class F>
    __device__ __forceinline__ void each_pack(F f) const {
        int packs = width / Pack<T>::N;
        for (int i = threadIdx.x; i < rows * packs; i += THREADS) {
            int row = i / packs, column = i % packs * Pack<T>::N;
            if (first + column < end) f(row, first + column, at(row, column));
        }
    }
    // Brings rows `first_row` … of x (n, d) into the tile.
    __device__ __forceinline__ void load(const T* x, int first_row, int n) const {
        int packs = width / Pack<T>::N;
        for (int i = threadIdx.x; i < rows * packs; i += THREADS) {
            int row = i / packs, column = i % packs * Pack<T>::N;
            bool valid = first_row + row < n;
            fetch(at(row, column), x + (valid ? Offset(first_row + row) * d : 0), first + column, valid ? end : 0, packed);
        }
        copy_commit();
        copy_wait<0>();
        __syncthreads();
    }
};

// Partial sums of the coefficients over the slice.
template <class T>
__device__ __forceinline__ void slice_coefficients(const Slice<T>& s) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int groups = WARPS / s.k_parts, group = warp % groups, part = warp / groups;
    int n_slabs = (max(s.end - s.first, 0) + SLAB<T> - 1) / SLAB<T>, per_part = (n_slabs + s.k_parts - 1) / s.k_parts;
    int first_slab = min(n_slabs, part * per_part), mine = min(n_slabs, first_slab + per_part) - first_slab;
    int n_tiles = (s.r + 31) / 32, total = n_tiles > group ? (n_tiles - group + groups - 1) / groups * mine : 0;
    auto issue = [&](int item) {
        if (item < total) {
            int vector = (group + item / mine * groups) * 32 + lane / 4, column = s.first + (first_slab + item % mine) * SLAB<T>;
            unsigned char* to = s.ring + item % RING_STAGES * RING_STAGE_BYTES + lane * 16;
#pragma unroll
            for (int i = 0; i < 4; ++i, vector += 8, to += 8 * SLAB_BYTES) {
                bool valid = vector < s.r;
                fetch(to, s.v + (valid ? Offset(vector) * s.d : 0), column + lane % 4 * Pack<T>::N, valid ? s.end : 0, s.packed);
            }
        }
        copy_commit();
    };
    for (int i = 0; i < RING_STAGES - 1; ++i) issue(i);
    int item = 0;
    for (int tile = group; tile < n_tiles; tile += groups) {
        float sums[2][4][4] = {};
        for (int slab = first_slab; slab < first_slab + mine; ++slab, ++item) {
            copy_wait<RING_STAGES - 2>();
            __syncwarp();
            issue(item + RING_STAGES - 1);
            multiply_rows<T>(sums, s.tile + slab * s.slab_stride(), s.ring + item % RING_STAGES * RING_STAGE_BYTES, s.n_m);
        }
        each_coefficient(sums, s.n_m, [&](int row, int column, float (&values)[2]) {
            float* to = s.coefficients + (part * s.rows + row) * s.stride + tile * 32 + column;
            *reinterpret_cast<Group<float, 2>*>(to) = {values[0], values[1]};
        });
    }
    copy_wait<0>();
    __syncwarp();
}

// The sum of the coefficients over the cluster's C blocks and the parts, in order, times c; the same for each block. A block adds up its
// share of them, and fetches the others'.
template <int C, class T>
__device__ __forceinline__ void sum_over_cluster(const Slice<T>& s, const float* c) {
    int rank = cluster_rank(), packs = s.stride / 4, total = s.rows * packs, share = (total + C - 1) / C;
    cluster_barrier();
    for (int i = rank * share + threadIdx.x; i < min(total, (rank + 1) * share); i += THREADS) {
        float* place = s.coefficients + 4 * i;
        float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
        for (int part = 0; part < s.k_parts; ++part) {
#pragma unroll
            for (int other = 0; other < C; ++other) {
                float4 more = cluster_load4(place + 4 * part * total, other);
                sum.x += more.x;
                sum.y += more.y;
                sum.z += more.z;
                sum.w += more.w;
            }
        }
        int k = i % packs * 4;
        sum.x = k < s.r ? sum.x * c[k] : 0.0f;
        sum.y = k + 1 < s.r ? sum.y * c[k + 1] : 0.0f;
        sum.z = k + 2 < s.r ? sum.z * c[k + 2] : 0.0f;
        sum.w = k + 3 < s.r ? sum.w * c[k + 3] : 0.0f;
        *reinterpret_cast<float4*>(place) = sum;
    }
    cluster_barrier();
    // Each block starts with its neighbour's share, so that not all ask the same one.
    for (int j = threadIdx.x; j < total; j += THREADS) {
        int i = (j + (rank + 1) * share) % total, owner = i / share;
        float* place = s.coefficients + 4 * i;
        if (owner != rank) *reinterpret_cast<float4*>(place) = cluster_load4(place, owner);
    }
    cluster_barrier();
}

// X ← δ·X + ((X Vᵀ) ⊙ c) V for the cluster's tile. All threads of the cluster call it; the tile must be complete, and is complete after it.
template <int C, class T>
__device__ __forceinline__ void project_tile(const Slice<T>& s, const float* c, float delta) {
    constexpr int K = SLAB<T>, V_STRIDE = 32 + 8, PACKS = 32 / Pack<T>::N;  // K·PACKS = 128 packs a stage
    static_assert(K * V_STRIDE * int(sizeof(T)) <= RING_STAGE_BYTES && 32 * SLAB_BYTES <= RING_STAGE_BYTES);
    static_assert(RING_STAGES * RING_STAGE_BYTES >= 32 * 32 * 4);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int groups = WARPS / s.r_parts, group = warp % groups, part = warp / groups;
    int n_steps = (s.r + K - 1) / K, per_part = (n_steps + s.r_parts - 1) / s.r_parts;
    int first_step = min(n_steps, part * per_part), mine = min(n_steps, first_step + per_part) - first_step;
    int n_tiles = (max(s.end - s.first, 0) + 31) / 32, total = n_tiles > group ? (n_tiles - group + groups - 1) / groups * mine : 0;
    auto issue = [&](int item) {
        if (item < total) {
            int column = s.first + (group + item / mine * groups) * 32, vector = (first_step + item % mine) * K;
            T* stage = reinterpret_cast<T*>(s.ring + item % RING_STAGES * RING_STAGE_BYTES);
#pragma unroll
            for (int i = lane; i < 128; i += 32) {
                int k = i / PACKS, j = i % PACKS * Pack<T>::N;
                bool valid = vector + k < s.r;
                fetch(stage + k * V_STRIDE + j, s.v + (valid ? Offset(vector + k) * s.d : 0), column + j, valid ? s.end : 0, s.packed);
            }
        }
        copy_commit();
    };
    slice_coefficients(s);
    for (int i = 0; i < RING_STAGES - 1; ++i) issue(i);
    sum_over_cluster<C>(s, c);

    int item = 0;
    // With several parts a group has one tile at most; without its turn here it still takes part in the barrier.
    for (int tile = group; tile < max(n_tiles, s.r_parts > 1 ? groups : 0); tile += groups) {
        float sums[2][4][4] = {};
        for (int step = first_step; tile < n_tiles && step < first_step + mine; ++step, ++item) {
            copy_wait<RING_STAGES - 2>();
            __syncwarp();
            issue(item + RING_STAGES - 1);
            multiply_columns<T, K>(sums, s.coefficients + step * K, s.stride,
                                   reinterpret_cast<const T*>(s.ring + item % RING_STAGES * RING_STAGE_BYTES), V_STRIDE, s.n_m);
        }
        if (s.r_parts > 1) {
            copy_wait<0>();
            __syncwarp();
            float* mail = reinterpret_cast<float*>(s.ring) + lane;
            if (part > 0) {
#pragma unroll
                for (int i = 0; i < 32; ++i) mail[32 * i] = sums[i / 16][i / 4 % 4][i % 4];
            }
            __syncthreads();
            for (int p = 1; part == 0 && p < s.r_parts; ++p) {
                mail += groups * RING_STAGES * RING_STAGE_BYTES / 4;
#pragma unroll
                for (int i = 0; i < 32; ++i) sums[i / 16][i / 4 % 4][i % 4] += mail[32 * i];
            }
        }
        if (part == 0 && tile < n_tiles) {
            each<T>(sums, s.n_m, [&](int row, int column, float (&values)[WIDTH<T>]) {
                auto* place = reinterpret_cast<Group<T, WIDTH<T>>*>(s.at(row, tile * 32 + column));
                Group<T, WIDTH<T>> x = *place;
                for (int i = 0; i < WIDTH<T>; ++i) x.at[i] = from_float<T>(delta * to_float(x.at[i]) + values[i]);
                *place = x;
            });
        }
    }
    copy_wait<0>();
    __syncthreads();
}
#endif
