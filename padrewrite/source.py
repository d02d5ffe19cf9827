"""Where in the source something is: a line of a file, printed and saved by the file's name alone."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from typing import Any

import torch

_LIBRARIES = tuple(os.path.join(os.path.dirname(os.path.abspath(f)), "") for f in (torch.__file__, __file__))


class Source(str):
    """``net.py:14``: what people read and plans keep. The whole path is for this process only."""

    path: str
    line: int

    def __new__(cls, path: str, line: int) -> Source:
        made = super().__new__(cls, f"{os.path.basename(path)}:{line}")
        made.path, made.line = os.path.abspath(path), line
        return made

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """A copy or a pickle of it is text that names no folder."""
        return str, (str(self),)

    @property
    def is_library(self) -> bool:
        """Whether it is a line of torch or of padrewrite."""
        return self.path.startswith(_LIBRARIES)


def first_outside(lines: Iterable[tuple[str, int]]) -> Source | None:
    """The first of (file, line) that is neither torch's nor ours, nor in code that was never a file."""
    for file, line in lines:
        if not file.startswith((*_LIBRARIES, "<")):
            return Source(file, line)
    return None


def definition(thing: Any) -> Source | None:
    """Where a class, a function or a module is defined; None if no file says."""
    plain = inspect.unwrap(thing)
    try:
        file, line = inspect.getsourcefile(plain), inspect.getsourcelines(plain)[1]
    except (TypeError, OSError):
        return None
    return None if file is None else Source(file, max(line, 1))
