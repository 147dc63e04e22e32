// A block's part of an image: its place, histogram and mask, and what it shares with the image's other blocks.

struct Geometry {
    int pixels, height, width;  // of an image; pixels = height * width
    int parts, chunk;           // blocks an image, and pixels a block: the last may have fewer
    int polarity;               // 0 bright, 1 dark, 2 auto
};

// Zero before the first launch; `label` and `measure` leave it zero.
struct Shared {  // between the blocks of one image
    u32 counts[LEVELS], border[LEVELS];
    u32 ranged, counted, solved, left;  // blocks that have done a step
    u32 below_low, high;                // 65535 - lowest level, highest level: maxima, so that zero is neutral
    Verdict verdict;
};

struct Workspace {
    u32 ticket, finished;
    Shared image[1];  // one for each image
};

// A block's shared memory: this, then at BLOCK_BYTES the gray bytes. The solver takes the place of the columns, which
// are merged into counts and border by then.
struct Block {
    union {
        u32 columns[COLUMN_WORDS];
        Solver solver;
    };
    u32 counts[LEVELS], border[LEVELS];
    u32 ticket, last, low, high;
    Bins bins;
};

static_assert(sizeof(Block) <= BLOCK_BYTES && BLOCK_BYTES % 16 == 0, "cuda.py and Block disagree");
static_assert(sizeof(Workspace) - sizeof(Shared) == WORKSPACE_HEAD && sizeof(Shared) == SHARED_BYTES, "cuda.py and Shared disagree");

struct Part {
    int image, index, first, count;
    const Pixel* pixels;
};

__device__ Part take_part(const Pixel* images, Workspace* workspace, const Geometry& g, Block* block) {
    if (threadIdx.x == 0) block->ticket = g.parts > 1 ? atomicAdd(&workspace->ticket, 1) : blockIdx.x;
    __syncthreads();
    Part part;
    part.image = block->ticket / g.parts;
    part.index = block->ticket % g.parts;
    part.first = part.index * g.chunk;
    part.count = g.pixels - part.first < g.chunk ? g.pixels - part.first : g.chunk;
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
__device__ Bins find_bins(const Part& part, Workspace* workspace, const Geometry& g, Block* block) {
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
            Shared* shared = &workspace->image[part.image];
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

// Histogram of the part into block->counts; its gray bytes into `levels` (pixel i at shift + i) and the network's input
// into `out`, unless these are null.
__device__ void read_part(const Part& part, Bins bins, int shift, Block* block, u8* levels
#if INPUT
                          , Value* out, const Normalise& f
#endif
) {
    clear_columns(block->columns);
    __syncthreads();
    int head = min(head_of(part.pixels), part.count), groups = (part.count - head) / 16, tail = head + groups * 16;
    for (int group = threadIdx.x; group < groups; group += THREADS) {
        int i = head + group * 16;
        u32 raw[GROUP_WORDS];
        load_group(part.pixels + (u64)i * CHANNELS, raw);
#if INPUT
        if (out) store_group(out + (u64)i * 3, raw, f);
#endif
        Group four;
#pragma unroll
        for (int w = 0; w < 4; w++) {
            u32 word = 0;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                u32 level = level_in_group(raw, 4 * w + j, bins);
                count(block->columns, level);
                word |= level << (8 * j);
            }
            four.word[w] = word;
        }
        if (levels) *(uint4*)(levels + shift + i) = make_uint4(four.word[0], four.word[1], four.word[2], four.word[3]);
    }
    for (int rest = threadIdx.x; rest < part.count - groups * 16; rest += THREADS) {
        int i = rest < head ? rest : tail + rest - head;
        u32 level = level_of(part.pixels, i, bins);
        count(block->columns, level);
        if (levels) levels[shift + i] = (u8)level;
#if INPUT
        if (out)
            for (int c = 0; c < 3; c++) store_value(out + (u64)i * 3 + c, part.pixels[CHANNELS == 3 ? 3 * i + c : i], c, f);
#endif
    }
    __syncthreads();
    merge_columns(block->columns, block->counts);
    __syncthreads();
}

// Histogram of the part's pixels on the image's outermost ring into block->border.
__device__ void read_border(const Part& part, Bins bins, const Geometry& g, Block* block) {
    clear_columns(block->columns);
    __syncthreads();
    int flat = g.height < 2 || g.width < 2;  // a single row or column is all border
    int ring = flat ? g.pixels : 2 * (g.height + g.width) - 4;
    for (int r = threadIdx.x; r < ring; r += THREADS) {
        int i = r;  // top row, bottom row, then both sides without the corners
        if (!flat && r >= g.width) {
            int s = r - 2 * g.width;
            i = r < 2 * g.width ? (g.height - 1) * g.width + r - g.width : (1 + s / 2) * g.width + (s & 1) * (g.width - 1);
        }
        i -= part.first;
        if (i >= 0 && i < part.count) count(block->columns, level_of(part.pixels, i, bins));
    }
    __syncthreads();
    merge_columns(block->columns, block->border);
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

// The image's verdict, from the histograms of all its parts; in block->solver.verdict for every thread.
__device__ void decide(const Part& part, Workspace* workspace, const Geometry& g, Parameters parameters, Block* block) {
    if (g.parts == 1) {
        solve(block->counts, block->border, g.polarity, parameters, &block->solver);
        return;
    }
    Shared* shared = &workspace->image[part.image];
    if (gather(shared, g, block)) {
        solve(block->counts, block->border, g.polarity, parameters, &block->solver);
        if (threadIdx.x == 0) {
            shared->verdict = block->solver.verdict;
            __threadfence();
            atomicAdd(&shared->solved, 1);
        }
    } else {
        if (threadIdx.x == 0) {
            wait_for(&shared->solved, 1);
            const volatile Verdict* from = &shared->verdict;
            block->solver.verdict.level = from->level;
            block->solver.verdict.dark = from->dark;
        }
        __syncthreads();
    }
}

// The last block to leave an image zeroes what its blocks shared; the last of all, the ticket.
__device__ void leave(const Part& part, Workspace* workspace, const Geometry& g, Block* block) {
    if (g.parts == 1) return;
    Shared* shared = &workspace->image[part.image];
    __syncthreads();
    if (threadIdx.x == 0) block->last = atomicAdd(&shared->left, 1) + 1 == (u32)g.parts;
    __syncthreads();
    if (block->last) {
        u32* words = (u32*)shared;
        for (int i = threadIdx.x; i < (int)(sizeof(Shared) / 4); i += THREADS) words[i] = 0;
    }
    if (threadIdx.x == 0 && atomicAdd(&workspace->finished, 1) + 1 == gridDim.x) {
        workspace->finished = 0;
        workspace->ticket = 0;
    }
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
