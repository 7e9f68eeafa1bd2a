"""Bars: what they say, and that they keep quiet (kind: contract)."""

from __future__ import annotations

import pytest

from hjbpde.progress import bar_over, last_number, last_of


def test_a_bar_says_the_loss_of_the_item_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    progress = pytest.importorskip("rich.progress")

    def update(self: object, task: int, **fields: str) -> None:
        said.append(fields["description"])

    monkeypatch.setattr(progress.Progress, "update", update)
    losses: list[float] = []
    for k, _ in bar_over(
        [4, 2], "ab", True, "fit", lambda: last_number("loss", losses)
    ):
        losses.append(float(k))
    assert said == ["fit a", "fit b, loss 4.0e+00"]


def test_no_bar_asks_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> str:
        raise AssertionError("asked")

    assert [k for k, _ in bar_over([1, 2], "ab", False, "fit", fail)] == [1, 2]
    assert not capsys.readouterr().out


def test_a_history_is_told_by_its_last_entry() -> None:
    entries = [{"residual": 1.0}, {"residual": 2e-3, "value_loss": 0.5, "seconds": 1.0}]
    assert last_of(entries) == "residual 2.0e-03, loss 5.0e-01"
    assert last_of([]) == ""
    assert last_number("loss", []) == ""
