#!/usr/bin/env bash
# Every adapter family on every backbone, the same number of steps each: a table.
help_message="usage: ./run.sh [options]
  --stage N           first stage (default 0)
  --stop-stage N      last stage (default 4)
    0 data   1 frozen bases   2 every family on --lang   3 the best four of each backbone on
    --more-langs   4 table
  --nj N              jobs at once, one core each (default 2)
  --device D          (default cpu)
  --lang L            of the ranking (default ro)
  --more-langs L      of stage 3 (default 'be es')
  --backbones B       (default 'whisper wav2vec2 ast')
  --presets P         families (default all)
  --whisper B         hub id or folder (default openai/whisper-base)
  --wav2vec2 B        (default ../../small_bases/wav2vec2_ctc/base)
  --ast B             (default ../../small_bases/ast_sounds/base)
Every stage goes on where it was stopped, and the table takes what there is. Whisper and wav2vec2
transcribe the test set; AST says which channel a recording of it came through."
stage=0
stop_stage=4
nj=2
device=cpu
lang=ro
more_langs="be es"
backbones="whisper wav2vec2 ast"
presets=
whisper=openai/whisper-base
wav2vec2=../../small_bases/wav2vec2_ctc/base
ast=../../small_bases/ast_sounds/base
cd "$(dirname "$0")" || exit 1
. ../../utils/parse_options.sh
. ./path.sh
. ./cmd.sh
set -euo pipefail
export OMP_NUM_THREADS=1 # one core a job
read -ra more <<<"$more_langs"
read -ra chosen <<<"$backbones"
bases="whisper=$whisper wav2vec2=$wav2vec2 ast=$ast"

each() { # LOG LANG BACKBONE/PRESET …
  $train_cmd JOB=1:"$(($# - 2))" exp/log/"$1".JOB.log \
    local/one.sh "$bases" "$device" "$2" JOB "${@:3}"
}

if ((stage <= 0 && stop_stage >= 0)); then
  echo "$0: stage 0: data"
  speechadapt-recipes tuxpaint --out data --downloads ../asr1/downloads --nj "$nj" \
    --languages "$lang" "${more[@]}"
  for l in "$lang" "${more[@]}"; do
    speechadapt-recipes channels --data data/"$l" --out data/channels/"$l" --nj "$nj"
  done
fi

if ((stage <= 1 && stop_stage >= 1)); then
  echo "$0: stage 1: frozen bases that can transcribe"
  for l in "$lang" "${more[@]}"; do
    for backbone in "${chosen[@]}"; do
      # The small AST has no labels for channels.
      [ "$backbone" = ast ] || each "$l.$backbone.frozen" "$l" "$backbone"/frozen
    done
  done
fi

if ((stage <= 2 && stop_stage >= 2)); then
  echo "$0: stage 2: every family on $lang; logs in exp/log"
  read -ra family <<<"${presets:-$(speechadapt-recipes families --list)}"
  for backbone in "${chosen[@]}"; do
    each "$lang.$backbone" "$lang" "${family[@]/#/$backbone/}"
  done
fi

if ((stage <= 3 && stop_stage >= 3)); then
  echo "$0: stage 3: the best four on $more_langs; logs in exp/log"
  for backbone in "${chosen[@]}"; do
    read -ra four <<<"$(speechadapt-recipes families --best 4 --backbone "$backbone" --language "$lang")"
    for l in "${more[@]}"; do
      each "$l.$backbone" "$l" "${four[@]/#/$backbone/}"
    done
  done
fi

if ((stage <= 4 && stop_stage >= 4)); then
  echo "$0: stage 4: table"
  speechadapt-recipes families --language "$lang" --others "${more[@]}" | tee exp/families.md
fi
