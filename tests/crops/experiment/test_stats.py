"""Comparisons by hand, against statsmodels, and everything that must not become an answer."""

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crops.config.experiment import ExperimentConfig
from crops.config.rollout import RolloutConfig
from crops.errors import ConfigError, InputError
from crops.experiment import stats, totals
from crops.experiment.metrics import METRICS
from crops.experiment.moments import Arms, Moments, nobody
from tests.crops.experiment import simulated

CTR = METRICS["ctr"]


def events(counts: dict[str, tuple[str, int, int]]) -> pa.Table:
    """{user: (arm, clicks, impressions)} as rows."""
    rows = [(user, arm, k < clicks) for user, (arm, clicks, seen) in counts.items() for k in range(seen)]
    return pa.table(
        {"user_id": [r[0] for r in rows], "arm": [r[1] for r in rows], "clicked": [r[2] for r in rows]}
    )


def test_a_small_experiment_by_hand():
    """Control: a 1 of 4, b 2 of 4: CTR 3/8. Treatment: c 2 of 4, d 4 of 4: 6/8. Lift 1.

    Linearised z = (x - r y) / mean(y): control (1 - 1.5) / 4, (2 - 1.5) / 4: variance 2 * 0.125^2 = 1/32;
    treatment (2 - 3) / 4, (4 - 3) / 4: variance 1/8.
    se of the log ratio: sqrt( (1/32) / 2 / (3/8)^2 + (1/8) / 2 / (3/4)^2 ) = sqrt(1/9 + 1/9).
    """
    found = stats.compare(
        events(
            {
                "a": ("control", 1, 4),
                "b": ("control", 2, 4),
                "c": ("treatment", 2, 4),
                "d": ("treatment", 4, 4),
            }
        ),
        metric="ctr",
    )
    assert (found.control, found.treatment, found.users) == (3 / 8, 6 / 8, 4)
    assert found.lift == pytest.approx(1.0)
    assert found.verdict == "unknown"
    assert "2 users in control, 30 are needed" in found.reason
    t = 4 * (-2 * math.log(0.05) + math.log(-2 * math.log(0.05)) + 1) / 5000
    half = math.sqrt(2 / 9) * math.sqrt(2 * (t + 1) / t * math.log(math.sqrt(t + 1) / 0.05))
    assert found.high == pytest.approx(2 * math.exp(half) - 1)
    assert found.low == pytest.approx(2 * math.exp(-half) - 1)


def test_long_play_is_18_s_or_the_whole_video_if_shorter():
    """One row each: 18 of 60 yes; 17.9 of 60 no; 5 of 5 yes; 4.9 of 5 no; 18 of unknown yes; unknown no; 0 of
    0 no.
    """
    plays = [(18.0, 60.0), (17.9, 60.0), (5.0, 5.0), (4.9, 5.0), (18.0, None), (None, 5.0), (0.0, 0.0)]
    table = pa.table(
        {
            "user_id": ["u"] * 7 + ["w"],
            "arm": ["control"] * 7 + ["treatment"],
            "play_s": pa.array([p for p, _ in plays] + [20.0], pa.float32()),
            "duration_s": pa.array([d for _, d in plays] + [30.0], pa.float32()),
        }
    )
    assert stats.compare(table, metric="lpr").control == 3 / 7


