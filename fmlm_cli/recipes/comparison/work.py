"""The work of a comparison, item by item: runs, measurements and fine-tuning, by the recipes for each."""

import io
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fmlm_cli import storage
from fmlm_cli.analysis.results.finetuning import FinetuneResults, TaskScores
from fmlm_cli.analysis.results.plain import as_json
from fmlm_cli.analysis.statistics import ROWS_TO_TRUST
from fmlm_cli.config import FinetuneSettings, build
from fmlm_cli.engine.checkpoint import OPTIMIZER, STATE
from fmlm_cli.engine.records import evaluations_of
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.engine.step import DivergedError
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Progress, counted
from fmlm_cli.masking import Corruption
from fmlm_cli.model.checkpoints.pretrained import load_pretrained
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.comparison.arms import base_segments
from fmlm_cli.recipes.comparison.cautions import FEW_ROWS
from fmlm_cli.recipes.comparison.coverage import covered
from fmlm_cli.recipes.comparison.draft import held_out, request_of
from fmlm_cli.recipes.comparison.gradients import ChosenRows, choose_rows, measure_gradient_variance
from fmlm_cli.recipes.comparison.plan import COVERED_ROWS, ComparisonPlan, Item
from fmlm_cli.recipes.finetuning.run import finetune
from fmlm_cli.recipes.jobs.board import Board, Outcome
from fmlm_cli.recipes.pretraining.report.describe import FEW_PASSES
from fmlm_cli.recipes.pretraining.run import pretrain
from fmlm_cli.recipes.shared.checkpoints import check_model_files, keep_hashes
from fmlm_cli.recipes.shared.predictions import AT_ONCE
from fmlm_cli.recipes.shared.words import BUSY

Result = dict[str, Any]

MANY_LEFT_OUT = 0.1  # of the rows looked at: the others are another kind of text


def board_of(plan: ComparisonPlan, emit: Emit, processes: int) -> Board[Item, Result]:
    """The board that tells of a plan's items. What was said of all before: few passes, and a busy machine."""
    title = "held-out loss at the end"
    return Board(title, plan.ledger, outcome, emit, processes, said=(FEW_PASSES, BUSY))


def outcome(item: Item, result: Mapping[str, Any]) -> Outcome:
    """What an item found, in words."""
    text = ""
    if item.kind == "coverage":
        passes = counted(result["epochs"], "pass", "passes")
        words = f"{result['never_masked']:.1%} of the tokens never masked in {passes}"
    elif item.kind == "variance":
        words = f"{result['sequences']} rows measured"
    elif item.kind == "downstream":
        words = "diverged" if result["score"] is None else f"score {result['score']:.1%}"
    else:
        text = "diverged" if result["loss"] is None else f"{result['loss']:.4f}"
        words = f"held-out loss {text}"
    return Outcome(text, words, float(result["seconds"]))


