"""One process at a time trains in a run directory, and it stays the same directory."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from probgen.storage.files import RunError, explained


class FolderLock:
    """A lock on a folder, held until `close` or the end of the process, however that comes.

    The folder itself is locked, so there is no file to delete, or to lead elsewhere by a link. File
    systems that cannot lock folders (NFS) lock the file `.lock` in it. Where there is neither (some
    network file systems, Windows) nothing is locked: train in one process there.

    Args:
        folder: a folder that exists.

    Raises:
        RunError: another process holds it.
        OSError: it cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._handles: list[int] = []
        try:
            about = os.stat(folder)
            self._identity = (about.st_dev, about.st_ino)
            self._take()
        except OSError as error:
            self.close()
            raise explained(error, folder) from error
        except BaseException:
            self.close()
            raise

    def _take(self) -> None:
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
        with suppress(OSError):  # a file system without locks, or something odd in its place
            handle = os.open(".lock", flags, 0o666, dir_fd=folder)
            if stat.S_ISREG(os.fstat(handle).st_mode):
                locked(handle)
            else:
                os.close(handle)

    def check(self) -> None:
        """The folder is still the one that was locked.

        Raises:
            RunError: it was removed or moved, or another one lies in its place.
        """
        try:
            about = os.stat(self.folder)
        except OSError as error:
            what, identity = os.strerror(error.errno or 0), None
        else:
            what, identity = "another one lies in its place", (about.st_dev, about.st_ino)
        if identity != self._identity:
            raise RunError(
                f"{self.folder} was removed or moved while the run trains in it ({what}), so the run is "
                "stopped, and nothing more is written. Its last whole epoch is where the folder went: "
                "go on from there with resume=True (--resume). If it was deleted, the pair that fit "
                "was given still has its weights."
            )

    def close(self) -> None:
        """Let others use the folder."""
        while self._handles:
            os.close(self._handles.pop())
