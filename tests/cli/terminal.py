#!/usr/bin/env python3
"""usage: terminal.py BIN SOURCE WORK

kvc-run --chat on a real pseudo-terminal: arrows, history and characters of several bytes are edited,
Ctrl-C ends an answer or drops a line, Ctrl-D ends the conversation.
Skips where kvc-run is built without libedit.
"""

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

BIN, SOURCE, WORK = (Path(argument).resolve() for argument in sys.argv[1:4])
DEADLINE = 60.0  # seconds that anything may take on a busy machine
LEFT, UP, BACKSPACE, END_OF_LINE, CTRL_C, CTRL_D = b"\x1b[D", b"\x1b[A", b"\x7f", b"\x05", b"\x03", b"\x04"
PROMPT = b"> "


class Terminal:
    """A command whose standard files are one terminal."""

    def __init__(self, *command, locale="C.UTF-8"):
        self.screen = b""
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            environment = {**os.environ, "TERM": "xterm", "LC_ALL": locale, "HOME": str(WORK)}
            os.execve(command[0], [str(word) for word in command], environment)

    def type(self, *keys):
        for key in keys:
            os.write(self.file, key if isinstance(key, bytes) else key.encode())

    def _read(self):
        """Reads what is there; returns False at the end."""
        ready, _, _ = select.select([self.file], [], [], 0.05)
        try:
            piece = os.read(self.file, 1 << 16) if ready else None
        except OSError:  # Linux says so when the other side is closed
            return False
        self.screen += piece or b""
        return piece != b""

    def wait_for(self, text, start=0):
        """Waits until `text` stands behind position `start` of the screen, and returns where it ends."""
        end = time.monotonic() + DEADLINE
        while self.screen.find(text, start) < 0:
            if not self._read() or time.monotonic() > end:
                raise AssertionError(f"expected {text!r} behind {start}, got {self.screen!r}")
        return self.screen.find(text, start) + len(text)

    def wait_for_more(self, start):
        """Waits until something stands behind position `start` of the screen."""
        end = time.monotonic() + DEADLINE
        while len(self.screen) <= start:
            assert self._read() and time.monotonic() < end, self.screen

    def end(self):
        """Waits for the end and returns the exit code, negative for a signal."""
        limit = time.monotonic() + DEADLINE
        while self._read():
            assert time.monotonic() < limit, self.screen
        _, status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(status)

    def users(self):
        """What was said, by the JSON at the end."""
        screen = self.screen.decode().replace("\r\n", "\n")
        return [turn["user"] for turn in json.loads(screen[screen.index('{\n  "kvc"'):])["turns"]]


def chat(*options, **settings):
    terminal = Terminal(BIN / "kvc-run", WORK / "half", "--chat", "--template", "mistral-v1", *options, **settings)
    terminal.wait_for(PROMPT)
    return terminal


def edits_lines():
    # No locale: characters are UTF-8 all the same.
    terminal = chat("-n", "2", "--json", locale="C")
    terminal.type("Whare", LEFT, LEFT, BACKSPACE, "e", END_OF_LINE, " is it?\r")
    at = terminal.wait_for(PROMPT, terminal.wait_for(b"is it?"))
    terminal.type("Gruß\u00fc", BACKSPACE, "\u4e16\u754c", LEFT, BACKSPACE, "\r")
    at = terminal.wait_for(b"\n" + PROMPT, at)
    terminal.type(UP, UP, "!\r")  # the line before the last
    terminal.wait_for(b"\n" + PROMPT, terminal.wait_for(b"is it?!", at))
    terminal.type(CTRL_D)
    assert terminal.end() == 0, terminal.screen
    said = terminal.users()
    assert said == ["Where is it?", "Gruß\u754c", "Where is it?!"], said


def interrupts():
    terminal = chat("-n", "900", "--json")
    terminal.type("half a line")
    terminal.wait_for(b"half a line")
    at = terminal.wait_for(PROMPT)
    for _ in range(100):  # each time one line; the conversation stays, however fast the keys come
        terminal.type("x", CTRL_C)
        at = terminal.wait_for(b"\n" + PROMPT, at)
    terminal.type("Where is the cat?\r")
    at = terminal.wait_for(PROMPT, terminal.wait_for(b"the answer was cut: ", at))
    terminal.type(CTRL_D)
    assert terminal.end() == 0, terminal.screen
    assert terminal.users() == ["Where is the cat?"], terminal.screen


def ends_an_answer():
    terminal = chat("-n", "900", "--quiet")
    terminal.type("Where is the cat?\r")
    at = terminal.wait_for(b"?\r\n")
    terminal.wait_for_more(at)
    terminal.type(CTRL_C)
    at = terminal.wait_for(PROMPT, terminal.wait_for(b"the answer was cut: interrupted", at))
    terminal.type("/stats\r")
    at = terminal.wait_for(PROMPT, terminal.wait_for(b"1 turn, ", at))
    terminal.type("And the dog?\r")
    at = terminal.wait_for(PROMPT, terminal.wait_for(b"the answer was cut: ", at))
    terminal.type("/stats\r")
    at = terminal.wait_for(PROMPT, terminal.wait_for(b"2 turns, ", at))
    terminal.type(CTRL_D)
    assert terminal.end() == 0 and b"\ndecode " in terminal.screen, terminal.screen


def obeys_other_signals():
    terminal = chat("-n", "2")
    terminal.type("half a line")
    terminal.wait_for(b"half a line")
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.end() == -signal.SIGTERM, terminal.screen


def main():
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    linked = subprocess.run(["ldd", BIN / "kvc-run"], capture_output=True, text=True, check=True).stdout
    if "libedit" not in linked:
        print("terminal: skipped: kvc-run is built without libedit")
        sys.exit(77)
    subprocess.run([BIN / "kvc-export", SOURCE / "examples/models/needle-llama", "-o", WORK / "half", "--budget", "50%",
                    "--scorer", "keydiff", "--no-verify", "--quiet"], check=True, stdout=subprocess.DEVNULL)
    for test in (edits_lines, interrupts, ends_an_answer, obeys_other_signals):
        test()
    shutil.rmtree(WORK)
    print("terminal: lines are edited, answers interrupted")


if __name__ == "__main__":
    main()
