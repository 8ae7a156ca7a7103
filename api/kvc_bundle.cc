#include <utility>

#include "api/bundle_impl.h"
#include "api/translate.h"
#include "core/base/sizes.h"
#include "core/base/version.h"
#include "core/cache/manifest.h"
#include "export/budget/budget_plan.h"
#include "runtime/create_backend.h"
#include "runtime/generator.h"
#include "runtime/session.h"

namespace kvc {

std::string_view LibraryVersion() { return Version(); }

Exception::~Exception() = default;

CacheSpec Bundle::Impl::CacheAt(const std::string& budget) const {
  const Manifest& manifest = bundle->manifest();
  if (budget.empty()) return manifest.cache;
  return budget::WithBudget(manifest, ParseBudget(budget, "budget"), budget);
}

Bundle::Bundle(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

Bundle Bundle::Load(const std::string& directory, const LoadOptions& options) {
  return api::Translated([&] {
    KVC_CHECK(options.threads >= 0, kUsage, "threads: expected 0 or more, got {}", options.threads);
    runtime::CheckDevice(options.device);
    auto impl = std::make_shared<Impl>();
    impl->tokenizer = Tokenizer::Load(directory);
    impl->bundle = runtime::Bundle::Load(directory, {.check_hashes = options.check_hashes});
    impl->pool = std::make_unique<ThreadPool>(options.threads);
    runtime::RuntimeOptions backend;
    backend.device = options.device;
    backend.pool = impl->pool.get();
    impl->backend = runtime::CreateBackend(backend);
    impl->model = impl->bundle->PreparedFor(*impl->backend);
    impl->stop_ids = runtime::StopIds(*impl->bundle, *impl->tokenizer);
    impl->context = runtime::Session(impl->bundle, impl->backend).context_length();
    return Bundle(std::move(impl));
  });
}

int64_t Bundle::context_length() const { return impl_->context; }

int64_t Bundle::vocabulary() const { return impl_->bundle->manifest().model.vocab_size; }

std::vector<int32_t> Bundle::Encode(std::string_view text, bool begins) const {
  return api::Translated([&] {
    return impl_->tokenizer->Encode(text, begins ? SpecialTokens::kAdd : SpecialTokens::kNone);
  });
}

std::string Bundle::Decode(std::span<const int32_t> ids) const {
  return api::Translated([&] { return impl_->tokenizer->Decode(ids); });
}

CacheUse Bundle::PredictCache(int64_t tokens, const std::string& budget) const {
  return api::Translated([&] {
    KVC_CHECK(tokens > 0, kUsage, "tokens: expected 1 or more, got {}", tokens);
    const auto bytes = kvc::PredictBytes(impl_->CacheAt(budget), tokens);
    return CacheUse{bytes.full, bytes.logical, bytes.allocated, 0};
  });
}

}  // namespace kvc
