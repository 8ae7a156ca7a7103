#pragma once
// Formats of rows: how the numbers of a cached key or value lie in bytes. The only home of encoding
// and decoding them; kernels read rows in place (kernels/cpu/row_readers-inl.h) by the same layout.
//
//   f32, f16, bf16   width elements, one after the other
//   int8             one scale s (float), then width codes c (int8), then zeros up to a multiple of
//                    four bytes: x = s c, s = max |x| / 127, c = x / s rounded to nearest even
//   x8, x4, x2       width codes c of 8, 4 or 2 bits, the first in the lowest bits of the first
//                    byte, then zero bits up to a multiple of four bytes. Column i has a step s_i
//                    (CodeSteps) that all rows share, so a row carries no scale:
//                    x_i = (c_i - 2^(b-1) + 1/2) s_i, c_i = floor(x_i / s_i) + 2^(b-1), clamped
//
// The scale lies in front, so the first columns of a row are a row: reading a prefix needs no more
// than the row's address. An int8 row that holds NaN or an infinity has the scale NaN: all of it
// decodes to NaN, so that a broken number is seen and not rounded away. Codes with steps have no
// such number: EncodeRows refuses what is not finite.
//
// Storing a prefix of a row is another matter (CopyRows): a narrower int8 row gets a scale of its
// own.

#include <cstdint>
#include <string_view>

#include "core/base/dtype.h"
#include "core/base/view.h"

namespace kvc {

// The type of a row's elements, before any scale.
enum class RowElement { kF32, kF16, kBF16, kInt8, kInt4, kInt2 };

// Where the scales of a row's groups of elements lie.
enum class RowScales {
  kNone,   // elements are the numbers themselves
  kFront,  // float, before the elements that they belong to
  kSteps,  // not in the row: each column's step, which all rows of a head share
};

struct RowFormat {
  RowElement element = RowElement::kF32;
  RowScales scales = RowScales::kNone;
  int32_t group = 0;  // elements that share a scale; 0: all of a row

  friend bool operator==(const RowFormat&, const RowFormat&) = default;
};

inline constexpr RowFormat kRowsF32 = {RowElement::kF32, RowScales::kNone, 0};
inline constexpr RowFormat kRowsF16 = {RowElement::kF16, RowScales::kNone, 0};
inline constexpr RowFormat kRowsBF16 = {RowElement::kBF16, RowScales::kNone, 0};
inline constexpr RowFormat kRowsInt8 = {RowElement::kInt8, RowScales::kFront, 0};
inline constexpr RowFormat kRowsX8 = {RowElement::kInt8, RowScales::kSteps, 0};
inline constexpr RowFormat kRowsX4 = {RowElement::kInt4, RowScales::kSteps, 0};
inline constexpr RowFormat kRowsX2 = {RowElement::kInt2, RowScales::kSteps, 0};

// True where rows can be written and read only with the steps of their columns.
[[nodiscard]] constexpr bool NeedsSteps(const RowFormat& format) {
  return format.scales == RowScales::kSteps;
}

// Steps of the columns of a head's rows in one format, [width]; null for formats that need none.
using CodeSteps = const float*;

// "f32", "f16", "bf16", "int8", "x8", "x4", "x2": the names of the manifest.
// RowFormatName throws kUnsupported for a format that has none: such rows can neither be written
// nor read. RowFormatFromName throws kUsage listing the names.
[[nodiscard]] std::string_view RowFormatName(const RowFormat& format);
[[nodiscard]] RowFormat RowFormatFromName(std::string_view name);

// Rows of plain elements. Throws kUnsupported unless dtype is kF32, kF16 or kBF16.
[[nodiscard]] RowFormat RowFormatOf(DType dtype);

// Bits of one element without its scale: what a format can tell apart, for comparing formats.
[[nodiscard]] int64_t ElementBits(const RowFormat& format);

// Bytes of a row `width` >= 0 elements wide, its scale and padding included; rows stand this far
// apart. Throws kUnsupported for a format without a name.
[[nodiscard]] int64_t RowBytes(const RowFormat& format, int64_t width);

// Rows [n, width] become bytes, `stride` bytes apart. Throws kInternal where the format needs steps
// and there are none, kNumeric where it does and a number is not finite.
void EncodeRows(ConstMatrixF rows,
                const RowFormat& format,
                void* target,
                int64_t stride,
                CodeSteps steps = nullptr);

// The first rows.cols columns of rows.rows rows, `stride` bytes apart. Throws kInternal where the
// format needs steps and there are none.
void DecodeRows(const void* source,
                const RowFormat& format,
                int64_t stride,
                MatrixF rows,
                CodeSteps steps = nullptr);

// Rows in memory as another part of kvc holds them.
struct StoredRows {
  RowFormat format = {};
  int64_t width = 0;
  int64_t stride = 0;  // bytes
  CodeSteps steps = nullptr;
};
// The first to.width <= from.width columns of `count` rows, in another format or the same one. The
// rule for narrower and coarser rows, for all of kvc: plain elements of one format keep their bits;
// rows with scales or steps keep theirs at full width; everything else is decoded to float and
// encoded again, so that a scale fits the columns that are kept. Source and target may not
// overlap.
void CopyRows(
    const void* source, const StoredRows& from, int64_t count, void* target, const StoredRows& to);

}  // namespace kvc
