"""The embedded corpus `python-docs`: English prose that every installation of fmlm already has.

It is read from the docstrings of the interpreter's standard library and of the libraries that fmlm stands
on, and from the language reference that CPython ships as `pydoc_data/topics.py`. Files are parsed, never
imported or run. Beside docstrings proper, the strings by which some packages attach documentation are read
too: those below an attribute, assigned to a name with "doc" in it, or handed to a function such as
`add_docstr`.

Documents: most docstrings are a sentence or two, too short to learn context from, while a whole file can
run to the length of a book. So the docstrings of one file are packed, in source order, into documents of at
least `DOCUMENT_WORDS` words; what is left over at a file's end joins the document before it. A file with
less than `LEAST_WORDS` words of prose gives none. Within a document there is one paragraph a line.

The same environment gives the same documents on every run: the order is that of (package, path inside the
package), whatever the number of processes and wherever the packages lie.
"""

import ast
import contextlib
import gc
import importlib.metadata
import importlib.util
import itertools
import multiprocessing
import os
import platform
import re
import signal
import sysconfig
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmlm_cli.corpus.text.prose import Docstring, clean_docstring, words
from fmlm_cli.corpus.text.source import ReadStats, Source
from fmlm_cli.storage import sha256_of_json

PYTHON_DOCS = "python-docs"

# Import names of what fmlm depends on, directly or through others, and that has prose to give.
PACKAGES: tuple[str, ...] = (
    *("torch", "transformers", "datasets", "tokenizers", "safetensors", "huggingface_hub", "hf_xet"),
    *("numpy", "pyarrow", "pandas", "dateutil", "dill", "multiprocess", "fsspec", "filelock", "tqdm"),
    *("matplotlib", "mpl_toolkits", "contourpy", "cycler", "fontTools", "PIL", "pyparsing", "packaging"),
    *("sympy", "mpmath", "networkx", "jinja2", "markupsafe", "setuptools", "typing_extensions"),
    *("pydantic", "pydantic_core", "typing_inspection", "annotated_types", "yaml", "typer", "click", "rich"),
    *("pygments", "markdown_it", "anyio", "httpx", "httpcore", "httpx2", "httpcore2", "aiohttp"),
    *("multidict", "yarl", "requests", "urllib3", "idna", "xxhash", "regex"),
)
DOCUMENT_WORDS = 120
LEAST_WORDS = 20
INTERPRETER = "python"

_TOPICS = "pydoc_data/topics.py"
_CHUNK = 48  # files: a fraction of a second's work, which is also how long Ctrl-C waits for
# Of a file in triple quotes: parsing takes most of the time, and the files below hold 1% of the words.
_LEAST_SHARE = 0.04
_MOST_WORKERS = 16  # by default: beyond, starting a process costs more than it reads


@dataclass(frozen=True)
class PythonDocs(Source):
    """The corpus as read: documents in a fixed order, and where they come from."""

    texts: tuple[str, ...]
    packages: Mapping[str, str]  # name -> version actually read, "python" (the interpreter) first
    missing: tuple[str, ...]  # of the packages asked for, those not installed
    duplicates: int  # paragraphs dropped as duplicates

    @property
    def size(self) -> int:
        """Bytes of the documents: there is no file."""
        return sum(map(_bytes, self.texts))

    @property
    def passed_over(self) -> list[str]:
        """Packages that are not installed, and duplicates."""
        missing = [f"not installed: {', '.join(self.missing)}"] if self.missing else []
        return [*missing, f"{self.duplicates:,} repeated paragraphs left out"]

    def documents(self, stats: ReadStats) -> Iterator[str]:
        """The documents, from memory."""
        for text in self.texts:
            size = _bytes(text)
            stats.documents += 1
            stats.text_bytes += size
            stats.disk_bytes += size
            yield text

    def identity(self) -> list[dict[str, Any]]:
        """The packages' versions, and the documents' hash."""
        content = sha256_of_json(list(self.texts))
        return [{"name": PYTHON_DOCS, "packages": dict(self.packages), "sha256": content}]

    def describe(self) -> list[str]:
        """Where the documents come from, and what was passed over."""
        names = [name for name in self.packages if name != INTERPRETER]
        read = (
            f"{PYTHON_DOCS}: {len(self.texts):,} documents from the docstrings of Python "
            f"{self.packages[INTERPRETER]} and {len(names)} packages ({', '.join(names[:6])}, ...)"
        )
        return ["; ".join([read, *self.passed_over])]


