"""Read and write files: regular files only, of bounded size, written completely or not at all.

A run directory may be of unknown origin, so its files may differ from what their names say: a link
points elsewhere, a pipe never ends, a file is larger than the memory.
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
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a pipe would wait for its writer
_FOLDER = getattr(os, "O_DIRECTORY", 0)
_BY_FOLDER = os.open in os.supports_dir_fd and os.rename in os.supports_dir_fd


class RunError(ValueError):
    """A run directory, or a file in one, that cannot be used; the message says why and what to do.

    Example:
        >>> import probgen as pg
        >>> try:
        ...     pg.load_run("no-such-folder")
        ... except pg.RunError as error:
        ...     print("refused")
        refused
    """


# ---------------------------------------------------------------- reading


def read_file(path: Path, max_bytes: int) -> bytes:
    """Read a regular file as a whole.

    Args:
        path: the file; links are followed.
        max_bytes: the largest size that is read.

    Raises:
        RunError: the file is missing, not a regular file (a pipe, a device, a folder), or larger.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a device can have effects
            raise RunError(f"{path} cannot be read: it is not a regular file. Remove it.")
        handle = os.open(path, os.O_RDONLY | _NO_WAIT | _BINARY)
        with os.fdopen(handle, "rb") as stream:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise RunError(f"{path} cannot be read: it is not a regular file. Remove it.")
            if about.st_size > max_bytes:
                raise RunError(
                    f"{path} has {about.st_size:,} bytes, and at most {max_bytes:,} are read. It is not the "
                    "file of a run that its name says, or too large for this machine."
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
        raise RunError(f"{path} cannot be read: it grows while it is read. Try again.")
    return content


def machine_memory() -> int:
    """Bytes of memory of this machine, which limit the size of a file that can be read on it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return 2**36


def absolute(path: str | os.PathLike[str]) -> Path:
    """An absolute path.

    Raises:
        FileNotFoundError: the path is relative to a working folder that was deleted.
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
    path: Path, content: bytes, *, durable: bool = True, within: Path | None = None
) -> None:
    """Replace a file in one step.

    A link at this path is replaced, not followed.

    Args:
        path: the file.
        content: all its bytes.
        durable: wait until the disk has stored the file, so that it is complete even after a power
            cut.
        within: a run directory whose folders must not be links, so that nothing is written outside
            of it.

    Raises:
        RunError: a folder of the run directory is a link.
        OSError: the file cannot be written: no permission, no folder, a full disk. The old file
            is unchanged then.
    """
    if not is_first():  # all processes of a launcher write the same content
        return
    name = f".{path.name}.{secrets.token_hex(8)}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK | _BINARY
    try:
        folder = _open_folder(path.parent, within)
        try:
            # Relative to the open folder, which nobody can replace by another meanwhile.
            directory: dict[str, int] = {"dir_fd": folder} if folder is not None else {}
            directories: dict[str, int] = (
                {"src_dir_fd": folder, "dst_dir_fd": folder} if folder is not None else {}
            )
            base = Path() if folder is not None else path.parent
            left_over = False
            try:
                handle = os.open(base / name, flags, 0o666, **directory)
                left_over = True
                with os.fdopen(handle, "wb") as stream:
                    stream.write(content)
                    stream.flush()
                    if durable:
                        os.fsync(stream.fileno())
                os.replace(base / name, base / path.name, **directories)
                left_over = False
            finally:
                if left_over:
                    os.unlink(base / name, **directory)
            if durable and folder is not None:
                with suppress(OSError):  # not possible on some network file systems
                    os.fsync(folder)
        finally:
            if folder is not None:
                os.close(folder)
    except OSError as error:
        raise explained(error, path) from error


def make_folder(path: Path, within: Path | None = None) -> None:
    """Make a folder and those above it.

    Raises:
        RunError: it is inside the run directory `within` and is a link.
        OSError: the folder cannot be made, or is a file.
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
    """Open a folder, following links down to `within` and not below; `None` if the system cannot."""
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
        f"{path} is a link, and nothing is written outside of a run directory. Remove the link; to write "
        "elsewhere, name that folder yourself."
    )


def explained(error: OSError, path: Path) -> OSError:
    """The same kind of error, with a message that states what to do."""
    hint = "Choose a folder that you can write to."
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "The disk is full: free some space. Files written before are whole."
    reason = os.strerror(error.errno) if error.errno else str(error)
    return type(error)(f"{path} cannot be written ({reason}). {hint}")
