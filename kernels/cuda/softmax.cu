// Softmax over the last dimension with what attention adds to its scores, and the gradient to the scores.
//
//   forward   p_j = exp(t_j − max t) / Σ_k exp(t_k − max t),  t_j = scale·s_j + position_j + keys_j, −∞ for a key j ≥ visible
//   causal    visible = i + 1 + t_k − t_q for query i: queries are the last ones of the keys
//   backward  ds_j = scale·p_j·(dp_j − Σ_k p_k·dp_k)
//
// A row whose terms are all −∞ gets zeros; a NaN makes its whole row NaN. Of hidden keys the score is not read.
// s, p, dp, ds (batch, n_heads, t_q, t_k) in f32, bf16 or f16, row-major; position (n_heads, t_q, t_k) and keys (batch, t_k) in f32.
// p may be s, ds may be dp. Sums in f32. Deterministic.
// A row is shared by 2^shift lanes of a warp (rows of at most 1024 elements) or by a block ("wide"); it stays in registers, W elements
// an access, 32 elements a thread at most, and is read once. Shared memory: none, or 64 floats if wide.
#include "common.cuh"

enum Flags { POSITION = 1, KEYS = 2, CAUSAL = 4 };

// Of the threads that share a row.
template <bool WIDE>
__device__ __forceinline__ float group_max(float x, int lanes, float* scratch) {
    if constexpr (WIDE) {
        x = block_max(x, scratch);
    } else {
        for (int offset = lanes / 2; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(FULL, x, offset));
    }
    return x;
}
template <bool WIDE>
__device__ __forceinline__ float group_sum(float x, int lanes, float* scratch) {
    if constexpr (WIDE) {
        x = block_sum(x, scratch);
    } else {
        for (int offset = lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(FULL, x, offset);
    }
    return x;
}

// Which row this thread works on, and where in it.
template <bool WIDE>
struct Place {
    int row, lane, lanes;
    __device__ __forceinline__ explicit Place(int shift) {
        if constexpr (WIDE) {
            row = blockIdx.x;
            lane = threadIdx.x;
            lanes = blockDim.x;
        } else {
            lanes = 1 << shift;
            row = blockIdx.x * (blockDim.x >> shift) + (threadIdx.x >> shift);
            lane = threadIdx.x & (lanes - 1);
        }
    }
};

template <class T, int W, bool WIDE>
__device__ __forceinline__ void forward(const T* scores, const float* position, const float* keys, T* probs, int rows, int n_heads, int t_q,
                                        int t_k, int flags, int shift, float scale) {
    constexpr int ITEMS = 32 / W;
    float* scratch = shared_memory<float>();
    const Place<WIDE> at(shift);
    const int step = at.lanes * W;
    int visible = at.row < rows ? t_k : 0;
    if (flags) {
        const int per_entry = n_heads * t_q, entry = at.row / per_entry, in_entry = at.row - entry * per_entry;
        position += Offset(in_entry) * t_k;
        keys += Offset(entry) * t_k;
        if (flags & CAUSAL) visible = min(visible, max(0, in_entry % t_q + 1 + t_k - t_q));
    }
    const T* row = scores + Offset(at.row) * t_k;
    float value[ITEMS][W] = {}, highest = -infinity();
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        if (k * step >= t_k) break;
        const int column = k * step + at.lane * W;
        float term[W] = {}, more[W];
        if (column < visible) {
            load_floats<W>(term, row, column);
            for (int i = 0; i < W; ++i) term[i] *= scale;
            if (flags & POSITION) {
                load_floats<W>(more, position, column);
                for (int i = 0; i < W; ++i) term[i] += more[i];
            }
            if (flags & KEYS) {
                load_floats<W>(more, keys, column);
                for (int i = 0; i < W; ++i) term[i] += more[i];
            }
        }
        for (int i = 0; i < W; ++i) {
            value[k][i] = column + i < visible ? term[i] : -infinity();
            highest = fmaxf(highest, value[k][i]);
        }
    }
    highest = group_max<WIDE>(highest, at.lanes, scratch);
    // Without a visible key every exponential is to be 0, not exp(−∞ + ∞). A NaN, which the maximum leaves out, is still in the sum.
    const float zero = highest == -infinity() ? 0.0f : highest;
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        if (k * step >= t_k) break;
        for (int i = 0; i < W; ++i) {
            value[k][i] = expf(value[k][i] - zero);
            sum += value[k][i];
        }
    }
    sum = group_sum<WIDE>(sum, at.lanes, scratch);
    const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    T* out = probs + Offset(at.row) * t_k;
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        if (k * step >= t_k) break;
        const int column = k * step + at.lane * W;
        for (int i = 0; i < W; ++i) value[k][i] *= inverse;
        if (at.row < rows && column < t_k) store_floats<W>(out, column, value[k]);
    }
}

template <class T, int W, bool WIDE>
__device__ __forceinline__ void backward(const T* probs, const T* d_probs, T* d_scores, int rows, int t_k, int shift, float scale) {
    constexpr int ITEMS = 32 / W;
    float* scratch = shared_memory<float>();
    const Place<WIDE> at(shift);
    const int step = at.lanes * W;
    const Offset start = Offset(at.row) * t_k;
    float p[ITEMS][W] = {}, dp[ITEMS][W] = {}, mean = 0.0f;
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        if (k * step >= t_k) break;
        const int column = k * step + at.lane * W;
        if (at.row < rows && column < t_k) {
            load_floats<W>(p[k], probs + start, column);
            load_floats<W>(dp[k], d_probs + start, column);
        }
        for (int i = 0; i < W; ++i) mean += p[k][i] * dp[k][i];
    }
    mean = group_sum<WIDE>(mean, at.lanes, scratch);
#pragma unroll
    for (int k = 0; k < ITEMS; ++k) {
        if (k * step >= t_k) break;
        const int column = k * step + at.lane * W;
        for (int i = 0; i < W; ++i) dp[k][i] = scale * p[k][i] * (dp[k][i] - mean);
        if (at.row < rows && column < t_k) store_floats<W>(d_scores + start, column, dp[k]);
    }
}

#define SOFTMAX(name, T, W, WIDE, THREADS)                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                     \
        softmax_forward_##name(const T* scores, const float* position, const float* keys, T* probs, int rows, int n_heads,    \
                               int t_q, int t_k, int flags, int shift, float scale) {                                         \
        forward<T, W, WIDE>(scores, position, keys, probs, rows, n_heads, t_q, t_k, flags, shift, scale);                     \
    }                                                                                                                         \
    EMULATED(softmax_forward_##name)                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                     \
        softmax_backward_##name(const T* probs, const T* d_probs, T* d_scores, int rows, int t_k, int shift, float scale) {   \
        backward<T, W, WIDE>(probs, d_probs, d_scores, rows, t_k, shift, scale);                                              \
    }                                                                                                                         \
    EMULATED(softmax_backward_##name)

#define SOFTMAX_OF(name, T, W)                 \
    SOFTMAX(name, T, W, false, 128)            \
    SOFTMAX(wide_##name, T, W, true, 512)      \
    SOFTMAX(single_##name, T, 1, false, 128)   \
    SOFTMAX(wide_single_##name, T, 1, true, 512)

SOFTMAX_OF(f32, float, 4)
SOFTMAX_OF(bf16, bf16, 8)
SOFTMAX_OF(f16, f16, 8)
