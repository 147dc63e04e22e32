// Adaptive mean and Gaussian thresholds for a batch, in integers: threshold.adaptive_mean, threshold.adaptive_gaussian.
//
// A pixel is above if gray - mean > -ceil(C), where `mean` is the weighted mean of its block_size x block_size
// neighbourhood, edges replicated, rounded to 8 bits. `adaptive` marks these pixels, a tile of TILE x TILE pixels a
// block, and sums what polarity and separability need; `finish` completes the masks that need it.
//
// The weights are integers that sum to 2^24 along each axis (for the mean: one each, and a division): only the last step
// rounds. A tile reads (TILE + block_size - 1)^2 pixels; neighbouring tiles share them through the cache.

#define TILE 32
#define FRACTION 24  // bits of a weight along one axis
#define ACROSS 8     // pixels along which one thread keeps a running sum, of rows and of columns
#define DOWN 4

struct Window {
    int height, width, block_size, delta;  // delta = ceil(C)
    int gaussian, polarity;
};

struct Sums {  // of one image; zero before the launch
    u64 above, above_levels, levels, squares;
    u64 border_above, border;
};

__device__ __forceinline__ u64 warp_sum64(u64 value) {
    for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(ALL, value, step);
    return value;
}

__device__ void add(u64* to, u64 value) {
    value = warp_sum64(value);
    if ((threadIdx.x & 31) == 0 && value) atomicAdd(to, value);
}

__device__ __forceinline__ int round_even(u64 sum) {  // sum / 2^(2 FRACTION), ties to even
    const u64 half = 1ull << (2 * FRACTION - 1);
    int mean = (int)((sum + half) >> (2 * FRACTION));
    return mean - ((sum & (2 * half - 1)) == half && (mean & 1));
}

// grid: (images, tiles across, tiles down). shared: side * side bytes rounded up to 4, then side * TILE words, where
// side = TILE + block_size - 1; `weights` holds block_size words.
extern "C" __global__ void __launch_bounds__(THREADS)
adaptive(const u8* __restrict__ images, u8* __restrict__ masks, Sums* sums, const u32* __restrict__ weights, Window v) {
    SHARED(memory);
    int radius = v.block_size / 2, side = TILE + v.block_size - 1, pixels = v.height * v.width;
    u8* gray = memory;
    u32* across = (u32*)(memory + ((side * side + 3) & ~3));
    int x0 = blockIdx.y * TILE, y0 = blockIdx.z * TILE;
    const u8* image = images + (u64)blockIdx.x * pixels * CHANNELS;
    // 1. the tile and its surroundings, as gray
    for (int i = threadIdx.x; i < side * side; i += THREADS) {
        int y = min(max(y0 + i / side - radius, 0), v.height - 1), x = min(max(x0 + i % side - radius, 0), v.width - 1);
        const u8* p = image + (u64)(y * v.width + x) * CHANNELS;
#if CHANNELS == 3
        gray[i] = (u8)gray_of(p[0], p[1], p[2]);
#else
        gray[i] = *p;
#endif
    }
    __syncthreads();
    // 2. weighted sums along rows; with equal weights running sums over ACROSS pixels
    int run = v.gaussian ? 1 : ACROSS;
    for (int task = threadIdx.x; task < side * TILE / run; task += THREADS) {
        int first = task * run;
        const u8* row = gray + first / TILE * side + first % TILE;
        u32 sum = 0;
        for (int k = 0; k < v.block_size; k++) sum += row[k] * (v.gaussian ? weights[k] : 1u);
        across[first] = sum;
        for (int j = 1; j < run; j++) across[first + j] = sum += row[j + v.block_size - 1] - row[j - 1];
    }
    __syncthreads();
    // 3. along columns, then compare
    u64 above = 0, above_levels = 0, levels = 0, squares = 0, border_above = 0, border = 0;
    u64 area = (u64)v.block_size * v.block_size;
    run = v.gaussian ? 1 : DOWN;
    for (int task = threadIdx.x; task < TILE * TILE / run; task += THREADS) {
        u64 sum = 0;
        for (int j = 0; j < run; j++) {
            int column = task % TILE, line = task / TILE * run + j, x = x0 + column, y = y0 + line;
            const u32* from = across + line * TILE + column;
            if (j)
                sum = sum + from[(v.block_size - 1) * TILE] - from[-TILE];
            else
                for (int k = 0; k < v.block_size; k++) sum += (u64)from[k * TILE] * (v.gaussian ? weights[k] : 1u);
            if (x >= v.width || y >= v.height) continue;
            int mean = v.gaussian ? round_even(sum) : (int)((2 * sum + area) / (2 * area));  // area is odd: no ties
            u32 level = gray[(line + radius) * side + column + radius];
            bool is_above = (int)level - mean > -v.delta;
            masks[(u64)blockIdx.x * pixels + y * v.width + x] = (u8)(is_above ^ (v.polarity == 1));
            above += is_above;
            above_levels += is_above ? level : 0;
            levels += level;
            squares += level * level;
            bool edge = x == 0 || y == 0 || x == v.width - 1 || y == v.height - 1;
            border += edge;
            border_above += edge && is_above;
        }
    }
    Sums* s = sums + blockIdx.x;
    add(&s->above, above);
    add(&s->above_levels, above_levels);
    add(&s->levels, levels);
    add(&s->squares, squares);
    add(&s->border_above, border_above);
    add(&s->border, border);
}

// grid: (images, blocks an image). Separability; empties the masks of constant images, inverts those that auto finds dark.
extern "C" __global__ void __launch_bounds__(THREADS)
finish(u8* __restrict__ masks, float* __restrict__ thresholds, float* __restrict__ separabilities, const Sums* sums, Window v) {
    const Sums s = sums[blockIdx.x];
    u64 n = (u64)v.height * v.width, w = s.above;
    u64 low = n * s.squares, high = __umul64hi(n, s.squares);
    u64 square = s.levels * s.levels, square_high = __umul64hi(s.levels, s.levels);
    high -= square_high + (low < square);
    low -= square;
    double variance = (double)high * 18446744073709551616.0 + (double)low;
    bool constant = !(variance > 0), turn = v.polarity == 2 && 2 * s.border_above > s.border;
    if (threadIdx.x == 0 && blockIdx.y == 0) {
        u64 a = s.levels * w, b = n * s.above_levels, between = w * (n - w);
        double difference = (double)(a > b ? a - b : b - a);
        separabilities[blockIdx.x] = between && !constant ? (float)(difference * difference / ((double)between * variance)) : 0.0f;
        thresholds[blockIdx.x] = not_a_number();
    }
    if (!constant && !turn) return;
    u8* mask = masks + (u64)blockIdx.x * n;
    for (u64 i = blockIdx.y * (u64)THREADS + threadIdx.x; i < n; i += (u64)gridDim.y * THREADS) mask[i] = constant ? 0 : mask[i] ^ 1;
}
