# Where the commands are: an activated environment, or the checkout's own (`make test` makes it).
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
if [ -x "$root/.venv/bin/speechadapt" ]; then
  export PATH=$root/.venv/bin:$PATH
fi
if ! command -v speechadapt >/dev/null; then
  echo "speechadapt is not installed: run 'make .venv/installed' in $root" >&2
  exit 2
fi
export LC_ALL=C.UTF-8 PYTHONUNBUFFERED=1
