#pragma once
// Text generation through a compressed key-value cache, embedded in a program.
//
//   const kvc::Bundle bundle = kvc::Bundle::Load("bundle");
//   kvc::Session session(bundle);
//   std::cout << session.Generate("Once upon a time").text;
//
// A bundle is a directory that kvc-export has written. It is loaded once; each conversation is a
// session of it, which owns a cache. The cache keeps the budget that it was given, whatever is
// said: every further prompt goes onto the cache that is there.
//
// Threads: a Bundle does not change, and any number of threads may use one, and sessions of it. One
// thread at a time may use a Session; sessions of one bundle, on different threads, share its
// threads, whose loops take turns. Results do not depend on the number of threads.
//
// Errors are thrown as kvc::Exception, whose code is the exit code of the commands for the same
// failure. The interface holds std types alone, so that program and library must be compiled
// against the same C++ standard library; kvc/kvc_c.h has no such condition.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "kvc/visibility.h"

namespace kvc {

// Returns the version of the library, "0.2.0".
[[nodiscard]] KVC_PUBLIC std::string_view LibraryVersion();

// What a failure means for the caller.
enum class ErrorCode {
  kInternal = 1,      // a defect of kvc
  kUsage = 2,         // options or calls that contradict each other
  kInput = 3,         // a file or ids that are broken, or that this version does not support
  kInfeasible = 4,    // a budget below the smallest possible one
  kVerification = 5,  // a bundle whose files are not those of its manifest
  kIo = 6,            // reading, space
  kDevice = 7,        // no such device, it failed, or it has no room
};

class KVC_PUBLIC Exception : public std::runtime_error {
 public:
  Exception(ErrorCode code, const std::string& text) : std::runtime_error(text), code_(code) {}
  ~Exception() override;
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

struct LoadOptions {
  std::string device = "cpu";  // or "cuda" where the library was built for it
  int threads = 0;             // 0: one for each core
  bool check_hashes = false;   // of all files; sizes are always checked
};

// Bytes of a cache that holds some number of tokens.
struct CacheUse {
  int64_t full = 0;       // of the original model, in its own type
  int64_t held = 0;       // of what is kept
  int64_t allocated = 0;  // with room for what comes next
  int64_t peak = 0;       // the most that was allocated at once; 0 in a prediction
};

// A loaded bundle. Copies share what was loaded.
class KVC_PUBLIC Bundle {
 public:
  // Loads a bundle and its tokenizer. Throws kInput for a directory that is no bundle,
  // kVerification naming the file that is not the manifest's, kDevice, kUsage for a negative number
  // of threads.
  [[nodiscard]] static Bundle Load(const std::string& directory, const LoadOptions& options = {});

  // Return the most tokens that a session may hold, and the number of token ids.
  [[nodiscard]] int64_t context_length() const;
  [[nodiscard]] int64_t vocabulary() const;
  // Returns the ids of a text. begins: with the tokens that the tokenizer puts around a text, such
  // as the one that begins it. Throws kInput for text that is not UTF-8.
  [[nodiscard]] std::vector<int32_t> Encode(std::string_view text, bool begins = false) const;
  // Returns the text of ids; ids that name no token are left out.
  [[nodiscard]] std::string Decode(std::span<const int32_t> ids) const;
  // Returns the bytes of the cache behind a prompt of `tokens` tokens, at the bundle's budget or at
  // another one ("25%", "512tok", "1GiB@128k"). Throws kUsage, kInfeasible.
  [[nodiscard]] CacheUse PredictCache(int64_t tokens, const std::string& budget = "") const;

 private:
  friend class Session;
  struct Impl;
  explicit Bundle(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

struct SessionOptions {
  std::string budget = {};  // instead of the bundle's: "25%", "512tok", "1GiB@128k"
  int64_t chunk = 512;      // tokens of a prompt that are computed together
  int64_t reserve = 0;      // tokens that an uncompressed cache is allocated for from the start
};

struct GenerateOptions {
  int64_t max_new_tokens = 64;
  double temperature = 0.0;  // 0: always the most probable token
  int64_t top_k = 0;         // sample from the k most probable; 0: all
  double top_p = 1.0;        // sample from this mass of probability
  uint64_t seed = 42;        // the same seed, prompt and options: the same text
  // Texts that end the generation; the result ends in front of the first one that appears.
  std::vector<std::string> stop = {};
  // Ends the call soon after another thread has asked for it.
  std::stop_token cancel = {};
};

// One new token. Pieces of text are whole characters, and together the text of the result; what
// might be the beginning of a stop text, or a part of a character, comes with a later token.
struct Token {
  int32_t id = 0;  // -1: no token, but the rest that was held back
  std::string_view text;
};
// Called for each token before the next one is computed, in the thread that generates; false: the
// generation ends. What it throws leaves Generate.
using TokenCallback = std::function<bool(const Token& token)>;

// What ended a generation.
enum class End {
  kStopToken,  // the model ended its text
  kStopText,   // a text of GenerateOptions::stop
  kLength,     // max_new_tokens
  kContext,    // the model's context is full
  kCallback,   // the callback returned false
  kCancelled,  // GenerateOptions::cancel
};

struct Generation {
  std::string text;
  std::vector<int32_t> ids;  // all new tokens but a stop token
  End end = End::kLength;
  int64_t prompt_tokens = 0;  // that were read
  double prompt_seconds = 0.0;
  double decode_seconds = 0.0;
};

// One conversation: what was said, and the cache of it.
//
// A session remembers all tokens that it was given and that it has generated. The last one of them
// is not in the cache yet (its row is made when it is read), so the cache has one token less.
class KVC_PUBLIC Session {
 public:
  // Throws kUsage and kInfeasible for a budget, kInput for one that the bundle's model cannot have.
  explicit Session(const Bundle& bundle, const SessionOptions& options = {});
  ~Session();
  Session(Session&& other) noexcept;
  Session& operator=(Session&& other) noexcept;

  // Returns a session that has said the same, with a copy of the cache: one that has read a long
  // prompt serves many continuations. Both may then be used by different threads.
  [[nodiscard]] Session Clone() const;

  // Reads text, or ids, without generating any: the first one is the prompt, a further one goes
  // onto the cache that is there. Only a session's first text gets the tokens that the tokenizer
  // puts around one. A cancelled call returns false, and what it has not read is read by the next
  // call. Throws kInput for text that is not UTF-8, for unknown ids, and for more than
  // context_length() tokens in all; the session is then as before.
  bool Extend(std::string_view text, std::stop_token cancel = {});
  bool Extend(std::span<const int32_t> ids, std::stop_token cancel = {});

  // Reads text, or ids, like Extend, and generates what follows. They may be empty if the session
  // has read something. A stop token belongs to what was said, as do all tokens up to a stop text,
  // which may have gone a little further than the text that is returned.
  Generation Generate(std::string_view text,
                      const GenerateOptions& options = {},
                      const TokenCallback& on_token = {});
  Generation Generate(std::span<const int32_t> ids,
                      const GenerateOptions& options = {},
                      const TokenCallback& on_token = {});

  // Returns how many tokens were said, and what the cache takes now.
  [[nodiscard]] int64_t tokens() const;
  [[nodiscard]] CacheUse cache() const;

 private:
  struct Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvc
