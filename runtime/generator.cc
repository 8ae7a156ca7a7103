#include "runtime/generator.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>

#include "core/base/error.h"
#include "core/base/error_place.h"
#include "core/base/rng.h"
#include "core/cache/manifest.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/tokenizer/tokenizer.h"

namespace kvc::runtime {
namespace {

using Clock = std::chrono::steady_clock;

constexpr char kGenerationConfig[] = "generation_config.json";

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double Rate(int64_t tokens, double seconds) {
  return seconds > 0.0 ? static_cast<double>(tokens) / seconds : 0.0;
}

// One prompt on its way.
struct Stream {
  std::unique_ptr<Sequence> own;  // null: the caller's
  Sequence* sequence;
  Rng rng;
  int32_t next = 0;  // sampled, not yet fed
  bool done = false;
};

void CheckCount(const GenerateOptions& options) {
  KVC_CHECK(options.max_new_tokens >= 1, kUsage, "-n: expected 1 or more new tokens, got {}",
            options.max_new_tokens);
}

class Generator {
 public:
  Generator(Session& session, const GenerateOptions& options)
      : session_(session),
        options_(options),
        vocabulary_(session.bundle().manifest().model.vocab_size),
        context_(session.bundle().manifest().model.context_length) {}

  GenerateResult Run(std::span<const std::vector<int32_t>> prompts, Progress& progress) {
    CheckPromptLengths(prompts, context_);
    result_.outputs.resize(prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
      AtPrompt(i, [&] { Start(i, prompts[i]); });
    }
    return Decode(progress);
  }

  GenerateResult Run(Sequence& sequence, std::span<const int32_t> ids, Progress& progress) {
    result_.outputs.resize(1);
    streams_.push_back({nullptr, &sequence, Rng(options_.seed)});
    Feed(0, ids);
    return Decode(progress);
  }

 private:
  // All behind the prompts.
  GenerateResult Decode(Progress& progress) {
    const int64_t steps = options_.max_new_tokens - 1;
    for (int64_t step = 0; step < steps && DecodeStep(); ++step) {
      progress.Report("decode", step + 1, steps);
    }
    for (size_t i = 0; i < streams_.size(); ++i) {
      Generation& output = result_.outputs[i];
      output.cache = streams_[i].sequence->counters();
      output.last = streams_[i].next;
      output.cut =
          !output.stopped && !output.halted && std::ssize(output.ids) < options_.max_new_tokens;
    }
    return std::move(result_);
  }

  // Calls `body`, whose errors name prompt i where there are several.
  template <class Body>
  void AtPrompt(size_t i, const Body& body) const {
    if (result_.outputs.size() == 1) return body();
    AtPlace("prompt " + std::to_string(i + 1), body);
  }

  void Start(size_t i, const std::vector<int32_t>& prompt) {
    SequenceOptions options = options_.sequence;
    options.reserve = std::min(std::ssize(prompt) + options_.max_new_tokens - 1, context_);
    std::unique_ptr<Sequence> sequence = session_.NewSequence(options);
    Sequence* const borrowed = sequence.get();
    streams_.push_back({std::move(sequence), borrowed, Rng(options_.seed + i)});
    Feed(i, prompt);
  }

  void Feed(size_t i, std::span<const int32_t> ids) {
    logits_.resize(static_cast<size_t>(vocabulary_));
    const MatrixF logits(logits_.data(), 1, vocabulary_);
    Sequence& sequence = *streams_[i].sequence;
    const auto start = Clock::now();
    if (sequence.length() == 0) {
      session_.Prefill(sequence, ids, logits);
    } else {
      session_.Extend(sequence, ids, logits);
    }
    result_.prefill_seconds += SecondsSince(start);
    result_.prefill_tokens += std::ssize(ids);
    Accept(i, kernels::SampleToken(logits_, options_.sampling, streams_[i].rng));
  }

  // Takes the next token of stream i.
  void Accept(size_t i, int32_t token) {
    Stream& stream = streams_[i];
    Generation& output = result_.outputs[i];
    KVC_CHECK(token >= 0, kNumeric, "logits: expected numbers, got NaN; check the model's weights");
    stream.next = token;
    const auto& stops = options_.stop_ids;
    output.stopped = std::find(stops.begin(), stops.end(), stream.next) != stops.end();
    if (!output.stopped) {
      output.ids.push_back(stream.next);
      output.halted = options_.on_token != nullptr && !options_.on_token(i, stream.next);
    }
    stream.done = output.stopped || output.halted || stream.sequence->length() >= context_;
  }

