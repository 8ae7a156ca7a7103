#include "runtime/plan/schedule.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "core/base/error.h"

namespace kvc::runtime {
namespace {

// Returns the register whose columns `reg` is.
int64_t Root(const LoweredGraph& lowered, int64_t reg) {
  const int64_t parent = lowered.registers[reg].parent;
  return parent < 0 ? reg : parent;
}

// Index of the last step that reads each register; for a root, the last step that reads any of its
// columns.
struct Lifetimes {
  std::vector<int64_t> last_use;
  std::vector<int64_t> root_last_use;
};

Lifetimes FindLifetimes(const LoweredGraph& lowered) {
  Lifetimes lifetimes;
  lifetimes.last_use.assign(lowered.registers.size(), -1);
  for (size_t i = 0; i < lowered.steps.size(); ++i) {
    for (const int64_t reg : lowered.steps[i].in) {
      lifetimes.last_use[reg] = static_cast<int64_t>(i);
    }
  }
  lifetimes.last_use[lowered.logits] = std::numeric_limits<int64_t>::max();
  lifetimes.root_last_use = lifetimes.last_use;
  for (size_t reg = 0; reg < lowered.registers.size(); ++reg) {
    int64_t& root = lifetimes.root_last_use[Root(lowered, static_cast<int64_t>(reg))];
    root = std::max(root, lifetimes.last_use[reg]);
  }
  return lifetimes;
}

// A place between two steps where one register alone is live.
struct Cut {
  int64_t after = -1;  // step
  int64_t live = -1;   // register
};

std::vector<Cut> FindCuts(const LoweredGraph& lowered, const Lifetimes& lifetimes) {
  std::vector<Cut> cuts;
  std::vector<int64_t> live;  // roots, in the order of their definition
  for (size_t i = 0; i < lowered.steps.size(); ++i) {
    const auto step = static_cast<int64_t>(i);
    live.push_back(Root(lowered, lowered.steps[i].out));
    std::erase_if(live, [&](int64_t reg) { return lifetimes.root_last_use[reg] <= step; });
    if (live.size() == 1 && live[0] != lowered.logits) cuts.push_back({step, live[0]});
  }
  return cuts;
}

// Chooses the latest cut before each attention, and the earliest after the last one: the steps
// after it need only the rows whose logits are requested.
std::vector<Cut> ChooseCuts(const LoweredGraph& lowered, const std::vector<Cut>& cuts) {
  std::vector<Cut> chosen;
  int64_t previous = -1;  // step of the last attention seen
  for (size_t i = 0; i < lowered.steps.size(); ++i) {
    if (lowered.steps[i].step.kind != StepKind::kAttention) continue;
    const auto step = static_cast<int64_t>(i);
    Cut best;
    for (const Cut& cut : cuts) {
      if (cut.after >= previous && cut.after < step) best = cut;
    }
    KVC_CHECK(best.after >= 0, kUnsupported,
              "node \"{}\": expected one activation to be live before it, got several; the runtime "
              "carries one from layer to layer",
              lowered.steps[i].step.node);
    chosen.push_back(best);
    previous = step;
  }
  for (const Cut& cut : cuts) {
    if (cut.after < previous) continue;
    chosen.push_back(cut);
    return chosen;
  }
  KVC_THROW(kUnsupported, "model.onnx: expected one activation to be live behind the last layer");
}

bool MayWriteInPlace(StepKind kind) {
  switch (kind) {
    case StepKind::kAdd:
    case StepKind::kMul:
    case StepKind::kSiluMul:
    case StepKind::kGeluTanh:
    case StepKind::kGeluExact:
    case StepKind::kRmsNorm:
    case StepKind::kLayerNorm:
    case StepKind::kRope:
    case StepKind::kPairRope:
      return true;
    default:
      return false;
  }
}

// Gives the registers of one section their places.
class SlotAllocator {
 public:
  SlotAllocator(const LoweredGraph& lowered,
                const Lifetimes& lifetimes,
                std::vector<int64_t>& widths)
      : lowered_(lowered), lifetimes_(lifetimes), widths_(widths), users_(widths.size()) {}

