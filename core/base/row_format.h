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
//   avg3, avg1.5 ... the same with bits that differ by column (a mixture): a run of columns in 8
//                    bits, then one in 4, one in 2, and the rest, which is not stored and reads as
//                    zero. Each run begins with a byte of its own; zeros up to a multiple of four
//                    bytes. Where the runs end is known to the head (CodeSteps), whose rows are all
//                    alike; the name says the bits of a column on average over the head's layer
//
// The scale lies in front, so the first columns of a row are a row: reading a prefix needs no more
// than the row's address. An int8 row that holds NaN or an infinity has the scale NaN: all of it
// decodes to NaN, so that a broken number is seen and not rounded away. Codes with steps have no
// such number: EncodeRows refuses what is not finite.
//
// Storing a prefix of a row is another matter (CopyRows): a narrower int8 row gets a scale of its
// own.

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/base/dtype.h"
#include "core/base/view.h"

namespace kvc {

// The type of a row's elements, before any scale.
enum class RowElement { kF32, kF16, kBF16, kInt8, kInt4, kInt2, kMixed };

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
  int32_t rate = 0;   // kMixed: bits of a column on average, in quarters; else 0

  friend bool operator==(const RowFormat&, const RowFormat&) = default;
};

inline constexpr RowFormat kRowsF32 = {RowElement::kF32, RowScales::kNone, 0};
inline constexpr RowFormat kRowsF16 = {RowElement::kF16, RowScales::kNone, 0};
inline constexpr RowFormat kRowsBF16 = {RowElement::kBF16, RowScales::kNone, 0};
inline constexpr RowFormat kRowsInt8 = {RowElement::kInt8, RowScales::kFront, 0};
inline constexpr RowFormat kRowsX8 = {RowElement::kInt8, RowScales::kSteps, 0};
inline constexpr RowFormat kRowsX4 = {RowElement::kInt4, RowScales::kSteps, 0};
inline constexpr RowFormat kRowsX2 = {RowElement::kInt2, RowScales::kSteps, 0};

// Bits of a column on average, in quarters, that a mixture may have: 1 .. kMixedRates.
inline constexpr int32_t kMixedRates = 31;
[[nodiscard]] constexpr RowFormat MixedRows(int32_t rate) {
  return {RowElement::kMixed, RowScales::kSteps, 0, rate};
}
[[nodiscard]] constexpr bool IsMixed(const RowFormat& format) {
  return format.element == RowElement::kMixed;
}

// True where rows can be written and read only with the steps of their columns.
[[nodiscard]] constexpr bool NeedsSteps(const RowFormat& format) {
  return format.scales == RowScales::kSteps;
}

// The bits of codes with steps, in the order in which a mixture has them and steps are kept.
inline constexpr std::array<int32_t, 3> kCodeBits = {8, 4, 2};

// Columns of a mixture that go together: a run ends with a multiple of them, or with the row.
inline constexpr int64_t kColumnBlock = 8;

// The columns at which the runs of kCodeBits end, ascending; columns from the last on have no bits.
using RunEnds = std::array<int32_t, kCodeBits.size()>;

// How the columns of a head's rows in one format are coded. None (null) for formats without steps.
struct CodeSteps {
  // All columns alike: steps [width] of the format's bits.
  constexpr CodeSteps(const float* steps = nullptr) : data(steps) {}
  // A mixture: steps of all columns for each of kCodeBits, `stride` apart.
  constexpr CodeSteps(const float* steps, int64_t apart, const RunEnds& run_ends)
      : data(steps), stride(apart), ends(run_ends) {}

  friend bool operator==(const CodeSteps&, const CodeSteps&) = default;

  const float* data = nullptr;
  int64_t stride = 0;
  RunEnds ends = {};
};

// Columns begin .. end - 1 of a row with steps, which have the same bits.
struct CodeRun {
  int32_t bits = 0;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t offset = 0;            // bytes from the row's first to the run's
  const float* steps = nullptr;  // of column `begin`
};
// The runs of a row `width` columns wide, those without columns left out.
struct CodeRuns {
  std::array<CodeRun, kCodeBits.size()> all = {};
  int64_t count = 0;
  int64_t bytes = 0;  // of the row

  [[nodiscard]] std::span<const CodeRun> runs() const {
    return {all.data(), static_cast<size_t>(count)};
  }
};
// Throws kInternal where the steps are missing, or a mixture's runs do not end in order, and
// kUnsupported for a format without steps.
[[nodiscard]] CodeRuns RunsOf(const RowFormat& format, int64_t width, const CodeSteps& steps);

// "f32", "f16", "bf16", "int8", "x8", "x4", "x2", "avg0.25", ..., "avg7.75": the names of the
// manifest.
// RowFormatName throws kUnsupported for a format that has none: such rows can neither be written
// nor read. RowFormatFromName throws kUsage listing the names.
[[nodiscard]] std::string_view RowFormatName(const RowFormat& format);
[[nodiscard]] RowFormat RowFormatFromName(std::string_view name);

// Rows of plain elements. Throws kUnsupported unless dtype is kF32, kF16 or kBF16.
[[nodiscard]] RowFormat RowFormatOf(DType dtype);

// Bits of one element without its scale; of a mixture the most that one has.
[[nodiscard]] int64_t ElementBits(const RowFormat& format);
// Bits of an element on average: what a format can tell apart, for comparing formats.
[[nodiscard]] double MeanBits(const RowFormat& format);

// Bytes of a row `width` >= 0 elements wide, its scale and padding included; rows stand this far
// apart. A mixture's depend on its runs. Throws kUnsupported for a format without a name, kInternal
// for a mixture without runs.
[[nodiscard]] int64_t RowBytes(const RowFormat& format, int64_t width, const CodeSteps& steps = {});

// Rows [n, width] become bytes, `stride` bytes apart. Throws kInternal where the format needs steps
// and there are none, kNumeric where it does and a number is not finite.
void EncodeRows(ConstMatrixF rows,
                const RowFormat& format,
                void* target,
                int64_t stride,
                const CodeSteps& steps = {});

// The first rows.cols columns of rows.rows rows, `stride` bytes apart. Throws kInternal where the
// format needs steps and there are none.
void DecodeRows(const void* source,
                const RowFormat& format,
                int64_t stride,
                MatrixF rows,
                const CodeSteps& steps = {});

// Rows in memory as another part of kvc holds them.
struct StoredRows {
  RowFormat format = {};
  int64_t width = 0;
  int64_t stride = 0;  // bytes
  CodeSteps steps = {};
};
// The first to.width <= from.width columns of `count` rows, in another format or the same one. The
// rule for narrower and coarser rows, for all of kvc: plain elements of one format keep their bits;
// rows with scales or steps keep theirs at full width; everything else is decoded to float and
// encoded again, so that a scale fits the columns that are kept. Source and target may not
// overlap.
void CopyRows(
    const void* source, const StoredRows& from, int64_t count, void* target, const StoredRows& to);

}  // namespace kvc
