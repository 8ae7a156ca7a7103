#!/usr/bin/env python3
"""usage: troubleshooting.py BIN SOURCE WORK

Holds docs/guide/troubleshooting.md to the code: every text in its third-level headings is one that a
source file has. `...` stands for anything.
"""
import re
import sys
from pathlib import Path

SHORTEST = 8  # characters of a piece between two `...`; a shorter one says nothing


def text_of(sources):
    """All sources with adjacent string literals joined and escapes undone."""
    text = "\n".join(path.read_text(errors="replace") for path in sources)
    return re.sub(r'"\s*\n\s*"', "", text).replace('\\"', '"')


def main():
    source = Path(sys.argv[2])
    rooms = ("core", "runtime", "eval", "export", "factorize", "profile", "pipeline", "tools")
    code = text_of(path for room in rooms for path in sorted((source / room).rglob("*.cc")))
    headings = re.findall(r"^### `(.*)`$", (source / "docs/guide/troubleshooting.md").read_text(), re.M)
    if len(headings) < 20:
        sys.exit(f"FAILED: expected the errors as headings, got {len(headings)}")
    unknown = []
    for heading in headings:
        pieces = [piece.strip() for piece in heading.split("...")]
        pieces = [piece for piece in pieces if len(piece) >= SHORTEST]
        if not pieces or any(piece not in code for piece in pieces):
            unknown.append(heading)
    if unknown:
        sys.exit("FAILED: no source says:\n" + "\n".join(unknown))


if __name__ == "__main__":
    main()
