// Prompt selection: the K prompts of a pool whose keys are nearest to a sample's queries.
//
//   s[j] = cos(q_img, k_img[j]) + cos(q_txt, k_txt[j]),  j in first..end;   cos(q, k) = q·k / sqrt(q·q · k·k), 0 if that root is not > 0
//
// Queries (b, d_img) and (b, d_txt), keys (M, d_img) and (M, d_txt), row-major f32. Results (b, K), best first: indices in u32, scores
// in f32. Larger scores first in IEEE total order, equal ones by index. Products and sums in f64 (products of f32 are exact there),
// the score is rounded once. Deterministic: a score depends on its query and key alone.
// Grid: one block a sample, or (selection_cluster) a cluster of 8 blocks. Block: 256 threads. A warp scores 4 keys at a time (one if
// there are no more keys than warps) and keeps the 32 best in order, one a lane; lists are merged pairwise at the end.
// Shared memory: a list of each warp (2 KB), then the sample's two queries in f64.
#include "common.cuh"

constexpr int THREADS = 256, WARPS = THREADS / 32;
[[maybe_unused]] constexpr int CLUSTER = 8;  // not used by targets without clusters

// A candidate as one number: the larger, the better; 0 is none. The score's bits in total order, then the index, inverted.
using Candidate = unsigned long long;

__device__ __forceinline__ Candidate candidate(float score, unsigned index) {
    unsigned bits = __float_as_uint(score);
    unsigned order = bits >> 31 ? ~bits : bits | 0x80000000u;
    return static_cast<Candidate>(order) << 32 | ~index;
}
__device__ __forceinline__ unsigned index_of(Candidate c) { return ~static_cast<unsigned>(c); }
__device__ __forceinline__ float score_of(Candidate c) {
    unsigned order = static_cast<unsigned>(c >> 32);
    return __uint_as_float(order >> 31 ? order ^ 0x80000000u : ~order);
}

// The lists of a warp hold their best candidate in lane 0 and descend.
__device__ __forceinline__ void insert(Candidate& mine, Candidate c) {
    Candidate above = __shfl_up_sync(FULL, mine, 1);
    if (c > mine) mine = threadIdx.x % 32 > 0 && above < c ? above : c;
}
// The 32 best of two lists; `theirs` is the other list's candidate of lane 31 − this one. The larger of each pair are the 32 best, rising
// and falling once, which five exchanges sort (Batcher 1968).
__device__ __forceinline__ Candidate merge(Candidate mine, Candidate theirs) {
    mine = mine > theirs ? mine : theirs;
    for (int distance = 16; distance > 0; distance /= 2) {
        Candidate other = __shfl_xor_sync(FULL, mine, distance);
        bool lower = (threadIdx.x & distance) == 0;
        mine = (mine > other) == lower ? mine : other;
    }
    return mine;
}

__device__ __forceinline__ double sum(double x) {
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(FULL, x, offset);
    return x;
}

// Adds the cosines of a query in shared memory with KEYS keys of d elements from `key` on, W elements an access. Every lane has them.
template <int KEYS, int W>
__device__ __forceinline__ void add_cosines(double (&score)[KEYS], const double* query, const float* key, int d, int n_keys) {
    // −0 is the neutral element of addition: a sum of nothing but −0 stays one, as on the CPU.
    double length = -0.0, lengths[KEYS], products[KEYS];
    for (int k = 0; k < KEYS; ++k) lengths[k] = products[k] = -0.0;
#pragma unroll(KEYS == 1 ? 8 : 2)
    for (int i = threadIdx.x % 32 * W; i < d; i += 32 * W) {
        float value[KEYS][W];
#pragma unroll
        for (int k = 0; k < KEYS; ++k) {
            const float* from = key + Offset(k < n_keys ? k : 0) * d + i;
            if constexpr (W == 4) {
                Pack<float> pack = load_pack(from);
                for (int w = 0; w < W; ++w) value[k][w] = pack.at[w];
            } else {
                value[k][0] = *from;
            }
        }
#pragma unroll
        for (int w = 0; w < W; ++w) {
            double q = query[i + w];
            length += q * q;
#pragma unroll
            for (int k = 0; k < KEYS; ++k) {
                double x = value[k][w];
                products[k] += q * x;
                lengths[k] += x * x;
            }
        }
    }
    length = sum(length);
    for (int k = 0; k < KEYS; ++k) {
        double product = sum(products[k]), scale = sqrt(length * sum(lengths[k]));
        score[k] += scale > 0.0 ? product / scale : 0.0;
    }
}

