#include "tests/runtime/loaded.h"

#include <utility>

#include "tests/runtime/fenced_backend.h"

namespace kvc::runtime {

std::unique_ptr<Session> SessionOn(const std::string& backend,
                                   std::shared_ptr<const Bundle> bundle,
                                   ThreadPool& pool) {
  if (backend == "fenced") {
    return std::make_unique<Session>(std::move(bundle), std::make_shared<FencedBackend>(pool));
  }
  RuntimeOptions options;
  options.device = backend;
  options.pool = &pool;
  return Session::Create(std::move(bundle), options);
}

}  // namespace kvc::runtime
