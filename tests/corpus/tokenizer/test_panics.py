"""A tokenizer whose rules make Rust panic, which is no `Exception` in Python, ends in one line."""

import base64
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fmlm_cli.corpus.rows.sequences import encode
from fmlm_cli.corpus.tokenizer.encoding import Encoder
from fmlm_cli.corpus.tokenizer.extending import frequent_splits
from fmlm_cli.corpus.tokenizer.loading import load_tokenizer, special_tokens
from fmlm_cli.corpus.tokenizer.panics import failures_as_errors
from fmlm_cli.errors import UserError

SLOW = Regex("(a+)+$")  # takes 2**n steps on n times "a" and a "b": the library gives up
GOOD, BAD = "bb bb", "a" * 40 + "b"


def panicking(part: str, pattern: Regex = SLOW) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "b": 1}, unk_token="<unk>"))
    if part == "normalizer":
        backend.normalizer = normalizers.Replace(pattern, "x")
    else:
        backend.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
    backend.add_special_tokens([AddedToken(token, special=True) for token in ("<pad>", "<mask>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", mask_token="<mask>"
    )


@pytest.mark.parametrize("part", ["normalizer", "pre_tokenizer"])
@pytest.mark.parametrize(
    "use",
    [
        lambda tokenizer: Encoder(tokenizer)([GOOD, BAD, GOOD]),
        lambda tokenizer: encode(tokenizer, [GOOD, BAD], None, 9),
        lambda tokenizer: encode(tokenizer, [GOOD], [BAD], 9),
        lambda tokenizer: frequent_splits([f"{BAD} " * 9], tokenizer, 3),
    ],
)
def test_a_panic_is_one_line(
    part: str, use: Callable[[PreTrainedTokenizerFast], Any], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"cannot encode .*retry-limit.*: choose another tokenizer") as caught:
        use(panicking(part))
    assert "\n" not in str(caught.value)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_the_text_that_cannot_be_encoded_is_shown() -> None:
    with pytest.raises(UserError, match="the text at 'aaaaaaaa"):
        Encoder(panicking("normalizer"))([GOOD, BAD, GOOD])


def test_a_panic_on_loading_names_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = json.loads(panicking("normalizer").backend_tokenizer.to_str())
    charsmap = base64.b64encode(b"\xff").decode()
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": charsmap}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    for name in (tmp_path, tmp_path / "tokenizer.json"):
        with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer\.json, or a damaged one"):
            load_tokenizer(str(name))
    assert capfd.readouterr().err == ""


def test_a_tokenizer_that_makes_nothing_of_a_letter_is_refused() -> None:
    tokenizer = panicking("normalizer")
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("a", "")
    with pytest.raises(UserError, match=r"tokenizer 'given' makes nothing of the letter a"):
        special_tokens(tokenizer)


def test_errors_are_written_again_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    Encoder(panicking("normalizer"))([GOOD])
    os.write(2, b"said")
    assert capfd.readouterr().err == "said"


def test_threads_may_be_at_work_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Whichever ends first: nothing is seen until the last has ended, and all thereafter."""
    first, second = failures_as_errors("one"), failures_as_errors("two")
    with ThreadPoolExecutor(1) as other:
        first.__enter__()
        other.submit(second.__enter__).result()
        first.__exit__(None, None, None)
        os.write(2, b"a panic of the second")
        other.submit(second.__exit__, None, None, None).result()
    os.write(2, b"said")
    assert capfd.readouterr().err == "said"
