#include "kernels/cpu/attention_checks.h"

#include "core/base/error.h"

namespace kvc::kernels {
namespace {

void CheckDType(DType dtype) {
  KVC_CHECK(dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16, kUnsupported,
            "attention: expected F32, F16 or BF16 rows, got {}", SafetensorsName(dtype));
}

}  // namespace

void CheckRows(const RowBlock& keys,
               const RowBlock& values,
               const KeyRebuild* rebuild,
               int64_t key_width,
               int64_t value_width) {
  CheckDType(keys.dtype);
  CheckDType(values.dtype);
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
