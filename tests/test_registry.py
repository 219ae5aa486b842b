"""Plug-ins have the signature that their folder asks for; a typo gets the choices."""

import inspect
from typing import Annotated

import numpy as np
import pytest

from januslm import registry
from januslm.config import Allowed, Refused
from januslm.layout import NONE
from januslm.objective import LossSettings, check_weights, resolve_objective
from tests.samples import OBJECTIVES, SPECIAL, resolved, sentence

EVERY = pytest.mark.parametrize("name", OBJECTIVES)


def test_the_folder_is_the_registry(tmp_path, monkeypatch):
    package = tmp_path / "plugs_of_a_test"
    package.mkdir()
    for name in ("__init__", "one", "other", "_hidden"):
        (package / f"{name}.py").write_text(f"NAME = {name!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert registry.names("plugs_of_a_test") == ["one", "other"]
    assert registry.find("plugs_of_a_test", "one").NAME == "one"
    with pytest.raises(Refused) as error:
        registry.find("plugs_of_a_test", "othr")
    wanted = "no 'othr' in plugs_of_a_test/; there are one, other. Did you mean 'other'?"
    assert str(error.value) == wanted


def test_an_unknown_objective_is_reported_which_there_are():
    with pytest.raises(Refused) as error:
        resolved("jannus")
    known = ", ".join(OBJECTIVES)
    assert str(error.value) == (
        f"no 'jannus' in objectives/; there are {known}. Did you mean 'janus'?"
    )


@EVERY
def test_an_objective_has_streams_rule_noise_and_weights(name):
    plugin = registry.find("januslm.objectives", name)
    assert plugin.RULE.streams == plugin.STREAMS
    assert set(plugin.RULE.predicts) <= set(plugin.STREAMS)
    assert list(inspect.signature(plugin.layout).parameters)[:4] == [
        "target",
        "hidden",
        "special",
        "rng",
    ]
    assert set(plugin.NOISE) == set(plugin.SMOOTHING) == set(plugin.NORMALIZE)
    for preset in plugin.NOISE:
        objective = resolved(name, preset)
        check_weights(objective.loss.weights, plugin.RULE.distributions, name)
        assert 0 <= objective.loss.smoothing < 1
        assert objective.loss.normalize in ("term", "tokens", "microbatch")
        assert sum(objective.loss.weights.values()) > 0


@EVERY
def test_every_weighted_term_is_fed_by_some_layout(name):
    objective = resolved(name)
    target = np.array([0, *range(9, 18), 2])
    rule, goals = objective.plugin.RULE, {}
    for hidden in np.array([[0, *[1, 0] * 5], [0] * 11], bool):
        made = objective.layout(target, hidden, np.random.default_rng(0))
        for stream, goal in zip(made.slots.stream, made.slots.goal, strict=True):
            if goal != NONE:
                name = rule.predicts[rule.streams[stream]]
                goals.setdefault(name, set()).add(int(goal))
    for term in set(objective.loss.weights) - {"ce/length"}:
        names = term.partition("/")[2].split("~")
        assert set.intersection(*(goals[name] for name in names)), f"{term} has no goals"


@EVERY
def test_an_objective_says_in_a_sentence_what_it_is(name):
    plugin = registry.find("januslm.objectives", name)
    assert plugin.__doc__.splitlines()[0].endswith((".", ","))


def options_of(*, size: Annotated[int, Allowed(low=1)] = 3, kind: str = "a", rate: float):
    """A plug-in as folders have them."""


def test_options_are_the_keyword_arguments_with_their_defaults():
    assert registry.options(options_of, {"rate": 1}, "x") == {"size": 3, "kind": "a", "rate": 1.0}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "x: rate is missing"),
        ({"rate": 1.0, "size": 0}, "x: size must be at least 1, got 0"),
        ({"rate": "much"}, "x: rate must be a number, got 'much'"),
        ({"rat": 1}, "x: unknown key 'rat'; there are kind, rate, size. Did you mean 'rate'?"),
    ],
)
def test_a_wrong_option_is_named(given, message):
    with pytest.raises(Refused) as error:
        registry.options(options_of, given, "x")
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("table", "noise", "loss", "message"),
    [
        ({}, {}, {}, "r: objective.name is missing"),
        (
            {"name": "janus", "preset": "mnt"},
            {},
            {},
            "r: objective.preset must be one of nmt, pretrain",
        ),
        (
            {"name": "janus", "read": "query"},
            {},
            {},
            "r: objective: read must be one of next, past, got 'query'",
        ),
        (
            {"name": "janus"},
            {"ratio": 1.5},
            {},
            "r: noise: ratio must be more than 0 and at most 1, got 1.5",
        ),
        ({"name": "janus"}, {"name": "uniform", "ratio": 0.5}, {}, "r: noise: unknown key 'ratio'"),
        (
            {"name": "janus"},
            {},
            {"weights": {"kl/ar~axu": 1.0}},
            "r: loss.weights: no loss term 'kl/ar~axu'",
        ),
    ],
)
def test_tables_of_a_run_file_are_checked(table, noise, loss, message):
    with pytest.raises(Refused) as error:
        resolve_objective(table, noise, LossSettings(**loss), "nmt", SPECIAL, "r")
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("noise", registry.names("januslm.noise"))
def test_a_noise_for_other_data_is_refused_with_those_that_fit(noise, pairs):
    objective = resolve_objective(
        {"name": "janus"}, {"name": noise}, LossSettings(), "nmt", SPECIAL, "r"
    )
    target, rng = sentence(np.random.default_rng(0), 9), np.random.default_rng(1)
    why = ""
    try:
        objective.example(target if pairs else None, target, rng)
    except Refused as of_the_noise:
        why = str(of_the_noise)
    if not why:
        objective.check_data(pairs, "r")
        return
    with pytest.raises(Refused) as error:
        objective.check_data(pairs, "r")
    assert str(error.value).startswith(f"r: {why}; possible for ")
    assert noise not in str(error.value).partition(" are ")[2].split(", ")


