"""Statistics against scipy, hand examples, simulation and plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fmlm_cli.analysis.statistics import (
    FISHER_Z,
    LOGARITHM,
    Floats,
    Interval,
    Jackknife,
    Means,
    PairedDifference,
    Scale,
    detectable_effect,
    falling_curve,
    holm,
    judged,
    moving_average,
    paired_difference,
    pooled_spreads,
    reachable_loss,
    residual_mean_square,
    tokens_to_reach,
)

# Held-out losses of METHOD's race: the usual practice, scope batch and scope epoch, three seeds.
USUAL, BATCH, EPOCH = (5.018, 5.019, 4.993), (4.992, 4.984, 4.963), (4.938, 4.940, 4.926)

sane = st.floats(-1e3, 1e3)


@given(st.lists(st.tuples(sane, sane), min_size=2, max_size=12), st.sampled_from([0.9, 0.95, 0.99]))
def test_paired_difference_is_scipys(pairs: list[tuple[float, float]], level: float) -> None:
    first, second = (list(values) for values in zip(*pairs, strict=True))
    differences = [a - b for a, b in pairs]
    if np.std(differences) < 1e-6 * (1 + np.abs(pairs).max()):
        return  # scipy warns of what it loses there
    found = paired_difference(first, second, level=level)
    wanted = stats.ttest_rel(first, second)
    assert found.p_value == pytest.approx(wanted.pvalue, rel=1e-7)
    interval = wanted.confidence_interval(level)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-7, abs=1e-9)
    assert found.mean == pytest.approx(sum(differences) / len(differences), abs=1e-9)
    # The test and the interval agree on zero.
    assert (found.p_value > 1 - level) == (found.low < 0 < found.high)


def test_paired_difference_by_hand() -> None:
    found = paired_difference([3.0, 5.0, 7.0], [2.0, 3.0, 4.0])  # differences 1, 2, 3: t = 2 / (1 / sqrt 3)
    assert (found.n, found.mean, found.sd) == (3, 2.0, 1.0)
    t = 2 * math.sqrt(3)
    assert found.p_value == pytest.approx(
        1 - t / math.sqrt(2 + t * t)
    )  # closed form for two degrees of freedom
    assert found.high - found.mean == pytest.approx(4.302652729911275 / math.sqrt(3))
    usual = paired_difference(EPOCH, USUAL)
    assert usual.mean == pytest.approx(-0.0753, abs=1e-4)
    assert usual.high < 0


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([1.0], [2.0], "at least 2 seeds, not 1"),
        ([], [], "at least 2 seeds, not 0"),
        ([1.0, 2.0], [1.0], "not 2 and 1"),
        ([1.0, math.nan], [1.0, 2.0], "diverged"),
        ([1.0, None], [1.0, 2.0], "never got there"),
    ],
)
def test_what_cannot_be_compared_is_refused(first: list[float], second: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_difference(first, second)


def test_no_spread_claims_nothing() -> None:
    for shift in (0.0, 0.1):
        found = paired_difference([1.0 + shift, 2.0 + shift, 3.3 + shift], [1.0, 2.0, 3.3])
        assert (found.p_value, found.low, found.high) == (1.0, -math.inf, math.inf)
        assert not found.testable and judged({"full": found}) == {}


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_detectable_effect_has_its_power(n: int, power: float) -> None:
    effect = detectable_effect(n, 0.05, power)
    rng, runs = np.random.default_rng(n), 20_000
    sample = rng.normal(effect, 1, (runs, n))
    t = sample.mean(1) / sample.std(1, ddof=1) * math.sqrt(n)
    found = (np.abs(t) > stats.t.isf(0.025, n - 1)).mean()
    assert found == pytest.approx(power, abs=4 * math.sqrt(power * (1 - power) / runs))


def test_detectable_effect_is_the_published_one() -> None:
    # G*Power, difference between two dependent means, two-sided: dz 0.5 needs 34 pairs for a power of 0.8.
    assert detectable_effect(34) < 0.5 < detectable_effect(33)
    with pytest.raises(ValueError, match="at least 2 pairs"):
        detectable_effect(1)


def test_holm_by_hand() -> None:
    # 0.01 * 4, 0.03 * 2 after max(0.02 * 3), 0.04 at least what came before it; in the order given.
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([0.2]).tolist() == [0.2]
    assert holm([]).tolist() == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.1, math.nan])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.2))
def test_holm_rejects_what_its_step_down_rejects(p_values: list[float], alpha: float) -> None:
    rejected: set[int] = set()
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    for step, index in enumerate(order):
        if p_values[index] * (len(p_values) - step) > alpha:
            break
        rejected.add(index)
    adjusted = holm(p_values)
    assert {i for i, p in enumerate(adjusted) if p <= alpha} == rejected
    assert (adjusted >= p_values).all()


def test_what_is_told_goes_by_holms_correction() -> None:
    differences = {"batch": paired_difference(BATCH, USUAL), "epoch": paired_difference(EPOCH, USUAL)}
    found = judged(differences)
    assert found["epoch"].told
    assert found["epoch"].p_adjusted == pytest.approx(
        max(2 * min(d.p_value for d in differences.values()), differences["epoch"].p_value)
    )


def test_what_is_told_alone_may_not_be_in_company() -> None:
    noise = paired_difference([1.0, 2.0, 2.9], [1.1, 1.9, 3.0])
    near = PairedDifference(3, 1.0, 0.3, 0.1, 1.9, 0.03, (0.7, 1.0, 1.3))
    assert judged({"a": near})["a"].told
    assert not judged({"a": near, "c": noise})["a"].told
    # What has no spread is no test, and costs the others nothing.
    same = paired_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert judged({"a": near, "c": same})["a"].told


def compared(rows: np.ndarray) -> dict[int, PairedDifference]:
    """Each of rows float[arms + 1, seeds] but the first against the first."""
    return {place: paired_difference(own, rows[0]) for place, own in enumerate(rows[1:])}


@pytest.mark.parametrize(("n", "tests"), [(3, 1), (3, 4), (6, 4)])
def test_what_is_called_detectable_is_told_as_often_as_promised(n: int, tests: int) -> None:
    """Simulated comparisons, of which one has the difference that is said to be detectable."""
    rng, runs, effect = np.random.default_rng(n), 1_000, detectable_effect(n, 0.05 / tests)
    told, printed = 0, []
    for _ in range(runs):
        rows = rng.standard_normal((tests + 1, n))
        rows[1] += effect * math.sqrt(2)  # in standard deviations of a difference
        found = judged(compared(rows))
        told += found[0].told
        printed.append(found[0].detectable)
    assert told / runs > 0.8 - 4 * math.sqrt(0.8 * 0.2 / runs)
    assert np.median(printed) == pytest.approx(effect * math.sqrt(2), rel=0.2)


# ---------------------------------------------------------------- the pooled spread

rows_of_differences = st.integers(1, 6).flatmap(
    lambda arms: st.lists(st.lists(st.floats(-5, 5), min_size=4, max_size=4), min_size=arms, max_size=arms)
)


@given(rows_of_differences)
def test_the_residual_mean_square_is_that_of_randomised_blocks(values: list[list[float]]) -> None:
    differences = np.array(values)
    arms, seeds = differences.shape
    table = np.vstack([np.zeros(seeds), differences])
    # Least squares on a column for each row and each block, as in a textbook's two-way layout.
    rows, blocks = np.indices(table.shape)
    design = np.hstack([np.eye(arms + 1)[rows.ravel()], np.eye(seeds)[blocks.ravel()]])
    residual = table.ravel() - design @ np.linalg.lstsq(design, table.ravel(), rcond=None)[0]
    wanted = (residual**2).sum() / (arms * (seeds - 1))
    assert residual_mean_square(differences) == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    if arms == 1:
        assert 2 * residual_mean_square(differences) == pytest.approx(differences.var(ddof=1), abs=1e-9)


def test_one_arm_has_its_own_spread_exactly() -> None:
    pair = paired_difference(EPOCH, USUAL)
    (only,) = pooled_spreads(np.array([pair.differences]))
    assert (only.sd, only.df) == (pytest.approx(pair.sd), 2)
    low, high = only.interval  # (n - 1) s^2 / chi^2, at 0.025 and 0.975 with two degrees of freedom
    assert low == pytest.approx(pair.sd * math.sqrt(2 / (-2 * math.log(0.025))))
    assert high == pytest.approx(pair.sd * math.sqrt(2 / (-2 * math.log(0.975))))


@pytest.mark.parametrize("factor", [0.001, 100.0])
def test_an_arm_out_of_line_keeps_its_own_spread(factor: float) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((5, 4))
    rows[2] = rows[0] + factor * (rows[2] - rows[0])
    differences = rows[1:] - rows[0]
    spreads = pooled_spreads(differences)
    assert (spreads[1].sd, spreads[1].df) == (pytest.approx(differences[1].std(ddof=1)), 3)
    others = pooled_spreads(differences[[0, 2, 3]])
    assert [spreads[arm] for arm in (0, 2, 3)] == others
    assert {spread.df for spread in others} == {9}


def test_spread_is_pooled_only_where_it_is_one() -> None:
    rng = np.random.default_rng(1)
    pairs = {("a", arm): pair for arm, pair in compared(rng.standard_normal((4, 3))).items()}
    pairs |= {("b", arm): pair for arm, pair in compared(100 * rng.standard_normal((4, 3))).items()}
    found = judged(pairs, lambda key: key[0])
    sizes = {task: {own.detectable for key, own in found.items() if key[0] == task} for task in "ab"}
    assert len(sizes["a"]) == len(sizes["b"]) == 1
    assert 20 < sizes["b"].pop() / sizes["a"].pop() < 500
    # Their tests are corrected together all the same.
    assert sorted(own.p_adjusted for own in found.values()) == sorted(
        holm([pair.p_value for pair in pairs.values()])
    )


def printed(runs: int, seeds: int, noise: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """What is called detectable over the truth, and whether its range holds it; [runs, arms] each.

    `noise`: the standard deviation of each row's losses beside what a seed's rows share, the baseline first.
    """
    rng, sizes = np.random.default_rng(3), np.array(noise)
    truth = np.hypot(sizes[1:], sizes[0]) * detectable_effect(seeds, 0.05 / (len(sizes) - 1))
    ratios, held = [], []
    for _ in range(runs):
        rows = sizes[:, None] * rng.standard_normal((len(sizes), seeds)) + rng.standard_normal(seeds)
        found = list(judged(compared(rows)).values())
        ratios.append([own.detectable for own in found] / truth)
        held.append(
            [own.detectable_low <= t <= own.detectable_high for own, t in zip(found, truth, strict=True)]
        )
    return np.array(ratios), np.array(held)


def test_what_can_be_seen_is_known_better_with_four_arms_than_with_one() -> None:
    """With the spread of one arm's three differences it ranges over 0.16 to 1.92 times the truth."""
    ratios, held = printed(600, 3, [1.0] * 5)
    low, high = np.quantile(ratios, [0.025, 0.975])
    assert low > 0.3 and high < 1.65
    assert np.median(ratios) == pytest.approx(1, abs=0.1)
    assert np.sqrt((np.log(ratios) ** 2).mean()) < 0.5  # 0.70 with one arm's own
    assert held.mean() > 0.89


