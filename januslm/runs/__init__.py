"""Looking at runs and their checkpoints: what became of them, whether they are whole, export."""
