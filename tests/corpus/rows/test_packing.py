"""Packing against rows built one token at a time."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fmlm_cli.corpus.rows import packing
from fmlm_cli.corpus.rows.packing import Frame, Packing, RowPlan, plan_rows

Token = tuple[int, int]  # (document, place in it)
Piece = list[Token]

PACKINGS: tuple[Packing, ...] = ("documents", "concat", "none")

_frames = st.builds(Frame, st.integers(0, 2), st.integers(0, 2), st.booleans())
# short and long documents mixed: a few long ones among many that fit into a row several times
_lengths = st.lists(st.one_of(st.integers(1, 8), st.integers(1, 60)), max_size=40)
_room = st.integers(1, 24)  # positions in a row beside the special tokens

BERT = Frame(1, 1, True)


def plan_of(lengths: list[int], kind: Packing, room: int, frame: Frame) -> RowPlan:
    return plan_rows(np.array(lengths, np.int64), kind, room + frame.size, frame)


def stretches(plan: RowPlan) -> Iterator[tuple[int, Piece, int, bool]]:
    """Row, tokens, first column and closing mark of every stretch, read off the plan's arrays."""
    for row in range(len(plan)):
        for place in range(int(plan.first[row]), int(plan.first[row + 1])):
            document, start, length = (int(part[place]) for part in (plan.document, plan.start, plan.length))
            tokens = [(document, start + offset) for offset in range(length)]
            yield row, tokens, int(plan.column[place]), bool(plan.closed[place])


def layout(plan: RowPlan, frame: Frame) -> list[list[object]]:
    """Every row as a list of what stands where: a token, "special", "separator" or None.

    Fails if anything stands on top of anything else or outside the row.
    """
    rows: list[list[object]] = [[None] * plan.sequence_length for _ in range(len(plan))]

    def put(row: int, column: int, what: object) -> None:
        assert 0 <= column < plan.sequence_length, "outside the row"
        assert rows[row][column] is None, "two things in one place"
        rows[row][column] = what

    ends = [frame.before] * len(plan)
    for row, tokens, column, closed in stretches(plan):
        for offset, token in enumerate(tokens):
            put(row, column + offset, token)
        ends[row] = end = column + len(tokens)
        if plan.packing == "concat":
            if closed and frame.separated:
                put(row, end, "separator")
                ends[row] = end + 1
        else:
            assert closed
            for offset in range(frame.before):
                put(row, column - 1 - offset, "special")
            for offset in range(frame.after):
                put(row, end + offset, "special")
    if plan.packing == "concat":
        for row, end in enumerate(ends):
            for offset in range(frame.before):
                put(row, offset, "special")
            for offset in range(frame.after):
                put(row, end + offset, "special")
    return rows


def pieces_of(lengths: list[int], room: int) -> list[Piece]:
    """Documents cut by hand: full pieces from the front, then the rest."""
    pieces: list[Piece] = []
    for document, length in enumerate(lengths):
        piece: Piece = []
        for place in range(length):
            piece.append((document, place))
            if len(piece) == room:
                pieces.append(piece)
                piece = []
        if piece:
            pieces.append(piece)
    return pieces


@given(_lengths, _room, _frames, st.sampled_from(PACKINGS))
@example([], 5, BERT, "documents")
@example([], 5, BERT, "concat")
@example([], 5, BERT, "none")
@example([5, 5], 5, BERT, "concat")  # a separator that falls into the next row
def test_every_token_stands_in_one_place_and_nothing_overlaps(
    lengths: list[int], room: int, frame: Frame, kind: Packing
) -> None:
    plan = plan_of(lengths, kind, room, frame)
    rows = layout(plan, frame)
    found = [what for row in rows for what in row if isinstance(what, tuple)]
    wanted = [(document, place) for document, length in enumerate(lengths) for place in range(length)]
    assert len(found) == len(wanted)
    assert set(found) == set(wanted)
    if kind != "documents":
        assert found == wanted  # these two keep the order of the text across rows as well
    assert plan.tokens == len(wanted)
    assert plan.used == sum(what is not None for row in rows for what in row)
    assert all(any(what is not None for what in row) for row in rows), "an empty row"


