// A block's histogram of 256 levels, at a speed that does not depend on the image.
//
// Shared-memory atomics on one address run one after the other, and medical images are mostly one level: a warp that
// adds 32 equal pixels to one counter takes 32 turns. So each lane of a warp has counters of its own: counter (level,
// lane) lies in bank `lane`, and the 32 additions of a warp always fall into 32 different banks. Two levels share a
// word, 16 bits each, which keeps the whole at 16 KiB; a counter holds at most 65,535, so a block may count at most
// 65,535 pixels a lane (COUNTABLE, with room for uneven heads and tails).

#define COLUMN_WORDS (LEVELS / 2 * 32)
#define COUNTABLE (1 << 20)

__device__ __forceinline__ void clear_columns(u32* columns) {
    for (int i = threadIdx.x; i < COLUMN_WORDS; i += THREADS) columns[i] = 0;
}

__device__ __forceinline__ void count(u32* columns, u32 level) {
    atomicAdd(&columns[(level >> 1) * 32 + (threadIdx.x & 31)], 1u << ((level & 1) * 16));
}

// counts[level] = sum over the lanes. Barriers before and after are the caller's.
__device__ __forceinline__ void merge_columns(const u32* columns, u32* counts) {
    int lane = threadIdx.x & 31;
    for (int row = threadIdx.x / 32; row < LEVELS / 2; row += WARPS) {
        u32 word = columns[row * 32 + lane];
        u32 even = warp_sum(word & 0xffff), odd = warp_sum(word >> 16);
        if (lane == 0) {
            counts[2 * row] = even;
            counts[2 * row + 1] = odd;
        }
    }
}
