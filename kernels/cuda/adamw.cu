// AdamW (Loshchilov & Hutter 2019, algorithm 2) with the projection Π of projection.cu before it, after it, or both:
//
//   x = s·Π₁(g)      m ← β₁·m + (1−β₁)·x      v ← β₂·v + (1−β₂)·x²
//   u = step·m / (root·sqrt(v) + eps) + decay·p        p ← p − Π₂(u)
//
// with step = η/(1−β₁ᵗ), root = 1/sqrt(1−β₂ᵗ), decay = η·w from the host; Π₁, Π₂ are Π or nothing. p, g, m, v (n, d) and the basis
// V (r, d) in f32, row-major; c (r). Accuracy as in lowrank.cuh. Deterministic. `packed`: d is a multiple of 4.
//
// adamw_cluster_C: everything in one launch for few rows. Grid, block and shared memory as projection_cluster_C.
// adamw_direction: Π₁ from the coefficients of g (projection_coefficients), moments, u; writes u, or p if `u` is not projected. Grid,
//   block and shared memory as projection_expand.
// adamw_update: p ← p − Π(u) from the coefficients of u. The same.
// adamw_rows: without a basis, Π = δ: element by element. Grid: ceil(n·d/1024), block 256. No shared memory. `after` is Π₂'s δ; with
//   `keeps_u`, u is written for adamw_update instead.
#include "common.cuh"
#include "lowrank.cuh"

struct Step {
    float scale, beta1, beta2, rest1, rest2, step, root, eps, decay;

    // u, and the moments.
    __device__ __forceinline__ float direction(float x, float& m, float& v, float p) const {
        x *= scale;
        m = beta1 * m + rest1 * x;
        v = beta2 * v + rest2 * x * x;
        return step * m / (sqrtf(v) * root + eps) + decay * p;
    }

    // For four elements of a row: turns x into u, and moves the moments.
    __device__ __forceinline__ void directions(float (&x)[4], float* m, float* v, const float* p, int column, int d, int packed) const {
        float first[4], second[4], parameter[4];
        read(first, m, column, d, packed);
        read(second, v, column, d, packed);
        read(parameter, p, column, d, packed);
        for (int i = 0; i < 4; ++i) x[i] = direction(x[i], first[i], second[i], parameter[i]);
        write(m, column, d, packed, first);
        write(v, column, d, packed, second);
    }
};

// p −= u for four elements of a row.
__device__ __forceinline__ void apply(float* p, const float (&u)[4], int column, int d, int packed) {
    float parameter[4];
    read(parameter, p, column, d, packed);
    for (int i = 0; i < 4; ++i) parameter[i] -= u[i];
    write(p, column, d, packed, parameter);
}

template <int C>
__device__ __forceinline__ void cluster_step(float* p, const float* g, float* m, float* v, const float* basis, const float* c, int n, int d,
                                             int r, float delta, int before, int after, const Step& step, int packed, int rows, int width,
                                             int k_parts, int r_parts) {
#if CLUSTERS
    Slice<float> slice(basis, d, r, packed, rows, width, k_parts, r_parts);
    int first_row = blockIdx.x / C * rows;
    slice.load(g, first_row, n);
    if (before) project_tile<C>(slice, c, delta);
    slice.each_pack([&](int row, int column, float* place) {
        if (first_row + row < n) {
            Offset start = Offset(first_row + row) * d;
            float x[4];
            read(x, place, 0, 4, 1);
            step.directions(x, m + start, v + start, p + start, column, d, packed);
            if (after) {
                write(place, 0, 4, 1, x);
            } else {
                apply(p + start, x, column, d, packed);
            }
        }
    });
    if (after) {
        __syncthreads();
        project_tile<C>(slice, c, delta);
        slice.each_pack([&](int row, int column, const float* place) {
            if (first_row + row < n) {
                float u[4];
                read(u, place, 0, 4, 1);
                apply(p + Offset(first_row + row) * d, u, column, d, packed);
            }
        });
    }
#endif
}

#define STEP_PARAMETERS float scale, float beta1, float beta2, float rest1, float rest2, float step, float root, float eps, float decay
#define STEP Step{scale, beta1, beta2, rest1, rest2, step, root, eps, decay}

#define ADAMW_CLUSTER(C)                                                                                                      \
    extern "C" __global__ void __cluster_dims__(C, 1, 1) __launch_bounds__(THREADS, 1)                                        \
        adamw_cluster_##C(float* p, const float* g, float* m, float* v, const float* basis, const float* c, int n, int d,     \
                          int r, float delta, int before, int after, STEP_PARAMETERS, int packed, int rows, int width,        \
                          int k_parts, int r_parts) {                                                                         \
        cluster_step<C>(p, g, m, v, basis, c, n, d, r, delta, before, after, STEP, packed, rows, width, k_parts, r_parts);    \
    }                                                                                                                         \
    EMULATED(adamw_cluster_##C)

ADAMW_CLUSTER(8)
ADAMW_CLUSTER(16)

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    adamw_direction(float* p, const float* g, float* m, float* v, float* u, const float* a, const float* basis, int n, int d, int r, float delta,
                    int keeps_u, STEP_PARAMETERS, int splits, int packed) {
    Step now = STEP;
    expand_tile(a, basis, n, d, r, splits, packed, [&](int row, int column, float (&x)[4]) {
        Offset start = Offset(row) * d;
        float gradient[4];
        read(gradient, g + start, column, d, packed);
        for (int i = 0; i < 4; ++i) x[i] += delta * gradient[i];
        now.directions(x, m + start, v + start, p + start, column, d, packed);
        if (keeps_u) {
            write(u + start, column, d, packed, x);
        } else {
            apply(p + start, x, column, d, packed);
        }
    });
}
EMULATED(adamw_direction)

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    adamw_update(float* p, const float* u, const float* a, const float* basis, int n, int d, int r, float delta, int splits, int packed) {
    expand_tile(a, basis, n, d, r, splits, packed, [&](int row, int column, float (&x)[4]) {
        float update[4];
        read(update, u + Offset(row) * d, column, d, packed);
        for (int i = 0; i < 4; ++i) x[i] += delta * update[i];
        apply(p + Offset(row) * d, x, column, d, packed);
    });
}
EMULATED(adamw_update)

extern "C" __global__ void __launch_bounds__(THREADS)
    adamw_rows(float* p, const float* g, float* m, float* v, float* u, Offset len, float before, float after, int keeps_u, STEP_PARAMETERS) {
    Step now = STEP;
    Offset first = (Offset(blockIdx.x) * THREADS + threadIdx.x) * 4;
    if (first < len) {
        int count = static_cast<int>(min(len - first, Offset(4))), packed = count == 4;
        float x[4];
        read(x, g + first, 0, count, packed);
        for (int i = 0; i < 4; ++i) x[i] *= before;
        now.directions(x, m + first, v + first, p + first, 0, count, packed);
        if (keeps_u) {
            write(u + first, 0, count, packed, x);
        } else {
            for (int i = 0; i < 4; ++i) x[i] *= after;
            apply(p + first, x, 0, count, packed);
        }
    }
}
EMULATED(adamw_rows)