class Worker:
    """Does the items of a plan, and tells its board of them."""

    def __init__(self, plan: ComparisonPlan, board: Board[Item, Result]) -> None:
        self.plan, self.board = plan, board
        run = plan.settings.run
        # In float32, which gradients are measured in.
        self.runtime = Runtime.resolve(run.device, "float32", threads=run.speed.threads)
        self._cautioned = False

    def do(self, item: Item) -> Result:
        """Work at an item; what it found."""
        begun = time.monotonic()
        work = {
            "coverage": self._coverage,
            "variance": self._variance,
            "race": self._run,
            "sweep": self._run,
            "rerun": self._run,
            "downstream": self._downstream,
        }
        result = work[item.kind](item)
        result.setdefault("seconds", time.monotonic() - begun)
        return result

    def _coverage(self, item: Item) -> Result:
        reader = self.plan.base.stream.sources[0].reader  # of `measured_store`
        passes = self.plan.covered_passes(item.arm)
        first_seed = self.plan.settings.first_seed
        return dict(as_json(covered(item.arm.strategy, reader, passes, COVERED_ROWS, first_seed)))

    # ---------------------------------------------------------------- gradient variance

    def _variance(self, item: Item) -> Result:
        """On rows of `measured_store`, while a step of the race mixes the gradients of several stores."""
        plan, model = self.plan, self._model(item.subject)
        request, segments = request_of(plan.settings), base_segments(plan.settings)
        reader = plan.base.stream.sources[0].reader
        seed = plan.seed_of_measurement(item)
        measured_rows = choose_rows(reader, segments, request, seed=seed)
        self._caution_about(measured_rows, request.sequences, 2 * segments)
        self.board.hear(Progress("variance", 0, request.sequences, "rows"))
        records = measure_gradient_variance(
            model,
            reader,
            plan.measured_store,
            unit=plan.settings.variance.unit,
            segments=segments,
            corruption=corruption_of(plan, item.corruption),
            request=request,
            seed=seed,
            device=self.runtime.device,
            progress=lambda n: self.board.hear(Progress("variance", n, request.sequences, "rows")),
        )
        target = plan.measured(item)
        target.parent.mkdir(parents=True, exist_ok=True)
        with storage.complete_file(target) as file:
            packed = io.BytesIO()
            np.savez(packed, **records.to_arrays())  # type: ignore[arg-type]  # its stub takes the names for options
            file.write_bytes(packed.getvalue())
        step = {"start": 0, "early": plan.early_step, "late": plan.total_steps}[item.subject]
        return {
            "step": step,
            "loss": self._loss(model),
            "sequences": len(records.sequences),
            "left_out": measured_rows.left_out,
            "looked_at": measured_rows.looked_at,
        }

    def _caution_about(self, measured_rows: ChosenRows, wanted: int, least: int) -> None:
        """Say once, for all measurements are on rows of one kind, that these are not the ones asked for."""
        few = len(measured_rows) < wanted
        if self._cautioned or (not few and measured_rows.left_out <= MANY_LEFT_OUT * measured_rows.looked_at):
            return
        self._cautioned = True
        fewer = f", so that {len(measured_rows)} are measured, not {wanted}" if few else ""
        unlike_planned = len(measured_rows) < ROWS_TO_TRUST <= wanted
        self.board.emit(
            Caution(
                f"gradient variance: {measured_rows.left_out} of {measured_rows.looked_at} rows have fewer "
                f"than {least} maskable tokens and are left out{fewer}"
                f"{f': {FEW_ROWS}' if unlike_planned else ''}"
            )
        )

    def _model(self, at: str) -> MaskedLM:
        """The baseline's model before, early in, or after its first run."""
        plan = self.plan
        if at == "start":
            return plan.base.model.to(self.runtime.device)
        folder = self.early_model if at == "early" else self._first_run / "final"
        if not folder.is_dir():
            raise UserError(
                f"{folder} is no longer there, and gradient variance is to be measured on it: leave '{at}' "
                "out of variance.checkpoints, or choose another --out"
            )
        check_model_files(folder)
        trusted = plan.settings.run.model.trust_remote_code
        loaded = load_pretrained(folder, name=str(folder), trust_remote_code=trusted, seed=0)
        return MaskedLM(loaded.model).to(self.runtime.device)

    def _loss(self, model: MaskedLM) -> float | None:
        """On the same held-out tokens as in the race."""
        if not self.plan.comparable:
            return None
        evaluation = held_out(self.plan, AT_ONCE)
        if not evaluation.has_targets:
            return None
        return evaluation.run(model, self.runtime).record["eval_loss"]

    @property
    def early_model(self) -> Path:
        """Where the baseline's model after a tenth of its first run is kept."""
        return self.plan.root / "variance" / "early-model"

    @property
    def _first_run(self) -> Path:
        return self.plan.root / "race" / self.plan.baseline.folder / f"seed-{self.plan.settings.first_seed}"

    # ---------------------------------------------------------------- runs

    def _run(self, item: Item) -> Result:
        settings, folder = self.plan.settings_of(item), self.plan.run_folder(item)
        early = (self.plan.early_step,) if folder == self._first_run else ()
        failed = ""
        try:
            records = pretrain(settings, resume=True, keep_steps=early, emit=self.board.hear).records
        except DivergedError as error:
            failed = str(error)
        if early:
            self._keep_early_model()
        if failed:
            return {"loss": None, "failed": failed}
        storage.remove(folder / "checkpoints")  # a finished run has no use for them
        assert self.plan.base.main_evaluation is not None
        return _course(records, self.plan.base.main_evaluation)

    def _keep_early_model(self) -> None:
        """Keep the model of the first run's early checkpoint; that goes when the run has ended."""
        run = storage.RunDirectory(self._first_run)
        source = run.checkpoints / f"step-{self.plan.early_step}"
        if self.early_model.is_dir() or not (source / STATE).is_file():
            return
        with storage.complete_folder(self.early_model) as target:
            shutil.copytree(
                source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(STATE, OPTIMIZER)
            )
            keep_hashes(target)

    def _downstream(self, item: Item) -> Result:
        run = self.plan.run_folder(item)
        if not storage.RunDirectory(run).is_finished:
            raced = next(i for i in self.plan.possible("race") if self.plan.run_folder(i) == run)
            if (self.plan.result(raced) or {}).get("loss") is not None:
                raise UserError(
                    f"{run / 'final'} is no longer there to be fine-tuned: remove "
                    f"{self.plan.record(raced).path}, and --resume trains it again"
                )
            return {"score": None, "failed": "the run that it begins from diverged"}
        folder = self.plan.root / item.name
        try:
            report = finetune(
                finetune_settings(self.plan, item, run, folder), resume=True, emit=self.board.hear
            )
        except DivergedError as error:
            return {"score": None, "failed": str(error)}
        assert report is not None and isinstance(report.results, FinetuneResults)  # of one checkpoint
        storage.remove(folder / "models")  # only what they score is wanted
        (scores,) = report.results.tasks.values()
        return _scores(scores)


