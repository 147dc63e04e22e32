// C entry points that run the kernels of one variant on the CPU. Included after cuda.h and the kernel's source.
#ifdef LABEL
static void fill(Parameters& p, const double* g) { p = {g[0], g[1], g[2], g[3]}; }

extern "C" void run_label(const Pixel* images, u8* masks, float* thresholds, float* separabilities, void* workspace, int count,
                          Geometry g, const double* ght, Value* inputs, const float* normalise) {
    Parameters p;
    fill(p, ght);
#if INPUT
    Normalise f;
    memcpy(&f, normalise, sizeof f);
#else
    (void)inputs, (void)normalise;
#endif
    emulation::launch({(unsigned)(count * g.parts), 1, 1}, THREADS, BLOCK_BYTES + g.chunk + 48, [&] {
#if INPUT
        label(images, masks, thresholds, separabilities, (Workspace*)workspace, g, p, inputs, f);
#else
        label(images, masks, thresholds, separabilities, (Workspace*)workspace, g, p);
#endif
    });
}

extern "C" void run_measure(const Pixel* images, u8* masks, float* thresholds, float* separabilities, void* workspace, int count,
                            Geometry g, const double* ght, Value* inputs, const float* normalise) {
    Parameters p;
    fill(p, ght);
#if INPUT
    Normalise f;
    memcpy(&f, normalise, sizeof f);
#else
    (void)inputs, (void)normalise;
#endif
    dim3 blocks = {(unsigned)(count * g.parts), 1, 1};
    emulation::launch(blocks, THREADS, 0, [&] { ranges(images, (Workspace*)workspace, g); });
    emulation::launch(blocks, THREADS, BLOCK_BYTES, [&] {
#if INPUT
        measure(images, thresholds, separabilities, (Workspace*)workspace, g, p, inputs, f);
#else
        measure(images, thresholds, separabilities, (Workspace*)workspace, g, p);
#endif
    });
    emulation::launch(blocks, THREADS, 16, [&] { apply(images, masks, (Workspace*)workspace, g); });
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
