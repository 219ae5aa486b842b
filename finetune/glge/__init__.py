"""GLGE: its archives made ready, its leaderboard recomputed, its submission files."""
