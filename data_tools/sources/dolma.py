"""JSON lines as dolma has them: text, id, source, and more under metadata."""

from pathlib import Path

from data_tools.documents import Input, Invalid
from data_tools.sources import jsonl


def inputs(root: Path, *, files: list[str], invalid: Invalid = "replace") -> list[Input]:
    """One input per file.  files: as in jsonl.  invalid: as in jsonl."""
    return jsonl.inputs(
        root,
        files=files,
        url_field="metadata.url",
        id_field="id",
        facts=("source", "created"),
        invalid=invalid,
    )