  // `begin`, `end`: the section's steps. `input`, `output`: registers in the hidden slot, or -1.
  std::vector<Step> Run(int64_t begin, int64_t end, int64_t input, int64_t output) {
    if (input >= 0) Place(input, {kHiddenSlot, 0, lowered_.registers[input].width});
    std::vector<Step> steps;
    for (int64_t i = begin; i < end; ++i) {
      const LoweredStep& lowered = lowered_.steps[i];
      Step step = lowered.step;
      for (const int64_t reg : lowered.in) step.in.push_back(Find(reg));
      step.out = Choose(lowered, i, output);
      steps.push_back(std::move(step));
      Release(i);
    }
    if (output >= 0 && Find(output).slot != kHiddenSlot) {
      Step copy;
      copy.kind = StepKind::kCopy;
      copy.node = steps.back().node;
      copy.in = {Find(output)};
      copy.out = {kHiddenSlot, 0, copy.in[0].width};
      steps.push_back(std::move(copy));
    }
    return steps;
  }

 private:
  [[nodiscard]] Operand Find(int64_t reg) const {
    const Register& info = lowered_.registers[reg];
    if (info.parent < 0) return places_.at(reg);
    // Columns that were written in place have a place of their own.
    const auto own = places_.find(reg);
    if (own != places_.end()) return own->second;
    Operand place = places_.at(info.parent);
    place.offset += info.offset;
    place.width = info.width;
    return place;
  }

  Operand Choose(const LoweredStep& lowered, int64_t step, int64_t output) {
    const int64_t width = lowered_.registers[lowered.out].width;
    if (lowered.out == lowered_.logits) return Place(lowered.out, {kLogitsSlot, 0, width});
    if (lowered.out == output && users_[kHiddenSlot].empty()) {
      return Place(lowered.out, {kHiddenSlot, 0, width});
    }
    if (MayWriteInPlace(lowered.step.kind)) {
      for (const int64_t reg : lowered.in) {
        if (lifetimes_.last_use[reg] == step && Find(reg).width == width) {
          return Place(lowered.out, Find(reg));
        }
      }
    }
    return Place(lowered.out, {FreeSlot(width), 0, width});
  }

  // Returns the narrowest free slot that is wide enough, otherwise the widest free one, made wider.
  int64_t FreeSlot(int64_t width) {
    int64_t best = -1;
    for (int64_t slot = kLogitsSlot + 1; slot < static_cast<int64_t>(widths_.size()); ++slot) {
      if (!users_[slot].empty()) continue;
      if (best < 0) {
        best = slot;
        continue;
      }
      const bool fits = widths_[slot] >= width;
      const bool best_fits = widths_[best] >= width;
      if (fits ? !best_fits || widths_[slot] < widths_[best]
               : !best_fits && widths_[slot] > widths_[best]) {
        best = slot;
      }
    }
    if (best < 0) {
      best = static_cast<int64_t>(widths_.size());
      widths_.push_back(0);
      users_.emplace_back();
    }
    widths_[best] = std::max(widths_[best], width);
    return best;
  }

  Operand Place(int64_t reg, const Operand& place) {
    places_[reg] = place;
    users_[place.slot].push_back(reg);
    return place;
  }

  void Release(int64_t step) {
    for (auto& users : users_) {
      std::erase_if(users, [&](int64_t reg) { return lifetimes_.root_last_use[reg] <= step; });
    }
  }

  const LoweredGraph& lowered_;
  const Lifetimes& lifetimes_;
  std::vector<int64_t>& widths_;             // of every slot; grows
  std::vector<std::vector<int64_t>> users_;  // [slot] registers that are needed there
  std::map<int64_t, Operand> places_;        // by register
};

}  // namespace

Plan Schedule(LoweredGraph lowered) {
  const Lifetimes lifetimes = FindLifetimes(lowered);
  const std::vector<Cut> cuts = ChooseCuts(lowered, FindCuts(lowered, lifetimes));
  Plan plan = std::move(lowered.plan);
  plan.model_width = lowered.registers[cuts[0].live].width;
  plan.slot_widths = {plan.model_width, 0};
  int64_t begin = 0;
  int64_t input = -1;
  for (size_t s = 0; s <= cuts.size(); ++s) {
    const bool last = s == cuts.size();
    const int64_t end = last ? static_cast<int64_t>(lowered.steps.size()) : cuts[s].after + 1;
    const int64_t output = last ? -1 : cuts[s].live;
    KVC_CHECK(last || lowered.registers[output].width == plan.model_width, kUnsupported,
              "node \"{}\": expected activations between layers to be {} wide, got {}",
              lowered.steps[end - 1].step.node, plan.model_width, lowered.registers[output].width);
    SlotAllocator allocator(lowered, lifetimes, plan.slot_widths);
    plan.sections.push_back(allocator.Run(begin, end, input, output));
    begin = end;
    input = output;
  }
  return plan;
}

}  // namespace kvc::runtime
