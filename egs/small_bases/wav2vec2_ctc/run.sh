#!/usr/bin/env bash
# A small wav2vec2 from nothing: CTC over ten languages, recorded and synthetic speech.
help_message="usage: ./run.sh [options]
  --stage N        first stage (default 0)
  --stop-stage N   last stage (default 6)
    0 recordings   1 synthetic speech   2 one set of all   3 random weights   4 train
    5 transcribe the development set, store   6 transcribe the test set, report
  --nj N           jobs, and threads of training (default 2)
  --device D       of training and transcribing (default cpu)
  --synthetic B    true or false; espeak-ng's library is for Linux on x86-64 (default true)
  --corpora DIR    where the corpora are prepared (default data)
  --note N         for the card (default commit and device)
Every stage goes on where it was stopped. The base is stored in base/."
stage=0
stop_stage=6
nj=2
device=cpu
synthetic=true
corpora=data
note=
cd "$(dirname "$0")" || exit 1
. ../../utils/parse_options.sh
. ./path.sh
set -euo pipefail
export OMP_NUM_THREADS=$nj

if ((stage <= 0 && stop_stage >= 0)); then
  echo "$0: stage 0: recordings"
  speechadapt-recipes tuxpaint --out "$corpora"/tuxpaint --downloads downloads --nj "$nj"
  speechadapt-recipes asterisk --out "$corpora"/asterisk --downloads downloads --nj "$nj"
fi

if ((stage <= 1 && stop_stage >= 1)) && $synthetic; then
  echo "$0: stage 1: synthetic speech, for training only"
  speechadapt-recipes synthetic --out "$corpora"/synthetic --downloads downloads
fi

if ((stage <= 2 && stop_stage >= 2)); then
  echo "$0: stage 2: one set of all languages"
  train=("$corpora"/{tuxpaint,asterisk}/*/train)
  if $synthetic; then train+=("$corpora"/synthetic/*/train); fi
  speechadapt-recipes pool --data "${train[@]}" --out data/train --for-ctc
  speechadapt-recipes pool --data "$corpora"/{tuxpaint,asterisk}/*/dev --out data/dev
  speechadapt-recipes pool --data "$corpora"/{tuxpaint,asterisk}/*/test --out data/test
fi

if ((stage <= 3 && stop_stage >= 3)); then
  echo "$0: stage 3: random weights"
  speechadapt-recipes init --config conf/model.yaml --data data/train --out exp/init
fi

train_command=(
  speechadapt finetune --base exp/init --objective ctc --data data/train --dev data/dev
  --config conf/train.yaml --device "$device" --out exp/train
)
if ((stage <= 4 && stop_stage >= 4)); then
  echo "$0: stage 4: train"
  "${train_command[@]}"
fi

transcribe() { # SET
  [ -s exp/decode_"$1"/text ] && return
  mkdir -p exp/decode_"$1"
  speechadapt transcribe data/"$1" --base exp/train/model --device "$device" \
    --format kaldi --out exp/decode_"$1"/text
}

if ((stage <= 5 && stop_stage >= 5)); then
  echo "$0: stage 5: development set, store"
  transcribe dev
  speechadapt-recipes words data/dev exp/decode_dev/text >exp/dev.md
  speechadapt-recipes store --run exp/train --init exp/init --data data/train --results exp/dev.md \
    --command "${train_command[*]}" --out base \
    --note "${note:-commit $(git rev-parse --short HEAD), $device}"
fi

if ((stage <= 6 && stop_stage >= 6)); then
  echo "$0: stage 6: test set"
  transcribe test
  speechadapt-recipes words data/test exp/decode_test/text | tee exp/test.md
fi
