"""A run file's mistakes: the exact line a user will read."""

import json
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from januslm.config import Allowed, Refused, build, load, plain, setting, suggest
from januslm.data.tokenizer import Special
from januslm.model.config import configure
from januslm.objective import LossSettings, resolve_objective
from januslm.training.ds_config import OptimizerSettings, check_spread


@dataclass(frozen=True)
class Inner:
    rate: float = setting(0.1, low=0, below=1)
    weights: dict[str, float] | None = None


@dataclass(frozen=True)
class Run:
    steps: int = setting(low=1)
    kind: Literal["adam", "sgd"] = "adam"
    name: str = "run"
    quick: bool = False
    sizes: list[int] = setting([1, 2], low=1)  # noqa: RUF009, it makes a new list each time
    limit: int | None = setting(None, low=2)
    inner: Inner = field(default_factory=Inner)
    free: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.limit is not None and self.limit > self.steps:
            raise Refused(f"limit {self.limit} is more than steps {self.steps}")


def read(tmp_path, text: str, *changes: str):
    """The run of a file `run.toml` with this text; messages name it by that name alone."""
    (tmp_path / "run.toml").write_text(text)
    return load(Run, tmp_path / "run.toml", changes)


WRONG = [
    (
        "stepss = 1",
        "unknown key 'stepss'; there are free, inner, kind, limit, name, quick, sizes, "
        "steps. Did you mean 'steps'?",
    ),
    ("name = 'a'", "steps is missing"),
    ("steps = 0", "steps must be at least 1, got 0"),
    ("steps = 1.5", "steps must be a whole number, got 1.5"),
    ("steps = 1e300", "steps must be a whole number, got 1e+300"),
    (f"steps = {2**31}", "steps must be at most 2147483647, got 2147483648"),
    (f"steps = {2**70}", "steps is a number of 71 bits; 63 is the most"),
    ("steps = 1979-05-27", "steps must be a whole number, got datetime.date(1979, 5, 27)"),
    ('steps = 1\nname = "a\\u0000b"', "name must be a text without NUL, got 'a\\x00b'"),
    ("steps = true", "steps must be a whole number, got True"),
    ("steps = '1'", "steps must be a whole number, got '1'"),
    ("steps = 1\nkind = 'adm'", "kind must be one of adam, sgd, got 'adm'"),
    ("steps = 1\nname = 3", "name must be a text, got 3"),
    ("steps = 1\nquick = 1", "quick must be true or false, got 1"),
    ("steps = 1\nsizes = 3", "sizes must be a list, got 3"),
    ("steps = 1\nsizes = [1, 'x']", "sizes[1] must be a whole number, got 'x'"),
    ("steps = 1\nsizes = [1, 0]", "sizes must be at least 1, got [1, 0]"),
    ("steps = 1\ninner = 3", "inner must be a table, got 3"),
    ("steps = 1\nfree = 3", "free must be a table, got 3"),
    ("steps = 1\n[inner]\nrate = nan", "inner: rate must be a finite number, got nan"),
    (f"steps = 1\n[inner]\nrate = 1{'0' * 400}", "inner: rate must be a finite number, got inf"),
    (
        "steps = 1\n[inner.weights]\n'ce/ar' = -inf",
        "inner: weights.ce/ar must be a finite number, got -inf",
    ),
    ("steps = 1\n[inner]\nrate = 1.0", "inner: rate must be at least 0 and less than 1, got 1.0"),
    (
        "steps = 1\n[inner]\nrat = 1.0",
        "inner: unknown key 'rat'; there are rate, weights. Did you mean 'rate'?",
    ),
    ("steps = 1\n[inner.weights]\n'ce/ar' = 'x'", "inner: weights.ce/ar must be a number, got 'x'"),
    ("steps = 2\nlimit = 5", "limit 5 is more than steps 2"),
    ("steps = 2\nlimit = 1", "limit must be at least 2, got 1"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[m[:40] for _, m in WRONG])
def test_a_mistake_is_named_with_file_key_and_choices(text, message, tmp_path):
    with pytest.raises(Refused) as error:
        read(tmp_path, text)
    assert str(error.value) == f"{tmp_path / 'run.toml'}: {message}"


def test_a_file_that_is_not_there_or_not_toml_is_named(tmp_path):
    path = tmp_path / "run.toml"
    with pytest.raises(Refused) as error:
        load(Run, path)
    assert str(error.value) == f"{path}: cannot be read (No such file or directory)"
    with pytest.raises(Refused) as error:
        read(tmp_path, "steps = ")
    assert str(error.value).startswith(f"{path}: not a TOML file: ")
    assert "\n" not in str(error.value)
    path.write_bytes(b"\xff")
    with pytest.raises(Refused, match="not a TOML file"):
        load(Run, path)


def test_changes_on_the_command_line_win_and_reach_any_depth(tmp_path):
    run = read(
        tmp_path,
        "steps = 1\n[inner]\nrate = 0.5\n",
        "steps=7",
        "inner.rate=0",
        'inner.weights."ce/ar.x"=2',
        "name=a.b",
        "kind = sgd",
        "sizes=[3, 4]",
        "quick=true",
        'free.a."b.c"=1',
    )
    assert run == Run(
        7, "sgd", "a.b", True, [3, 4], None, Inner(0.0, {"ce/ar.x": 2.0}), {"a": {"b.c": 1}}
    )


def test_a_whole_number_may_be_written_with_an_exponent(tmp_path):
    assert read(tmp_path, "steps = 1e3").steps == 1000
    run = read(tmp_path, "steps = 1", "steps=2.5e4", "sizes=[1e1]")
    assert (run.steps, run.sizes) == (25000, [10])
    assert type(run.steps) is int


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("steps", "'steps' is not a change: write key=value, e.g. optimizer.lr=1e-4"),
        ("=3", "'=3' is not a change: write key=value, e.g. optimizer.lr=1e-4"),
        ("steps.more=3", "'steps.more=3': 'steps' is a value, not a table"),
    ],
)
def test_a_change_that_is_none_is_refused(change, message, tmp_path):
    with pytest.raises(Refused) as error:
        read(tmp_path, "steps = 1", change)
    assert str(error.value) == message


