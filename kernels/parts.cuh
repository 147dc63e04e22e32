// A block's part of an image: its position, histogram and mask, and the data shared with the image's other blocks.

struct Geometry {
    int images, pixels, height, width;  // pixels = height * width, of an image
    int parts, chunk;                   // blocks an image, and pixels a block (the last may have fewer)
    int polarity;                       // 0 bright, 1 dark, 2 auto
};

// Data shared by the blocks of one image; zero before a launch.
struct Shared {
    u32 counts[LEVELS], border[LEVELS];
    u32 ranged, counted, solved;  // number of blocks that have finished a phase
    u32 below_low, high;          // 65535 - lowest level, highest level: maxima, so that zero is neutral
    Verdict verdict;
};

// The beginning of a block's shared memory; from BLOCK_BYTES on follow each warp's stage, if there is one, and the gray
// bytes. The solver reuses the memory of the columns, which are merged into counts and border by then.
struct Block {
    union {
        u32 columns[COLUMN_WORDS];
        Solver solver;
    };
    u32 counts[LEVELS], border[LEVELS];
    u32 last, low, high;
    Bins bins;
};

static_assert(sizeof(Block) <= BLOCK_BYTES && BLOCK_BYTES % 16 == 0, "compiler.py and Block disagree");
static_assert(sizeof(Shared) == SHARED_BYTES, "compiler.py and Shared disagree");

struct Part {
    int image, index, first, count;  // pixels first to first + count - 1 of the image
    int head, groups;                // pixels before the first group, and number of groups of 16
    const Pixel* pixels;
};

__device__ Part part_of(const Pixel* images, const Geometry& g, int number) {
    Part part;
    part.image = number / g.parts;
    part.index = number % g.parts;
    part.first = part.index * g.chunk;
    part.count = min(g.pixels - part.first, g.chunk);
    part.pixels = images + ((u64)part.image * g.pixels + part.first) * CHANNELS;
    part.head = min(head_of(part.pixels), part.count);
    part.groups = (part.count - part.head) / 16;
    return part;
}

// Thread 0: wait until `flag`, which other blocks increase, is at least `value`.
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

// In each turn a warp takes one group a lane: 512 adjacent pixels. Their RGB bytes are copied to the warp's own stage with
// coalesced accesses, while the turn before is counted, and each lane then reads its 48 bytes there. Gray images need no
// stage: their accesses are coalesced anyway.
#define TURN_BYTES (32 * GROUP_BYTES)
#if STAGE_BYTES
static_assert(STAGE_BYTES == WARPS * TURN_BYTES, "compiler.py and the stage disagree");
#endif

// Start copying the pixels of a turn.
__device__ __forceinline__ void fetch(const Part& part, int turn, u8* stage) {
#if STAGE_BYTES
    const u8* from = (const u8*)(part.pixels + part.head * CHANNELS);
    int first = turn * TURN_BYTES + (threadIdx.x & 31) * 16, end = part.groups * GROUP_BYTES;
    u8* to = stage + threadIdx.x / 32 * TURN_BYTES - turn * TURN_BYTES;
#pragma unroll
    for (int i = 0; i < TURN_BYTES; i += 512)
        if (first + i < end) copy_16(to + first + i, from + first + i);
#endif
}

// Count the part's histogram into block->counts; the first turn was fetched before. With `keep` write its gray bytes to
// `levels` (pixel i at shift + i), and the network's input to `out`.
template <bool keep>
__device__ __forceinline__ void read_part(const Part& part, Bins bins, int shift, Block* block, u8* stage, u8* levels
#if INPUT
                                          , Value* out, const Normalise& f
#endif
) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x & 31;
    u32* column = own_column(block->columns);
    clear_columns(block->columns);
    __syncthreads();
#if INPUT
    bool wide = (((u64)(out + part.head * 3)) & 15) == 0;