@pytest.mark.parametrize("seed", range(3))
def test_estimate_and_p_agree_with_weighted_least_squares(seed):
    """WLS of the user's rate on the arm, weighted by the denominator, with HC1: the same difference, se
    within 1 %.
    """
    from statsmodels.api import WLS, add_constant

    rng = np.random.default_rng(seed)
    table = simulated.rows(rng, 1500, lift=0.1).to_pandas()
    per_user = table.groupby(["user_id", "arm"], as_index=False).agg(
        x=("clicked", "sum"), y=("clicked", "size")
    )
    treated = (per_user.arm == "treatment").astype(float)
    fit = WLS(per_user.x / per_user.y, add_constant(treated), weights=per_user.y).fit(cov_type="HC1")
    found = stats.compare(table, metric="ctr")
    assert found.treatment - found.control == pytest.approx(fit.params["arm"])
    # t against normal quantiles and n - 1 against n - 2: the third digit.
    assert found.p == pytest.approx(fit.pvalues["arm"], rel=0.03, abs=1e-4)
    arms = stats.totals.of_events(table, CTR)
    fixed = stats.estimate(arms)
    level = fit.params["const"]
    low, high = fit.conf_int().loc["arm"]
    assert fixed.fixed_high - fixed.fixed_low == pytest.approx((high - low) / level, rel=0.1)


def test_covariates_narrow_the_interval_and_keep_the_metric():
    rng = np.random.default_rng(5)
    with_pre = simulated.arms(rng, 4000, lift=0.05, pre=True)
    blind = Arms(
        **{
            name: Moments(users=m.users, sums=m.sums | {"x_pre": 0.0, "y_pre": 0.0}, products=m.products)
            for name, m in (("control", with_pre.control), ("treatment", with_pre.treatment))
        }
    )
    assert stats.estimate(with_pre).se < 0.85 * stats.estimate(blind).se
    assert stats.decide(with_pre, CTR).control == stats.decide(blind, CTR).control


def test_the_pre_period_is_what_came_before_the_first_exposure():
    """u has one row without an arm before (a click), one after, which counts nowhere."""
    table = pa.table(
        {
            "user_id": ["u", "u", "u", "w"],
            "arm": [None, "control", None, "treatment"],
            "clicked": [True, False, True, True],
            "ts": pa.array([0, 10, 20, 11], pa.timestamp("us", tz="UTC")),
        }
    )
    found = stats.totals.of_events(table, CTR)
    assert found.control.sums == {"x": 0, "y": 1, "x_pre": 1, "y_pre": 1}
    assert found.treatment.sums == {"x": 1, "y": 1, "x_pre": 0, "y_pre": 0}


def many(control: int, treatment: int, *, clicks=(2, 2), seed=0) -> pa.Table:
    rng = np.random.default_rng(seed)
    sizes = {"control": (control, clicks[0]), "treatment": (treatment, clicks[1])}
    return events(
        {
            f"{arm}{i}": (arm, int(rng.binomial(10, k / 10)), 10)
            for arm, (n, k) in sizes.items()
            for i in range(n)
        }
    )


def test_verdicts_and_what_lower_is_better_means():
    worse = many(300, 300, clicks=(4, 2))
    assert stats.compare(worse, metric="ctr").verdict == "worse"
    as_rqr = worse.rename_columns(["user_id", "arm", "reformulated"])
    found = stats.compare(as_rqr, metric="rqr")
    assert found.verdict == "better"
    assert found.high < 0
    assert stats.compare(many(300, 300), metric="ctr").verdict == "no difference"


def test_swapping_the_arms_flips_the_answer():
    table = many(300, 300, clicks=(2, 4))
    names = {"control": "treatment", "treatment": "control"}
    swapped = table.set_column(1, "arm", pa.array([names[a] for a in table["arm"].to_pylist()]))
    one, other = stats.compare(table, metric="ctr"), stats.compare(swapped, metric="ctr")
    assert (one.verdict, other.verdict) == ("better", "worse")
    assert (1 + one.lift) * (1 + other.lift) == pytest.approx(1)
    assert (1 + one.low) * (1 + other.high) == pytest.approx(1)


def test_a_sample_ratio_mismatch_blocks_any_verdict():
    """700 : 300 at a planned half: 12.6 standard deviations off; at a planned 30 % just right."""
    table = many(700, 300, clicks=(2, 4))
    found = stats.compare(table, metric="ctr")
    assert found.verdict == "blocked"
    assert "700 users in control, 300 in treatment" in found.reason
    assert stats.compare(table, metric="ctr", share=0.3).verdict == "better"


