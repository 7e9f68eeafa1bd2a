"""A bare torch module as candidate (kind: agreement, contract)."""

from __future__ import annotations

from typing import Any

import pytest

import hjbpde as hjb
from verification import cross_check

torch = pytest.importorskip("torch")
P = (-1.1 + 41.21**0.5) / 20  # the article's Riccati root, 10 P^2 + 1.1 P - 1 = 0


class Quadratic(torch.nn.Module):
    """V(x) = -P x^2 / 2 - sigma^2 P / (2 rho) of the article's LQR, shape (n, 1)."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.p = torch.nn.Parameter(torch.tensor(factor * P, dtype=torch.float64))

    def forward(self, x: Any) -> Any:
        return -0.5 * self.p * x[:, :1] ** 2 - 0.09 * self.p / 0.2


@pytest.mark.parametrize(
    ("factor", "status"), [(1.0, "agree"), (1.05, "differ"), (-1.41, "differ")]
)
def test_a_torch_module_is_judged_like_any_value(factor: float, status: str) -> None:
    reference = hjb.solve(hjb.catalogue.get("lqr"), 201)
    verdict = cross_check(Quadratic(factor), reference)
    assert verdict.status == status, verdict


def test_a_module_of_the_wrong_shape_is_refused() -> None:
    module = torch.nn.Linear(1, 3)
    with pytest.raises(hjb.ProblemError, match="shape"):
        cross_check(module, hjb.solve(hjb.catalogue.get("lqr"), 51))
