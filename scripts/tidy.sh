#!/usr/bin/env bash
# usage: tidy.sh BUILD [all | FILE...]
# clang-tidy (.clang-tidy) on sources as BUILD/compile_commands.json compiles them: all of them, the
# ones that are named, or else the ones that differ from origin/main (without one, from the last
# commit). A header that differs brings the source of its name. The build needs no compiled unit, but
# its generated files. In the environment: JOBS (all cores); LIMIT: of more sources than these that
# differ none is looked at, which is said.
set -euo pipefail
build=${1:?usage: tidy.sh BUILD [all | FILE...]}
shift
cd "$(dirname "$0")/.."

if [ "${1:-}" = all ]; then
  candidates=$(git ls-files '*.cc')
elif [ $# -gt 0 ]; then
  candidates=$(printf '%s\n' "$@")
else
  base=$(git merge-base HEAD origin/main 2>/dev/null || git rev-parse --verify -q HEAD~ || git rev-parse HEAD)
  candidates=$( (git diff --name-only --diff-filter=d "$base" -- '*.cc' '*.h'
                 git ls-files --others --exclude-standard -- '*.cc' '*.h') | sed 's/\.h$/.cc/' | sort -u)
fi

files=()
for file in $candidates; do
  if [ -e "$file" ] && grep -qF "$PWD/$file\"" "$build/compile_commands.json"; then files+=("$file"); fi
done
[ ${#files[@]} -gt 0 ] || { echo "tidy: no source differs" >&2; exit 0; }
if [ $# -eq 0 ] && [ ${#files[@]} -gt "${LIMIT:-100000}" ]; then
  echo "tidy: ${#files[@]} sources differ, too many to look at here; run: make tidy" >&2
  exit 0
fi
command -v clang-tidy > /dev/null || scripts/setup.sh clang-tidy

echo "tidy: ${#files[@]} sources" >&2
# Without the precompiled headers, which are GCC's.
commands=$(mktemp -d)
trap 'rm -rf "$commands"' EXIT
sed 's/ -Winvalid-pch -include [^ ]*cmake_pch\.hxx//; s/ -Winvalid-pch//' "$build/compile_commands.json" \
  > "$commands/compile_commands.json"
printf '%s\n' "${files[@]}" |
  xargs -P "${JOBS:-$(nproc)}" -n 1 clang-tidy --quiet -p "$commands" 2> >(grep -v 'warnings generated\|Suppressed\|Use -header-filter\|non-user code' >&2) &&
  echo "tidy: clean" >&2
