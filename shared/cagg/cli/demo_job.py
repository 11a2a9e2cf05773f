"""The job that ``cagg demo`` lets an engine run: train a small classifier and validate it. Nothing but Python."""

from __future__ import annotations

__all__ = ["validate"]

_LEAST_ACCURACY = 0.9


def validate() -> float:
    """Train a small classifier on made-up data and return its accuracy on data it has not seen.

    Raises:
        ValueError: it is worse than a release may be.
    """
    import random

    chance = random.Random(20230314)  # noqa: S311 - made-up data, the same every time
    rows = [[chance.gauss(0, 1) for _ in range(8)] for _ in range(4_000)]
    truth = [1.0 if row[0] + 2 * row[1] - row[2] > 0 else 0.0 for row in rows]
    weights = _trained(rows[:3_000], truth[:3_000])
    right = sum(
        (sum(weight * value for weight, value in zip(weights, row, strict=True)) > 0) == (label > 0.5)
        for row, label in zip(rows[3_000:], truth[3_000:], strict=True)
    )
    accuracy = right / 1_000
    if accuracy < _LEAST_ACCURACY:
        raise ValueError(f"the model is right in {accuracy:.1%} of the cases; a release needs {_LEAST_ACCURACY:.0%}")
    return accuracy


def _trained(rows: list[list[float]], truth: list[float]) -> list[float]:
    """Logistic regression by stochastic gradient descent."""
    from math import exp

    weights = [0.0] * len(rows[0])
    for turn in range(12):
        for row, label in zip(rows, truth, strict=True):
            score = sum(weight * value for weight, value in zip(weights, row, strict=True))
            step = 0.5 / (turn + 1) * (label - 1 / (1 + exp(-max(-30.0, min(30.0, score)))))
            weights = [weight + step * value for weight, value in zip(weights, row, strict=True)]
    return weights
