"""A page that tells a run, or several, to a colleague: one HTML file that needs no network."""
