"""A trained model writing: caches, captured graphs, packed weights, the loop over many texts."""
