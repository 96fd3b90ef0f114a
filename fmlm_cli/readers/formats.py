"""What a file is that is no UTF-8 text, told by its bytes, whatever its name says."""

from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from dataclasses import dataclass

from fmlm_cli.readers.compression import CODECS


@dataclass(frozen=True)
class Format:
    """A file format: its name, how its files begin (from byte `at` on), and what to do with them."""

    name: str
    begins: bytes | tuple[bytes, ...]
    remedy: str
    at: int = 0

    @property
    def refusal(self) -> str:
        """Why a file of it is not read."""
        return f"it seems to be {self.name}, not UTF-8 text: {self.remedy}"


def _wide(bits: int, endian: str, mark: bytes) -> Format:
    name = f"UTF-{bits}{endian}"
    spelt = {"LE": "little-endian", "BE": "big-endian"}[endian]
    remedy = f"convert it first (iconv -f {name} -t UTF-8)"
    return Format(f"UTF-{bits} text ({spelt})", mark, remedy)


# Those of 32 bits first: the mark of UTF-32LE begins with that of UTF-16LE.
_UTF_32_LE, _UTF_32_BE = _wide(32, "LE", BOM_UTF32_LE), _wide(32, "BE", BOM_UTF32_BE)
_UTF_16_LE, _UTF_16_BE = _wide(16, "LE", BOM_UTF16_LE), _wide(16, "BE", BOM_UTF16_BE)

_EXPORT = "export its text as .jsonl"
_UNPACK = "unpack it"
_FORMATS = (
    _UTF_32_LE,
    _UTF_32_BE,
    _UTF_16_LE,
    _UTF_16_BE,
    *(
        Format(
            codec.name,
            codec.begins,
            f"let its name end with {codec.ending}, or decompress it first ({codec.tool} -d)",
        )
        for codec in CODECS
    ),
    Format("zip (as .docx, .xlsx and .epub are)", (b"PK\x03\x04", b"PK\x05\x06"), _UNPACK),
    Format("7z", b"7z\xbc\xaf\x27\x1c", _UNPACK),
    Format("rar", b"Rar!\x1a\x07", _UNPACK),
    Format("tar", (b"ustar\0", b"ustar  \0"), _UNPACK, at=257),
    Format("parquet", b"PAR1\x15", "let its name end with .parquet"),
    Format("an Arrow file", (b"ARROW1\0\0", b"\xff\xff\xff\xff"), "let its name end with .arrow"),
    Format("an SQLite database", b"SQLite format 3\0", _EXPORT),
    Format("HDF5", b"\x89HDF\r\n\x1a\n", _EXPORT),
    Format("a NumPy array", b"\x93NUMPY", _EXPORT),
    Format("PDF", b"%PDF-", "extract its text first (pdftotext)"),
    Format("RTF", b"{\\rtf", "save it as plain text"),
    Format("an old Office document", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "save it as plain text"),
    Format("a program (ELF)", b"\x7fELF", "leave it out"),
    Format("a picture", (b"\x89PNG\r\n", b"\xff\xd8\xff"), "leave it out"),
)

_NULS = 0.01  # share of a block, from which on they are no slips in text
_SLIPS = 8  # NULs that may be slips even in a small file
_WIDE_NULS = 0.25  # share from which on no slips can account for them
_CONTROLS = 0.05  # the same of all control characters that text does not hold
# Not those by which some data sets part their fields, old terminals overstrike, and new ones are coloured.
_CONTROL_CHARACTERS = bytes({*range(0x20)} - {*b"\t\n\v\f\r\x1b"} - {*b"\x01\x02\b\x1c\x1d\x1e\x1f"})
_INVALID = 0.1  # share of bytes that are not UTF-8: text in Latin-1 has fewer, most wide text more
_LOOKED_AT = 1 << 16


def other_format(head: bytes) -> Format | None:
    """The format that a file's first bytes show, if it is one that is known and not plain text."""
    return next((known for known in _FORMATS if head.startswith(known.begins, known.at)), None)


def other_than_text(block: bytes) -> str | None:
    """Why some bytes cannot be text in UTF-8 or an encoding like it; None where nothing speaks against it.

    Text of 16 or 32 bits a character is mostly valid UTF-8, with NULs between its letters.
    """
    nuls = block.count(0)
    others = len(block) - len(block.translate(None, _CONTROL_CHARACTERS)) - nuls
    if nuls <= _NULS * len(block) and others <= _CONTROLS * len(block):
        return None
    found = _wide_text(block[:_LOOKED_AT])
    if found:
        return found.refusal
    if nuls <= min(_SLIPS, _WIDE_NULS * len(block)) and others <= _CONTROLS * len(block):
        return None
    return (
        f"{nuls / len(block):.0%} of the bytes are NULs, {others / len(block):.0%} other control "
        "characters, so it seems to be no text: leave it out, or take them out (tr -d '\\000')"
    )


def _wide_text(block: bytes) -> Format | None:
    """UTF-16 or UTF-32 without a byte-order mark.

    A character of 32 bits begins (or ends) with a 0 and the number of a plane. For one of 16 bits its two
    halves are tried in both orders: in the right one there are line ends and blanks.
    """
    values = [set(block[place::4]) for place in range(4)]
    planes = set(range(17))
    if values[3] == {0} and values[2] <= planes and any(block):
        return _UTF_32_LE
    if values[0] == {0} and values[1] <= planes and any(block):
        return _UTF_32_BE
    little, big = (block.decode(codec, errors="replace") for codec in ("utf-16-le", "utf-16-be"))
    found, text, other = (
        (_UTF_16_LE, little, big) if _blanks(little) > _blanks(big) else (_UTF_16_BE, big, little)
    )
    halves = text.count("\ufffd")  # of characters; a block's end may leave one
    if _blanks(text) <= _blanks(other) or halves > _NULS * len(text) + 1:
        return None
    return None if _is_text_with_slips(block, _blanks(text)) else found


def _is_text_with_slips(block: bytes, wide_blanks: int) -> bool:
    """Whether bytes are text in UTF-8 or the like among which some NULs stand, and not wide text.

    `wide_blanks`: the blanks and line ends in the latter. Wide Hindi, say, is valid UTF-8, with NULs in these
    alone: all are first halves, or all second ones. In UTF-8 most blanks stand without a NUL.
    """
    nuls = block.count(0)
    others = len(block) - len(block.translate(None, _CONTROL_CHARACTERS)) - nuls
    if nuls >= _WIDE_NULS * len(block) or others > _CONTROLS * len(block):
        return False
    if block.decode(errors="replace").count("\ufffd") > _INVALID * len(block):
        return False
    one_sided = nuls in (block[::2].count(0), block[1::2].count(0))
    narrow_blanks = block.count(b" ") + block.count(b"\n")
    return nuls <= _SLIPS or not one_sided or 2 * wide_blanks < narrow_blanks


def _blanks(text: str) -> int:
    return text.count(" ") + text.count("\n")
