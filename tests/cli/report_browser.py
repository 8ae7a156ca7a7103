#!/usr/bin/env python3
"""usage: report_browser.py BIN SOURCE WORK

Opens reports in headless Chromium, one run and two compared, with a hostile name among them: no
message on the console, every chart drawn, ticks that are round, nothing outside the window at two
widths. Leaves screenshots in WORK. Skipped (77) without chromium.
"""
import html
import json
import math
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

HOSTILE = "</script><img src=x onerror=\"document.title='hacked'\">"
WIDTHS = (1280, 600)

# Runs in a copy of the page without its policy: looks at every canvas and writes what it sees.
PROBE = """<script>
const seen = Chart.instances ? Object.values(Chart.instances).map((chart) => {
  const canvas = chart.canvas, area = chart.chartArea;
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const ratio = canvas.width / canvas.clientWidth;
  const colours = new Set();
  for (let y = area.top; y < area.bottom; y += 1) for (let x = area.left; x < area.right; x += 1) {
    const at = 4 * (Math.floor(y * ratio) * canvas.width + Math.floor(x * ratio));
    if (pixels[at + 3] === 255) colours.add(pixels.slice(at, at + 3).join());
  }
  return { id: canvas.id, colours: [...colours], series: chart.data.datasets.map((one) => one.borderColor),
           gaps: chart.scales.x.ticks.slice(1).map((tick, i) => {
             const axis = chart.scales.x, text = (label) => chart.ctx.measureText(label).width;
             chart.ctx.font = `12px ${Chart.defaults.font.family}`;
             return axis.getPixelForTick(i + 1) - axis.getPixelForTick(i)
               - (text(tick.label) + text(axis.ticks[i].label)) / 2; }),
           ticks: [chart.scales.x, chart.scales.y].map((axis) => axis.ticks.map((tick) => tick.label)) };
}) : [];
const probe = document.createElement("pre");
probe.id = "probe";
probe.textContent = JSON.stringify({ seen, images: document.images.length, title: document.title,
  canvases: document.querySelectorAll("canvas").length, width: document.documentElement.scrollWidth,
  window: innerWidth });
document.body.append(probe);
</script>"""


def fail(text):
    sys.exit(f"FAILED: {text}")


def make_results(folder, factor):
    """Results of every kind with made-up values; kvc-eval and kvc-bench write these keys."""
    def save(name, values):
        (folder / "results" / f"{name}.json").write_text(json.dumps(values))

    def cache(share):
        return {"full_bytes": 10**8, "allocated_bytes": int(share * 10**8), "peak_bytes": 2 * 10**8}

    (folder / "results").mkdir(parents=True)
    lines = [{"name": "full", "budget": "100%", "prompt_share": 1.0, "perplexity": 17.5, "needle_accuracy": 1.0}]
    for name, base in (("uniform/snapkv", 0.02), ("lukv", 0.01), (HOSTILE, 0.03)):
        for halvings in range(1, 6):
            lines.append({"name": name, "budget": f"{100 / 2**halvings:g}%", "prompt_share": 1 / 2**halvings,
                          "kld_mean": factor * base * 2**halvings, "kld_stderr": 1e-4,
                          "perplexity": 17.5 + base * 3**halvings, "needle_accuracy": 1 - 0.1 * halvings})
    save("compare", {"command": "kvc-eval", "seconds": 1.0, "lines": lines})
    save("kld-small", {"command": "kvc-eval", "kld_mean": 0.05 * factor, "perplexity": 18.1, "same_top": 0.9,
                       "perplexity_against": 17.5, "cache": cache(0.25), "cache_against": cache(1.0)})
    cells = [{"length": length, "depth": depth, "accuracy": (i % 5) / 4}
             for i, (length, depth) in enumerate((n, d) for n in (512, 1024, 2048) for d in (0.1, 0.5, 0.9))]
    save("needle-small", {"command": "kvc-eval", "accuracy": 0.5, "cells": cells})
    for name, method, rate in (("speed-small", "lukv", 50.0), ("speed-full", "full", 40.0)):
        depths = [{"depth": depth, "decode_tokens_per_second": {"mean": rate - depth / 400},
                   "cache": {**cache(0.25), "full_bytes": 23040 * depth, "allocated_bytes": 5760 * depth + 10**5}}
                  for depth in (0, 1024, 4096, 8192)]
        save(name, {"command": "kvc-bench", "method": method, "budget": "25%", "depths": depths,
                    "prompt": {"tokens": 512, "tokens_per_second": {"mean": 700.0}}})
    layers = [{"rank": 16 + 8 * (i % 5), "spectra": [[math.exp(-j / 9) for j in range(64)]]} for i in range(30)]
    save("thin", {"command": "kvc-factorize", "layers": layers})
    (folder / "small").mkdir()
    values = [[(i * g % 7) / 7 for g in range(1, 4)] for i in range(30)]
    lengths = [{"length": n, "full_bytes": 23040 * n, "allocated_bytes": 5760 * n} for n in (512, 1024, 8192)]
    (folder / "small" / "manifest.json").write_text(json.dumps(
        {"budget": "25%", "cache": {"method": "lukv", "budget": {"unit": "share", "values": values}},
         "expected_bytes": lengths}))


