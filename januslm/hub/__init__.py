"""A model as a folder that Hugging Face's transformers loads, and that folder pushed to a hub."""
