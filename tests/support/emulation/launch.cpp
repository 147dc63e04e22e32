// C entry points that run the kernels of one variant on the CPU. Included after cuda.h and the kernel's source.
#ifdef LABEL
static Parameters parameters(const double* g) { return {g[0], g[1], g[2], g[3]}; }

#if INPUT
static Normalise constants(const float* values) {
    Normalise result;
    memcpy(&result, values, sizeof result);
    return result;
}
#define ALSO_INPUT , inputs, constants(normalise)
#else
#define ALSO_INPUT
#endif

extern "C" void run_label(const Pixel* images, u8* masks, float* thresholds, float* separabilities, Shared* workspace, int count,
                          Geometry g, const double* ght, Value* inputs, const float* normalise) {
    unsigned half = (count * g.parts + 1) / 2, blocks = half < g.parts ? g.parts : half;  // so that blocks come round
    emulation::launch({blocks, 1, 1}, THREADS, BLOCK_BYTES + STAGE_BYTES + g.chunk + 48,
                      [&] { label(images, masks, thresholds, separabilities, workspace, g, parameters(ght) ALSO_INPUT); });
}

extern "C" void run_measure(const Pixel* images, u8* masks, float* thresholds, float* separabilities, Shared* workspace, int count,
                            Geometry g, const double* ght, Value* inputs, const float* normalise) {
    dim3 blocks = {(unsigned)(count * g.parts), 1, 1};
    emulation::launch(blocks, THREADS, 0, [&] { ranges(images, workspace, g); });
    emulation::launch(blocks, THREADS, BLOCK_BYTES + STAGE_BYTES,
                      [&] { measure(images, thresholds, separabilities, workspace, g, parameters(ght) ALSO_INPUT); });
    emulation::launch(blocks, THREADS, 16, [&] { apply(images, masks, workspace, g); });
}
#elif defined COMPONENTS
extern "C" void run_components(const u8* masks, int* labels, int count, Sizes s) {
    dim3 blocks = {(unsigned)(count * s.blocks), 1, 1};
    for (auto kernel : {begin, join, flatten}) emulation::launch(blocks, THREADS, 0, [&] { kernel(masks, labels, s); });
}
#elif defined BLUR
extern "C" void run_blur(const u8* gray, u32* sums, u8* smooth, const u32* weights, Blur b) {
    dim3 blocks = {(unsigned)((b.pixels + THREADS - 1) / THREADS), 1, 1};
    emulation::launch(blocks, THREADS, 0, [&] { across(gray, sums, weights, b); });
    emulation::launch(blocks, THREADS, 0, [&] { down(sums, smooth, weights, b); });
}
#else
extern "C" size_t sums_bytes() { return sizeof(Sums); }

extern "C" void run_adaptive(const u8* images, u8* masks, float* thresholds, float* separabilities, void* sums, int count,
                             const u32* weights, Window v) {
    unsigned across = (v.width + TILE - 1) / TILE, down = (v.height + TILE - 1) / TILE;
    size_t side = TILE + v.block_size - 1;
    emulation::launch({(unsigned)count, across, down}, THREADS, ((side * side + 3) & ~(size_t)3) + side * TILE * 4,
                      [&] { adaptive(images, masks, (Sums*)sums, weights, v); });
    emulation::launch({(unsigned)count, 2, 1}, THREADS, 0, [&] { finish(masks, thresholds, separabilities, (Sums*)sums, v); });
}
#endif
