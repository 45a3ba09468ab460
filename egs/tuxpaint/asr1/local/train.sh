#!/usr/bin/env bash
# Train the adapter of one language, the average of three runs from one start:
# local/train.sh BASE JOB LANG …
set -euo pipefail
base=$1 job=$2
lang=${*:$((job + 2)):1}
runs=()

train() { # RUN [options]
  runs+=(exp/"$lang"/train_"$1")
  speechadapt train --base "$base" --data data/"$lang"/train --dev data/"$lang"/dev \
    --adapter pfeiffer --config conf/train.yaml --name "$lang" --out exp/"$lang"/train_"$1" "${@:2}"
}

# Runs that see the data differently over-fit differently; their average over-fits less.
speeds=(--speed 0.9 1.0 1.1)
train plain
train speed_150 "${speeds[@]}"
train speed_240 "${speeds[@]}" --steps 240 --eval-every 120 --checkpoint-every 40
speechadapt adapters average --base "$base" "${runs[@]/%//adapter}" --out exp/"$lang"/adapter
