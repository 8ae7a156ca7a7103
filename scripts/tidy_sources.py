"""usage: tidy_sources.py --build BUILD [--jobs N] [--limit N] [--together]    sources on standard input

clang-tidy on each source as BUILD/compile_commands.json compiles it, alone or as part of a unit
(cmake/Unity.cmake), and without the precompiled headers, which are GCC's. BUILD/tidy remembers what
was found clean by the hashes of the source, of its own headers and of what judged it; such a source
is not looked at again. With a limit and more sources than that to look at, none is, which is said.
Ends with 1 when one is not clean.

--together looks at up to 16 sources as one unit: most of a source's time goes into the headers of the
standard library and of others, which are parsed and searched once for all of them. The static
analyzer walks the paths of a unit's main file alone and has nothing to do there, so a source that was
clean together counts as not yet looked at without --together. A unit that does not compile is looked
at one by one.
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

    def state(self, command, inputs, deep):
        judge = self.judge.copy()
        judge.update("\0".join(command).encode())
        return {"judge": judge.hexdigest(), "deep": deep,
                "inputs": {name: digest(os.path.join(self.root, name)) for name in inputs}}

    def is_clean(self, source, command, deep):
        """Whether the source was found clean, by the static analyzer too where `deep` asks for it."""
        try:
            with open(self.path(source), encoding="utf-8") as file:
                stamp = json.load(file)
        except (FileNotFoundError, json.JSONDecodeError):
            return False
        found = stamp.get("deep", False)
        return (found or not deep) and stamp == self.state(command, stamp["inputs"], found)

    def write(self, source, command, directory, deep):
        words = [word for word in command if word != "-c"] + ["-MM", "-MT", "x"]
        made = subprocess.run(words, capture_output=True, text=True, cwd=directory, check=False)
        if made.returncode != 0:
            return
        inputs = made.stdout.replace("\\\n", " ").split()[1:]
        own = {os.path.relpath(os.path.join(directory, name), self.root) for name in inputs}
        own = sorted(name for name in own if not name.startswith(".."))
        with open(self.path(source), "w", encoding="utf-8") as file:
            json.dump(self.state(command, own, deep), file)


class Database:
    """The compile commands of sources and of units of them, for clang-tidy."""

    def __init__(self, folder, root, commands):
        self.folder = folder
        self.root = root
        self.entries = []
        self.units = {}
        os.makedirs(folder, exist_ok=True)
        for source, (words, directory) in commands.items():
            self.entries.append({"file": os.path.join(root, source), "directory": directory,
                                 "arguments": words})

    def add_unit(self, sources, commands):
        """Returns the path of a unit that includes the sources, which share a command."""
        words, directory = commands[sources[0]]
        first = os.path.join(self.root, sources[0])
        path = os.path.join(self.folder, f"unit_{len(self.units)}.cc")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f'#include "{os.path.join(self.root, name)}"\n' for name in sources)
        self.entries.append({"file": path, "directory": directory,
                             "arguments": [path if word == first else word for word in words]})
        self.units[path] = sources
        return path

    def write(self):
        path = os.path.join(self.folder, "compile_commands.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.entries, file)


def defined_names(text):
    """The names that a source of this style defines at namespace scope, by the looks of its unindented
    lines (as in cmake/Unity.cmake)."""
    for _ in range(4):
        text = re.sub(r"<[^<>\n]*>", "", text)
    names = set()
    for line in re.findall(r"^[A-Za-z#].*", text, re.MULTILINE):
        if re.match(r"(using|namespace|template|extern|INSTANTIATE\w*|TYPED_TEST_SUITE)\b"
                    r"|[^(=]*::[~\w]+\(", line):
            continue
        test = re.match(r"(?:TEST\w*|TYPED_TEST\w*)\((\w+), (\w+)\)", line)
        found = (re.match(r"(?:struct|class|union|enum class|enum) +(\w+)", line)
                 or re.match(r"#define +(\w+)", line)
                 or re.match(r"(?:[^(={]*[ *&])?(\w+) *[({=]", line))
        if test:
            names.add(test.group(1) + "." + test.group(2))
        elif found:
            names.add(found.group(1))
    return names


def units_of(sources, commands, root, largest=16):
    """Sources of one command in groups that define no name twice, those of a folder side by side."""
    groups = {}
    for source in sorted(sources):
        with open(os.path.join(root, source), encoding="utf-8") as file:
            text = file.read()
        words, directory = commands[source]
        key = (directory, *(word for word in words
                            if word != os.path.join(root, source) and not word.startswith("-O")))
        if "foreach_target" in text:  # includes itself, once for each instruction set
            key += (source,)
        names = defined_names(text)
        for members, taken in groups.setdefault(key, []):
            if len(members) < largest and not taken & names:
                members.append(source)
                taken |= names
                break
        else:
            groups[key].append(([source], names))
    return [members for units in groups.values() for members, _ in units]


def look_at(path, database, deep):
    """Returns whether a source or unit is clean, what clang-tidy said, and whether it compiled."""
    checks = [] if deep else ["--checks=-clang-analyzer-*,-bugprone-suspicious-include"]
    said = subprocess.run(["clang-tidy", "--quiet", "-p", database.folder, *checks,
                           "--extra-arg=-ferror-limit=0", path],
                          capture_output=True, text=True, check=False)
    if said.returncode == 0:
        return True, "", True
    # Clang 14 refuses headers of LibTorch 1.13 in C++20 (a std::vector of the incomplete
    # c10::IValue) and goes on: what it says of our own lines counts.
    findings = re.split(r"^(?=/\S+:\d+:\d+: (?:warning|error):)", said.stdout, flags=re.MULTILINE)
    own = [text for text in findings if text.startswith(database.root + os.sep)]
    if any(text.startswith("/") for text in findings):
        return not own, "".join(own), not any("[clang-diagnostic-error]" in text for text in own)
    return False, said.stdout + said.stderr, False


def look_at_all(sources, commands, stamps, database, options):
    """Looks at sources, alone or together; returns how many are not clean."""
    deep = not options.together
    units = units_of(sources, commands, database.root) if options.together else [[s] for s in sources]
    paths = [(members[0] if len(members) == 1 else database.add_unit(members, commands), members)
             for members in units]
    database.write()
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(look_at, path, database, deep): members for path, members in paths}
        while running:
            done = next(concurrent.futures.as_completed(running))
            members = running.pop(done)
            clean, text, compiled = done.result()
            if clean:
                for source in members:
                    stamps.write(source, *commands[source], deep)
            elif not compiled and len(members) > 1:
                running |= {pool.submit(look_at, s, database, deep): [s] for s in members}
            else:
                blamed = [s for s in members if len(members) == 1 or s + ":" in text]
                failed += len(blamed or members)
                print(f"{', '.join(blamed or members)}:\n{text}", flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--limit", type=int)
    parser.add_argument("--together", action="store_true")
    options = parser.parse_args()
    root = os.getcwd()
    build = os.path.abspath(options.build)
    commands = commands_of(build, root)
    stamps = Stamps(build, root)
    sources = [line.strip() for line in sys.stdin if line.strip() in commands]
    open_ones = [s for s in sources
                 if not stamps.is_clean(s, commands[s][0], not options.together)]
    print(f"tidy: {len(sources)} sources, {len(sources) - len(open_ones)} of them known to be clean",
          file=sys.stderr)
    if options.limit is not None and len(open_ones) > options.limit:
        print(f"tidy: {len(open_ones)} to look at, too many here; run: make tidy", file=sys.stderr)
        return 0
    tracked = subprocess.run(["git", "ls-files", "*.h", "*.cc", "*.cuh", "*.cu"], capture_output=True,
                             text=True, check=True).stdout.split()
    for name in tracked:  # as they are now: one that is edited meanwhile is looked at again
        digest(os.path.join(root, name))
    database = Database(os.path.join(build, "tidy", "database"), root, commands)
    failed = look_at_all(open_ones, commands, stamps, database, options)
    print("tidy: clean" if failed == 0 else f"tidy: {failed} sources are not clean",
          file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
