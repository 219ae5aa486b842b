#!/usr/bin/env bash
# launch.sh: everything januslm does, from any directory.  `./launch.sh` alone lists the verbs.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
started_in=$PWD
dry= gpus= hostfile= ds=
args=()

usage() {
    cat <<'TEXT'
Usage: ./launch.sh VERB [ARGUMENTS]

  setup                      virtual environment with pinned packages (the other verbs call it)
  demo                       from installed documentation to a model that writes both ways: 10 minutes
  test                       lint, types and all tests
  data COMMAND ...           build, tokenizer, verify, inspect, summaries, glge (data COMMAND --help)
  pretrain RUN.toml [k=v]    pretrain on token shards; goes on where it stopped
  finetune RUN.toml [k=v]    fine-tune a checkpoint, or train from scratch, on a task
  generate RUN [options]     decode a task's test set: greedy, beam, mask_predict, ...
  evaluate PREDICTIONS ...   score predictions and draw the table
  distill RUN OUT [k=v]      a teacher's beam output as training data for a student
  average RUN OUT --last N   the mean of a run's last exports (train.exports)
  tensorboard [FOLDER]       curves and samples of all runs below FOLDER (runs/)

Options, anywhere after the verb:
  --dry-run                  print the commands, run nothing
  --gpus N                   processes on this machine (on a CPU: as many processes)
  --hostfile FILE            several machines, DeepSpeed's format: "host slots=8" a line
  --ds FILE                  a DeepSpeed configuration of ds_configs/ (how a run is spread)

  A path is looked for where you stand, then in the project. --out, and OUT of distill and average, are
  written where you stand; out=... and all else in the project. VERB --help tells more.

  $JANUSLM_PYTHON            use this interpreter as it is and set nothing up
  $JANUSLM_DATA              real data of tasks (default: ../shared/data)
TEXT
}

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 2; }

# Print a command as it could be typed, or run it.
run() {
    if [[ $dry ]]; then printf '%q ' "$@"; printf '\n'; else "$@"; fi
}

# Run a silent command, and say every few seconds that it is still at work.
patiently() {
    local what=$1 began=$SECONDS pid
    shift
    if [[ $dry ]]; then run "$@"; return; fi
    "$@" & pid=$!
    while kill -0 $pid 2>/dev/null; do
        (( (SECONDS - began) % 5 )) || printf 'installing %s, %d s\n' "$what" $((SECONDS - began)) >&2
        sleep 1
    done
    wait $pid || fail "$what could not be installed; the lines above say why"
}

