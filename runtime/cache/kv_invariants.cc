#include "runtime/cache/kv_invariants.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <sstream>

#include "core/base/error.h"

namespace kvc::runtime {
namespace {

BlockSnapshot Snapshot(const CacheBlock& block) {
  BlockSnapshot snapshot;
  snapshot.rows = block.rows();
  snapshot.capacity = block.capacity();
  snapshot.bytes_per_row = block.shape().BytesPerRow();
  snapshot.positions.assign(block.positions().begin(), block.positions().end());
  snapshot.scores = block.Scores();
  return snapshot;
}

class Validator {
 public:
  explicit Validator(const CacheSnapshot& snapshot) : snapshot_(snapshot) {}

  std::vector<std::string> Run() {
    for (size_t l = 0; l < snapshot_.layers.size(); ++l) {
      for (size_t n = 0; n < snapshot_.layers[l].size(); ++n) {
        const GroupSnapshot& group = snapshot_.layers[l][n];
        where_ = "layer " + std::to_string(l) + ", group " + std::to_string(n) + ": ";
        Blocks(group);
        window_ = snapshot_.spec.AttentionWindow(static_cast<int64_t>(l));
        if (window_ > 0) Window(group);
        if (!group.tiers.empty()) {
          bytes_ += BasisBytes(snapshot_.spec, snapshot_.spec.layers[l][n]);
        }
        if (snapshot_.spec.full() || (window_ > 0 && group.tiers.empty())) {
          FullGroup(group);
        } else {
          BudgetGroup(group);
        }
        if (!IsRing(group)) Positions(group);
        Require(group.recent.rows == snapshot_.layers[l][0].recent.rows,
                "recent rows differ from group 0: ", group.recent.rows);
      }
      if (!snapshot_.spec.full() && !snapshot_.layers[l].empty()) {
        bytes_ += QueryRingBytes(snapshot_.spec, static_cast<int64_t>(l));
      }
    }
    where_.clear();
    Require(bytes_ == snapshot_.live_bytes, "blocks and rings take ", bytes_, " bytes, metered ",
            snapshot_.live_bytes);
    return std::move(violations_);
  }

 private:
  template <class... Parts>
  void Require(bool holds, const Parts&... parts) {
    if (holds) return;
    std::ostringstream text;
    text << where_;
    (text << ... << parts);
    violations_.push_back(text.str());
  }

  void Blocks(const GroupSnapshot& group) {
    const auto check = [&](const BlockSnapshot& block, const char* name) {
      Require(block.rows >= 0 && block.rows <= block.capacity, name, " holds ", block.rows,
              " rows in ", block.capacity);
      bytes_ += block.capacity * block.bytes_per_row;
    };
    for (const BlockSnapshot& tier : group.tiers) check(tier, "tier");
    check(group.recent, "recent block");
  }

  [[nodiscard]] bool IsRing(const GroupSnapshot& group) const {
    return window_ > 0 && group.recent.capacity == window_;
  }

  void Window(const GroupSnapshot& group) {
    int64_t rows = group.recent.capacity;
    int64_t held = 0;
    for (const BlockSnapshot& tier : group.tiers) {
      rows += tier.capacity;
      held += tier.rows;
    }
    bytes_ += std::ssize(group.tier_positions) * kPositionBytes;
    Require(group.recent.rows <= window_ && held + group.recent.rows <= window_, "holds ",
            held + group.recent.rows, " rows of a window of ", window_);
    if (!snapshot_.spec.has_narrow_tiers()) {
      Require(rows <= window_, "has room for ", rows, " rows of a window of ", window_);
    }
    for (int64_t i = 0; i < held && i < std::ssize(group.tier_positions); ++i) {
      Require(group.tier_positions[i] >= snapshot_.length - window_, "holds token ",
              group.tier_positions[i], " of ", snapshot_.length, " with a window of ", window_);
    }
    Require(std::ssize(group.tier_positions) >= held, "knows ", group.tier_positions.size(),
            " positions of ", held, " rows");
  }

