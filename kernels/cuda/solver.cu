// What batched SVD needs beside cuSOLVER and cuBLAS: a check for NaN and infinity, f32 to f64 and back, and the way from the
// eigenpairs of a Gram matrix to singular triples.
//
//   G = AᵀA (q, q), G y = λ y    =>    σ = sqrt λ, the near vector y, the far vector A y / σ
//
// Eigenvalues come ascending; singular values leave descending, the first k of q. λ ≤ q·eps·λ_max is a zero within the rounding of
// G: σ and y/σ are 0 there. All matrices lie one after another; vectors are contiguous. f64 throughout, f32 or f64 at the ends.
// Deterministic. Grids of one dimension, 256 threads; shared memory: 64 floats for the check.
#include "common.cuh"

constexpr double EPS = 2.220446049250313e-16;

// flags (batch·chunks): 1 where a chunk of a matrix of `len` numbers has one that is not finite.
template <class T>
__device__ __forceinline__ void nonfinite(const T* x, unsigned* flags, Offset len, int chunks) {
    Offset matrix = blockIdx.x / chunks, chunk = blockIdx.x % chunks;
    const T* values = x + matrix * len;
    float bad = 0.0f;
    for (Offset i = chunk * blockDim.x + threadIdx.x; i < len; i += Offset(chunks) * blockDim.x) {
        T value = values[i];
        // Infinity minus itself is NaN, which equals nothing.
        if (!(value - value == T(0))) bad = 1.0f;
    }
    bad = block_max(bad, shared_memory<float>());
    if (threadIdx.x == 0) flags[blockIdx.x] = bad > 0.0f ? 1u : 0u;
}

template <class From, class To>
__device__ __forceinline__ void convert(const From* x, To* y, Offset n) {
    Offset i = Offset(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) y[i] = static_cast<To>(x[i]);
}

// One block a pair: block b·k + j takes the j-th largest eigenvalue of matrix b. `values` (batch, q), `vectors` (batch, q, q) by
// vectors; `s` (batch, k), `near` and `scaled` (batch, k, q).
template <class T>
__device__ __forceinline__ void from_eigen(const double* values, const double* vectors, T* s, T* near, double* scaled, int q, int k) {
    Offset matrix = blockIdx.x / k, column = q - 1 - blockIdx.x % k;
    double largest = values[matrix * q + q - 1], value = values[matrix * q + column];
    double sigma = value > q * EPS * largest ? sqrt(value) : 0.0;
    double inverse = sigma > 0.0 ? 1.0 / sigma : 0.0;
    const double* vector = vectors + (matrix * q + column) * q;
    for (int i = threadIdx.x; i < q; i += blockDim.x) {
        near[Offset(blockIdx.x) * q + i] = static_cast<T>(vector[i]);
        scaled[Offset(blockIdx.x) * q + i] = vector[i] * inverse;
    }
    if (threadIdx.x == 0) s[blockIdx.x] = static_cast<T>(sigma);
}

#define SOLVER(name, T)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(256) solver_nonfinite_##name(const T* x, unsigned* flags, Offset len, int chunks) { \
        nonfinite<T>(x, flags, len, chunks);                                                                               \
    }                                                                                                                      \
    EMULATED(solver_nonfinite_##name)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256)                                                                      \
        solver_from_eigen_##name(const double* values, const double* vectors, T* s, T* near, double* scaled, int q, int k) { \
        from_eigen<T>(values, vectors, s, near, scaled, q, k);                                                             \
    }                                                                                                                      \
    EMULATED(solver_from_eigen_##name)
SOLVER(f32, float)
SOLVER(f64, double)

extern "C" __global__ void __launch_bounds__(256) solver_widen(const float* x, double* y, Offset n) { convert(x, y, n); }
EMULATED(solver_widen)
extern "C" __global__ void __launch_bounds__(256) solver_narrow(const double* x, float* y, Offset n) { convert(x, y, n); }
EMULATED(solver_narrow)
