#pragma once
// What a loaded bundle is made of.

#include <cstdint>
#include <memory>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/cache/cache_spec.h"
#include "core/tokenizer/tokenizer.h"
#include "kvc/kvc.h"
#include "runtime/backend.h"
#include "runtime/bundle.h"

namespace kvc {

struct KVC_HIDDEN Bundle::Impl {
  // Returns the policy of a cache: at the bundle's budget where `budget` is empty. Throws kUsage,
  // kInfeasible.
  [[nodiscard]] CacheSpec CacheAt(const std::string& budget) const;

  std::unique_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<ThreadPool> pool;           // before backend, whose loops run on it
  std::shared_ptr<runtime::Backend> backend;  // one for all sessions
  std::shared_ptr<const runtime::Bundle> bundle;
  std::shared_ptr<const runtime::PreparedModel> model;  // kept while no session lives
  std::vector<int32_t> stop_ids;
  int64_t context = 0;  // the most tokens of a sequence
};

}  // namespace kvc
