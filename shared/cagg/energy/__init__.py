"""The meter: what a run used, from hardware counters or models, attributed so that everything adds up.

``meter`` is the door; ``attribution``, ``sharing`` and ``uncertainty`` are pure arithmetic; ``usage`` and ``host`` read
processor time; ``sources`` are the counters.
"""
