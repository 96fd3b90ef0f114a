"""BERT's, RoBERTa's and XLM-R's tokenization pipelines: what stands around a vocabulary."""

from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}  # ids 0 to 4
LONGEST_WORD = 100  # WordPiece turns anything longer into [UNK], so nothing can be learned from it


def added_token(content: str) -> AddedToken:
    """A special token as BERT and RoBERTa declare it (RoBERTa's mask swallows the blank before it)."""
    return AddedToken(content, special=True, normalized=False, lstrip=content == "<mask>")


@dataclass(frozen=True)
class Spelling:
    """What a tokenizer makes of how a text is written, before it splits it: the same for all kinds.

    `strip_accents`: whether accents and all other non-spacing marks go, vowel signs with them; None: where
    capitals go, as in the published BERT models. `form`: the Unicode normal form that comes out; without any,
    text stays composed or decomposed as it is, but is decomposed where accents go.
    """

    lowercase: bool
    strip_accents: bool | None = False
    form: Literal["nfc", "nfkc"] | None = None

    def normalizer(self, *, as_bert: bool) -> normalizers.Normalizer | None:
        """The step of a pipeline, if there is any; `as_bert`: it also sets Han apart and drops controls."""
        if not as_bert and self == Spelling(lowercase=False):
            return None
        written = normalizers.BertNormalizer(
            clean_text=as_bert,
            handle_chinese_chars=as_bert,
            strip_accents=self.strip_accents,
            lowercase=self.lowercase,
        )
        if self.form is None:
            return written
        # Compatibility characters hold capitals and accents, hence first; decomposed for accents, hence last.
        first = [normalizers.NFKC()] if self.form == "nfkc" else []
        return normalizers.Sequence([*first, written, normalizers.NFC()])


def wordpiece_tokenizer(vocabulary: dict[str, int], spelling: Spelling) -> PreTrainedTokenizerFast:
    """BERT's pipeline around a vocabulary that has BERT's special tokens."""
    backend = Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD)
    )
    backend.normalizer = spelling.normalizer(as_bert=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    # The flags are for those who load the saved folder by BertTokenizer, which believes them alone. No flag
    # tells a normal form: there only AutoTokenizer has it.
    case, accents = spelling.lowercase, spelling.strip_accents
    flags = {"do_lower_case": case, "tokenize_chinese_chars": True, "strip_accents": accents}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return wrap(backend, BERT, model_input_names=inputs, **flags)


def unigram_tokenizer(pieces: list[tuple[str, float]], spelling: Spelling) -> PreTrainedTokenizerFast:
    """XLM-R's pipeline around pieces with their log probabilities, RoBERTa's special tokens first.

    All stretches of blanks are one blank, and words begin with the sign for it.
    """
    backend = Tokenizer(models.Unigram(pieces, unk_id=list(ROBERTA).index("unk"), byte_fallback=False))
    written = spelling.normalizer(as_bert=False)
    blanks = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    backend.normalizer = normalizers.Sequence([*([written] if written else []), *blanks])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    names = ROBERTA | {"bos": "<s>", "eos": "</s>"}
    return wrap(backend, names, model_input_names=["input_ids", "attention_mask"])


def wrap(backend: Tokenizer, names: dict[str, str], **settings: Any) -> PreTrainedTokenizerFast:
    """A transformers tokenizer around a pipeline; `names` gives the special token for each role."""
    backend.add_special_tokens([added_token(token) for token in names.values()])
    roles = {f"{role}_token": added_token(token) for role, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **roles, **settings)
