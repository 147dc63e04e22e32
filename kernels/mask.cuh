// Levels -> mask, 16 pixels a thread.

// Four levels -> four mask bytes.
// A level that is above the threshold and 255 - threshold sum to more than 255: the carry, for two bytes at a time.
__device__ __forceinline__ u32 mask_of(u32 word, u32 below2, u32 dark4) {
    u32 even = (word & 0x00ff00ffu) + below2, odd = (word >> 8 & 0x00ff00ffu) + below2;
    return __byte_perm(even, odd, 0x7351) ^ dark4;
}

// Write the mask of `count` pixels; pixel i has the level levels[shift + i], and `levels` is aligned to 16 bytes.
__device__ void write_mask(const u8* levels, int shift, int count, const Verdict& verdict, u8* mask) {
    u32 below2 = (255 - verdict.level) * 0x00010001u, dark4 = verdict.dark * 0x01010101u;
    int head = min((16 - (int)((u64)mask & 15)) & 15, count), groups = (count - head) / 16, from = shift + head;
    if (from & 15 && groups) groups--;  // mask and levels are aligned differently: a group ends among the words of the next
    int tail = head + groups * 16;
    for (int group = threadIdx.x; group < groups; group += THREADS) {
        int at = from + group * 16;
        uint4 four;
        if ((from & 15) == 0) {
            four = *(const uint4*)(levels + at);
        } else {
            const u32* words = (const u32*)levels + (at >> 2);
            u32 by = (at & 3) * 8;
            four = make_uint4(__funnelshift_r(words[0], words[1], by), __funnelshift_r(words[1], words[2], by),
                              __funnelshift_r(words[2], words[3], by), __funnelshift_r(words[3], words[4], by));
        }
        store_16(mask + head + group * 16, make_uint4(mask_of(four.x, below2, dark4), mask_of(four.y, below2, dark4),
                                                      mask_of(four.z, below2, dark4), mask_of(four.w, below2, dark4)));
    }
    for (int rest = threadIdx.x; rest < count - groups * 16; rest += THREADS) {
        int i = rest < head ? rest : tail + rest - head;
        mask[i] = (u8)((levels[shift + i] > verdict.level) ^ verdict.dark);
    }
}
