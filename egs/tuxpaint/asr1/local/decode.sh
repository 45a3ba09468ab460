#!/usr/bin/env bash
# Test set of one language: frozen base at two contexts, adapter at its own and at the full one.
# local/decode.sh BASE JOB LANG …
set -euo pipefail
base=$1 job=$2
lang=${*:$((job + 2)):1}
frozen=(--base "$base" --language "$lang")
adapted=(--base "$base" --adapter exp/"$lang"/adapter)
full=(--context full --batch-seconds 240) # eight recordings of 30 s at once
local/transcribe.sh "$lang" exp/"$lang"/decode_adapter_0.5 "${adapted[@]}" --context 0.5
local/transcribe.sh "$lang" exp/"$lang"/decode_frozen_2.56 "${frozen[@]}" --context 2.56
local/transcribe.sh "$lang" exp/"$lang"/decode_frozen_full "${frozen[@]}" "${full[@]}"
local/transcribe.sh "$lang" exp/"$lang"/decode_adapter_full "${adapted[@]}" "${full[@]}"
