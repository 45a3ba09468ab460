#!/usr/bin/env bash
# Train the adapter of one language: local/train.sh BASE JOB LANG …
set -euo pipefail
base=$1 job=$2
lang=${*:$((job + 2)):1}
speechadapt train --base "$base" --data data/"$lang"/train --dev data/"$lang"/dev \
  --adapter pfeiffer --config conf/train.yaml --out exp/"$lang"
