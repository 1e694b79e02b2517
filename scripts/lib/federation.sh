# shellcheck shell=bash
# One federation on this machine: a coordinator, devices that learn a task
# together and finish their own models, newcomers. Sourced after quickstart.sh by
# scripts/quickstart and scripts/accuracy, which set
#   bin    folder of the binaries       work   folder of all state (made here)
#   logs   folder of the logs           cores  sessions at a time
# and put each device's examples into $work/examples/{device,newcomer}-NNN.

# The caller's own coordinator is not the one meant here.
unset "${!SELVAGE_@}"
# Several trainers in one process: one thread each. (nproc obeys these too.)
# shellcheck disable=SC2034
cores=$(nproc)
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1

# In the caller's way of looking at things, but never its configuration file.
selvage() { XDG_CONFIG_HOME=$work run_step "$bin/selvage" --coordinator "$work/coordinator" "$@"; }

# Starts the coordinator (sets `coordinator`), with a population `demo` that $1
# devices may join.
start_coordinator() {
  local uses=$1 tries=0
  start_child "$logs/coordinator.log" "$bin/selvage-coordinator" \
    --data-dir "$work/coordinator" \
    --device-address 127.0.0.1:0 --admin-address 127.0.0.1:0 --metrics-address off \
    --pace-retry-min 100ms --pace-retry-max 300ms
  coordinator=$child
  until [ -s "$work/coordinator/endpoints.json" ]; do
    tries=$((tries + 1))
    if ! kill -0 "$coordinator" 2>/dev/null || [ "$tries" -gt 300 ]; then
      show_log "$logs/coordinator.log"
      die "the coordinator did not start"
    fi
    sleep 0.1
  done
  {
    selvage population create demo
    selvage token create --population demo --uses "$uses" \
      --ttl 6h --out "$work/bundle.json"
  } >>"$logs/selvage.log" 2>&1 || {
    show_log "$logs/selvage.log"
    die "the coordinator does not do as it is told"
  }
}

stop_coordinator() {
  stop_child "$coordinator"
  forget_child "$coordinator"
}

# A fleet: $1 its name, $2 devices, $3 the prefix of their names, $4 the task.
start_fleet() {
  start_child "$logs/$1.log" "$bin/selvage-device" --fleet "$work/$1" \
    --devices "$2" --name-prefix "$3-" --population demo \
    --bundle "$work/bundle.json" --examples "$work/examples" \
    --threads "$cores" --until-task "$4" --results "$work/results/$1"
}

# Runs a task file, $1, to its end, with more options. Its progress goes to file
# descriptor `progress` (2).
learn_together() {
  selvage run "$@" >&"${progress:-2}" 2>&1 || {
    show_log "$logs/devices.log"
    show_log "$logs/coordinator.log"
    die "learning together did not finish"
  }
}

finish_fleet() { # process name total
  wait_child "$1" fleet_progress "$2" "$3" || {
    show_log "$logs/$2.log"
    die "the process that hosts $2 failed"
  }
}
fleet_progress() { # name total
  local finished
  finished=$(grep -c 'INSTALLED' "$logs/$1.log" || true)
  echo "  $finished of $2 have finished"
}
