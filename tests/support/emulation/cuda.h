// Enough of CUDA to run a kernel's own source on the CPU: every thread of every block is a fiber; a fiber runs until it
// waits (barrier, shuffle, vote, pause) and then the next one goes on. One system thread, so atomics are plain.
//
// Barriers and warp operations must be reached by every thread of the block or warp that has not returned.
#pragma once
#define EMULATED 1

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

struct uint4 {
    unsigned x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace emulation {

struct Meeting {  // a barrier of `members` fibers
    unsigned members = 0, arrived = 0, generation = 0;
};
struct Warp {
    Meeting meeting;
    unsigned long long slot[2][32];  // of this meeting and the next: a lane may go on while others still read
};
struct Block {
    dim3 index;
    Meeting meeting;
    std::vector<Warp> warps;
    std::vector<unsigned char> memory;
    unsigned char* shared;
};
struct Thread {
    ucontext_t context;
    Block* block;
    dim3 index;
    bool done = false;
    std::unique_ptr<char[]> stack;
};

inline Thread* current;
inline ucontext_t scheduler;
inline dim3 grid;
inline const std::function<void()>* body;

inline void yield() { swapcontext(&current->context, &scheduler); }

inline void release(Meeting& meeting) {
    if (meeting.members && meeting.arrived >= meeting.members) {
        meeting.arrived = 0;
        meeting.generation++;
    }
}
inline void meet(Meeting& meeting) {
    unsigned mine = meeting.generation;
    meeting.arrived++;
    release(meeting);
    while (meeting.generation == mine) yield();
}
inline Warp& warp() { return current->block->warps[current->index.x / 32]; }
inline unsigned lane() { return current->index.x % 32; }

template <class T>
T exchange(T value, int source) {  // the value of lane `source`, or one's own where there is none
    unsigned long long* slot = warp().slot[warp().meeting.generation & 1];
    memcpy(&slot[lane()], &value, sizeof value);
    meet(warp().meeting);
    T result = value;
    if (source >= 0 && source < 32) memcpy(&result, &slot[source], sizeof result);
    return result;
}

inline unsigned ballot(bool vote) {  // bit i: the vote of lane i
    unsigned long long* slot = warp().slot[warp().meeting.generation & 1];
    slot[lane()] = vote;
    meet(warp().meeting);
    unsigned result = 0;
    for (int source = 0; source < 32; source++) result |= (unsigned)slot[source] << source;
    return result;
}

inline void run() {
    (*body)();
    current->done = true;
    for (Meeting* meeting : {&current->block->meeting, &warp().meeting}) {
        meeting->members--;
        release(*meeting);
    }
    yield();
}

// Run all blocks of a grid at once. Fresh shared memory holds 0xA5 bytes: nothing may count on zeros.
inline void launch(dim3 blocks, unsigned threads, size_t shared_bytes, const std::function<void()>& kernel) {
    grid = blocks;
    body = &kernel;
    std::vector<std::unique_ptr<Block>> all;
    std::vector<std::unique_ptr<Thread>> fibers;
    for (unsigned z = 0; z < blocks.z; z++)
        for (unsigned y = 0; y < blocks.y; y++)
            for (unsigned x = 0; x < blocks.x; x++) {
                auto block = std::make_unique<Block>();
                block->index = {x, y, z};
                block->meeting.members = threads;
                block->warps.resize(threads / 32);
                for (auto& w : block->warps) w.meeting.members = 32;
                block->memory.assign(shared_bytes + 16, 0xA5);
                block->shared = block->memory.data() + (16 - (uintptr_t)block->memory.data() % 16) % 16;
                for (unsigned t = 0; t < threads; t++) {
                    auto fiber = std::make_unique<Thread>();
                    fiber->block = block.get();
                    fiber->index = {t, 0, 0};
                    const size_t size = 32 << 10;
                    fiber->stack.reset(new char[size]);
                    getcontext(&fiber->context);
                    fiber->context.uc_stack.ss_sp = fiber->stack.get();
                    fiber->context.uc_stack.ss_size = size;
                    fiber->context.uc_link = &scheduler;
                    makecontext(&fiber->context, run, 0);
                    fibers.push_back(std::move(fiber));
                }
                all.push_back(std::move(block));
            }
    for (size_t left = fibers.size(); left;) {
        left = 0;
        for (auto& fiber : fibers) {
            if (fiber->done) continue;
            current = fiber.get();
            swapcontext(&scheduler, &fiber->context);
            left += !fiber->done;
        }
    }
}

}  // namespace emulation

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define threadIdx (emulation::current->index)
#define blockIdx (emulation::current->block->index)
#define gridDim (emulation::grid)
#define SHARED(name) unsigned char* name = emulation::current->block->shared

using std::max;
using std::min;

inline void __syncthreads() { emulation::meet(emulation::current->block->meeting); }
inline void __threadfence() {}
inline void __syncwarp() { emulation::meet(emulation::warp().meeting); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    return emulation::exchange(value, (int)emulation::lane() ^ mask);
}
template <class T>
T __shfl_up_sync(unsigned, T value, int by) {
    return emulation::exchange(value, (int)emulation::lane() - by);
}
inline unsigned __ballot_sync(unsigned, bool vote) {
    return emulation::ballot(vote);
}
template <class T, class U>
T atomicAdd(T* to, U value) {
    T old = *to;
    *to += (T)value;
    return old;
}
template <class T, class U>
T atomicMax(T* to, U value) {
    T old = *to;
    *to = std::max(old, (T)value);
    return old;
}
template <class T, class U>
T atomicMin(T* to, U value) {
    emulation::yield();  // others may come between what led here and the exchange
    T old = *to;
    *to = std::min(old, (T)value);
    return old;
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned __int128)a * b >> 64; }
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
    return (unsigned)(((unsigned long long)high << 32 | low) >> (by & 31));
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    unsigned long long both = (unsigned long long)y << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) result |= (unsigned)(both >> (selector >> 4 * i & 7) * 8 & 255) << 8 * i;
    return result;
}
inline unsigned __dp2a_lo(unsigned halves, unsigned bytes, unsigned sum) {
    return sum + (halves & 0xffff) * (bytes & 255) + (halves >> 16) * (bytes >> 8 & 255);
}
inline unsigned __dp2a_hi(unsigned halves, unsigned bytes, unsigned sum) { return __dp2a_lo(halves, bytes >> 16, sum); }
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __clz(unsigned value) { return value ? __builtin_clz(value) : 32; }
inline int __ffs(unsigned value) { return __builtin_ffs((int)value); }

inline void emulated_yield() { emulation::yield(); }
inline float emulated_nan() { return std::numeric_limits<float>::quiet_NaN(); }
inline unsigned emulated_bits(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}
inline unsigned emulated_half(float value) {  // float32 -> bits of float16, nearest, ties to even
    unsigned bits = emulated_bits(value), sign = bits >> 16 & 0x8000;
    double size = std::fabs((double)value);
    if (size >= 65520) return sign | 0x7c00;
    int exponent = std::max((int)(bits >> 23 & 255) - 127, -14);
    double scaled = std::nearbyint(std::ldexp(size, 10 - exponent));  // in units of the last place
    return sign | (unsigned)(scaled + (exponent == -14 ? 0 : (exponent + 14) * 1024));
}
