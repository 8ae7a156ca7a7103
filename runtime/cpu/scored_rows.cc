#include "runtime/cpu/scored_rows.h"

#include <algorithm>
#include <cstddef>

#include "core/base/round_rows.h"
#include "runtime/cpu/cache_rows.h"

namespace kvc::runtime {
namespace {

// A matrix with `count` rows of its own.
MatrixF MakeRows(int64_t count, int64_t width, FloatRows& rows) {
  rows.storage.resize(static_cast<size_t>(count * width));
  const MatrixF all(rows.storage.data(), count, width);
  rows.view = all;
  return all;
}

// The coordinates of rows, as float rows in `storage`.
kernels::RowBlock CoordinatesOf(const kernels::RowBlock& rows,
                                const HeadBasis& basis,
                                std::vector<float>& storage) {
  std::vector<float> floats(static_cast<size_t>(rows.rows * rows.width));
  const MatrixF x(floats.data(), rows.rows, rows.width);
  DecodeRows(rows.data, rows.format, rows.stride, x, rows.steps);
  storage.resize(floats.size());
  const MatrixF y(storage.data(), rows.rows, rows.width);
  basis.ToCoordinates(x, y);
  return {storage.data(), kRowsF32, rows.rows, rows.width,
          rows.width * static_cast<int64_t>(sizeof(float))};
}

}  // namespace

FloatRows Gather(const std::vector<kernels::RowBlock>& blocks) {
  FloatRows rows;
  const int64_t width = blocks.front().width;
  if (blocks.size() == 1 && blocks[0].format == kRowsF32) {
    rows.view = {static_cast<const float*>(blocks[0].data), blocks[0].rows, width};
    return rows;
  }
  int64_t count = 0;
  for (const auto& block : blocks) count += block.rows;
  rows.storage.resize(static_cast<size_t>(count * width));
  float* target = rows.storage.data();
  for (const auto& block : blocks) {
    DecodeRows(block.data, block.format, block.stride, {target, block.rows, width}, block.steps);
    target += block.rows * width;
  }
  rows.view = {rows.storage.data(), count, width};
  return rows;
}

FloatRows Restore(const std::vector<kernels::RowBlock>& blocks, const HeadBasis& basis) {
  FloatRows rows;
  int64_t count = 0;
  for (const auto& block : blocks) count += block.rows;
  const MatrixF all = MakeRows(count, basis.width(), rows);
  int64_t first = 0;
  for (const auto& block : blocks) {
    std::vector<float> held(static_cast<size_t>(block.rows * block.width));
    DecodeRows(block.data, block.format, block.stride, {held.data(), block.rows, block.width},
               block.steps);
    basis.FromCoordinates({held.data(), block.rows, block.width}, all.RowRange(first, block.rows));
    first += block.rows;
  }
  return rows;
}

FloatRows RebuildKeys(const std::vector<const CacheBlock*>& blocks,
                      const kernels::KeyRebuild& rebuild) {
  return RebuildKeys(blocks, rebuild, {rebuild.rebuild.cols}, HeadBasis());
}

FloatRows RebuildKeys(const std::vector<const CacheBlock*>& blocks,
                      const kernels::KeyRebuild& rebuild,
                      const KeptLatents& kept,
                      const HeadBasis& basis) {
  FloatRows rows;
  int64_t count = 0;
  for (const CacheBlock* block : blocks) count += block->rows();
  const MatrixF all = MakeRows(count, rebuild.rebuild.rows, rows);
  int64_t first = 0;
  for (const CacheBlock* block : blocks) {
    const kernels::RowBlock latents = KeysOf(*block);
    const int64_t width = std::min(latents.width, kept.width);
    std::vector<float> storage;
    kernels::RowBlock narrow = latents;
    if (basis.width() > 0) narrow = CoordinatesOf(latents, basis, storage);
    std::vector<std::byte> held;
    if (kept.format != nullptr) {
      const int64_t stride = RowBytes(*kept.format, width, kept.steps);
      held.resize(static_cast<size_t>(latents.rows * stride));
      CopyRows(narrow.data, {narrow.format, narrow.width, narrow.stride, narrow.steps}, narrow.rows,
               held.data(), {*kept.format, width, stride, kept.steps});
      narrow = {held.data(), *kept.format, latents.rows, width, stride, kept.steps};
    }
    narrow.width = width;
    kernels::RebuildKeys(narrow, block->positions(), rebuild, all.RowRange(first, block->rows()));
    first += block->rows();
  }
  return rows;
}

FloatRows Approximate(ConstMatrixF x,
                      const HeadBasis& basis,
                      int64_t width,
                      const RowFormat* format,
                      CodeSteps steps) {
  FloatRows rows;
  std::vector<float> storage(static_cast<size_t>(x.rows * width));
  const MatrixF coordinates(storage.data(), x.rows, width);
  basis.ToCoordinates(x, coordinates);
  if (format != nullptr) RoundRows(coordinates, *format, steps);
  basis.FromCoordinates(coordinates, MakeRows(x.rows, x.cols, rows));
  return rows;
}

void Unrotate(MatrixF x, int64_t first, ConstMatrixF cos, ConstMatrixF sin, double factor) {
  const int64_t half = cos.cols;
  const auto shrink = static_cast<float>(1.0 / (factor * factor));
  for (int64_t t = 0; t < x.rows; ++t) {
    const float* c = cos.row(first + t);
    const float* s = sin.row(first + t);
    float* row = x.row(t);
    for (int64_t j = 0; j < half; ++j) {
      const float a = row[j] * shrink;
      const float b = row[j + half] * shrink;
      row[j] = a * c[j] + b * s[j];
      row[j + half] = b * c[j] - a * s[j];
    }
  }
}

}  // namespace kvc::runtime
