"""What happened, in a form that nobody can change unnoticed: entries, the tree over them, checkpoints, verification.

What stands outside the log, and why: reservations, allotments and the budget journal are working state, whose
every outcome is also an entry; the forecast cache can be fetched again; blobs are named by their digest in a leaf.
"""
