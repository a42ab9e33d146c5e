// Cross entropy over the classes of each row, its mean, and the gradient to the logits.
//
//   nll_i = ln Σ_j exp(z_ij − m_i) + m_i − z_i[label_i],  m_i = max_j z_ij;   0 for a label of −100, NaN for one outside the classes
//   loss  = Σ nll_i / n over the n labels that are not −100, summed in f64
//   dz_ij = (exp(z_ij − m_i)/s_i − [j = label_i])·dloss/n,  s_i = Σ_j exp(z_ij − m_i);   0 for a label of −100
//
// z, dz (rows, d) in f32, bf16 or f16, row-major; labels (rows) in i64; nll (rows), statistics m and s (2, rows), loss and dloss (1) in f32.
// counts (2): n, and the first row whose label is outside the classes or −1. Sums of a row in f32. Deterministic.
// Forward and backward: grid of one block a row, which goes once over it with accesses of 16 bytes; the elements before the first and behind
// the last aligned one are read singly, so that rows may have any length. Rows that do not count are not read. Shared memory: 64 floats
// (forward). Mean: one block; shared memory: 96 numbers of 8 bytes.
#include "common.cuh"

constexpr long long IGNORED = -100;
constexpr int UNROLL = 4;

// A row from element `start` of a buffer on: `head` elements, `n_packs` aligned packs, and the rest.
template <class T>
struct Parts {
    static constexpr int W = Pack<T>::N;
    int head, n_packs, n_single;
    __device__ __forceinline__ Parts(Offset start, int d) {
        head = min(d, static_cast<int>((W - start % W) % W));
        n_packs = (d - head) / W;
        n_single = d - n_packs * W;
    }
    // Column of the n-th element that is in no pack.
    __device__ __forceinline__ int single(int n) const { return n < head ? n : n + n_packs * W; }
    __device__ __forceinline__ int pack(int n) const { return head + n * W; }
};

// Adds numbers to a sum of exponentials less the maximum.
template <int N>
__device__ __forceinline__ void add(const float (&z)[N], float& highest, float& sum) {
    float next = highest;
    for (int i = 0; i < N; ++i) next = fmaxf(next, z[i]);
    const float zero = next == -infinity() ? 0.0f : next;
    sum *= expf(highest - zero);
    for (int i = 0; i < N; ++i) sum += expf(z[i] - zero);
    highest = next;
}

template <class T>
__device__ __forceinline__ void forward(const T* logits, const long long* labels, float* nll, float* statistics, int rows, int d) {
    constexpr int W = Pack<T>::N;
    float* scratch = shared_memory<float>();
    const Offset start = Offset(blockIdx.x) * d;
    const T* row = logits + start;
    const long long label = labels[blockIdx.x];
    const bool inside = label >= 0 && label < d;  // the same for the whole block
    float highest = -infinity(), sum = 0.0f;
    if (inside) {
        const Parts<T> parts(start, d);
        for (int first = threadIdx.x; first < parts.n_packs; first += UNROLL * blockDim.x) {
            float z[UNROLL][W];
            for (int u = 0; u < UNROLL; ++u) {
                const int p = first + u * blockDim.x;
                for (int i = 0; i < W; ++i) z[u][i] = -infinity();
                if (p < parts.n_packs) load_floats<W>(z[u], row, parts.pack(p));
            }
            for (int u = 0; u < UNROLL; ++u) add(z[u], highest, sum);
        }
        for (int n = threadIdx.x; n < parts.n_single; n += blockDim.x) {
            const float z[1] = {to_float(row[parts.single(n)])};
            add(z, highest, sum);
        }
        const float mine = highest;
        highest = block_max(mine, scratch);
        sum = block_sum(mine == -infinity() ? 0.0f * sum : sum * expf(mine - highest), scratch);
    }
    if (threadIdx.x == 0) {
        float loss = 0.0f;
        if (inside) loss = logf(sum) + highest - to_float(row[label]);
        else if (label != IGNORED) loss = __int_as_float(0x7fc00000);
        nll[blockIdx.x] = loss;
        statistics[blockIdx.x] = highest;
        statistics[Offset(rows) + blockIdx.x] = sum;
    }
}

