#pragma once
// How a library says how far it is, and hears that it should stop. Libraries never print: the tools
// implement this with a bar on a terminal and plain lines elsewhere.

#include <cstdint>
#include <string>

#include "core/base/error.h"

namespace kvc {

class Progress {
 public:
  virtual ~Progress() = default;
  // `done` of `total` units of `stage` are finished. Throws kInterrupted after SIGINT or SIGTERM.
  virtual void Report(const std::string& stage, int64_t done, int64_t total) = 0;
  // One line for the log.
  virtual void Log(const std::string& line) = 0;
};

// Says nothing; the default in tests.
class NoProgress : public Progress {
 public:
  void Report(const std::string&, int64_t, int64_t) override {}
  void Log(const std::string&) override {}
};

}  // namespace kvc
