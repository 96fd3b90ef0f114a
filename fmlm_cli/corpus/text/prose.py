"""From one docstring to its paragraphs of prose: no code, no tables, no mark-up."""

import functools
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence

Docstring = tuple[str, ...]  # its paragraphs


def words(text: str) -> frozenset[str]:
    """The words of a string, as a set to look things up in."""
    return frozenset(text.split())


_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "–": "-", "—": "--"})
_NESTED = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
_NAME = r"[`*]{0,3}[A-Za-z_][\w.*`\\]*(?:\[[\w., \[\]]*\])?"
_BULLET = re.compile(r"(?:[-*+•]|\(?\d{1,2}[.)]|\(?[a-z]\)|#\.)\s+")
_FIELD = re.compile(r"(?::\w[^:`]*:|@\w+(?: [\w*]+)?:)(?:\s+|$)")
_ARGUMENT = re.compile(rf"{_NAME}(?:\s*[,/]\s*{_NAME})*(?:\s*{_NESTED})?[`*]*\s*(?::|-{{2,3}})(?:\s+|$)")
_TYPED = re.compile(rf"{_NAME}(?:, {_NAME})*( ?): (?=\S)")
_UNDERLINE = re.compile(r"([=\-~^\"'*+#`.:_])\1{2,}")
_DIRECTIVE = re.compile(r"\.\.\s+([\w:-]+)::\s*(.*)")
_VERSIONED = re.compile(r"version\w+|deprecated")
_SPOKEN = words("note warning tip important caution attention hint danger seealso admonition error")
_TAG = re.compile(
    r"</?(?:Tip|a|b|br|code|div|em|i|li|ol|p|pre|span|strong|sub|sup|tt|ul?|small|img)(?:[\s/][^<>]*)?>|"
    r"<!--.*?-->"
)
_INLINE = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\[\[?`([^`]+)`\]\]?(?:\([^()\s]*\))?", r"`\1`"),  # [`Foo`] of Hugging Face
        (r"!?\[([^\[\]]+)\]\([^()\s]*\)", r"\1"),  # [text](address)
        (r":math:`\\?([A-Za-z]+)`", r"\1"),
        (r"(?::[\w+-]+)?:[\w+-]+:`[!~]?([^`<]+?)\s*(?:<[^`>]*>)?`", r"`\1`"),  # :role:`text <target>`
        (r"`([^`<]+?)\s*<[^`>]*>`_{0,2}", r"\1"),  # `text <address>`_
        (r"\s?\[(?:\d+|\w+\d{2,4}\w?|#\w*)\]_| \[\d\d?\](?=[.,;]|$)", ""),  # a reference to a footnote
        (r"`{1,2}~?[!.]?([^`]*)`{1,2}_{0,2}", r"\1"),
        (r"(?<![\w*])\*{1,2}([A-Za-z][^*]*?)\*{1,2}(?![\w*])", r"\1"),
        (r"\\([_*`|<>#])", r"\1"),
        (r"\b([A-Za-z]{3,})_(?=[\s.,;:)]|$)", r"\1"),  # a reference: name_
    )
)
_JUNK = re.compile(
    r"https?:|www\.|\{[\w.]*[:}]|%\(|\\|>>>|<<|={2,}|\$|\^|\|\w+\||@\w|/\w+/\w+/|::|`| # |^[\w.]+ = |"
    r"\b[Ff]rom [\w.]+ import |[\x00-\x1f\ud800-\udfff\ufffd]"
)
_SENTENCE = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!cf\.)(?<!vs\.)(?<!etc\.)\s+(?=[A-Z\"'(])")
_WORD = re.compile(r"[(\"'\[]*[A-Za-z]+(?:['/-][A-Za-z]+)*(?:'s?)?[)\]\"']*[.,;:!?]*[)\]\"']*")
_END = re.compile(r"[.!?][)\]\"']*$")
_DANGLING = re.compile(r"(?:[:,]|\b(?:and|or|the|an?|of|by|is|are|as|that|with|for|in))$")
_COMMON = words(
    "a an the of to in is are be for and or not on by with as that this it its if from which when can will "
    "may must should has have was were been used all any each at then than into only no but they you we "
    "there these does whether where such other between so one also how what some their more"
)


@functools.lru_cache(maxsize=2**13)  # packages repeat theirs endlessly
def clean_docstring(text: str) -> Docstring:
    """The paragraphs of English prose in a docstring, each one line without markup; may be none."""
    lines = inspect.cleandoc(text).translate(_QUOTES).split("\n")
    paragraphs = (_polished(paragraph) for paragraph in _paragraphs(_without_blocks(lines)))
    return tuple(paragraph for paragraph in paragraphs if paragraph)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _after_body(lines: list[str], at: int) -> int:
    """The index after the lines that belong to line `at` by being indented deeper."""
    depth = _indent(lines[at])
    at += 1
    while at < len(lines) and (not lines[at].strip() or _indent(lines[at]) > depth):
        at += 1
    return at


def _without_blocks(lines: list[str]) -> list[str]:
    """Put a blank line for doctests, fenced and literal code, and directives that hold no prose."""
    kept: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        text = line.strip()
        spoken = _spoken(text) if text.startswith("..") else None
        if text.startswith("```") and text.count("```") == 1:
            kept.append("")
            at = next(
                (i + 1 for i in range(at + 1, len(lines)) if lines[i].lstrip().startswith("```")), len(lines)
            )
        elif text.startswith((">>>", "In [")):
            kept.append("")
            at = next((i for i in range(at + 1, len(lines)) if not lines[i].strip()), len(lines))
        elif text == ".." or text.startswith(".. "):
            kept += ["", " " * _indent(line) + (spoken or "")]
            at = _after_body(lines, at) if spoken is None else at + 1
        elif text.endswith("::"):
            kept += [line.rstrip()[:-1], ""]
            at = _after_body(lines, at)
        else:
            kept.append(line)
            at += 1
    return kept


def _spoken(text: str) -> str | None:
    """What a directive's own line says if its body is prose, such as a note's; else None."""
    match = _DIRECTIVE.match(text)
    if match and match[1].lower() in _SPOKEN:
        return match[2]
    if match and _VERSIONED.fullmatch(match[1]):
        return match[2].partition(" ")[2]  # after the version's number
    return None


def _is_typed(text: str) -> bool:
    """Whether a line is the "name : type" of numpy's style (or "name: type"), without a description."""
    match = _TYPED.match(text)
    if not match or _END.search(text):
        return False
    words = text[match.end() :].lower().split()
    common = sum(1 for word in words if word in _COMMON)
    return common <= 2 if match[1] else common <= 1 and len(words) <= 4


def _item(lines: Sequence[str], at: int) -> str | None:
    """What a list item or a parameter's line says after its marker; None if line `at` is neither."""
    text = lines[at].strip()
    deeper = at + 1 < len(lines) and lines[at + 1].strip() and _indent(lines[at + 1]) > _indent(lines[at])
    if deeper and _is_typed(text):
        return ""  # the description stands below
    rest = text
    for marker in (_BULLET, _FIELD, _ARGUMENT):
        if match := marker.match(rest):
            rest = rest[match.end() :]
    return None if rest == text else rest


def _paragraphs(lines: Sequence[str]) -> Iterator[str]:
    """Join wrapped lines. A paragraph ends at a blank line, a change of indentation or the next list item."""
    current: list[str] = []
    depth = 0
    hanging = False  # whether the line before began an item, so that this one may be indented otherwise
    for at, line in enumerate(lines):
        text = _TAG.sub("", line).strip()
        ruled = bool(_UNDERLINE.fullmatch(text))
        if not text or ruled or text.startswith(("|", "+-", "+=", "#")):
            yield "" if ruled and len(current) == 1 else _joined(current)  # what is underlined is a heading
            current = []
            continue
        inside = bool(current) and not hanging and _indent(line) == depth
        item = (
            None if inside and not current[-1].endswith((".", ":", ";", ")", "!", "?")) else _item(lines, at)
        )
        if item is not None or not (inside or (current and _continues(current[-1], text, hanging))):
            yield _joined(current)
            current = []
        current.append(text if item is None else item)
        hanging = item is not None
        depth = _indent(line)
    yield _joined(current)


def _continues(before: str, text: str, hanging: bool) -> bool:
    """Whether a line indented otherwise goes on with the paragraph: below an item, or in mid-sentence."""
    return hanging or (len(before.split()) > 4 and text[0].islower() and not before.endswith((".", ":")))


def _joined(lines: Iterable[str]) -> str:
    text = " ".join(" ".join(lines).split())
    return re.sub(
        r"(?<=[A-Za-z]{2}-) (?=(?!and |or |to )[a-z])", "", text
    )  # "built- in": wrapped at a hyphen


@functools.lru_cache(maxsize=2**13)
def _polished(paragraph: str) -> str:
    """A paragraph without inline markup and sentences that are not prose; "" if too little is left."""
    if paragraph.count(" ") < 4:
        return ""
    for pattern, replacement in _INLINE if re.search(r"[`*_\[\\]", paragraph) else ():
        paragraph = pattern.sub(replacement, paragraph)
    sentences = _SENTENCE.split(paragraph.strip())
    kept = [sentence for sentence in sentences if not _JUNK.search(sentence)]
    if kept and (_DANGLING.search(kept[-1]) or kept[-1].count("(") > kept[-1].count(")")):
        kept.pop()  # it leads to code, a formula or a list
    text = " ".join(kept)
    if len(text) < len(paragraph) / 2 or not _is_prose(text):
        return ""
    if text.partition(" ")[0] in _COMMON:
        text = text[0].upper() + text[1:]
    return text if _END.search(text) else f"{text.rstrip(' ;-')}."


def _is_prose(text: str) -> bool:
    """Whether a paragraph reads like English: words rather than symbols, common ones among them."""
    words = text.split()
    plain = sum(1 for word in words if _WORD.fullmatch(word))
    common = sum(1 for word in words if word.lower() in _COMMON)
    least = 5 if _END.search(text) else 7
    starts = text[:1].isalpha() or text[:1] in "\"'("
    return (
        starts and len(words) >= least and plain >= 0.7 * len(words) and common >= max(1, 0.15 * len(words))
    )