def test_one_wild_arm_does_not_drown_the_others() -> None:
    ratios, held = printed(600, 3, [1.0, 1.0, 1.0, 1.0, 10.0])
    calm, wild = ratios[:, :3], ratios[:, 3]
    assert np.median(calm) == pytest.approx(1, abs=0.15) and np.quantile(calm, 0.9) < 1.5
    assert np.quantile(calm, 0.025) > 0.23 and np.quantile(calm, 0.975) < 2.2
    assert np.median(wild) == pytest.approx(0.83, abs=0.15)  # of its own: the median of chi with two degrees
    assert held[:, :3].mean() > 0.86 and held[:, 3].mean() > 0.83


curves = st.lists(st.floats(0.1, 10), min_size=1, max_size=20)


@given(curves, st.sampled_from([1, 3, 5, 9]))
def test_moving_average_against_a_loop(values: list[float], window: int) -> None:
    wanted = []
    for i in range(len(values)):
        half = min(window // 2, i, len(values) - 1 - i)
        part = values[i - half : i + half + 1]
        wanted.append(sum(part) / len(part))
    assert moving_average(values, window) == pytest.approx(wanted)
    assert (np.diff(falling_curve(values, window)) <= 0).all()


def test_moving_average_keeps_straight_lines() -> None:
    line = np.linspace(3, 1, 11)
    assert moving_average(line, 5) == pytest.approx(line)
    with pytest.raises(ValueError, match="odd"):
        moving_average(line, 4)


def test_tokens_to_reach_by_hand() -> None:
    tokens, losses = [0, 100, 200, 300], [4.0, 3.0, 3.5, 2.0]
    assert tokens_to_reach(tokens, losses, 3.5, window=1) == 50
    assert tokens_to_reach(tokens, losses, 2.5, window=1) == 250  # from the best so far, 3, to 2: halfway
    assert tokens_to_reach(tokens, losses, 4.5, window=1) == 0
    assert tokens_to_reach(tokens, losses, 1.9, window=1) is None
    # Smoothed: 4, 3.5, 2.83, 2.
    assert tokens_to_reach(tokens, losses, 3.0, window=3) == pytest.approx(100 + 100 * 0.5 / (3.5 - 17 / 6))


@given(curves, st.floats(0.1, 10), st.floats(0.1, 10))
def test_a_lower_loss_takes_more_tokens(losses: list[float], one: float, other: float) -> None:
    tokens = np.arange(len(losses)) * 10.0
    reached = [tokens_to_reach(tokens, losses, target) for target in sorted((one, other))]
    if reached[0] is not None:
        assert reached[1] is not None
        assert reached[1] <= reached[0]
    assert tokens_to_reach(tokens, losses, reachable_loss([losses])) is not None


def test_reachable_loss_is_the_worst_arms_best() -> None:
    ends = [[4.0, 3.0, 2.0, 2.2], [4.0, 3.5, 3.0]]
    assert reachable_loss(ends, window=1) == 3.0
    with pytest.raises(ValueError, match="no loss curves"):
        reachable_loss([])
    with pytest.raises(ValueError, match="finite"):
        reachable_loss([[1.0, math.nan]])
    with pytest.raises(ValueError, match="rise"):
        tokens_to_reach([0, 0], [1.0, 2.0], 1.0)
    with pytest.raises(ValueError, match="for every count"):
        tokens_to_reach([0, 1], [1.0], 1.0)


positive = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=2, max_size=12)


