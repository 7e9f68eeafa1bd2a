"""The best choice of one player, each answered by the other, one step ahead.

    Q(x) = max_a min_b { phi r(m, a, b) + exp(-rho delta) mean I[V](x_b) }

The order is that of the problem, at every node and through the step itself: each choice
a that is tried is answered by a search over b.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .lookahead import Lookahead
from .parts import Part
from .search import Search, closed_form, limits

Array = NDArray[np.float64]


@dataclass(eq=False)
class Reply(Search):
    """The adversary's search, worth the other way, while `choice` (n, m) is held."""

    choice: Array = field(default_factory=lambda: np.zeros((0, 0)))

    def _shifted(self, a: Array) -> list[Array]:
        # Every choice of the controller asks for a reply: samples are enough.
        return []

    def _worth(self, V: Array, a: Array) -> Array:
        return -super()._worth(V, np.concatenate([self.choice, a], axis=1))


@dataclass(eq=False)
class Choice(Search):
    """The controller's search: a control is worth what the best reply leaves of it."""

    reply: Reply = field(kw_only=True)
    b: Array = field(default_factory=lambda: np.zeros((0, 0)))
    """Replies (n, mb) that searches start from."""
    wide: bool = False
    enough: float = 1e-12
    """Share of sup|V| that a round of refining a reply must gain to be repeated."""

    def answered(self, V: Array, a: Array) -> tuple[Array, Array]:
        """The reply to a and what is left, (n,)."""
        self.reply.choice = a
        if self.wide:
            b, worth = self.reply.improve(V, self.b, wide=True)
        else:
            b, worth = self.reply.follow(V, self.b, self.enough)
        return b, -worth

    def _worth(self, V: Array, a: Array) -> Array:
        return self.answered(V, a)[1]


@dataclass(eq=False)
class GameSearch:
    """Both players' controls side by side, u (n, m + mb)."""

    choice: Choice
    holding: bool = False
    """Whether the controller's are held, and only replies improve."""

    @classmethod
    def of(cls, look: Lookahead, part: Part, march: bool = False) -> GameSearch:
        """On the nodes of `look`, whose problem is the joint one of the part.

        Raises
        ------
        ProblemError
            An infinite box without closed form.
        """
        m, mb = part.problem.n_controls, part.opposed
        tables = closed_form(look, march, mb)
        first, second = part.problem.controls, part.problem.adversary
        reply = Reply(
            look, second, *limits(look, second), tables, [],
            first=m, opposed=mb,
        )  # fmt: skip
        choice = Choice(
            look, first, *limits(look, first), tables, [],
            opposed=mb, reply=reply,
        )  # fmt: skip
        return cls(choice)

    @property
    def look(self) -> Lookahead:
        """The steps."""
        return self.choice.look

    @look.setter
    def look(self, look: Lookahead) -> None:
        self.choice.look = self.choice.reply.look = look

    @property
    def now(self) -> Array | None:
        """Where V depends on time, a guess of V at the start of the step."""
        return self.choice.now

    @now.setter
    def now(self, now: Array | None) -> None:
        self.choice.now = self.choice.reply.now = now

    def renew(self) -> None:
        """As `Search.renew`, for both."""
        self.choice.renew()
        self.choice.reply.tables = self.choice.tables

    def start(self) -> Array:
        """A first admissible pair of policies."""
        return np.hstack([self.choice.start(), self.choice.reply.start()])

    def improve(self, V: Array, u: Array, wide: bool) -> tuple[Array, Array]:
        """A better choice and the reply to it, or a better reply, and their worth."""
        a = self._split(u, wide)
        if not self.holding:
            a, _ = self.choice.improve(V, a, wide)
        return self._answered(V, a)

    def follow(self, V: Array, u: Array, enough: float) -> tuple[Array, Array]:
        """The same for the next step of a march."""
        self.choice.enough = 0.1 * enough
        a, _ = self.choice.follow(V, self._split(u, False), enough)
        return self._answered(V, a)

    def _split(self, u: Array, wide: bool) -> Array:
        m = self.choice.low.shape[1]
        self.choice.b, self.choice.wide = np.ascontiguousarray(u[:, m:]), wide
        return np.ascontiguousarray(u[:, :m])

    def _answered(self, V: Array, a: Array) -> tuple[Array, Array]:
        b, worth = self.choice.answered(V, a)
        return np.hstack([a, b]), worth


def search_of(look: Lookahead, part: Part, march: bool = False) -> Search | GameSearch:
    """The search of a problem, with or without an adversary."""
    if part.problem.adversary is None:
        return Search.of(look, march)
    return GameSearch.of(look, part, march)
