// Gaussian smoothing of a batch of gray images, in integers: blur.by_shifts.
//
// `across` sums the neighbourhoods along rows, `down` along columns. Weights sum to 4096 along each axis, so that both
// sums fit 32 bits; only the last step rounds. Edges are mirrored about the middle of the outermost pixel. Neighbours are
// read through the cache: a warp's 32 pixels are adjacent in both passes.

struct Blur {
    int height, width, radius;
    u64 pixels;  // of the batch
};

__device__ __forceinline__ int mirrored(int i, int size) {
    if (i >= 0 && i < size) return i;
    if (size == 1) return 0;
    int period = 2 * (size - 1);
    i %= period;
    i = i < 0 ? i + period : i;
    return min(i, period - i);
}

// The weighted sum of 2 radius + 1 values `step` apart around position `at` of `size`; weights from the middle outwards.
template <class T>
__device__ __forceinline__ u32 weighted(const T* line, int at, int size, int step, const u32* weights, int radius) {
    u32 sum = line[(u64)at * step] * weights[0];
    for (int away = 1; away <= radius; away++) {
        u32 pair = line[(u64)mirrored(at - away, size) * step];
        sum += (pair + line[(u64)mirrored(at + away, size) * step]) * weights[away];
    }
    return sum;
}

// grid of both: blocks of THREADS pixels of the batch. `weights` holds radius + 1 words.
extern "C" __global__ void __launch_bounds__(THREADS)
across(const u8* __restrict__ gray, u32* __restrict__ sums, const u32* __restrict__ weights, Blur b) {
    u64 i = blockIdx.x * (u64)THREADS + threadIdx.x;
    if (i >= b.pixels) return;
    int x = (int)(i % b.width);
    sums[i] = weighted(gray + (i - x), x, b.width, 1, weights, b.radius);
}

extern "C" __global__ void __launch_bounds__(THREADS)
down(const u32* __restrict__ sums, u8* __restrict__ smooth, const u32* __restrict__ weights, Blur b) {
    u64 i = blockIdx.x * (u64)THREADS + threadIdx.x;
    if (i >= b.pixels) return;
    int y = (int)(i / b.width % b.height);
    u32 sum = weighted(sums + (i - (u64)y * b.width), y, b.height, b.width, weights, b.radius);
    smooth[i] = (u8)((sum + (1u << 23)) >> 24);
}
