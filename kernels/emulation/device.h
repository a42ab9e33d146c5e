// The CUDA half of common.cuh for a C++20 compiler: what a kernel may use, run on the CPU.
//
// Each CUDA thread is a fibre; barriers, warp shuffles, tensor-core products and cluster barriers are the points where it gives way to
// the others. The register layouts of `mma` and `ldmatrix` are those of the PTX manual, so a kernel that mixes them up fails
// here too. Asynchronous copies arrive at their `copy_wait`, not before.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <algorithm>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __restrict__ __restrict
#define CLUSTERS 1

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

namespace emulation {

// What the running fibre knows about itself; the emulator's own data follow behind it.
struct Place {
    dim3 thread, block, n_threads, n_blocks;
    unsigned rank;          // of the block in its cluster
    unsigned char* shared;  // of the block
};
extern thread_local Place* here;

enum class Barrier { Warp, Block, Cluster };
void wait(Barrier barrier);
[[noreturn]] void fail(const char* message);
// 64 bytes of each lane of a warp, for exchange between two warp barriers.
unsigned char* slot(unsigned lane);
unsigned char* shared_of(unsigned rank);
void copy_later(void* to, const void* from, bool valid);
void copies_commit();
void copies_wait(int n);

inline unsigned lane() { return here->thread.x % 32; }

// Every lane of the mask calls it; the value of lane `source`.
template <class T>
T exchange(unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) <= 64);
    if (mask != 0xffffffffu) fail("a warp primitive with a mask that is not full");
    std::memcpy(slot(lane()), &value, sizeof(T));
    wait(Barrier::Warp);
    T result;
    std::memcpy(&result, slot(source % 32), sizeof(T));
    wait(Barrier::Warp);
    return result;
}

using Function = void (*)(void** arguments);
// Adds a kernel to the table of names. `signature` has a letter for each parameter: pointer, int, long, float.
struct Register {
    Register(const char* name, Function function, const char* signature);
};
template <class P>
constexpr char letter() {
    if constexpr (std::is_pointer_v<P>) {
        return 'p';
    } else if constexpr (std::is_same_v<P, int>) {
        return 'i';
    } else if constexpr (std::is_same_v<P, long long>) {
        return 'l';
    } else {
        static_assert(std::is_same_v<P, float>, "kernels take pointers, int, long long and float");
        return 'f';
    }
}
template <auto Kernel>
struct Call;
template <class... P, void (*Kernel)(P...)>
struct Call<Kernel> {
    template <size_t... I>
    static void with(void** a, std::index_sequence<I...>) {
        Kernel(*static_cast<std::remove_const_t<P>*>(a[I])...);
    }
    static constexpr char SIGNATURE[] = {letter<std::remove_const_t<P>>()..., 0};
    static void run(void** a) { with(a, std::index_sequence_for<P...>{}); }
};

float half_to_float(uint16_t bits);
uint16_t float_to_half(float x);

// Row-major element (i, j) of a 16-bit fragment register pair; see `mma_bf16` in common.cuh.
template <class Convert>
void mma16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], Convert convert) {
    struct Fragments {
        unsigned a[4], b[2];
    } mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    std::memcpy(slot(lane()), &mine, sizeof mine);
    wait(Barrier::Warp);
    Fragments all[32];
    for (unsigned l = 0; l < 32; ++l) std::memcpy(&all[l], slot(l), sizeof mine);
    wait(Barrier::Warp);
    auto half = [&](unsigned reg, int k) { return convert(static_cast<uint16_t>(k % 2 ? reg >> 16 : reg & 0xffff)); };
    auto left = [&](int i, int k) { return half(all[i % 8 * 4 + k % 8 / 2].a[i / 8 + 2 * (k / 8)], k); };
    auto right = [&](int k, int j) { return half(all[j * 4 + k % 8 / 2].b[k / 8], k); };
    int g = lane() / 4, t = lane() % 4;
    for (int e = 0; e < 4; ++e) {
        int i = g + 8 * (e / 2), j = 2 * t + e % 2;
        float sum = d[e];
        for (int k = 0; k < 16; ++k) sum += left(i, k) * right(k, j);
        d[e] = sum;
    }
}

}  // namespace emulation

#define threadIdx (emulation::here->thread)
#define blockIdx (emulation::here->block)
#define blockDim (emulation::here->n_threads)
#define gridDim (emulation::here->n_blocks)
#define EMULATED(name) static emulation::Register register_##name(#name, emulation::Call<&name>::run, emulation::Call<&name>::SIGNATURE);

template <class T>
T* shared_memory() {
    return reinterpret_cast<T*>(emulation::here->shared);
}

inline void __syncthreads() { emulation::wait(emulation::Barrier::Block); }
inline void __syncwarp(unsigned = 0xffffffffu) { emulation::wait(emulation::Barrier::Warp); }
template <class T>
T __shfl_sync(unsigned mask, T value, int source) {
    return emulation::exchange(mask, value, source);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int offset) {
    return emulation::exchange(mask, value, emulation::lane() ^ offset);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned offset) {
    unsigned source = emulation::lane() + offset;
    return emulation::exchange(mask, value, source < 32 ? source : emulation::lane());
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned offset) {
    unsigned lane = emulation::lane();
    return emulation::exchange(mask, value, lane >= offset ? lane - offset : lane);
}
inline unsigned __ballot_sync(unsigned mask, bool predicate) {
    unsigned bits = predicate ? 1u << emulation::lane() : 0u;
    for (int offset = 16; offset > 0; offset /= 2) bits |= __shfl_xor_sync(mask, bits, offset);
    return bits;
}

