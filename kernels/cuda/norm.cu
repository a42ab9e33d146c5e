// Layer norm and RMS norm over the last dimension, and the gradients to their input and parameters.
//
//   layer norm  y = w·(x − mean x)·s + b,  s = 1/sqrt(mean (x − mean x)² + eps)
//   RMS norm    y = w·x·s,                 s = 1/sqrt(mean x² + eps)
//   backward    dx = s·(w·dy − [mean (w·dy)] − n·mean (w·dy·n)),  n the normalised row; the bracket for layer norm only
//   parameters  dw = Σ_rows dy·n,  db = Σ_rows dy
//
// x, y, dy, dx (rows, d) in f32, bf16 or f16, row-major; w, b, dw, db (d) in f32. Sums in f32. Deterministic.
// Forward, backward, statistics: grid of one block a row, block of ceil(d / (W·ITEMS)) threads, W elements an access, ITEMS accesses
// a thread: the row stays in registers, so that it is read once. Shared memory: 64 floats.
// Sums over rows: see `column_sums`; the mean and the scale of each row come from a launch of the statistics before it, and a
// second launch adds up the chunks of rows.
#include "common.cuh"

constexpr int ITEMS = 4;

// Mean (0 for RMS norm) and 1/deviation of a row that the block holds in `x`; places beyond the row hold 0.
template <int W>
__device__ __forceinline__ void statistics(const float (&x)[ITEMS][W], int d, int layer, float eps, float* scratch, float& mean, float& scale) {
    float sum = 0.0f, squares = 0.0f;
    for (int k = 0; k < ITEMS; ++k) {
        for (int i = 0; i < W; ++i) sum += x[k][i];
    }
    mean = layer ? block_sum(sum, scratch) / d : 0.0f;
    for (int k = 0; k < ITEMS; ++k) {
        int column = (k * blockDim.x + threadIdx.x) * W;
        for (int i = 0; i < W; ++i) {
            float centred = column < d ? x[k][i] - mean : 0.0f;
            squares += centred * centred;
        }
    }
    scale = rsqrtf(block_sum(squares, scratch) / d + eps);
}

template <class T, int W>
__device__ __forceinline__ void forward(const T* x, const float* w, const float* b, T* y, int d, int layer, float eps) {
    const T* row = x + Offset(blockIdx.x) * d;
    T* out = y + Offset(blockIdx.x) * d;
    float* scratch = shared_memory<float>();
    float value[ITEMS][W] = {}, mean, scale;
    for (int k = 0; k < ITEMS; ++k) {
        int column = (k * blockDim.x + threadIdx.x) * W;
        if (column < d) load_floats<W>(value[k], row, column);
    }
    statistics(value, d, layer, eps, scratch, mean, scale);
    for (int k = 0; k < ITEMS; ++k) {
        int column = (k * blockDim.x + threadIdx.x) * W;
        if (column < d) {
            float weight[W], bias[W] = {};
            load_floats<W>(weight, w, column);
            if (layer) load_floats<W>(bias, b, column);
            for (int i = 0; i < W; ++i) value[k][i] = (value[k][i] - mean) * scale * weight[i] + bias[i];
            store_floats<W>(out, column, value[k]);
        }
    }
}

template <class T, int W>
__device__ __forceinline__ void backward(const T* x, const float* w, const T* dy, T* dx, int d, int layer, float eps) {
    const T* row = x + Offset(blockIdx.x) * d;
    const T* gradient = dy + Offset(blockIdx.x) * d;
    T* out = dx + Offset(blockIdx.x) * d;
    float* scratch = shared_memory<float>();
    float value[ITEMS][W] = {}, inner[ITEMS][W] = {}, mean, scale;
    for (int k = 0; k < ITEMS; ++k) {
        int column = (k * blockDim.x + threadIdx.x) * W;
        if (column < d) {
            float weight[W];
            load_floats<W>(value[k], row, column);
            load_floats<W>(inner[k], gradient, column);
            load_floats<W>(weight, w, column);
            for (int i = 0; i < W; ++i) inner[k][i] *= weight[i];
        }
    }
    statistics(value, d, layer, eps, scratch, mean, scale);
    float sum = 0.0f, along = 0.0f;
    for (int k = 0; k < ITEMS; ++k) {
        for (int i = 0; i < W; ++i) {
            value[k][i] = (value[k][i] - mean) * scale;
            sum += inner[k][i];
            along += inner[k][i] * value[k][i];
        }
    }
    block_sum2(sum, along, scratch);
    float shift = layer ? sum / d : 0.0f;
    along /= d;
    for (int k = 0; k < ITEMS; ++k) {
        int column = (k * blockDim.x + threadIdx.x) * W;
        if (column < d) {
            for (int i = 0; i < W; ++i) value[k][i] = scale * (inner[k][i] - shift - value[k][i] * along);
            store_floats<W>(out, column, value[k]);
        }
    }
}

