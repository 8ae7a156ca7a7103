#!/usr/bin/env bash
# usage: cuda_static_figures.sh [OUT]
# Writes what nvcc tells of every kernel without a device: OUT/cuda-static-sm_80.txt and ...-sm_90.txt
# (OUT: bench/results). Fails where a kernel spills registers or needs more than a block may have.
#
#   threads    of a block (launch bounds)
#   registers  of a thread, and bytes that are spilled
#   shared     bytes of a block: static, and dynamic (device_nvcc.cuh leaves the struct's size in PTX)
#   blocks     on a multiprocessor at once, and warps, by registers, shared memory and threads
#   16-byte    share of the loads, stores and asynchronous copies of global memory (PTX instructions,
#              as they stand in the program, not as often as they run) that move 16 bytes
#   tensor     matrix instructions
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/bench/results}
nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
[ -x "$nvcc" ] || { echo "cuda_static_figures: expected nvcc, got none; put it on PATH" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

# figures_of ARCH < PTX and ptxas' report: a line for each kernel.
figures_of() {
  awk -v arch="$1" '
    function least(a, b) { return a < b ? a : b }
    function floor_to(x, step) { return int(x / step) * step }
    function up_to(x, step) { return int((x + step - 1) / step) * step }
    # Blocks of a multiprocessor. Registers are dealt out to warps by 256, in four parts of 16384;
    # the system keeps 1 KiB of shared memory a block.
    function blocks_of(k,    warps, by_registers, by_shared) {
      warps = threads[k] / 32
      by_registers = int(4 * int(16384 / up_to(registers[k] * 32, 256)) / warps)
      by_shared = int(shared_of_all / (up_to(static[k] + dynamic[k], 128) + 1024))
      return least(least(by_registers, by_shared), least(int(2048 / threads[k]), 32))
    }
    BEGIN {
      shared_of_all = (arch == "sm_80" ? 164 : 228) * 1024
      most_of_a_block = shared_of_all - 1024
    }
    # PTX
    /^\.?(visible )?\.entry / { match($0, /_Z[A-Za-z0-9_]+/); k = substr($0, RSTART, RLENGTH); names[k] = 1; next }
    /^\.maxntid / { threads[k] = $2 + 0; next }
    /dynamic shared memory:/ { dynamic[k] = $(NF - 1); next }
    { sub(/^[ \t]*(@!?%p[0-9]+ )?/, "") }
    # Addresses whose kind the compiler does not know (no .global, no .shared) are of global memory.
    /^(ld|st)\.(global|[usbf][0-9]+|v[24]|nc|relaxed|volatile|weak)[. \t]/ {
      all[k]++
      if ($1 ~ /\.v4\.[usbf]32/ || $1 ~ /\.v2\.[usbf]64/) wide[k]++
      next
    }
    /^cp\.async\.c[ag]\./ { all[k]++; if ($0 ~ /, 16[,;]/) wide[k]++; next }
    /^(mma|wgmma)\./ { tensor[k]++; next }
    # ptxas -v
    /Compiling entry function/ { match($0, /_Z[A-Za-z0-9_]+/); k = substr($0, RSTART, RLENGTH); next }
    /bytes spill stores/ {
      match($0, /[0-9]+ bytes spill stores/); spilled[k] = substr($0, RSTART) + 0
      match($0, /[0-9]+ bytes spill loads/); spilled[k] += substr($0, RSTART) + 0
      next
    }
    /Used [0-9]+ registers/ {
      match($0, /Used [0-9]+/); registers[k] = substr($0, RSTART + 5) + 0
      static[k] = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART) + 0 : 0
      next
    }
    END {
      for (k in names) {
        b = blocks_of(k)
        share = all[k] > 0 ? sprintf("%d %%", 100 * wide[k] / all[k]) : "-"
        printf "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%d\n", k, threads[k], registers[k], spilled[k],
          static[k], dynamic[k], b, b * threads[k] / 32, share, tensor[k]
      }
    }'
}

# Names as in the sources: without namespaces and parameters.
short_names() {
  c++filt | sed -E 's/kvc::cuda::|\(anonymous namespace\):://g; s/^void //; s/\([^\t]*\)\t/\t/; s/\((bool|int)\)//g'
}

failed=0
for arch in sm_80 sm_90; do
  compute=compute_${arch#sm_}
  for source in "$root"/kernels/cuda/*.cu; do
    ptx=$work/$(basename "$source" .cu).ptx
    "$nvcc" -std=c++17 -O3 -DNDEBUG -I"$root" -arch="$compute" -ptx "$source" -o "$ptx"
    cat "$ptx"
    "$(dirname "$nvcc")/ptxas" -v -arch="$arch" "$ptx" -o /dev/null 2>&1
  done | figures_of "$arch" | short_names | sort > "$work/$arch"
  {
    echo "# Kernels of kvc::cuda on $arch by nvcc $("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p') (scripts/cuda_static_figures.sh)"
    printf 'kernel\tthreads\tregisters\tspilled\tstatic\tdynamic\tblocks\twarps\t16-byte\ttensor\n'
    cat "$work/$arch"
  } > "$out/cuda-static-$arch.txt"
  awk -F '\t' '
    $4 > 0 { print "cuda_static_figures: " $1 ": expected no spills, got " $4 " bytes"; bad = 1 }
    $7 < 1 { print "cuda_static_figures: " $1 ": expected a block to fit, got " $5 + $6 " bytes of shared memory"; bad = 1 }
    END { exit bad }' "$work/$arch" >&2 || failed=1
done
exit $failed
