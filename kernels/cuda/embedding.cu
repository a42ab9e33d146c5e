// Rows of a table by their ids, and the gradient to the table.
//
//   forward   y_i = table[ids_i];  NaN for an id outside the table
//   check     the first i whose id is outside the table, or −1
//   backward  d_table_r = Σ dy_i over all i with ids_i = r, in ascending i;  an id outside the table adds nothing
//
// table (n_rows, d), y, dy (n, d) in f32, bf16 or f16, row-major; ids (n) in u32 or i64; d_table (n_rows, d) in f32. Deterministic.
// Forward: a warp for each id, W elements an access. Check: one block; shared memory: 32 numbers of 8 bytes.
// Backward: grid (n_rows, tiles of blockDim·W columns); each block goes over all ids, blockDim at a time, and adds the rows that are its
// own; shared memory: a word for each warp. It costs n_rows·n comparisons, which for a table of 32,000 rows and 4,096 ids come from L2.
#include "common.cuh"

template <class T, int W, class Id>
__device__ __forceinline__ void forward(const T* table, const Id* ids, T* y, int n, int n_rows, int d) {
    const int i = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (i < n) {
        const long long id = ids[i];
        const bool inside = id >= 0 && id < n_rows;
        const T* row = table + (inside ? id : 0) * d;
        T* out = y + Offset(i) * d;
        for (int column = lane * W; column < d; column += 32 * W) {
            float value[W];
            for (int k = 0; k < W; ++k) value[k] = __int_as_float(0x7fc00000);
            if (inside) load_floats<W>(value, row, column);
            store_floats<W>(out, column, value);
        }
    }
}

template <class Id>
__device__ __forceinline__ void check(const Id* ids, long long* first_outside, int n, int n_rows) {
    constexpr long long NONE = 0x7fffffffffffffff;
    long long* firsts = shared_memory<long long>();
    long long first = NONE;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const long long id = ids[i];
        if (id < 0 || id >= n_rows) first = min(first, static_cast<long long>(i));
    }
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_warps = blockDim.x / 32;
    for (int offset = 16; offset > 0; offset /= 2) first = min(first, __shfl_xor_sync(FULL, first, offset));
    if (lane == 0) firsts[warp] = first;
    __syncthreads();
    first = lane < n_warps ? firsts[lane] : NONE;
    for (int offset = 16; offset > 0; offset /= 2) first = min(first, __shfl_xor_sync(FULL, first, offset));
    if (threadIdx.x == 0) first_outside[0] = first == NONE ? -1 : first;
}

template <class T, int W, class Id>
__device__ __forceinline__ void backward(const Id* ids, const T* dy, float* d_table, int n, int d) {
    const int column = (blockIdx.y * blockDim.x + threadIdx.x) * W;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_warps = blockDim.x / 32;
    unsigned* hits = shared_memory<unsigned>();
    float sum[W] = {};
    for (int base = 0; base < n; base += blockDim.x) {
        const int mine = base + threadIdx.x;
        const unsigned hit = __ballot_sync(FULL, mine < n && static_cast<long long>(ids[mine]) == blockIdx.x);
        if (lane == 0) hits[warp] = hit;
        __syncthreads();
        for (int w = 0; w < n_warps; ++w) {
            for (unsigned rest = hits[w]; rest; rest &= rest - 1) {
                const int i = base + 32 * w + __ffs(static_cast<int>(rest)) - 1;
                if (column < d) {
                    float gradient[W];
                    load_floats<W>(gradient, dy + Offset(i) * d, column);
                    for (int k = 0; k < W; ++k) sum[k] += gradient[k];
                }
            }
        }
        __syncthreads();
    }
    if (column < d) store_floats<W>(d_table + Offset(blockIdx.x) * d, column, sum);
}

#define EMBEDDING(name, T, W, Id)                                                                                          \
    extern "C" __global__ void __launch_bounds__(256)                                                                      \
        embedding_forward_##name(const T* table, const Id* ids, T* y, int n, int n_rows, int d) {                          \
        forward<T, W>(table, ids, y, n, n_rows, d);                                                                        \
    }                                                                                                                      \
    EMULATED(embedding_forward_##name)                                                                                     \
    extern "C" __global__ void __launch_bounds__(256)                                                                      \
        embedding_backward_##name(const Id* ids, const T* dy, float* d_table, int n, int d) {                              \
        backward<T, W>(ids, dy, d_table, n, d);                                                                            \
    }                                                                                                                      \
    EMULATED(embedding_backward_##name)

#define EMBEDDING_BY(ids, Id)                                                                                              \
    extern "C" __global__ void __launch_bounds__(1024)                                                                     \
        embedding_check_##ids(const Id* indices, long long* first_outside, int n, int n_rows) {                            \
        check(indices, first_outside, n, n_rows);                                                                          \
    }                                                                                                                      \
    EMULATED(embedding_check_##ids)                                                                                        \
    EMBEDDING(ids##_f32, float, 4, Id)                                                                                     \
    EMBEDDING(ids##_bf16, bf16, 8, Id)                                                                                     \
    EMBEDDING(ids##_f16, f16, 8, Id)                                                                                       \
    EMBEDDING(ids##_single_f32, float, 1, Id)                                                                              \
    EMBEDDING(ids##_single_bf16, bf16, 1, Id)                                                                              \
    EMBEDDING(ids##_single_f16, f16, 1, Id)

EMBEDDING_BY(u32, unsigned)
EMBEDDING_BY(i64, long long)
