"""What every rank must share, and how a difference is named."""

from januslm.training.fingerprint import code, differences, fingerprint


def test_equal_runs_do_not_differ():
    about = {"train": {"seed": 1}, "data": {"fingerprints": ["a", "b"]}}
    assert list(differences(*(fingerprint(about, "sha", "zero2_bf16") for _ in range(2)))) == []


def test_each_difference_is_named_by_its_key_with_both_values():
    here = fingerprint({"optimizer": {"lr": 1e-3}, "out": "r"}, "sha", "zero2_bf16")
    there = fingerprint({"optimizer": {"lr": 2e-3}, "out": "r", "new": 1}, "other", "zero3_bf16")
    found = {key: (one, other) for key, one, other in differences(here, there)}
    assert found["run.optimizer.lr"] == (1e-3, 2e-3)
    assert found["run.new"] == (None, 1)
    assert found["tokenizer"] == ("sha", "other")
    assert found["ds_config.zero_optimization.stage"] == (2, 3)
    assert "run.out" not in found
    assert not any(key.startswith(("code", "versions")) for key in found)


def test_the_code_is_known_by_its_version_and_its_content():
    version, digest = code().split()
    assert version[0].isdigit()
    assert len(digest) == 32