def test_a_misspelt_change_is_refused_like_a_key(tmp_path):
    with pytest.raises(Refused, match=r"inner: unknown key 'rte'; there are rate, weights\."):
        read(tmp_path, "steps = 1", "inner.rte=0.5")


def test_ints_become_floats_where_floats_are_wanted():
    run = build(Run, {"steps": 1, "inner": {"rate": 0, "weights": {"a": 2}}}, "x")
    assert isinstance(run.inner.rate, float)
    assert isinstance(run.inner.weights["a"], float)


def test_defaults_are_not_shared():
    one_run, other = build(Run, {"steps": 1}, "x"), build(Run, {"steps": 1}, "x")
    one_run.sizes.append(9)
    assert other.sizes == [1, 2]


def test_plain_and_build_undo_each_other():
    run = build(Run, {"steps": 4, "limit": 3, "inner": {"weights": {"ce/a": 0.5}}}, "x")
    assert build(Run, plain(run), "x") == run


def test_ranges_speak_plainly_and_keep_their_ends():
    half = Allowed(above=0, high=1)
    assert [half.admits(x) for x in (0, 0.1, 1, 1.1)] == [False, True, True, False]
    assert str(half) == "more than 0 and at most 1"
    assert Annotated[int, half]


@pytest.mark.parametrize(
    "text", ["x = " + "9" * 5000, "x = " + "[" * 5000, "x = \ud800", "\ufeffx = 1", "x = 1\nx = 2"]
)
def test_what_no_parser_reads_is_refused_with_the_file(tmp_path, text):
    (tmp_path / "run.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(Refused, match=r"run\.toml: not a TOML file: "):
        load(Run, tmp_path / "run.toml")


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 5000])
def test_a_change_that_no_parser_reads_is_a_text(tmp_path, text):
    (tmp_path / "run.toml").write_text("")
    with pytest.raises(Refused, match=r"run\.toml: steps must be a whole number, got '"):
        load(Run, tmp_path / "run.toml", [f"steps={text}"])


