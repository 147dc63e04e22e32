#!/bin/sh
# compute-sanitizer over small GPU tests: memcheck (out of bounds, misaligned), then racecheck (shared-memory hazards).
# Usage: tests/labels/sanitize.sh [pytest -k expression]. Exits 0, with a word, where there is no tool or no GPU.
set -eu
cd "$(dirname "$0")/../.."
python="${PYTHON:-python}"
cases="${1:-(every_kind and sparse) or (usual_sizes and 224) or (adaptive and 33) or read_twice or (unaligned and 7) or (rounded and 31)}"

if ! command -v compute-sanitizer >/dev/null; then
    echo "sanitize: skipped, compute-sanitizer is not installed (it comes with the CUDA toolkit)"
    exit 0
fi
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "sanitize: skipped, torch sees no NVIDIA GPU"
    exit 0
fi
# Caching allocators would hide what lies out of bounds.
export PYTORCH_NO_CUDA_MEMORY_CACHING=1
for tool in memcheck racecheck; do
    echo "sanitize: $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 1 --target-processes all \
        "$python" -m pytest -m gpu tests/labels/test_cuda_labels.py -p no:cacheprovider -k "$cases"
done
