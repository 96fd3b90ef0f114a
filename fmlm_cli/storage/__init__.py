"""Files: atomic writes, hashes, output folders that appear only when complete and have one owner, runs."""

from fmlm_cli.storage.files import (
    clear_disk_errors,
    complete_file,
    content_hash,
    read_json,
    sha256_of_file,
    sha256_of_json,
    write_json,
    write_text,
)
from fmlm_cli.storage.folders import complete_folder, remove, sweep
from fmlm_cli.storage.ownership import (
    LOCK,
    MARKER,
    Kind,
    OwnedFolder,
    check_claim,
    check_outside,
    kind_of,
    one_at_a_time,
    owned_folder,
    replaced_folder,
    sole_owner,
    work_in,
)
from fmlm_cli.storage.runs import METRICS, RUN, RUN_CONFIG, RunDirectory

MANIFEST = "manifest.json"

__all__ = [
    "LOCK",
    "MANIFEST",
    "MARKER",
    "METRICS",
    "RUN",
    "RUN_CONFIG",
    "Kind",
    "OwnedFolder",
    "RunDirectory",
    "check_claim",
    "check_outside",
    "clear_disk_errors",
    "complete_file",
    "complete_folder",
    "content_hash",
    "kind_of",
    "one_at_a_time",
    "owned_folder",
    "read_json",
    "remove",
    "replaced_folder",
    "sha256_of_file",
    "sha256_of_json",
    "sole_owner",
    "sweep",
    "work_in",
    "write_json",
    "write_text",
]
