"""`fmlm compare-masks`: which masking to use on this text, and how sure that is."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fmlm_cli import events, storage
from fmlm_cli.analysis.report.summary import glance
from fmlm_cli.analysis.report.values import Arms
from fmlm_cli.analysis.report.writing import write_report
from fmlm_cli.analysis.results.comparison import ComparisonResults
from fmlm_cli.analysis.results.plain import as_json
from fmlm_cli.config import Budget, CompareSettings, Part, build, saved_settings, to_yaml
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.errors import UserError
from fmlm_cli.events import Doing, Emit, Facts, Grid, Note, counted, ignore, starting_anew
from fmlm_cli.recipes.comparison.cautions import cautions_of
from fmlm_cli.recipes.comparison.draft import PARTS, Draft, draft_comparison
from fmlm_cli.recipes.comparison.estimating.parts import QUICK
from fmlm_cli.recipes.comparison.estimating.whole import estimate_plan
from fmlm_cli.recipes.comparison.plan import ComparisonPlan, Item, with_budget
from fmlm_cli.recipes.comparison.results import results_of, with_reruns
from fmlm_cli.recipes.comparison.work import Worker, board_of
from fmlm_cli.recipes.jobs.work import Sharing, owned_by, report_once_done, work_through
from fmlm_cli.recipes.pretraining.timing import time_steps
from fmlm_cli.recipes.shared.estimates.estimate import Estimate, tell_estimate
from fmlm_cli.recipes.shared.estimates.timing import TIMED_STEPS
from fmlm_cli.recipes.shared.words import caution_of_others, where_line

RESULTS, PLAN = "results.json", "plan.json"

_LOCK = ".plan.lock"
COMPARISON = storage.Kind(
    "comparison",
    "compare-masks",
    (
        *(storage.RUN_CONFIG, PLAN, RESULTS, "results.*", "report.*", "figures", "cells", "logs", _LOCK),
        *(*PARTS, "sweep", "rerun"),
    ),
)


@dataclass(frozen=True)
class Comparison:
    """Where a comparison lies, and what its results.json holds."""

    root: Path
    results: ComparisonResults


def compare_masks(
    settings: CompareSettings,
    *,
    overwrite: bool = False,
    resume: bool = False,
    cell: str | None = None,
    jobs: int = 1,
    report_only: bool = False,
    report: bool = True,
    emit: Emit = ignore,
) -> Comparison | None:
    """Compare masking strategies, and report: coverage, gradient variance, a race and downstream tasks.

    `cell`: "i/n", only this share of the work; there is a report once all is done, unless `report` is off.
    `jobs`: processes that share the work. With `resume` (as with `cell` and `report_only`), what `settings`
    leave open is as in the earlier calls, and `only` names what to do beside what they did. Raises
    `UserError` for anything wrong with settings, data or checkpoint before anything is written; `Interrupted`
    on Ctrl-C or SIGTERM.
    """
    if settings.out is None:
        raise UserError("no output folder: give --out DIR")
    root, sharing = Path(settings.out), Sharing(cell, jobs, report_only, report)
    sharing.check_overwrite(overwrite)
    if report_only and not (root / PLAN).is_file():
        raise UserError(f"{root} holds no comparison to report on (it has no {PLAN})")
    with owned_by(sharing, root, COMPARISON, overwrite=overwrite, resume=resume, emit=emit) as folder:
        if resume and folder.is_empty:
            emit(starting_anew(root))
        with storage.clear_disk_errors(root), _one_plan_at_a_time(root, together=cell is not None):
            going_on = resume or sharing.goes_on
            plan, budget = _plan(settings, root, overwrite=overwrite, resume=going_on, emit=emit)
            if overwrite:
                folder.clear()
            _write_down(plan, budget)
        _describe(plan, emit)
        _tell_time(plan, sharing, emit)
        with storage.clear_disk_errors(root):
            plan = _worked_through(with_reruns(plan), sharing, folder, emit)
        return report_once_done(
            plan.ledger, lambda: _report(plan, emit), sharing, root / _LOCK, emit, insist=report_only
        )


def estimate_comparison(
    settings: CompareSettings,
    *,
    price_per_hour: float | None = None,
    resume: bool = False,
    emit: Emit = ignore,
) -> Estimate:
    """Plan a comparison as `compare_masks` does, and time a little of each of its parts. Nothing is written.

    `resume`: what is done is not counted. Raises `UserError` for whatever `compare_masks` would refuse of
    settings, data and checkpoint.
    """
    if settings.out is None:
        raise UserError("no output folder: give --out DIR, which a dry run leaves alone")
    root = Path(settings.out)
    resume = resume and storage.kind_of(root) == COMPARISON.name
    plan, _ = _plan(settings, root, overwrite=not resume, resume=resume, emit=emit)
    _describe(plan, emit)
    items = plan.ledger.unfinished if resume else plan.items
    estimate = replace(estimate_plan(plan, items, emit), price_per_hour=price_per_hour)
    work = f"{_work_line(plan, items)}; --jobs N deals it out, to a GPU each"
    tell_estimate(
        estimate,
        emit,
        out=settings.out,
        more={"work": work},
        ending="this compares into",
        remedy="fewer seeds, or a folder on a larger one",
    )
    return estimate


def _tell_time(plan: ComparisonPlan, sharing: Sharing, emit: Emit) -> None:
    """Say how long the work is going to take, by a few seconds of it; of one process's share of it only that.

    Processes that another one has started say nothing.
    """
    if sharing.report_only or not sharing.report:
        return
    share = {item.name for item in plan.ledger.share(sharing.cell)}
    items = [item for item in plan.ledger.unfinished if item.name in share]
    if not items:
        return
    emit(Doing("timing a little of the work"))
    try:
        found = estimate_plan(plan, items, emit, QUICK)
    except DivergedError:
        return  # which is a result, once it is a run's
    shared = f"; {sharing.processes} processes share it" if sharing.processes > 1 else ""
    emit(Note(f"{found.in_words}{shared} (by a few steps; --dry-run looks longer)"))


def _worked_through(
    plan: ComparisonPlan, sharing: Sharing, folder: storage.OwnedFolder, emit: Emit
) -> ComparisonPlan:
    """Work through a plan, and then through the reruns that its race leads to; the plan with these."""
    while True:
        board = board_of(plan, emit, sharing.processes)
        only = ",".join(plan.parts)  # config.yaml names those of earlier calls too
        words = ["compare-masks", str(plan.root / storage.RUN_CONFIG), "--only", only, "--no-report"]
        work_through(plan.ledger, Worker(plan, board).do, board, sharing, words, folder)
        further = with_reruns(plan)
        if further.reruns == plan.reruns:
            return plan
        plan = further


@contextlib.contextmanager
def _one_plan_at_a_time(root: Path, *, together: bool) -> Iterator[None]:
    """Processes that begin together plan in turn, so that minutes become the same steps for all."""
    if not together:
        yield
        return
    with storage.one_at_a_time(root / _LOCK):
        yield


def _plan(
    settings: CompareSettings, root: Path, *, overwrite: bool, resume: bool, emit: Emit
) -> tuple[ComparisonPlan, Mapping[str, Any]]:
    """The comparison with every choice made, nothing in the folder contradicting it; and what plan.json says.

    Nothing is written.
    """
    config = root / storage.RUN_CONFIG
    only = settings.only
    if resume and config.is_file():
        saved, explicit = saved_settings(CompareSettings, config), settings.model_dump(exclude_unset=True)
        settings = build(CompareSettings, saved.model_dump(), explicit)
        only = _either(saved.only, settings.only)
    draft = draft_comparison(settings, root, emit)
    draft = replace(draft, settings=draft.settings.model_copy(update={"only": only}))
    planned = _planned(root) if resume else {}
    plan = with_budget(draft, _steps(draft, planned, emit))
    if not plan.items:
        raise UserError(
            f"--only {','.join(plan.parts)} leaves nothing to do: coverage is of strategies without "
            "masking.schedule, gradient variance of the models in variance.checkpoints"
        )
    if overwrite:
        storage.check_outside(plan.root, _made_from(plan))
    else:
        plan.ledger.check_all()
    if planned.get("steps") != plan.total_steps:
        planned = {"budget": settings.budget, "steps": plan.total_steps}
    return plan, planned  # the budget as it was first written, such as 20m, stays known


def _write_down(plan: ComparisonPlan, budget: Mapping[str, Any]) -> None:
    """Leave plan.json, with the `budget` and the steps that it came to, and config.yaml in the folder."""
    storage.write_sealed(plan.root / PLAN, budget)
    storage.write_text(plan.root / storage.RUN_CONFIG, to_yaml(plan.settings))


def _either(before: Sequence[Part], now: Sequence[Part]) -> tuple[Part, ...]:
    """The parts that either call asked for, which config.yaml is to repeat; none named is all."""
    return tuple(part for part in PARTS if part in (*before, *now)) if before and now else ()


def _steps(draft: Draft, planned: Mapping[str, Any], emit: Emit) -> int:
    """Steps of each run. A budget in minutes is measured once: later calls take what is `planned`."""
    text = draft.settings.budget
    if text is None:
        if draft.needs_runs:
            alone = (
                "" if {"race", "downstream"} & set(draft.parts) else ", or --set variance.checkpoints=[start]"
            )
            raise UserError(
                "no budget: say how long each run is, as --budget 2000-steps, 5M-tokens, 7-epochs or "
                f"20m{alone}"
            )
        return 0
    if planned.get("budget") == text and planned.get("steps"):
        return int(planned["steps"])
    budget = Budget.parse(text)
    if budget.unit != "minutes":
        return draft.steps(budget)
    speed = _tokens_per_second(draft, emit)
    tokens = float(f"{budget.amount * 60 * speed:.2g}")
    emit(Note(f"--budget {text} is about {tokens:,.0f} tokens here, at {speed:,.0f} a second"))
    return draft.steps(Budget(tokens, "tokens"))


def _tokens_per_second(draft: Draft, emit: Emit) -> float:
    """What the baseline trains on in a second, by a few steps of it."""
    settings = draft.run_settings(draft.baseline, draft.settings.first_seed, draft.root, TIMED_STEPS)
    return time_steps(settings, emit).tokens_per_second


def _planned(root: Path) -> Mapping[str, Any]:
    """The budget that earlier calls turned into steps; empty where there was none."""
    path = root / PLAN
    try:
        return storage.read_sealed(path) if path.is_file() else {}
    except UserError:
        raise UserError(f"{path} is damaged: remove it and give --budget again") from None


def _made_from(plan: ComparisonPlan) -> dict[Path, str]:
    """What the comparison is made from, and what each is."""
    files = (value for task in plan.tasks for value in task.tasks.values() if isinstance(value, str))
    return plan.base.made_from | {Path(file): "task's data" for file in files if Path(file).exists()}


def _report(plan: ComparisonPlan, emit: Emit) -> Comparison:
    """All files of the report; `DivergedError`, once they are written, if nothing came of any item."""
    emit(Doing("writing the report"))
    results = results_of(plan)
    storage.write_json(plan.root / RESULTS, as_json(results))
    files = [plan.root / RESULTS, *write_report(plan.root, results)]
    _tell(results, files, emit)
    failures = [(plan.result(item) or {}).get("failed") for item in plan.items]
    if all(failures):
        raise DivergedError(f"nothing came of any run: {failures[0]}")
    return Comparison(plan.root, results)


# ---------------------------------------------------------------- words


def _describe(plan: ComparisonPlan, emit: Emit) -> None:
    settings = plan.settings
    rows = {
        "model": _model_line(plan),
        "data": f"{plan.base.store.root}, {plan.rows(plan.baseline):,} rows x {settings.run.sequence_length}",
        "parts": ", ".join(plan.parts),
        "strategies": "; ".join(arm.label for arm in plan.arms if not arm.control),
        "baseline": plan.baseline.label,
    }
    if plan.total_steps:
        tokens = plan.total_steps * plan.size * plan.base.stream.tokens_per_row
        rows["each run"] = f"{plan.total_steps:,} steps of {plan.size} rows, about {tokens:,.0f} tokens"
        rows["passes"] = "; ".join(f"{arm.label} {plan.passes(arm):.2f}" for arm in plan.arms)
        rows["seeds"] = ", ".join(map(str, plan.seeds))
    rows["in all"] = _work_line(plan, plan.items)
    if any(arm.control for arm in plan.arms):
        rows["control"] = ", ".join(arm.label for arm in plan.arms if arm.control)
    if plan.sweep:
        rows["sweep"] = f"{len(plan.sweep.points)} points of {', '.join(plan.sweep.axes)}"
    runtime = Runtime.resolve(settings.run.device, settings.run.precision, threads=settings.run.speed.threads)
    rows["device"] = where_line(runtime)
    emit(Facts("comparing masks", rows))
    caution_of_others(runtime, emit)
    for caution in cautions_of(plan):
        emit(caution)


def _work_line(plan: ComparisonPlan, items: Sequence[Item]) -> str:
    """What there is to do, by what takes the time."""
    kinds = Counter(item.kind for item in items)
    runs = kinds["race"] + kinds["sweep"]
    lines = [f"{counted(runs, 'run')} of {plan.total_steps:,} steps"] if runs else []
    if measurements := kinds["variance"]:
        gradients = measurements * plan.gradients_measured
        lines.append(f"{gradients:,} gradients of single rows in {counted(measurements, 'measurement')}")
    if kinds["downstream"]:
        lines.append(f"{counted(kinds['downstream'], 'fine-tuned model', 'fine-tuned models')}")
    return ", ".join(lines)


def _model_line(plan: ComparisonPlan) -> str:
    """What is trained, in a word."""
    return plan.base.name + ("" if plan.base.origin else ", from scratch")


def _tell(results: ComparisonResults, files: list[Path], emit: Emit) -> None:
    verdict, table = results.verdict, glance(results, Arms.of(results))
    if table is not None:
        title, most = f"held-out loss, {len(results.seeds)} seeds", 4  # columns, where there is little room
        short = Grid(title, table.header[:most], [row[:most] for row in table.rows])
        emit(Grid(title, table.header, table.rows, short))
    emit(Note(f"\n{verdict.headline}."))
    for sentence in verdict.sentences:
        emit(Note(f"- {sentence}"))
    if verdict.cost:
        emit(Note(verdict.cost))
    reports = [str(path) for path in files if path.suffix in (".json", ".html", ".md")]
    emit(Facts("done", {"report": ", ".join([*reports, "figures/"]), "repeat": results.command}))
    emit(events.NextStep(**vars(verdict.next_step)))
