// Enough of CUDA to run a kernel's own source on the CPU: every thread of every block is a fiber; a fiber runs until it
// waits (barrier, shuffle, vote, pause) and then the next one that can run goes on. One system thread, so atomics are plain.
//
// Barriers and warp operations must be reached by every thread of the block or warp that has not returned; where some never
// come, the process ends with a message. Few headers, which take longer to compile than a kernel.
#pragma once
#define EMULATED 1
#undef _FORTIFY_SOURCE  // its longjmp refuses to change stacks

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

struct uint4 {
    unsigned x, y, z, w;
};
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace emulation {

struct Fiber;
struct Queue {  // of fibers, first come, first served
    Fiber *first = nullptr, *last = nullptr;
    inline void push(Fiber* fiber);
    inline Fiber* pop();
    inline void take(Queue& other);  // all of another queue's, which is empty then
};
struct Meeting {  // a barrier of `members` fibers
    unsigned members = 0, arrived = 0, generation = 0;
    Queue waiting;
};
struct Warp {
    Meeting meeting;
    unsigned long long slot[2][32];  // of this meeting and the next: a lane may go on while others still read
};
struct Block {
    dim3 index;
    Meeting meeting;
    Warp* warps;
    unsigned char* shared;
};
struct Fiber {
    jmp_buf context;
    Block* block;
    dim3 index;
    Fiber* next;
    char stack[32 << 10];
};

inline void Queue::push(Fiber* fiber) {
    fiber->next = nullptr;
    (first ? last->next : first) = fiber;
    last = fiber;
}
inline Fiber* Queue::pop() {
    Fiber* fiber = first;
    if (fiber) first = fiber->next;
    return fiber;
}
inline void Queue::take(Queue& other) {
    if (!other.first) return;
    (first ? last->next : first) = other.first;
    last = other.last;
    other.first = nullptr;
}

inline Fiber* current;
inline Queue ready, idle;  // idle fibers have returned from a kernel and wait for the next one
inline jmp_buf launcher;
inline ucontext_t maker, made;
inline dim3 grid;
inline void (*body)(const void*);
inline const void* argument;
inline size_t left;  // fibers that have not returned

// Let the next fiber that can run go on. Returns when it is this fiber's turn again. `_setjmp` leaves the signal mask alone:
// a system call less than `swapcontext` makes each time.
[[gnu::noinline]] inline void park() {
    if (_setjmp(current->context)) return;
    current = ready.pop();
    if (current) _longjmp(current->context, 1);
    if (!left) _longjmp(launcher, 1);
    fprintf(stderr, "%zu threads wait for others that returned or wait elsewhere\n", left);
    abort();
}

inline void yield() {
    ready.push(current);
    park();
}

inline void release(Meeting& meeting) {
    if (meeting.members && meeting.arrived >= meeting.members) {
        meeting.arrived = 0;
        meeting.generation++;
        ready.take(meeting.waiting);
    }
}
inline void meet(Meeting& meeting) {
    unsigned mine = meeting.generation;
    meeting.arrived++;
    release(meeting);
    if (meeting.generation != mine) return;  // the last to come
    meeting.waiting.push(current);
    park();
}
inline void leave(Meeting& meeting) {
    meeting.members--;
    release(meeting);
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

// What a fiber does all its life: a kernel, then the next one.
inline void live() {
    if (!_setjmp(current->context)) setcontext(&maker);
    for (;;) {
        body(argument);
        leave(current->block->meeting);
        leave(warp().meeting);
        left--;
        idle.push(current);
        park();
    }
}

inline Fiber* fiber() {
    if (Fiber* used = idle.pop()) return used;
    current = new Fiber;
    getcontext(&made);
    made.uc_stack.ss_sp = current->stack;
    made.uc_stack.ss_size = sizeof current->stack;
    makecontext(&made, live, 0);
    swapcontext(&maker, &made);
    return current;
}

// Run all blocks of a grid at once. Fresh shared memory holds 0xA5 bytes: nothing may count on zeros.
template <class Kernel>
void launch(dim3 blocks, unsigned threads, size_t shared_bytes, const Kernel& kernel) {
    const size_t count = (size_t)blocks.x * blocks.y * blocks.z, warps = threads / 32, bytes = (shared_bytes + 31) & ~15;
    Block* all = new Block[count];
    Warp* every = new Warp[count * warps]();
    unsigned char* memory = new unsigned char[count * bytes];
    memset(memory, 0xA5, count * bytes);
    for (size_t i = 0; i < count; i++) {
        Block& block = all[i];
        block.index = {unsigned(i % blocks.x), unsigned(i / blocks.x % blocks.y), unsigned(i / blocks.x / blocks.y)};
        block.meeting.members = threads;
        block.warps = every + i * warps;
        block.shared = memory + i * bytes + (16 - (uintptr_t)memory % 16) % 16;
        for (size_t w = 0; w < warps; w++) block.warps[w].meeting.members = 32;
        for (unsigned t = 0; t < threads; t++) {
            Fiber* one = fiber();
            one->block = &block;
            one->index = {t, 0, 0};
            ready.push(one);
        }
    }
    grid = blocks;
    body = [](const void* given) { (*(const Kernel*)given)(); };
    argument = &kernel;
    left = count * threads;
    if (!_setjmp(launcher)) {
        current = ready.pop();
        _longjmp(current->context, 1);
    }
    delete[] memory;
    delete[] every;
    delete[] all;
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

template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}
template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}

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
    *to = max(old, (T)value);
    return old;
}
template <class T, class U>
T atomicMin(T* to, U value) {
    emulation::yield();  // others may come between what led here and the exchange
    T old = *to;
    *to = min(old, (T)value);
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
inline float emulated_nan() { return __builtin_nanf(""); }
inline unsigned emulated_bits(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}
inline unsigned emulated_half(float value) {  // float32 -> bits of float16, nearest, ties to even
    unsigned bits = emulated_bits(value), sign = bits >> 16 & 0x8000;
    double size = std::fabs((double)value);
    if (size >= 65520) return sign | 0x7c00;
    int exponent = max((int)(bits >> 23 & 255) - 127, -14);
    double scaled = std::nearbyint(std::ldexp(size, 10 - exponent));  // in units of the last place
    return sign | (unsigned)(scaled + (exponent == -14 ? 0 : (exponent + 14) * 1024));
}