@given(_lengths, _room, _frames, st.sampled_from(PACKINGS))
def test_rows_are_filled_from_the_left_without_holes(
    lengths: list[int], room: int, frame: Frame, kind: Packing
) -> None:
    for row in layout(plan_of(lengths, kind, room, frame), frame):
        filled = [what is not None for what in row]
        assert filled == sorted(filled, reverse=True)


@given(_lengths, _room, _frames, st.sampled_from(["documents", "none"]))
def test_stretches_are_the_documents_cut_into_full_rows_and_a_rest(
    lengths: list[int], room: int, frame: Frame, kind: Packing
) -> None:
    plan = plan_of(lengths, kind, room, frame)
    found = [tokens for _, tokens, _, _ in stretches(plan)]
    wanted = pieces_of(lengths, room)
    assert sorted(found) == sorted(wanted)
    if kind == "none":
        assert found == wanted
        assert len(plan) == len(wanted)
    assert plan.cut == sum(length > room for length in lengths)


@given(_lengths, _room, _frames)
def test_concat_is_one_text_cut_at_every_rows_end(lengths: list[int], room: int, frame: Frame) -> None:
    plan = plan_of(lengths, "concat", room, frame)
    text: list[object] = []
    for document, length in enumerate(lengths):
        text += [(document, place) for place in range(length)]
        text += ["separator"] * frame.separated
    found = [[what for what in row if what not in (None, "special")] for row in layout(plan, frame)]
    flat = [what for row in found for what in row]
    # whether the last document needs a separator is left open
    assert flat in (text, text[:-1] if frame.separated else text)
    assert all(len(row) == room for row in found[:-1])
    rows_of: dict[int, set[int]] = {document: set() for document in range(len(lengths))}
    for row, tokens, _, _ in stretches(plan):
        for document, _place in tokens:
            rows_of[document].add(row)
    in_several = sum(len(rows) > 1 for rows in rows_of.values())
    lone = sum(tokens == [] for _, tokens, _, _ in stretches(plan))  # separators; may count as a part
    assert in_several <= plan.cut <= in_several + lone


@given(_lengths, st.integers(2, 24), _frames, st.sampled_from(PACKINGS))
@example([5, 5], 6, BERT, "concat")
@example([4, 5], 11, BERT, "concat")
def test_no_row_is_without_text(lengths: list[int], room: int, frame: Frame, kind: Packing) -> None:
    for row in layout(plan_of(lengths, kind, room, frame), frame):
        assert any(isinstance(what, tuple) for what in row)


def rows_by_fill(plan: RowPlan, frame: Frame) -> list[int]:
    """Positions used in each row."""
    return [sum(what is not None for what in row) for row in layout(plan, frame)]


def first_fit(sizes: list[int], capacity: int) -> int:
    """How many rows the textbook's simplest packing needs."""
    rows: list[int] = []
    for size in sizes:
        for number, filled in enumerate(rows):
            if filled + size <= capacity:
                rows[number] += size
                break
        else:
            rows.append(size)
    return len(rows)


def best_fit_decreasing(sizes: list[int], capacity: int) -> list[int]:
    """How full each row becomes, found by looking at all rows for every item."""
    rows: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [filled for filled in rows if filled + size <= capacity]
        if fitting:
            rows.remove(max(fitting))
            rows.append(max(fitting) + size)
        else:
            rows.append(size)
    return sorted(rows)


