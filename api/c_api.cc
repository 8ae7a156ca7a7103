// The C interface over the C++ one: handles are objects, exceptions become statuses.

#include <exception>
#include <new>
#include <span>
#include <stop_token>
#include <string>
#include <utility>

#include "kvc/kvc.h"
#include "kvc/kvc_c.h"

struct kvc_bundle {
  kvc::Bundle bundle;
};
struct kvc_session {
  kvc::Session session;
};
struct kvc_generation {
  kvc::Generation generation;
};
struct kvc_cancel {
  std::stop_source source;
};

namespace {

thread_local std::string error_text;

kvc_status Fail(kvc_status status, const char* text) noexcept {
  try {
    error_text = text;
  } catch (...) {
    error_text.clear();
  }
  return status;
}

// Calls `body`, which returns a status; exceptions become one.
template <class Body>
kvc_status Guarded(const Body& body) noexcept {
  try {
    return body();
  } catch (const kvc::Exception& error) {
    return Fail(static_cast<kvc_status>(error.code()), error.what());
  } catch (const std::bad_alloc&) {
    return Fail(KVC_INTERNAL, "memory: expected more of it");
  } catch (const std::exception& error) {
    return Fail(KVC_INTERNAL, error.what());
  } catch (...) {
    return Fail(KVC_INTERNAL, "an unknown exception");
  }
}

// Throws kUsage for a null pointer, by the name of its parameter.
void Expect(const void* pointer, const char* name) {
  if (pointer != nullptr) return;
  throw kvc::Exception(kvc::ErrorCode::kUsage,
                       std::string(name) + ": expected a pointer, got NULL");
}

std::stop_token TokenOf(const kvc_cancel* cancel) {
  return cancel == nullptr ? std::stop_token() : cancel->source.get_token();
}

kvc_status Done(bool done) { return done ? KVC_OK : Fail(KVC_CANCELLED, "cancelled"); }

std::span<const int32_t> IdsOf(const int32_t* ids, size_t count) {
  if (count > 0) Expect(ids, "ids");
  return {ids, count};
}

kvc::GenerateOptions ToOptions(const kvc_generate_options& options) {
  kvc::GenerateOptions result;
  result.max_new_tokens = options.max_new_tokens;
  result.temperature = options.temperature;
  result.top_k = options.top_k;
  result.top_p = options.top_p;
  result.seed = options.seed;
  for (size_t i = 0; i < options.stop_count; ++i) {
    Expect(options.stop, "stop");
    Expect(options.stop[i], "stop");
    result.stop.emplace_back(options.stop[i]);
  }
  result.cancel = TokenOf(options.cancel);
  return result;
}

// Prompt: text or ids.
template <class Prompt>
kvc_status Generate(kvc_session* session,
                    Prompt prompt,
                    const kvc_generate_options* options,
                    kvc_token_callback on_token,
                    void* user,
                    kvc_generation** generation) {
  kvc::TokenCallback callback;
  if (on_token != nullptr) {
    callback = [&](const kvc::Token& token) {
      return on_token(token.id, std::string(token.text).c_str(), user) != 0;
    };
  }
  kvc::Generation result = session->session.Generate(
      prompt, ToOptions(options == nullptr ? kvc_generate_defaults() : *options), callback);
  if (generation != nullptr) *generation = new kvc_generation{std::move(result)};
  return KVC_OK;
}

}  // namespace

const char* kvc_version(void) {
  static const std::string version(kvc::LibraryVersion());
  return version.c_str();
}

const char* kvc_error_text(void) { return error_text.c_str(); }

kvc_status kvc_bundle_load(const char* directory,
                           const kvc_load_options* options,
                           kvc_bundle** bundle) {
  return Guarded([&] {
    Expect(directory, "directory");
    Expect(bundle, "bundle");
    kvc::LoadOptions load;
    if (options != nullptr) {
      if (options->device != nullptr) load.device = options->device;
      load.threads = options->threads;
      load.check_hashes = options->check_hashes != 0;
    }
    *bundle = new kvc_bundle{kvc::Bundle::Load(directory, load)};
    return KVC_OK;
  });
}

