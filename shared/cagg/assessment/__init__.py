"""Estimates from an engine's run history what its pipelines used, and which of them a gate could move.

``history`` folds past runs into energy by half hour, ``power`` says what they are taken to draw, ``intensities`` what
the grid emitted in those half hours, ``judging`` puts them together into the figures of ``figures``; ``page`` and
``listing`` show them. Nothing here asks anybody: values in, values out.
"""
