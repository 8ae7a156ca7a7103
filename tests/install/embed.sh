#!/usr/bin/env bash
# usage: embed.sh BUILD
# Installs a build into a folder of its own outside the repository, and builds and runs
# examples/embed against it, by CMake and by pkg-config.
set -euo pipefail
build=$(cd "${1:?usage: embed.sh BUILD}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() { echo "embed: $*" >&2; exit 1; }

cmake --install "$build" --prefix "$work/prefix" > "$work/install.log"
bin=$work/prefix/bin
share=$work/prefix/share
for command in kvc kvc-run kvc-eval kvc-export; do
  [ -x "$bin/$command" ] || fail "expected $command, got none"
  [ -f "$share/bash-completion/completions/$command" ] || fail "expected a completion of $command"
  if command -v help2man > /dev/null; then
    grep -q '^\.TH' "$share/man/man1/$command.1" || fail "expected a man page of $command"
    grep -q -- '\\-\\-seed' "$share/man/man1/$command.1" || fail "$command.1: expected its options"
  fi
done

# Documentation: links lead somewhere, but for those to sources.
doc=$share/doc/kvc
while read -r target; do
  [ -e "$doc/$target" ] || fail "README.md: expected $target beside it, got none"
done < <(grep -oE '\]\((docs/[^)#]+)' "$doc/README.md" | sed 's/^](//' | sort -u)
[ -s "$doc/docs/images/report.png" ] || fail "expected the pages' pictures"
schema=$(sed -n 's/.*"$schema": "\(.*\)",/\1/p' "$share/kvc/examples/ci/recipe.json")
[ -s "$share/kvc/examples/ci/$schema" ] || fail "recipe.json: expected its schema, got no $schema"

# Completion: an option, a subcommand, a file.
completed() {
  bash -c 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _kvc; echo "${COMPREPLY[*]}"' \
    - "$share/bash-completion/completions/kvc" "$@"
}
[ "$(completed "$bin/kvc-run" --budg)" = --budget ] || fail "expected --budget of kvc-run --budg"
[ "$(completed "$bin/kvc" repo)" = report ] || fail "expected report of kvc repo"
[ "$(completed "$bin/kvc-run" "$work/inst")" = "$work/install.log" ] || fail "expected a file's name"

"$bin/kvc-export" "$share/kvc/examples/models/needle-llama" -o "$work/bundle" --budget 50% \
  --method uniform --scorer snapkv --quiet > /dev/null
prompt="Alice was beginning to get very tired of"
"$bin/kvc-run" "$work/bundle" --prompt "$prompt" -n 64 --quiet > "$work/expected" 2> /dev/null

cp -r "$share/kvc/examples/embed" "$work/embed"
cmake -S "$work/embed" -B "$work/embed/build" -DCMAKE_PREFIX_PATH="$work/prefix" > "$work/cmake.log"
cmake --build "$work/embed/build" > "$work/make.log"
"$work/embed/build/generate_c" "$work/bundle" "$prompt" > "$work/got"
cmp "$work/expected" "$work/got" || fail "generate_c: expected what kvc-run says"
"$work/embed/build/generate" "$work/bundle" "$prompt" " Then she" > "$work/turns"
[ "$(tail -n 1 "$work/turns" | grep -cE '^[0-9]+ tokens: [0-9]+ bytes of [0-9]+$')" = 1 ] \
  || fail "generate: expected what the cache takes, got $(tail -n 1 "$work/turns")"
status=0
"$work/embed/build/generate" "$work/no-bundle" x 2> "$work/error" || status=$?
[ $status -eq 6 ] || fail "generate: expected exit code 6 without a bundle, got $status"
grep -q no-bundle "$work/error" || fail "generate: expected an error that names the bundle"

pc=$(dirname "$(find "$work/prefix" -name kvc.pc)")
read -ra flags < <(PKG_CONFIG_PATH=$pc pkg-config --cflags --libs kvc)
c++ -std=c++20 "$work/embed/generate.cc" -o "$work/by_pkg_config" "${flags[@]}"
LD_LIBRARY_PATH=$(PKG_CONFIG_PATH=$pc pkg-config --variable=libdir kvc) \
  "$work/by_pkg_config" "$work/bundle" "$prompt" " Then she" | cmp - "$work/turns" \
  || fail "by pkg-config: expected what the program by CMake says"
[ "$(PKG_CONFIG_PATH=$pc pkg-config --modversion kvc)" = "$("$bin/kvc" --version | sed 's/kvc \([0-9.]*\).*/\1/')" ] \
  || fail "expected one version"
echo "embed: installed, built, ran"
