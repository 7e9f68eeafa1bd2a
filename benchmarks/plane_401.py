"""2-D manufactured problem, 401 x 401 nodes."""

from .measuring import Measured
from .planes import plane


def measure() -> list[Measured]:
    """Seconds, see `planes.plane`."""
    return plane(401, 0.4)