def write_profile(folder):
    (folder / "profile").mkdir()
    curves = [(1 - i / 16) ** power for power in (1, 2, 3, 4) for i in range(17)]
    header = json.dumps({f"curve.{name}": {"dtype": "F32", "shape": [2, 2, 17], "data_offsets": [at, at + 272]}
                         for name, at in (("oracle", 0), ("snapkv", 272))}).encode()
    (folder / "profile" / "profile.safetensors").write_bytes(
        struct.pack("<Q", len(header)) + header + struct.pack("<136f", *curves, *curves))


class Browser:
    def __init__(self, program, work):
        self.command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                        "--enable-logging=stderr", "--virtual-time-budget=5000", f"--user-data-dir={work}/browser"]

    def run(self, page, *options):
        done = subprocess.run([*self.command, *options, page.as_uri()], capture_output=True, text=True, timeout=120)
        messages = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
        if messages:
            fail(f"{page.name}: expected nothing on the console, got {messages}")
        return done.stdout

    def probe(self, page, width):
        """What the charts of a page look like in a window of that width."""
        text = page.read_text()
        copy = page.with_suffix(".probe.html")
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        copy.write_text(text.replace("</body>", PROBE + "</body>"))
        dom = self.run(copy, f"--window-size={width},900", "--dump-dom")
        return json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', dom, re.S)[1]))


def rgb(colour):
    return ",".join(str(int(colour[i:i + 2], 16)) for i in (1, 3, 5))


def is_round(label):
    """A tick of one to three digits: 0.05, 12.5 %, 512, 1.5K, 20 MiB, a power of ten."""
    digits = re.sub(r"[^0-9]", "", label.split("e")[0]).strip("0")
    return label.startswith("10") or len(digits) <= 3


def check(browser, page, charts):
    for width in WIDTHS:
        seen = browser.probe(page, width)
        if seen["images"] or seen["title"] != "kvc report":
            fail(f"{page.name}: a name became markup: {seen}")
        if seen["width"] > seen["window"]:
            fail(f"{page.name}: {seen['width']} pixels wide in a window of {seen['window']}")
        if not len(seen["seen"]) == seen["canvases"] == charts:
            fail(f"{page.name}: expected {charts} charts, got {len(seen['seen'])} on {seen['canvases']} canvases")
        for chart in seen["seen"]:
            colours = {rgb(one) for one in chart["series"]}
            if not colours & set(chart["colours"]):
                fail(f"{page.name}: {chart['id']}: no pixel of its series {colours}")
            if min(chart["gaps"]) < 2:
                fail(f"{page.name}: {chart['id']}: labels meet at {width}: {chart['ticks'][0]}, {chart['gaps']}")
            for ticks in chart["ticks"]:
                if not 2 <= len(ticks) <= 12 or not all(is_round(tick) for tick in ticks):
                    fail(f"{page.name}: {chart['id']}: ticks {ticks}")


def main():
    binaries, _, work = map(Path, sys.argv[1:])
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not program:
        print("skipped: no chromium; apt-get install chromium")
        sys.exit(77)
    shutil.rmtree(work, ignore_errors=True)
    for name, factor in (("before", 1.0), ("after", 0.5)):
        make_results(work / name, factor)
        write_profile(work / name)
    one, two = work / "one.html", work / "two.html"
    for page, folders in ((one, ["before"]), (two, ["before", "after"])):
        subprocess.run([binaries / "kvc", "report", *(work / folder for folder in folders), "-o", page, "--quiet"],
                       check=True, stdout=subprocess.DEVNULL)
    browser = Browser(program, work)
    check(browser, one, 10)
    check(browser, two, 13)
    for page in (one, two):
        for width in WIDTHS:
            browser.run(page, f"--window-size={width},4200", f"--screenshot={page.with_suffix(f'.{width}.png')}")


if __name__ == "__main__":
    main()
