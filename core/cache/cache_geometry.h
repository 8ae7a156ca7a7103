#pragma once
// The geometry of a cache: which rows a token leaves in each layer, how wide they are and in what
// format they lie. It belongs to the model and its bundle; how many tokens stay is the policy's
// business (core/cache/cache_policy.h).

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/row_format.h"

namespace kvc {

struct CacheGroup {
  int64_t key_width = 0;         // R_n, or D
  int64_t value_width = 0;       // D, for each head
  std::vector<int64_t> heads;    // kv heads of the layer that this group serves
  bool keeps_positions = false;  // kLatent
};

struct CacheGeometry {
  RowFormat key_format = {};
  RowFormat value_format = {};
  // The checkpoint's own type, kF32, kF16 or kBF16: what the original model's cache is made of,
  // and so what 100 % of a budget means.
  DType original_dtype = DType::kF32;
  std::vector<std::vector<CacheGroup>> layers;  // [L][n]
  int64_t num_heads = 0;                        // H
  int64_t num_kv_heads = 0;                     // G
  int64_t head_width = 0;                       // D
  // [L]: the last tokens that a layer's queries see (LayerAttention::window), 0 for all of them;
  // empty: every layer's see all.
  std::vector<int64_t> attention_windows = {};

  // The window of a layer; 0: there is none.
  [[nodiscard]] int64_t AttentionWindow(int64_t layer) const {
    return attention_windows.empty() ? 0 : attention_windows[static_cast<size_t>(layer)];
  }
  // Tokens of a sequence of `length` that a layer's next query can see, itself counted as one of
  // them once the window is full: min(length, window).
  [[nodiscard]] int64_t SeenTokens(int64_t layer, int64_t length) const {
    const int64_t window = AttentionWindow(layer);
    return window > 0 ? std::min(length, window) : length;
  }
  [[nodiscard]] int64_t num_layers() const { return static_cast<int64_t>(layers.size()); }
};

// Bytes of one stored token of a group at full width: key row, value rows and position.
[[nodiscard]] int64_t BytesPerToken(const CacheGeometry& geometry, const CacheGroup& group);

// Bytes that the ORIGINAL model caches for one token: 2 L G D elements of original_dtype.
[[nodiscard]] int64_t OriginalBytesPerToken(const CacheGeometry& geometry);
// Bytes that it caches for `length` tokens: what 100 % of a budget means. A layer with a window
// caches the tokens in it.
[[nodiscard]] int64_t OriginalBytes(const CacheGeometry& geometry, int64_t length);

}  // namespace kvc
