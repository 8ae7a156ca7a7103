#!/usr/bin/env python3
"""Writes BUNDLE/model.inlined.onnx: a bundle's graph in standard operators alone, for engines that know no
model-local functions (OpenVINO). It shares the weights, model.onnx.data, so it takes little space.

usage: inline_functions.py BUNDLE

Needs the package onnx, 1.18 or later. kvc itself, ONNX Runtime and other engines with functions read model.onnx.
"""

import pathlib
import sys

import onnx
import onnx.inliner


def inline_functions(bundle):
    """Returns the path of the file that it writes."""
    bundle = pathlib.Path(bundle)
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    target = bundle / "model.inlined.onnx"
    onnx.save(onnx.inliner.inline_local_functions(model), target)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(inline_functions(sys.argv[1]))
