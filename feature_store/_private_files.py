"""Files and folders that their owner alone can read, whatever the umask: what a project keeps under `.feature_store`.

Quarantined and staged rows are people's data, and the registry and the logs name what a project holds.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

STATE_FOLDER = ".feature_store"

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def private_folder(folder: Path) -> Path:
    """Make a folder, and the parents that it lacks, with mode 0700. Returns the folder.

    A `.feature_store` above it that an earlier release left open to others is closed.

    Raises:
        OSError: it cannot be made.
    """
    if not folder.is_dir():
        private_folder(folder.parent)
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
    if folder.name == STATE_FOLDER:
        _close_to_others(folder)
    elif STATE_FOLDER in folder.parts:
        for parent in folder.parents:
            if parent.name == STATE_FOLDER:
                _close_to_others(parent)
    return folder


def private_file(path: Path) -> Path:
    """Make an empty file of mode 0600, in whose place a library may then write. Returns its path.

    Libraries create files with the mode that the umask leaves; a file that is there keeps its own.

    Raises:
        OSError: it cannot be made.
    """
    # A file that is there is never opened: closing any descriptor of a file ends the locks that the process holds on
    # it, and SQLite's other connections would lose theirs.
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))
    except FileExistsError:
        about = path.stat()
        if about.st_mode & _OTHERS and about.st_uid == os.getuid():
            path.chmod(_FILE_MODE)
    return path


def _close_to_others(folder: Path) -> None:
    about = folder.stat()
    if about.st_mode & _OTHERS and about.st_uid == os.getuid():
        folder.chmod(_FOLDER_MODE)
