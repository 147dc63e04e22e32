// Shared by all kernels: their configuration, reductions over a warp, and rounding to the network's number types.
//
// medsass/labels/compiler.py puts these definitions before the source:
//   THREADS      threads a block, a multiple of 32, at least 256
//   PIXEL_BITS   8 or 16; 16-bit images are single-channel and become 256 bins over their own range
//   CHANNELS     3 (interleaved RGB) or 1
//   GHT          1: generalised histogram thresholding; 0: Otsu
//   RESIDENT     blocks that a multiprocessor should hold at once, which bounds the registers a thread
//   BLOCK_BYTES, STAGE_BYTES, SHARED_BYTES   sizes from compiler.py, which parts.cuh checks
//   INPUT        also write the network's input: 0 no, 1 bfloat16, 2 float16, 3 float32
// No library header is included, so that the source compiles with NVRTC, nvcc, and a host compiler that emulates blocks.
// Floating point contraction is off (--fmad=false), so that scores are those of the NumPy statement.

#ifndef SHARED
#define SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#if PIXEL_BITS == 16
typedef u16 Pixel;
#else
typedef u8 Pixel;
#endif

#if INPUT == 3
typedef float Value;
#else
typedef u16 Value;  // the bits of a bfloat16 or float16
#endif

#define LEVELS 256
#define WARPS (THREADS / 32)
#define ALL 0xffffffffu

__device__ __forceinline__ u32 warp_sum(u32 value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    return __reduce_add_sync(ALL, value);
#else
    for (int step = 16; step; step >>= 1) value += __shfl_xor_sync(ALL, value, step);
    return value;
#endif
}

__device__ __forceinline__ double warp_max(double value) {
    for (int step = 16; step; step >>= 1) {
        double other = __shfl_xor_sync(ALL, value, step);
        value = other > value ? other : value;
    }
    return value;
}

__device__ __forceinline__ u64 warp_scan(u64 value) {  // inclusive
    int lane = threadIdx.x & 31;
    for (int step = 1; step < 32; step <<= 1) {
        u64 other = __shfl_up_sync(ALL, value, step);
        if (lane >= step) value += other;
    }
    return value;
}

__device__ __forceinline__ void pause() {  // between two looks at a flag that another block will set
#ifdef EMULATED
    emulated_yield();
#elif __CUDA_ARCH__ >= 700
    __nanosleep(40);
#endif
}

__device__ __forceinline__ u32 bits_of(float value) {
#ifdef EMULATED
    return emulated_bits(value);
#else
    return __float_as_uint(value);
#endif
}

__device__ __forceinline__ float not_a_number() {
#ifdef EMULATED
    return emulated_nan();
#else
    return __int_as_float(0x7fc00000);
#endif
}

// Store 16 bytes with one instruction. The compiler may split a plain store into four, with four times the traffic to L2.
__device__ __forceinline__ void store_16(void* to, uint4 value) {
#ifdef EMULATED
    *(uint4*)to = value;
#else
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w) : "memory");
#endif
}

// Pack two numbers of the network's type into a word, `low` first in memory; rounded to nearest, ties to even.
__device__ __forceinline__ u32 pack(float low, float high) {
#if INPUT == 2 && defined(EMULATED)
    return emulated_half(low) | emulated_half(high) << 16;
#elif INPUT == 2
    u32 result;
    asm("{.reg .b16 l, h; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 h, %2; mov.b32 %0, {l, h};}" : "=r"(result) : "f"(low), "f"(high));
    return result;
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    u32 result;
    asm("cvt.rn.bf16x2.f32 %0, %2, %1;" : "=r"(result) : "f"(low), "f"(high));
    return result;
#else
    u32 l = bits_of(low), h = bits_of(high);
    l += 0x7fff + (l >> 16 & 1);
    h += 0x7fff + (h >> 16 & 1);
    return (l >> 16) | (h & 0xffff0000u);
#endif
}
