"""The last layer on the first token alone: the same outputs and gradients, or the model as it was."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from fmlm_cli.hub import quiet
from fmlm_cli.model.classification.first_token import shorten_last_layer
from tests.model.families import FAMILIES, LENGTH, VOCABULARY

BUILT_LIKE_BERT = {"bert", "roberta", "xlm-roberta", "camembert", "electra"}


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_and_gradients_stay_the_same(family: str) -> None:
    torch.manual_seed(0)
    with quiet():
        model = AutoModelForSequenceClassification.from_config(FAMILIES[family]())
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(5, VOCABULARY, (4, LENGTH), generator=generator)
    present = torch.ones_like(tokens)
    present[2, 10:] = 0
    present[3, 3:] = 0
    labels = torch.tensor([0, 1, 1, 0])

    def measure() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        model.eval().zero_grad()
        found = model(input_ids=tokens, attention_mask=present, labels=labels)
        found.loss.backward()
        return found.logits.detach(), {
            n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
        }

    logits, gradients = measure()
    names = list(model.state_dict())
    assert shorten_last_layer(model) == (family in BUILT_LIKE_BERT)
    short_logits, short_gradients = measure()
    torch.testing.assert_close(short_logits, logits, atol=1e-5, rtol=1e-4)
    assert short_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(short_gradients[name], gradient, atol=2e-5, rtol=1e-3, msg=name)
    assert list(model.state_dict()) == names


def test_the_last_layer_does_not_compute_the_rest() -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(FAMILIES["bert"]())
    assert shorten_last_layer(model)
    shapes = []
    model.bert.encoder.layer[-1].intermediate.register_forward_hook(lambda *x: shapes.append(x[1][0].shape))
    model(input_ids=torch.randint(5, VOCABULARY, (4, LENGTH)))
    assert shapes == [(4, 1, 16)]
