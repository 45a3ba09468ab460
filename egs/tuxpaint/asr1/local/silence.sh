#!/usr/bin/env bash
# Test set of one language at several trailing silences, greedy without fallback, so that a decoder
# that does not stop shows: local/silence.sh BASE JOB LANG …
set -euo pipefail
base=$1 job=$2
lang=${*:$((job + 2)):1}
for silence in 0 0.25 0.5 1.0 2.56 full; do
  common=(--base "$base" --no-fallback --context "$silence")
  local/transcribe.sh "$lang" exp/"$lang"/silence_adapter_"$silence" "${common[@]}" \
    --adapter exp/"$lang"/adapter
  local/transcribe.sh "$lang" exp/"$lang"/silence_frozen_"$silence" "${common[@]}" --language "$lang"
done
