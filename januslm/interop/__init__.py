"""Weights in and out, one file per format; `python -m januslm.interop` converts."""
