"""Train and validate a classifier every night, when the grid is cleanest before 06:00."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from airflow.sdk import CronTriggerTimetable, dag, task

import cagg

MODELS = Path(os.environ.get("MODELS", tempfile.gettempdir()))  # train leaves the model there: all workers see it

GATE = {"budget": "acme/ml/nightly", "finish_by": "06:00"}


class ValidationFailed(Exception):
    """The model is not good enough to be released; the message names every check that it missed."""


def split() -> list[Any]:
    """Load 1797 handwritten digits, which ship with scikit-learn, and keep a quarter for the validation."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, digits = load_digits(return_X_y=True)
    return list(train_test_split(images, digits, test_size=0.25, random_state=7, stratify=digits))


# energy is what a real project's night would use: these digits alone are too small to be worth a wait
@task.carbon_aware(kind="training", energy="2 kWh", duration="20m", retries=1, **GATE)
def train(run_id: str, params: dict[str, Any]) -> str:
    """Fit the model and return the path of its file."""
    import joblib
    from sklearn.ensemble import RandomForestClassifier

    images, _, digits, _ = split()
    path = MODELS / f"nightly-{run_id}.joblib"
    joblib.dump(RandomForestClassifier(n_estimators=params["trees"], random_state=7).fit(images, digits), path)
    if run := cagg.current_run():
        run.add_output("digits-model", path, role="model")
    return str(path)


@task.carbon_aware(kind="validation", energy="1 Wh", duration="1m", **GATE)
def validate(model: str, params: dict[str, Any]) -> float:
    """Return the accuracy; raise ValidationFailed when it, or the recall of any digit, is below its limit."""
    import joblib
    from sklearn.metrics import accuracy_score, recall_score

    if run := cagg.current_run():  # None while the gate is switched off
        run.add_input("digits-model", Path(model), role="model")
    _, images, _, digits = split()
    predicted = joblib.load(model).predict(images)
    accuracy = float(accuracy_score(digits, predicted))
    recalls = recall_score(digits, predicted, average=None)
    missed = [f"recall of {digit} is {recall:.3f}" for digit, recall in enumerate(recalls) if recall < 0.8]
    if accuracy < params["least_accuracy"]:
        missed.append(f"accuracy is {accuracy:.3f}, below {params['least_accuracy']:.3f}")
    if missed:
        raise ValidationFailed("; ".join(missed))
    return accuracy


@dag(
    schedule=CronTriggerTimetable("0 22 * * *", timezone="Europe/London"),
    params={"trees": 200, "least_accuracy": 0.95},
)
def nightly() -> None:
    validate(train())


night = nightly()

if __name__ == "__main__":
    sys.exit(0 if night.test().state == "success" else 1)
