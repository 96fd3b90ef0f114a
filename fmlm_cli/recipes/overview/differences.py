"""In which settings runs differ, and what to call them by that."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fmlm_cli.config import PretrainSettings, deciding, setting_names

# Of those that decide no result as they are written: what they name does.
_TOLD_ALL_THE_SAME = ("data.stores", "data.replay", "model.checkpoint", "text.sources")
_STRATEGY = "masking.strategy"
_OF_STRATEGY = tuple(f"masking.{name}" for name in ("segments", "rate", "scope", "masks_per_sequence"))
_OPTIONS = "masking.options"  # names of the user's own
_OF_MODEL = ("model.name", "model.checkpoint")  # one of them says which model it is
_VALUES_ALONE = (_STRATEGY, *_OF_MODEL)  # which need no name before them
_SHORTENED = 24  # letters of a value in a label
_MOST = 4  # settings in one


def differing_settings(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the settings that decide results and are not the same in all runs, in the schema's order."""
    names = dict.fromkeys(name for settings in runs for name in settings)
    differing = [n for n in names if _counts(n) and any(s.get(n) != runs[0].get(n) for s in runs)]
    return [name for name in differing if not (name in _OF_STRATEGY and _follows_from_strategy(name, runs))]


def _follows_from_strategy(name: str, runs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether runs of one strategy have one value of a setting: then it was not chosen, as a rule."""
    pairs = {(shown(run.get(_STRATEGY)), shown(run.get(name))) for run in runs}
    return len(pairs) == len({strategy for strategy, _ in pairs})


def _counts(name: str) -> bool:
    return name in _TOLD_ALL_THE_SAME or not any(
        name == free or name.startswith(f"{free}.") for free in _FREE
    )


_FREE = set(setting_names(PretrainSettings)) - set(deciding(PretrainSettings())) - {_OPTIONS}


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Each by its last part (`learning_rate`) where no other has that."""
    last = [name.rpartition(".")[2] for name in names]
    return {name: part if last.count(part) == 1 else name for name, part in zip(names, last, strict=True)}


def shown(value: Any) -> str:
    """A value in a table; of paths what tells them apart, as a rule."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    if isinstance(value, str) and "/" in value:
        return Path(value).name or value
    return (
        f"{value:g}"
        if isinstance(value, float)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )


def labels_of(paths: Sequence[str], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What to call runs in a legend: by what differs, and by their folders' names where that is no name."""
    folders = _folder_names(paths)
    if len(runs) == 1:
        return folders
    names = short_names(differing_settings(runs))
    labels = []
    for settings in runs:
        labels.append(", ".join(in_words(settings, names)[:_MOST]))
    return [
        label if label and labels.count(label) == 1 else f"{folder}: {label}".removesuffix(": ")
        for label, folder in zip(labels, folders, strict=True)
    ]


def in_words(settings: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """What a run has of some settings, each in a word or two; `names`: their short ones."""
    return [
        _part(short, settings.get(name), alone=name in _VALUES_ALONE)
        for name, short in names.items()
        if name not in _OF_MODEL or settings.get(name) is not None
    ]


def _part(name: str, value: Any, *, alone: bool) -> str:
    text = printable(shown(value))
    text = text if len(text) <= _SHORTENED else f"{text[: _SHORTENED - 3]}..."
    return text if alone and value is not None else f"{name} {text}"


def _folder_names(paths: Sequence[str]) -> list[str]:
    """Their last parts, or the whole paths where those are not all different."""
    last = [Path(path).resolve().name for path in paths]
    return [printable(name) for name in (last if len(set(last)) == len(last) else paths)]


def printable(name: str) -> str:
    r"""A name with what a picture cannot hold (\x1b, half characters) written out."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)