template <class T>
__device__ __forceinline__ void backward(const T* logits, const long long* labels, const float* statistics, const long long* counts,
                                         const float* d_loss, T* d_logits, int rows, int d) {
    constexpr int W = Pack<T>::N;
    const Offset start = Offset(blockIdx.x) * d;
    const T* row = logits + start;
    T* out = d_logits + start;
    const long long label = labels[blockIdx.x];
    const Parts<T> parts(start, d);
    if (label == IGNORED) {
        const float zeros[W] = {};
        for (int p = threadIdx.x; p < parts.n_packs; p += blockDim.x) store_floats<W>(out, parts.pack(p), zeros);
        for (int n = threadIdx.x; n < parts.n_single; n += blockDim.x) out[parts.single(n)] = from_float<T>(0.0f);
        return;
    }
    const float highest = statistics[blockIdx.x], weight = d_loss[0] / static_cast<float>(counts[0]);
    // A label outside the classes has no gradient; a NaN says so.
    const float factor = label >= 0 && label < d ? weight / statistics[Offset(rows) + blockIdx.x] : __int_as_float(0x7fc00000);
    for (int first = threadIdx.x; first < parts.n_packs; first += UNROLL * blockDim.x) {
        float z[UNROLL][W] = {};
        for (int u = 0; u < UNROLL; ++u) {
            const int p = first + u * blockDim.x;
            if (p < parts.n_packs) load_floats<W>(z[u], row, parts.pack(p));
        }
        for (int u = 0; u < UNROLL; ++u) {
            const int p = first + u * blockDim.x, column = parts.pack(p);
            if (p < parts.n_packs) {
                for (int i = 0; i < W; ++i) z[u][i] = expf(z[u][i] - highest) * factor;
                const long long in_pack = label - column;
                if (in_pack >= 0 && in_pack < W) {
                    for (int i = 0; i < W; ++i) z[u][i] -= i == in_pack ? weight : 0.0f;
                }
                store_floats<W>(out, column, z[u]);
            }
        }
    }
    for (int n = threadIdx.x; n < parts.n_single; n += blockDim.x) {
        const int column = parts.single(n);
        out[column] = from_float<T>(expf(to_float(row[column]) - highest) * factor - (column == label ? weight : 0.0f));
    }
}

extern "C" __global__ void __launch_bounds__(1024)
    cross_entropy_mean(const float* nll, const long long* labels, float* loss, long long* counts, int rows, int d) {
    constexpr long long NONE = 0x7fffffffffffffff;
    double* sums = shared_memory<double>();
    long long* numbers = reinterpret_cast<long long*>(sums + 32);
    long long* firsts = numbers + 32;
    double sum = 0.0;
    long long number = 0, first = NONE;
    for (int r = threadIdx.x; r < rows; r += blockDim.x) {
        const long long label = labels[r];
        if (label == IGNORED) continue;
        sum += nll[r];
        ++number;
        if (label < 0 || label >= d) first = min(first, static_cast<long long>(r));
    }
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_warps = blockDim.x / 32;
    auto over_warp = [&] {
        for (int offset = 16; offset > 0; offset /= 2) {
            sum += __shfl_xor_sync(FULL, sum, offset);
            number += __shfl_xor_sync(FULL, number, offset);
            first = min(first, __shfl_xor_sync(FULL, first, offset));
        }
    };
    over_warp();
    if (lane == 0) {
        sums[warp] = sum;
        numbers[warp] = number;
        firsts[warp] = first;
    }
    __syncthreads();
    sum = lane < n_warps ? sums[lane] : 0.0;
    number = lane < n_warps ? numbers[lane] : 0;
    first = lane < n_warps ? firsts[lane] : NONE;
    over_warp();
    if (threadIdx.x == 0) {
        loss[0] = static_cast<float>(sum / static_cast<double>(number));
        counts[0] = number;
        counts[1] = first == NONE ? -1 : first;
    }
}
EMULATED(cross_entropy_mean)

#define CROSS_ENTROPY(name, T)                                                                                              \
    extern "C" __global__ void __launch_bounds__(512) cross_entropy_forward_##name(                                         \
        const T* logits, const long long* labels, float* nll, float* statistics, int rows, int d) {                         \
        forward(logits, labels, nll, statistics, rows, d);                                                                  \
    }                                                                                                                       \
    EMULATED(cross_entropy_forward_##name)                                                                                  \
    extern "C" __global__ void __launch_bounds__(512)                                                                       \
        cross_entropy_backward_##name(const T* logits, const long long* labels, const float* statistics,                    \
                                      const long long* counts, const float* d_loss, T* d_logits, int rows, int d) {         \
        backward(logits, labels, statistics, counts, d_loss, d_logits, rows, d);                                            \
    }                                                                                                                       \
    EMULATED(cross_entropy_backward_##name)

CROSS_ENTROPY(f32, float)
CROSS_ENTROPY(bf16, bf16)
CROSS_ENTROPY(f16, f16)
