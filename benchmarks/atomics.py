"""The cost of an addition in shared memory, of which the labelling kernel's histogram makes one for each pixel.

    python -m benchmarks.atomics

Every warp of a full multiprocessor adds to its own words over and over; the multiprocessor's clock gives the cycles between
two such instructions. `ways` lanes share a bank, or even the word; `histogram.cuh` has 1.
"""

import sys
from functools import partial
from typing import Any

import torch

from benchmarks.support import cells, result
from benchmarks.support.cells import Cell, ResultFile
from medsass.labels.compiler import import_cupy

THREADS, BLOCKS, ROUNDS = 512, 3, 4096  # as `label` runs: three blocks a multiprocessor
SOURCE = r"""
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) add(unsigned long long* cycles, unsigned* sink) {
    __shared__ unsigned words[128 * 32];
    for (int i = threadIdx.x; i < 128 * 32; i += THREADS) words[i] = 0;
    __syncthreads();
    unsigned lane = threadIdx.x & 31, place = SAME_WORD ? lane / WAYS : lane / WAYS + lane % WAYS * 32, row = threadIdx.x / 32;
    unsigned long long start = clock64();
#pragma unroll 16
    for (int i = 0; i < ROUNDS; i++) {
        row = row + 37 & 63;
        ADD(&words[row * 32 + place]);
    }
    __syncthreads();
    unsigned long long end = clock64();
    if (threadIdx.x == 0) cycles[blockIdx.x] = end - start;
    sink[blockIdx.x * THREADS + threadIdx.x] = words[threadIdx.x];
}
"""
KINDS = {
    "atomicAdd, each lane its bank": ("atomicAdd(p, 1u)", 1, 0),
    "atomicAdd, two lanes a bank": ("atomicAdd(p, 1u)", 2, 0),
    "atomicAdd, two lanes a word": ("atomicAdd(p, 1u)", 2, 1),
    "atomicAdd, all lanes a word": ("atomicAdd(p, 1u)", 32, 1),
    "load, add and store, each lane its bank": ("(*(volatile unsigned*)(p) += 1)", 1, 0),
}


def measure(what: str) -> list[dict[str, Any]]:
    """Return a row with the cycles of a warp's instruction: the median of the grid's blocks."""
    cupy = import_cupy()
    add, ways, same = KINDS[what]
    blocks = BLOCKS * torch.cuda.get_device_properties(0).multi_processor_count
    defines = {"THREADS": THREADS, "BLOCKS": BLOCKS, "ROUNDS": ROUNDS, "WAYS": ways, "SAME_WORD": same}
    options = tuple(f"-D{name}={value}" for name, value in defines.items())
    kernel = cupy.RawKernel(f"#define ADD(p) {add}\n{SOURCE}", "add", options=options)
    kernel.preferred_shared_memory_carveout = 100
    cycles, sink = cupy.zeros(blocks, cupy.uint64), cupy.zeros(blocks * THREADS, cupy.uint32)
    run = partial(kernel, (blocks,), (THREADS,), (cycles, sink))
    run()  # compiles
    run()
    taken = float(cupy.median(cycles)) / (BLOCKS * THREADS // 32 * ROUNDS)
    print(f"{what}: {taken:.2f} cycles a warp", file=sys.stderr)
    return [{"what": what, "ways": ways, "cycles": taken}]


def main() -> None:
    """Measure all kinds and save the result."""
    options = cells.options("atomics")
    if options.where != "cuda":
        sys.exit("benchmarks.atomics: needs an NVIDIA GPU, torch sees none")
    results = ResultFile("atomics", options)
    done = results.fill([Cell(what, partial(measure, what)) for what in KINDS], lambda _: [])
    result.show(results.path)
    if not done:
        sys.exit(cells.UNFINISHED)


if __name__ == "__main__":
    main()
