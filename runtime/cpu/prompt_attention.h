#pragma once
// Attention of a chunk of a prompt over the working blocks of a layer.

#include <cstdint>
#include <span>

#include "core/base/thread_pool.h"
#include "core/base/view.h"
#include "kernels/attention.h"
#include "runtime/cache/kv_cache.h"
#include "runtime/plan/plan.h"

namespace kvc::runtime {

// Queries q [rows, H * W], the first at position `first`, attend causally: out [rows, H * D].
// rebuild [G]: of latents, else empty.
void AttendWorkingBlocks(const AttentionStep& step,
                         std::span<const kernels::KeyRebuild> rebuild,
                         const LayerCache& cache,
                         int64_t first,
                         ConstMatrixF q,
                         MatrixF out,
                         ThreadPool& pool,
                         kernels::InputRounding rounding);

}  // namespace kvc::runtime
