#!/usr/bin/env bash
# usage: man_page.sh COMMAND PAGE
# Writes the man page of a command from its --help, with that of each subcommand behind it.
set -euo pipefail
command=${1:?usage: man_page.sh COMMAND PAGE}
page=${2:?usage: man_page.sh COMMAND PAGE}
extra=$(mktemp)
trap 'rm -f "$extra"' EXIT
# The lines "  NAME   text" below "Subcommands:".
subcommands=$("$command" --help | awk '/^Subcommands:/{on=1; next} /^$/{on=0} on && /^  [a-z]/{print $1}')
for subcommand in $subcommands; do
  printf '[%s]\n' "$subcommand"
  # A line that begins with a dot or a quote would be a request.
  "$command" "$subcommand" --help | sed -e 's/\\/\\e/g' -e "s/^\\([.']\\)/\\\\\\&\\1/" -e '1i .nf' -e '$a .fi'
done > "$extra"
# The summary is the first line that is not blank.
summary=$("$command" --help | sed -n '/./{p;q}')
include=()
[ ! -s "$extra" ] || include=(--include="$extra")
# "kvc 0.2.0, ..." is the version of all commands.
read -r _ version _ < <("$command" --version)
help2man --no-info --no-discard-stderr --section=1 --name="$summary" "${include[@]}" \
  --version-string="$(basename "$command") ${version%,}" --output="$page" "$command"
