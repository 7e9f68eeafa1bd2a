"""2-D manufactured problem, 801 x 801 nodes."""

from .measuring import Measured
from .planes import plane


def measure() -> list[Measured]:
    """Seconds, see `planes.plane`."""
    return plane(801, 1.1)
