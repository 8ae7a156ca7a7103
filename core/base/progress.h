#pragma once
// Progress reports of long-running library calls, which are also the places where such a call can
// be interrupted. Libraries never print: the tools implement this interface with a bar on a
// terminal and plain lines elsewhere.

#include <cstdint>
#include <string>

#include "core/base/error.h"

namespace kvc {

class Progress {
 public:
  virtual ~Progress() = default;
  // Reports that `done` of `total` units of `stage` are finished. Throws kInterrupted after SIGINT
  // or SIGTERM.
  virtual void Report(const std::string& stage, int64_t done, int64_t total) = 0;
  // Writes one line to the log.
  virtual void Log(const std::string& line) = 0;
  // Writes a warning, one line: the work goes on, and the user should know. A warning that was
  // written before is not repeated.
  virtual void Warn(const std::string& line) { Log("warning: " + line); }
};

// A Progress that ignores every report; the default in tests.
class NoProgress : public Progress {
 public:
  void Report(const std::string&, int64_t, int64_t) override {}
  void Log(const std::string&) override {}
};

}  // namespace kvc