def _bytes(text: str) -> int:
    return len(text.encode("utf-8"))


@dataclass(frozen=True, order=True)
class _CodeFile:
    """One file to read; sorts by package, then by its path inside the package."""

    package: str
    name: str
    path: str


_SKIPPED = words(
    "__pycache__ site-packages dist-packages test tests testing _testing _vendor vendor _vendored extern "
    "externals third_party encodings idlelib lib2to3 pydoc_data turtledemo ensurepip lib-dynload __phello__"
)

# --- Reading: from a file to its docstrings ---


_QUOTED = re.compile(rb'"""(?s:.*?)"""|\'\'\'(?s:.*?)\'\'\'')


def _strings(node: ast.AST) -> Iterator[str]:
    """The string literals in an expression, but for the pieces of f-strings, which are no whole sentences."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif not isinstance(node, ast.JoinedStr):
        for part in ast.iter_child_nodes(node):
            yield from _strings(part)


def _attached(node: ast.stmt) -> Iterator[str]:
    """The documentation in a plain statement: a bare string, `x_doc = "..."` or `add_docstr(x, "...")`."""
    match node:
        case ast.Expr(value=ast.Constant()):
            yield from _strings(node.value)
        case ast.Expr(value=ast.Call(func=named)) | ast.Assign(targets=[named]):
            names = (getattr(part, "id", getattr(part, "attr", "")) for part in ast.walk(named))
            if any("doc" in name.lower() for name in names):
                yield from _strings(node.value)


def _docstrings(body: Iterable[ast.stmt]) -> Iterator[str]:
    """The documentation strings in `body`, in source order; functions are not searched for inner ones."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node, clean=False) or ""
        elif isinstance(node, ast.ClassDef | ast.With):
            yield from _docstrings(node.body)
        elif isinstance(node, ast.If | ast.Try):
            yield from _docstrings([*node.body, *node.orelse])
        else:
            yield from _attached(node)


def _topics(tree: ast.Module) -> list[str]:
    """The language reference's topics, longest first: short ones mostly repeat sections of long ones."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            texts = ast.literal_eval(node.value)
            return [texts[name] for name in sorted(texts, key=lambda name: (-len(texts[name]), name))]
    return []


def _read(source: _CodeFile) -> list[Docstring]:
    """The cleaned docstrings of one file that have prose; none for a file that cannot be read or parsed."""
    try:
        code = Path(source.path).read_bytes()
        if source.name != _TOPICS and sum(map(len, _QUOTED.findall(code))) < _LEAST_SHARE * len(code) + 1:
            return []
        tree = ast.parse(code)
        texts = _topics(tree) if source.name == _TOPICS else _docstrings(tree.body)
        return [paragraphs for text in texts if (paragraphs := clean_docstring(text))]
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _read_all(sources: Sequence[_CodeFile]) -> list[list[Docstring]]:
    """`_read` for each of some files, without the parser's warnings about other people's code."""
    collects = gc.isenabled()
    gc.disable()  # a syntax tree is many objects and no cycles: the collector would take most of the time
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [_read(source) for source in sources]
    finally:
        if collects:
            gc.enable()


# --- Finding the files ---


def _files_under(package: str, root: Path) -> Iterator[_CodeFile]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED and not name.startswith("config-")]
        for name in files:
            if name.endswith((".py", ".pyi")) and name != "conftest.py":
                path = Path(folder, name)
                yield _CodeFile(package, path.relative_to(root).as_posix(), str(path))


def _files_of_interpreter() -> list[_CodeFile]:
    root = Path(sysconfig.get_path("stdlib"))
    topics = root / _TOPICS
    files = list(_files_under(INTERPRETER, root))
    return [*files, _CodeFile(INTERPRETER, _TOPICS, str(topics))] if topics.is_file() else files


def _files_of_package(package: str) -> list[_CodeFile]:
    """The files of an installed package or one-file module, which is looked up but not imported."""
    if not package.isidentifier():  # a dotted name's parent would be imported
        return []
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError, AttributeError):
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [
            file for root in spec.submodule_search_locations for file in _files_under(package, Path(root))
        ]
    path = Path(spec.origin or "")
    return [_CodeFile(package, path.name, str(path))] if path.suffix == ".py" and path.is_file() else []


def _version_of(package: str, owners: Mapping[str, Sequence[str]]) -> str:
    """The version of the distribution that provides a package; "unknown" for a folder that none claims."""
    for name in (*owners.get(package, ()), package):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "unknown"


# --- Reading in parallel ---


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back, also in processes started meanwhile: they would print a traceback each."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _processes(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Workers that are gone, with whatever they had not begun, when the block ends in any way."""
    context = multiprocessing.get_context("spawn")  # a fork could copy held locks
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read_files(
    sources: Sequence[_CodeFile], workers: int, progress: Callable[[int, int], None]
) -> list[list[Docstring]]:
    """The docstrings of every file, in the files' order."""
    chunks = [sources[start : start + _CHUNK] for start in range(0, len(sources), _CHUNK)]
    done: dict[int, list[list[Docstring]]] = {}

    def note(index: int, results: list[list[Docstring]]) -> None:
        done[index] = results
        progress(sum(map(len, done.values())), len(sources))

    workers = min(workers, len(chunks))
    # Where processes cannot be had (no semaphores, a script without a guard) the rest is read without them.
    with contextlib.suppress(BrokenProcessPool, ImportError, OSError):
        if workers > 1:
            with _processes(workers) as pool:
                with _interrupts_held():
                    futures = {pool.submit(_read_all, chunk): index for index, chunk in enumerate(chunks)}
                for future in as_completed(futures):
                    note(futures[future], future.result())
    for index in [index for index in range(len(chunks)) if index not in done]:
        note(index, _read_all(chunks[index]))
    return [docstrings for index in range(len(chunks)) for docstrings in done[index]]


