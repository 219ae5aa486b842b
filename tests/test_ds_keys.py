"""What would break: a DeepSpeed key that trains differently, does nothing, or fails."""

import dataclasses
import json
from collections.abc import Iterator, Mapping

import pytest

from januslm.config import Refused
from januslm.training.ds_config import OptimizerSettings, Values, merge
from januslm.training.ds_keys import OWNED, REFUSED, DeepSpeedKeys
from tests.launching import finish, start

BF16 = {"bf16": {"enabled": True}}
AWAY = {"device": "cpu", "pin_memory": False}


def zero(stage: int, **keys) -> dict:
    return {"zero_optimization": {"stage": stage, **keys}}


# Two processes, two micro batches, three updates: how far any loss may be from ZeRO-0's in fp32.
EXACT, ROUNDED, BF16_ROUNDED = 0.0, 1e-6, 2e-3
WORKS: dict[str, tuple[dict, float]] = {
    **{f"stage {s}": (zero(s), ROUNDED) for s in range(4)},
    **{f"bf16, stage {s}": (zero(s) | BF16, BF16_ROUNDED) for s in (1, 2, 3)},
    **{
        f"torch_autocast, stage {s}": (
            zero(s) | {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}},
            BF16_ROUNDED,
        )
        for s in range(4)
    },
    "torch_autocast, Linear alone": (
        zero(1)
        | {
            "torch_autocast": {
                "enabled": True,
                "lower_precision_safe_modules": ["torch.nn.Linear"],
            }
        },
        BF16_ROUNDED,
    ),
    **{
        f"sums and messages in fp32, bf16, stage {s}": (
            zero(s)
            | BF16
            | {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"},
            BF16_ROUNDED,
        )
        for s in (1, 2, 3)
    },
    "prescale_gradients": (
        zero(1) | {"prescale_gradients": True, "gradient_predivide_factor": 2.0},
        ROUNDED,
    ),
    "log_level": (zero(1) | {"log_level": "warning"}, EXACT),
    "disable_python_gc": (zero(1) | {"disable_python_gc": True}, EXACT),
    "comms_logger": (
        zero(1)
        | {
            "comms_logger": {
                "enabled": True,
                "prof_all": True,
                "prof_ops": [],
                "verbose": False,
                "debug": False,
            }
        },
        EXACT,
    ),
    "flops_profiler": (
        zero(1)
        | {
            "flops_profiler": {
                "enabled": True,
                "profile_step": 2,
                "module_depth": 1,
                "top_modules": 1,
                "detailed": False,
                "recompute_fwd_factor": 0,
                "output_file": None,
            }
        },
        EXACT,
    ),
    "wall_clock_breakdown": (zero(1) | {"wall_clock_breakdown": True}, EXACT),
    "memory_breakdown": (zero(1) | {"memory_breakdown": True}, EXACT),
    "ZeRO-1's keys": (
        zero(
            1,
            overlap_comm=True,
            contiguous_gradients=False,
            reduce_bucket_size=1000,
            allgather_bucket_size=1000,
            round_robin_gradients=True,
        ),
        ROUNDED,
    ),
    "ZeRO-2's keys": (
        zero(
            2,
            overlap_comm=True,
            contiguous_gradients=True,
            reduce_scatter=False,
            reduce_bucket_size=1e3,
            use_multi_rank_bucket_allreduce=False,
            allgather_partitions=False,
            round_robin_gradients=True,
            ignore_unused_parameters=False,
            enable_sanity_checks=True,
        ),
        ROUNDED,
    ),
    "ZeRO-3's keys": (
        zero(
            3,
            overlap_comm=True,
            contiguous_gradients=False,
            reduce_bucket_size=1000,
            sub_group_size=500,
            stage3_prefetch_bucket_size=1000,
            stage3_param_persistence_threshold=0,
            stage3_model_persistence_threshold=10,
            stage3_max_live_parameters=1000,
            stage3_max_reuse_distance=100,
            stage3_use_all_reduce_for_fetch_params=True,
            memory_efficient_linear=False,
            log_trace_cache_warnings=True,
            enable_sanity_checks=True,
        ),
        ROUNDED,
    ),
    "stage3_allgather_sequential": (zero(3, stage3_allgather_sequential=True), ROUNDED),
    "hpZ": (zero(3, zero_hpz_partition_size=2), ROUNDED),
    **{f"offload_optimizer, stage {s}": (zero(s, offload_optimizer=AWAY), ROUNDED) for s in (1, 2)},
    "offload of all": (zero(3, offload_optimizer=AWAY, offload_param=AWAY), ROUNDED),
    "offload of weights": (zero(3, offload_param=AWAY), ROUNDED),
    "pinned": (zero(2, offload_optimizer={"device": "cpu", "pin_memory": True}), ROUNDED),
}
# What is seen of the keys that are there to be seen.
SAID = {
    "comms_logger": "Total Latency(ms)",
    "flops_profiler": "DeepSpeed Flops Profiler",
    "wall_clock_breakdown": "bwd_allreduce",
    "memory_breakdown": "Max_MA",
}
CHANGED = (
    "torch_autocast, stage 0",
    *(f"sums and messages in fp32, bf16, stage {s}" for s in (1, 2, 3)),
)
ALSO = ["spoilt", "resumed"]
MUON = {f"muon, stage {s}": (zero(s), {"name": "muon"}) for s in (1, 2, 3)}
CPU_ADAM = {
    f"cpu_adam, stage {s}": (zero(s, offload_optimizer=AWAY), {"name": "cpu_adam"}) for s in (1, 3)
}


