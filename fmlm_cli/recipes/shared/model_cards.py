"""What model cards are made of: Markdown with the Hub's front matter, and nothing of this machine's paths."""

import math
import os
import platform
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import EvalResult, ModelCardData

from fmlm_cli import __version__
from fmlm_cli.analysis.report.markdown import fenced, literal, table_lines
from fmlm_cli.analysis.report.parts import ReportTable
from fmlm_cli.config import HubSettings, Section, build, to_yaml

HERE = (
    "PATH/OF/THIS/FOLDER"  # stands in code for where the model lies; the repository's name where it is pushed
)
CITATION = """@misc{zheng2020fullyexplored,
  title = {Improving Self-supervised Pre-training via a Fully-Explored Masked Language Model},
  author = {Zheng, Mingzhi and Shen, Dinghan and Shen, Yelong and Chen, Weizhu and Xiao, Lin},
  year = {2020},
  eprint = {2010.06040},
  archivePrefix = {arXiv}
}"""
_ON_HUB = "hub:"  # begins the name of a data set of the Hub


def front_matter(
    title: str,
    pipeline_tag: str,
    model_type: str,
    asked: HubSettings,
    *,
    base_model: str | None,
    datasets: Sequence[str],
    results: Sequence[EvalResult],
) -> ModelCardData:
    """What the Hub lists a model by. `asked`: licence and language. `base_model`: a Hub name."""
    return ModelCardData(
        language=list(asked.language) or None,
        license=asked.license,
        library_name="transformers",
        pipeline_tag=pipeline_tag,
        tags=["fmlm", model_type],
        base_model=base_model,
        datasets=list(datasets) or None,
        model_name=" ".join(title.split()) if results else None,
        eval_results=[_in_lines(result) for result in results if math.isfinite(result.metric_value)] or None,
    )


def _in_lines(result: EvalResult) -> EvalResult:
    """A result whose names are of one line: within others, YAML would see the end of the front matter."""
    texts = {name: value for name, value in vars(result).items() if isinstance(value, str)}
    lines: dict[str, Any] = {name: " ".join(value.split()) for name, value in texts.items()}
    return replace(result, **lines)


def card(facts: ModelCardData, title: str, sections: Sequence[str]) -> str:
    """A whole card; empty sections are left out."""
    parts = [f"---\n{facts.to_yaml()}\n---\n", f"# {literal(title)}\n", *sections]
    return "\n".join(part for part in parts if part)


def section(title: str, content: str) -> str:
    """A section with its title; none where it has no content."""
    return f"## {title}\n\n{content}" if content else ""


def warned(cautions: Sequence[str]) -> str:
    """Cautions, each as a quotation."""
    return "\n".join(f"> **Note:** {literal(text)}.\n" for text in cautions)


def facts_table(rows: Mapping[str, str]) -> str:
    """Names and values as a table without a header."""
    return table(("", ""), list(rows.items())) if rows else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(table_lines(ReportTable(header, rows))) + "\n"


def block(text: str, kind: str) -> str:
    """A block of code."""
    return "\n".join(fenced(text, kind)) + "\n"


def cited(masking: str) -> str:
    """The paper of fully-explored masking, where that is how a model was masked."""
    return block(CITATION, "bibtex") if masking.startswith("fully-explored") else ""


def versions() -> str:
    """Of what made a model."""
    return (
        f"fmlm {__version__}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}"
    )


# ---------------------------------------------------------------- what is this machine's own


class Places:
    """The files and folders that settings name, which a card calls by their last names.

    `public`: names of the Hub among the settings, which stay.
    """

    def __init__(self, settings: Section, public: Collection[str]) -> None:
        self._settings, self._public = settings, set(public)
        named = {_path_in(text) for text in _texts(settings.model_dump(mode="json")) if self._is_place(text)}
        bare = {re.sub(r"[:@][^:@/]*$", "", path) for path in named}  # without its weight, share or step
        self._paths = sorted(named | bare, key=len, reverse=True)

    def settings(self) -> str:
        """A block of YAML, which are valid settings still."""
        named = build(type(self._settings), self._named(self._settings.model_dump()))
        return "Of files and folders there are the names alone.\n\n" + block(to_yaml(named), "yaml")

    def plain(self, text: str) -> str:
        """A sentence that may name some of the files and folders."""
        for path in self._paths:
            text = text.replace(path, _last(path))
        home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() fails for a user without one
        for folder, instead in ((str(Path.cwd()), ""), (home, f"~{os.sep}")):
            if folder.rstrip(os.sep):  # the root, as many a container's home is, is told by no path
                text = text.replace(f"{folder.rstrip(os.sep)}{os.sep}", instead)
        return text

    def _is_place(self, text: str) -> bool:
        name = _path_in(text)
        return os.sep in name and not (
            name.startswith(_ON_HUB) or name in self._public or name.rpartition("@")[0] in self._public
        )

    def _named(self, value: Any) -> Any:
        if isinstance(value, str) and self._is_place(value):
            path = _path_in(value)
            return value[: len(value) - len(path)] + _last(path)
        if isinstance(value, Mapping):
            return {key: self._named(part) for key, part in value.items()}
        return [self._named(part) for part in value] if isinstance(value, list | tuple) else value


def _path_in(text: str) -> str:
    """The path of `path` or `NAME=path`."""
    name, equals, path = text.partition("=")
    return path if equals and os.sep not in name else text


def _last(path: str) -> str:
    """The last name of a path, whatever it is written like."""
    name = Path(path).name
    return name if name not in ("", "..") else Path(path).resolve().name or "root"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def hub_sets(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """The data sets of the Hub among sources of text, by their repositories."""
    names = (str(source.get("name", "")) for source in sources)
    found = [name.removeprefix(_ON_HUB).split(":")[0] for name in names if name.startswith(_ON_HUB)]
    return list(dict.fromkeys(found))
