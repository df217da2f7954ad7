"""Prediction: the kept models of a results folder on new images."""