  void FullGroup(const GroupSnapshot& group) {
    Require(group.tiers.empty(), "tiers in a full cache");
    const int64_t seen = window_ > 0 ? std::min(window_, snapshot_.length) : snapshot_.length;
    Require(group.recent.rows == seen, "holds ", group.recent.rows, " of ", seen, " tokens");
    if (window_ > 0) return;
    Require(group.recent.capacity % kFullCacheGranularity == 0, "capacity ", group.recent.capacity,
            " is no multiple of ", kFullCacheGranularity);
  }

  void BudgetGroup(const GroupSnapshot& group) {
    const CacheSpec& spec = snapshot_.spec;
    int64_t tier_rows = 0;
    for (const BlockSnapshot& tier : group.tiers) tier_rows += tier.rows;
    const int64_t most = window_ > 0 ? std::min(window_, snapshot_.length) : snapshot_.length;
    Require(group.recent.rows >= std::min(most, spec.window), "recent block holds ",
            group.recent.rows, " rows, less than the window");
    Require(tier_rows + group.recent.rows <= snapshot_.length, "holds ",
            tier_rows + group.recent.rows, " rows of ", snapshot_.length, " tokens");
    // Tokens leave the recent block oldest first, so what has left it begins with the sinks.
    const int64_t left = snapshot_.length - group.recent.rows;
    int64_t pinned = 0;
    for (const BlockSnapshot& tier : group.tiers) {
      for (const float score : tier.scores) {
        Require(!std::isnan(score), "a score is a NaN");
        if (score == std::numeric_limits<float>::infinity()) ++pinned;
      }
    }
    const int64_t sinks = std::min(left, spec.sinks);
    Require(window_ > 0 ? pinned <= sinks : pinned == sinks, "pins ", pinned, " sinks of ",
            spec.sinks);
  }

  void Positions(const GroupSnapshot& group) {
    const auto ascending = [&](const BlockSnapshot& block, const char* name) {
      for (size_t i = 1; i < block.positions.size(); ++i) {
        Require(block.positions[i - 1] < block.positions[i], name,
                ": positions do not ascend at row ", i);
      }
    };
    // A token that loses dimensions comes behind those of its new tier, older or not.
    if (!snapshot_.spec.has_narrow_tiers()) {
      for (const BlockSnapshot& tier : group.tiers) ascending(tier, "tier");
    }
    ascending(group.recent, "recent block");
    if (group.recent.positions.empty()) return;
    const int64_t first = snapshot_.length - group.recent.rows;
    Require(group.recent.positions.front() == first &&
                group.recent.positions.back() == snapshot_.length - 1,
            "recent block: expected the newest tokens, ", first, " to ", snapshot_.length - 1);
    std::set<int32_t> seen;
    for (const BlockSnapshot& tier : group.tiers) {
      for (const int32_t position : tier.positions) {
        Require(position < first, "a token is in a tier and in the recent block");
        Require(seen.insert(position).second, "a token is in two tiers: ", position);
      }
    }
  }

  const CacheSnapshot& snapshot_;
  std::string where_;
  int64_t window_ = 0;  // of the layer
  int64_t bytes_ = 0;
  std::vector<std::string> violations_;
};

}  // namespace

CacheSnapshot TakeSnapshot(const SequenceCache& cache) {
  CacheSnapshot snapshot;
  snapshot.spec = cache.spec();
  snapshot.length = cache.length();
  snapshot.live_bytes = cache.meter().live_bytes();
  for (int64_t l = 0; l < cache.spec().num_layers(); ++l) {
    auto& groups = snapshot.layers.emplace_back();
    for (const GroupCache& group : cache.layer(l).groups) {
      GroupSnapshot& target = groups.emplace_back();
      for (const CacheBlock& tier : group.tiers) target.tiers.push_back(Snapshot(tier));
      target.recent = Snapshot(group.recent);
      const MeteredArray<int32_t>& positions = group.tier_positions;
      target.tier_positions.assign(positions.data(), positions.data() + positions.size());
    }
  }
  return snapshot;
}

std::vector<std::string> Violations(const CacheSnapshot& snapshot) {
  return Validator(snapshot).Run();
}

void CheckInvariants(const SequenceCache& cache) {
  const std::vector<std::string> violations = Violations(TakeSnapshot(cache));
  std::string text;
  for (const std::string& violation : violations) {
    text += (text.empty() ? "" : "; ") + violation;
  }
  KVC_CHECK(violations.empty(), kInternal, "cache: {}", text);
}

}  // namespace kvc::runtime
