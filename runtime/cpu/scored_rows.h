#pragma once
// Rows of one head as scores read them: floats in the model's space, from whatever the cache's
// blocks hold, and what a tier would leave of them.

#include <cstdint>
#include <vector>

#include "core/base/row_format.h"
#include "core/base/view.h"
#include "kernels/attention.h"
#include "runtime/cache/cache_block.h"
#include "runtime/cpu/head_basis.h"

namespace kvc::runtime {

// A float matrix that borrows where the cache is float already. Movable: the view stays valid.
struct FloatRows {
  std::vector<float> storage;
  ConstMatrixF view;
};

// Rows of the blocks one after the other, as float. There must be a block.
[[nodiscard]] FloatRows Gather(const std::vector<kernels::RowBlock>& blocks);

// Rows of the blocks in the model's space, from what the blocks hold of their coordinates.
[[nodiscard]] FloatRows Restore(const std::vector<kernels::RowBlock>& blocks,
                                const HeadBasis& basis);

// Keys from latents as blocks hold them.
[[nodiscard]] FloatRows RebuildKeys(const std::vector<const CacheBlock*>& blocks,
                                    const kernels::KeyRebuild& rebuild);

// What a tier keeps of latents: the first `width` columns, or those that a block has.
struct KeptLatents {
  int64_t width = 0;
  const RowFormat* format = nullptr;  // null: as they are
  CodeSteps steps = {};               // of `format`
};
// Keys from what a tier would keep of latents, by the rebuild of what it keeps: of the latents'
// coordinates where `basis` has a width, which blocks do not lie in yet.
[[nodiscard]] FloatRows RebuildKeys(const std::vector<const CacheBlock*>& blocks,
                                    const kernels::KeyRebuild& rebuild,
                                    const KeptLatents& kept,
                                    const HeadBasis& basis);

// What the first `width` coordinates leave of rows, where `format` is given in that format, with
// its steps if it needs some.
[[nodiscard]] FloatRows Approximate(ConstMatrixF x,
                                    const HeadBasis& basis,
                                    int64_t width,
                                    const RowFormat* format,
                                    CodeSteps steps);

// Turns the rows of x back by their rotation, rows first, first + 1, ... of the tables, which hold
// cosines and sines times `factor`.
void Unrotate(MatrixF x, int64_t first, ConstMatrixF cos, ConstMatrixF sin, double factor);

}  // namespace kvc::runtime
