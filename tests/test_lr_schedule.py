"""What would break: a first update that learns nothing, a resumed run at another rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from januslm.config import Refused
from januslm.training.lr_schedule import ScheduleSettings, check, rate

schedules = st.builds(
    ScheduleSettings,
    name=st.sampled_from(["inverse_sqrt", "polynomial", "cosine", "constant"]),
    warmup=st.integers(0, 500),
    end=st.floats(0, 1),
    power=st.floats(0.5, 3),
)


@pytest.mark.slow
@given(schedules, st.integers(1, 2000), st.floats(1e-6, 1))
def test_no_update_has_a_rate_of_zero_or_above_the_peak(schedule, step, peak):
    assert 0 < rate(schedule, peak, step, 1000) <= peak * (1 + 1e-12)


@given(schedules, st.floats(1e-5, 1))
def test_the_rate_never_falls_in_the_warmup_and_never_rises_after_it(schedule, peak):
    rates = [rate(schedule, peak, step, 1000) for step in range(1, 1001)]
    up, down = rates[: schedule.warmup + 1], rates[schedule.warmup :]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert down[0] == pytest.approx(peak)


def test_inverse_sqrt_gives_the_rates_of_fairseq():
    # FairseqInverseSquareRootSchedule(warmup_updates=4000, warmup_init_lr=1e-7, lr=5e-4) after
    # step_update(n): 1e-7 + n * (5e-4 - 1e-7) / 4000, then 5e-4 * sqrt(4000) / sqrt(n).
    schedule = ScheduleSettings("inverse_sqrt", warmup=4000)
    assert rate(schedule, 5e-4, 1, 0) == 1e-7
    assert rate(schedule, 5e-4, 2001, 0) == pytest.approx(1e-7 + 2000 * (5e-4 - 1e-7) / 4000)
    assert rate(schedule, 5e-4, 4001, 0) == pytest.approx(5e-4)
    assert rate(schedule, 5e-4, 16001, 0) == pytest.approx(2.5e-4)


def test_the_decays_end_where_the_run_file_says():
    for name in ("polynomial", "cosine"):
        schedule = ScheduleSettings(name, warmup=10, end=0.1)
        assert rate(schedule, 1.0, 111, 110) == pytest.approx(0.1, abs=1e-6)
        assert rate(schedule, 1.0, 61, 110) == pytest.approx(0.55, abs=1e-6)


def test_a_decay_that_begins_after_the_end_is_refused():
    with pytest.raises(Refused) as error:
        check(ScheduleSettings("cosine", warmup=100), 100, "r")
    assert str(error.value) == (
        "r: schedule.warmup must be less than train.steps = 100 for 'cosine', got 100"
    )
    check(ScheduleSettings("inverse_sqrt", warmup=100), 100, "r")
