"""Text and pairs of your own, for docs/first-hour.md: the documentation that Python carries along.

  python docs/examples/python_docs.py        writes mine.jsonl and mine.csv where you stand

mine.jsonl: paragraphs, {"text": ...} a line.  mine.csv: sentences of 5 to 14 words; `source` is the
sentence in lower case and without punctuation, `target` the sentence.
"""

import ast
import csv
import json
import re
import sysconfig
from pathlib import Path
from pydoc_data import topics


def documentation():
    """The language reference, and the docstrings of the standard library."""
    yield from topics.topics.values()
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" in path.parts or "test" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        yield from (ast.get_docstring(n) or "" for n in ast.walk(tree) if isinstance(n, kinds))


paragraphs = [
    " ".join(part.split())
    for text in documentation()
    for part in text.split("\n\n")
    if len(part.split()) > 5
]
with open("mine.jsonl", "w", encoding="utf-8") as file:
    file.writelines(json.dumps({"text": text}) + "\n" for text in paragraphs)

sentences = {
    sentence
    for text in paragraphs
    for sentence in re.split(r"(?<=[.?!]) ", text)
    if 5 <= len(sentence.split()) <= 14 and re.fullmatch(r"[A-Z][A-Za-z,;:'\"() -]+[.?!]", sentence)
}
with open("mine.csv", "w", encoding="utf-8", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["source", "target"])
    for sentence in sorted(sentences):
        rows.writerow([" ".join(re.sub(r"[^a-z ]", " ", sentence.lower()).split()), sentence])
print(f"mine.jsonl: {len(paragraphs):,} paragraphs; mine.csv: {len(sentences):,} sentences")
