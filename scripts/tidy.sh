#!/usr/bin/env bash
# usage: tidy.sh BUILD [all | FILE...]
# clang-tidy (.clang-tidy) on sources as BUILD/compile_commands.json compiles them: all of them, the
# ones that are named, or else the ones that differ from origin/main (without one, from the last
# commit). A header that differs brings the source of its name. What was found clean and has not
# changed since is not looked at again (scripts/tidy_sources.py). All of them are looked at many at a
# time and without the static analyzer, which walks those that are named or differ. The build needs no
# compiled unit, but its generated files. In the environment: JOBS (all cores); LIMIT: of more sources
# than these to look at none is, which is said.
set -euo pipefail
build=${1:?usage: tidy.sh BUILD [all | FILE...]}
shift
cd "$(dirname "$0")/.."

together=
if [ "${1:-}" = all ]; then
  together=--together
  candidates=$(git ls-files '*.cc')
elif [ $# -gt 0 ]; then
  candidates=$(printf '%s\n' "$@")
else
  base=$(git merge-base HEAD origin/main 2>/dev/null || git rev-parse --verify -q HEAD~ || git rev-parse HEAD)
  candidates=$( (git diff --name-only --diff-filter=d "$base" -- '*.cc' '*.h'
                 git ls-files --others --exclude-standard -- '*.cc' '*.h') | sed 's/\.h$/.cc/' | sort -u)
fi

[ -n "$candidates" ] || { echo "tidy: no source differs" >&2; exit 0; }
command -v clang-tidy > /dev/null || scripts/setup.sh clang-tidy
printf '%s\n' $candidates | python3 scripts/tidy_sources.py --build "$build" \
  --jobs "${JOBS:-$(nproc)}" $together ${LIMIT:+--limit "$LIMIT"}
