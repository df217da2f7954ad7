"""Metrics, intervals, tests and advice: functions of arrays and DataFrames; no files."""
