"""One thread, so that the same seed gives the same bits; runs that are killed."""

from contextlib import contextmanager

import pytest
import torch

torch.set_num_threads(1)


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
