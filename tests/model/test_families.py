"""Every masked LM in transformers: which run with the head on masked positions only, and which are refused."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForMaskedLM, PreTrainedModel

from fmlm_cli.errors import UserError
from fmlm_cli.hub import quiet
from fmlm_cli.model.isolation import isolates_documents
from fmlm_cli.model.masked_lm import MaskedLM
from tests.model.families import (
    FAMILIES,
    LENGTH,
    MASKED_LM_TYPES,
    VOCABULARY,
    masked_logits,
    small_config,
    small_model,
)

# The head runs on masked positions only. `ISOLATED`: packed documents also stay apart; the others run
# unpacked.
ISOLATED = [
    "albert",
    "bert",
    "big_bird",
    "camembert",
    "data2vec-text",
    "deberta",
    "deberta-v2",
    "distilbert",
    "electra",
    "ernie",
    "esmc",
    "eurobert",
    "gte",
    "ibert",
    "jina_embeddings_v3",
    "luke",
    "megatron-bert",
    "modernbert",
    "mpnet",
    "nomic_bert",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roc_bert",
    "roformer",
    "squeezebert",
    "tapas",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
]
UNPACKED = [
    "convbert",
    "esm",
    "flaubert",
    "fnet",
    "funnel",
    "layoutlm",
    "longformer",
    "mobilebert",
    "neomme",
    "nystromformer",
    "ultrabert",
    "xlm",
    "yoso",
]
WHOLE_HEAD: list[str] = []
# The decoder stays a part of the head: something is added to what it gives, or its weight is used without it.
WITH_DECODER = ["esm", "mobilebert"]
REFUSED = {
    "bart": "an encoder with a decoder",
    "mbart": "an encoder with a decoder",
    "mvp": "an encoder with a decoder",
    "modernvbert": "more than text",
    "ultravbert": "more than text",
    "mra": "does not see the tokens after",  # its attention needs a CUDA kernel
    "perceiver": "logits",  # as many as it has positions, however many tokens there are
    "reformer": "does not train on rows of 8 tokens",  # only on rows of one length
}


def make(model_type: str) -> PreTrainedModel:
    with quiet():
        return small_model(small_config(model_type))


def state_of(model: nn.Module) -> dict[str, Any]:
    """Everything that trying something may not change."""
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "attention": [getattr(module, "attention_type", None) for module in model.modules()],
        "requires_grad": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad is not None for parameter in model.parameters()],
        "random": torch.random.get_rng_state(),
    }


def gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(before: Any, after: Any) -> None:
    assert before["attention"] == after["attention"]  # BigBird's kind
    for name in before.keys() - {"attention"}:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)


def test_the_table_names_every_type_once() -> None:
    told = [*ISOLATED, *UNPACKED, *WHOLE_HEAD, *REFUSED]
    assert len(told) == len(set(told))
    assert set(MASKED_LM_TYPES) <= set(told)  # an older transformers lacks some


@pytest.mark.parametrize("model_type", MASKED_LM_TYPES)
def test_each_type_does_what_the_table_says(model_type: str) -> None:
    pretrained = make(model_type)
    before = state_of(pretrained)
    if model_type in REFUSED:
        with pytest.raises(UserError, match=REFUSED[model_type]) as refused:
            MaskedLM(pretrained)
        assert f"'{model_type}'" in str(refused.value)
        assert "\n" not in str(refused.value)
        return
    model = MaskedLM(pretrained)
    isolates = isolates_documents(model, LENGTH)
    assert_same(before, state_of(pretrained))
    assert model.whole_head is (model_type in WHOLE_HEAD)
    assert (model.head.decoder is None) is (model_type in WITH_DECODER)
    assert isolates is (model_type in ISOLATED)


@pytest.mark.parametrize("model_type", [name for name in MASKED_LM_TYPES if name not in REFUSED])
def test_each_type_trains_on_padded_rows_as_the_stock_model_does(model_type: str) -> None:
    model = MaskedLM(make(model_type)).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(7, VOCABULARY, (2, LENGTH), generator=generator)
    segments = torch.ones_like(ids)
    segments[1, 15:] = 0
    ids[segments == 0] = model.pretrained.config.pad_token_id or 0
    positions = torch.arange(LENGTH).expand_as(ids) * segments
    index = torch.tensor([0, 5, LENGTH - 1, LENGTH, LENGTH + 14])
    with quiet():
        stock = model.pretrained(input_ids=ids, attention_mask=segments).logits.flatten(0, 1)[index]
        logits = masked_logits(model, ids, positions, segments, index, alone=True)
    scale = max(1.0, float(stock.detach().abs().max()))
    torch.testing.assert_close(logits, stock, rtol=0, atol=2e-5 * scale)
    targets = torch.arange(10, 10 + len(index))
    labels = torch.full_like(ids, -100)
    labels.view(-1)[index] = targets
    with quiet():
        theirs = model.pretrained(input_ids=ids, attention_mask=segments, labels=labels).loss
    mine = F.cross_entropy(logits, targets)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    got, wanted = gradients(model, mine), gradients(model, theirs)
    assert got.keys() == wanted.keys()
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    rounding = 1e-4 if model_type == "mobilebert" else 1e-5  # it has no norms, so its gradients are steep
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-4, atol=rounding * largest, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_gives_the_same_logits(family: str, tmp_path: Path) -> None:
    model = MaskedLM(small_model(FAMILIES[family]())).eval()
    ids = torch.arange(5, 5 + LENGTH)[None]
    model.pretrained.save_pretrained(tmp_path)
    with quiet():
        stock = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    again = MaskedLM(copy.deepcopy(stock)).eval()
    index = torch.arange(0, LENGTH, 3)
    ones = torch.ones_like(ids)
    with torch.no_grad():
        wanted = masked_logits(model, ids, ids - 5, ones, index, alone=True)
        assert torch.equal(masked_logits(again, ids, ids - 5, ones, index, alone=True), wanted)
        torch.testing.assert_close(stock(input_ids=ids).logits[0, index], wanted, rtol=1e-5, atol=1e-4)


class AveragingHead(nn.Module):
    """A head that looks at all positions of a row."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.head(hidden - hidden.mean(1, keepdim=True))


