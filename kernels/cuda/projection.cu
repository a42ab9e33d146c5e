// Signed low-rank update of rows, the form of every projection rule:
//
//   out = δ·g + ((g Vᵀ) ⊙ c) V        4·n·d·r operations
//
// g, out (n, d) and V (r, d), whose rows are orthonormal, in f32, bf16 or f16, row-major; c (r) in f32. Products on tensor cores with
// sums in f32 (lowrank.cuh says how f32 keeps its accuracy); for 16-bit elements the r coefficients of a row are rounded to their
// type. Deterministic. `packed`: d is a whole number of packs of 16 bytes.
//
// projection_cluster_C: everything in one launch for few rows. Grid: C·ceil(n/rows) blocks in clusters of C, block 256.
//   Shared memory: the slice of g, the coefficients of its rows, and rings for V; see `Slice` in lowrank.cuh.
// projection_coefficients: a = (g Vᵀ) ⊙ c, (splits, n, r rounded up to 32), partial sums where d is split. Grid: (ceil(n/64),
//   ceil(r/128), splits), block 256. Shared memory: 3 stages of 64 rows of g and 128 of V, 128 bytes each.
// projection_expand: out = δ·g + (Σ a) V. Grid: (ceil(n/64), ceil(d/128)), block 256. Shared memory: see `expand_tile`.
#include "common.cuh"
#include "lowrank.cuh"

template <class T, int C>
__device__ __forceinline__ void projection_cluster(const T* g, const T* v, const float* c, T* out, int n, int d, int r, float delta,
                                                   int packed, int rows, int width, int k_parts, int r_parts) {
#if CLUSTERS
    Slice<T> slice(v, d, r, packed, rows, width, k_parts, r_parts);
    int first_row = blockIdx.x / C * rows;
    slice.load(g, first_row, n);
    project_tile<C>(slice, c, delta);
    slice.each_pack([&](int row, int column, const T* place) {
        if (first_row + row < n) {
            float values[Pack<T>::N];
            read(values, place, 0, Pack<T>::N, 1);
            write(out + Offset(first_row + row) * d, column, d, packed, values);
        }
    });
#endif
}

template <class T>
__device__ __forceinline__ void coefficients(const T* g, const T* v, const float* c, float* a, int n, int d, int r, int steps_per_split, int packed) {
    constexpr int K = 2 * SLAB<T>, X_SLAB = (TILE_ROWS + 1) * SLAB_BYTES, V_SLAB = (TILE_COLUMNS + 1) * SLAB_BYTES;
    constexpr int STAGE_BYTES = 2 * (X_SLAB + V_SLAB);
    unsigned char* shared = shared_memory<unsigned char>();
    int warp = threadIdx.x / 32, first_row = blockIdx.x * TILE_ROWS, first_vector = blockIdx.y * TILE_COLUMNS;
    int r_padded = (r + 31) / 32 * 32, first_step = blockIdx.z * steps_per_split;
    int n_steps = max(0, min(steps_per_split, (d + K - 1) / K - first_step));

    // Rows `first` … of a matrix of `n_rows`: eight threads bring 128 bytes of a row.
    auto bring = [&](unsigned char* to, int slab_bytes, const T* matrix, int first, int count, int n_rows, int column) {
        for (int i = threadIdx.x; i < count * 8; i += THREADS) {
            int row = i / 8, pack = i % 8;
            bool valid = first + row < n_rows;
            fetch(to + pack / 4 * slab_bytes + row * SLAB_BYTES + pack % 4 * 16, matrix + (valid ? Offset(first + row) * d : 0),
                  column + pack * Pack<T>::N, valid ? d : 0, packed);
        }
    };
    auto issue = [&](int step) {
        if (step < n_steps) {
            unsigned char* stage = shared + step % TILE_STAGES * STAGE_BYTES;
            bring(stage, X_SLAB, g, first_row, TILE_ROWS, n, (first_step + step) * K);
            bring(stage + 2 * X_SLAB, V_SLAB, v, first_vector, TILE_COLUMNS, r, (first_step + step) * K);
        }
        copy_commit();
    };

    int row = warp / 4 * 32, vector = warp % 4 * 32;
    int n_m = first_vector + vector < r ? max(0, min(2, (n - first_row - row + 15) / 16)) : 0;
    float sums[2][4][4] = {};
    for (int s = 0; s < TILE_STAGES - 1; ++s) issue(s);
    for (int step = 0; step < n_steps; ++step) {
        copy_wait<TILE_STAGES - 2>();
        __syncthreads();
        issue(step + TILE_STAGES - 1);
        const unsigned char* stage = shared + step % TILE_STAGES * STAGE_BYTES;
        for (int slab = 0; n_m > 0 && slab < 2; ++slab) {
            multiply_rows<T>(sums, stage + slab * X_SLAB + row * SLAB_BYTES, stage + 2 * X_SLAB + slab * V_SLAB + vector * SLAB_BYTES, n_m);
        }
    }
    copy_wait<0>();
    each_coefficient(sums, n_m, [&](int i, int k, float (&values)[2]) {
        i += first_row + row;
        k += first_vector + vector;
        if (i < n) {
            float* to = a + (Offset(blockIdx.z) * n + i) * r_padded + k;
            *reinterpret_cast<Group<float, 2>*>(to) = {k < r ? values[0] * c[k] : 0.0f, k + 1 < r ? values[1] * c[k + 1] : 0.0f};
        }
    });
}

template <class T>
__device__ __forceinline__ void expand(const T* g, const float* a, const T* v, T* out, int n, int d, int r, float delta, int splits, int packed) {
    expand_tile(a, v, n, d, r, splits, packed, [&](int row, int column, float (&values)[WIDTH<T>]) {
        float x[WIDTH<T>];
        read(x, g + Offset(row) * d, column, d, packed);
        for (int i = 0; i < WIDTH<T>; ++i) values[i] += delta * x[i];
        write(out + Offset(row) * d, column, d, packed, values);
    });
}

#define PROJECTION_CLUSTER(C, T)                                                                                              \
    extern "C" __global__ void __cluster_dims__(C, 1, 1) __launch_bounds__(THREADS, 1)                                        \
        projection_cluster_##C##_##T(const T* g, const T* v, const float* c, T* out, int n, int d, int r, float delta,        \
                                     int packed, int rows, int width, int k_parts, int r_parts) {                             \
        projection_cluster<T, C>(g, v, c, out, n, d, r, delta, packed, rows, width, k_parts, r_parts);                        \
    }                                                                                                                         \
    EMULATED(projection_cluster_##C##_##T)

#define PROJECTION(T)                                                                                                         \
    PROJECTION_CLUSTER(8, T)                                                                                                  \
    PROJECTION_CLUSTER(16, T)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                  \
        projection_coefficients_##T(const T* g, const T* v, const float* c, float* a, int n, int d, int r,                    \
                                    int steps_per_split, int packed) {                                                        \
        coefficients(g, v, c, a, n, d, r, steps_per_split, packed);                                                           \
    }                                                                                                                         \
    EMULATED(projection_coefficients_##T)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                                  \
        projection_expand_##T(const T* g, const float* a, const T* v, T* out, int n, int d, int r, float delta, int splits,   \
                              int packed) {                                                                                   \
        expand(g, a, v, out, n, d, r, delta, splits, packed);                                                                 \
    }                                                                                                                         \
    EMULATED(projection_expand_##T)

using f32 = float;
PROJECTION(f32)
PROJECTION(bf16)
PROJECTION(f16)
