"""Which kernel gets the next batch: the one where a trial is expected to save the most cycles.

The estimate is that of Ansor (Zheng et al., OSDI 2020, section 6): cycles of one inference times
the larger of what the last trials brought and an optimistic guess that shrinks with every trial.
"""

from __future__ import annotations

from dataclasses import dataclass, field

OPTIMISM = 0.25  # a kernel may get this much faster, divided by the trials it has had
WINDOW = 2  # batches that "the last trials" are


@dataclass
class Progress:
    """How far a kernel is.

    Attributes:
        calls: times per inference.
        history: trials so far and fewest cycles then, an entry a batch.
    """

    calls: int
    history: list[tuple[int, float]] = field(default_factory=list)

    def add(self, trials: int, best: float) -> None:
        """A batch is done."""
        self.history.append((trials, best))

    @property
    def expected(self) -> float:
        """Cycles of one inference that the next trial is expected to save."""
        trials, best = self.history[-1]
        then_trials, then_best = self.history[max(0, len(self.history) - 1 - WINDOW)]
        recent = (then_best - best) / best / max(1, trials - then_trials)
        return self.calls * best * max(recent, OPTIMISM / trials)
