"""Predictions read, checked line by line and scored."""
