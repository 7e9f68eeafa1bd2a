"""One labelled file of arrays and plain data; written atomically, no pickle."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError

VERSION = 1


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its name at the end: never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_arrays(
    path: str | Path,
    label: str,
    arrays: Mapping[str, NDArray[Any]],
    header: Mapping[str, Any],
) -> Path:
    """Write arrays and a JSON header to `path`, all or nothing."""
    path = Path(path)
    text = json.dumps({"label": label, "version": VERSION, **header})
    with replacing(path) as file:
        np.savez(file, header=np.array(text), **dict(arrays))  # type: ignore[arg-type]
    return path


def read_arrays(
    path: str | Path, label: str
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and header of a file written by `write_arrays`.

    Raises
    ------
    ProblemError
        A missing, truncated or foreign file, or one that would need unpickling.
    """
    path = Path(path)
    try:
        # Opened here: on a broken archive np.load would leave its own file open.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        found = header.get("label")
    except FileNotFoundError:
        raise ProblemError(f"there is no file {path}.") from None
    except (
        OSError, ValueError, KeyError, EOFError, AttributeError, TypeError,
        zipfile.BadZipFile,
    ) as cause:  # fmt: skip
        raise ProblemError(
            f"{path} is truncated or not a file of ours ({type(cause).__name__}: "
            f"{cause}). Nothing was loaded; pickled data are never read."
        ) from cause
    if found != label:
        raise ProblemError(f"{path} holds {found!r}, expected {label!r}.")
    if header.get("version", 0) > VERSION:
        raise ProblemError(
            f"{path} was written by a newer version (format {header['version']})."
        )
    return arrays, header
