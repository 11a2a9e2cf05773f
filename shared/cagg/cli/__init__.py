"""The command line: ``cagg`` and ``python -m cagg``. Reads settings, asks the rooms below, prints; holds no rule."""