def test_a_weight_of_zero_leaves_its_term_out():
    weights = {"ce/ar": 1.0, "ce/nar": 0.0}
    objective = resolved("janus", loss=LossSettings(weights=weights))
    assert objective.loss.weights == {"ce/ar": 1.0}


FOLDERS = {
    "januslm.decoding": "decode",
    "januslm.metrics": "score",
    "januslm.noise": "hide",
    "januslm.objectives": "layout",
    "data_tools.sources": "inputs",
}
PLUGINS = [(package, name) for package in FOLDERS for name in registry.names(package)]


@pytest.mark.parametrize(("package", "name"), PLUGINS)
def test_options_read_from_the_source_are_those_of_the_function(package, name):
    function = FOLDERS[package]
    real = inspect.signature(getattr(registry.find(package, name), function), eval_str=True)
    wanted = [p for p in real.parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert list(registry.declared(package, name, function).parameters.values()) == wanted


def test_a_source_is_read_without_what_it_imports(tmp_path, monkeypatch):
    """Neither the plug-in runs nor its imports, but for the module that its options come from."""
    package = tmp_path / "unread_plugs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_ranges.py").write_text(
        "from typing import Annotated\nfrom januslm.config import Allowed\n"
        "Size = Annotated[int, Allowed(low=2)]\n"
    )
    (package / "plug.py").write_text(
        "import no_such_module as far\nfrom ._ranges import Size as S\nWAYS = (1, 2, 3)\n"
        "@far.decorated\ndef made(x, *, size: S = len(WAYS), rate: float = -WAYS[0] / 2): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = registry.declared("unread_plugs", "plug", "made")
    assert registry.options(found, {}, "x") == {"size": 3, "rate": -0.5}
    with pytest.raises(Refused, match="x: size must be at least 2, got 1"):
        registry.options(found, {"size": 1}, "x")


def test_a_function_that_only_running_the_file_can_make_is_read_from_it(tmp_path, monkeypatch):
    package = tmp_path / "made_plugs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "plug.py").write_text(
        "for name in 'abc':\n    last = name\n"
        "class Kind(str): ...\n"
        "def made(*, kind: str = Kind(last)): ...\n"
        "other = made\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for function in ("made", "other"):
        found = registry.declared("made_plugs", "plug", function)
        assert registry.options(found, {}, "x") == {"kind": "c"}
