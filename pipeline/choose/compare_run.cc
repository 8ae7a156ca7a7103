#include "pipeline/choose/compare_run.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/base/error.h"
#include "core/base/version.h"
#include "core/cache/manifest.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "eval/compare/compare.h"
#include "eval/compare/requests.h"

namespace kvc::choose {
namespace {

namespace fs = std::filesystem;

// Sequences that decode together, one for each contestant and prompt: a step reads all weights, so
// the more the better, while there is memory for their caches.
constexpr int64_t kSequences = 96;
constexpr int64_t kSequenceBytes = int64_t{1} << 30;

// Tokens that each contestant decodes alone, to say what one costs.
constexpr int64_t kTimedSteps = 8;

// Prompts of `length` tokens that are taken together, at least one.
int64_t PromptsAtOnce(const Field& field, int64_t length) {
  int64_t bytes = 0;
  for (const eval::Contestant& contestant : field.contestants) {
    const CacheSpec& spec =
        contestant.cache ? *contestant.cache : contestant.session->bundle().manifest().cache;
    bytes += PredictBytes(spec, length).allocated;
  }
  const int64_t by_rows = kSequences / std::ssize(field.contestants);
  const int64_t by_memory = kSequenceBytes / std::max<int64_t>(1, bytes);
  return std::max<int64_t>(1, std::min(by_rows, by_memory));
}

std::string IdsDigest(const CompareTasks& tasks) {
  std::string digests;
  const auto add = [&](const std::vector<int32_t>& ids) {
    digests += Sha256(std::as_bytes(std::span(ids)));
  };
  for (const auto& sample : tasks.samples) add(sample);
  for (const auto& cell : tasks.cells) {
    for (const NeedlePrompt& prompt : cell.prompts) {
      add(prompt.context);
      add(prompt.question);
    }
  }
  for (const eval::TaskPrompt& prompt : tasks.ruler) {
    add(prompt.asked.context);
    add(prompt.asked.question);
  }
  return Sha256(std::as_bytes(std::span(digests)));
}

// What the numbers depend on.
Json SignatureOf(const CompareTasks& tasks, const Field& field) {
  return {{"kvc", Version()},
          {"contestants", field.records},
          {"ids_sha256", IdsDigest(tasks)},
          {"context", tasks.walk.context},
          {"decode", tasks.walk.decode},
          {"append", tasks.walk.policy == runtime::DecodePolicy::kAppend},
          {"question_before", tasks.needle.question_before}};
}

// Scores so far, in memory and, when there is an output, beside it.
struct Progressed {
  fs::path file;  // empty: nowhere
  Json signature;
  std::vector<std::vector<eval::SampleScores>> samples;  // [sample][contestant]
  std::vector<std::vector<bool>> found;                  // [prompt][contestant]
  std::vector<std::vector<double>> ruler;                // [prompt][contestant]

  void Save() const {
    if (file.empty()) return;
    Json json = {
        {"signature", signature}, {"samples", Json::array()}, {"found", found}, {"ruler", ruler}};
    for (const auto& sample : samples) {
      Json row = Json::array();
      for (const eval::SampleScores& scores : sample) row.push_back(scores.ToJson());
      json["samples"].push_back(std::move(row));
    }
    WriteJsonFile(file, json);
  }

