// Pixels of one block's part of an image: read once, in groups of 16 that are aligned to 16 bytes.
//
// A part can begin anywhere, so up to 15 pixels before the first boundary (the head) and after the last group (the tail)
// are taken one by one. In shared memory pixel i has the byte `shift + i`, so that groups are aligned there too.

// 16 levels as four words.
struct Group {
    u32 word[4];
};

// OpenCV's RGB2GRAY, threshold.gray: (9798 R + 19235 G + 3735 B + 16384) >> 15. All are doubled here, so that the level is
// in bits 16 to 23 of the sum: the key that `count` takes.
#define RED 19596u
#define GREEN 38470u
#define BLUE 7470u
#define HALF 32768u

__device__ __forceinline__ u32 gray_of(u32 red, u32 green, u32 blue) { return (RED * red + GREEN * green + BLUE * blue + HALF) >> 16; }

// The range that 16-bit levels are binned in: threshold.bins. For 8-bit images the level is the bin.
struct Bins {
    u32 low, span;
};

__device__ __forceinline__ u32 bin_of(u32 value, Bins bins) {
#if PIXEL_BITS == 16
    return ((value - bins.low) << 8) / bins.span;
#else
    return value;
#endif
}

// Pixels before the first 16-byte boundary at or after `pixels`.
__device__ __forceinline__ int head_of(const Pixel* pixels) {
    int away = (16 - (int)((u64)pixels & 15)) & 15;
#if CHANNELS == 3
    return away * 11 & 15;  // 3 * 11 = 1 (mod 16)
#else
    return away / (int)sizeof(Pixel);
#endif
}

__device__ __forceinline__ u32 byte_of(const u32* words, int i) { return words[i >> 2] >> ((i & 3) * 8) & 255; }

#if INPUT
// (x / 255 - mean) / std as x * scale + shift, for three channels.
struct Normalise {
    float scale[3], shift[3];
};

__device__ __forceinline__ float normalised(u32 x, int channel, const Normalise& f) { return (float)x * f.scale[channel] + f.shift[channel]; }

__device__ __forceinline__ void store_value(Value* out, u32 x, int channel, const Normalise& f) {
#if INPUT == 3
    *out = normalised(x, channel, f);
#else
    *out = (Value)pack(normalised(x, channel, f), 0.0f);
#endif
}

#define VALUES (INPUT == 3 ? 4 : 8)  // in 16 bytes of the network's input

// Make 16 bytes of input from VALUES bytes of pixels, byte j of channel `first` + j, and store them at `out`; `wide`: aligned.
__device__ __forceinline__ void store_values(Value* out, const u32* bytes, int first, const Normalise& f, bool wide) {
#define AT(j) normalised(byte_of(bytes, j), (first + (j)) % 3, f)
    if (!wide) {
#pragma unroll
        for (int j = 0; j < VALUES; j++) store_value(out + j, byte_of(bytes, j), (first + j) % 3, f);
        return;
    }
#if INPUT == 3
    store_16(out, make_uint4(bits_of(AT(0)), bits_of(AT(1)), bits_of(AT(2)), bits_of(AT(3))));
#else
    store_16(out, make_uint4(pack(AT(0), AT(1)), pack(AT(2), AT(3)), pack(AT(4), AT(5)), pack(AT(6), AT(7))));
#endif
#undef AT
}
#endif

// One pixel's level.
__device__ __forceinline__ u32 level_of(const Pixel* pixels, int i, Bins bins) {
#if CHANNELS == 3
    return gray_of(pixels[3 * i], pixels[3 * i + 1], pixels[3 * i + 2]);
#else
    return bin_of(pixels[i], bins);
#endif
}

// The bytes of 16 pixels: 48 of RGB, 16 of gray, 32 of 16-bit gray.
#define GROUP_BYTES (2 * CHANNELS * PIXEL_BITS)
#define GROUP_WORDS (GROUP_BYTES / 4)

// Load a group from an address that is aligned to 16 bytes.
__device__ __forceinline__ void load_group(const void* from, u32* raw) {
#pragma unroll
    for (int i = 0; i < GROUP_WORDS / 4; i++) {
        uint4 four = ((const uint4*)from)[i];
        raw[4 * i] = four.x;
        raw[4 * i + 1] = four.y;
        raw[4 * i + 2] = four.z;
        raw[4 * i + 3] = four.w;
    }
}

// Start copying 16 bytes from device to shared memory; `arrived` waits for the copy. Before sm_80 it is done at once.
__device__ __forceinline__ void copy_16(u8* to, const u8* from) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(from) : "memory");
#else
    *(uint4*)to = *(const uint4*)from;
#endif
}

// Wait for all copies of the warp; each of its lanes then sees them.
__device__ __forceinline__ void arrived() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
    __syncwarp();
}

// The level of pixel j of a group as a key. A pixel's three bytes are in one word or two: __dp2a multiplies two bytes of a
// word by the halves of a word of weights and adds, so that two instructions make a gray level and none extracts bytes.
__device__ __forceinline__ u32 key_in_group(const u32* raw, int j, Bins bins) {
#if CHANNELS == 3
    const u32 red_green = RED | GREEN << 16, blue_next = BLUE, last_red = RED << 16, green_blue = GREEN | BLUE << 16;
    int word = 3 * j / 4;
    switch (3 * j % 4) {
        case 0: return __dp2a_hi(blue_next, raw[word], __dp2a_lo(red_green, raw[word], HALF));
        case 1: return __dp2a_hi(green_blue, raw[word], __dp2a_lo(last_red, raw[word], HALF));
        case 2: return __dp2a_lo(blue_next, raw[word + 1], __dp2a_hi(red_green, raw[word], HALF));
        default: return __dp2a_lo(green_blue, raw[word + 1], __dp2a_hi(last_red, raw[word], HALF));
    }
#elif PIXEL_BITS == 16
    return bin_of(raw[j >> 1] >> ((j & 1) * 16) & 0xffff, bins) << 16;
#else
    int from = (j & 3) * 8;
    return from < 16 ? raw[j >> 2] << (16 - from) : raw[j >> 2] >> (from - 16);
#endif
}

// The levels of pixels 4 w to 4 w + 3 of a group as bytes, from their keys.
__device__ __forceinline__ u32 levels_of(const u32* raw, int w, const u32* keys) {
#if CHANNELS == 1 && PIXEL_BITS == 8
    return raw[w];
#else
    return __byte_perm(__byte_perm(keys[0], keys[1], 0x0062), __byte_perm(keys[2], keys[3], 0x0062), 0x5410);
#endif
}