#endif
#if INPUT && STAGE_BYTES
    // A lane stores VALUES values adjacent to its neighbours', and so begins at another channel.
    Normalise own;
    int begin = lane * VALUES % 3;
    for (int c = 0; c < 3; c++) {
        int channel = (begin + c) % 3;
        own.scale[c] = channel == 0 ? f.scale[0] : channel == 1 ? f.scale[1] : f.scale[2];
        own.shift[c] = channel == 0 ? f.shift[0] : channel == 1 ? f.shift[1] : f.shift[2];
    }
#endif
    for (int turn = warp; turn * 32 < part.groups; turn += WARPS) {
        int group = turn * 32 + lane, i = part.head + group * 16;
        u32 raw[GROUP_WORDS];
#if STAGE_BYTES
        const u8* mine = stage + warp * TURN_BYTES;
        arrived();
        load_group(mine + lane * GROUP_BYTES, raw);
#if INPUT
        u32 bytes[GROUP_WORDS];
#pragma unroll
        for (int w = 0; w < GROUP_WORDS; w++) bytes[w] = ((const u32*)mine)[(w / (VALUES / 4) * 32 + lane) * (VALUES / 4) + w % (VALUES / 4)];
#endif
        __syncwarp();
        fetch(part, turn + WARPS, stage);
#if INPUT
        Value* values = out + (part.head + turn * 512) * 3;
        int end = part.groups * GROUP_BYTES - turn * TURN_BYTES;
#pragma unroll
        for (int w = 0; w < GROUP_WORDS; w += VALUES / 4) {
            int unit = w / (VALUES / 4) * 32;
            if ((unit + lane) * VALUES < end) store_values(values + (unit + lane) * VALUES, bytes + w, unit * VALUES % 3, own, wide);
        }
#endif
        if (group >= part.groups) continue;
#else
        if (group >= part.groups) continue;
        load_group(part.pixels + (u64)i * CHANNELS, raw);
#if INPUT
#pragma unroll
        for (int v = 0; v < 48; v += VALUES) {
            u32 bytes[VALUES / 4];
#pragma unroll
            for (int w = 0; w < VALUES / 4; w++) {  // each gray byte three times
                int b = v + 4 * w;
                bytes[w] = byte_of(raw, b / 3) | byte_of(raw, (b + 1) / 3) << 8 | byte_of(raw, (b + 2) / 3) << 16 | byte_of(raw, (b + 3) / 3) << 24;
            }
            store_values(out + (u64)i * 3 + v, bytes, v % 3, f, wide);
        }
#endif
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
    for (int rest = threadIdx.x; rest < part.count - part.groups * 16; rest += THREADS) {
        int i = rest < part.head ? rest : part.groups * 16 + rest;
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

// The image's outermost ring: its number of pixels, and the position of its r-th pixel in the image.
__device__ __forceinline__ int ring_of(const Geometry& g) {
    return g.height < 2 || g.width < 2 ? g.pixels : 2 * (g.height + g.width) - 4;
}

__device__ __forceinline__ int place_on_ring(const Geometry& g, int r) {
    if (g.height < 2 || g.width < 2 || r < g.width) return r;  // a single row or column is all border; the top row
    if (r < 2 * g.width) return (g.height - 2) * g.width + r;  // the bottom row
    int s = r - 2 * g.width;
    return (1 + s / 2) * g.width + (s & 1) * (g.width - 1);  // both sides without the corners
}

// Count the histogram of the part's pixels on the ring into block->border, for an image that several blocks share.
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

// Find the foreground's side of an image that one block holds: its ring is read from the stored levels once the threshold
// is known, without a histogram of its own.
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

// Add the part's histograms to its image's. Returns true in the last block to do so, whose counts are then the image's.
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

// Put the image's verdict into block->solver.verdict for every thread; returns true in the block that found it. For an
// image of one part with polarity auto the side is not found yet: see `turn`.
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
