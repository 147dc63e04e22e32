// Connected components of a batch of masks: labels each pixel with the smallest index of its component, background with -1.
//
// A label is a link to a pixel of the same component with a smaller index, or to itself at the root. So the final root of a
// component is its first pixel, in whatever order threads run. Three launches: `begin` links the pixels of a run within 32
// of a row, `join` unites runs that touch, `flatten` links every pixel to its root. A warp takes 32 pixels of a row; runs
// are linked once for each stretch in which they touch, not once a pixel (after Hennequin et al. 2018). Roots are united
// with atomicMin, without locks (Komura 2015; Playne and Hawick 2018, arXiv 1708.08180).

#define SEGMENT 32

struct Sizes {
    int height, width, blocks, diagonal;  // blocks an image; diagonal: whether corners connect
};

struct Place {  // a thread's pixel
    const u8* mask;
    int* labels;  // of its image
    int x, y, i;
    bool inside;
};

// All pixels of a warp lie in one row, or beyond the last one.
__device__ __forceinline__ Place place(const u8* masks, int* labels, const Sizes& s) {
    int across = (s.width + SEGMENT - 1) / SEGMENT;
    int segment = (int)(blockIdx.x % s.blocks) * WARPS + (int)(threadIdx.x >> 5);
    u64 image = (u64)(blockIdx.x / s.blocks) * s.height * s.width;
    Place p;
    p.mask = masks + image;
    p.labels = labels + image;
    p.x = segment % across * SEGMENT + (int)(threadIdx.x & 31);
    p.y = segment / across;
    p.i = p.y * s.width + p.x;
    p.inside = p.x < s.width && p.y < s.height;
    return p;
}

// Other threads change links meanwhile, always to smaller indices of the same component: at worst an old value is a detour.
__device__ __forceinline__ int root(volatile int* labels, int i) {
    for (int next = labels[i]; next != i; next = labels[i]) i = next;
    return i;
}

__device__ void unite(int* labels, int a, int b) {
    for (;;) {
        a = root(labels, a);
        b = root(labels, b);
        if (a == b) return;
        int high = max(a, b), low = min(a, b);
        int old = atomicMin(labels + high, low);
        if (old == high) return;
        a = old;  // another thread was first: its link is to a pixel of the same component
        b = low;
    }
}

// grid of all: images * blocks. The pixels of a run link to the run's first pixel within their segment.
extern "C" __global__ void __launch_bounds__(THREADS)
begin(const u8* __restrict__ masks, int* __restrict__ labels, Sizes s) {
    const Place p = place(masks, labels, s);
    bool set = p.inside && p.mask[p.i];
    u32 lane = threadIdx.x & 31, ground = ~__ballot_sync(ALL, set) & ((1u << lane) - 1);
    int start = ground ? 32 - __clz(ground) : 0;
    if (p.inside) p.labels[p.i] = set ? p.i - (int)lane + start : -1;
}

extern "C" __global__ void __launch_bounds__(THREADS)
join(const u8* __restrict__ masks, int* __restrict__ labels, Sizes s) {
    const Place p = place(masks, labels, s);
    if (!p.inside || !p.mask[p.i]) return;
    const u8 *here = p.mask + p.i, *above = here - s.width;
    bool left = p.x > 0 && here[-1], right = p.x + 1 < s.width && here[1];
    if (left && p.x % SEGMENT == 0) unite(p.labels, p.i, p.i - 1);
    if (p.y == 0) return;
    bool up_left = p.x > 0 && above[-1], up_right = p.x + 1 < s.width && above[1];
    // A run and one above it are united where they begin to touch. If the pixel above is set, it connects its own
    // neighbours; if a neighbour in the row is set, the corner lies straight above that neighbour.
    if (above[0]) {
        if (!(left && up_left)) unite(p.labels, p.i, p.i - s.width);
    } else if (s.diagonal) {
        if (up_left && !left) unite(p.labels, p.i, p.i - s.width - 1);
        if (up_right && !right) unite(p.labels, p.i, p.i - s.width + 1);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
flatten(const u8* __restrict__ masks, int* __restrict__ labels, Sizes s) {
    const Place p = place(masks, labels, s);
    if (p.inside && p.labels[p.i] >= 0) p.labels[p.i] = root(p.labels, p.i);
}
