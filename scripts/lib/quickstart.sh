# shellcheck shell=bash
# Helpers of scripts that start processes: messages, children, cleaning up.
# Sourced.

me=$(basename "$0") # in messages

say() { printf '%s\n' "$*" >&2; }
die() {
  say "$me: $*"
  exit 1
}

# Colours and redrawing only for people.
if [ -t 2 ] && [ "${TERM:-dumb}" != dumb ]; then interactive=1; else interactive=0; fi

children=() # process ids that must not outlive us
work=""     # folder with the state of coordinator and devices
keep=0

# Ends a child and waits for it: politely, then not.
stop_child() {
  local pid=$1 tries
  kill -TERM "$pid" 2>/dev/null || return 0
  for tries in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || break
    [ "$tries" -lt 100 ] || kill -KILL "$pid" 2>/dev/null || true
    sleep 0.1
  done
  wait "$pid" 2>/dev/null || true
}

cleanup() {
  local status=$? i
  trap - EXIT INT TERM HUP
  # The last first: devices before the coordinator that they talk to.
  for ((i = ${#children[@]} - 1; i >= 0; i--)); do stop_child "${children[i]}"; done
  [ "$interactive" = 0 ] || printf '\r\033[K' >&2
  # A script may have to let go of the folder first.
  if [ "$(type -t release_work)" = function ]; then release_work || true; fi
  if [ -n "$work" ] && [ "$keep" = 0 ]; then rm -rf --one-file-system "$work"; fi
  exit "$status"
}
trap cleanup EXIT
trap 'say ""; say "$me: interrupted"; exit 130' INT
trap 'exit 143' TERM HUP

# A child that lives on: sets `child`. Its output goes to file $1.
start_child() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 </dev/null &
  child=$!
  children+=("$child")
}

# Forgets a child that has ended.
forget_child() {
  local gone=$1 pid kept=()
  for pid in "${children[@]}"; do [ "$pid" = "$gone" ] || kept+=("$pid"); done
  children=("${kept[@]}")
}

# Runs a step that may take long. In the background, because bash runs its traps
# only between foreground commands: a signal ends the step at once.
run_step() {
  local status=0
  "$@" </dev/null &
  child=$!
  children+=("$child")
  wait "$child" || status=$?
  forget_child "$child"
  return "$status"
}

# The end of a log, for somebody who must find out what went wrong.
show_log() {
  [ -s "$1" ] || return 0
  say "--- the end of $1"
  tail -n 20 "$1" >&2
}

# Waits for the child $1, showing what the command $2... prints. Returns its exit
# code.
wait_child() {
  local pid=$1 status=0
  shift
  while kill -0 "$pid" 2>/dev/null; do
    [ "$interactive" = 0 ] || printf '\r\033[K%s' "$("$@")" >&2
    sleep 0.2
  done
  [ "$interactive" = 0 ] || printf '\r\033[K' >&2
  wait "$pid" || status=$?
  forget_child "$pid"
  return "$status"
}

# Builds targets in build/release, quietly: a line that counts for people,
# nothing but start and end for logs.
build_release() {
  local log=$1 options=()
  shift
  # Later changes of the launcher would build everything anew.
  if [ ! -e build/release/CMakeCache.txt ] && command -v ccache >/dev/null; then
    options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  fi
  export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
  run_step cmake --preset release "${options[@]}" >"$log" 2>&1 || {
    show_log "$log"
    die "configuring failed"
  }
  say "Building (log: $log)"
  NINJA_STATUS='@%f/%t ' start_child "$log" ninja -C build/release "$@"
  wait_child "$child" build_progress "$log" || {
    show_log "$log"
    die "the build failed"
  }
}

build_progress() {
  tail -n 1 "$1" | sed -n 's/^@\([0-9]*\)\/\([0-9]*\) .*/Building \1 of \2/p'
}
