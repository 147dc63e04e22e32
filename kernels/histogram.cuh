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

// Where the calling lane's counters begin.
__device__ __forceinline__ u32* own_column(u32* columns) { return columns + (threadIdx.x & 31); }

// Count the level in bits 16 to 23 of `key`, whatever its other bits hold. Levels 2 r and 2 r + 1 are the halves of row r's
// words, so that key >> 10 is the row's place in bytes and bit 16 of the key is what the upper half counts in.
__device__ __forceinline__ void count(u32* column, u32 key) {
    u32 place = key >> 10 & (LEVELS / 2 - 1) << 7;
    atomicAdd((u32*)((u8*)column + place), max(key & 1u << 16, 1u));
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
