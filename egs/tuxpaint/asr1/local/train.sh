#!/usr/bin/env bash
# Train the adapter of one language, the average of two runs from one start:
# local/train.sh BASE JOB LANG …
set -euo pipefail
base=$1 job=$2
lang=${*:$((job + 2)):1}
for run in plain speed; do
  speechadapt train --base "$base" --data data/"$lang"/train --dev data/"$lang"/dev \
    --adapter pfeiffer --config conf/train_$run.yaml --name "$lang" --out exp/"$lang"/train_$run
done
speechadapt adapters average --base "$base" exp/"$lang"/train_{plain,speed}/adapter \
  --out exp/"$lang"/adapter
