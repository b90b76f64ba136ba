"""Where commands write: what is wrong with a place is said before the work, and what was computed is never lost for want of one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from convscope.errors import BadInput, ConvscopeError, StoreConflict
from convscope.files import local_path
from convscope.text import one_line


@contextmanager
def reserved(folder: str, *, resumes: bool) -> Generator[None]:
    """Within the block, the folder is there and can be written to. If the block fails, folders made for it and still empty are removed.

    Args:
        folder: As given, or chosen by the command.
        resumes: Whether the command goes on in a folder that holds something.

    Raises:
        StoreConflict: It is taken, cannot be made or cannot be written to.
    """
    place, made = Path(folder), list[Path]()
    try:
        try:
            if place.exists() and not resumes and (not place.is_dir() or any(place.iterdir())):
                raise StoreConflict(f"--out {folder} is there already; choose another folder")
            for each in [*reversed(place.parents), place]:
                if each.exists() and not each.is_dir():
                    raise StoreConflict(f"--out {folder}: {each} is a file, not a folder")
                if not each.exists():
                    each.mkdir()
                    made.append(each)
            _try_to_write(place)
        except OSError as error:
            raise StoreConflict(f"--out {folder}: cannot be written to ({one_line(error)}); choose another folder") from None
        yield
    except BaseException:
        for each in reversed(made):
            try:
                each.rmdir()
            except OSError:  # it holds something, or has gone
                break
        raise


def check_file(file: Path, option: str = "--out") -> None:
    """Says before the work that a file cannot be written.

    Raises:
        StoreConflict: Its folder is not there or cannot be written to, or it is itself a folder.
    """
    try:
        if not local_path(file).parent.is_dir() or file.is_dir():
            what = f"{file} is a folder" if file.is_dir() else f"there is no folder {file.parent}"
            raise StoreConflict(f"{option} {file}: {what}")
        file.is_symlink()  # a name that is too long
        _try_to_write(file.parent)
    except OSError as error:
        raise StoreConflict(f"{option} {file}: cannot be written ({one_line(error)}); choose another place") from None


def write_somewhere(write: Callable[[Path], Path], place: Path) -> Path:
    """What `write` wrote to a place; if it cannot, it writes to a temporary folder, and the error says where.

    Raises:
        BadInput: It was written elsewhere, or nowhere.
    """
    try:
        return write(place)
    except (OSError, StoreConflict) as error:
        first = error.message if isinstance(error, ConvscopeError) else one_line(error)
    try:
        kept = write(Path(tempfile.mkdtemp(prefix="convscope-")) / place.name[-100:])
    except (OSError, StoreConflict) as error:
        nowhere = f"nor to {tempfile.gettempdir()} ({one_line(error)}): the work is lost"
        raise BadInput(f"{place}: cannot be written ({first}), {nowhere}") from None
    raise BadInput(f"{place}: cannot be written ({first}); what was computed is kept in {kept}")


def _try_to_write(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0" * 4096)
        file.flush()
