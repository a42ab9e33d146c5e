// Layer norm and RMS norm over the last dimension, and the gradient to their input.
//
//   layer norm  y = w·(x − mean x)·s + b,  s = 1/sqrt(mean (x − mean x)² + eps)
//   RMS norm    y = w·x·s,                 s = 1/sqrt(mean x² + eps)
//   backward    dx = s·(w·dy − [mean (w·dy)] − n·mean (w·dy·n)),  n the normalised row; the bracket for layer norm only
//
// x, y, dy, dx (rows, d) in f32, bf16 or f16, row-major; w, b (d) in f32. Sums in f32. Deterministic.
// Grid: one block a row. Block: ceil(d / (W·ITEMS)) threads, W elements an access, ITEMS accesses a thread: the row stays in
// registers, so that it is read once. Shared memory: 64 floats.
#include "common.cuh"

constexpr int ITEMS = 4;

// W elements of a row as floats: 16 bytes at once, or one element.
template <int W, class T>
__device__ __forceinline__ void read(float (&out)[W], const T* row, int column) {
    if constexpr (W == 1) {
        out[0] = to_float(row[column]);
    } else {
        static_assert(W % Pack<T>::N == 0);
        for (int p = 0; p < W / Pack<T>::N; ++p) {
            Pack<T> pack = load_pack(row + column + p * Pack<T>::N);
            for (int i = 0; i < Pack<T>::N; ++i) out[p * Pack<T>::N + i] = to_float(pack.at[i]);
        }
    }
}
template <int W, class T>
__device__ __forceinline__ void write(T* row, int column, const float (&values)[W]) {
    if constexpr (W == 1) {
        row[column] = from_float<T>(values[0]);
    } else {
        Pack<T> pack;
        for (int i = 0; i < W; ++i) pack.at[i] = from_float<T>(values[i]);
        store_pack(row + column, pack);
    }
}

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
        if (column < d) read<W>(value[k], row, column);
    }
    statistics(value, d, layer, eps, scratch, mean, scale);
    for (int k = 0; k < ITEMS; ++k) {
        int column = (k * blockDim.x + threadIdx.x) * W;
        if (column < d) {
            float weight[W], bias[W] = {};
            read<W>(weight, w, column);
            if (layer) read<W>(bias, b, column);
            for (int i = 0; i < W; ++i) value[k][i] = (value[k][i] - mean) * scale * weight[i] + bias[i];
            write<W>(out, column, value[k]);
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
            read<W>(value[k], row, column);
            read<W>(inner[k], gradient, column);
            read<W>(weight, w, column);
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
            write<W>(out, column, value[k]);
        }
    }
}

#define NORM(name, T, W)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(1024)                                                                        \
        norm_forward_##name(const T* x, const float* w, const float* b, T* y, int d, int layer, float eps) {                  \
        forward<T, W>(x, w, b, y, d, layer, eps);                                                                             \
    }                                                                                                                         \
    EMULATED(norm_forward_##name)                                                                                             \
    extern "C" __global__ void __launch_bounds__(1024)                                                                        \
        norm_backward_##name(const T* x, const float* w, const T* dy, T* dx, int d, int layer, float eps) {                   \
        backward<T, W>(x, w, dy, dx, d, layer, eps);                                                                          \
    }                                                                                                                         \
    EMULATED(norm_backward_##name)

NORM(f32, float, 4)
NORM(bf16, bf16, 8)
NORM(f16, f16, 8)
NORM(single_f32, float, 1)
NORM(single_bf16, bf16, 1)
NORM(single_f16, f16, 1)
