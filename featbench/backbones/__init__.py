"""Backbones: name -> network, weights, preprocessing and layers."""
