"""A verdict as JSON: valid everywhere, no NaN tokens, written all or nothing."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..verdict import plain


def write_json(content: Mapping[str, Any], path: str | Path) -> Path:
    """Write plain data as JSON; numbers that are not finite become null."""
    text = json.dumps(plain(content), indent=2, allow_nan=False, ensure_ascii=False)
    return write_text(text + "\n", path)


def write_text(text: str, path: str | Path) -> Path:
    """Write `text` to `path` through a temporary file: a reader never sees half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        # mkstemp makes files private; a report is for whoever may read the folder.
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
