// Activations of a feed-forward layer, plain and gated, with the gradients to their input.
//
//   GELU (erf)   f(x) = x·Φ(x),   f' = Φ + x·φ,   Φ and φ the normal distribution and its density
//   GELU (tanh)  f(x) = x·σ(2u),  u = √(2/π)·(x + 0.044715·x³)
//   ReLU         f(x) = max(x, 0)
//   SiLU         f(x) = x·σ(x),   quick GELU  f(x) = x·σ(1.702·x)
//   plain        y = f(x),  dx = dy·f'(x)                                  x, y, dy, dx of n elements
//   gated        y = f(g)·u,  dg = dy·u·f'(g),  du = dy·f(g)               h = [g | u] and dh (rows, 2·d), y and dy (rows, d)
//
// All in f32, bf16 or f16, row-major; arithmetic in f32. Deterministic.
// Grid: any number of blocks, each in turn over tiles of UNROLL·blockDim accesses of 16 bytes; gated rows whose length is no multiple of
// an access go by single elements. Shared memory: none.
#include "common.cuh"

struct GeluErf {
    static __device__ __forceinline__ float value(float x) {
        float y, slope;
        both(x, y, slope);
        return y;
    }
    // 1 − Φ(|x|) = t·P(t)·exp(−x²/2) within 0.75e-7 (Abramowitz & Stegun 1964, 7.1.26): one exponential for both, and no cancellation
    // for negative x.
    static __device__ __forceinline__ void both(float x, float& y, float& slope) {
        const float t = __fdividef(1.0f, 1.0f + 0.23164189f * fabsf(x));
        const float e = __expf(-0.5f * x * x);
        float p = 0.5307027145f;
        p = p * t - 0.7265760135f;
        p = p * t + 0.7107068705f;
        p = p * t - 0.142248368f;
        p = p * t + 0.127414796f;
        const float tail = p * t * e, cdf = x < 0.0f ? tail : 1.0f - tail;
        y = x * cdf;
        slope = cdf + x * (0.3989422804f * e);
    }
};

struct GeluTanh {
    static constexpr float ROOT = 0.7978845608f, CUBIC = 0.044715f;
    static __device__ __forceinline__ float value(float x) {
        const float u = ROOT * (x + CUBIC * x * x * x);
        return __fdividef(x, 1.0f + __expf(-2.0f * u));
    }
    // σ is 0 or 1 to the last bit from 20 on; without the bound the powers of x would overflow to 0·∞.
    static __device__ __forceinline__ void both(float x, float& y, float& slope) {
        float t = x > 20.0f ? 20.0f : x;
        t = t < -20.0f ? -20.0f : t;
        const float u = ROOT * (t + CUBIC * t * t * t), du = ROOT * (1.0f + 3.0f * CUBIC * t * t);
        const float s = __fdividef(1.0f, 1.0f + __expf(-2.0f * u));
        y = x * s;
        slope = s + t * s * (1.0f - s) * (2.0f * du);
    }
};

struct Relu {
    // Written so that NaN stays NaN.
    static __device__ __forceinline__ float value(float x) { return x < 0.0f ? 0.0f : x; }
    static __device__ __forceinline__ void both(float x, float& y, float& slope) {
        y = value(x);
        slope = x > 0.0f ? 1.0f : 0.0f;
    }
};

// x·σ(a·x), a = SCALE / 1000.
template <int SCALE>
struct SigmoidGated {
    static constexpr float A = SCALE / 1000.0f;
    static __device__ __forceinline__ float value(float x) {
        return __fdividef(x, 1.0f + __expf(-A * x));
    }
    // 1 − σ without cancellation, and bounded as in GeluTanh.
    static __device__ __forceinline__ void both(float x, float& y, float& slope) {
        const float e = __expf(-A * x), s = __fdividef(1.0f, 1.0f + e);
        const float rest = x > 0.0f ? e * s : 1.0f - s;
        float t = x > 40.0f ? 40.0f : x;
        t = t < -40.0f ? -40.0f : t;
        y = x * s;
        slope = s + A * t * s * rest;
    }
};
using Silu = SigmoidGated<1000>;
using QuickGelu = SigmoidGated<1702>;

// Calls `body(tile)` for this block's tiles of the accesses 0 .. n, where `tile` is the first of this thread's UNROLL accesses.
template <int UNROLL, class Body>
__device__ __forceinline__ void for_each_tile(unsigned n, Body body) {
    const unsigned width = UNROLL * blockDim.x;
    for (unsigned first = blockIdx.x * width + threadIdx.x; first < n; first += gridDim.x * width) body(first);
}

template <class A, class T>
__device__ __forceinline__ void forward(const T* x, T* y, Offset n) {
    constexpr int W = Pack<T>::N, UNROLL = 4;
    const unsigned n_packs = n / W;
    for_each_tile<UNROLL>(n_packs, [&](unsigned first) {
        float value[UNROLL][W];
        for (int u = 0; u < UNROLL; ++u) {
            const unsigned p = first + u * blockDim.x;
            if (p < n_packs) load_floats<W>(value[u], x + Offset(p) * W, 0);
        }
        for (int u = 0; u < UNROLL; ++u) {
            const unsigned p = first + u * blockDim.x;
            if (p < n_packs) {
                for (int i = 0; i < W; ++i) value[u][i] = A::value(value[u][i]);
                store_floats<W>(y + Offset(p) * W, 0, value[u]);
            }
        }
    });
    const Offset rest = Offset(n_packs) * W + threadIdx.x;
    if (blockIdx.x == 0 && rest < n) y[rest] = from_float<T>(A::value(to_float(x[rest])));
}

