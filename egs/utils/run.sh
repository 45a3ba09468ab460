#!/usr/bin/env bash
# Run a job array on this machine, with the interface of Kaldi's run.pl:
#   run.sh [--max-jobs-run N] JOB=1:4 log/x.JOB.log command with JOB in it
# run.pl, queue.pl or slurm.pl can take its place in cmd.sh.
set -uo pipefail
jobs_at_once=$(nproc)
while [[ ${1:-} == --* ]]; do
  [[ $1 == --max-jobs-run ]] && jobs_at_once=$2
  shift 2
done
if ! [[ ${1:-} =~ ^([A-Za-z_]+)=([0-9]+):([0-9]+)$ ]] || [ $# -lt 3 ]; then
  echo "usage: $0 [--max-jobs-run N] JOB=1:4 log/x.JOB.log command …" >&2
  exit 2
fi
name=${BASH_REMATCH[1]} first=${BASH_REMATCH[2]} last=${BASH_REMATCH[3]}
log=$2
shift 2

one() {
  local path=${log//$name/$1}
  mkdir -p "$(dirname "$path")"
  {
    echo "# ${command[*]//$name/$1}"
    echo "# Started at $(date)"
    "${command[@]//$name/$1}"
    local code=$?
    echo "# Ended (code $code) at $(date)"
  } >"$path" 2>&1
  return "$code"
}

command=("$@") failed=0 running=0
for ((job = first; job <= last; job++)); do
  if ((running >= jobs_at_once)); then
    wait -n || failed=$((failed + 1))
    running=$((running - 1))
  fi
  one "$job" &
  running=$((running + 1))
done
while ((running-- > 0)); do
  wait -n || failed=$((failed + 1))
done
if ((failed > 0)); then
  echo "$0: $failed of $((last - first + 1)) jobs failed, logs are in ${log//$name/*}" >&2
  exit 1
fi
