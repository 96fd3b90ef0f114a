"""The predictions that a run shows at its end."""

from pathlib import Path

from fmlm_cli.corpus.rows.reading import RowReader
from fmlm_cli.corpus.store.reading import TokenStore
from fmlm_cli.model.checkpoints.pretrained import load_model
from fmlm_cli.model.masked_lm import MaskedLM
from fmlm_cli.recipes.pretraining.report.samples import sample_predictions
from fmlm_cli.recipes.shared.held_out import HeldOut


def test_what_stands_around_a_word_is_whole_words_of_its_document(
    small_encoder: Path, tiny_store: Path, documents: list[str]
) -> None:
    """Whose words fall into several tokens."""
    store = TokenStore.open(tiny_store, verify=())
    model = MaskedLM(load_model(small_encoder, name="encoder", announce=print))
    found = []
    for length in range(40, 65, 8):  # so that words lie across the ends of what is shown
        reader = RowReader(store, "validation", packing="documents", sequence_length=length)
        found += sample_predictions(model, store.tokenizer, HeldOut.of(store, reader, 8), examples=20)
    held_out = [" ".join(text.lower().replace(".", " . ").split()) for text in documents[:30]]
    assert len(found) > 10 and any(shown.before and shown.after for shown in found)
    for shown in found:
        around = " ".join(f"{shown.before} {shown.word} {shown.after}".replace(".", " . ").split())
        assert any(f" {around} " in f" {text} " for text in held_out), shown
        assert len(shown.guesses) == 3 and all(guess for guess, _ in shown.guesses)
