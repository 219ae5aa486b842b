#!/usr/bin/env bash
# benchmarks/gpu.sh [PYTHON]: all that wants a GPU, in one call; results in benchmarks/results/ and $OUT.
#
# First whether compiled FlexAttention and bf16 train as the dense plan and fp32 do and whether captured
# graphs decode as plain passes do, then the core's property tests and decoding speed.  Not run yet: no GPU was at hand when it was written; the step
# against the reference pattern (step_time.py) is measured on the CPU only.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
"$python" -c 'import torch; assert torch.cuda.is_available(), "no CUDA device"; print(torch.cuda.get_device_name())'
"$python" -m pytest -q -m gpu tests
"$python" -m pytest -q tests/test_joint.py tests/test_losses.py tests/test_attention.py
"$python" -m benchmarks.decode_speed --quick
[[ -z ${OUT:-} ]] || cp benchmarks/results/*.json "$OUT"/
