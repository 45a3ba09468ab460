#!/usr/bin/env bash
# One frozen Whisper, one adapter for each language of the Tux Paint stamps.
help_message="usage: ./run.sh [options]
  --stage N        first stage (default 0)
  --stop-stage N   last stage (default 5)
    0 fetch   1 prepare   2 train   3 decode   4 score   5 report
    6 full fine-tuning of --few-langs, the yardstick
    7 trailing silence against WER for --few-langs
    8 the same systems by the harness, side by side: exp/eval/report.html
  --nj N           jobs at once, one core each (default 2)
  --langs 'be ro'  languages (default all eight)
  --few-langs L    languages of stages 6 and 7 (default 'be ro')
  --base B         hub id or folder (default openai/whisper-base)
  --adapters A     of stage 8 (default exp/{lang}/adapter; adapters/{lang} are those of RESULTS)
  --faster-whisper DIR  a CTranslate2 folder that stage 8 compares too
Every stage goes on where it was stopped; stage 5 again adds what stages 6 and 7 found."
stage=0
stop_stage=5
nj=2
langs="be bg ca el ro es fr ru"
few_langs="be ro"
base=openai/whisper-base
adapters=exp/{lang}/adapter
faster_whisper=
cd "$(dirname "$0")" || exit 1
. ../../utils/parse_options.sh
. ./path.sh
. ./cmd.sh
set -euo pipefail
read -ra lang <<<"$langs"
read -ra few <<<"$few_langs"
count=${#lang[@]}
export OMP_NUM_THREADS=1 # one core a job: two jobs of one thread beat one job of two

if ((stage <= 0 && stop_stage >= 0)); then
  echo "$0: stage 0: fetch and unpack the recordings and the base"
  speechadapt-recipes tuxpaint --fetch-only --out data --downloads downloads
  speechadapt fetch "$base"
fi

if ((stage <= 1 && stop_stage >= 1)); then
  echo "$0: stage 1: data directories"
  speechadapt-recipes tuxpaint --out data --downloads downloads --nj "$nj" --languages "${lang[@]}"
fi

if ((stage <= 2 && stop_stage >= 2)); then
  echo "$0: stage 2: train an adapter for ${langs}, three runs each, averaged; logs in exp/log"
  $train_cmd JOB=1:"$count" exp/log/train.JOB.log local/train.sh "$base" JOB "${lang[@]}"
fi

if ((stage <= 3 && stop_stage >= 3)); then
  echo "$0: stage 3: transcribe the test sets, frozen and adapted"
  $decode_cmd JOB=1:"$count" exp/log/decode.JOB.log local/decode.sh "$base" JOB "${lang[@]}"
fi

if ((stage <= 4 && stop_stage >= 4)); then
  echo "$0: stage 4: score"
  for l in "${lang[@]}"; do
    for text in exp/"$l"/decode_*/text; do
      speechadapt-eval wer data/"$l"/test/text "$text" >"${text%/text}/wer"
      speechadapt-eval wer --unit char data/"$l"/test/text "$text" >"${text%/text}/cer"
    done
  done
  grep -H '%WER' exp/*/decode_*/wer
fi

if ((stage <= 5 && stop_stage >= 5)); then
  echo "$0: stage 5: report"
  speechadapt-recipes results --data data --exp exp --languages "${lang[@]}" | tee exp/results.md
fi

if ((stage <= 6 && stop_stage >= 6)); then
  echo "$0: stage 6: fine-tune the whole base for ${few_langs}; logs in exp/log"
  $train_cmd JOB=1:"${#few[@]}" exp/log/finetune.JOB.log local/finetune.sh "$base" JOB "${few[@]}"
fi

if ((stage <= 7 && stop_stage >= 7)); then
  echo "$0: stage 7: trailing silence"
  $decode_cmd JOB=1:"${#few[@]}" exp/log/silence.JOB.log local/silence.sh "$base" JOB "${few[@]}"
fi

if ((stage <= 8 && stop_stage >= 8)); then
  echo "$0: stage 8: systems side by side"
  ours=speechadapt:$base
  systems=("frozen-30s=$ours?context=full&batch_seconds=240" "frozen-2.56s=$ours?context=2.56"
    "adapters=$ours:$adapters")
  [ -z "$faster_whisper" ] || systems+=("faster-whisper=faster-whisper:$faster_whisper?beam_size=1")
  options=()
  for system in "${systems[@]}"; do options+=(--system "$system"); done
  for l in "${lang[@]}"; do options+=(--set "$l=data/$l/test"); done
  OMP_NUM_THREADS=$nj speechadapt-eval run "${options[@]}" --out exp/eval
  speechadapt-eval report exp/eval --show frozen-30s adapters
fi
