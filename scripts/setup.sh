#!/usr/bin/env bash
# usage: setup.sh [PACKAGE...]
# Installs what the build needs from Debian's packages, and what is named, if it is missing. Asks apt
# for nothing when everything is there.
set -euo pipefail

packages=(
  g++ cmake ninja-build make pkg-config git ca-certificates
  libtorch-dev libonnx-dev libprotobuf-dev protobuf-compiler
  libcli11-dev libfmt-dev nlohmann-json3-dev libssl-dev
  libeigen3-dev liblapacke-dev libopenblas-dev libhwy-dev libdnnl-dev
  libpcre2-dev libutf8proc-dev libboost-context-dev libedit-dev libopenmpi-dev
  libjs-chart.js
  libgtest-dev libbenchmark-dev
  python3 python3-venv
  "$@"
)

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

echo "setup: installing ${missing[*]}" >&2
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "setup: error: not root and no sudo; install: ${missing[*]}" >&2; exit 6; }
  sudo=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
# Without --no-install-recommends LibTorch brings a desktop.
"${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
