#pragma once
// The one exception type that leaves a kvc library, and the macro that throws it.
//
// A message reads OBJECT: EXPECTED, got ACTUAL; FIX. Example:
//   model.layers.3.self_attn.k_proj.weight: expected shape [192, 576], got [192, 512];
//   check hidden_size in config.json

#include <stdexcept>
#include <string>

#include <fmt/core.h>

namespace kvc {

// The kind of a failure: what the caller can do about it. core/base/exit_code.h maps each kind to
// one exit code.
enum class ErrorKind {
  kUsage,         // 2: options that contradict each other or do not parse
  kBadInput,      // 3: a file that is broken, or not what it claims to be
  kBadShape,      // 3: sizes that do not fit together
  kUnsupported,   // 3: a model or a feature that kvc does not have, named
  kNumeric,       // 3: NaN in the input, or a decomposition that did not converge
  kInfeasible,    // 4: a budget below the smallest possible one
  kVerification,  // 5: an artefact that does not reproduce its source, or a quality gate
  kIo,            // 6: reading, writing, space
  kDevice,        // 7: no such device, or it failed
  kInterrupted,   // 130: SIGINT or SIGTERM; progress is saved
  kInternal,      // 1: a defect of kvc
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  [[nodiscard]] ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

namespace detail {
template <class... Args>
[[noreturn]] void Throw(ErrorKind kind,
                        fmt::format_string<const Args&...> text,
                        const Args&... args) {
  throw Error(kind, fmt::format(text, args...));
}
}  // namespace detail

// KVC_CHECK(rank <= width, kBadShape, "{}: expected rank <= {}, got {}", name, width, rank);
// The format is checked against its arguments when it is compiled (fmt's syntax: a brace is "{{").
#define KVC_CHECK(cond, kind, ...)                               \
  do {                                                           \
    if (!(cond)) {                                               \
      ::kvc::detail::Throw(::kvc::ErrorKind::kind, __VA_ARGS__); \
    }                                                            \
  } while (false)

// KVC_THROW(kUnsupported, "config.json: rope type \"{}\" is not supported", type);
#define KVC_THROW(kind, ...) ::kvc::detail::Throw(::kvc::ErrorKind::kind, __VA_ARGS__)

}  // namespace kvc
