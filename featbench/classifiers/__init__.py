"""Stage 2: classical classifiers on cached features. `evaluate` says how."""
