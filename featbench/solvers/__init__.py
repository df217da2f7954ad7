"""Numerical methods as scikit-learn estimators; they know nothing of featbench but its errors."""
