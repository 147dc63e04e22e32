// A block's part of an image: its place, histogram and mask, and what it shares with the image's other blocks.

struct Geometry {
    int images, pixels, height, width;  // pixels = height * width, of an image
    int parts, chunk;                   // blocks an image, and pixels a block: the last may have fewer
    int polarity;                       // 0 bright, 1 dark, 2 auto
};

// What the blocks of one image share; zero before a launch.
struct Shared {
    u32 counts[LEVELS], border[LEVELS];
    u32 ranged, counted, solved;  // blocks that have done a step
    u32 below_low, high;          // 65535 - lowest level, highest level: maxima, so that zero is neutral
    Verdict verdict;
};

// A block's shared memory: this, then at BLOCK_BYTES the gray bytes. The solver takes the place of the columns, which
// are merged into counts and border by then.
struct Block {
    union {
        u32 columns[COLUMN_WORDS];
        Solver solver;
    };
    u32 counts[LEVELS], border[LEVELS];
    u32 last, low, high;
    Bins bins;
};

static_assert(sizeof(Block) <= BLOCK_BYTES && BLOCK_BYTES % 16 == 0, "cuda.py and Block disagree");
static_assert(sizeof(Shared) == SHARED_BYTES, "cuda.py and Shared disagree");

struct Part {
    int image, index, first, count;
    const Pixel* pixels;
};

__device__ Part part_of(const Pixel* images, const Geometry& g, int number) {
    Part part;
    part.image = number / g.parts;
    part.index = number % g.parts;
    part.first = part.index * g.chunk;
    part.count = min(g.pixels - part.first, g.chunk);
    part.pixels = images + ((u64)part.image * g.pixels + part.first) * CHANNELS;
    return part;
}

// Thread 0: wait until `flag`, which other blocks raise, is at least `value`.
__device__ void wait_for(u32* flag, u32 value) {
    while (atomicAdd(flag, 0) < value) pause();
    __threadfence();
}

#if PIXEL_BITS == 16
// The lowest level of the image and the width of its range, from all its blocks.
__device__ Bins find_bins(const Part& part, Shared* shared, const Geometry& g, Block* block) {
    u32 below_low = 0, high = 0;
    if (threadIdx.x == 0) block->low = block->high = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < part.count; i += THREADS) {
        u32 value = part.pixels[i];
        below_low = max(below_low, 65535 - value);
        high = max(high, value);
    }
    atomicMax(&block->low, below_low);
    atomicMax(&block->high, high);
    __syncthreads();
    if (threadIdx.x == 0) {
        if (g.parts > 1) {
            atomicMax(&shared->below_low, block->low);
            atomicMax(&shared->high, block->high);
            __threadfence();
            atomicAdd(&shared->ranged, 1);
            wait_for(&shared->ranged, g.parts);
            block->low = atomicAdd(&shared->below_low, 0);
            block->high = atomicAdd(&shared->high, 0);
        }
        block->bins.low = 65535 - block->low;
        block->bins.span = block->high - block->bins.low + 1;
    }
    __syncthreads();
    return block->bins;
}
#endif

