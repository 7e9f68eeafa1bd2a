"""What every test shares: one thread, strict floating point, repeatable examples,
and runs that are killed."""

import importlib.util
import os
from contextlib import contextmanager

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("house", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("house")

collect_ignore = [] if importlib.util.find_spec("torch") else ["neural"]


@pytest.fixture(autouse=True)
def strict_floating_point():
    """Division by zero, overflow and NaN raise, in NumPy code at least."""
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        yield


@pytest.fixture(autouse=True)
def closed_figures():
    """No figure survives its test."""
    yield
    import sys

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def killed(monkeypatch):
    """``with killed(owner, name, calls)``: the call of owner.name after `calls` others
    raises KeyboardInterrupt, which must come out."""

    @contextmanager
    def within(owner, name, calls):
        whole, done = getattr(owner, name), []

        def short(*arguments, **options):
            if len(done) == calls:
                raise KeyboardInterrupt
            done.append(1)
            return whole(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, short)
            with pytest.raises(KeyboardInterrupt):
                yield

    return within
