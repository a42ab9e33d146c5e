// What every kernel file shares: half-precision storage, vector loads, reductions, tensor-core products, clusters.
//
// No header of the CUDA toolkit is needed, so that NVRTC compiles these files on any machine with a driver. The same files
// compile as plain C++20 for the emulator (emulation/device.h takes the place of the `__CUDACC__` half below).
//
// House rules for a kernel:
//  - one-dimensional blocks of at most 1024 threads, a multiple of 32; all shared memory is dynamic, from `shared_memory<T>()`;
//  - no thread returns before the last barrier; the bounds check encloses the load or the store;
//  - offsets into buffers are `Offset` (64 bits); sums are kept in f32 or better;
//  - no atomics on floats: the result may not depend on the order of threads;
//  - `EMULATED(name)` after each `extern "C" __global__` function.
#pragma once

using Offset = long long;

// Storage types. The bits are all there is to them: arithmetic happens in float.
struct alignas(2) bf16 {
    unsigned short bits;
};
struct alignas(2) f16 {
    unsigned short bits;
};

#ifndef __CUDACC__
#include "device.h"
#else

#define EMULATED(name)

extern __shared__ __align__(128) unsigned char fwd_shared_bytes[];

// The block's dynamic shared memory, aligned to 128 bytes.
template <class T>
__device__ __forceinline__ T* shared_memory() {
    return reinterpret_cast<T*>(fwd_shared_bytes);
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
__device__ __forceinline__ float to_float(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
    return x;
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}
template <>
__device__ __forceinline__ f16 from_float<f16>(float x) {
    f16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// Starts the copy of 16 bytes from global to shared memory, or of 16 zero bytes if not `valid`. Both must be aligned to 16.
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid) {
    int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes) : "memory");
}
// Ends a group of copies.
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `N` of this thread's groups are under way. The other threads' copies need a barrier after it.
template <int N>
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// Four 8×8 matrices of 16-bit elements from shared memory. Lane l gives the address of row l % 8 of matrix l / 8 (16 bytes,
// aligned) and gets, of each matrix, the elements 2·(l % 4) and 2·(l % 4) + 1 of row l / 4.
__device__ __forceinline__ void load_matrices(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
// The same, each matrix transposed.
__device__ __forceinline__ void load_matrices_transposed(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// d += a·b on tensor cores, a 16×16, b 16×8, d 16×8. With g = lane / 4 and t = lane % 4:
//   a[0] (g, 2t..), a[1] (g+8, 2t..), a[2] (g, 2t+8..), a[3] (g+8, 2t+8..);   b[0] (2t.., g), b[1] (2t+8.., g);
//   d[0..1] (g, 2t..), d[2..3] (g+8, 2t..).      Two 16-bit elements a register, the first in the low half.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_f16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// d += a·b, a 16×8, b 8×8, both tf32 (f32 bits from `to_tf32`):
//   a[0] (g, t), a[1] (g+8, t), a[2] (g, t+4), a[3] (g+8, t+4);   b[0] (t, g), b[1] (t+4, g);   d as above.
__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// The nearest number with 10 bits of mantissa.
__device__ __forceinline__ unsigned to_tf32(float x) {
    unsigned y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}

// Clusters of blocks (sm_90 and newer). A kernel that uses them is declared with `__cluster_dims__`; on older targets its body
// must be empty (`#if CLUSTERS`).
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define CLUSTERS 1
__device__ __forceinline__ unsigned cluster_rank() {
    unsigned r;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}
// All threads of the cluster; orders accesses to shared memory.
__device__ __forceinline__ void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// A float in the shared memory of another block of the cluster, at the place where `mine` is in this one's.
__device__ __forceinline__ float cluster_load(const float* mine, unsigned rank) {
    unsigned address;
    float value;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(mine)), "r"(rank));
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(value) : "r"(address) : "memory");
    return value;
}
// Four floats, aligned to 16 bytes.
__device__ __forceinline__ float4 cluster_load4(const float* mine, unsigned rank) {
    unsigned address;
    float4 value;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(mine)), "r"(rank));
    asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
                 : "r"(address)
                 : "memory");
    return value;
}
#else
#define CLUSTERS 0
// Compilers refuse it for targets without clusters.
#undef __cluster_dims__
#define __cluster_dims__(...)
#endif

#endif  // __CUDACC__

constexpr unsigned FULL = 0xffffffffu;

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }

// 16 bytes of storage: 4 floats or 8 halves. Loads and stores of a whole pack need an address aligned to 16.
template <class T>
struct alignas(16) Pack {
    static constexpr int N = 16 / sizeof(T);
    T at[N];
};
template <class T>
__device__ __forceinline__ Pack<T> load_pack(const T* pointer) {
    return *reinterpret_cast<const Pack<T>*>(pointer);
}
template <class T>
__device__ __forceinline__ void store_pack(T* pointer, const Pack<T>& pack) {
    *reinterpret_cast<Pack<T>*>(pointer) = pack;
}

// W elements of a row as floats: one element, or whole packs, which need an address aligned to 16.
template <int W, class T>
__device__ __forceinline__ void load_floats(float (&out)[W], const T* row, int column) {
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
__device__ __forceinline__ void store_floats(T* row, int column, const float (&values)[W]) {
    if constexpr (W == 1) {
        row[column] = from_float<T>(values[0]);
    } else {
        static_assert(W % Pack<T>::N == 0);
        for (int p = 0; p < W / Pack<T>::N; ++p) {
            Pack<T> pack;
            for (int i = 0; i < Pack<T>::N; ++i) pack.at[i] = from_float<T>(values[p * Pack<T>::N + i]);
            store_pack(row + column + p * Pack<T>::N, pack);
        }
    }
}

// Two 16-bit elements in one register, as the tensor cores take them.
template <class T>
__device__ __forceinline__ unsigned pair(T low, T high) {
    return static_cast<unsigned>(low.bits) | static_cast<unsigned>(high.bits) << 16;
}

__device__ __forceinline__ float warp_sum(float x) {
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(FULL, x, offset);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
    for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(FULL, x, offset));
    return x;
}

// The sums of two numbers over the block, for every thread. `scratch` are 64 floats of shared memory; it may be used again
// after the call without a barrier.
__device__ __forceinline__ void block_sum2(float& a, float& b, float* scratch) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_warps = blockDim.x / 32;
    a = warp_sum(a);
    b = warp_sum(b);
    if (lane == 0) {
        scratch[warp] = a;
        scratch[32 + warp] = b;
    }
    __syncthreads();
    a = warp_sum(lane < n_warps ? scratch[lane] : 0.0f);
    b = warp_sum(lane < n_warps ? scratch[32 + lane] : 0.0f);
    __syncthreads();
}
__device__ __forceinline__ float block_sum(float x, float* scratch) {
    float unused = 0.0f;
    block_sum2(x, unused, scratch);
    return x;
}
// The maximum over the block, for every thread; `scratch` as for the sums.
__device__ __forceinline__ float block_max(float x, float* scratch) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n_warps = blockDim.x / 32;
    x = warp_max(x);
    if (lane == 0) scratch[warp] = x;
    __syncthreads();
    x = warp_max(lane < n_warps ? scratch[lane] : scratch[0]);
    __syncthreads();
    return x;
}
