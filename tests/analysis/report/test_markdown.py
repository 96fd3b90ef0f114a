"""What an independent reader of Markdown (markdown-it, which follows CommonMark) makes of any text."""

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from fmlm_cli.analysis.report.markdown import fenced, literal, table_lines
from fmlm_cli.analysis.report.parts import ReportTable

# No NUL, which Markdown replaces, and no surrogates, which no file can hold.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.text(
    "`\\<>&|*_[]()!#-+=~$1.: \n\taé\"'"
)
hostile = [
    "<img src=x onerror=alert(1)>",
    "`<img onerror>`",
    "a | b || c",
    "[x](javascript:alert(1)) ![y](z)",
    "line\n---\n<b>",
    "# no heading",
    "- no item",
    "1. no item",
    "12345) no item",
    "~~no~~ $x$ **no** __no__",
    "&lt;b&gt; &#60;",
    "```\n<b>\n```",
    "ends in \\",
    "===",
    "closed ##",
    "    code",
]
markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(tokens: list[Token]) -> str:
    """The text that a reader sees, which has to be text alone."""
    assert {token.type for token in tokens} <= {"text", "text_special"}
    return "".join(token.content for token in tokens)


def one_line(text: str) -> str:
    return " ".join(text.split())


def examples(function):  # type: ignore[no-untyped-def]
    for text in hostile:
        function = example(text)(function)
    return function


@examples
@given(texts)
def test_any_text_is_shown_as_it_is(text: str) -> None:
    for before, kind in (("", "paragraph_open"), ("# ", "heading_open"), ("- ", "bullet_list_open")):
        tokens = markdown.parse(before + literal(text))
        assert "".join(shown(token.children or []) for token in tokens if token.type == "inline") == one_line(
            text
        )
        assert not one_line(text) or tokens[0].type == kind
        assert {token.type for token in tokens} <= {
            *("inline", "paragraph_open", "paragraph_close", "heading_open", "heading_close"),
            *("bullet_list_open", "list_item_open", "list_item_close", "bullet_list_close"),
        }  # fmt: skip


@examples
@given(texts)
def test_any_text_is_one_cell(text: str) -> None:
    tokens = markdown.parse("\n".join(table_lines(ReportTable((text, "b"), [(text, "c"), ("d", text)]))))
    cells = [shown(token.children or []) for token in tokens if token.type == "inline"]
    assert cells == [one_line(text), "b", one_line(text), "c", "d", one_line(text)]


@examples
@given(texts)
def test_any_text_is_one_block(text: str) -> None:
    [block] = markdown.parse("\n".join(fenced(text, "yaml")))
    assert block.type == "fence"
    assert block.info == "yaml"
    assert block.content.rstrip("\n") == "\n".join(
        text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    ).rstrip("\n")
