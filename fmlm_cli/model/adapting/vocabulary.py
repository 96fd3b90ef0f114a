"""More token ids for a model that there is."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from fmlm_cli.errors import UserError
from fmlm_cli.model.build import seeded

_PROBE = 8  # ids of a text on which the model is tried


@torch.no_grad()
def extend_embeddings(
    model: PreTrainedModel, size: int, pieces: Mapping[int, Sequence[int]], *, seed: int
) -> None:
    """Give a model `size` token ids at least; each new one begins as the mean of the ids it was split into.

    That holds for its input embedding, its output embedding where that is another, and its output bias, so
    that its logit is the mean of its pieces' logits. A model whose vocabulary is padded may have the rows
    already, and keeps those it has; a new row without pieces is drawn by `seed`. Weights grow in place, so
    that what is tied stays tied: transformers' `resize_token_embeddings` resizes the wrong layer of DeBERTa's
    newer head.

    Raises `UserError` for a model whose old logits would not stay as they are.
    """
    if not isinstance(model.get_input_embeddings(), nn.Embedding):
        raise _refused(model)
    rows = model.get_input_embeddings().num_embeddings
    untouched = [number for number in range(rows) if number not in pieces]
    before = _logits(model, untouched)
    if not before.numel():
        raise _refused(model)
    growing = list(_of_the_vocabulary(model, rows))
    if size > rows:
        for tensor in growing:
            _grow(tensor, size, float(getattr(model.config, "initializer_range", 0.02)), seed)
        _count_anew(model, rows, size)
    for tensor in growing:
        _begin_rows(tensor, pieces)
    after = _logits(model, untouched)
    near = max(1e-4, 4 * torch.finfo(model.dtype).eps) * float(before.abs().max())
    if after.shape[-1] != max(size, rows) or not torch.allclose(
        after[..., untouched], before[..., untouched], rtol=0, atol=near
    ):
        raise _refused(model)


def _begin_rows(tensor: nn.Parameter, pieces: Mapping[int, Sequence[int]]) -> None:
    """Make the rows of new ids the means of their pieces' rows, all taken from the old ones."""
    parts_of = {new: parts for new, parts in pieces.items() if len(parts)}  # the mean of none is not a number
    begun = [tensor[list(parts)].float().mean(0) for parts in parts_of.values()]
    for new, row in zip(parts_of, begun, strict=True):
        tensor[new] = row.to(tensor.dtype)


def _refused(model: PreTrainedModel) -> UserError:
    return UserError(
        f"a '{model.config.model_type}' model cannot be given new tokens: go on without --add-tokens and "
        "--extend-vocab"
    )


def _logits(model: PreTrainedModel, known_ids: Sequence[int]) -> Tensor:
    """What the model says of a short text of known ids; or nothing: float[1, tokens, vocabulary]."""
    training = model.training
    model.eval()
    middle = len(known_ids) // 2  # special ids stand at the ends
    ids = torch.tensor([known_ids[middle : middle + _PROBE]], device=model.device)
    try:
        with seeded(0):  # some families draw at every run
            logits: Tensor = model(ids).logits.float()
        return logits
    except (RuntimeError, TypeError, ValueError, IndexError):  # whatever it makes of weights that do not fit
        return torch.empty(1, 0, 0)
    finally:
        model.train(training)


def _of_the_vocabulary(model: PreTrainedModel, rows: int) -> Iterator[nn.Parameter]:
    """The parameters with a row for each token id, each once: embeddings, decoder, and a bias beside it."""
    embedding = model.get_input_embeddings()
    by_id: dict[int, nn.Parameter] = {}
    for name, module in model.named_modules():
        parameters = dict(module.named_parameters(recurse=False))
        has_rows = module in (embedding, model.get_output_embeddings())
        # Some give every layer an embedding of the tokens; positions may be as many as tokens by chance.
        has_rows |= isinstance(module, nn.Embedding) and "position" not in name
        # A head may keep the decoder's bias beside it: a module with a bias, and nothing to go with it but,
        # in transformers 5.17's newer DeBERTa, the embedding's own weight.
        others = [p for name, p in parameters.items() if name != "bias"]
        has_rows |= "bias" in parameters and all(p is embedding.weight for p in others)
        if has_rows:
            by_id |= {id(p): p for p in parameters.values() if p.shape[0] == rows}
    yield from by_id.values()


def _grow(tensor: nn.Parameter, size: int, spread: float, seed: int) -> None:
    """More rows for a weight, drawn by `seed` for where nothing better is known, or zeros more for a bias."""
    added = torch.zeros(size - tensor.shape[0], *tensor.shape[1:])
    if tensor.ndim > 1:
        added.normal_(0, spread, generator=torch.Generator().manual_seed(seed))
    tensor.data = torch.cat([tensor.data, added.to(tensor)])


def _count_anew(model: PreTrainedModel, rows: int, size: int) -> None:
    """Tell everything that knows the number of token ids the new one."""
    model.config.get_text_config().vocab_size = size
    for module in model.modules():
        if getattr(module, "vocab_size", None) == rows:
            module.vocab_size = size
        if isinstance(module, nn.Embedding):
            module.num_embeddings = module.weight.shape[0]
        elif isinstance(module, nn.Linear):
            module.out_features = module.weight.shape[0]
