"""JSON lines as datatrove writes them: text, id, and what it found out under metadata."""

from pathlib import Path

from data_tools.documents import Input, Invalid
from data_tools.sources import jsonl

FACTS = ("language", "language_score", "date", "dump", "file_path")


def inputs(root: Path, *, files: list[str], invalid: Invalid = "replace") -> list[Input]:
    """One input per file.  files: as in jsonl.  invalid: as in jsonl."""
    return jsonl.inputs(
        root,
        files=files,
        url_field="metadata.url",
        id_field="id",
        facts=tuple(f"metadata.{name}" for name in FACTS),
        invalid=invalid,
    )