def test_users_in_both_arms_are_left_out_and_said():
    table = pa.concat_tables([many(100, 100), events({"control7": ("treatment", 1, 5)})])
    found = stats.compare(table, metric="ctr")
    assert found.users == 199
    assert "1 user(s) seen in both arms" in found.reason


@pytest.mark.parametrize(
    ("table", "users", "expected"),
    [
        (many(0, 0), 0, "no users"),
        (many(0, 2), 2, "0 users in control"),
        (many(50, 50, clicks=(0, 2)), 100, "CTR of control is 0"),
        (
            events({f"{a}{i}": (a, 1, 2) for a in ("control", "treatment") for i in range(40)}),
            80,
            "does not vary",
        ),
    ],
)
def test_no_answer_is_unknown_and_never_p_1(table, users, expected):
    found = stats.compare(table, metric="ctr")
    assert (found.verdict, found.users, found.p, found.lift, found.low) == (
        "unknown",
        users,
        None,
        None,
        None,
    )
    assert expected in found.reason


def one_in_ten(users: int, clicks: tuple[int, int]) -> pa.Table:
    """`users` in each arm with 5 impressions, of whom every tenth clicks that often."""
    return events(
        {
            f"{arm}{i}": (arm, of * (i % 10 == 0), 5)
            for arm, of in zip(("control", "treatment"), clicks, strict=True)
            for i in range(users)
        }
    )


def test_a_rate_of_nothing_is_worse_where_it_is_beyond_chance_and_better_never():
    """Every tenth of 300 users clicks once in control: 30 clicks, known to sqrt(300 * 0.09) = 5.2, a
    difference of two such arms to 7.3: 4.1 standard errors, where 3.0 are asked for. Of 100 users 2.4 of 3.1.
    """
    dead, few, lively = one_in_ten(300, (1, 0)), one_in_ten(100, (1, 0)), one_in_ten(300, (0, 1))
    arms = [totals.of_events(table, CTR) for table in (dead, few, lively)]
    found = [stats.decide(each, CTR, planned_users=600) for each in arms]
    assert [each.verdict for each in found] == ["worse", "unknown", "unknown"]
    assert found[0].reason == (
        "CTR of treatment is 0, beyond chance: 30 of 1500 in control, 0 of 1500 in treatment"
    )
    assert (found[0].lift, found[0].low, found[0].treatment) == (None, None, 0.0)
    # Of what is better the lower the same table speaks the other way.
    rqr = [stats.decide(each, METRICS["rqr"], planned_users=600).verdict for each in arms]
    assert rqr == ["unknown", "unknown", "worse"]


def test_rare_clicks_of_equal_arms_are_not_called_worse():
    """Three clicks in two hundred users of a treatment of a tenth: often none, and then nothing is said."""
    rng, verdicts = np.random.default_rng(5), []
    for _ in range(400):
        clicks = rng.binomial(5, 0.003, 2_000).astype(float)
        totals_of = np.column_stack([clicks, np.full(2_000, 5.0), np.zeros((2_000, 2))])
        arms = Arms(control=Moments.of(totals_of[200:]), treatment=Moments.of(totals_of[:200]))
        if arms.treatment.ratio == 0:
            verdicts.append(stats.decide(arms, CTR, share=0.1, planned_users=2_000).verdict)
    assert len(verdicts) > 10
    assert set(verdicts) == {"unknown"}


def test_one_arm_alone_is_blocked_by_the_sample_ratio():
    assert stats.compare(many(0, 40), metric="ctr").verdict == "blocked"


