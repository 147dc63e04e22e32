// Otsu and GHT for a batch: gray levels, histogram, threshold, separability, mask and the network's input.
//
// `label` reads every pixel once: a part of an image stays in the block's shared memory as gray bytes between histogram
// and mask. An image that fits one block is one part; a larger one is shared by several blocks, which add up their
// histograms in `workspace` and wait for the last of them to solve. In that case the grid is launched cooperatively: all its
// blocks are resident, and each takes parts in turn, so that none waits for a block that has not started, whatever else
// runs. If an image has more parts than blocks can be resident, `measure` (histogram and verdict) and `apply` (mask, reading
// the image again) do the same in two launches. uint16 images are read once more, for the range that their bins span.
//
// Bytes a 224 x 224 RGB image: 150,528 read, 50,176 written; with bfloat16 input 301,056 more.

// grid: images * parts blocks, or as many as are resident; shared memory: BLOCK_BYTES + STAGE_BYTES + chunk + 48 bytes.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
label(const Pixel* __restrict__ images, u8* __restrict__ masks, float* __restrict__ thresholds, float* __restrict__ separabilities,
      Shared* workspace, Geometry g, Parameters parameters
#if INPUT
      , Value* __restrict__ inputs, Normalise f
#endif
) {
    SHARED(memory);
    Block* block = (Block*)memory;
    u8 *stage = memory + BLOCK_BYTES, *levels = stage + STAGE_BYTES;
    fetch(part_of(images, g, blockIdx.x), threadIdx.x / 32, stage);
    for (int number = blockIdx.x; number < g.images * g.parts; number += gridDim.x) {
        Part part = part_of(images, g, number);
        Shared* shared = workspace + part.image;
        Bins bins = {0, 1};
#if PIXEL_BITS == 16
        bins = find_bins(part, shared, g, block);
#endif
        int shift = (16 - part.head) & 15;
        u64 first = (u64)part.image * g.pixels + part.first;
#if INPUT
        read_part<true>(part, bins, shift, block, stage, levels, inputs + first * 3, f);
#else
        read_part<true>(part, bins, shift, block, stage, levels);
#endif
        int next = number + gridDim.x;
        if (next < g.images * g.parts) fetch(part_of(images, g, next), threadIdx.x / 32, stage);
        if (g.polarity == 2 && g.parts > 1) read_border(part, bins, g, block);
        bool decided = decide(shared, g, parameters, block);
        if (g.polarity == 2 && g.parts == 1) turn(g, shift, block, levels);
        if (threadIdx.x == 0 && decided) write_verdict(part, bins, block->solver.verdict, thresholds, separabilities);
        write_mask(levels, shift, part.count, block->solver.verdict, masks + first);
        __syncthreads();
    }
}

// Histogram and verdict only, for images whose parts cannot all be resident: no block waits for another.
// 16-bit images need their range first: `ranges` runs before `measure` and writes it to the workspace.
extern "C" __global__ void __launch_bounds__(THREADS)
ranges(const Pixel* __restrict__ images, Shared* workspace, Geometry g) {
#if PIXEL_BITS == 16
    Shared* shared = workspace + blockIdx.x / g.parts;
    const Pixel* pixels = images + (u64)(blockIdx.x / g.parts) * g.pixels;
    int first = blockIdx.x % g.parts * g.chunk, end = min(first + g.chunk, g.pixels);
    u32 below_low = 0, high = 0;
    for (int i = first + threadIdx.x; i < end; i += THREADS) {
        below_low = max(below_low, 65535u - pixels[i]);
        high = max(high, (u32)pixels[i]);
    }
    atomicMax(&shared->below_low, below_low);
    atomicMax(&shared->high, high);
#endif
}

__device__ Bins ranged(const Shared* shared) {
    Bins bins = {0, 1};
#if PIXEL_BITS == 16
    bins.low = 65535 - shared->below_low;
    bins.span = shared->high - bins.low + 1;
#endif
    return bins;
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
measure(const Pixel* __restrict__ images, float* __restrict__ thresholds, float* __restrict__ separabilities, Shared* workspace,
        Geometry g, Parameters parameters
#if INPUT
        , Value* __restrict__ inputs, Normalise f
#endif
) {
    SHARED(memory);
    Block* block = (Block*)memory;
    Part part = part_of(images, g, blockIdx.x);
    Shared* shared = workspace + part.image;
    u8* stage = memory + BLOCK_BYTES;
    fetch(part, threadIdx.x / 32, stage);
    Bins bins = ranged(shared);
#if INPUT
    read_part<false>(part, bins, 0, block, stage, 0, inputs + ((u64)part.image * g.pixels + part.first) * 3, f);
#else
    read_part<false>(part, bins, 0, block, stage, 0);
#endif
    if (g.polarity == 2) read_border(part, bins, g, block);
    if (!gather(shared, g, block)) return;
    solve(block->counts, block->border, g.polarity, parameters, &block->solver);
    if (threadIdx.x == 0) {
        shared->verdict = block->solver.verdict;
        write_verdict(part, bins, block->solver.verdict, thresholds, separabilities);
    }
}

// The masks, from the verdicts that `measure` left in the workspace.
extern "C" __global__ void __launch_bounds__(THREADS)
apply(const Pixel* __restrict__ images, u8* __restrict__ masks, const Shared* workspace, Geometry g) {
    int image = blockIdx.x / g.parts, first = blockIdx.x % g.parts * g.chunk, count = min(g.pixels - first, g.chunk);
    const Shared* shared = workspace + image;
    u64 start = (u64)image * g.pixels + first;
    const Pixel* pixels = images + start * CHANNELS;
    u8* mask = masks + start;
    Verdict verdict = shared->verdict;
    Bins bins = ranged(shared);
    int head = min(head_of(pixels), count), groups = (count - head) / 16, tail = head + groups * 16;
    u32 below2 = (255 - verdict.level) * 0x00010001u, dark4 = verdict.dark * 0x01010101u;
    bool wide = (((u64)(mask + head)) & 15) == 0;
    for (int group = threadIdx.x; group < groups; group += THREADS) {
        int i = head + group * 16;
        u32 raw[GROUP_WORDS];
        load_group(pixels + (u64)i * CHANNELS, raw);
        Group four;
#pragma unroll
        for (int w = 0; w < 4; w++) {
            u32 keys[4];
#pragma unroll
            for (int j = 0; j < 4; j++) keys[j] = key_in_group(raw, 4 * w + j, bins);
            four.word[w] = mask_of(levels_of(raw, w, keys), below2, dark4);
        }
        if (wide) {
            *(uint4*)(mask + i) = make_uint4(four.word[0], four.word[1], four.word[2], four.word[3]);
        } else {
            for (int j = 0; j < 16; j++) mask[i + j] = (u8)byte_of(four.word, j);
        }
    }
    for (int rest = threadIdx.x; rest < count - groups * 16; rest += THREADS) {
        int i = rest < head ? rest : tail + rest - head;
        mask[i] = (u8)((level_of(pixels, i, bins) > verdict.level) ^ verdict.dark);
    }
}
