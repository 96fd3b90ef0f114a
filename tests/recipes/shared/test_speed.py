"""How a model attends and whether it is compiled: as asked, or as well as it can be had, and said."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch

from fmlm_cli.config import PretrainSettings, choices
from fmlm_cli.engine.runtime import Runtime
from fmlm_cli.errors import UserError
from fmlm_cli.events import Caution, Event, Note
from fmlm_cli.model.attention import BY_NAME, AttentionBackend, DocumentByDocument, MaskOnRows
from fmlm_cli.model.isolation import isolates_documents
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.shared import speed
from fmlm_cli.recipes.shared.speed import compile_as_asked
from tests.engine.ranks.fake_ranks import FakeRanks, on_ranks
from tests.model.backends import Rounded, RoundedLeaking
from tests.model.families import LENGTH, small_config, small_model

CPU = Runtime.resolve("cpu")
GPU = Runtime(torch.device("cuda"), torch.bfloat16)


def settle_attention(model: MaskedLM, runtime: Runtime, length: int, asked: str) -> str:
    return speed.settle_attention(model, runtime, length, asked, isolates_documents)


def said_of(backend: type[AttentionBackend], faults: str = "") -> str:
    return f"{backend.name}: {backend.meaning}{faults}"


@pytest.fixture
def model() -> MaskedLM:
    return MaskedLM(small_model(small_config("bert")))


def test_every_way_can_be_asked_for_by_its_name() -> None:
    assert choices(PretrainSettings, "speed.attention") == ("auto", *BY_NAME)


@pytest.mark.parametrize(
    ("asked", "backend"), [("auto", MaskOnRows), ("mask", MaskOnRows), ("documents", DocumentByDocument)]
)
def test_on_a_cpu_a_model_attends_as_asked(model: MaskedLM, asked: str, backend: Any) -> None:
    assert settle_attention(model, CPU, LENGTH, asked) == said_of(backend)
    assert type(model.attention) is backend


def test_what_cannot_be_had_is_refused(model: MaskedLM) -> None:
    with pytest.raises(UserError, match=r"^speed\.attention varlen: it needs CUDA; use auto$"):
        settle_attention(model, CPU, LENGTH, "varlen")
    deberta = MaskedLM(small_model(small_config("deberta")))
    with pytest.raises(
        UserError, match="documents: it does not keep documents apart in this 'deberta'; use auto"
    ):
        settle_attention(deberta, CPU, LENGTH, "documents")
    assert type(model.attention) is type(deberta.attention) is MaskOnRows


def faults(*found: str | None) -> Any:
    """As `try_backends` gives them, on a machine that is not there."""

    def tried(_model: MaskedLM, _device: Any, _length: int, backends: Any, *_: Any) -> Iterator[Any]:
        return zip(backends, found, strict=False)

    return tried


def test_on_a_gpu_it_is_said_why_it_is_not_a_faster_one(
    model: MaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "BACKENDS", (RoundedLeaking, Rounded, MaskOnRows))
    monkeypatch.setattr(speed, "try_backends", faults("it leaks", "it fails"))
    said = settle_attention(model, GPU, LENGTH, "auto")
    assert said == said_of(MaskOnRows, " (not rounded, leaking: it leaks; not rounded: it fails)")
    assert type(model.attention) is MaskOnRows
    monkeypatch.setattr(speed, "try_backends", faults("it leaks", None))
    assert settle_attention(model, GPU, LENGTH, "auto") == said_of(
        Rounded, " (not rounded, leaking: it leaks)"
    )
    assert type(model.attention) is Rounded
    monkeypatch.setattr(speed, "try_backends", faults(None))
    assert settle_attention(model, GPU, LENGTH, "auto") == said_of(RoundedLeaking)


def test_the_first_that_is_right_is_taken(model: MaskedLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "BACKENDS", (RoundedLeaking, Rounded, DocumentByDocument, MaskOnRows))
    assert settle_attention(model, CPU, LENGTH, "auto") == said_of(Rounded)


def fails() -> None:
    raise RuntimeError("no compiler")


def told_of(model: MaskedLM, asked: bool | Literal["auto"], runtime: Runtime, **given: Any) -> list[Event]:
    told: list[Event] = []
    options: dict[str, Any] = {"once": fails, "ragged": False, **given}
    compile_as_asked(asked, model, runtime, options["once"], told.append, ragged=options["ragged"])
    return told


def test_compiling_is_for_gpus_unless_asked_for(model: MaskedLM) -> None:
    assert told_of(model, False, GPU) == []
    assert told_of(model, "auto", CPU) == []
    [note] = told_of(model, True, CPU, once=lambda: None)
    assert isinstance(note, Note) and note.text.startswith("1 layer compiled as 0 graphs in ")


def test_what_cannot_be_compiled_is_said(model: MaskedLM) -> None:
    [caution] = told_of(model, "auto", GPU)
    assert caution == Caution("the model's layers are not compiled: no compiler", "not-compiled")
    with pytest.raises(UserError, match=r"^speed\.compile: no compiler; set it to auto or false$"):
        told_of(model, True, CPU)


def _on_two(
    models: list[MaskedLM], asked: bool | Literal["auto"], told: list[list[Event]]
) -> list[str | None]:
    """Two processes compile, the second of which has no compiler; what they are refused with."""

    def act(ranks: FakeRanks) -> str | None:
        runtime, once = replace(GPU, ranks=ranks), fails if ranks.rank else lambda: None
        try:
            compile_as_asked(asked, models[ranks.rank], runtime, once, told[ranks.rank].append, ragged=False)
        except UserError as error:
            return str(error)
        return None

    return on_ranks(2, act)


def test_all_are_compiled_or_none_is() -> None:
    """And the first, which tells, says of another one why not."""
    models, told = [MaskedLM(small_model(small_config("bert"))) for _ in range(2)], [list[Event](), []]
    assert _on_two(models, "auto", told) == [None, None]
    caution = Caution("the model's layers are not compiled: process 1: no compiler", "not-compiled")
    assert told == [[caution]] * 2
    assert all(module._compiled_call_impl is None for model in models for module in model.modules())
    refused = "speed.compile: process 1: no compiler; set it to auto or false"
    assert _on_two(models, True, told) == [refused] * 2


def test_where_each_has_a_part_one_that_fails_ends_all() -> None:
    """It has left the others in the middle of a forward, and would meet them there with another one."""
    runtime = replace(GPU, shard=True)
    with pytest.raises(UserError, match=r"^speed\.compile: no compiler; set it to false$"):
        told_of(MaskedLM(small_model(small_config("bert"))), "auto", runtime)
    [caution] = told_of(MaskedLM(small_model(small_config("albert"))), "auto", runtime)  # all find it at once
    assert isinstance(caution, Caution) and "cannot be told apart" in caution.text


def test_rows_of_many_lengths_are_not_compiled_for(model: MaskedLM) -> None:
    [caution] = told_of(model, "auto", GPU, ragged=True)
    assert isinstance(caution, Caution) and "rows differ in length" in caution.text
    model.attend_by(DocumentByDocument)  # on a flat row it does not matter
    [note] = told_of(model, "auto", GPU, once=lambda: None, ragged=True)
    assert isinstance(note, Note)