template <class T, int W>
__device__ __forceinline__ void row_statistics(const T* x, float* means_and_scales, int rows, int d, int layer, float eps) {
    const T* row = x + Offset(blockIdx.x) * d;
    float value[ITEMS][W] = {}, mean, scale;
    for (int k = 0; k < ITEMS; ++k) {
        int column = (k * blockDim.x + threadIdx.x) * W;
        if (column < d) load_floats<W>(value[k], row, column);
    }
    statistics(value, d, layer, eps, shared_memory<float>(), mean, scale);
    if (threadIdx.x == 0) {
        means_and_scales[blockIdx.x] = mean;
        means_and_scales[Offset(rows) + blockIdx.x] = scale;
    }
}

// Sums over a chunk of rows of `dy`, and with WEIGHTED of `dy·(x − mean)·scale`, into row `blockIdx.y` of `db` and `dw` (chunks, d).
// Grid: (ceil(d / 32W), chunks). Block: n warps side by side over the rows of the chunk, each 32·W columns wide. Shared memory:
// n·32·W floats, twice that if WEIGHTED.
template <class T, int W, bool WEIGHTED>
__device__ __forceinline__ void column_sums(const T* x, const T* dy, const float* means_and_scales, float* dw, float* db, int rows, int d,
                                            int rows_per_chunk, float factor) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_warps = blockDim.x / 32;
    const int column = (blockIdx.x * 32 + lane) * W;
    const int first = blockIdx.y * rows_per_chunk, last = min(rows, first + rows_per_chunk);
    float weight[W] = {}, bias[W] = {};
    if (column < d) {
#pragma unroll 4
        for (int r = first + warp; r < last; r += n_warps) {
            float gradient[W];
            load_floats<W>(gradient, dy + Offset(r) * d, column);
            for (int i = 0; i < W; ++i) bias[i] += gradient[i];
            if constexpr (WEIGHTED) {
                float value[W], mean = means_and_scales[r], scale = means_and_scales[Offset(rows) + r];
                load_floats<W>(value, x + Offset(r) * d, column);
                for (int i = 0; i < W; ++i) weight[i] += gradient[i] * ((value[i] - mean) * scale);
            }
        }
    }
    float* biases = shared_memory<float>();
    float* weights = biases + n_warps * 32 * W;
    store_floats<W>(biases, threadIdx.x * W, bias);
    if constexpr (WEIGHTED) store_floats<W>(weights, threadIdx.x * W, weight);
    __syncthreads();
    for (int e = threadIdx.x; e < 32 * W; e += blockDim.x) {
        const int c = blockIdx.x * 32 * W + e;
        float sum_bias = 0.0f, sum_weight = 0.0f;
        for (int w = 0; w < n_warps; ++w) {
            sum_bias += biases[w * 32 * W + e];
            if constexpr (WEIGHTED) sum_weight += weights[w * 32 * W + e];
        }
        if (c < d) {
            if (db) db[Offset(blockIdx.y) * d + c] = sum_bias * factor;
            if constexpr (WEIGHTED) dw[Offset(blockIdx.y) * d + c] = sum_weight * factor;
        }
    }
}

#define NORM(name, T, W, THREADS)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                     \
        norm_forward_##name(const T* x, const float* w, const float* b, T* y, int d, int layer, float eps) {                  \
        forward<T, W>(x, w, b, y, d, layer, eps);                                                                             \
    }                                                                                                                         \
    EMULATED(norm_forward_##name)                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                     \
        norm_backward_##name(const T* x, const float* w, const T* dy, T* dx, int d, int layer, float eps) {                   \
        backward<T, W>(x, w, dy, dx, d, layer, eps);                                                                          \
    }                                                                                                                         \
    EMULATED(norm_backward_##name)                                                                                            \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                     \
        norm_statistics_##name(const T* x, float* means_and_scales, int rows, int d, int layer, float eps) {                  \
        row_statistics<T, W>(x, means_and_scales, rows, d, layer, eps);                                                       \
    }                                                                                                                         \
    EMULATED(norm_statistics_##name)                                                                                          \
    extern "C" __global__ void __launch_bounds__(256)                                                                         \
        norm_parameters_##name(const T* x, const T* dy, const float* means_and_scales, float* dw, float* db, int rows, int d, \
                               int rows_per_chunk, int layer) {                                                               \
        column_sums<T, W, true>(x, dy, means_and_scales, dw, layer ? db : nullptr, rows, d, rows_per_chunk, 1.0f);            \
    }                                                                                                                         \
    EMULATED(norm_parameters_##name)                                                                                          \
    extern "C" __global__ void __launch_bounds__(256)                                                                         \
        sum_rows_##name(const T* x, float* sums, int rows, int d, int rows_per_chunk, float factor) {                         \
        column_sums<T, W, false>(nullptr, x, nullptr, nullptr, sums, rows, d, rows_per_chunk, factor);                        \
    }                                                                                                                         \
    EMULATED(sum_rows_##name)

NORM(f32, float, 4, 1024)
NORM(bf16, bf16, 8, 512)
NORM(f16, f16, 8, 512)
NORM(single_f32, float, 1, 1024)
NORM(single_bf16, bf16, 1, 1024)
NORM(single_f16, f16, 1, 1024)
