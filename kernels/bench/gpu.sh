#!/usr/bin/env bash
# All that only a GPU can say, as one command: kernels/bench/gpu.sh [OUT]
# Compile every row of the plan, run the operators' tests, look for wrong memory accesses and races,
# time every operator and whole encoders, and write tables and a picture into OUT (default: bench).
# PYTHON names the interpreter of an environment in which the package is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-bench} python=${PYTHON:-python3}
mkdir -p "$out"
export SPEECHADAPT_KERNELS=triton TRITON_DEFAULT_FP_FUSION=1
arch=$($python -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())')

$python -m speechadapt.cli.main doctor | tee "$out"/doctor.txt
$python kernels/bench/gate.py --arch "$arch" --jobs "$(nproc)" >"$out"/gate.md
$python -m pytest -q -p no:cacheprovider tests/speechadapt_kernels | tee "$out"/tests.txt
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    compute-sanitizer --tool "$tool" --error-exitcode 1 "$python" kernels/bench/run.py --rounds 0 \
      --models whisper-base --batches 2 --frames 50 --out "$out"/"$tool".csv >"$out"/"$tool".txt
  done
else
  echo "$0: compute-sanitizer is not installed: memory accesses were not looked at" >&2
fi
$python kernels/bench/run.py --out "$out"/operators.csv | tee "$out"/operators.txt
$python kernels/bench/report.py "$out"/operators.csv --picture "$out"/operators.svg >"$out"/operators.md ||
  $python kernels/bench/report.py "$out"/operators.csv >"$out"/operators.md
$python kernels/bench/encoder.py | tee "$out"/encoders.txt
