"""Files and folders that appear whole or not at all, their hashes, locks, and what paths lead to: the one owner of all.

Whatever writes a file that must not be found by halves does it through this package.

May import: errors, text.
"""

from __future__ import annotations

from enclap.files.atomic import (
    flush_tree,
    make_folders,
    new_folder,
    remove_partial,
    replace_folder,
    replacement_file,
    replacement_folder,
    replacement_path,
    scratch_folder,
    write_whole,
)
from enclap.files.hashing import sha256, shortened
from enclap.files.locks import Locked, locked, locked_in_turn
from enclap.files.paths import (
    check_free,
    descriptor_of,
    exists,
    file_identity,
    is_file,
    is_folder,
    is_full,
    is_stream,
    is_too_long,
    require_parent,
    require_room,
    stays_inside,
    translate_write_errors,
)

__all__ = [
    "Locked",
    "check_free",
    "descriptor_of",
    "exists",
    "file_identity",
    "flush_tree",
    "is_file",
    "is_folder",
    "is_full",
    "is_stream",
    "is_too_long",
    "locked",
    "locked_in_turn",
    "make_folders",
    "new_folder",
    "remove_partial",
    "replace_folder",
    "replacement_file",
    "replacement_folder",
    "replacement_path",
    "require_parent",
    "require_room",
    "scratch_folder",
    "sha256",
    "shortened",
    "stays_inside",
    "translate_write_errors",
    "write_whole",
]
