"""2-D manufactured problem, 401 x 401: time of the monotone solution and the bar."""

import hjbpde as hjb

from .measuring import Measured, seconds

TARGET = 0.4
METHOD = hjb.PolicyIteration(order=1)


def measure() -> list[Measured]:
    """Warm medians; the second includes defect correction and the full error bar."""
    problem = hjb.catalogue.get("manufactured", dimension=2)
    reports = []

    def monotone() -> None:
        reports.append(hjb.solve(problem, (401, 401), METHOD).report)

    def full() -> None:
        hjb.solve(problem, (401, 401))

    seconds(monotone)
    solving = [r.seconds["tabulate"] + r.seconds["solve"] for r in reports[1:]]
    middle = sorted(solving)[len(solving) // 2]
    return [
        Measured("tables and solution", middle, TARGET, unit="s"),
        Measured("with order 2 and its bar", seconds(full, 3), 2 * TARGET, unit="s"),
    ]
