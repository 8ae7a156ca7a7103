#!/usr/bin/env bash
# usage: full_disk.sh BIN SOURCE WORK [COUNT]
# Every command on a device of COUNT sizes (default 4) on which its output has no room or just has:
# it ends with 0 or 6, what it writes is whole or absent, and with more room running it again gives
# the bytes of an undisturbed run. Needs the right to mount a tmpfs; else it is skipped.
set -uo pipefail
bin=$1 source=$2 work=$3 count=${4:-4}
rm -rf "$work" && mkdir -p "$work/disk" && cd "$work" || exit 1
mount -t tmpfs -o size=64m tmpfs "$work/disk" 2> /dev/null || { echo "SKIPPED: expected the right to mount a tmpfs"; exit 77; }
trap 'cd /; umount "$work/disk"; rm -rf "$work"' EXIT
. "$source/tests/cli/command_table.sh"
make_inputs
failures=0 full=0
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

# on_disk FUNCTION-ARGUMENTS: the same command with its output on the small device.
fill() {
  local name=$1 out=disk/$2 want used size code i words=()
  shift 2
  for word in "$@"; do [ "disk/$word" = "$out" ] && words+=("$out") || words+=("$word"); done
  mount -o remount,size=64m "$work/disk" && rm -rf disk/* disk/.[!.]*
  "${words[@]}" > stdout 2> stderr || { fail "$name: undisturbed: $(cat stderr)"; return; }
  want=$(digest "$out")
  used=$(du -s --apparent-size -k disk | cut -f1)
  for ((i = 1; i <= count; ++i)); do
    rm -rf disk/* disk/.[!.]*
    size=$((4 + used * 5 * i / (4 * count)))
    mount -o remount,size="${size}k" "$work/disk" || continue
    code=0
    "${words[@]}" > stdout 2> stderr || code=$?
    [ "$code" -eq 0 ] || full=$((full + 1))
    [ "$code" -eq 0 ] || [ "$code" -eq 6 ] || fail "$name: on $size KiB: expected 0 or 6, got $code: $(cat stderr)"
    if [ -e "$out" ] && [ "$name" != recipe ]; then
      [ "$(digest "$out")" = "$want" ] || { fail "$name: on $size KiB: code $code, half of its output"; continue; }
      continue
    fi
    mount -o remount,size=64m "$work/disk"
    "${words[@]}" > stdout 2> stderr || { fail "$name: again, after $size KiB: $(cat stderr)"; continue; }
    [ "$(digest "$out")" = "$want" ] || fail "$name: again, after $size KiB: other bytes"
  done
}
each_command fill
[ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
echo "survived $full full disks"
