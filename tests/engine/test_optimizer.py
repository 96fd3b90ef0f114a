"""The learning rate's course, and what weight decay applies to."""

import itertools
import math
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForMaskedLM, BertConfig, ModernBertConfig

from fmlm_cli.config.schema import OptimizerSettings
from fmlm_cli.engine.optimizer import Schedule, decayed, load_named_state, make_optimizer, named_state

Shape = Literal["linear", "cosine"]
ADAMW = OptimizerSettings(weight_decay=0.1, betas=(0.9, 0.98), epsilon=1e-6)
shapes = st.sampled_from(["linear", "cosine"])
shares = st.floats(0, 1)


@st.composite
def schedules(draw: Any) -> Schedule:
    total = draw(st.integers(1, 300))
    return Schedule(
        draw(st.floats(1e-6, 1.0)), total, draw(st.integers(0, total)), draw(shapes), draw(shares)
    )


def rates(schedule: Schedule) -> list[float]:
    return [schedule.at(step) for step in range(1, schedule.total_steps + 1)]


@given(schedules())
def test_warm_up_is_linear_and_ends_at_the_peak(schedule: Schedule) -> None:
    for step in range(1, schedule.warmup_steps + 1):
        assert schedule.at(step) == pytest.approx(schedule.peak * step / schedule.warmup_steps)
    assert max(rates(schedule)) <= schedule.peak * (1 + 1e-12)
    if schedule.warmup_steps:
        assert schedule.at(schedule.warmup_steps) == pytest.approx(schedule.peak)


@given(schedules())
def test_after_warm_up_it_never_rises(schedule: Schedule) -> None:
    after = rates(schedule)[max(schedule.warmup_steps - 1, 0) :]
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(after))


@given(schedules())
def test_every_step_learns_and_none_goes_below_the_final_rate(schedule: Schedule) -> None:
    final = schedule.final_share * schedule.peak
    for step, rate in enumerate(rates(schedule), start=1):
        assert rate > 0
        if step > schedule.warmup_steps:
            assert rate >= final * (1 - 1e-12)


@given(schedules())
def test_the_step_after_the_last_would_be_at_the_final_rate(schedule: Schedule) -> None:
    """The decay reaches its end when the run does: its last step still has one share of the way to go."""
    after = schedule.at(schedule.total_steps + 1)
    assert after == pytest.approx(schedule.final_share * schedule.peak, abs=1e-12)
    left = 1 / (schedule.total_steps - schedule.warmup_steps + 1)
    share = left if schedule.shape == "linear" else (1 - math.cos(math.pi * left)) / 2
    if schedule.total_steps > schedule.warmup_steps:
        last = schedule.at(schedule.total_steps) / schedule.peak
        assert last == pytest.approx(schedule.final_share + (1 - schedule.final_share) * share)


@given(st.integers(1, 200), shares, st.floats(1e-6, 1))
def test_linear_decay_has_equal_steps(total: int, final: float, peak: float) -> None:
    after = rates(Schedule(peak, total, 0, "linear", final))
    falls = [earlier - later for earlier, later in itertools.pairwise(after)]
    assert falls == pytest.approx([peak * (1 - final) / (total + 1)] * len(falls), rel=1e-6, abs=1e-12)


@given(st.integers(1, 200), st.floats(1e-6, 1))
def test_cosine_is_half_way_down_in_the_middle(half: int, peak: float) -> None:
    assert Schedule(peak, 2 * half - 1, 0, "cosine").at(half) == pytest.approx(peak / 2)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1])
def test_a_run_of_one_step_learns(shape: Shape, warmup: int) -> None:
    assert 0 < Schedule(1.0, 1, warmup, shape).at(1) <= 1.0


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_without_warm_up_the_first_step_is_next_to_the_peak(shape: Shape) -> None:
    assert Schedule(1.0, 999, 0, shape).at(1) == pytest.approx(1.0, abs=2e-3)


@given(st.integers(2, 300), st.data())
def test_wsd_holds_the_peak_and_then_falls_to_nothing(total: int, data: Any) -> None:
    warmup = data.draw(st.integers(0, total - 1))
    decay = data.draw(st.integers(0, total - warmup))
    found = rates(Schedule(2.0, total, warmup, "wsd", decay_steps=decay))
    assert found[:warmup] == pytest.approx([2.0 * step / warmup for step in range(1, warmup + 1)])
    assert all(rate == 2.0 for rate in found[warmup : total - decay])
    assert found[total - decay :] == pytest.approx([2.0 * (decay - i) / (decay + 1) for i in range(decay)])


