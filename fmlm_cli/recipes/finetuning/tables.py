"""What fine-tuning found, in words: Markdown, LaTeX, the console's rows, and what to do next."""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fmlm_cli.analysis.report.checkpoints import HOW, Remedies, comparison_table, next_step
from fmlm_cli.analysis.report.findings.commands import beside, config_in
from fmlm_cli.analysis.report.findings.next_steps import FEW_SEEDS
from fmlm_cli.analysis.report.markdown import fenced, literal, next_lines, table_lines
from fmlm_cli.analysis.report.parts import ReportTable
from fmlm_cli.analysis.results.comparison import NextStep, TaskResult
from fmlm_cli.analysis.results.finetuning import CheckpointScores, Statistics, TaskScores
from fmlm_cli.config import LEAST_STEPS, to_yaml
from fmlm_cli.events import counted
from fmlm_cli.recipes.finetuning.plan import FinetunePlan
from fmlm_cli.recipes.finetuning.summary import SCORE
from fmlm_cli.recipes.shared.checkpoints import FINETUNED

_SPREAD = ("median", "mean", "sd", "best", "least")  # over seeds, in the order of the tables
_ENOUGH_SEEDS = 3  # of which a spread can be told at all
_GENTLER, _LONGER = 3, 3  # times lower a learning rate, times as many steps
# Characters that mean something to TeX, or come out as another in its default font.
_TEX = str.maketrans(
    {character: rf"\{character}" for character in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
)


@dataclass(frozen=True)
class Findings:
    """What a report tells. `compared` and `sentences`: of several checkpoints; empty for one."""

    plan: FinetunePlan
    scores: Sequence[CheckpointScores]
    compared: Mapping[str, TaskResult]
    sentences: Sequence[str]

    @property
    def subject(self) -> str:
        """What was fine-tuned."""
        first, *others = self.scores
        return f"{', '.join(own.name for own in others)} against {first.name}" if others else first.checkpoint

    @property
    def tasks(self) -> Iterator[tuple[str, CheckpointScores, str, TaskScores]]:
        """Every task of every checkpoint: (in words, checkpoint, task, scores)."""
        for task in self.plan.data:
            for own in self.scores:
                yield f"{task} {own.name}".rstrip(), own, task, own.tasks[task]

    def rows(self) -> Iterator[tuple[str, str, str, Statistics]]:
        """(task, split, measure, statistics) for every measure of the best points, dev before test."""
        for words, _, _, scores in self.tasks:
            for kind, splits in (("dev", scores.dev), ("test", scores.test)):
                for split, measures in splits.items():
                    for measure, over_seeds in measures.items():
                        if measure != SCORE or len(scores.measures) > 1:
                            shown = kind if split == kind else f"{kind} {split}"
                            yield words, shown, measure.replace("_", "-"), over_seeds


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def console_rows(found: Findings) -> Iterator[tuple[str, str]]:
    """Every measure, and its spread over seeds."""
    for name, split, measure, over_seeds in found.rows():
        label = f"{name} {measure}" + ("" if split == "dev" else f" ({split})")
        spread = (
            f"median {_percent(over_seeds.median)}, mean {_percent(over_seeds.mean)} ± "
            f"{_percent(over_seeds.sd)}, best {_percent(over_seeds.best)}, least {_percent(over_seeds.least)}"
        )
        yield label, spread if over_seeds.n > 1 else f"{_percent(over_seeds.mean)}, one seed"


# ---------------------------------------------------------------- what to know, and to do


def notes_of(found: Findings) -> list[str]:
    """What has to be known to read the numbers rightly."""
    length = found.plan.settings.max_length or 0
    notes = [note for name, _, _, scores in found.tasks for note in _notes(name, scores, length)]
    for own in found.scores:
        if own.glue_average is not None:
            average = _percent(own.glue_average)
            whose = f"{own.name}: " if own.name else ""
            notes.append(
                f"{whose}GLUE average of the mean development scores, WNLI left out as is usual: {average}"
            )
    return notes


def _notes(name: str, task: TaskScores, length: int) -> Iterator[str]:
    for split, number in task.cut.items():
        if number:
            yield f"{name}: {counted(number, 'sequence')} of {split} cut to {length} tokens"
    if task.not_above_baseline and task.baseline is not None:
        yield (
            f"{name}: {task.not_above_baseline} of {counted(task.n, 'seed')} no better than always naming "
            f"the most frequent class ({_percent(task.baseline[SCORE])})"
        )
    if task.diverged:
        every = counted(task.n + task.diverged, "seed")
        yield (
            f"{name}: {task.diverged} of {every} diverged, and no figure counts them: lower the learning rate"
        )
    if len(task.points) > 1:
        yield (
            f"{name}: {task.point} has the best median of {len(task.points)} points of the grid; choosing it "
            "on the development split makes its score there a little too good"
        )


def next_of(found: Findings) -> NextStep:
    """The one thing to do next."""
    plan, remedies = found.plan, _remedies(found)
    failed = _of_what_failed(found, remedies)
    if failed is not None:
        return failed
    if plan.compares:
        return next_step(found.compared, found.scores[0].name, remedies)
    if plan.settings.seeds < _ENOUGH_SEEDS:
        text = f"run {FEW_SEEDS} seeds, which show how much they differ"
        return NextStep(text, remedies.more_seeds(FEW_SEEDS))
    return NextStep("use it", remedies.ask(found.scores[0].name))


def _of_what_failed(found: Findings, remedies: Remedies) -> NextStep | None:
    """What to do about tasks that nothing was learnt of."""
    diverged = [name for name, _, _, task in found.tasks if not task.n]
    if diverged:
        return NextStep(
            f"lower the learning rate: every run diverged of {', '.join(diverged)}", remedies.lower_rate
        )
    unlearnt = {name: (own, task) for name, own, task, of in found.tasks if 2 * of.not_above_baseline > of.n}
    if not unlearnt:
        return None
    text = f"hardly anything was learnt of {', '.join(unlearnt)}"
    steps = min(_steps(own, task) for own, task in unlearnt.values())
    if steps >= LEAST_STEPS and found.plan.settings.grid == "none":
        return NextStep(f"try other learning rates: {text}", _anew(found, "grid", "--grid", "paper"))
    least = LEAST_STEPS if steps < LEAST_STEPS else _LONGER * steps
    longer = _anew(found, "longer", "--set", f"training.min_steps={least}")
    return NextStep(f"train for longer: {text} in {counted(steps, 'step')}", longer)


def _steps(own: CheckpointScores, task: str) -> int:
    """The most steps that a run of the task's best point made."""
    point = own.tasks[task].point
    return max(cell.steps for cell in own.cells if (cell.task, cell.point) == (task, point))


def _remedies(found: Findings) -> Remedies:
    """The command lines that go on from here."""
    plan = found.plan
    rates = [float(task.training["learning_rate"]) for _, _, _, task in found.tasks]
    grid = () if plan.settings.grid == "none" else ("--grid", "none")
    again = ["fmlm", "finetune", config_in(plan.root)]
    return Remedies(
        more_seeds=lambda seeds: shlex.join([*again, "--resume", "--seeds", str(seeds)]),
        lower_rate=_anew(found, "lower-rate", *grid, "--learning-rate", f"{min(rates) / _GENTLER:.1g}"),
        ask=lambda name: _ask(found, name),
        paths={own.name: own.checkpoint for own in found.scores},
    )


def _anew(found: Findings, how: str, *words: str) -> str:
    """The same with something otherwise, in a folder beside this one."""
    root = found.plan.root
    return shlex.join(["fmlm", "finetune", config_in(root), *words, "--out", beside(root, how)])


def _ask(found: Findings, name: str) -> str:
    """How to ask a checkpoint's model; of several tasks that of the first."""
    plan = found.plan
    task = next((task for task in plan.data if _has_model(plan, name, task)), next(iter(plan.data)))
    return ask_model(plan, name, task)


def _has_model(plan: FinetunePlan, name: str, task: str) -> bool:
    return (plan.model_folder(name, task) / FINETUNED).is_file()


def ask_model(plan: FinetunePlan, name: str, task: str) -> str:
    """The command that asks a task's model."""
    words = ["fmlm", "predict", "--from", str(plan.model_folder(name, task))]
    pair = ' --pair "another text"' if plan.data[task].task.pair else ""
    return f'{shlex.join(words)} "a text"{pair}'


# ---------------------------------------------------------------- documents


def markdown(found: Findings, notes: Sequence[str]) -> str:
    """The report."""
    lines = [f"# Fine-tuning of {literal(found.subject)}", ""]
    lines += [line for text in found.sentences for line in (f"**{literal(text)}**", "")]
    lines += next_lines(next_of(found))
    if found.compared:
        table = comparison_table(found.compared, found.scores[0].name)
        lines += [*table_lines(table), "", literal(_how(found)), ""]
    lines += _scores(found)
    lines += ["## Notes", "", *(f"- {literal(note)}" for note in notes), ""] if notes else []
    lines += ["![development score by seed](plots/scores.png)", "", "## All settings", ""]
    lines += [*fenced(to_yaml(found.plan.settings), "yaml"), ""]
    return "\n".join(lines)


def _how(found: Findings) -> str:
    """How the comparison was made."""
    of_grid = any(len(scores.points) > 1 for _, _, _, scores in found.tasks)
    chosen = (
        " Hyperparameters are chosen for each checkpoint by itself, on the development split."
        if of_grid
        else ""
    )
    on_dev = (
        " The epoch is chosen on the same development split, which flatters all checkpoints alike."
        if found.plan.settings.select == "best"
        and any(task.split != "test" for task in found.compared.values())
        else ""
    )
    return HOW + chosen + on_dev


def _scores(found: Findings) -> Iterator[str]:
    """Every measure's table, and that of the grid's points."""
    settings = found.plan.settings
    best = settings.select == "best"
    counts = "the epoch with the best development score" if best else "the last epoch"
    from_mnli = {name for name, _, _, scores in found.tasks if scores.begun_from_mnli}
    measures = [
        [name + " (from MNLI)" * (name in from_mnli), split, measure, *_figures(over_seeds)]
        for name, split, measure, over_seeds in found.rows()
    ]
    points = [
        [name, point + " (chosen)" * (point == scores.point), *_figures(of_point)]
        for name, _, _, scores in found.tasks
        for point, of_point in scores.points.items()
    ]
    yield from (
        f"In percent, over {counted(settings.seeds, 'seed')}. Of each run {counts} counts; sd is the "
        "standard deviation of the sample.",
        "",
        *table_lines(ReportTable(["task", "split", "measure", "seeds", *_SPREAD], measures)),
        "",
    )
    if len(points) > len(list(found.tasks)):
        yield from ("## Grid", "", "Scores that decide between points:", "")
        yield from (*table_lines(ReportTable(["task", "point", "seeds", *_SPREAD], points)), "")


def _figures(over_seeds: Statistics) -> list[str]:
    """How many seeds, and what `_SPREAD` names."""
    figures = over_seeds.median, over_seeds.mean, over_seeds.sd, over_seeds.best, over_seeds.least
    return [str(over_seeds.n), *map(_percent, figures)]


def latex(found: Findings) -> str:
    """Tables for a paper (booktabs): mean and standard deviation over seeds; differences of checkpoints."""
    seeds = counted(found.plan.settings.seeds, "seed")
    note = f"% fine-tuning of {tex(found.subject)}, {seeds}: mean, standard deviation, median, best"
    rows = []
    for name, split, measure, over in found.rows():
        mean, sd, median, best = map(_percent, (over.mean, over.sd, over.median, over.best))
        rows.append([tex(name), split, measure, rf"{mean} $\pm$ {sd}", median, best])
    header = ["task", "split", "measure", r"mean $\pm$ sd", "median", "best"]
    lines = [note, *_tabular("lllrrr", header, rows)]
    if found.compared:
        table = comparison_table(found.compared, found.scores[0].name)
        # TeX's own font has neither sign as a character.
        cells = [[tex(cell).replace("−", "$-$").replace("–", "--") for cell in row] for row in table.rows]
        lines += [
            "% differences in points, paired by seed",
            *_tabular("llrrrrrr", map(tex, table.header), cells),
        ]
    return "\n".join([*lines, ""])


def _tabular(columns: str, header: Iterable[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def tex(text: str) -> str:
    """One line that TeX sets as it stands, whatever it holds."""
    return " ".join(text.split()).translate(_TEX)
