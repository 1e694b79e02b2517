#!/usr/bin/env bash
# usage: quickstart_test.sh SOURCE_DIR BINARY_DIR SCRATCH_DIR
set -euo pipefail
source_dir=$1
bin=$2
scratch=$(mktemp -d "$3/run-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
[ -e /usr/share/datasets/fashion-mnist ] || exit 77

fail() {
  echo "FAILED: $*" >&2
  cat "$scratch"/*.log >&2 || true
  tail -n 20 "$scratch"/out/log/* >&2 || true
  exit 1
}
quickstart() {
  "$source_dir/scripts/quickstart" --bin "$bin" --out "$scratch/out" "$@"
}
# Processes that have our scratch folder on their command line, us excepted.
left_over() { pgrep -f "selvage-(coordinator|device).*$scratch" || true; }

# Usage mistakes have their own code and start nothing.
status=0
quickstart --devices many >"$scratch/usage.log" 2>&1 || status=$?
[ "$status" = 2 ] || fail "--devices many ended with $status"
mkdir "$scratch/mine"
touch "$scratch/mine/file"
status=0
"$source_dir/scripts/quickstart" --bin "$bin" --out "$scratch/mine" \
  >"$scratch/usage.log" 2>&1 || status=$?
[ "$status" = 1 ] || fail "a foreign folder was taken"
[ -e "$scratch/mine/file" ] || fail "a foreign folder was emptied"

# Interrupted in the middle: gone at once, with everything it started.
# (Not through the function: the signal is for the script, not for a subshell.)
"$source_dir/scripts/quickstart" --bin "$bin" --out "$scratch/out" --devices 4 \
  --rounds 1000 >"$scratch/interrupted.log" 2>&1 &
script=$!
until grep -qs 'round 2/1000' "$scratch/interrupted.log"; do
  kill -0 "$script" 2>/dev/null || fail "it ended before it was interrupted"
  sleep 0.1
done
kill -TERM "$script"
status=0
wait "$script" || status=$?
[ "$status" = 143 ] || fail "interrupted, it ended with $status"
[ -z "$(left_over)" ] || fail "processes are left: $(left_over)"
[ ! -e "$scratch/out/work" ] || fail "state is left"

# Twice with one seed: the same model. No terminal: no control characters.
for run in first second; do
  quickstart --devices 4 --newcomers 2 --rounds 2 --seed 3 \
    >"$scratch/$run.log" 2>&1 || fail "the $run run"
  if grep -q $'\e' "$scratch/$run.log"; then fail "control characters"; fi
  "$source_dir/scripts/check-quickstart" "$scratch/out" --bin "$bin" \
    --devices 4 --rounds 2 >>"$scratch/$run.log" 2>&1 || fail "its artefacts"
  cp "$scratch/out/summary.json" "$scratch/$run.json"
done
[ "$(grep model_digest "$scratch/first.json")" = \
  "$(grep model_digest "$scratch/second.json")" ] || fail "one seed, two models"
[ -z "$(left_over)" ] || fail "processes are left: $(left_over)"
