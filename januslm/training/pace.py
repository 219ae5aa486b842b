"""How fast a run is, and how long it will still take: without the first updates of a start."""

WARM_UP = 3  # updates: they allocate, compile and fill caches, and say nothing about the others


class Pace:
    """Updates of this process, their tokens and seconds; what was no training is left out.

    The time left has in it what validations took.
    """

    def __init__(self, now: float) -> None:
        self.began = now  # of what is counted
        self.updates, self.tokens, self.warm = 0, 0.0, 0
        self.validations, self.validating = 0, 0.0

    def updated(self, tokens: float, now: float) -> None:
        """An update has ended."""
        if self.warm < WARM_UP:
            self.warm += 1
            self.first = now - self.began, tokens  # the best that is known until then
            self.began, self.updates, self.tokens = now, 0, 0.0
            return
        self.updates, self.tokens = self.updates + 1, self.tokens + tokens

    def paused(self, seconds: float, validation: bool = False) -> None:
        """Something else took so long."""
        self.began += seconds
        if validation:
            self.validations, self.validating = self.validations + 1, self.validating + seconds

    def tokens_per_second(self, now: float) -> float:
        """Of all ranks."""
        seconds, tokens = (now - self.began, self.tokens) if self.updates else self.first
        return tokens / max(seconds, 1e-9)

    def left(self, updates: int, validations: int, now: float) -> float | None:
        """Seconds until so many more are done; None during the warm-up."""
        if not self.updates:
            return None
        looking = self.validating / max(self.validations, 1) * validations
        return (now - self.began) / self.updates * updates + looking
