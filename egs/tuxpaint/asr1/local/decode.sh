#!/usr/bin/env bash
# Test set of one language: frozen base at two contexts, adapter at its own and at the full one.
# local/decode.sh BASE JOB LANG …
set -euo pipefail
base=$1 job=$2
lang=${*:$((job + 2)):1}
adapter=exp/$lang/adapter
local/transcribe.sh "$lang" exp/"$lang"/decode_frozen_2.56 --base "$base" --language "$lang" --context 2.56
local/transcribe.sh "$lang" exp/"$lang"/decode_adapter_0.5 --base "$base" --adapter "$adapter" --context 0.5
local/transcribe.sh "$lang" exp/"$lang"/decode_frozen_full --base "$base" --language "$lang" --context full
local/transcribe.sh "$lang" exp/"$lang"/decode_adapter_full --base "$base" --adapter "$adapter" --context full
