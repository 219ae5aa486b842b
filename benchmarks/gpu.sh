#!/usr/bin/env bash
# benchmarks/gpu.sh PYTHON [SECTION ...]: all that wants a GPU, a section each; without any: all, in this order.
#
#   step      an update of base and large, 64k target tokens: seconds, MFU, memory, and where they go; about 6 minutes
#   correct   pytest -m gpu: FlexAttention and bf16 against the dense plan and fp32, captured graphs against plain passes
#   curves    JANUS' validation losses with FlexAttention and dense, in bf16 and fp32, 200 updates side by side
#   rows      the rows of benchmarks/multi30k.py named in $ROWS, all at the same time on one GPU, for at most $SECONDS_ROWS
#   decoding  against Hugging Face, and with captured graphs and without; the trained $SPEED_RUN with them
#
# PYTHON has torch and the packages of pyproject.toml.  Without network the wheels of those that it lacks may lie in
# $WHEELS (default: wheels/ here), and are installed beside it, without DeepSpeed `step` times torch's own AdamW.
# $STEP: options of benchmarks/gpu_step.py, e.g. "--size tiny --tokens 2000 --device cpu --results build" for a trial.
# curves, rows and decoding need $JANUSLM_DATA and corpora/multi30k/tokenizer.json.
# Results: benchmarks/results/, copied to $OUT if that is set; logs beside the runs.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export JANUSLM_PYTHON=${1:?usage: benchmarks/gpu.sh PYTHON [step correct curves rows decoding]} OMP_NUM_THREADS=1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
shift
rows=${ROWS:-ar cmlm janus}
failed=()

kept() { [[ -z ${OUT:-} ]] || cp benchmarks/results/*{cuda,graphs,gpu_curves,gpu_step}*.json "$OUT"/ 2>/dev/null; }

section() { printf '\n== %s, %d s\n' "$1" $SECONDS; "$@" || failed+=("$1"); kept; }

wheels() {
    local found=("${WHEELS:-wheels}"/*.whl) site
    [[ -e ${found[0]} ]] || return 0
    site=$(mktemp -d) || return
    "$JANUSLM_PYTHON" -m pip install -q --no-index --no-deps --target "$site" "${found[@]}" && PYTHONPATH+=:$site
}

# A limit for all of it: what was measured until then is written.
step() { timeout "${SECONDS_STEP:-400}" "$JANUSLM_PYTHON" -m benchmarks.gpu_step ${STEP:-}; }

correct() {
    "$JANUSLM_PYTHON" -m pytest -q -m gpu -p no:cacheprovider tests &&
    "$JANUSLM_PYTHON" -m pytest -q -p no:cacheprovider tests/test_joint.py tests/test_losses.py tests/test_attention.py
}

curves() { "$JANUSLM_PYTHON" -m benchmarks.gpu_curves --check; }

# Told to stop, a run saves; the same command goes on with it.  Small runs share the card through MPS,
# or they wait for each other; ZeRO-0 has no hooks to launch kernels; TF32 makes fp32 fast enough.
rows() {
    mkdir -p runs/multi30k
    export CUDA_MPS_PIPE_DIRECTORY=/tmp/mps CUDA_MPS_LOG_DIRECTORY=/tmp/mps NVIDIA_TF32_OVERRIDE=1
    mkdir -p /tmp/mps && nvidia-cuda-mps-control -d
    local row ended=0 pids=()
    for row in $rows; do
        timeout "${SECONDS_ROWS:-86400}" "$JANUSLM_PYTHON" -m benchmarks.multi30k train "$row" ds=ds_configs/zero0_fp32.json packing.row=0 ${CHANGES:-} >"runs/multi30k/$row.log" 2>&1 &
        pids+=($!)
    done
    for row in "${pids[@]}"; do wait "$row" || ended=1; done
    echo quit | nvidia-cuda-mps-control
    tail -qn 1 $(printf 'runs/multi30k/%s.log ' $rows)
    return $ended
}

decoding() {
    "$JANUSLM_PYTHON" -m benchmarks.decode_speed --quick &&
    "$JANUSLM_PYTHON" -m benchmarks.decode_speed --quick --graphs &&
    "$JANUSLM_PYTHON" -m benchmarks.decode_speed --run "${SPEED_RUN:-runs/multi30k/janus}" --limit 200 --timed 32 --rounds 3 --graphs
}

sections=("$@")
(( $# )) || sections=(step correct curves rows decoding)
for name in "${sections[@]}"; do
    [[ " step correct curves rows decoding " == *" $name "* ]] || { echo "error: no section '$name': there are step, correct, curves, rows, decoding" >&2; exit 2; }
done
wheels || exit 2
[[ ${STEP:-} == *"--device cpu"* ]] || "$JANUSLM_PYTHON" -c 'import torch; assert torch.cuda.is_available(), "no CUDA device"; print(torch.cuda.get_device_name(), torch.__version__)' || exit 2
for name in "${sections[@]}"; do section "$name"; done
printf '\n%d s; ' $SECONDS
(( ${#failed[@]} )) && { echo "failed: ${failed[*]}"; exit 1; }
echo "all of it passed"
