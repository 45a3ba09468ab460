#!/usr/bin/env bash
# Transcribe the test set of a language once: local/transcribe.sh LANG DIR [options of transcribe]
set -euo pipefail
lang=$1 dir=$2
shift 2
[ -s "$dir"/text ] && exit 0
mkdir -p "$dir"
speechadapt transcribe data/"$lang"/test --format kaldi --out "$dir"/text "$@"
