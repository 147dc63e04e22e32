// Pixels of one block's part of an image: read once, in groups of 16 that lie on 16-byte boundaries.
//
// A part begins anywhere, so up to 15 pixels before the first boundary (the head) and after the last group (the tail)
// are taken one by one. In shared memory pixel i has the byte `shift + i`, so that a group is aligned there too.

// Whole parts of 16 levels as four words.
struct Group {
    u32 word[4];
};

// OpenCV's RGB2GRAY, threshold.gray: (9798 R + 19235 G + 3735 B + 16384) >> 15. Here everything is doubled, so that the
// level is bits 16 to 23 of the sum: the key that `count` takes.
#define RED 19596u
#define GREEN 38470u
#define BLUE 7470u
#define HALF 32768u

__device__ __forceinline__ u32 gray_of(u32 red, u32 green, u32 blue) { return (RED * red + GREEN * green + BLUE * blue + HALF) >> 16; }

// How a 16-bit level becomes a bin: threshold.bins. For 8-bit images the level is the bin.
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

// 48 values of 16 pixels; value j is channel j % 3 of pixel j / 3, in memory order of a channels-last tensor.
__device__ __forceinline__ void store_group(Value* out, const u32* raw, const Normalise& f) {
#if CHANNELS == 3
#define RAW(j) byte_of(raw, j)
#else
#define RAW(j) byte_of(raw, (j) / 3)
#endif
    const int per = INPUT == 3 ? 4 : 8;  // values in 16 bytes
    if (((u64)out & 15) == 0) {
#pragma unroll
        for (int j = 0; j < 48; j += per) {
            uint4 four;
#if INPUT == 3
            four.x = bits_of(normalised(RAW(j), j % 3, f));
            four.y = bits_of(normalised(RAW(j + 1), (j + 1) % 3, f));
            four.z = bits_of(normalised(RAW(j + 2), (j + 2) % 3, f));
            four.w = bits_of(normalised(RAW(j + 3), (j + 3) % 3, f));
#else
            four.x = pack(normalised(RAW(j), j % 3, f), normalised(RAW(j + 1), (j + 1) % 3, f));
            four.y = pack(normalised(RAW(j + 2), (j + 2) % 3, f), normalised(RAW(j + 3), (j + 3) % 3, f));
            four.z = pack(normalised(RAW(j + 4), (j + 4) % 3, f), normalised(RAW(j + 5), (j + 5) % 3, f));
            four.w = pack(normalised(RAW(j + 6), (j + 6) % 3, f), normalised(RAW(j + 7), (j + 7) % 3, f));
#endif
            *(uint4*)(out + j) = four;
        }
    } else {
        for (int j = 0; j < 48; j++) store_value(out + j, RAW(j), j % 3, f);
    }
#undef RAW
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

// The bytes of 16 pixels: 48 of RGB, 16 of gray, 32 of 16-bit gray; `pixels` lies on a 16-byte boundary.
#define GROUP_WORDS (4 * CHANNELS * PIXEL_BITS / 8)
#define AHEAD (GROUP_WORDS == 4)

__device__ __forceinline__ void load_group(const Pixel* pixels, u32* raw) {
#pragma unroll
    for (int i = 0; i < GROUP_WORDS / 4; i++) {
        uint4 four = ((const uint4*)pixels)[i];
        raw[4 * i] = four.x;
        raw[4 * i + 1] = four.y;
        raw[4 * i + 2] = four.z;
        raw[4 * i + 3] = four.w;
    }
}

// The level of pixel j of a group as a key. A pixel's three bytes lie in one word or two: __dp2a multiplies two of a word's
// bytes by the halves of a word of weights and adds, so that two instructions make a gray level and none takes bytes apart.
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
