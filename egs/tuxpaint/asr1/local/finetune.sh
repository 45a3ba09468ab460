#!/usr/bin/env bash
# Fine-tune every parameter of the base for one language and transcribe its test set:
# local/finetune.sh BASE JOB LANG …
set -euo pipefail
base=$1 job=$2
lang=${*:$((job + 2)):1}
speechadapt finetune --base "$base" --data data/"$lang"/train --dev data/"$lang"/dev \
  --config conf/finetune.yaml --out exp/"$lang"/finetune
local/transcribe.sh "$lang" exp/"$lang"/decode_full_finetune \
  --base exp/"$lang"/finetune/model --language "$lang" --context 0.5
