#!/usr/bin/env bash
# A small AST from nothing: which language is spoken, which sound is heard, and behind it which noise.
help_message="usage: ./run.sh [options]
  --stage N        first stage (default 0)
  --stop-stage N   last stage (default 5)
    0 recordings   1 clips with labels   2 random weights   3 train
    4 label the development set, store   5 label the test set, report
  --nj N           jobs, and threads of training (default 2)
  --device D       of training and labelling (default cpu)
  --corpora DIR    where the corpora are prepared, e.g. ../wav2vec2_ctc/data (default data)
  --note N         for the card (default commit and device)
Every stage goes on where it was stopped. The base is stored in base/."
stage=0
stop_stage=5
nj=2
device=cpu
corpora=data
note=
cd "$(dirname "$0")" || exit 1
. ../../utils/parse_options.sh
. ./path.sh
set -euo pipefail
export OMP_NUM_THREADS=$nj

if ((stage <= 0 && stop_stage >= 0)); then
  echo "$0: stage 0: recordings"
  for name in tuxpaint asterisk noise music; do
    speechadapt-recipes "$name" --out "$corpora/$name" --downloads downloads --nj "$nj"
  done
fi

if ((stage <= 1 && stop_stage >= 1)); then
  echo "$0: stage 1: clips with labels"
  speechadapt-recipes scenes --speech "$corpora"/{tuxpaint,asterisk}/?? --noise "$corpora"/noise \
    --music "$corpora"/music --out data/scenes --nj "$nj"
fi

if ((stage <= 2 && stop_stage >= 2)); then
  echo "$0: stage 2: random weights"
  speechadapt-recipes init --config conf/model.yaml --data data/scenes/train --out exp/init
fi

train_command=(
  speechadapt finetune --base exp/init --objective classify --labels utt2category --multi-label
  --data data/scenes/train --dev data/scenes/dev --config conf/train.yaml --device "$device"
  --out exp/train
)
if ((stage <= 3 && stop_stage >= 3)); then
  echo "$0: stage 3: train"
  "${train_command[@]}"
fi

label() { # SET
  [ -s exp/"$1".jsonl ] && return
  speechadapt classify data/scenes/"$1" --base exp/train/model --device "$device" --batch-size 32 \
    --top 100 --format json >exp/"$1".jsonl.part
  mv exp/"$1".jsonl.part exp/"$1".jsonl
}

if ((stage <= 4 && stop_stage >= 4)); then
  echo "$0: stage 4: development set, store"
  label dev
  speechadapt-recipes labels data/scenes/dev exp/dev.jsonl >exp/dev.md
  speechadapt-recipes store --run exp/train --init exp/init --data data/scenes/train \
    --results exp/dev.md --command "${train_command[*]}" --out base \
    --note "${note:-commit $(git rev-parse --short HEAD), $device}"
fi

if ((stage <= 5 && stop_stage >= 5)); then
  echo "$0: stage 5: test set"
  label test
  speechadapt-recipes labels data/scenes/test exp/test.jsonl | tee exp/test.md
fi