  // Feeds every live stream its token; false when none is left.
  bool DecodeStep() {
    std::vector<Sequence*> sequences;
    std::vector<int32_t> ids;
    std::vector<Rng*> rngs;
    std::vector<size_t> owners;
    for (size_t i = 0; i < streams_.size(); ++i) {
      if (streams_[i].done) continue;
      sequences.push_back(streams_[i].sequence);
      ids.push_back(streams_[i].next);
      rngs.push_back(&streams_[i].rng);
      owners.push_back(i);
    }
    if (sequences.empty()) return false;
    std::vector<int32_t> next(ids.size());
    const auto start = Clock::now();
    session_.DecodeTokens(sequences, ids, options_.sampling, rngs, next);
    result_.decode_seconds += SecondsSince(start);
    result_.decode_tokens += std::ssize(ids);
    for (size_t b = 0; b < owners.size(); ++b) {
      AtPrompt(owners[b], [&] { Accept(owners[b], next[b]); });
    }
    return true;
  }

  Session& session_;
  const GenerateOptions& options_;
  int64_t vocabulary_;
  int64_t context_;
  std::vector<Stream> streams_;
  std::vector<float> logits_;  // [V], of a prompt's last token
  GenerateResult result_;
};

}  // namespace

double GenerateResult::PrefillRate() const { return Rate(prefill_tokens, prefill_seconds); }

double GenerateResult::DecodeRate() const { return Rate(decode_tokens, decode_seconds); }

CacheCounters GenerateResult::MeanCache() const {
  CacheCounters sum;
  for (const Generation& output : outputs) {
    sum.full_bytes += output.cache.full_bytes;
    sum.logical_bytes += output.cache.logical_bytes;
    sum.allocated_bytes += output.cache.allocated_bytes;
    sum.peak_bytes += output.cache.peak_bytes;
    sum.AddTierTokens(output.cache);
  }
  const auto count = static_cast<int64_t>(outputs.size());
  for (int64_t CacheCounters::*bytes :
       {&CacheCounters::full_bytes, &CacheCounters::logical_bytes, &CacheCounters::allocated_bytes,
        &CacheCounters::peak_bytes}) {
    sum.*bytes /= count;
  }
  return sum;
}

std::vector<int32_t> StopIds(const Bundle& bundle, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids = bundle.manifest().model.eos_ids;
  const std::filesystem::path file = bundle.directory() / kGenerationConfig;
  if (bundle.manifest().files.contains(kGenerationConfig)) {
    const Json config = ReadJsonFile(file);
    const Json eos = config.value("eos_token_id", Json());
    for (const Json& id : eos.is_array() ? eos : Json::array({eos})) {
      if (id.is_number_integer()) ids.push_back(id.get<int32_t>());
    }
  }
  if (tokenizer.eos_id()) ids.push_back(*tokenizer.eos_id());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

int64_t NewTokensWithin(int64_t context_length, int64_t length, int64_t wanted) {
  // The last token is not fed any more.
  return std::min(wanted, context_length - length + 1);
}

void CheckPromptLengths(std::span<const std::vector<int32_t>> prompts, int64_t context_length) {
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto length = std::ssize(prompts[i]);
    KVC_CHECK(length > 0 && length <= context_length, kBadInput,
              "prompt{}: expected 1 to {} tokens, got {}; shorten it",
              prompts.size() > 1 ? " " + std::to_string(i + 1) : "", context_length, length);
  }
}

GenerateResult Generate(Session& session,
                        std::span<const std::vector<int32_t>> prompts,
                        const GenerateOptions& options,
                        Progress& progress) {
  CheckCount(options);
  return Generator(session, options).Run(prompts, progress);
}

GenerateResult Generate(Session& session,
                        Sequence& sequence,
                        std::span<const int32_t> ids,
                        const GenerateOptions& options,
                        Progress& progress) {
  CheckCount(options);
  return Generator(session, options).Run(sequence, ids, progress);
}

}  // namespace kvc::runtime