  void Load() {
    if (file.empty() || !fs::exists(file)) return;
    const Json json = ReadJsonFile(file);
    const std::string origin = file.string();
    KVC_CHECK(GetObject(json, "signature", origin) == signature, kUsage,
              "{}: expected the progress of this comparison, got that of another one; use the same "
              "inputs to go on, or --force to start anew",
              origin);
    for (const Json& row : GetArray(json, "samples", origin)) {
      auto& sample = samples.emplace_back();
      for (const Json& scores : row) {
        sample.push_back(eval::SampleScores::FromJson(scores, origin));
      }
    }
    found = GetArray(json, "found", origin).get<std::vector<std::vector<bool>>>();
    ruler = GetArray(json, "ruler", origin).get<std::vector<std::vector<double>>>();
  }
};

void WalkSamples(const CompareTasks& tasks,
                 const Field& field,
                 ThreadPool& pool,
                 Progress& progress,
                 Progressed& state) {
  const auto count = std::ssize(tasks.samples);
  const int64_t batch = PromptsAtOnce(field, tasks.walk.context + tasks.walk.decode);
  auto done = std::ssize(state.samples) * tasks.walk.decode;
  while (std::ssize(state.samples) < count) {
    const auto first = std::ssize(state.samples);
    const auto samples =
        std::span(tasks.samples).subspan(first, std::min<int64_t>(batch, count - first));
    const auto tick = [&] {
      done += std::ssize(samples);
      progress.Report("text", done, count * tasks.walk.decode);
    };
    eval::WalkOptions options = tasks.walk;
    options.timed_steps = state.samples.empty() ? kTimedSteps : 0;
    for (auto& sample : eval::CompareSamples(field.contestants, samples, options, pool, tick)) {
      state.samples.push_back(std::move(sample));
    }
    state.Save();
  }
}

void AskNeedles(const CompareTasks& tasks,
                const Field& field,
                const Tokenizer& tokenizer,
                Progress& progress,
                Progressed& state) {
  std::vector<NeedlePrompt> prompts;
  int64_t longest = 0;
  for (const auto& cell : tasks.cells) {
    prompts.insert(prompts.end(), cell.prompts.begin(), cell.prompts.end());
    longest = std::max(longest, cell.length);
  }
  const auto batch = static_cast<size_t>(PromptsAtOnce(field, longest));
  while (state.found.size() < prompts.size()) {
    const auto asked = std::span(prompts).subspan(state.found.size());
    for (const auto& scores : eval::CompareNeedles(
             field.contestants, tokenizer, asked.first(std::min(batch, asked.size())),
             tasks.needle.question_before, tasks.needle.policy)) {
      auto& found = state.found.emplace_back();
      for (const eval::NeedleScore& score : scores) found.push_back(score.found);
    }
    state.Save();
    progress.Report("needles", std::ssize(state.found), tasks.prompts());
  }
}

void AskRuler(const CompareTasks& tasks,
              const Field& field,
              const Tokenizer& tokenizer,
              Progress& progress,
              Progressed& state) {
  int64_t longest = 0;
  for (const eval::TaskPrompt& prompt : tasks.ruler) {
    longest = std::max(longest, std::ssize(prompt.asked.context));
  }
  const int64_t batch = PromptsAtOnce(field, longest);
  const eval::AskOptions options = {
      tasks.needle.question_before, tasks.needle.policy,
      field.contestants[0].session->bundle().manifest().model.eos_ids};
  while (state.ruler.size() < tasks.ruler.size()) {
    const size_t first = state.ruler.size();
    std::vector<eval::AskedPrompt> asked;
    for (size_t p = first; p < tasks.ruler.size() && std::ssize(asked) < batch; ++p) {
      asked.push_back(tasks.ruler[p].asked);
    }
    for (const auto& answers : eval::AnswerAll(field.contestants, tokenizer, asked, options)) {
      const eval::TaskPrompt& prompt = tasks.ruler[state.ruler.size()];
      auto& scores = state.ruler.emplace_back();
      for (const eval::Answer& answer : answers) scores.push_back(prompt.score(answer.text));
    }
    state.Save();
    progress.Report("ruler", std::ssize(state.ruler), std::ssize(tasks.ruler));
  }
}

// Processor time of one prompt's choosing, and of a token decoded alone with its share of it.
void AddSeconds(std::span<const eval::SampleScores> scores, Json& line) {
  double prompt = 0.0;
  double decoding = 0.0;
  double tokens = 0.0;
  double token = 0.0;
  for (const eval::SampleScores& sample : scores) {
    prompt += sample.prompt.choosing_seconds / static_cast<double>(scores.size());
    decoding += sample.end.choosing_seconds - sample.prompt.choosing_seconds;
    tokens += static_cast<double>(sample.nll.size());
    token = std::max(token, sample.token_seconds);
  }
  line["choosing_seconds"] = prompt;
  if (token > 0.0) line["token_seconds"] = token + decoding / tokens;
}

void AddText(const Progressed& state, size_t contestant, Json& line) {
  std::vector<eval::SampleScores> scores;
  int64_t prompt_bytes = 0;
  int64_t full_bytes = 0;
  for (const auto& sample : state.samples) {
    scores.push_back(sample[contestant]);
    prompt_bytes += sample[contestant].prompt.allocated_bytes;
    full_bytes += sample[contestant].prompt.full_bytes;
  }
  AddSeconds(scores, line);
  const eval::Divergence result = eval::Summarise(scores);
  eval::AddDivergence(result, line);
  line["nll"] = result.model.nll;
  line["stderr"] = result.model.stderr_nll;
  line["tokens"] = result.model.tokens;
  line["cache"] = result.model.cache.ToJson();
  line["prompt_share"] = static_cast<double>(prompt_bytes) / static_cast<double>(full_bytes);
}

void AddNeedles(const CompareTasks& tasks, const Progressed& state, size_t contestant, Json& line) {
  size_t next = 0;
  int64_t all = 0;
  line["cells"] = Json::array();
  for (const auto& cell : tasks.cells) {
    int64_t found = 0;
    for (int64_t i = 0; i < cell.samples; ++i) found += state.found[next++][contestant];
    all += found;
    eval::NeedleCell answered{cell.length, cell.depth, cell.samples, 0.0, {}};
    answered.accuracy = static_cast<double>(found) / static_cast<double>(cell.samples);
    line["cells"].push_back(eval::CellToJson(answered));
  }
  line["needles_found"] = all;
  line["needle_accuracy"] = static_cast<double>(all) / static_cast<double>(next);
}

void AddRuler(const CompareTasks& tasks, const Progressed& state, size_t contestant, Json& line) {
  std::vector<double> scores;
  for (const auto& row : state.ruler) scores.push_back(row[contestant]);
  const eval::TaskScores result = eval::SummariseTasks(tasks.ruler, scores);
  line["ruler_score"] = result.score;
  line["ruler_cells"] = eval::CellsToJson(result.cells);
}

Json ResultOf(const CompareTasks& tasks, const Field& field, const Progressed& state) {
  Json result = {{"context", tasks.walk.context},
                 {"decode", tasks.walk.decode},
                 {"samples", tasks.samples.size()},
                 {"needles", tasks.prompts()},
                 {"ruler_prompts", tasks.ruler.size()},
                 {"question", tasks.needle.question_before ? "before" : "after"},
                 {"lines", Json::array()},
                 {"impossible", field.impossible}};
  for (size_t c = 0; c < field.contestants.size(); ++c) {
    const Json& record = field.records[c];
    Json line = {{"name", record["name"]},
                 {"policy", record["policy"]},
                 {"budget", record["budget"]},
                 {"bundle", record["bundle"]},
                 {"method", record["cache"]["method"]},
                 {"scorer", record["cache"]["scorer"]}};
    if (!state.samples.empty()) AddText(state, c, line);
    if (!state.found.empty()) AddNeedles(tasks, state, c, line);
    if (!state.ruler.empty()) AddRuler(tasks, state, c, line);
    result["lines"].push_back(std::move(line));
  }
  return result;
}

}  // namespace

int64_t CompareTasks::prompts() const {
  int64_t count = 0;
  for (const auto& cell : cells) count += std::ssize(cell.prompts);
  return count;
}

Json RunComparison(CompareRequest request,
                   const CompareTasks& tasks,
                   const Tokenizer& tokenizer,
                   const fs::path& progress_file,
                   ThreadPool& pool,
                   Progress& progress) {
  request.reference_length = tasks.samples.empty() ? tasks.needle.lengths[0] : tasks.walk.context;
  request.append = tasks.walk.policy == runtime::DecodePolicy::kAppend;
  const Field field = MakeField(request, pool);
  Progressed state;
  state.file = progress_file;
  state.signature = SignatureOf(tasks, field);
  state.Load();
  WalkSamples(tasks, field, pool, progress, state);
  AskNeedles(tasks, field, tokenizer, progress, state);
  AskRuler(tasks, field, tokenizer, progress, state);
  return ResultOf(tasks, field, state);
}

}  // namespace kvc::choose
