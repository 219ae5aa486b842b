"""One file per way to find documents that came before: `FINGERPRINT`, `fingerprint` and `kept`."""
