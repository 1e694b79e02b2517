#!/usr/bin/env bash
# usage: accuracy_test.sh SOURCE_DIR BINARY_DIR SCRATCH_DIR
set -euo pipefail
source_dir=$1
bin=$2
scratch=$(mktemp -d "$3/run-XXXXXX")
trap 'rm -rf "$scratch"' EXIT

fail() {
  echo "FAILED: $*" >&2
  cat "$scratch"/*.log >&2 || true
  exit 1
}
accuracy() { "$source_dir/scripts/accuracy" --bin "$bin" --out "$scratch/out" "$@"; }

# Usage mistakes have their own code; what is absent is passed over aloud.
status=0
accuracy no-such-set >"$scratch/usage.log" 2>&1 || status=$?
[ "$status" = 2 ] || fail "an unknown data set ended with $status"
accuracy --data "$scratch/nowhere" har wisdm >"$scratch/absent.log" 2>&1 ||
  fail "absent data sets fail it"
for name in har wisdm; do
  grep -q "^SKIPPED $name: there is no $scratch/nowhere/" "$scratch/absent.log" ||
    fail "$name was not skipped aloud"
done

# One that is there: the smallest first.
data=$source_dir/../shared/data
if [ -e "$data/wisdm_v1.1" ]; then
  name=wisdm
elif [ -e /usr/share/datasets/fashion-mnist ]; then
  name=fashion
else
  echo "SKIPPED: neither $data/wisdm_v1.1 nor dataset-fashion-mnist is there"
  exit 77
fi
status=0
accuracy --data "$data" --seeds 1 --rounds 1 --check \
  --append "$scratch/rows.json" "$name" >"$scratch/run.log" 2>&1 || status=$?
# One round reaches no target, and --check says so.
[ "$status" = 1 ] || fail "--check ended with $status"
grep -q "^$name: accuracy on each device's own test data" "$scratch/run.log" ||
  fail "no table"
for row in alone global personal 'newcomers, before' 'newcomers, after'; do
  grep -qE "^  $row +[0-9]+\.[0-9] +[0-9]+\.[0-9] +[0-9]+\.[0-9]" \
    "$scratch/run.log" || fail "no row '$row'"
done
grep -q MISSED "$scratch/run.log" || fail "no target is named"
[ "$(grep -c '"id": "accuracy"' "$scratch/rows.json")" -ge 12 ] ||
  fail "rows are missing in the list of benchmark rows"
[ -z "$(pgrep -f "selvage-(coordinator|device).*$scratch" || true)" ] ||
  fail "processes are left"
echo "$name: $(grep -E '^  (alone|global|personal) ' "$scratch/run.log" | tr -s ' ' | tr '\n' ';')"