// Histogram of the part into block->counts; with `keep` its gray bytes into `levels` (pixel i at shift + i), and the network's
// input into `out`.
template <bool keep>
__device__ __forceinline__ void read_part(const Part& part, Bins bins, int shift, Block* block, u8* levels
#if INPUT
                                          , Value* out, const Normalise& f
#endif
) {
    u32* column = own_column(block->columns);
    clear_columns(block->columns);
    __syncthreads();
    int head = min(head_of(part.pixels), part.count), groups = (part.count - head) / 16, tail = head + groups * 16;
#if AHEAD  // a group is small: the next one is loaded while this one is counted
    u32 next[GROUP_WORDS];
    if (threadIdx.x < groups) load_group(part.pixels + (u64)(head + threadIdx.x * 16) * CHANNELS, next);
#endif
    for (int group = threadIdx.x; group < groups; group += THREADS) {
        int i = head + group * 16;
        u32 raw[GROUP_WORDS];
#if AHEAD
#pragma unroll
        for (int w = 0; w < GROUP_WORDS; w++) raw[w] = next[w];
        if (group + THREADS < groups) load_group(part.pixels + (u64)(i + 16 * THREADS) * CHANNELS, next);
#else
        load_group(part.pixels + (u64)i * CHANNELS, raw);
#endif
#if INPUT
        store_group(out + (u64)i * 3, raw, f);
#endif
        Group four;
#pragma unroll
        for (int w = 0; w < 4; w++) {
            u32 keys[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                keys[j] = key_in_group(raw, 4 * w + j, bins);
                count(column, keys[j]);
            }
            four.word[w] = levels_of(raw, w, keys);
        }
        if (keep) *(uint4*)(levels + shift + i) = make_uint4(four.word[0], four.word[1], four.word[2], four.word[3]);
    }
    for (int rest = threadIdx.x; rest < part.count - groups * 16; rest += THREADS) {
        int i = rest < head ? rest : tail + rest - head;
        u32 level = level_of(part.pixels, i, bins);
        count(column, level << 16);
        if (keep) levels[shift + i] = (u8)level;
#if INPUT
        for (int c = 0; c < 3; c++) store_value(out + (u64)i * 3 + c, part.pixels[CHANNELS == 3 ? 3 * i + c : i], c, f);
#endif
    }
    __syncthreads();
    merge_columns(block->columns, block->counts);
    __syncthreads();
}

// The image's outermost ring: how many pixels it has, and where in the image its r-th pixel lies.
__device__ __forceinline__ int ring_of(const Geometry& g) {
    return g.height < 2 || g.width < 2 ? g.pixels : 2 * (g.height + g.width) - 4;
}

__device__ __forceinline__ int place_on_ring(const Geometry& g, int r) {
    if (g.height < 2 || g.width < 2 || r < g.width) return r;  // a single row or column is all border; the top row
    if (r < 2 * g.width) return (g.height - 2) * g.width + r;  // the bottom row
    int s = r - 2 * g.width;
    return (1 + s / 2) * g.width + (s & 1) * (g.width - 1);  // both sides without the corners
}

// Histogram of the part's pixels on the ring into block->border, of an image that several blocks share.
__device__ void read_border(const Part& part, Bins bins, const Geometry& g, Block* block) {
    u32* column = own_column(block->columns);
    clear_columns(block->columns);
    __syncthreads();
    int ring = ring_of(g);
    for (int r = threadIdx.x; r < ring; r += THREADS) {
        int i = place_on_ring(g, r) - part.first;
        if (i >= 0 && i < part.count) count(column, level_of(part.pixels, i, bins) << 16);
    }
    __syncthreads();
    merge_columns(block->columns, block->border);
    __syncthreads();
}

// The side of the foreground of an image that one block has whole: its ring is looked at in the levels that are kept, once
// the threshold is known, without a histogram of its own.
__device__ void turn(const Geometry& g, int shift, Block* block, const u8* levels) {
    int ring = ring_of(g);
    u32 level = block->solver.verdict.level, above = 0;
    for (int r = threadIdx.x; r < ring; r += THREADS) above += levels[shift + place_on_ring(g, r)] > level;
    above = warp_sum(above);
    if ((threadIdx.x & 31) == 0) block->counts[threadIdx.x / 32] = above;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < WARPS; w++) above += block->counts[w];
        block->solver.verdict.dark = 2 * above > (u32)ring;
    }
    __syncthreads();
}