template <class A, class T>
__device__ __forceinline__ void backward(const T* x, const T* dy, T* dx, Offset n) {
    constexpr int W = Pack<T>::N, UNROLL = 2;
    const unsigned n_packs = n / W;
    float y, slope;
    for_each_tile<UNROLL>(n_packs, [&](unsigned first) {
        float value[UNROLL][W], gradient[UNROLL][W];
        for (int u = 0; u < UNROLL; ++u) {
            const unsigned p = first + u * blockDim.x;
            if (p < n_packs) {
                load_floats<W>(value[u], x + Offset(p) * W, 0);
                load_floats<W>(gradient[u], dy + Offset(p) * W, 0);
            }
        }
        for (int u = 0; u < UNROLL; ++u) {
            const unsigned p = first + u * blockDim.x;
            if (p < n_packs) {
                for (int i = 0; i < W; ++i) {
                    A::both(value[u][i], y, slope);
                    gradient[u][i] *= slope;
                }
                store_floats<W>(dx + Offset(p) * W, 0, gradient[u]);
            }
        }
    });
    const Offset rest = Offset(n_packs) * W + threadIdx.x;
    if (blockIdx.x == 0 && rest < n) {
        A::both(to_float(x[rest]), y, slope);
        dx[rest] = from_float<T>(to_float(dy[rest]) * slope);
    }
}

// Access p of (rows, d) is access p plus d elements for each row before it of the left half of (rows, 2·d).
template <class A, class T, int W>
__device__ __forceinline__ void gated_forward(const T* h, T* y, int n_accesses, int d) {
    constexpr int UNROLL = 2;
    const unsigned n = n_accesses, per_row = d / W;
    for_each_tile<UNROLL>(n, [&](unsigned first) {
        float gate[UNROLL][W], up[UNROLL][W];
        for (int u = 0; u < UNROLL; ++u) {
            const unsigned p = first + u * blockDim.x;
            if (p < n) {
                const T* left = h + Offset(p) * W + Offset(p / per_row) * d;
                load_floats<W>(gate[u], left, 0);
                load_floats<W>(up[u], left, d);
            }
        }
        for (int u = 0; u < UNROLL; ++u) {
            const unsigned p = first + u * blockDim.x;
            if (p < n) {
                for (int i = 0; i < W; ++i) gate[u][i] = A::value(gate[u][i]) * up[u][i];
                store_floats<W>(y + Offset(p) * W, 0, gate[u]);
            }
        }
    });
}

template <class A, class T, int W>
__device__ __forceinline__ void gated_backward(const T* h, const T* dy, T* dh, int n_accesses, int d) {
    constexpr int UNROLL = 2;
    const unsigned n = n_accesses, per_row = d / W;
    for_each_tile<UNROLL>(n, [&](unsigned first) {
        float gate[UNROLL][W], up[UNROLL][W], gradient[UNROLL][W];
        for (int u = 0; u < UNROLL; ++u) {
            const unsigned p = first + u * blockDim.x;
            if (p < n) {
                const T* left = h + Offset(p) * W + Offset(p / per_row) * d;
                load_floats<W>(gate[u], left, 0);
                load_floats<W>(up[u], left, d);
                load_floats<W>(gradient[u], dy + Offset(p) * W, 0);
            }
        }
        for (int u = 0; u < UNROLL; ++u) {
            const unsigned p = first + u * blockDim.x;
            if (p < n) {
                T* left = dh + Offset(p) * W + Offset(p / per_row) * d;
                for (int i = 0; i < W; ++i) {
                    float y, slope;
                    A::both(gate[u][i], y, slope);
                    gate[u][i] = gradient[u][i] * up[u][i] * slope;
                    up[u][i] = gradient[u][i] * y;
                }
                store_floats<W>(left, 0, gate[u]);
                store_floats<W>(left, d, up[u]);
            }
        }
    });
}

#define GATED(name, A, T, W)                                                                                           \
    extern "C" __global__ void __launch_bounds__(256) gated_forward_##name(const T* h, T* y, int n, int d) {           \
        gated_forward<A, T, W>(h, y, n, d);                                                                            \
    }                                                                                                                  \
    EMULATED(gated_forward_##name)                                                                                     \
    extern "C" __global__ void __launch_bounds__(256, 1) gated_backward_##name(const T* h, const T* dy, T* dh, int n, int d) { \
        gated_backward<A, T, W>(h, dy, dh, n, d);                                                                      \
    }                                                                                                                  \
    EMULATED(gated_backward_##name)

#define ACTIVATION(name, A, T, W)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256) activation_forward_##name(const T* x, T* y, long long n) {       \
        forward<A, T>(x, y, n);                                                                                        \
    }                                                                                                                  \
    EMULATED(activation_forward_##name)                                                                                \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        activation_backward_##name(const T* x, const T* dy, T* dx, long long n) {                                      \
        backward<A, T>(x, dy, dx, n);                                                                                  \
    }                                                                                                                  \
    EMULATED(activation_backward_##name)                                                                               \
    GATED(name, A, T, W)                                                                                               \
    GATED(single_##name, A, T, 1)

#define ACTIVATION_OF(type, T, W)             \
    ACTIVATION(gelu_erf_##type, GeluErf, T, W) \
    ACTIVATION(gelu_tanh_##type, GeluTanh, T, W) \
    ACTIVATION(relu_##type, Relu, T, W) \
    ACTIVATION(silu_##type, Silu, T, W) \
    ACTIVATION(quick_gelu_##type, QuickGelu, T, W)

ACTIVATION_OF(f32, float, 4)
ACTIVATION_OF(bf16, bf16, 8)
ACTIVATION_OF(f16, f16, 8)
