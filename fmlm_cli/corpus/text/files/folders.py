"""All that lies under a folder, links followed: each folder once, and none that holds this one."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Folder:
    """What was found, sorted. `leaves` were not looked into; of what is hidden neither was anything."""

    files: list[Path] = field(default_factory=list)  # and links to folders that are found in another place
    leaves: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)

    @classmethod
    def walk(cls, top: Path, is_leaf: Callable[[Path], bool]) -> "Folder":
        """What lies under `top`. Raises OSError for a folder that cannot be listed."""
        found = cls()
        above = {_identity(folder) for folder in top.resolve().parents}
        seen: set[tuple[int, int]] = set()
        links = [top]
        while links:  # those in a folder after the folder itself: what has two names goes by its own
            link = links.pop(0)
            if _identity(link) in seen | above:
                found.files.append(link)
            else:
                links += found._add(link, seen, is_leaf)
        for paths in (found.files, found.leaves, found.hidden):
            paths.sort()
        return found

    def _add(self, top: Path, seen: set[tuple[int, int]], is_leaf: Callable[[Path], bool]) -> list[Path]:
        """Add what lies under a folder; the links to folders in it, sorted."""
        links = []
        for root, folders, names in os.walk(top, onerror=_reraise):
            folder = Path(root)
            seen.add(_identity(folder))
            if is_leaf(folder):
                folders.clear()
                self.leaves.append(folder)
                continue
            self.hidden += [folder / name for name in (*folders, *names) if name.startswith(".")]
            shown = [folder / name for name in folders if not name.startswith(".")]
            links += [path for path in shown if path.is_symlink()]
            folders[:] = [
                path.name for path in shown if not path.is_symlink() and _identity(path) not in seen
            ]
            self.files += [folder / name for name in names if not name.startswith(".")]
        return sorted(links)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _reraise(error: OSError) -> None:
    """`os.walk` would pass over folders that it cannot list; missing data must not go unnoticed."""
    raise error
