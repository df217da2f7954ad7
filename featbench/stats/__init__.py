"""Metrics, intervals, tests and advice: functions of arrays and DataFrames; no files.

In all of them `rows` are what `load_results` returns, `models` as a DataFrame what `main_rows` makes of those, and
`table`, `never` and `bold` what `accuracy_table`, `never_table` and `chosen_cells` do.
"""
