# Sourced. `--some-name value` sets the variable some_name, which must exist: an unknown option is an
# error, and so is --name=value. A variable that is true or false takes nothing else.
while [ $# -gt 0 ]; do
  case "$1" in
    --help | -h)
      printf '%s\n' "${help_message:-no help}" >&2
      exit 0
      ;;
    --*=*)
      echo "$0: write '${1%%=*} ${1#*=}' instead of '$1'" >&2
      exit 2
      ;;
    --*)
      name=${1#--}
      name=${name//-/_}
      if [ -z "${!name+set}" ]; then
        echo "$0: unknown option $1; see --help" >&2
        exit 2
      fi
      if [ $# -lt 2 ]; then
        echo "$0: option $1 needs a value" >&2
        exit 2
      fi
      if [[ ${!name} =~ ^(true|false)$ && ! $2 =~ ^(true|false)$ ]]; then
        echo "$0: option $1 takes true or false, not '$2'" >&2
        exit 2
      fi
      printf -v "$name" '%s' "$2"
      shift 2
      ;;
    *) break ;;
  esac
done
