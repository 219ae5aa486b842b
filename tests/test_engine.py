"""What would break: a DeepSpeed key that overrules the run file, stages that learn differently."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from januslm.config import Refused, build
from januslm.training.ds_config import OptimizerSettings, Values, merge, read
from januslm.training.ds_keys import ALLOWED, OWNED
from tests.launching import finish, start

CONFIGS = Path(__file__).parents[1] / "ds_configs"
VALUES = Values(batch=64, accumulate=2, clip=0.5, optimizer=OptimizerSettings(lr=3e-4))


def refusal(ds: dict, values: Values = VALUES, world: int = 2) -> str:
    with pytest.raises(Refused) as error:
        merge(values, ds, world, "ds_configs/x.json")
    return str(error.value)


@given(st.integers(1, 4096), st.integers(1, 8), st.integers(1, 16), st.floats(0, 10))
def test_deepspeed_always_gets_numbers_it_accepts(batch, accumulate, world, clip):
    values = Values(batch, accumulate, clip, OptimizerSettings())
    ds = {"zero_optimization": {"stage": 2}}
    if batch < world * accumulate:
        assert "less than one example" in refusal(ds, values, world)
        return
    before = copy.deepcopy(ds)
    merged = merge(values, ds, world)
    micro = merged["train_micro_batch_size_per_gpu"]
    assert merged["train_batch_size"] == micro * accumulate * world
    assert batch <= merged["train_batch_size"] < batch + accumulate * world
    assert merged["gradient_clipping"] == clip
    assert merged["zero_optimization"] == before["zero_optimization"]
    assert ds == before


@pytest.mark.parametrize("key", sorted(OWNED))
def test_an_owned_key_is_refused_with_its_place(key):
    assert refusal({key: 1}) == f"ds_configs/x.json: {key!r} belongs to {OWNED[key]}"


def test_the_refusals_read_like_this():
    assert refusal({"optimizer": {"type": "Adam"}}) == (
        "ds_configs/x.json: 'optimizer' belongs to the run file as [optimizer]"
    )
    unknown = refusal({"zero_optimisation": {"stage": 1}})
    assert unknown.startswith(
        "ds_configs/x.json: unknown key 'zero_optimisation'; there are bf16, "
    )
    assert unknown.endswith("Did you mean 'zero_optimization'?")
    assert refusal({"bf16": {"enabled": True}}) == (
        "ds_configs/x.json: bf16 needs zero_optimization.stage of at least 1: with stage 0 "
        "DeepSpeed takes one Adam step too many at the start, and trains differently"
    )
    with pytest.raises(Refused, match=r"^run\.toml: optimizer: betas must be two numbers"):
        build(OptimizerSettings, {"betas": [0.9]}, "run.toml: optimizer")


def test_a_file_that_is_no_table_is_refused_by_name(tmp_path):
    for text, why in (("{", "not a JSON file"), ("[1]", "must be one table"), (None, "cannot be")):
        path = tmp_path / "x.json"
        path.unlink(missing_ok=True)
        if text:
            path.write_text(text)
        with pytest.raises(Refused, match=why) as error:
            read(path)
        assert str(error.value).startswith(str(path))


def test_no_key_is_both_owned_and_allowed():
    assert not ALLOWED & set(OWNED)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.json")), ids=lambda path: path.stem)
def test_every_shipped_config_merges_and_is_explained(path):
    merge(VALUES, read(path), 2, str(path))
    assert f"`{path.name}`" in (CONFIGS / "README.md").read_text()


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> dict:
    """What two processes made of the same batches, by case: one launch for all cases."""
    out = tmp_path_factory.mktemp("stages") / "results.json"
    codes, said = finish(start("stages_worker.py", str(out)))
    assert codes == [0, 0], said
    assert said.strip() == "", "DeepSpeed should be silent"
    return json.loads(out.read_text())


@pytest.mark.slow
def test_every_stage_in_fp32_follows_plain_torch(stages):
    for case in ["z0 fp32", "z1 fp32", "z2 fp32", "z3 fp32"] + [f"z{s} twice" for s in range(4)]:
        assert stages[case]["loss"] == pytest.approx(stages["torch"]["loss"], rel=1e-5), case
        assert stages[case]["norm"] == pytest.approx(stages["torch"]["norm"], rel=1e-5), case


@pytest.mark.slow
def test_every_stage_in_bf16_follows_fp32_within_one_percent(stages):
    for case in [f"z{s} bf16" for s in (1, 2, 3)] + [f"z{s} offload" for s in (1, 2, 3)]:
        assert stages[case]["loss"] == pytest.approx(stages["torch"]["loss"], rel=0.01), case
        assert stages[case]["norm"] == pytest.approx(stages["torch"]["norm"], rel=0.03), case


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("*.json")))
def test_every_shipped_config_trains_and_skips_what_is_not_finite(stages, name):
    case, bf16 = stages[name], "bf16" in name
    kept = [loss for loss in case["loss"] if loss == loss]
    assert case["skipped"] == [False, True] + [False] * 5
    assert kept == pytest.approx(stages["torch"]["loss"], rel=0.01 if bf16 else 1e-5)


@pytest.mark.slow
def test_a_step_that_is_not_finite_on_one_rank_leaves_no_trace_on_any(stages):
    cases = {f"z{s} spoilt": f"z{s} twice" for s in range(4)}
    cases |= {f"z{s} bf16 spoilt": f"z{s} bf16" for s in (1, 2, 3)}
    cases |= {f"z{s} offload spoilt": f"z{s} offload" for s in (1, 2, 3)}
    for spoilt, clean in cases.items():
        a, b = stages[spoilt], stages[clean]
        assert any(a["skipped"]), spoilt
        assert not any(b["skipped"]), clean
        kept = [loss for loss, skipped in zip(a["loss"], a["skipped"], strict=True) if not skipped]
        assert kept == b["loss"], spoilt
        assert a["mark"] == b["mark"], spoilt


@pytest.mark.slow
def test_the_whole_module_is_tied_full_precision_and_computes_as_the_parts_do(stages):
    for name, case in stages.items():
        if not name.startswith("torch"):
            assert case["tied"], name
            assert case["kinds"] == ["torch.float32"], name
            # evaluate() saw the same examples, in bf16 where that is what is trained.
            assert case["again"] == pytest.approx(case["valid"]["ce/ar"], rel=0.01), name


@pytest.mark.slow
def test_other_normalisations_weigh_the_terms_differently(stages):
    assert stages["by tokens"]["loss"][0] < stages["z2 fp32"]["loss"][0]
    assert stages["by microbatch"]["loss"][0] == pytest.approx(stages["z2 fp32"]["loss"][0], 0.2)
    assert stages["by microbatch"]["loss"][0] != stages["z2 fp32"]["loss"][0]


@pytest.mark.slow
def test_terms_divided_by_all_that_is_predicted_follow_plain_torch(stages):
    for case in ("by goals, z0", "by goals, z3", "by goals, twice"):
        for key in ("loss", "norm"):
            wanted = stages["torch by goals"][key]
            assert stages[case][key] == pytest.approx(wanted, rel=1e-5), (case, key)
        valid, counts = stages[case]["valid"], stages[case]["counts"]
        sums = counts["ce/ar"] * valid["ce/ar"] + 0.5 * counts["ce/nar"] * valid["ce/nar"]
        assert valid["loss"] == pytest.approx(sums / (counts["ce/ar"] + counts["ce/nar"]))


@pytest.mark.slow
def test_an_update_has_one_collective_of_ours_and_one_wait_for_the_device(stages):
    for name, case in stages.items():
        if name.startswith("torch"):
            continue
        ours = [what for who, what in case["calls"] if who == "ours"]
        assert ours == ["all_reduce", "tolist"], name
    # What DeepSpeed adds, once gradients are reduced: the norm at every stage but 0.
    others = {f"z{s} fp32": [w for who, w in stages[f"z{s} fp32"]["calls"]] for s in range(4)}
    assert others["z0 fp32"].count("all_reduce") == 2, others
    assert others["z1 fp32"].count("all_reduce") > 1, others


@pytest.mark.long
@pytest.mark.slow
def test_a_model_sharded_while_it_is_made_trains_as_one_that_was_whole(tmp_path):
    out = tmp_path / "results.json"
    codes, said = finish(start("shards_worker.py", str(out)))
    assert codes == [0, 0], said
    for name, (whole, sharded) in json.loads(out.read_text()).items():
        assert whole.pop("here") > 1000, name
        assert sharded.pop("here") == 0, f"{name}: weights that ZeRO-3 keeps elsewhere are here"
        assert sharded == whole, name
