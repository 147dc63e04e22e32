// Pixels of one block's part of an image: read once, in groups of 16 that lie on 16-byte boundaries.
//
// A part begins anywhere, so up to 15 pixels before the first boundary (the head) and after the last group (the tail)
// are taken one by one. In shared memory pixel i has the byte `shift + i`, so that a group is aligned there too.

// Whole parts of 16 levels as four words.
struct Group {
    u32 word[4];
};

__device__ __forceinline__ u32 gray_of(u32 red, u32 green, u32 blue) {
    return (9798 * red + 19235 * green + 3735 * blue + 16384) >> 15;  // OpenCV's RGB2GRAY, threshold.gray
}

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

__device__ __forceinline__ u32 level_in_group(const u32* raw, int j, Bins bins) {
#if CHANNELS == 3
    return gray_of(byte_of(raw, 3 * j), byte_of(raw, 3 * j + 1), byte_of(raw, 3 * j + 2));
#elif PIXEL_BITS == 16
    return bin_of(raw[j >> 1] >> ((j & 1) * 16) & 0xffff, bins);
#else
    return byte_of(raw, j);
#endif
}
