// Rotary positions: pair (i, i + half) of a head turns by the angle of its token (Su et al. 2021, half-split as in LLaMA).
//
//   y_i = x_i·cos − x_{i+half}·sin,  y_{i+half} = x_{i+half}·cos + x_i·sin        in the first n_heads heads of a row
//   y = x                                                                         behind them
//   sign = −1 turns back, which is the gradient of sign = 1
//
// x, y (rows, width) in f32, bf16 or f16, cos, sin (rows, half) in f32, row-major; a head has 2·half elements. Deterministic.
// Grid: any number of blocks, each in turn over pieces of blockDim items; an item is a pair, or an element behind the heads.
// Shared memory: none.
#include "common.cuh"

template <class T>
__device__ __forceinline__ void turn(const T* x, const float* cos, const float* sin, T* y, Offset n_items, int per_row, int n_pairs, int width,
                                     int half, float sign) {
    for (Offset item = Offset(blockIdx.x) * blockDim.x + threadIdx.x; item < n_items; item += Offset(gridDim.x) * blockDim.x) {
        const Offset row = item / per_row;
        const int place = item % per_row;
        const T* from = x + row * width;
        T* to = y + row * width;
        if (place < n_pairs) {
            const int pair = place % half, left = place / half * 2 * half + pair;
            const float c = cos[row * half + pair], s = sign * sin[row * half + pair];
            const float a = to_float(from[left]), b = to_float(from[left + half]);
            to[left] = from_float<T>(a * c - b * s);
            to[left + half] = from_float<T>(b * c + a * s);
        } else {
            to[n_pairs + place] = from[n_pairs + place];
        }
    }
}

#define ROTARY(type, T)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(256) rotary_##type(const T* x, const float* cos, const float* sin, T* y,      \
                                                                    long long n_items, int per_row, int n_pairs, int width,    \
                                                                    int half, float sign) {                                    \
        turn<T>(x, cos, sin, y, n_items, per_row, n_pairs, width, half, sign);                                                 \
    }                                                                                                                          \
    EMULATED(rotary_##type)

ROTARY(f32, float)
ROTARY(bf16, bf16)
ROTARY(f16, f16)
