// Histogram -> threshold, separability and foreground side: threshold.py's otsu, ght, separability and foreground.

#define LEAST 1e-30  // Barron's floor for weights and variances
#define NEAR 1e-13   // scores closer than this are compared exactly

struct Parameters {
    double nu, tau2, kappa, omega;  // of GHT; tau2 is tau squared
};

// A block's result for its image: pixels whose level is above `level` are 1, or 0 if `dark`.
struct Verdict {
    u32 level, dark;
    float threshold, separability;
};

// Class sums at or below each level, kept in shared memory for the exact comparison and the separability.
struct Prefix {
    u64 weight[LEVELS], sum[LEVELS];
};

struct Solver {
    Prefix prefix;
    u64 warp_total[3][LEVELS / 32];
    double warp_best[LEVELS / 32];
    u32 candidates[LEVELS / 32], level_sum[LEVELS / 32], ring[LEVELS / 32], ring_above[LEVELS / 32];
    u64 total[3];
    Verdict verdict;
};

struct Wide {  // 192-bit whole number
    u64 high, middle, low;
};

__device__ __forceinline__ Wide square_times(u64 a, u64 b) {
    u64 low = a * a, high = __umul64hi(a, a);
    Wide result;
    result.low = low * b;
    u64 carried = __umul64hi(low, b), middle = high * b;
    result.middle = middle + carried;
    result.high = __umul64hi(high, b) + (result.middle < middle);
    return result;
}

__device__ __forceinline__ bool greater(Wide a, Wide b) {
    if (a.high != b.high) return a.high > b.high;
    if (a.middle != b.middle) return a.middle > b.middle;
    return a.low > b.low;
}

// |T w - N s| and w (N - w): the between-class variance is numerator^2 / (N^2 denominator). Both are exact for N <= 2^27.
__device__ __forceinline__ u64 numerator(u64 weight, u64 sum, const u64* total) {
    u64 a = total[1] * weight, b = total[0] * sum;
    return a > b ? a - b : b - a;
}

__device__ __forceinline__ u64 denominator(u64 weight, const u64* total) { return weight * (total[0] - weight); }

// One class's term of GHT's score, with the order of operations of threshold.ght_scores.
__device__ __forceinline__ double ght_class(double weight, double sum, double squares, double both, double share, Parameters g) {
    double w = weight > LEAST ? weight : LEAST;
    double p = w / both, mean = sum / w;
    double d = squares - w * (mean * mean);
    d = d > 0 ? d : 0;
    double v = (p * g.nu * g.tau2 + d) / (p * g.nu + w);
    v = v > LEAST ? v : LEAST;
    return -d / v - w * log(v) + 2 * (w + g.kappa * share) * log(w);
}

