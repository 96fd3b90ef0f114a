"""How both reports show a distribution, and texts."""

from collections.abc import Mapping

from fmlm_cli.corpus.store.survey import Lengths

_BAR = 32  # characters of the longest bar


def histogram(lengths: Lengths) -> Mapping[str, str]:
    """A row for each bin: its border, a bar, how many documents and which share of all."""
    largest = max(found.documents for found in lengths.bins)
    total = sum(found.documents for found in lengths.bins)
    width = len(f"{lengths.bins[-1].shortest:,}")
    return {
        f"{found.shortest:>{width},} to {min(found.longest, lengths.longest):,}": (
            f"{'█' * -(-_BAR * found.documents // largest):<{_BAR}} {found.documents:>{len(f'{largest:,}')},}"
            f"  {found.documents / total:.1%}"
        )
        for found in lengths.bins
    }


def in_one_line(text: str, most: int) -> str:
    """The beginning of a text, without line ends."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most and len(text) <= 4 * most else f"{line[: most - 3].rstrip()}..."
