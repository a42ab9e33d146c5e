#!/usr/bin/env bash
# Runs what `cargo xtask bundle` collected on a machine with an NVIDIA GPU: tests against f64 on the host, compute-sanitizer, benchmarks
# beside PyTorch, and a short training run. Leaves everything under results/ (or the folder given); fails if a test does.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/results}
mkdir -p "$out"
failed=0

# NVIDIA's libraries may come with PyTorch alone.
site=$(python3 -c 'import torch, os; print(os.path.dirname(os.path.dirname(torch.__file__)))' 2>/dev/null || true)
for folder in /usr/local/cuda/lib64 "$site"/nvidia/cu13/lib "$site"/nvidia/*/lib; do
    if [ -d "$folder" ]; then LD_LIBRARY_PATH="$folder:${LD_LIBRARY_PATH:-}"; fi
done
export LD_LIBRARY_PATH FWD_GPU=1 RUST_MIN_STACK=33554432
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv >"$out/device.csv"
cat "$out/device.csv"

step() { # name, command…
    local name=$1
    shift
    echo "== $name"
    if "$@" >"$out/$name.txt" 2>&1; then
        tail -3 "$out/$name.txt"
    else
        echo "FAILED ($?), see $out/$name.txt"
        tail -20 "$out/$name.txt"
        failed=1
    fi
}

unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
tar -xJf "$here/programs.tar.xz" -C "$unpacked" || exit 1
programs=$unpacked/programs
export FWD_PROMPT_ASSETS="$here/assets"

for test in "$programs"/test-*; do
    step "$(basename "$test")" "$test" --nocapture --test-threads=1
done
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck; do
        step "sanitizer-$tool" compute-sanitizer --tool $tool --error-exitcode 9 "$programs/test-gpu" --test-threads=1
    done
else
    echo "compute-sanitizer is not here: not run"
fi
step bench "$programs/bench-gpu" --json "$out/gpu.json"
if [ -n "$site" ]; then
    step bench-torch python3 "$here/gpu_torch.py" --json "$out/torch.json"
else
    echo "PyTorch is not here: the benchmark has no peer"
fi
if [ -x "$programs/fwd-prompt" ]; then
    step train "$programs/fwd-prompt" train --method fwd --device cuda --out "$out/run"
fi
exit $failed