def ratio(means: Means) -> Floats:
    return means["top"] / means["bottom"]


@given(positive, st.sampled_from([0.9, 0.95, 0.99]))
def test_jackknife_of_a_mean_is_students_interval(pairs: list[tuple[float, float]], level: float) -> None:
    values = np.array(pairs)[:, 0]
    found = Jackknife.of({"x": values}, level=level).interval(lambda m: m["x"])
    half = stats.t.isf((1 - level) / 2, len(values) - 1) * stats.sem(values)
    ends = values.mean() - half, values.mean() + half
    assert (found.low, found.high) == pytest.approx(ends, abs=1e-9)
    assert (found.value, found.level) == (pytest.approx(values.mean()), level)


@given(positive)
def test_jackknife_against_a_loop(pairs: list[tuple[float, float]]) -> None:
    top, bottom = np.array(pairs).T
    n, without = len(top), []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        without.append(math.log(np.mean(top[others]) / np.mean(bottom[others])))
    error = math.sqrt((n - 1) / n * sum((one - np.mean(without)) ** 2 for one in without))
    found = Jackknife.of({"top": top, "bottom": bottom}).interval(ratio, LOGARITHM)
    middle, half = math.log(top.mean() / bottom.mean()), stats.t.ppf(0.975, n - 1) * error
    assert found.value == pytest.approx(top.mean() / bottom.mean())
    assert [math.log(found.low), math.log(found.high)] == pytest.approx([middle - half, middle + half])