def keys(table: Mapping, above: str = "") -> Iterator[str]:
    for key, value in table.items():
        yield above + key
        if isinstance(value, Mapping):
            yield from keys(value, f"{above}{key}.")


def test_every_key_that_is_allowed_is_trained_with():
    tried = {key for ds, _ in WORKS.values() for key in keys(ds)}
    assert tried == set(keys(dataclasses.asdict(DeepSpeedKeys())))


def ran(cases: dict, folder) -> tuple[dict, str]:
    """What two processes made of each case, and all that they said."""
    (folder / "cases.json").write_text(json.dumps(cases))
    asked = (str(folder / "cases.json"), str(folder / "out.json"))
    codes, said = finish(start("ds_keys_worker.py", *asked), 900)
    assert codes == [0, 0], said
    return json.loads((folder / "out.json").read_text()), said


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[dict, str]:
    """With every key."""
    cases = {name: {"ds": ds} for name, (ds, _) in WORKS.items()}
    return ran(cases, tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def repeated(tmp_path_factory) -> dict:
    """What computes in another way: also with a spoilt update, and with a resume."""
    cases = {name: (WORKS[name][0], {}) for name in CHANGED} | MUON
    cases = {name: {"ds": ds, "optimizer": o, "also": ALSO} for name, (ds, o) in cases.items()}
    return ran({"plain": {"ds": zero(0)}} | cases, tmp_path_factory.mktemp("repeated"))[0]


@pytest.mark.slow
@pytest.mark.long
def test_every_key_that_is_allowed_trains_as_without_it(trained):
    results, _ = trained
    plain = results["stage 0"]["losses"]
    for name, (_, apart) in WORKS.items():
        assert results[name].get("losses") == pytest.approx(plain, rel=apart, abs=0), (
            name,
            results[name],
        )


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", SAID)
def test_what_is_there_to_be_seen_is_seen(trained, name):
    # Both processes' output follow each other; the first has the headings.
    own = trained[1].split(f"== {name}\n", 1)[1].split("\n== ", 1)[0]
    assert SAID[name] in own


@pytest.mark.slow
@pytest.mark.long
def test_a_run_ends_with_the_table_of_its_collectives(tmp_path):
    (tmp_path / "ds.json").write_text(json.dumps(zero(1) | {"comms_logger": {"enabled": True}}))
    asked = {"folder": str(tmp_path / "run"), "ds": str(tmp_path / "ds.json")}
    asked |= {"train": {"steps": 2, "batch": 8}}
    codes, said = finish(start("tiny_worker.py", json.dumps(asked)))
    assert codes == [0, 0], said
    assert said.count("Total Latency(ms)") == 1, "rank 0 alone, once"
    assert said.index("done: step 2") < said.index("Total Latency(ms)") < said.index("all_reduce")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", [*CHANGED, *MUON])
def test_a_spoilt_update_leaves_no_trace_and_a_resumed_run_repeats(repeated, name):
    exact(repeated[name])


def exact(case: dict) -> None:
    assert case["spoilt"] == {key: case[key] for key in ("losses", "mark")}
    assert case["resumed"] == {"losses": case["losses"][2:], "mark": case["mark"]}


@pytest.mark.slow
@pytest.mark.long
def test_muon_learns_faster_than_adam_here_and_alike_at_all_stages(repeated):
    first, *others = (repeated[name]["losses"] for name in MUON)
    for other in others:
        assert other == pytest.approx(first, rel=1e-5)
    assert first[-1] < repeated["plain"]["losses"][-1]


@pytest.mark.slow
@pytest.mark.long
def test_deepspeeds_cpu_adam_resumes_bit_for_bit_or_is_refused_by_name(tmp_path):
    """The first run on a machine compiles it, for minutes."""
    cases = {name: {"ds": ds, "optimizer": o, "also": ALSO} for name, (ds, o) in CPU_ADAM.items()}
    results, _ = ran({"plain": {"ds": zero(0)}} | cases, tmp_path)
    for name in CPU_ADAM:
        if "refused" in results[name]:
            assert "optimizer.name = 'cpu_adam'" in results[name]["refused"]
            continue
        assert results[name]["losses"] == pytest.approx(results["plain"]["losses"], rel=1e-6)
        exact(results[name])


def refusal(ds, optimizer: OptimizerSettings | None = None, clip: float = 1.0) -> str:
    values = Values(64, 2, clip, optimizer or OptimizerSettings())
    with pytest.raises(Refused) as error:
        merge(values, ds, 2, "x.json")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_what_does_not_work_is_refused_with_its_reason(key):
    ds: object = 1
    for part in reversed(key.split(".")):
        ds = {part: ds}
    assert refusal(ds) == f"x.json: {key} is not supported: {REFUSED[key]}"


def test_no_key_is_both_refused_and_something_else():
    allowed = set(keys(dataclasses.asdict(DeepSpeedKeys())))
    assert not set(REFUSED) & (allowed | set(OWNED))


@pytest.mark.parametrize(
    ("ds", "line"),
    [
        ({"zero_optimization": []}, "zero_optimization must be a table, got []"),
        ({"bf16": None}, "bf16 must be a table, got None"),
        (zero("1"), "zero_optimization: stage must be a whole number, got '1'"),
        (zero(True), "zero_optimization: stage must be a whole number, got True"),
        (zero(1.0), "zero_optimization.stage must be a whole number, got 1.0"),
        (zero(4), "zero_optimization: stage must be at least 0 and at most 3, got 4"),
        (zero(None), "zero_optimization: stage must be a whole number, got None"),
        (
            zero(1, reduce_bucket_size="auto"),
            "zero_optimization: reduce_bucket_size must be a number, got 'auto'",
        ),
        (
            zero(1, reduce_bucket_size=0),
            "zero_optimization: reduce_bucket_size must be at least 1, got 0",
        ),
        ({"bf16": {"enabled": 1}}, "bf16: enabled must be true or false, got 1"),
        (
            {"communication_data_type": "fp16"},
            "communication_data_type must be one of fp32, bf16, got 'fp16'",
        ),
        ({"comms_logger": True}, "comms_logger must be a table, got True"),
        (
            {"torch_autocast": {"enabled": True, "dtype": "float16"}},
            "torch_autocast: dtype must be one of bfloat16, got 'float16'",
        ),
        (
            zero(1, offload_optimizer={"device": "gpu"}),
            "zero_optimization: offload_optimizer: device must be one of none, cpu, got 'gpu'",
        ),
        (
            zero(3) | {"prescale_gradients": True},
            "prescale_gradients and gradient_predivide_factor need zero_optimization.stage 0 or 1",
        ),
        (zero(2, offload_param=AWAY), "offload_param needs zero_optimization.stage 3"),
        (
            zero(1) | BF16 | {"torch_autocast": {"enabled": True}},
            "torch_autocast keeps weights in fp32, bf16 does not: enable one of them",
        ),
    ],
)
def test_a_wrong_value_is_one_line_with_its_key(ds, line):
    assert refusal(ds) == f"x.json: {line}"


def test_nvme_is_refused_before_it_hangs():
    line = refusal(zero(3, offload_param={"device": "nvme"}))
    assert line.startswith(
        'x.json: zero_optimization.offload_param.device = "nvme" is not supported'
    )


def test_an_optimizer_is_refused_where_it_cannot_work(monkeypatch):
    muon, cpu = OptimizerSettings("muon"), OptimizerSettings("cpu_adam")
    away = zero(1, offload_optimizer=AWAY)
    assert "needs train.clip = 0, got 1" in refusal(zero(1), muon)
    assert "needs ZeRO stage 1 to 3" in refusal(zero(0), muon, clip=0)
    assert "no offload_optimizer" in refusal(away, muon, clip=0)
    assert "reduce_scatter false" in refusal(zero(3, reduce_scatter=True), muon, clip=0)
    assert "needs zero_optimization.offload_optimizer.device 'cpu'" in refusal(zero(1), cpu)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert "there is no g++ here" in refusal(away, cpu)
