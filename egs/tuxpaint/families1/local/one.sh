#!/usr/bin/env bash
# Train one family on one backbone and evaluate it: local/one.sh BASES DEVICE LANG JOB BACKBONE/PRESET …
# BASES: whisper=… wav2vec2=… ast=…, in one word with blanks between.
# A family that the backbone cannot have leaves the reason in `refused` and is no error.
set -euo pipefail
read -ra bases <<<"$1"
device=$2 lang=$3 job=$4
run=${*:$((job + 4)):1}
backbone=${run%/*} preset=${run#*/}
for pair in "${bases[@]}"; do
  [ "${pair%%=*}" = "$backbone" ] && base=${pair#*=}
done
dir=exp/$backbone/$lang/$preset
common=(--base "$base" --device "$device")
data=data/$lang
task=()
if [ "$backbone" = ast ]; then
  data=data/channels/$lang
  task=(--objective classify --labels utt2category)
fi

if [ "$preset" != frozen ]; then
  rate=$(awk -v name="$preset" '$1 == name { print $2 }' conf/rates)
  mkdir -p "$dir"
  code=0
  speechadapt train "${common[@]}" "${task[@]}" --data "$data"/train --dev "$data"/dev \
    --adapter "$preset" --config conf/"$backbone".yaml --learning-rate "${rate:-1e-3}" \
    --name "$lang" --out "$dir" 2>"$dir"/stderr || code=$?
  cat "$dir"/stderr >&2
  # The base was loaded, and training did not begin: they do not go together.
  if ((code == 2)) && grep -q 'weights from' "$dir"/stderr && [ ! -e "$dir"/log.jsonl ]; then
    tail -n 1 "$dir"/stderr >"$dir"/refused
    exit 0
  elif ((code != 0)); then
    exit "$code"
  fi
  rm -f "$dir"/refused
  common+=(--adapter "$dir"/adapter)
fi

if [ "$backbone" != ast ]; then
  if [ "$backbone/$preset" = whisper/frozen ]; then
    common+=(--language "$lang")
  fi
  local/transcribe.sh "$lang" "$dir"/decode "${common[@]}"
elif [ ! -s "$dir"/answers.jsonl ]; then
  speechadapt classify "$data"/test "${common[@]}" --top 100 --format json >"$dir"/answers.part
  mv "$dir"/answers.part "$dir"/answers.jsonl
fi
