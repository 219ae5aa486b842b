"""The one backbone of all objectives: attention, positions, packing, losses."""