// The place of the lowest bit that is set, from 1 on; 0 if none is.
inline int __ffs(int bits) { return __builtin_ffs(bits); }

inline unsigned __float_as_uint(float x) {
    unsigned y;
    std::memcpy(&y, &x, 4);
    return y;
}
inline float __uint_as_float(unsigned x) {
    float y;
    std::memcpy(&y, &x, 4);
    return y;
}
inline int __float_as_int(float x) { return static_cast<int>(__float_as_uint(x)); }
inline float __int_as_float(int x) { return __uint_as_float(static_cast<unsigned>(x)); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }
template <class T>
T __ldg(const T* pointer) {
    return *pointer;
}
using std::max;
using std::min;

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
inline float to_float(f16 x) { return emulation::half_to_float(x.bits); }
template <class T>
T from_float(float x);
template <>
inline float from_float<float>(float x) {
    return x;
}
template <>
inline bf16 from_float<bf16>(float x) {
    unsigned u = __float_as_uint(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
    return {static_cast<unsigned short>((u + 0x7fffu + (u >> 16 & 1u)) >> 16)};
}
template <>
inline f16 from_float<f16>(float x) {
    return {emulation::float_to_half(x)};
}

inline void copy_async(void* shared, const void* global, bool valid) { emulation::copy_later(shared, global, valid); }
inline void copy_commit() { emulation::copies_commit(); }
template <int N>
void copy_wait() {
    emulation::copies_wait(N);
}

namespace emulation {
inline void matrices(unsigned (&r)[4], const void* row, bool transposed) {
    if (reinterpret_cast<uintptr_t>(row) % 16) fail("ldmatrix from an address that is not aligned to 16 bytes");
    const void* rows[32];
    std::memcpy(slot(lane()), &row, sizeof row);
    wait(Barrier::Warp);
    for (unsigned l = 0; l < 32; ++l) std::memcpy(&rows[l], slot(l), sizeof row);
    unsigned g = lane() / 4, t = lane() % 4;
    auto element = [&](int m, unsigned i, unsigned j) {
        uint16_t bits;
        std::memcpy(&bits, static_cast<const char*>(rows[8 * m + i]) + 2 * j, 2);
        return static_cast<unsigned>(bits);
    };
    for (int m = 0; m < 4; ++m) {
        r[m] = transposed ? element(m, 2 * t, g) | element(m, 2 * t + 1, g) << 16
                          : element(m, g, 2 * t) | element(m, g, 2 * t + 1) << 16;
    }
    wait(Barrier::Warp);
}
}  // namespace emulation
inline void load_matrices(unsigned (&r)[4], const void* row) { emulation::matrices(r, row, false); }
inline void load_matrices_transposed(unsigned (&r)[4], const void* row) { emulation::matrices(r, row, true); }

inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulation::mma16(d, a, b, [](uint16_t bits) { return __uint_as_float(static_cast<unsigned>(bits) << 16); });
}
inline void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    emulation::mma16(d, a, b, [](uint16_t bits) { return emulation::half_to_float(bits); });
}
// Tensor cores ignore the 13 low bits of a tf32 operand.
inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    struct Fragments {
        unsigned a[4], b[2];
    } mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, all[32];
    std::memcpy(emulation::slot(emulation::lane()), &mine, sizeof mine);
    emulation::wait(emulation::Barrier::Warp);
    for (unsigned l = 0; l < 32; ++l) std::memcpy(&all[l], emulation::slot(l), sizeof mine);
    emulation::wait(emulation::Barrier::Warp);
    auto value = [](unsigned bits) { return __uint_as_float(bits & 0xffffe000u); };
    int g = emulation::lane() / 4, t = emulation::lane() % 4;
    for (int e = 0; e < 4; ++e) {
        int i = g + 8 * (e / 2), j = 2 * t + e % 2;
        float sum = d[e];
        for (int k = 0; k < 8; ++k) sum += value(all[i % 8 * 4 + k % 4].a[i / 8 + 2 * (k / 4)]) * value(all[j * 4 + k % 4].b[k / 4]);
        d[e] = sum;
    }
}
inline unsigned to_tf32(float x) {
    unsigned u = __float_as_uint(x);
    return (u & 0x7f800000u) == 0x7f800000u ? u : (u + 0x1000u) & 0xffffe000u;
}

inline unsigned cluster_rank() { return emulation::here->rank; }
inline void cluster_barrier() { emulation::wait(emulation::Barrier::Cluster); }
inline float cluster_load(const float* mine, unsigned rank) {
    ptrdiff_t offset = reinterpret_cast<const unsigned char*>(mine) - emulation::here->shared;
    float value;
    std::memcpy(&value, emulation::shared_of(rank) + offset, sizeof value);
    return value;
}
inline float4 cluster_load4(const float* mine, unsigned rank) {
    if (reinterpret_cast<uintptr_t>(mine) % 16) emulation::fail("a load of four floats that is not aligned to 16 bytes");
    return {cluster_load(mine, rank), cluster_load(mine + 1, rank), cluster_load(mine + 2, rank), cluster_load(mine + 3, rank)};
}
