#include <algorithm>
#include <exception>
#include <iterator>
#include <optional>
#include <utility>

#include "api/bundle_impl.h"
#include "api/translate.h"
#include "core/base/progress.h"
#include "core/cache/manifest.h"
#include "core/tokenizer/stop_texts.h"
#include "runtime/generator.h"
#include "runtime/session.h"

namespace kvc {

namespace {

// The text of a generation as it comes, and what ends it.
class Listener {
 public:
  Listener(const Tokenizer& tokenizer,
           const GenerateOptions& options,
           const TokenCallback& on_token)
      : stream_(tokenizer, options.stop), cancel_(options.cancel), on_token_(on_token) {}

  // Takes a token; false: the generation ends.
  bool Take(int32_t id) {
    const std::string piece = stream_.Push(id);
    if (!Tell(id, piece)) end_ = End::kCallback;
    if (stream_.stopped()) end_ = End::kStopText;
    if (!end_ && cancel_.stop_requested()) end_ = End::kCancelled;
    return !end_.has_value();
  }

  // Takes the end of the tokens.
  void Finish() {
    const std::string rest = stream_.Finish();
    if (!end_ && stream_.stopped()) end_ = End::kStopText;
    if (!rest.empty() && !failure_) (void)Tell(-1, rest);
  }

  // What the callback threw; null: nothing.
  [[nodiscard]] std::exception_ptr failure() const { return failure_; }

  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] std::optional<End> end() const { return end_; }

 private:
  // Tells the caller. What it throws is kept until the runtime is done.
  bool Tell(int32_t id, const std::string& piece) {
    text_ += piece;
    if (!on_token_) return true;
    try {
      return on_token_(Token{id, piece});
    } catch (...) {
      failure_ = std::current_exception();
      return false;
    }
  }

  StoppedStream stream_;
  const std::stop_token& cancel_;
  const TokenCallback& on_token_;
  std::string text_;
  std::optional<End> end_;
  std::exception_ptr failure_;
};

runtime::GenerateOptions ToRuntime(const GenerateOptions& options) {
  KVC_CHECK(options.max_new_tokens >= 1, kUsage,
            "max_new_tokens: expected 1 or more new tokens, got {}", options.max_new_tokens);
  KVC_CHECK(options.temperature >= 0.0 && options.top_k >= 0, kUsage,
            "sampling: expected a temperature and top_k of 0 or more, got {} and {}",
            options.temperature, options.top_k);
  KVC_CHECK(options.top_p > 0.0 && options.top_p <= 1.0, kUsage,
            "top_p: expected a mass above 0 and at most 1, got {}", options.top_p);
  runtime::GenerateOptions run;
  run.max_new_tokens = options.max_new_tokens;
  run.sampling = {options.temperature, options.top_k, options.top_p};
  run.seed = options.seed;
  return run;
}

End EndOf(const runtime::Generation& output) {
  if (output.stopped) return End::kStopToken;
  return output.cut ? End::kContext : End::kLength;
}

}  // namespace

struct KVC_HIDDEN Session::Impl {
  Impl(std::shared_ptr<const Bundle::Impl> a_bundle, std::unique_ptr<runtime::Sequence> a_sequence)
      : bundle(std::move(a_bundle)),
        session(bundle->bundle, bundle->backend),
        sequence(std::move(a_sequence)) {}

  [[nodiscard]] std::vector<int32_t> Encode(std::string_view text) const;
  // Puts ids behind what waits to be read. Throws kInput for ids that the session cannot take.
  void Append(std::span<const int32_t> ids);
  // Calls `read`, which reads what waits, with `cancel` looked at meanwhile, and takes what it has
  // read from what waits. Returns false if it was cancelled.
  template <class Read>
  bool Reading(const std::stop_token& cancel, const Read& read);
  bool Extend(std::span<const int32_t> ids, const std::stop_token& cancel);
  Generation Generate(std::span<const int32_t> ids,
                      const GenerateOptions& options,
                      Listener& listener);

  std::shared_ptr<const Bundle::Impl> bundle;
  runtime::Session session;
  std::unique_ptr<runtime::Sequence> sequence;
  std::vector<int32_t> waiting;  // said, and not in the cache: one token between calls
  bool broken = false;           // a call has failed halfway
};

std::vector<int32_t> Session::Impl::Encode(std::string_view text) const {
  const bool first = sequence->length() == 0 && waiting.empty();
  return bundle->tokenizer->Encode(text, first ? SpecialTokens::kAdd : SpecialTokens::kNone);
}

void Session::Impl::Append(std::span<const int32_t> ids) {
  KVC_CHECK(!broken, kUsage,
            "session: expected one whose calls have succeeded, got one that has "
            "failed halfway; begin another");
  const int64_t vocabulary = bundle->bundle->manifest().model.vocab_size;
  for (size_t i = 0; i < ids.size(); ++i) {
    KVC_CHECK(ids[i] >= 0 && ids[i] < vocabulary, kBadInput,
              "token {}: expected an id below {}, got {}", i, vocabulary, ids[i]);
  }
  const int64_t said = sequence->length() + std::ssize(waiting);
  KVC_CHECK(said + std::ssize(ids) <= bundle->context, kBadInput,
            "session: expected at most {} tokens, got {} more than {}", bundle->context, ids.size(),
            said);
  waiting.insert(waiting.end(), ids.begin(), ids.end());
}

