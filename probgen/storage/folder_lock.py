"""A lock on a run directory: only one process trains in it, and nobody replaces it meanwhile."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from probgen.storage.files import RunError, explained


class FolderLock:
    """A lock on a folder until `close`, or until the process ends for any reason.

    The folder itself is locked, so there is no lock file that could be deleted or be a link. On file
    systems that cannot lock folders (NFS) the file `.lock` in it is locked. If
    neither is possible (some network file systems, Windows) nothing is locked: train in one
    process only.

    Args:
        folder: a folder that exists.

    Raises:
        RunError: another process has the lock.
        OSError: the folder cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handles: list[int] = []
        try:
            about = os.stat(folder)
            self._identity = (about.st_dev, about.st_ino)
            self._acquire()
        except OSError as error:
            self.close()
            raise explained(error, folder) from error
        except BaseException:
            self.close()
            raise

    def _acquire(self) -> None:
        try:
            import fcntl
        except ImportError:  # not a POSIX system
            return

        def locked(handle: int) -> bool:
            self._handles.append(handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"{self.folder} is in use: another process trains in it. Wait for it, or choose "
                    "another folder."
                ) from None
            except OSError:
                return False
            return True

        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        if locked(folder):
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        with suppress(OSError):  # a file system without locks, or not a regular file
            handle = os.open(".lock", flags, 0o666, dir_fd=folder)
            if stat.S_ISREG(os.fstat(handle).st_mode):
                locked(handle)
            else:
                os.close(handle)

    def check(self) -> None:
        """Check that the folder is still the one that was locked.

        Raises:
            RunError: the folder was removed, moved, or replaced by another.
        """
        try:
            about = os.stat(self.folder)
        except OSError as error:
            reason, identity = os.strerror(error.errno or 0), None
        else:
            reason, identity = "another folder has its name", (about.st_dev, about.st_ino)
        if identity != self._identity:
            raise RunError(
                f"{self.folder} was removed or moved while the run trains in it ({reason}), so the run is "
                "stopped and nothing more is written. The moved folder holds the last complete epoch: "
                "continue there with resume=True (--resume). If it was deleted, the pair that was given "
                "to fit still has its weights."
            )

    def close(self) -> None:
        """Release the lock."""
        while self._handles:
            os.close(self._handles.pop())
