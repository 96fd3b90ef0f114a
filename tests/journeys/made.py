"""What lies in a person's folder before a journey: text, a model, a labelled set, all of them small and made here."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import generate_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def text_files(folder: Path, *, files: int = 3, between: str = "\n\n") -> None:
    """600 documents in text files; `between` them: what parts them there."""
    folder.mkdir()
    texts = generate_documents(600, seed=11)
    for number in range(files):
        (folder / f"part-{number + 1}.txt").write_text(between.join(texts[number::files]) + "\n")


def roberta(folder: Path, tokenizer: "PreTrainedTokenizerFast") -> None:
    """A masked LM of RoBERTa's kind with random weights, 128 positions."""
    import torch
    from transformers import RobertaConfig, RobertaForMaskedLM

    from fmlm_cli.corpus.tokenizer.loading import save_tokenizer
    from fmlm_cli.hub import quiet

    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=130,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        type_vocab_size=1,
    )
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        RobertaForMaskedLM(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def labelled_set(folder: Path, *, train: int = 64, dev: int = 32, test: int = 32) -> None:
    """train.jsonl, dev.jsonl and test.jsonl, whose texts have one of two first words by their label."""
    texts = iter(generate_documents(train + dev + test, seed=5))
    for name, rows in (("train", train), ("dev", dev), ("test", test)):
        with (folder / f"{name}.jsonl").open("w") as file:
            for number in range(rows):
                label, first = (("method", "We use"), ("background", "There is"))[number % 2]
                text = f"{first} {' '.join(next(texts).split()[:12])}"
                file.write(json.dumps({"text": text, "label": label}) + "\n")
