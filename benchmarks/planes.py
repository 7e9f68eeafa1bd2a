"""2-D manufactured problem on n x n nodes: time of the solution and its bar."""

import hjbpde as hjb

from .measuring import Measured, seconds

METHOD = hjb.PolicyIteration(order=1)


def plane(n: int, target: float) -> list[Measured]:
    """Warm medians; the others include the full error bar, at order 1 and order 2."""
    problem = hjb.catalogue.get("manufactured", dimension=2)
    reports = []

    def monotone() -> None:
        reports.append(hjb.solve(problem, (n, n), METHOD).report)

    def full() -> None:
        hjb.solve(problem, (n, n))

    whole = seconds(monotone)
    solving = [r.seconds["tabulate"] + r.seconds["solve"] for r in reports[1:]]
    middle = sorted(solving)[len(solving) // 2]
    return [
        Measured("tables and solution", middle, target, unit="s"),
        Measured("with its bar", whole, 2 * target, unit="s"),
        Measured("at order 2 with its bar", seconds(full, 3), 2 * target, unit="s"),
    ]
