"""2-D manufactured problem, 801 x 801: time of the monotone solution and the bar."""

import hjbpde as hjb

from .measuring import Measured, seconds

TARGET = 1.1
METHOD = hjb.PolicyIteration(order=1)


def measure() -> list[Measured]:
    """Warm medians; the second includes defect correction and the full error bar."""
    problem = hjb.catalogue.get("manufactured", dimension=2)
    reports = []

    def monotone() -> None:
        reports.append(hjb.solve(problem, (801, 801), METHOD).report)

    def full() -> None:
        hjb.solve(problem, (801, 801))

    seconds(monotone)
    solving = [r.seconds["tabulate"] + r.seconds["solve"] for r in reports[1:]]
    middle = sorted(solving)[len(solving) // 2]
    return [
        Measured("tables and solution", middle, TARGET, unit="s"),
        Measured("with order 2 and its bar", seconds(full, 3), 2 * TARGET, unit="s"),
    ]