class WholeRowsOnly(AveragingHead):
    """A head that does not run on fewer positions than there are."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if hidden.shape[1] < 8:
            raise RuntimeError("too short")
        return self.head(hidden)


@pytest.mark.parametrize("kind", [AveragingHead, WholeRowsOnly])
def test_a_head_that_needs_all_positions_runs_on_all(kind: type[AveragingHead]) -> None:
    pretrained = small_model(FAMILIES["bert"]())
    pretrained.cls = kind(pretrained.cls)
    before = state_of(pretrained)
    model = MaskedLM(pretrained)
    assert_same(before, state_of(pretrained))
    assert model.whole_head
    ids = torch.arange(5, 5 + 2 * LENGTH).view(2, LENGTH)
    ones, index = torch.ones_like(ids), torch.tensor([3, LENGTH + 1])
    model.eval()
    with torch.no_grad():
        got = masked_logits(model, ids, (ids - 5) % LENGTH, ones, index, alone=True)
        wanted = pretrained(input_ids=ids).logits.flatten(0, 1)[index]
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert masked_logits(model, ids, (ids - 5) % LENGTH, ones, index[:0], alone=True).shape == (0, VOCABULARY)
    # Such a head mixes the documents of a row, so they may not be packed.
    assert isolates_documents(model, LENGTH) is (kind is WholeRowsOnly)


class NeedsPictures(nn.Module):
    """A base model's embeddings that do not run on ids alone."""

    def forward(self, **inputs: Any) -> torch.Tensor:
        raise ValueError("You have to specify\npixel_values")


def test_what_does_not_run_on_ids_alone_is_refused_in_one_line() -> None:
    pretrained = small_model(FAMILIES["bert"]())
    pretrained.bert.embeddings = NeedsPictures()
    with pytest.raises(UserError, match=r"'bert' .*You have to specify pixel_values"):
        MaskedLM(pretrained)


def test_half_precision_is_judged_without_its_rounding() -> None:
    model = MaskedLM(small_model(FAMILIES["bert"]()).to(torch.bfloat16))
    assert not model.whole_head
    assert isolates_documents(model, LENGTH)
    assert model.pretrained.dtype == torch.bfloat16