@given(_lengths, _room, _frames)
def test_documents_are_packed_by_best_fit(lengths: list[int], room: int, frame: Frame) -> None:
    plan = plan_of(lengths, "documents", room, frame)
    sizes = [len(piece) + frame.size for piece in pieces_of(lengths, room)]
    fills = rows_by_fill(plan, frame)
    assert sorted(fills) == best_fit_decreasing(sizes, room + frame.size)
    assert len(plan) <= len(sizes)
    smallest = sorted(fills)[:2]
    assert len(smallest) < 2 or sum(smallest) > room + frame.size, "two rows would fit into one"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("median", [4, 20, 60])
def test_best_fit_needs_no_more_rows_than_first_fit(seed: int, median: int) -> None:
    # Not a theorem for every input, but so for lengths as documents have them.
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(median), 1.0, 700), 1, 500).astype(int).tolist()
    plan = plan_of(lengths, "documents", 62, BERT)
    sizes = [len(piece) + 2 for piece in pieces_of(lengths, 62)]
    assert len(plan) <= first_fit(sizes, 64)
    assert len(plan) >= -(-sum(sizes) // 64)


@given(_lengths, _room, _frames, st.integers(1, 9))
def test_best_fit_looks_for_partners_only_within_its_window(
    lengths: list[int], room: int, frame: Frame, window: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_WINDOW", window)
        plan = plan_of(lengths, "documents", room, frame)
    window_of = windows_by_hand([len(pieces_of([length], room)) for length in lengths], window)
    windows: list[set[int]] = [set() for _ in range(len(plan))]
    for row, tokens, _, _ in stretches(plan):
        windows[row].add(window_of[tokens[0][0]])
    assert all(len(one) == 1 for one in windows)
    order = [min(one) for one in windows]
    assert order == sorted(order), "rows of a later window before those of an earlier one"
    fills = rows_by_fill(plan, frame)
    for part in set(order):
        here = [length for length, one in zip(lengths, window_of, strict=True) if one == part]
        sizes = [len(piece) + frame.size for piece in pieces_of(here, room)]
        found = sorted(fill for fill, one in zip(fills, order, strict=True) if one == part)
        assert found == best_fit_decreasing(sizes, room + frame.size)


def windows_by_hand(stretches_of: list[int], window: int) -> list[int]:
    """The window of each document: as many whole ones as have no more stretches together, or one alone."""
    found: list[int] = []
    number, room = -1, 0
    for stretches in stretches_of:
        if stretches > room:
            number, room = number + 1, window
        found.append(number)
        room -= stretches
    return found


@given(_lengths, _room, _frames, st.sampled_from(("concat", "none")), st.integers(1, 9))
def test_windows_leave_no_trace_where_no_partners_are_looked_for(
    lengths: list[int], room: int, frame: Frame, kind: Packing, window: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_WINDOW", window)
        in_windows = plan_of(lengths, kind, room, frame)
    at_once = plan_of(lengths, kind, room, frame)
    assert all(np.array_equal(one, getattr(at_once, name)) for name, one in vars(in_windows).items())


@given(_lengths, _room, _frames, st.sampled_from(PACKINGS))
def test_a_plan_is_the_same_every_time(lengths: list[int], room: int, frame: Frame, kind: Packing) -> None:
    one, two = (plan_of(lengths, kind, room, frame) for _ in range(2))
    assert list(stretches(one)) == list(stretches(two))


@pytest.mark.parametrize("kind", PACKINGS)
def test_a_large_corpus_is_planned_quickly(kind: Packing) -> None:
    lengths = np.random.default_rng(0).integers(1, 700, 30_000)
    plan = plan_rows(lengths, kind, 128, BERT)
    assert plan.tokens == lengths.sum()
    if kind == "documents":
        assert plan.padding < 0.005  # hardly any padding


@pytest.mark.parametrize("kind", PACKINGS)
def test_a_row_of_special_tokens_alone_is_refused(kind: Packing) -> None:
    with pytest.raises(AssertionError):
        plan_rows(np.array([3]), kind, 2, BERT)
