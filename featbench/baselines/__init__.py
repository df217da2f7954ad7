"""Reference columns: networks trained on the same splits as the classifiers, for comparison."""