def finetune_settings(plan: ComparisonPlan, item: Item, run: Path, folder: Path) -> FinetuneSettings:
    """What a downstream item asks of `finetune`, from a run, into a folder."""
    downstream, base = plan.settings.downstream, plan.settings.run
    task = next(task for task in plan.tasks if task.name == item.subject)
    tree = {
        "checkpoint": str(run),
        "out": str(folder),
        "tasks": {name: value for name, value in task.tasks.items() if value is not None},
        "training": downstream.training.model_dump(),
        "seeds": downstream.seeds,
        # The same for all arms: heads and order are paired too.
        "first_seed": item.seed * downstream.seeds,
        "select": downstream.select,
        "max_length": downstream.max_length,
        "trust_remote_code": base.model.trust_remote_code,
        "device": base.device,
        "precision": base.precision.removesuffix("-weights"),  # fine-tuning knows autocast alone
    }
    return build(FinetuneSettings, tree)


def corruption_of(plan: ComparisonPlan, name: str) -> Corruption:
    """What becomes of masked tokens where gradient variance is measured."""
    if name == "mask-only":
        return Corruption(mask=1.0, random=0.0, keep=0.0)
    return Corruption(**plan.settings.run.masking.corruption.model_dump())


def _course(records: Any, evaluation: str) -> Result:
    """A finished run's losses on a held-out text by tokens forwarded, and what it took."""
    curve = evaluations_of(records)[evaluation]
    logged = [record for record in records if "learning_rate" in record]
    at = [0, *(record["step"] for record in logged)]
    tokens = [0, *(record["tokens"] for record in logged)]
    steps = [int(record["step"]) for record in curve]
    speeds = [record["tokens_per_second"] for record in logged]
    return {
        "loss": float(curve[-1]["eval_loss"]),
        "unigram_loss": float(curve[-1]["unigram_loss"]),
        "steps": steps,
        "tokens": [round(t) for t in np.interp(steps, at, tokens).tolist()],
        "losses": [float(record["eval_loss"]) for record in curve],
        "tokens_per_second": float(np.median(speeds)),
    }


def _scores(task: TaskScores) -> Result:
    """A task's score: on its test split where that has labels, else on its development split."""
    of_test = task.test.get("test", {}).get("score")
    test = None if of_test is None else of_test.mean
    score = task.mean if test is None else test
    return {
        "measures": list(task.measures),
        "dev": task.mean,
        "test": test,
        "split": "dev" if test is None else "test",
        "score": score,
    }
