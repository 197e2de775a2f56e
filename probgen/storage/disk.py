"""Bytes from and to the disk: regular files only, of bounded size, written whole or not at all.

A run directory may come from anybody, so what lies in it is not what its name says: a link leads
elsewhere, a pipe never ends, a file is larger than the memory.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from probgen.basics.launcher import is_first

_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a pipe would wait for who writes into it
_FOLDER = getattr(os, "O_DIRECTORY", 0)
_BY_FOLDER = os.open in os.supports_dir_fd and os.rename in os.supports_dir_fd


class RunError(ValueError):
    """A run directory, or a file of one, that cannot be used; says why, and the way out."""


# ---------------------------------------------------------------- reading


def read_file(path: Path, most: int) -> bytes:
    """All of a regular file.

    Args:
        path: the file; links are followed.
        most: how many bytes it may have.

    Raises:
        RunError: missing, no regular file (a pipe, a device, a folder), or larger.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a device can already do something
            raise RunError(f"{path} cannot be read: it is no regular file. Remove it.")
        handle = os.open(path, os.O_RDONLY | _NO_WAIT | _BINARY)
        with os.fdopen(handle, "rb") as stream:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise RunError(f"{path} cannot be read: it is no regular file. Remove it.")
            if about.st_size > most:
                raise RunError(
                    f"{path} has {about.st_size:,} bytes, and at most {most:,} are read. It is no such "
                    "file of a run, or too large for this machine."
                )
            content = stream.read(about.st_size + 1)
    except MemoryError as error:
        raise RunError(f"{path} does not fit into this machine's memory.") from error
    except (OSError, ValueError) as error:
        if isinstance(error, RunError):
            raise
        code = getattr(error, "errno", None)
        reason = os.strerror(code) if code else str(error)
        raise RunError(f"{path} cannot be read ({reason}).") from error
    if len(content) > about.st_size:
        raise RunError(f"{path} cannot be read: it grows meanwhile. Try again.")
    return content


def machine_memory() -> int:
    """Bytes of memory of this machine: a file that is larger cannot be used on it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return 2**36


def absolute(path: str | os.PathLike[str]) -> Path:
    """An absolute path.

    Raises:
        FileNotFoundError: it is relative to a working folder that was deleted.
    """
    try:
        return Path(path).absolute()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{os.fspath(path)} cannot be found: the working folder was deleted. Change to a folder "
            "that exists, or write the whole path."
        ) from error


# ---------------------------------------------------------------- writing


def write_atomically(
    path: Path, content: bytes, *, outlast_power: bool = True, within: Path | None = None
) -> None:
    """Replace a file in one step.

    A link in its place is replaced, never written through.

    Args:
        path: the file.
        content: what it will hold.
        outlast_power: wait until the disk has it, so that also a power cut leaves it whole.
        within: a run directory whose own folders must not be links, so that nothing is written
            outside of it.

    Raises:
        RunError: a folder of the run directory is a link.
        OSError: it cannot be written: no permission, no folder, a full disk; the old file is
            whole.
    """
    if (
        not is_first()
    ):  # of several processes under a launcher, which all come here with the same content
        return
    name = f".{path.name}.{secrets.token_hex(8)}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK | _BINARY
    try:
        folder = _open_folder(path.parent, within)
        try:
            # By the folder that is open, so that none can be put in its place meanwhile.
            place: dict[str, int] = {"dir_fd": folder} if folder is not None else {}
            ends: dict[str, int] = (
                {"src_dir_fd": folder, "dst_dir_fd": folder} if folder is not None else {}
            )
            base = Path() if folder is not None else path.parent
            written = False
            try:
                handle = os.open(base / name, flags, 0o666, **place)
                written = True
                with os.fdopen(handle, "wb") as stream:
                    stream.write(content)
                    stream.flush()
                    if outlast_power:
                        os.fsync(stream.fileno())
                os.replace(base / name, base / path.name, **ends)
                written = False
            finally:
                if written:
                    os.unlink(base / name, **place)
            if outlast_power and folder is not None:
                with suppress(OSError):  # some network file systems cannot
                    os.fsync(folder)
        finally:
            if folder is not None:
                os.close(folder)
    except OSError as error:
        raise explained(error, path) from error


def make_folder(path: Path, within: Path | None = None) -> None:
    """Make a folder and those above it.

    Raises:
        RunError: it lies `within` a run directory and is a link.
        OSError: it cannot be made, or is a file.
    """
    if not is_first():
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        folder = _open_folder(path, within)
        if folder is not None:
            os.close(folder)
    except OSError as error:
        raise explained(error, path) from error


def _open_folder(path: Path, within: Path | None) -> int | None:
    """A folder, open; links are followed up to `within` and not below. None where systems cannot."""
    below = () if within is None else path.relative_to(within).parts
    current = path if within is None else within
    if not _BY_FOLDER:
        for part in below:
            current = current / part
            if current.is_symlink():
                raise _is_link(current)
        return None
    handle = os.open(current, os.O_RDONLY | _FOLDER)
    for part in below:
        current = current / part
        try:
            deeper = os.open(part, os.O_RDONLY | _FOLDER | _NO_LINK, dir_fd=handle)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR) and current.is_symlink():
                raise _is_link(current) from None
            raise
        finally:
            os.close(handle)
        handle = deeper
    return handle


def _is_link(path: Path) -> RunError:
    return RunError(
        f"{path} is a link, and what is written into a run directory stays there. Remove the link; "
        "to write elsewhere, name that folder yourself."
    )


def explained(error: OSError, path: Path) -> OSError:
    """The same kind of error with a message that says the way out."""
    hint = "Choose a folder that you can write to."
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "The disk is full: free some space. What was there before is whole."
    reason = os.strerror(error.errno) if error.errno else str(error)
    return type(error)(f"{path} cannot be written ({reason}). {hint}")
