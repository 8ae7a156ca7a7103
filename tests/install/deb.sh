#!/usr/bin/env bash
# usage: deb.sh BUILD WORK
# Makes the package of a build (its target `installed` must be there), installs it into a clean Debian 12
# and runs the demo there; in a build without LibTorch, a bundle of the full model. Exits with 77 where
# there is no root, no debootstrap or no mirror.
set -euo pipefail
build=$(cd "${1:?usage: deb.sh BUILD WORK}" && pwd)
work=${2:?usage: deb.sh BUILD WORK}
mirror=${KVC_DEBIAN_MIRROR:-http://deb.debian.org/debian}
skip() { echo "deb: skipped: $*" >&2; exit 77; }
[ "$(id -u)" -eq 0 ] || skip "not root"
command -v debootstrap > /dev/null || skip "no debootstrap"

rm -rf "$work"
mkdir -p "$work"
(cd "$work" && cpack -G DEB --config "$build/CPackConfig.cmake" -B "$work/package" > "$work/cpack.log") \
  || { tail -n 20 "$work/cpack.log" >&2; exit 1; }
package=$(find "$work/package" -maxdepth 1 -name '*.deb')
dpkg-deb --info "$package" | grep -E 'Version|Depends' >&2

clean=$work/clean
debootstrap --variant=minbase bookworm "$clean" "$mirror" > "$work/debootstrap.log" 2>&1 \
  || skip "no Debian from $mirror: $(tail -n 1 "$work/debootstrap.log")"
mount -t proc proc "$clean/proc" || skip "no /proc in the clean root"
trap 'umount "$clean/proc"' EXIT
cp "$package" "$clean/kvc.deb"
inside() { chroot "$clean" /usr/bin/env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive "$@"; }
inside apt-get update -qq > "$work/apt.log" 2>&1
inside apt-get install -y -qq --no-install-recommends /kvc.deb >> "$work/apt.log" 2>&1 \
  || { tail -n 20 "$work/apt.log" >&2; exit 1; }

inside kvc --version
for command in $(inside dpkg -L kvc | grep '^/usr/bin/.'); do inside "$command" --help > /dev/null; done
if [ -x "$clean/usr/bin/kvc-factorize" ]; then
  inside sh -c 'mkdir /demo && ln -s /usr/bin /demo/bin && /usr/share/kvc/scripts/demo.sh bundled /demo'
else
  inside kvc-export /usr/share/kvc/examples/models/needle-llama -o /bundle --budget 25% \
    --method uniform --scorer snapkv --quiet > /dev/null
  inside kvc-run /bundle --prompt "Alice was beginning to get very tired of" -n 16
fi
inside apt-get remove -y -qq kvc >> "$work/apt.log" 2>&1
[ -z "$(find "$clean/usr" -name '*kvc*')" ] || { echo "deb: expected nothing left" >&2; exit 1; }
echo "deb: installed into a clean Debian 12, ran, removed"