template <class Read>
bool Session::Impl::Reading(const std::stop_token& cancel, const Read& read) {
  const int64_t before = sequence->length();
  session.set_checkpoint([&cancel] {
    if (cancel.stop_requested()) KVC_THROW(kInterrupted, "cancelled");
  });
  bool done = true;
  broken = true;
  try {
    read();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kInterrupted) throw;
    done = false;
  }
  session.set_checkpoint([] {});
  broken = false;
  const int64_t fed = std::min(sequence->length() - before, std::ssize(waiting));
  waiting.erase(waiting.begin(), waiting.begin() + fed);
  return done;
}

bool Session::Impl::Extend(std::span<const int32_t> ids, const std::stop_token& cancel) {
  Append(ids);
  if (waiting.size() < 2) return true;
  const auto front = std::span(waiting).first(waiting.size() - 1);
  std::vector<float> unread(static_cast<size_t>(bundle->bundle->manifest().model.vocab_size));
  const MatrixF logits(unread.data(), 1, std::ssize(unread));
  return Reading(cancel, [&] {
    if (sequence->length() == 0) {
      session.Prefill(*sequence, front, logits);
    } else {
      session.Extend(*sequence, front, logits);
    }
  });
}

Generation Session::Impl::Generate(std::span<const int32_t> ids,
                                   const GenerateOptions& options,
                                   Listener& listener) {
  KVC_CHECK(!ids.empty() || !waiting.empty(), kUsage,
            "generate: expected a prompt, got none; the session has read nothing yet");
  runtime::GenerateOptions run = ToRuntime(options);
  run.stop_ids = bundle->stop_ids;
  run.on_token = [&](size_t, int32_t id) { return listener.Take(id); };
  Append(ids);
  const auto prompt_tokens = std::ssize(waiting);
  NoProgress progress;
  runtime::GenerateResult result;
  const bool done = Reading(options.cancel, [&] {
    result = runtime::Generate(session, *sequence, waiting, run, progress);
  });
  Generation generation;
  generation.prompt_tokens = prompt_tokens - std::ssize(waiting);
  if (!done) {
    generation.end = End::kCancelled;
    return generation;
  }
  runtime::Generation& output = result.outputs[0];
  waiting = {output.last};
  listener.Finish();
  generation.text = listener.text();
  generation.ids = std::move(output.ids);
  generation.end = listener.end().value_or(EndOf(output));
  generation.prompt_seconds = result.prefill_seconds;
  generation.decode_seconds = result.decode_seconds;
  return generation;
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Session::Session(const Bundle& bundle, const SessionOptions& options) {
  api::Translated([&] {
    runtime::SequenceOptions sequence;
    sequence.cache = bundle.impl_->CacheAt(options.budget);
    sequence.chunk = options.chunk;
    sequence.reserve = options.reserve;
    runtime::Session session(bundle.impl_->bundle, bundle.impl_->backend);
    impl_ = std::make_unique<Impl>(bundle.impl_, session.NewSequence(sequence));
  });
}

Session::~Session() = default;
Session::Session(Session&& other) noexcept = default;
Session& Session::operator=(Session&& other) noexcept = default;

Session Session::Clone() const {
  return api::Translated([&] {
    auto clone = std::make_unique<Impl>(impl_->bundle, impl_->sequence->Clone());
    clone->waiting = impl_->waiting;
    clone->broken = impl_->broken;
    return Session(std::move(clone));
  });
}

bool Session::Extend(std::string_view text, std::stop_token cancel) {
  return api::Translated([&] { return impl_->Extend(impl_->Encode(text), cancel); });
}

bool Session::Extend(std::span<const int32_t> ids, std::stop_token cancel) {
  return api::Translated([&] { return impl_->Extend(ids, cancel); });
}

Generation Session::Generate(std::string_view text,
                             const GenerateOptions& options,
                             const TokenCallback& on_token) {
  const auto ids = api::Translated([&] { return impl_->Encode(text); });
  return Generate(ids, options, on_token);
}

Generation Session::Generate(std::span<const int32_t> ids,
                             const GenerateOptions& options,
                             const TokenCallback& on_token) {
  std::exception_ptr failure;
  Generation generation = api::Translated([&] {
    Listener listener(*impl_->bundle->tokenizer, options, on_token);
    Generation result = impl_->Generate(ids, options, listener);
    failure = listener.failure();
    return result;
  });
  if (failure) std::rethrow_exception(failure);
  return generation;
}

int64_t Session::tokens() const { return impl_->sequence->length() + std::ssize(impl_->waiting); }

CacheUse Session::cache() const {
  const runtime::CacheCounters counters = impl_->sequence->counters();
  return {counters.full_bytes, counters.logical_bytes, counters.allocated_bytes,
          counters.peak_bytes};
}

}  // namespace kvc
