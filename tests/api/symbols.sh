#!/usr/bin/env bash
# usage: symbols.sh LIBKVC
# The library exports its interface alone, under one version.
set -euo pipefail
library=${1:?usage: symbols.sh LIBKVC}
symbols=$(nm -D --defined-only --with-symbol-versions -C "$library" | cut -d' ' -f3-)
others=$(grep -vE '^(kvc_[a-z_]+|kvc::(Bundle|Session|Exception)::.*|kvc::LibraryVersion.*|(vtable|typeinfo|typeinfo name) for kvc::Exception|KVC_0)(@@KVC_0)?$' <<<"$symbols" || true)
[ -z "$others" ] || { printf 'symbols: expected none but the interface, got:\n%s\n' "$others" >&2; exit 1; }
! grep -qF 'Impl::' <<<"$symbols" || { echo "symbols: expected no Impl, got one" >&2; exit 1; }
for wanted in kvc_session_generate 'kvc::Session::Clone() const' 'typeinfo for kvc::Exception'; do
  grep -qF "$wanted@@KVC_0" <<<"$symbols" || { echo "symbols: expected $wanted, got none" >&2; exit 1; }
done
count=$(wc -l <<<"$symbols")
[ "$count" -lt 100 ] || { echo "symbols: expected fewer than 100, got $count" >&2; exit 1; }
echo "symbols: $count, all of version KVC_0"
