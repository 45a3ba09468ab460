#!/usr/bin/env bash
# All that only a GPU can say, as one command in eight minutes: kernels/bench/gpu.sh [--dry] [OUT]
# Compile every row of the plan, run the operators' tests, look for wrong memory accesses and races,
# tune, time every operator and whole encoders, and write into OUT (default: bench) what each step
# printed, and benchmarks.md, which can be pasted into docs/benchmarks.md. A step that fails does not
# keep the others from running; the command then ends with 1.
# --dry: the same steps without a GPU, on a size or two: only to see that they run.
# PYTHON names the interpreter of an environment in which the package is installed.
set -uo pipefail
cd "$(dirname "$0")/../.."
dry=
if [ "${1:-}" = --dry ]; then
  dry=1
  shift
fi
out=${1:-bench} python=${PYTHON:-python3}
mkdir -p "$out/steps"
rm -f "$out"/steps/*
export TRITON_DEFAULT_FP_FUSION=1 PYTHONUNBUFFERED=1
export PYTHONPATH=$PWD:$PWD/kernels${PYTHONPATH:+:$PYTHONPATH} # this checkout, wherever else one is installed

# step NAME SECONDS COMMAND...: its output in $out/NAME.txt, what became of it in $out/steps/NAME.
step() {
  local name=$1 limit=$2 begun=$SECONDS code=0
  shift 2
  timeout "$limit" "$@" >"$out/$name.txt" 2>"$out/$name.err" || code=$?
  local words="exit $code"
  [ $code = 0 ] && words=good
  [ $code = 124 ] && words="out of time ($limit s)"
  echo "| $name | $words | $((SECONDS - begun)) |" | tee "$out/steps/$name"
}

# tests N SECONDS PATH: its tests in N processes, each a step; most of the time goes into compiling.
tests() {
  local limit=$2
  step collect 30 $python -m pytest -q -p no:cacheprovider --collect-only "$3"
  rm -f "$out"/tests-*
  grep :: "$out/collect.txt" | split -n "r/$1" -a 1 - "$out/tests-"
  for part in "$out"/tests-?; do
    step "${part##*/}" "$limit" xargs -r -d '\n' -a "$part" $python -m pytest -q -p no:cacheprovider &
  done
}

triton="env SPEECHADAPT_KERNELS=triton"
bench=kernels/bench plans=kernels/speechadapt_kernels/plans
# Everything that a kernel is compiled for: tiles of 16 and of 64 frames, packed, sliced, trained.
check="$bench/run.py --rounds 0 --models whisper-base --batches 2 --frames 50 300"
if [ -n "$dry" ]; then
  triton="$triton TRITON_INTERPRET=1"
  plans=$out
  check="$bench/run.py --device cpu --rounds 0 --models whisper-base --batches 2 --frames 3"
  step doctor 120 $python -m speechadapt.cli.main doctor
  step gate 300 $python $bench/gate.py --arch 90 --kernels fusion.mix --jobs 1
  tests 2 300 tests/speechadapt_kernels/test_plan.py
  wait
  step memcheck 300 $triton $python $check --out "$out/memcheck.csv"
  step tune 600 $triton $python $bench/tune.py --device cpu --rounds 4 --out "$plans/dry.json"
  step operators 600 $triton $python $bench/run.py --device cpu --rounds 1 --models whisper-base \
    --batches 2 --frames 3 --out "$out/operators.csv"
  step encoders 300 $triton $python $bench/encoder.py --device cpu --models tiny \
    --batches 2 --frames 20 --rounds 1
else
  arch=$($python -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())') || exit 2
  step doctor 20 $python -m speechadapt.cli.main doctor
  # Nothing is timed here, so all at once; they also fill Triton's cache for what is timed below.
  step gate 140 $python $bench/gate.py --arch "$arch" --jobs 4 &
  tests 8 140 tests/speechadapt_kernels
  for model in whisper-base "whisper-small, wav2vec2-base" whisper-large-v3; do
    step "check-${model%%,*}" 140 $triton $python $bench/run.py --rounds 0 --models "$model" \
      --batches 2 --frames 50 1500 --out "$out/check-${model%%,*}.csv" &
  done
  if command -v compute-sanitizer >/dev/null; then
    step memcheck 140 $triton PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck \
      --error-exitcode 1 $python $check --out "$out/memcheck.csv" &
    step racecheck 140 $triton compute-sanitizer --tool racecheck \
      --error-exitcode 1 $python $check --out "$out/racecheck.csv" &
  else
    echo "| sanitizer | not installed: memory accesses were not looked at | 0 |" |
      tee "$out/steps/sanitizer"
  fi
  wait
  # Its plan is what is timed then, and what makes the kernels be used on such a GPU.
  step tune 95 $triton $python $bench/tune.py --seconds 80 --jobs "$(nproc)" \
    --out "$plans/sm$arch.json"
  [ -e "$plans/sm$arch.json" ] && cp "$plans/sm$arch.json" "$out"
  step operators 110 $triton $python $bench/run.py --seconds 100 --batches 8 1 32 --frames 1500 50 \
    --models whisper-base "whisper-small, wav2vec2-base" whisper-large-v3 --out "$out/operators.csv"
  step encoders 60 $python $bench/encoder.py
fi
step operators-table 25 $python $bench/report.py "$out/operators.csv" --picture "$out/operators.svg"
{
  echo "## On $(head -c 200 "$out/operators-table.txt" | head -n 1 | cut -d, -f1)"
  echo
  date -u +%Y-%m-%d
  echo
  cat "$out/operators-table.txt"
  echo
  cat "$out/encoders.txt"
  printf '\n| step | | seconds |\n|---|---|---|\n'
  cat "$out"/steps/*
} >"$out/benchmarks.md"
echo "$SECONDS s; tables in $out/benchmarks.md"
bad=$(grep -L '| good |\|not installed' "$out"/steps/*)
[ -z "$bad" ]
