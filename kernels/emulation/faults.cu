// Kernels with one fault each, for the tests of the emulator.
#include "common.cuh"

// The sum of 64 numbers; `fault` chooses what is wrong with it.
extern "C" __global__ void fault_sum(const float* x, float* y, int fault) {
    float* shared = shared_memory<float>();
    int t = threadIdx.x;
    shared[t + (fault == 1 ? 32 : 0)] = x[t];
    if (fault != 2) __syncthreads();
    for (int half = 32; half > 0; half /= 2) {
        if (t < half) {
            shared[t] += shared[t + half];
            if (fault == 3) __syncthreads();
        }
        if (fault != 3) __syncthreads();
    }
    if (fault == 4 && t == 63) const_cast<float*>(x)[0] = 1.0f;
    if (fault == 5) y[t + 64] = shared[0];
    if (fault == 6 && t == 0) y[1] = shared[0];
    if (fault == 7 && t < 16) shared[0] = warp_sum(shared[0]);
    if (t == 0) y[0] = shared[0];
}
EMULATED(fault_sum)

// Reads what an asynchronous copy brings before it has come, unless told to wait.
extern "C" __global__ void fault_copy(const float* x, float* y, int wait) {
    float* shared = shared_memory<float>();
    copy_async(shared + 4 * threadIdx.x, x + 4 * threadIdx.x, true);
    copy_commit();
    if (wait) copy_wait<0>();
    __syncthreads();
    y[threadIdx.x] = shared[(threadIdx.x + 1) % 32];
}
EMULATED(fault_copy)

// An index beyond a local array.
extern "C" __global__ void fault_local(float* y, int index) {
    float local[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    y[threadIdx.x] = local[index + threadIdx.x / 16];
}
EMULATED(fault_local)

// Each block's sum over a cluster of four; without the barrier a block may read what is not there yet.
extern "C" __global__ void __cluster_dims__(4, 1, 1) fault_cluster(const float* x, float* y, int barrier) {
#if CLUSTERS
    float* shared = shared_memory<float>();
    shared[threadIdx.x] = x[blockIdx.x * 32 + threadIdx.x];
    if (barrier) cluster_barrier();
    float sum = 0.0f;
    for (unsigned rank = 0; rank < 4; ++rank) sum += cluster_load(shared + threadIdx.x, rank);
    cluster_barrier();
    y[blockIdx.x * 32 + threadIdx.x] = sum;
#endif
}
EMULATED(fault_cluster)

// Each block's numbers from its right neighbour in a cluster of four, four at a time from `offset` on.
extern "C" __global__ void __cluster_dims__(4, 1, 1) fault_cluster4(const float* x, float* y, int offset) {
#if CLUSTERS
    float* shared = shared_memory<float>();
    shared[threadIdx.x] = x[blockIdx.x * 32 + threadIdx.x];
    cluster_barrier();
    float4 four = cluster_load4(shared + threadIdx.x / 8 * 8 + offset, (cluster_rank() + 1) % 4);
    cluster_barrier();
    y[blockIdx.x * 32 + threadIdx.x] = four.x + four.y + four.z + four.w;
#endif
}
EMULATED(fault_cluster4)

// d = a·b for one fragment: a (16, 16), b (16, 8), row-major bf16; with ldmatrix.
extern "C" __global__ void matrices_bf16(const bf16* a, const bf16* b, float* d) {
    bf16* shared = shared_memory<bf16>();
    int lane = threadIdx.x;
    for (int i = lane; i < 256; i += 32) shared[i] = a[i];
    for (int i = lane; i < 128; i += 32) shared[256 + i] = b[i];
    __syncwarp();
    unsigned left[4], right[4];
    load_matrices(left, shared + (lane % 16) * 16 + lane / 16 * 8);
    load_matrices_transposed(right, shared + 256 + (lane % 16) * 8);
    float sum[4] = {};
    unsigned both[2] = {right[0], right[1]};
    mma_bf16(sum, left, both);
    for (int e = 0; e < 4; ++e) d[(lane / 4 + 8 * (e / 2)) * 8 + 2 * (lane % 4) + e % 2] = sum[e];
}
EMULATED(matrices_bf16)

// The same in tf32: a (16, 8), b (8, 8), f32.
extern "C" __global__ void matrices_tf32(const float* a, const float* b, float* d) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    unsigned left[4] = {to_tf32(a[g * 8 + t]), to_tf32(a[(g + 8) * 8 + t]), to_tf32(a[g * 8 + t + 4]), to_tf32(a[(g + 8) * 8 + t + 4])};
    unsigned right[2] = {to_tf32(b[t * 8 + g]), to_tf32(b[(t + 4) * 8 + g])};
    float sum[4] = {};
    mma_tf32(sum, left, right);
    for (int e = 0; e < 4; ++e) d[(g + 8 * (e / 2)) * 8 + 2 * t + e % 2] = sum[e];
}
EMULATED(matrices_tf32)