@pytest.mark.parametrize("key", ["zero_optimization", "bf16", "comms_logger"])
@pytest.mark.parametrize("value", [None, [], 3, "x"])
def test_what_deepspeed_takes_as_a_table_must_be_one(tmp_path, key, value):
    (tmp_path / "ds.json").write_text(json.dumps({key: value}))
    with pytest.raises(Refused, match=rf"ds\.json: {key} must be a table, got "):
        check_spread(str(tmp_path / "ds.json"), OptimizerSettings(), 1.0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": 3}, r"no '3' in objectives/"),
        ({"name": []}, r"no '\[\]' in objectives/"),
        ({"name": "ar", "preset": []}, "objective.preset must be one of"),
        ({"name": "ar", "read": []}, "read must be one of next, past, got"),
    ],
)
def test_an_objective_of_a_wrong_type_is_refused(table, message):
    with pytest.raises(Refused, match=message):
        resolve_objective(table, {}, LossSettings(), "nmt", Special(vocabulary=9), "r")


@pytest.mark.parametrize("weights", [{}, {"ce/ar": 0.0}])
def test_weights_of_nothing_are_refused(weights):
    with pytest.raises(Refused, match=r"r: loss\.weights: nothing would be learnt"):
        resolve_objective(
            {"name": "ar"}, {}, LossSettings(weights), "nmt", Special(vocabulary=9), "r"
        )


def test_a_suggestion_needs_a_likeness():
    assert suggest("mpnte", ["mpnet", "ar"]) == "; there are ar, mpnet. Did you mean 'mpnet'?"
    assert suggest("zzz", ["mpnet", "ar"]) == "; there are ar, mpnet"


MODEL = [
    (
        {"preset": "tny"},
        "r: no model preset 'tny'; there are base, iwslt, large, tiny. Did you mean 'tiny'?",
    ),
    ({"vocabulary": 9}, "r: vocabulary comes from the tokenizer, take it out of [model]"),
    ({"extra_vectors": 2}, "r: extra_vectors comes from the objective, take it out of [model]"),
    (
        {"positions": "learnt"},
        "r: no 'learnt' in positions/; there are learned, none, rotary, "
        "rotary_cross, sinusoidal. Did you mean 'learned'?",
    ),
    ({"position_bias": "t6"}, "r: no 't6' in position_bias/; there are prophetnet, t5, xlnet"),
    (
        {"positions": "none", "position_bias": "prophetnet"},
        "r: positions 'none' leave the encoder without any: position_bias 'prophetnet' is the "
        "decoder's alone; choose other positions",
    ),
    ({"heads": 5}, "r: width 128 is not a multiple of heads 5"),
    (
        {"positions": "rotary", "width": 12, "heads": 4},
        "r: positions 'rotary' need a head's width to be a multiple of 2, got 3",
    ),
    ({"preset": {}}, "r: no model preset {}; there are base, iwslt, large, tiny"),
    ({"positions": 3}, "r: positions must be a text, got 3"),
    ({"width": 2**20}, "r: width must be at least 8 and at most 65536, got 1048576"),
    ({"dropout": 1}, "r: dropout must be at least 0 and less than 1, got 1"),
    ({"norm": "sandwich"}, "r: norm must be one of post, pre, got 'sandwich'"),
]


@pytest.mark.parametrize(("table", "message"), MODEL, ids=[m[:30] for _, m in MODEL])
def test_a_model_that_cannot_be_is_refused(table, message):
    with pytest.raises(Refused) as error:
        configure(table, 100, "r")
    assert str(error.value) == message
