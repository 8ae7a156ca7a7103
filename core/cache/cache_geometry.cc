#include "core/cache/cache_geometry.h"

namespace kvc {

int64_t BytesPerToken(const CacheGeometry& geometry, const CacheGroup& group) {
  return RowBytes(geometry.key_format, group.key_width) +
         static_cast<int64_t>(group.heads.size()) *
             RowBytes(geometry.value_format, group.value_width) +
         (group.keeps_positions ? static_cast<int64_t>(sizeof(int32_t)) : 0);
}

int64_t OriginalBytesPerToken(const CacheGeometry& geometry) {
  return 2 * geometry.num_layers() * geometry.num_kv_heads * geometry.head_width *
         DTypeBytes(geometry.original_dtype);
}

int64_t OriginalBytes(const CacheGeometry& geometry, int64_t length) {
  if (geometry.attention_windows.empty()) return OriginalBytesPerToken(geometry) * length;
  int64_t rows = 0;  // of a kv head, over the layers
  for (int64_t l = 0; l < geometry.num_layers(); ++l) rows += geometry.SeenTokens(l, length);
  return 2 * rows * geometry.num_kv_heads * geometry.head_width *
         DTypeBytes(geometry.original_dtype);
}

}  // namespace kvc