// Solve for counts[256] with all threads of the block; the result is in s->verdict after the last barrier. `border` counts
// the levels of the image's border, and is read if polarity is 2 (auto; 0 bright, 1 dark); without it the caller finds the
// side.
__device__ void solve(const u32* counts, const u32* border, int polarity, Parameters g, Solver* s) {
    int level = threadIdx.x, lane = level & 31, warp = level / 32;
    u64 n = 0, sum = 0, squares = 0;
    // 1. inclusive prefix sums of n, n x and n x^2 over the levels
    if (level < LEVELS) {
        u64 here = counts[level];
        n = warp_scan(here);
        sum = warp_scan(here * level);
        squares = warp_scan(here * level * level);
        if (lane == 31) {
            s->warp_total[0][warp] = n;
            s->warp_total[1][warp] = sum;
            s->warp_total[2][warp] = squares;
        }
    }
    __syncthreads();
    double score = -1e300;
    if (level < LEVELS) {
        for (int w = 0; w < warp; w++) {
            n += s->warp_total[0][w];
            sum += s->warp_total[1][w];
            squares += s->warp_total[2][w];
        }
        s->prefix.weight[level] = n;
        s->prefix.sum[level] = sum;
        if (level == LEVELS - 1) {
            s->total[0] = n;
            s->total[1] = sum;
            s->total[2] = squares;
        }
    }
    __syncthreads();
    // 2. every level's score, and the block's best
    if (level < LEVELS) {
        const u64* total = s->total;
#if GHT
        if (level < LEVELS - 1) {
            double below = (double)n > LEAST ? (double)n : LEAST;
            double above = (double)(total[0] - n) > LEAST ? (double)(total[0] - n) : LEAST;
            score = 0.0 + ght_class((double)n, (double)sum, (double)squares, below + above, g.omega, g);
            score += ght_class((double)(total[0] - n), (double)(total[1] - sum), (double)(total[2] - squares), below + above, 1 - g.omega, g);
        }
#else
        u64 d = denominator(n, total);
        double a = (double)numerator(n, sum, total);
        if (d) score = a * a / (double)d;
#endif
        double best = warp_max(score);
        if (lane == 0) s->warp_best[warp] = best;
    }
    __syncthreads();
    // 3. the best levels: for GHT all that tie, for Otsu all that the rounding of doubles cannot tell apart
    if (level < LEVELS) {
        double best = s->warp_best[0];
        for (int w = 1; w < LEVELS / 32; w++) best = s->warp_best[w] > best ? s->warp_best[w] : best;
#if GHT
        bool candidate = level < LEVELS - 1 && score == best;
#else
        // A level without pixels has the score of the one before it, which is the earlier maximiser.
        bool candidate = counts[level] && score > 0 && score >= best * (1 - NEAR);
#endif
        u32 ballot = __ballot_sync(ALL, candidate), levels = warp_sum(candidate ? level : 0);
        if (lane == 0) {
            s->candidates[warp] = ballot;
            s->level_sum[warp] = levels;
        }
    }
    __syncthreads();
    // 4. one thread decides
    if (threadIdx.x == 0) {
        const u64* total = s->total;
        u32 chosen = 0;
        double threshold = 0;
#if GHT
        u32 ties = 0, levels = 0;
        for (int w = 0; w < LEVELS / 32; w++) {
            ties += __popc(s->candidates[w]);
            levels += s->level_sum[w];
        }
        threshold = ties ? (double)levels / ties : 0;
        chosen = (u32)threshold;
#else
        bool any = false;
        for (int w = 0; w < LEVELS / 32; w++) {
            for (u32 left = s->candidates[w]; left; left &= left - 1) {
                u32 now = w * 32 + __ffs(left) - 1;
                if (any) {
                    u64 a = numerator(s->prefix.weight[now], s->prefix.sum[now], total), da = denominator(s->prefix.weight[now], total);
                    u64 b = numerator(s->prefix.weight[chosen], s->prefix.sum[chosen], total), db = denominator(s->prefix.weight[chosen], total);
                    if (!greater(square_times(a, db), square_times(b, da))) continue;
                }
                chosen = now;
                any = true;
            }
        }
        threshold = chosen;
#endif
        // variance times N^2, exactly: N q - T^2 in 128 bits
        u64 low = total[0] * total[2], high = __umul64hi(total[0], total[2]);
        u64 square = total[1] * total[1], square_high = __umul64hi(total[1], total[1]);
        high -= square_high + (low < square);
        low -= square;
        double variance = (double)high * 18446744073709551616.0 + (double)low;
        u64 weight = s->prefix.weight[chosen], between = denominator(weight, total);
        double a = (double)numerator(weight, s->prefix.sum[chosen], total);
        Verdict v;
        v.separability = between && variance > 0 ? (float)(a * a / ((double)between * variance)) : 0.0f;
        if (!(variance > 0)) {  // a constant image: nothing is above, nothing is foreground
            v.level = LEVELS - 1;
            v.dark = 0;
            v.threshold = 0;
        } else {
            v.level = chosen;
            v.dark = polarity == 1;
            v.threshold = (float)threshold;
        }
        s->verdict = v;
    }
    __syncthreads();
    // 5. the side: the class that holds less of the border
    if (polarity != 2 || !border) return;
    if (level < LEVELS) {
        u32 ring = warp_sum(border[level]), above = warp_sum(level > (int)s->verdict.level ? border[level] : 0);
        if (lane == 0) {
            s->ring[warp] = ring;
            s->ring_above[warp] = above;
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        u32 ring = 0, above = 0;
        for (int w = 0; w < LEVELS / 32; w++) {
            ring += s->ring[w];
            above += s->ring_above[w];
        }
        s->verdict.dark = 2 * above > ring;
    }
    __syncthreads();
}
