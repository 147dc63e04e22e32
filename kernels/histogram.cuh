// A block's histogram of 256 levels, at a speed that hardly depends on the image.
//
// Medical images are mostly one level, noise is all levels. An atomic shared-memory addition of 1 takes a warp one turn if
// all lanes hit one word, since the hardware counts them (ATOMS.POPC.INC), and one turn if they hit 32 banks; but it takes
// as many turns as different words are hit in one bank. So each level has COLUMNS counters, one for lanes l and l + 16: two
// of the 32 lanes share a bank, and no warp takes more than two turns. `benchmarks.atomics` measures them.

#define COLUMNS 16
#define COLUMN_WORDS (LEVELS * COLUMNS)

__device__ __forceinline__ void clear_columns(u32* columns) {
    for (int i = threadIdx.x; i < COLUMN_WORDS / 4; i += THREADS) ((uint4*)columns)[i] = make_uint4(0, 0, 0, 0);
}

// The start of the calling lane's counters.
__device__ __forceinline__ u32* own_column(u32* columns) { return columns + (threadIdx.x & (COLUMNS - 1)); }

// Count the level in bits 16 to 23 of `key`, whatever its other bits are: its counter is at level * COLUMNS words.
__device__ __forceinline__ void count(u32* column, u32 key) { atomicAdd((u32*)((u8*)column + (key >> 10 & 255 << 6)), 1u); }

// counts[level] = sum over the columns. The caller needs a barrier before and after.
__device__ __forceinline__ void merge_columns(const u32* columns, u32* counts) {
    for (int level = threadIdx.x; level < LEVELS; level += THREADS) {
        u32 sum = 0;
#pragma unroll
        for (int i = 0; i < COLUMNS / 4; i++) {  // neighbours begin at different quarters, which lie in different banks
            uint4 four = ((const uint4*)columns)[level * (COLUMNS / 4) + ((level / 2 + i) & (COLUMNS / 4 - 1))];
            sum += four.x + four.y + four.z + four.w;
        }
        counts[level] = sum;
    }
}
