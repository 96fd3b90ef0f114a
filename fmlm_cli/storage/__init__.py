"""Files: atomic writes, hashes, output folders that appear only when complete and have one owner, runs."""

from fmlm_cli.storage.caches import CACHE, Cache, cache_of
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
from fmlm_cli.storage.folders import complete_folder, remove
from fmlm_cli.storage.locks import one_at_a_time
from fmlm_cli.storage.ownership import (
    MARKER,
    Kind,
    OwnedFolder,
    check_claim,
    check_outside,
    clear_left_overs,
    in_use,
    kind_of,
    owned_folder,
    replaced_folder,
    sole_owner,
    work_in,
)
from fmlm_cli.storage.runs import METRICS, RUN, RUN_CONFIG, RunDirectory
from fmlm_cli.storage.sealed import (
    HASHES,
    damage_of,
    damage_on_disk,
    hashes_of,
    hashes_while_flushed,
    missing_file,
    read_sealed,
    unsealed,
    write_sealed,
)

MANIFEST = "manifest.json"

__all__ = [
    "CACHE",
    "HASHES",
    "MANIFEST",
    "MARKER",
    "METRICS",
    "RUN",
    "RUN_CONFIG",
    "Cache",
    "Kind",
    "OwnedFolder",
    "RunDirectory",
    "cache_of",
    "check_claim",
    "check_outside",
    "clear_disk_errors",
    "clear_left_overs",
    "complete_file",
    "complete_folder",
    "content_hash",
    "damage_of",
    "damage_on_disk",
    "hashes_of",
    "hashes_while_flushed",
    "in_use",
    "kind_of",
    "missing_file",
    "one_at_a_time",
    "owned_folder",
    "read_json",
    "read_sealed",
    "remove",
    "replaced_folder",
    "sha256_of_file",
    "sha256_of_json",
    "sole_owner",
    "unsealed",
    "work_in",
    "write_json",
    "write_sealed",
    "write_text",
]
