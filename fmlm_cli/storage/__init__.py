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
from fmlm_cli.storage.folders import complete_folder
from fmlm_cli.storage.ownership import (
    LOCK,
    check_outside,
    claim_output,
    clear_folder,
    one_at_a_time,
    sole_owner,
)
from fmlm_cli.storage.runs import METRICS, RUN_CONFIG, RunDirectory
from fmlm_cli.storage.sealed import (
    HASHES,
    damage_of,
    hashes_of,
    missing_file,
    read_sealed,
    unsealed,
    write_sealed,
)

MANIFEST = "manifest.json"

__all__ = [
    "HASHES",
    "LOCK",
    "MANIFEST",
    "METRICS",
    "RUN_CONFIG",
    "RunDirectory",
    "check_outside",
    "claim_output",
    "clear_disk_errors",
    "clear_folder",
    "complete_file",
    "complete_folder",
    "content_hash",
    "damage_of",
    "hashes_of",
    "missing_file",
    "one_at_a_time",
    "read_json",
    "read_sealed",
    "sha256_of_file",
    "sha256_of_json",
    "sole_owner",
    "unsealed",
    "write_json",
    "write_sealed",
    "write_text",
]
