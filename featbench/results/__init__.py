"""Results: the row of a trained model, the results folder, metrics and tables."""