# A path that exists where the user stands is meant; else it is looked for in the project.
place() {
    if [[ $1 != /* && -e $started_in/$1 ]]; then printf '%s/%s' "$started_in" "$1"; else printf '%s' "$1"; fi
}

# Words of a command may be paths too; a bare word is none, even if a file is called so.
word() { if [[ $1 == *[./]* ]]; then place "$1"; else printf '%s' "$1"; fi; }

setup() {
    if [[ ${JANUSLM_PYTHON:-} ]]; then python=$JANUSLM_PYTHON; return; fi
    local venv=$root/.venv ready
    python=$venv/bin/python
    ready=$(cat "$root/pyproject.toml" "$root/launch.sh" | cksum)
    [[ $(cat "$venv/ready" 2>/dev/null) == "$ready" ]] && return
    local found
    for found in python3 python3.13 python3.12 python3.11 ""; do
        $found -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
    done
    [[ $found ]] || fail "Python 3.11 or newer is needed, and not found on the PATH"
    say "Setting up $venv (a few minutes, once)"
    run $found -m venv "$venv"
    # torch first and alone: a resolver that sees it with others may pull gigabytes of CUDA.
    patiently torch "$venv/bin/pip" install -qq --disable-pip-version-check torch==2.13.0
    patiently "DeepSpeed and the other packages" "$venv/bin/pip" install -qq --disable-pip-version-check -e "$root[dev]"
    [[ $dry ]] || printf '%s\n' "$ready" >"$venv/ready"
    say "Ready"
}

environment() {
    export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
    export JANUSLM_DATA=${JANUSLM_DATA:-$root/../shared/data}
    export TOKENIZERS_PARALLELISM=false HF_HUB_DISABLE_TELEMETRY=1
    has_gpu || export DS_ACCELERATOR=cpu
    [[ $started_in == "$root" ]] || export JANUSLM_STARTED_IN=$started_in
    cd "$root"
}

has_gpu() { [[ -e /dev/nvidia0 || -e /dev/nvidiactl ]]; }

# What the processes on other hosts must know, a variable a line.
hand_over() {
    local name
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    for name in PATH OMP_NUM_THREADS TOKENIZERS_PARALLELISM DS_ACCELERATOR GLOO_SOCKET_IFNAME NCCL_SOCKET_IFNAME NCCL_DEBUG; do
        [[ -z ${!name:-} ]] || printf '%s=%s\n' "$name" "${!name}"
    done
}

# Refuse a hostfile that is not there, with which DeepSpeed would train on this machine alone, and
# one that it does not understand.
check_hosts() {
    [[ -f $hostfile ]] || fail "$hostfile: no such file"
    awk -v file="$hostfile" '
        NF == 0 || $1 ~ /^#/ { next }
        $2 !~ /^slots=[1-9][0-9]*$/ { printf "error: %s:%d: must be \"host slots=N\", got \"%s\"\n", file, NR, $0; bad = 1; exit }
        $1 in seen { printf "error: %s:%d: host %s comes twice\n", file, NR, $1; bad = 1; exit }
        { seen[$1]; hosts++ }
        END { if (!bad && !hosts) { printf "error: %s: names no host\n", file; bad = 1 } exit bad }
    ' "$hostfile" >&2 || exit 2
}

# train MODULE RUN.toml ...: under DeepSpeed, with its exit code replaced by what the run itself says.
train() {
    local module=$1 file port report pid code=0 processes=${gpus:-} began=$SECONDS
    shift
    [[ $# -ge 1 ]] || fail "which run? ./launch.sh $module $module/runs/NAME.toml [key=value ...]"
    file=$1; shift
    [[ -f $file || $dry ]] || fail "$file: no such run file; there are $(cd "$module/runs" && echo *)"
    [[ ! $hostfile || $dry ]] || check_hosts
    [[ $processes || $hostfile ]] || { has_gpu || processes=1; }
    if [[ ! ${OMP_NUM_THREADS:-} && $processes ]]; then
        export OMP_NUM_THREADS=$(( ($(nproc) + processes - 1) / processes ))
    fi
    port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])' 2>/dev/null || echo 29500)
    report=$(mktemp -d)
    local command=("$python" -m deepspeed.launcher.runner --log_level critical --master_port "$port")
    if [[ $hostfile ]]; then
        command+=(--hostfile "$hostfile")
        # DeepSpeed hands the workers of other hosts nothing else than what this file says.
        [[ $dry ]] || hand_over >"$root/.deepspeed_env"
    fi
    [[ ! $processes ]] || command+=(--num_gpus "$processes")
    command+=(--module "$module" "$file" "$@" --report "$report")
    [[ ! $ds ]] || command+=(--ds "$ds")
    [[ $module != finetune ]] || command+=(--data "$JANUSLM_DATA")
    if [[ $dry ]]; then run env ${DS_ACCELERATOR:+DS_ACCELERATOR=$DS_ACCELERATOR} ${OMP_NUM_THREADS:+OMP_NUM_THREADS=$OMP_NUM_THREADS} "${command[@]}"; rmdir "$report"; return; fi
    ( while sleep 5 >/dev/null 2>&1 && [[ -d $report && ! -e $report/started ]]; do printf 'starting, %d s\n' $((SECONDS - began)); done ) &
    local beat=$!
    # A group of its own: DeepSpeed's runner does not hand signals on, and would leave orphans.
    set -m
    "${command[@]}" 2> >(grep --line-buffered -v 'real_accelerator.py' >&2) &
    pid=$!
    set +m
    trap 'kill -TERM -- -'"$pid"' 2>/dev/null || true' TERM INT
    trap 'kill -USR1 -- -'"$pid"' 2>/dev/null || true' USR1
    while kill -0 "$pid" 2>/dev/null; do wait "$pid" && code=0 || code=$?; done
    kill "$beat" 2>/dev/null || true
    # Told to stop, DeepSpeed's runner ends at once, while the training still saves.
    while kill -0 -- -"$pid" 2>/dev/null; do sleep 0.2; done
    trap - TERM INT USR1
    # The launcher may say 0 after a kill: only the run's own report counts.
    local ended where
    rm -f "$report/started"
    ended=$(ls "$report"); where=$(cat "$report"/* 2>/dev/null || true); rm -rf "$report"
    case $ended in
        done) return 0 ;;
        resume) say "stopped on request; the same command goes on from $where"; exit 85 ;;
        refused*) exit 2 ;;
        *) say "the run ended without finishing (launcher's code $code); the same command goes on from its last checkpoint"
           exit $(( code ? code : 1 )) ;;
    esac
}

# Text -> shards -> pretraining -> fine-tuning -> five ways of decoding -> one table.
demo() {
    local began=$SECONDS run=runs/tiny/docsum how
    gpus=${gpus:-$(has_gpu || echo 2)}
    say "1/5  Corpus: documentation of the installed packages -> tokenizer -> token shards"
    run "$python" -m data_tools build data_tools/corpora/docstrings.toml
    run "$python" -m data_tools summaries corpora/docsum
    say "2/5  Pretraining JANUS under DeepSpeed (pretrain/runs/tiny.toml)"
    train pretrain pretrain/runs/tiny.toml
    say "3/5  Fine-tuning on documentation bodies -> summary lines (finetune/runs/docsum.toml)"
    train finetune finetune/runs/docsum.toml
    say "4/5  Decoding 200 texts of packages that no training text came from, one at a time"
    for how in "greedy" "beam beam=5" "mask_predict iterations=1" "mask_predict iterations=4" "mask_predict iterations=10"; do
        decode_once "$run" $how
    done
    say "5/5  Scores"
    run "$python" -m finetune.evaluate "$run"/predictions
    say "The demo took $(( (SECONDS - began) / 60 )) m $(( (SECONDS - began) % 60 )) s; all of it lies in runs/tiny and corpora/."
    say "Curves and decoded samples: runs/tiny, drawn by  ./launch.sh tensorboard runs/tiny"
}

# Decode the demo's test texts unless predictions newer than the model are there.
decode_once() {
    local folder=$1 algorithm=$2 options=${3:-} out
    out=$folder/predictions/test.$algorithm.limit-200${options:+.${options/=/-}}.jsonl
    if [[ $out -nt $folder/export/model.safetensors ]]; then
        printf 'reused: %s\n' "$out"
        return
    fi
    printf '%s %s\n' "$algorithm" "$options"
    run "$python" -m finetune.generate "$folder" --algorithm "$algorithm" --limit 200 --batch 1 --threads 1 $options
}

test_all() {
    export OMP_NUM_THREADS=1
    run "$python" -m ruff check .
    run "$python" -m ruff format --check .
    run "$python" -m mypy
    # Two at a time; the tests of a file share what they build, and stay together.
    run "$python" -m pytest -q -n 2 --dist loadfile "$@"
}

[[ $# -ge 1 ]] || { usage; exit 0; }
verb=$1; shift
while [[ $# -gt 0 ]]; do
    case $1 in
        --dry-run) dry=1 ;;
        --gpus | --hostfile | --ds)
            [[ $# -ge 2 ]] || fail "$1 needs a value"
            case $1 in
                --gpus) gpus=$2; [[ $gpus =~ ^[1-9][0-9]*$ ]] || fail "--gpus must be a whole number from 1, got '$gpus'" ;;
                --hostfile) hostfile=$(place "$2") ;;
                --ds) ds=$(place "$2") ;;
            esac
            shift ;;
        *) args+=("$(word "$1")") ;;
    esac
    shift
done
set -- ${args[@]+"${args[@]}"}

case " $* " in
    *" -h "* | *" --help "*)
        case $verb in
            setup | demo | test) usage; exit 0 ;;
            pretrain | finetune) setup; environment; run "$python" -m "$verb" --help; exit 0 ;;
        esac ;;
esac

case $verb in
    setup) setup ;;
    demo) setup; environment; demo ;;
    test) setup; environment; test_all "$@" ;;
    data)
        setup; environment
        if [[ ${1:-} == glge ]]; then run "$python" -m finetune.glge.prepare prepare "${@:2}"
        else run "$python" -m data_tools "$@"; fi ;;
    pretrain | finetune) setup; environment; train "$verb" "$@" ;;
    generate) setup; environment; run "$python" -m finetune.generate "$@" ;;
    evaluate) setup; environment; run "$python" -m finetune.evaluate "$@" ;;
    distill | average) setup; environment; run "$python" -m "finetune.$verb" "$@" ;;
    tensorboard) setup; environment; run "$python" -m tensorboard.main --logdir "${1:-runs}" ;;
    help | -h | --help) usage ;;
    *) printf 'error: no verb %q; there are setup, demo, test, data, pretrain, finetune, generate, evaluate, distill, average, tensorboard\n' "$verb" >&2; exit 2 ;;
esac