@given(positive, st.floats(0.01, 100))
def test_what_is_measured_in_another_unit_has_the_same_interval_in_it(
    pairs: list[tuple[float, float]], unit: float
) -> None:
    top, bottom = np.array(pairs).T
    jackknife = Jackknife.of({"top": top, "bottom": bottom})
    plain, logarithmic = jackknife.interval(ratio), jackknife.interval(ratio, LOGARITHM)
    scaled = Jackknife.of({"top": unit * top[::-1], "bottom": bottom[::-1]})
    for own, other in (
        (plain, scaled.interval(ratio)),
        (logarithmic, scaled.interval(ratio, LOGARITHM)),
    ):
        expected = [unit * own.low, unit * own.high]
        assert [other.low, other.high] == pytest.approx(expected, rel=1e-6, abs=1e-9 * unit)
    assert logarithmic.low > 0
    turned = jackknife.interval(lambda m: 1 / ratio(m), LOGARITHM)
    assert [turned.low, turned.high] == pytest.approx([1 / logarithmic.high, 1 / logarithmic.low])


def correlation(means: Means) -> Floats:
    return (means["top"] - means["bottom"]) / (means["top"] + means["bottom"])


def test_intervals_of_correlations_stay_within_one() -> None:
    top, bottom = np.random.default_rng(0).gamma(1, [[30.0], [0.1]], (2, 6))
    columns = {"top": top, "bottom": bottom}
    found = Jackknife.of(columns).interval(correlation, FISHER_Z)
    assert -1 < found.low < found.value < found.high < 1 < Jackknife.of(columns).interval(correlation).high
    # Equal gradients in each pair: exactly 1, which has no z.
    same = Jackknife.of(columns | {"bottom": np.zeros(6)}).interval(correlation, FISHER_Z)
    assert (same.low, same.value, same.high) == (1.0, 1.0, 1.0)
    # In all pairs but one: without its unit there is no z, and the interval is on the correlation's own scale.
    but_one = columns | {"bottom": np.array([0.0, 0.0, 0.1, 0.0, 0.0, 0.0])}
    assert Jackknife.of(but_one).interval(correlation, FISHER_Z) == Jackknife.of(but_one).interval(
        correlation
    )


