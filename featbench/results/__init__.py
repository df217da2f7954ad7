"""The results folder: the row of a trained model, results.csv, predictions, kept models; no statistics."""