// Add the part's histograms to its image's. True in the block that comes last: its counts are then the image's.
__device__ bool gather(Shared* shared, const Geometry& g, Block* block) {
    for (int level = threadIdx.x; level < LEVELS; level += THREADS) {
        if (block->counts[level]) atomicAdd(&shared->counts[level], block->counts[level]);
        if (g.polarity == 2 && block->border[level]) atomicAdd(&shared->border[level], block->border[level]);
    }
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) block->last = atomicAdd(&shared->counted, 1) + 1 == (u32)g.parts;
    __syncthreads();
    if (!block->last) return false;
    __threadfence();
    for (int level = threadIdx.x; level < LEVELS; level += THREADS) {
        block->counts[level] = atomicAdd(&shared->counts[level], 0);
        block->border[level] = atomicAdd(&shared->border[level], 0);
    }
    __syncthreads();
    return true;
}

// The image's verdict, in block->solver.verdict for every thread; true in the block that found it. Of an image that is one
// part the side is not yet found where polarity is auto: see `turn`.
__device__ __forceinline__ bool decide(Shared* shared, const Geometry& g, Parameters parameters, Block* block) {
    bool whole = g.parts == 1;
    if (whole || gather(shared, g, block)) {
        solve(block->counts, whole ? 0 : block->border, g.polarity, parameters, &block->solver);
        if (!whole && threadIdx.x == 0) {
            shared->verdict = block->solver.verdict;
            __threadfence();
            atomicAdd(&shared->solved, 1);
        }
        return true;
    }
    if (threadIdx.x == 0) {
        wait_for(&shared->solved, 1);
        const volatile Verdict* from = &shared->verdict;
        block->solver.verdict.level = from->level;
        block->solver.verdict.dark = from->dark;
    }
    __syncthreads();
    return false;
}

__device__ void write_verdict(const Part& part, Bins bins, const Verdict& verdict, float* thresholds, float* separabilities) {
    float threshold = verdict.threshold;
#if PIXEL_BITS == 16
    // the highest level whose bin is not above: threshold.level_of_bin
    threshold = (float)(bins.low + ((verdict.level + 1) * bins.span + 255) / 256 - 1);
    if (bins.span == 1) threshold = 0;
#endif
    thresholds[part.image] = threshold;
    separabilities[part.image] = verdict.separability;
}

// Four levels -> four mask bytes.
__device__ __forceinline__ u32 mask_of(u32 word, u32 level4, u32 dark4) { return __vsetgtu4(word, level4) ^ dark4; }

// The mask of `count` pixels whose levels are bytes in shared memory, pixel i at levels[shift + i].
__device__ void write_mask(const u8* levels, int shift, int count, const Verdict& verdict, u8* mask) {
    u32 level4 = verdict.level * 0x01010101u, dark4 = verdict.dark * 0x01010101u;
    int head = min((16 - (int)((u64)mask & 15)) & 15, count), groups = (count - head) / 16, tail = head + groups * 16;
    const u32* words = (const u32*)levels;
    for (int group = threadIdx.x; group < groups; group += THREADS) {
        int i = head + group * 16, at = shift + i;
        Group four;
        if ((at & 15) == 0) {
            uint4 all = *(const uint4*)(levels + at);
            four.word[0] = all.x;
            four.word[1] = all.y;
            four.word[2] = all.z;
            four.word[3] = all.w;
        } else {  // mask and image are aligned differently: shift across words
            u32 low = words[at >> 2];
#pragma unroll
            for (int w = 0; w < 4; w++) {
                u32 high = words[(at >> 2) + w + 1];
                four.word[w] = __funnelshift_r(low, high, (at & 3) * 8);
                low = high;
            }
        }
        *(uint4*)(mask + i) = make_uint4(mask_of(four.word[0], level4, dark4), mask_of(four.word[1], level4, dark4),
                                         mask_of(four.word[2], level4, dark4), mask_of(four.word[3], level4, dark4));
    }
    for (int rest = threadIdx.x; rest < count - groups * 16; rest += THREADS) {
        int i = rest < head ? rest : tail + rest - head;
        mask[i] = (u8)((levels[shift + i] > verdict.level) ^ verdict.dark);
    }
}