def test_what_may_be_zero_has_an_interval_on_its_own_scale() -> None:
    nothing = Jackknife.of({"top": np.zeros(4), "bottom": np.arange(1.0, 5.0)}).interval(ratio, LOGARITHM)
    assert (nothing.low, nothing.value, nothing.high) == (0.0, 0.0, 0.0)


def test_columns_that_have_no_interval_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 of them, not 1"):
        Jackknife.of({"x": np.ones(1)})
    with pytest.raises(ValueError, match="not finite"):
        Jackknife.of({"x": np.array([1.0, math.nan])})


@pytest.mark.parametrize("scale", [None, LOGARITHM])
def test_a_figure_that_is_undefined_has_no_interval(scale: Scale | None) -> None:
    scales = [] if scale is None else [scale]
    found = Jackknife.of({"x": np.zeros(4)}).interval(lambda m: m["x"] / m["x"], *scales)
    assert all(map(math.isnan, (found.value, found.low, found.high)))
    assert found.against(1.0) == "undecided"
    # Defined, but not without its only unit that tells anything.
    once = Jackknife.of({"x": np.array([0.0, 0.0, 2.0])}).interval(lambda m: m["x"] / m["x"], *scales)
    assert once.value == 1.0
    assert all(map(math.isnan, (once.low, once.high)))


def test_sides_of_a_reference() -> None:
    interval = Interval(0.5, 0.4, 0.6)
    assert [interval.against(x) for x in (0.3, 0.5, 0.7)] == ["above", "undecided", "below"]
