#!/usr/bin/env bash
# usage: deb.sh BUILD WORK
# Makes the package of a build (its target `installed` must be there), installs it into a clean Debian 12
# by the commands of examples/ci/Dockerfile's second stage, and there, as the user whom they make, runs
# the demo (in a build without LibTorch a bundle of the full model), the commands of the CI's job, and
# examples/embed. Exits with 77 where there is no root, no debootstrap or no mirror.
set -euo pipefail
build=$(cd "${1:?usage: deb.sh BUILD WORK}" && pwd)
work=${2:?usage: deb.sh BUILD WORK}
source=$(cd "$(dirname "$0")/../.." && pwd)
mirror=${KVC_DEBIAN_MIRROR:-http://deb.debian.org/debian}
skip() { echo "deb: skipped: $*" >&2; exit 77; }
fail() { echo "deb: $*" >&2; exit 1; }
[ "$(id -u)" -eq 0 ] || skip "not root"
command -v debootstrap > /dev/null || skip "no debootstrap"

clean=$work/clean
if mountpoint -q "$clean/proc"; then umount "$clean/proc"; fi  # of a run that was killed
rm -rf "$work"
mkdir -p "$work"
(cd "$work" && cpack -G DEB --config "$build/CPackConfig.cmake" -B "$work/package" > "$work/cpack.log") \
  || { tail -n 20 "$work/cpack.log" >&2; exit 1; }
package=$(find "$work/package" -maxdepth 1 -name '*.deb')
dpkg-deb --info "$package" | grep -E 'Version|Depends' >&2

debootstrap --variant=minbase bookworm "$clean" "$mirror" > "$work/debootstrap.log" 2>&1 \
  || skip "no Debian from $mirror: $(tail -n 1 "$work/debootstrap.log")"
mount -t proc proc "$clean/proc" || skip "no /proc in the clean root"
trap 'umount "$clean/proc"' EXIT
inside() { chroot "$clean" /usr/bin/env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive "$@"; }
apt() { inside "$@" >> "$work/apt.log" 2>&1 || { tail -n 20 "$work/apt.log" >&2; exit 1; }; }
as_user() { chroot --userspec=kvc:kvc "$clean" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/home/kvc bash -ec "cd && $1"; }

# The last RUN of the Dockerfile: installs the package and makes a user.
commands=$(awk '{ line = line $0 } sub(/\\$/, "", line) { next } line ~ /^RUN/ { run = line } { line = "" }
  END { sub(/^RUN +(--mount=[^ ]* +)?/, "", run); print run }' "$source/examples/ci/Dockerfile")
[[ "$commands" == apt-get*/package/kvc_*useradd* ]] || fail "Dockerfile: expected its installation, got: $commands"
mkdir "$clean/package"
cp "$package" "$clean/package"
apt sh -c "$commands"

as_user "kvc --version"
for command in $(inside dpkg -L kvc | grep '^/usr/bin/.'); do
  as_user "$command --help" > /dev/null
  [ -s "$clean/usr/share/man/man1/${command##*/}.1.gz" ] || [ -s "$clean/usr/share/man/man1/${command##*/}.1" ] \
    || fail "expected a man page of ${command##*/}"
done
if [ -x "$clean/usr/bin/kvc-factorize" ]; then
  as_user "mkdir demo && ln -s /usr/bin demo/bin && /usr/share/kvc/scripts/demo.sh bundled demo" 2> "$work/demo.log" \
    || { tail -n 20 "$work/demo.log" >&2; exit 1; }
else
  as_user 'kvc-export /usr/share/kvc/examples/models/needle-llama -o bundle --budget 25% \
    --method uniform --scorer snapkv --quiet > /dev/null
    kvc-run bundle --prompt "Alice was beginning to get very tired of" -n 16'
fi
as_user "mkdir checkout && cp -r /usr/share/kvc/examples checkout"
sed -nE 's/^ +run: (kvc.*)$/\1/p' "$source/examples/ci/github.yml" > "$work/ci"
[ -s "$work/ci" ] || fail "github.yml: expected commands, got none"
while read -r command; do as_user "cd checkout && $command" < /dev/null; done < "$work/ci"
[ -s "$clean/home/kvc/checkout/out/report.html" ] || fail "expected the report of the CI's job"

# A program of a user: nothing is needed but a compiler and the package.
apt sh -c "apt-get update -qq && apt-get install -y -qq --no-install-recommends g++ cmake make"
as_user "cp -r /usr/share/kvc/examples/embed embed && cmake -S embed -B embed/build > /dev/null \
  && cmake --build embed/build > /dev/null && embed/build/generate checkout/out/compressed 'Alice said:'"

apt apt-get remove -y -qq kvc
[ -z "$(find "$clean/usr" -name '*kvc*')" ] || fail "expected nothing left, got $(find "$clean/usr" -name '*kvc*')"
echo "deb: installed into a clean Debian 12, ran, removed"
