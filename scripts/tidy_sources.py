"""usage: tidy_sources.py --build BUILD [--jobs N] [--limit N]    paths of sources on standard input

clang-tidy on each source as BUILD/compile_commands.json compiles it, alone or as part of a unit
(cmake/Unity.cmake), and without the precompiled headers, which are GCC's. BUILD/tidy remembers what
was found clean by the hashes of the source, of its own headers and of what judged it; such a source
is not looked at again. With a limit and more sources than that to look at, none is, which is said.
Ends with 1 when one is not clean.
"""
import argparse
import concurrent.futures
import functools
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys


def commands_of(build, root):
    """The compile command and its directory for each source, as {path: (words, directory)}."""
    commands = {}
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        entries = json.load(file)
    for entry in entries:
        words = shlex.split(entry["command"])
        if "-include" in words:
            at = words.index("-include")
            if words[at + 1].endswith("cmake_pch.hxx"):
                del words[at:at + 2]
        del words[words.index("-o"):words.index("-o") + 2]
        words = [word for word in words if word != "-Winvalid-pch"]
        sources = [entry["file"]]
        if os.path.basename(os.path.dirname(entry["file"])) == "unity":
            with open(entry["file"], encoding="utf-8") as file:
                sources = re.findall('#include "(.+)"', file.read())
        for source in sources:
            path = os.path.relpath(source, root)
            own = [source if word == entry["file"] else word for word in words]
            commands.setdefault(path, (own, entry["directory"]))
    return commands


@functools.cache
def digest(path):
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return "none"


class Stamps:
    """What was found clean: a file for each source, with the hashes that it was found with."""

    def __init__(self, build, root):
        self.folder = os.path.join(build, "tidy")
        self.root = root
        os.makedirs(self.folder, exist_ok=True)
        version = subprocess.run(["clang-tidy", "--version"], capture_output=True, text=True,
                                 check=True).stdout
        self.judge = hashlib.sha256((version + digest(os.path.join(root, ".clang-tidy"))).encode())

    def path(self, source):
        return os.path.join(self.folder, source.replace("/", "_") + ".json")

    def state(self, command, inputs):
        judge = self.judge.copy()
        judge.update("\0".join(command).encode())
        return {"judge": judge.hexdigest(),
                "inputs": {name: digest(os.path.join(self.root, name)) for name in inputs}}

    def is_clean(self, source, command):
        try:
            with open(self.path(source), encoding="utf-8") as file:
                stamp = json.load(file)
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        return stamp == self.state(command, stamp["inputs"])

    def write(self, source, command, directory):
        words = [word for word in command if word != "-c"] + ["-MM", "-MT", "x"]
        made = subprocess.run(words, capture_output=True, text=True, cwd=directory, check=False)
        if made.returncode != 0:
            return
        inputs = made.stdout.replace("\\\n", " ").split()[1:]
        own = {os.path.relpath(os.path.join(directory, name), self.root) for name in inputs}
        own = sorted(name for name in own if not name.startswith(".."))
        with open(self.path(source), "w", encoding="utf-8") as file:
            json.dump(self.state(command, own), file)


def look_at(source, database, root):
    """Returns whether the source is clean, and what clang-tidy said."""
    said = subprocess.run(["clang-tidy", "--quiet", "-p", database, "--extra-arg=-ferror-limit=0",
                           source], capture_output=True, text=True, check=False)
    if said.returncode == 0:
        return True, ""
    # Clang 14 refuses headers of LibTorch 1.13 in C++20 (a std::vector of the incomplete
    # c10::IValue) and goes on: what it says of our own lines counts.
    findings = re.split(r"^(?=/\S+:\d+:\d+: (?:warning|error):)", said.stdout, flags=re.MULTILINE)
    own = [text for text in findings if text.startswith(root + os.sep)]
    if any(text.startswith("/") for text in findings):
        return not own, "".join(own)
    return False, said.stdout + said.stderr


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    root = os.getcwd()
    build = os.path.abspath(options.build)
    commands = commands_of(build, root)
    stamps = Stamps(build, root)
    sources = [line.strip() for line in sys.stdin if line.strip() in commands]
    open_ones = [s for s in sources if not stamps.is_clean(s, commands[s][0])]
    print(f"tidy: {len(sources)} sources, {len(sources) - len(open_ones)} of them known to be clean",
          file=sys.stderr)
    if options.limit is not None and len(open_ones) > options.limit:
        print(f"tidy: {len(open_ones)} to look at, too many here; run: make tidy", file=sys.stderr)
        return 0
    database = os.path.join(build, "tidy", "database")
    os.makedirs(database, exist_ok=True)
    with open(os.path.join(database, "compile_commands.json"), "w", encoding="utf-8") as file:
        json.dump([{"file": os.path.join(root, source), "directory": directory,
                    "arguments": words} for source, (words, directory) in commands.items()], file)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(look_at, s, database, root): s for s in open_ones}
        for done in concurrent.futures.as_completed(running):
            clean, text = done.result()
            source = running[done]
            if clean:
                stamps.write(source, *commands[source])
            else:
                failed += 1
                print(f"{source}:\n{text}", flush=True)
    print("tidy: clean" if failed == 0 else f"tidy: {failed} sources are not clean",
          file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
