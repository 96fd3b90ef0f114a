"""BERT's and RoBERTa's tokenization pipelines: what stands around a vocabulary."""

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}  # ids 0 to 4
LONGEST_WORD = 100  # WordPiece turns anything longer into [UNK], so nothing can be learned from it


def added_token(content: str) -> AddedToken:
    """A special token as BERT and RoBERTa declare it (RoBERTa's mask swallows the blank before it)."""
    return AddedToken(content, special=True, normalized=False, lstrip=content == "<mask>")


def wordpiece_tokenizer(vocabulary: dict[str, int], *, lowercase: bool) -> PreTrainedTokenizerFast:
    """BERT's pipeline around a vocabulary that has BERT's special tokens."""
    backend = Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD)
    )
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)  # accents go where capitals go
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    # The flags are for those who load the saved folder by BertTokenizer, which believes them alone.
    flags = {"do_lower_case": lowercase, "tokenize_chinese_chars": True, "strip_accents": None}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return wrap(backend, BERT, model_input_names=inputs, **flags)


def wrap(backend: Tokenizer, names: dict[str, str], **settings: Any) -> PreTrainedTokenizerFast:
    """A transformers tokenizer around a pipeline; `names` gives the special token for each role."""
    backend.add_special_tokens([added_token(token) for token in names.values()])
    roles = {f"{role}_token": added_token(token) for role, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles, **settings)
