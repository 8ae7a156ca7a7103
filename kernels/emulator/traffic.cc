#include "kernels/emulator/traffic.h"

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <unordered_set>

#include "kernels/emulator/memory.h"
#include "kernels/emulator/site.h"

namespace kvc::emulator {
namespace {

constexpr uintptr_t kSectorBytes = 32;
constexpr uintptr_t kBanks = 32;
constexpr uintptr_t kBankBytes = 4;
constexpr size_t kPassBytes = 128;

// One instruction of a warp, of which some lanes have come by.
struct Instruction {
  int lanes = 0;
  size_t bytes = 0;
  std::array<uintptr_t, kWarpLanes> address = {};  // 0: the lane took no part
};
// The instructions of a warp at one site. The n-th time that each lane comes by is one instruction.
struct SiteState {
  std::array<uint32_t, kWarpLanes> visits = {};
  uint32_t first = 0;  // number of open.front()
  std::deque<Instruction> open;
  bool shared = false;
};
using Key = std::pair<Site, bool>;  // one instruction may touch both memories (cp.async)

// (The checker has one OS thread.)
std::vector<std::map<Key, SiteState>> warps;
std::map<Site, Traffic> by_site;
std::unordered_set<uintptr_t> distinct_sectors;

void SortUnique(std::vector<uintptr_t>& values) {
  std::sort(values.begin(), values.end());
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

// Units of `unit` bytes that the lanes first .. end - 1 touch, each once.
std::vector<uintptr_t> Units(const Instruction& instruction, int first, int end, uintptr_t unit) {
  std::vector<uintptr_t> units;
  for (int lane = first; lane < end; ++lane) {
    const uintptr_t address = instruction.address[lane];
    if (address != 0) {
      for (uintptr_t u = address / unit; u <= (address + instruction.bytes - 1) / unit; ++u) {
        units.push_back(u);
      }
    }
  }
  SortUnique(units);
  return units;
}

void CloseGlobal(const Instruction& instruction, Traffic& traffic) {
  const std::vector<uintptr_t> sectors = Units(instruction, 0, kWarpLanes, kSectorBytes);
  traffic.sectors += sectors.size();
  traffic.used_bytes += instruction.bytes * static_cast<size_t>(instruction.lanes);
  distinct_sectors.insert(sectors.begin(), sectors.end());
}

void CloseShared(const Instruction& instruction, Traffic& traffic) {
  const auto lanes = static_cast<int>(
      std::min<size_t>(kWarpLanes, kPassBytes / std::max<size_t>(instruction.bytes, kBankBytes)));
  for (int first = 0; first < kWarpLanes; first += lanes) {
    const std::vector<uintptr_t> words = Units(instruction, first, first + lanes, kBankBytes);
    std::array<uint64_t, kBanks> bank = {};
    for (const uintptr_t word : words) {
      ++bank[word % kBanks];
    }
    traffic.passes += *std::max_element(bank.begin(), bank.end());
    traffic.least_passes += (words.size() + kBanks - 1) / kBanks;
  }
}

void Close(const Instruction& instruction, Site site, bool shared) {
  if (shared) {
    CloseShared(instruction, by_site[site]);
  } else {
    CloseGlobal(instruction, by_site[site]);
  }
}

void Add(Traffic& sum, const Traffic& part) {
  sum.used_bytes += part.used_bytes;
  sum.sectors += part.sectors;
  sum.passes += part.passes;
  sum.least_passes += part.least_passes;
}

}  // namespace

void BeginTraffic(const Block& block) { warps.assign(block.warps.size(), {}); }

void CountAccess(const Thread& me, const void* address, size_t bytes, Site site) {
  const auto* byte = static_cast<const std::byte*>(address);
  const Block& block = *me.block;
  const bool shared = byte >= block.shared && byte < block.shared + block.shared_bytes;
  if (!shared && !InDeviceRange(address)) {
    return;
  }
  SiteState& state = warps[me.id / kWarpLanes][{site, shared}];
  const uint32_t visit = state.visits[me.lane]++ - state.first;
  if (visit >= state.open.size()) {
    state.open.resize(visit + 1);
  }
  Instruction& instruction = state.open[visit];
  instruction.bytes = bytes;
  instruction.address[me.lane] = reinterpret_cast<uintptr_t>(address);
  ++instruction.lanes;
  while (!state.open.empty() && state.open.front().lanes == kWarpLanes) {
    Close(state.open.front(), site, shared);
    state.open.pop_front();
    ++state.first;
  }
}

void EndTraffic(const Block& /*block*/) {
  for (const auto& warp : warps) {
    for (const auto& [key, state] : warp) {
      for (const Instruction& instruction : state.open) {
        Close(instruction, key.first, key.second);
      }
    }
  }
  warps.clear();
}

std::vector<LineTraffic> GetLineTraffic() {
  std::map<std::string, Traffic> lines;
  for (const auto& [site, traffic] : by_site) {
    Add(lines[LineOf(site)], traffic);
  }
  std::vector<LineTraffic> result;
  for (const auto& [line, traffic] : lines) {
    result.push_back({line, traffic});
  }
  return result;
}

Traffic GetTraffic() {
  Traffic sum;
  for (const auto& [site, traffic] : by_site) {
    Add(sum, traffic);
  }
  return sum;
}

uint64_t GetDistinctSectors() { return distinct_sectors.size(); }

void ResetTraffic() {
  by_site.clear();
  distinct_sectors.clear();
}

}  // namespace kvc::emulator