void kvc_bundle_free(kvc_bundle* bundle) { delete bundle; }

int64_t kvc_bundle_context_length(const kvc_bundle* bundle) {
  return bundle->bundle.context_length();
}

int64_t kvc_bundle_vocabulary(const kvc_bundle* bundle) { return bundle->bundle.vocabulary(); }

kvc_status kvc_session_new(const kvc_bundle* bundle,
                           const kvc_session_options* options,
                           kvc_session** session) {
  return Guarded([&] {
    Expect(bundle, "bundle");
    Expect(session, "session");
    kvc::SessionOptions open;
    if (options != nullptr) {
      if (options->budget != nullptr) open.budget = options->budget;
      if (options->chunk != 0) open.chunk = options->chunk;
      open.reserve = options->reserve;
    }
    *session = new kvc_session{kvc::Session(bundle->bundle, open)};
    return KVC_OK;
  });
}

kvc_status kvc_session_clone(const kvc_session* session, kvc_session** clone) {
  return Guarded([&] {
    Expect(session, "session");
    Expect(clone, "clone");
    *clone = new kvc_session{session->session.Clone()};
    return KVC_OK;
  });
}

void kvc_session_free(kvc_session* session) { delete session; }

kvc_cancel* kvc_cancel_new(void) { return new (std::nothrow) kvc_cancel; }

void kvc_cancel_request(kvc_cancel* cancel) { cancel->source.request_stop(); }

void kvc_cancel_free(kvc_cancel* cancel) { delete cancel; }

kvc_status kvc_session_extend(kvc_session* session, const char* text, const kvc_cancel* cancel) {
  return Guarded([&] {
    Expect(session, "session");
    Expect(text, "text");
    return Done(session->session.Extend(std::string_view(text), TokenOf(cancel)));
  });
}

kvc_status kvc_session_extend_ids(kvc_session* session,
                                  const int32_t* ids,
                                  size_t count,
                                  const kvc_cancel* cancel) {
  return Guarded([&] {
    Expect(session, "session");
    return Done(session->session.Extend(IdsOf(ids, count), TokenOf(cancel)));
  });
}

kvc_generate_options kvc_generate_defaults(void) {
  const kvc::GenerateOptions defaults;
  return {defaults.max_new_tokens,
          defaults.temperature,
          defaults.top_k,
          defaults.top_p,
          defaults.seed,
          nullptr,
          0,
          nullptr};
}

kvc_status kvc_session_generate(kvc_session* session,
                                const char* text,
                                const kvc_generate_options* options,
                                kvc_token_callback on_token,
                                void* user,
                                kvc_generation** generation) {
  return Guarded([&] {
    Expect(session, "session");
    Expect(text, "text");
    return Generate(session, std::string_view(text), options, on_token, user, generation);
  });
}

kvc_status kvc_session_generate_ids(kvc_session* session,
                                    const int32_t* ids,
                                    size_t count,
                                    const kvc_generate_options* options,
                                    kvc_token_callback on_token,
                                    void* user,
                                    kvc_generation** generation) {
  return Guarded([&] {
    Expect(session, "session");
    return Generate(session, IdsOf(ids, count), options, on_token, user, generation);
  });
}

void kvc_generation_free(kvc_generation* generation) { delete generation; }

const char* kvc_generation_text(const kvc_generation* generation) {
  return generation->generation.text.c_str();
}

const int32_t* kvc_generation_ids(const kvc_generation* generation, size_t* count) {
  *count = generation->generation.ids.size();
  return generation->generation.ids.data();
}

kvc_end kvc_generation_end(const kvc_generation* generation) {
  return static_cast<kvc_end>(generation->generation.end);
}

int64_t kvc_session_tokens(const kvc_session* session) { return session->session.tokens(); }

kvc_cache_bytes kvc_session_cache(const kvc_session* session) {
  const kvc::CacheUse use = session->session.cache();
  return {use.full, use.held, use.allocated, use.peak};
}
