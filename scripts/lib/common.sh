# Words that every script here shares: how it speaks, how it stops, how it becomes root. Sourced, never run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tools=$root/.tools
export PATH=$tools/bin:$tools/node_modules/.bin:$PATH

say() { printf '    %s\n' "$*"; }

# The status of a script that stopped by itself and has said why.
said_why=64

# One line that says what is wrong and what to do about it.
die() {
  printf 'error: %s\n' "$*" >&2
  exit "$said_why"
}

have() { command -v "$1" >/dev/null 2>&1; }

# step WHAT HOW_LONG COMMAND…: runs the command with its output in a log, which is shown when it fails.
step() {
  local what=$1 how_long=$2 begin=$SECONDS log status=0
  shift 2
  mkdir -p "$root/.dev"
  log=$root/.dev/setup.log
  printf '==> %s (%s)\n' "$what" "$how_long"
  # A subshell with its own errexit: inside a condition bash would ignore a failure in the middle of a function.
  set +e
  (set -e; "$@") >"$log" 2>&1 </dev/null
  status=$?
  set -e
  if [ "$status" -eq "$said_why" ]; then
    grep '^error: ' "$log" | tail -n 1 >&2
    exit "$said_why"
  elif [ "$status" -ne 0 ]; then
    tail -n 40 "$log" >&2
    die "$what failed, see above; all of its output is in $log"
  fi
  say "done in $((SECONDS - begin)) s"
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    die "'$1' needs root, and there is no sudo: run it as root, or install what is missing by hand (CONTRIBUTING.md)"
  fi
}

# The packages' list is fetched once per run, and only when something is missing.
apt_install() {
  have apt-get || die "cannot install $*: this machine has no apt-get; install them by hand (CONTRIBUTING.md)"
  if [ -z "${apt_lists_fresh:-}" ]; then
    as_root apt-get update -qq || say "the package lists could not be refreshed, trying with the old ones"
    apt_lists_fresh=1
  fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" ||
    die "apt-get could not install: $*; is there a network?"
}