@given(st.integers(1, 50), st.integers(1, 50), shapes)
def test_a_head_comes_first_and_shifts_the_rest(head: int, rest: int, shape: Shape) -> None:
    alone = Schedule(1.0, rest, rest // 3, shape)
    both = Schedule(1.0, head + rest, rest // 3, shape, head_steps=head, head_peak=7.0)
    assert [both.at(head + step) for step in range(1, rest + 1)] == rates(alone)
    assert both.at(head) == 7.0
    assert all(0 < both.at(step) <= 7.0 for step in range(1, head + 1))


def models() -> list[nn.Module]:
    small: dict[str, Any] = {
        "vocab_size": 30,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    }
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    return [
        AutoModelForMaskedLM.from_config(BertConfig(**small)),
        AutoModelForMaskedLM.from_config(ModernBertConfig(**small, **ids)),
    ]


@pytest.mark.parametrize("number", [0, 1])
def test_biases_and_norms_do_not_decay(number: int) -> None:
    model = models()[number]
    optimizer = make_optimizer(OptimizerSettings(weight_decay=0.3, betas=(0.9, 0.98), epsilon=1e-6), model)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(model.parameters())), "every parameter once"
    norms = {id(p) for m in model.modules() if "Norm" in type(m).__name__ for p in m.parameters()}
    assert norms
    for name, parameter in model.named_parameters():
        plain = id(parameter) in norms or name.endswith("bias")
        assert decay[id(parameter)] == (0.0 if plain else 0.3), name


def test_a_matrix_named_bias_does_not_decay() -> None:
    assert not decayed("attention.relative_attention_bias", nn.Parameter(torch.zeros(3, 3)))
    assert decayed("weight", nn.Parameter(torch.zeros(3, 3)))
    assert not decayed("weight", nn.Parameter(torch.zeros(3)))


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    optimizer = make_optimizer(ADAMW, model)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


def test_settings_reach_adamw() -> None:
    optimizer = make_optimizer(
        OptimizerSettings(weight_decay=0.1, betas=(0.8, 0.95), epsilon=1e-4), nn.Linear(3, 2)
    )
    for group in optimizer.param_groups:
        assert (group["betas"], group["eps"]) == ((0.8, 0.95), 1e-4)


def test_scales_make_groups_of_their_own() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    scales = {"0.weight": 0.5, "0.bias": 0.5}
    optimizer = make_optimizer(
        OptimizerSettings(weight_decay=0.1, betas=(0.9, 0.98), epsilon=1e-6), model, scales
    )
    found = {id(p): (g["weight_decay"], g["scale"]) for g in optimizer.param_groups for p in g["params"]}
    assert found[id(model[0].weight)] == (0.1, 0.5)
    assert found[id(model[0].bias)] == (0.0, 0.5)
    assert found[id(model[1].weight)] == (0.1, 1.0)


@pytest.mark.parametrize("fused", [True, False])
def test_a_state_by_name_comes_back_where_the_optimizer_keeps_it(fused: bool) -> None:
    def made() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 2))
        optimizer = make_optimizer(ADAMW, model, {"0.weight": 0.5})
        for group in optimizer.param_groups:
            group["fused"] = fused
        return model, optimizer

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.ones(2, 3)).square().sum().backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * group["scale"]
        optimizer.step()

    model, optimizer = made()
    step(model, optimizer)
    saved = {name: value.clone() for name, value in named_state(model, optimizer).items()}
    assert saved["2.weight/exp_avg"].shape == (2, 3)
    again, other = made()
    again.load_state_dict(model.state_dict())
    load_named_state(again, other, saved)
    assert [group["scale"] for group in other.param_groups] == [g["scale"] for g in optimizer.param_groups]
    for mine, theirs in zip(again.parameters(), model.parameters(), strict=True):
        for entry, value in optimizer.state[theirs].items():
            got = other.state[mine][entry]
            assert torch.equal(got, value) and (got.dtype, got.device) == (value.dtype, value.device)
    step(model, optimizer)
    step(again, other)
    for mine, theirs in zip(again.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_state_of_some_parameters_leaves_the_others_without() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    optimizer = make_optimizer(ADAMW, model)
    some = {
        "1.bias/step": torch.tensor(3.0),
        "1.bias/exp_avg": torch.ones(2),
        "1.bias/exp_avg_sq": torch.ones(2),
    }
    load_named_state(model, optimizer, some)
    assert named_state(model, optimizer).keys() == some.keys()


@given(
    total=st.integers(1, 500),
    head=st.integers(0, 400),
    warmup=st.floats(0, 1),
    decay=st.floats(0, 1),
    shape=st.sampled_from(["linear", "cosine", "wsd"]),
)
def test_shares_are_of_the_steps_after_the_head(
    total: int, head: int, warmup: float, decay: float, shape: Any
) -> None:
    head = min(head, total - 1)
    given_shares: dict[str, Any] = {"warmup_share": warmup, "decay_share": decay, "final_share": 0.25}
    made = Schedule.of_shares(total, peak=1.0, shape=shape, head_steps=head, head_peak=2.0, **given_shares)
    alone = Schedule.of_shares(total - head, peak=1.0, shape=shape, **given_shares)
    assert made.total_steps == total
    assert [made.at(head + step) for step in range(1, total - head + 1)] == [
        alone.at(step) for step in range(1, total - head + 1)
    ]
    assert alone.warmup_steps == round(warmup * (total - head))
