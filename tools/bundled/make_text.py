#!/usr/bin/env python3
"""Join the hard-wrapped lines of plain-text books: one paragraph a line, one blank line between.

usage: make_text.py -o OUT.txt [--from REGEX] [--until REGEX] BOOK.txt [BOOK.txt ...]

--from and --until cut the (single) book: from the first line that matches, up to and without the
first later line that matches. Chapter numbers, verse and tables are paragraphs like any other.
"""
import argparse
import pathlib
import re


def cut(text, first, last):
    """The part of `text` from the line that matches `first` up to the line that matches `last`."""
    begin = 0
    if first:
        match = re.search(first, text, re.MULTILINE)
        if not match:
            raise SystemExit(f"make_text.py: error: --from {first}: no such line")
        begin = match.start()
    end = len(text)
    if last:
        match = re.compile(last, re.MULTILINE).search(text, begin + 1)
        if not match:
            raise SystemExit(f"make_text.py: error: --until {last}: no such line")
        end = match.start()
    return text[begin:end]


def unwrap(text):
    """Paragraphs, which blank lines separate, each on a line of its own."""
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", text.replace("\r", ""))]
    return "\n\n".join(p for p in paragraphs if p) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("books", nargs="+", type=pathlib.Path)
    parser.add_argument("-o", "--output", required=True, type=pathlib.Path)
    parser.add_argument("--from", dest="first", default="")
    parser.add_argument("--until", dest="last", default="")
    options = parser.parse_args()
    texts = [unwrap(cut(b.read_text(encoding="utf-8"), options.first, options.last))
             for b in options.books]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("\n".join(texts), encoding="utf-8")


if __name__ == "__main__":
    main()