def test_bad_calls_say_what_was_expected():
    with pytest.raises(ValueError, match="expected one of ctr, lpr, rqr"):
        stats.compare(many(1, 1), metric="gmv")
    with pytest.raises(ValueError, match=r"share is 1\.0"):
        stats.compare(many(1, 1), metric="ctr", share=1.0)
    with pytest.raises(InputError, match="'reformulated' is missing for rqr"):
        stats.compare(many(1, 1), metric="rqr")
    with pytest.raises(InputError, match="arm is 'champion'"):
        stats.compare(events({"a": ("champion", 1, 1)}), metric="ctr")


def test_pandas_and_arrow_and_any_order_give_the_same():
    table = simulated.rows(np.random.default_rng(3), 300)
    shuffled = table.to_pandas().sample(frac=1, random_state=1).astype({"arm": pd.CategoricalDtype()})
    one, other = stats.compare(table, metric="lpr"), stats.compare(shuffled, metric="lpr")
    assert (one.verdict, one.users) == (other.verdict, other.users)
    assert one.p == pytest.approx(other.p, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(1, 199), seed=st.integers(0, 1000))
def test_moments_add_over_users(cut, seed):
    totals = np.random.default_rng(seed).poisson(3.0, (200, 4)).astype(float)
    whole, parts = Moments.of(totals), Moments.of(totals[:cut]) + Moments.of(totals[cut:])
    assert whole == parts  # whole numbers: exact
    assert whole + nobody() == whole


def test_false_discoveries_by_hand():
    """Benjamini-Hochberg at 5 %, four metrics: limits 0.0125, 0.025, 0.0375, 0.05; 0.02 and 0.01 stand, 0.04
    does not.
    """
    assert stats.discoveries({"a": 0.01, "b": 0.04, "c": 0.02, "d": 0.5}) == {
        "a": True,
        "b": False,
        "c": True,
        "d": False,
    }
    assert stats.discoveries({}) == {}


def rows(**changed):
    """Two users of an impression each."""
    columns = {"user_id": ["a", "b"], "arm": ["control", "treatment"], "clicked": [True, False]}
    return pa.table(columns | {"play_s": [1.0, 20.0], "duration_s": [60.0, 60.0]} | changed)


@pytest.mark.parametrize(
    "clicked",
    [[1, 0], [1.0, 0.0], pa.array([1.0, math.nan]), pa.array([True, None]), pa.array([1, None], pa.int8())],
)
def test_a_click_is_true_or_one_and_what_is_not_known_is_none(clicked):
    """NaN is no click: as one, a column with gaps in one arm would decide the experiment."""
    comparison = stats.compare(rows(clicked=clicked), metric="ctr")
    assert (comparison.control, comparison.treatment) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("metric", "changed", "says"),
    [
        ("ctr", {"clicked": [1, 3]}, "events:1: clicked is 3, expected true or false"),
        ("ctr", {"clicked": [-1.0, 1.0]}, "events:0: clicked is -1, expected"),
        ("ctr", {"clicked": ["yes", "false"]}, "'clicked' holds string, expected numbers"),
        ("lpr", {"play_s": [1.0, -5.0]}, "events:1: play_s is -5, expected a finite"),
        ("lpr", {"duration_s": [math.inf, 1.0]}, "events:0: duration_s is inf"),
        ("rqr", {"reformulated": [0.5, 1.0]}, "events:0: reformulated is 0.5, expected true or false"),
    ],
)
def test_a_value_that_cannot_be_counted_is_named(metric, changed, says):
    with pytest.raises(InputError, match=says):
        stats.compare(rows(**changed), metric=metric)


def test_a_confidence_in_the_place_of_the_level_is_refused():
    with pytest.raises(ValueError, match=r"alpha 0\.95.*0\.05 for intervals"):
        stats.compare(rows(), metric="ctr", alpha=0.95)
    for config in (ExperimentConfig, RolloutConfig):
        with pytest.raises(ConfigError, match="alpha"):
            config.parse({"alpha": 0.95})
    with pytest.raises(ConfigError, match="later than since"):
        ExperimentConfig.parse({"since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"})
