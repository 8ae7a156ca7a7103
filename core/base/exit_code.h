#pragma once
// Exit codes of the commands, one for each kind of failure. CI jobs rely on them.

#include "core/base/error.h"

namespace kvc {

inline constexpr int kExitDone = 0;
inline constexpr int kExitInternal = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitBadInput = 3;
inline constexpr int kExitInfeasible = 4;
inline constexpr int kExitVerification = 5;
inline constexpr int kExitIo = 6;
inline constexpr int kExitDevice = 7;
inline constexpr int kExitInterrupted = 130;

[[nodiscard]] constexpr int ExitCode(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage:
      return kExitUsage;
    case ErrorKind::kBadInput:
    case ErrorKind::kBadShape:
    case ErrorKind::kUnsupported:
    case ErrorKind::kNumeric:
      return kExitBadInput;
    case ErrorKind::kInfeasible:
      return kExitInfeasible;
    case ErrorKind::kVerification:
      return kExitVerification;
    case ErrorKind::kIo:
      return kExitIo;
    case ErrorKind::kDevice:
      return kExitDevice;
    case ErrorKind::kInterrupted:
      return kExitInterrupted;
    case ErrorKind::kInternal:
      return kExitInternal;
  }
  return kExitInternal;
}

}  // namespace kvc
