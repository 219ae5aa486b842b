"""Token files of other projects: one file per format, which reads and writes it."""