struct Keys {
    const float *image, *text;
    int d_image, d_text, end;
};

// Scores keys from `first` on, KEYS at a time, and inserts them.
template <int KEYS>
__device__ __forceinline__ void score(Candidate& best, const double* query, const Keys& keys, int first, int step) {
    for (int j = first; j < keys.end; j += step) {
        int n = min(KEYS, keys.end - j);
        double scores[KEYS];
        for (int k = 0; k < KEYS; ++k) scores[k] = -0.0;
        auto part = [&](const double* q, const float* key, int d) {
            if (d % 4 == 0) {
                add_cosines<KEYS, 4>(scores, q, key + Offset(j) * d, d, n);
            } else {
                add_cosines<KEYS, 1>(scores, q, key + Offset(j) * d, d, n);
            }
        };
        part(query, keys.image, keys.d_image);
        part(query + keys.d_image, keys.text, keys.d_text);
#pragma unroll
        for (int k = 0; k < KEYS; ++k) {
            if (k < n) insert(best, candidate(static_cast<float>(scores[k]), j + k));
        }
    }
}

// The list of warp 0: the best of this block's share of the keys.
__device__ __forceinline__ Candidate block_best(const float* image, const float* text, const Keys& keys, int first, int sample, int rank,
                                                int n_ranks) {
    Candidate* lists = shared_memory<Candidate>();
    double* query = reinterpret_cast<double*>(lists + WARPS * 32);
    for (int i = threadIdx.x; i < keys.d_image; i += THREADS) query[i] = image[Offset(sample) * keys.d_image + i];
    for (int i = threadIdx.x; i < keys.d_text; i += THREADS) query[keys.d_image + i] = text[Offset(sample) * keys.d_text + i];
    __syncthreads();
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, number = rank * WARPS + warp, n_warps = n_ranks * WARPS;
    Candidate best = 0;
    if (keys.end - first <= n_warps) {
        score<1>(best, query, keys, first + number, n_warps);
    } else {
        score<4>(best, query, keys, first + 4 * number, 4 * n_warps);
    }
    for (int half = WARPS / 2; half > 0; half /= 2) {
        lists[threadIdx.x] = best;
        __syncthreads();
        if (warp < half) best = merge(best, lists[(warp + half) * 32 + 31 - lane]);
        __syncthreads();
    }
    return best;
}

__device__ __forceinline__ void write(Candidate best, unsigned* indices, float* scores, int sample, int top_k) {
    int lane = threadIdx.x;
    if (lane < top_k) {
        indices[Offset(sample) * top_k + lane] = index_of(best);
        scores[Offset(sample) * top_k + lane] = score_of(best);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
    selection(const float* image, const float* text, const float* image_keys, const float* text_keys, unsigned* indices, float* scores,
              int d_image, int d_text, int first, int end, int top_k) {
    Keys keys{image_keys, text_keys, d_image, d_text, end};
    Candidate best = block_best(image, text, keys, first, blockIdx.x, 0, 1);
    write(best, indices, scores, blockIdx.x, top_k);
}
EMULATED(selection)

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 2)
    selection_cluster(const float* image, const float* text, const float* image_keys, const float* text_keys, unsigned* indices,
                      float* scores, int d_image, int d_text, int first, int end, int top_k) {
#if CLUSTERS
    Keys keys{image_keys, text_keys, d_image, d_text, end};
    int sample = blockIdx.x / CLUSTER, rank = static_cast<int>(cluster_rank()), lane = threadIdx.x % 32;
    Candidate best = block_best(image, text, keys, first, sample, rank, CLUSTER);
    Candidate* list = shared_memory<Candidate>();
    if (threadIdx.x < 32) list[lane] = best;
    cluster_barrier();
    if (rank == 0 && threadIdx.x < 32) {
        for (int other = 1; other < CLUSTER; ++other) {
            const float* theirs = reinterpret_cast<const float*>(list + 31 - lane);
            Candidate low = __float_as_uint(cluster_load(theirs, other)), high = __float_as_uint(cluster_load(theirs + 1, other));
            best = merge(best, high << 32 | low);
        }
        write(best, indices, scores, sample, top_k);
    }
    cluster_barrier();  // no block ends before its list is read
#endif
}
EMULATED(selection_cluster)
