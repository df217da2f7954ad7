"""Benchmarks: `make speed` runs them and prints their tables. Figures are ratios within one run on one machine."""