# --- Documents ---


def _packed(docstrings: Iterable[Docstring]) -> Iterator[str]:
    """The documents of one file: its docstrings in order, put together until they are long enough."""
    documents: list[list[str]] = []
    words = DOCUMENT_WORDS
    for paragraphs in docstrings:
        if words >= DOCUMENT_WORDS:
            documents.append([])
            words = 0
        documents[-1] += paragraphs
        words += sum(len(paragraph.split()) for paragraph in paragraphs)
    if words < DOCUMENT_WORDS and len(documents) > 1:
        documents[-2:] = [documents[-2] + documents[-1]]
    texts = ("\n".join(document) for document in documents)
    return (text for text in texts if len(text.split()) >= LEAST_WORDS)


def _deduplicated(files: Sequence[list[Docstring]]) -> tuple[list[list[Docstring]], int]:
    """Each paragraph only where it comes first; also how many were dropped."""
    seen: set[str] = set()
    dropped = 0
    deduplicated: list[list[Docstring]] = []
    for docstrings in files:
        of_file: list[Docstring] = []
        for paragraphs in docstrings:
            fresh = tuple(text for text in dict.fromkeys(paragraphs) if text not in seen)
            seen.update(fresh)
            dropped += len(paragraphs) - len(fresh)
            of_file += [fresh] if fresh else []
        deduplicated.append(of_file)
    return deduplicated, dropped


def read_python_docs(
    packages: Sequence[str] = PACKAGES,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PythonDocs:
    """Read the corpus: the interpreter's own documentation and that of `packages` (import names).

    `workers` processes parse the files (all cores by default; 1 stays in this process); the result does not
    depend on it. `progress(files_done, files_total)` is called here as results come in. Packages that are
    not installed are left out and named in the result; files that do not parse are left out.
    """
    files_by_package = {
        package: _files_of_package(package) for package in dict.fromkeys(packages) if package != INTERPRETER
    }
    present = [package for package, files in files_by_package.items() if files]
    owners = importlib.metadata.packages_distributions() if present else {}
    versions = {INTERPRETER: platform.python_version()}
    versions |= {package: _version_of(package, owners) for package in present}
    sources = sorted([*_files_of_interpreter(), *itertools.chain.from_iterable(files_by_package.values())])
    cores = min(getattr(os, "process_cpu_count", os.cpu_count)() or 1, _MOST_WORKERS)
    results = _read_files(sources, workers or cores, progress or (lambda done, total: None))
    files, duplicates = _deduplicated(results)
    return PythonDocs(
        texts=tuple(itertools.chain.from_iterable(map(_packed, files))),
        packages=versions,
        missing=tuple(package for package, files in files_by_package.items() if not files),
        duplicates=duplicates,
    )
