"""Watches a training by running means of its rows: a single noisy row says nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class Watch:
    """Base of what looks at every row of the statistics and says what is wrong, in one line.

    Args:
        names: terms of which running means are kept.
        memory: weight of the past in them.
    """

    def __init__(self, names: Iterable[str], memory: float) -> None:
        self.names, self.memory = tuple(names), memory
        self.means: dict[str, float] = {}

    def remember(self, row: Mapping[str, float]) -> None:
        """Let a row move the means."""
        for name in self.names:
            if name in row:
                self.means[name] = self.memory * self.means.get(name, row[name]) + (1 - self.memory) * row[name]

    def go_on(self, rows: Iterable[Mapping[str, float]]) -> None:
        """Take up the rows of an interrupted training."""
        for row in rows:
            self.remember(row)

    def judge(self, row: Mapping[str, float]) -> str | None:
        """Look at a new row.

        Returns:
            What is wrong and what to try, in one line; None where nothing is.
        """
        self.remember(row)
        return None
