"""The two corpora of a store: the training text, and the validation text that has sources of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fmlm_cli.corpus.text.corpus import TextCorpus
from fmlm_cli.corpus.text.documents import ReadOptions
from fmlm_cli.corpus.text.files.saved import is_saved
from fmlm_cli.corpus.text.hub_set import HUB
from fmlm_cli.corpus.text.source import ReadStats
from fmlm_cli.corpus.text.splits import HeldOut
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Emit, Note


@dataclass(frozen=True)
class Corpora:
    """What is tokenized; `validation` is None where a share of the training text is validation text."""

    train: TextCorpus
    validation: TextCorpus | None

    @classmethod
    def find(
        cls, sources: Sequence[str], valid: Sequence[str], options: ReadOptions, emit: Emit
    ) -> "Corpora":
        """What the names stand for; no file of the validation text is one of the training text."""
        _check_of_use(options, [*sources, *valid])
        validation = TextCorpus.find(valid, options, emit) if valid else None
        return cls(
            TextCorpus.find(sources, options, emit, validation.paths if validation else ()), validation
        )

    @property
    def paths(self) -> list[Path]:
        """The files of both."""
        return [*self.train.paths, *(self.validation.paths if self.validation else ())]

    def held_out(self) -> HeldOut:
        """The documents of validation text of its own, which is read for this."""
        return HeldOut(self.validation.documents(ReadStats()) if self.validation else ())

    def describe(self, emit: Emit) -> None:
        """Tell what is read, how, and what is not."""
        for corpus, name in ((self.train, ""), (self.validation, "validation: ")):
            if corpus is not None:
                for sentence in corpus.describe():
                    emit(Note(f"{name}{sentence}"))
                for sentence in corpus.cautions():
                    emit(Caution(f"{name}{sentence}"))


def _check_of_use(options: ReadOptions, names: Sequence[str]) -> None:
    """Refuse a split or revision where nothing has any: it was meant for something else."""
    if options.revision is not None and not any(name.startswith(HUB) for name in names):
        raise UserError(
            "a revision is given, and no data set of the Hub (hub:OWNER/NAME): drop one or name one"
        )
    if options.split is not None and not any(map(_may_have_splits, names)):
        raise UserError(
            f"the split '{options.split}' is given, and {', '.join(names)} has none: name a folder of "
            "save_to_disk, or hub:OWNER/NAME"
        )


def _may_have_splits(name: str) -> bool:
    """Whether a source may be a data set with splits, or hold one."""
    folder = Path(name)
    if folder.is_dir():
        return any(is_saved(state.parent) for state in folder.glob("**/*.json"))
    return name.startswith(HUB) or bool(set("*?[") & set(name))
