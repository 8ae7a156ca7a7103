#include "kernels/cpu/attention_checks.h"

#include "core/base/error.h"

namespace kvc::kernels {
namespace {

// Throws kUnsupported for a format that kernels cannot read, and kBadShape for rows that overlap.
void CheckFormat(const RowBlock& block) {
  KVC_CHECK(!NeedsSteps(block.format) || block.steps.data != nullptr, kBadShape,
            "attention: expected the steps of {} rows, got none", RowFormatName(block.format));
  const int64_t bytes = RowBytes(block.format, block.width, block.steps);
  KVC_CHECK(block.rows <= 1 || block.width == 0 || block.stride >= bytes, kBadShape,
            "attention: expected {} rows at least {} bytes apart, got {}",
            RowFormatName(block.format), bytes, block.stride);
}

}  // namespace

void CheckRows(const RowBlock& keys,
               const RowBlock& values,
               const KeyRebuild* rebuild,
               int64_t key_width,
               int64_t value_width) {
  CheckFormat(keys);
  CheckFormat(values);
  KVC_CHECK(keys.rows == values.rows, kBadShape,
            "attention: expected as many values as keys, got {} keys, {} values", keys.rows,
            values.rows);
  const bool fits = rebuild == nullptr
                        ? keys.width <= key_width
                        : keys.width <= rebuild->rebuild.cols && key_width == rebuild->rebuild.rows;
  KVC_CHECK(fits, kBadShape,
            "attention: expected key rows that fit queries of width {}, got width {}{}", key_width,
            keys.width, rebuild == nullptr ? "" : " with a rebuild of other sizes");
  KVC_CHECK(values.width <= value_width, kBadShape,
            "attention: expected value rows of at most the output's width {}, got {}", value_width,
            values.width);
}

}  // namespace kvc::kernels
