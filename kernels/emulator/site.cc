#include "kernels/emulator/site.h"

#include <cstdio>
#include <map>
#include <memory>
#include <mutex>

#include <dlfcn.h>
#include <fmt/core.h>

#include "kernels/emulator/checker.h"

namespace kvc::emulator {
namespace {

// "/path/rows.cuh:54 (discriminator 2)" -> "rows.cuh:54"
std::string ShortLine(std::string line) {
  line = line.substr(0, line.find_first_of(" \n"));
  const size_t slash = line.rfind('/');
  return slash == std::string::npos ? line : line.substr(slash + 1);
}

std::string LookUp(Site site) {
  Dl_info info = {};
  if (dladdr(site, &info) == 0) {
    return fmt::format("{}", site);
  }
  // A return address is the instruction after the call.
  const auto offset = static_cast<size_t>(static_cast<const char*>(site) - 1 -
                                          static_cast<const char*>(info.dli_fbase));
  const std::string place = fmt::format("{}+{:#x}", info.dli_fname, offset);
  const std::string command =
      fmt::format("addr2line -i -e '{}' {:#x} 2>/dev/null", info.dli_fname, offset);
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string lines;
  char text[1024];
  while (pipe != nullptr && fgets(text, sizeof(text), pipe.get()) != nullptr) {
    const std::string line = ShortLine(text);
    // What is inlined into a kernel from the emulator's own header says nothing.
    if (line.find("??") == std::string::npos && line.rfind("device_emulated", 0) != 0) {
      lines += (lines.empty() ? "" : " <- ") + line;
    }
  }
  return lines.empty() ? place : lines;
}

}  // namespace

std::string LineOf(Site site) {
  if (site == nullptr) {
    return "";
  }
  static std::mutex mutex;
  static std::map<Site, std::string> lines;
  const std::lock_guard lock(mutex);
  const auto [entry, fresh] = lines.try_emplace(site);
  if (fresh) {
    entry->second = LookUp(site);
  }
  return entry->second;
}

std::string DescribeSite(Site site) { return site == nullptr ? "" : " at " + LineOf(site); }

bool SameLine(Site a, Site b) { return a == b || LineOf(a) == LineOf(b); }

}  // namespace kvc::emulator
