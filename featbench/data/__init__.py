"""Labelled images: name or folder -> splits in a fixed order with stable ids, decoding, preprocessing."""
