#ifndef KVC_C_H
#define KVC_C_H
/*
 * Text generation through a compressed key-value cache, for C and for bindings of other languages.
 * kvc/kvc.h says what the objects do and which threads may use them; here they are opaque handles.
 *
 * A function that may fail returns a kvc_status, and kvc_error_text() says why. Texts are UTF-8 and
 * end with a zero byte. A handle that a function hands out is freed by the function named after its
 * type; freeing NULL does nothing. A handle of a session keeps what it needs of its bundle.
 */

#include <stddef.h>
#include <stdint.h>

#include "kvc/visibility.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Names are as C has them. NOLINTBEGIN(readability-identifier-naming) */

typedef struct kvc_bundle kvc_bundle;
typedef struct kvc_session kvc_session;
typedef struct kvc_generation kvc_generation;
typedef struct kvc_cancel kvc_cancel;

/* The exit codes of the commands for the same failures. */
typedef enum kvc_status {
  KVC_OK = 0,
  KVC_INTERNAL = 1,
  KVC_USAGE = 2,
  KVC_INPUT = 3,
  KVC_INFEASIBLE = 4,
  KVC_VERIFICATION = 5,
  KVC_IO = 6,
  KVC_DEVICE = 7,
  KVC_CANCELLED = 130
} kvc_status;

/* Returns the version of the library, "0.2.0". */
KVC_PUBLIC const char* kvc_version(void);
/* Returns the text of the last error in this thread, valid until its next call; "" before any. */
KVC_PUBLIC const char* kvc_error_text(void);

typedef struct kvc_load_options {
  const char* device; /* NULL: "cpu" */
  int threads;        /* 0: one for each core */
  int check_hashes;   /* of all files; sizes are always checked */
} kvc_load_options;

/* Loads a bundle. options: NULL for the defaults, which are zeros. */
KVC_PUBLIC kvc_status kvc_bundle_load(const char* directory,
                                      const kvc_load_options* options,
                                      kvc_bundle** bundle);
KVC_PUBLIC void kvc_bundle_free(kvc_bundle* bundle);
KVC_PUBLIC int64_t kvc_bundle_context_length(const kvc_bundle* bundle);
KVC_PUBLIC int64_t kvc_bundle_vocabulary(const kvc_bundle* bundle);

typedef struct kvc_session_options {
  const char* budget; /* NULL: the bundle's; "25%", "512tok", "1GiB@128k" */
  int64_t chunk;      /* 0: 512 */
  int64_t reserve;
} kvc_session_options;

KVC_PUBLIC kvc_status kvc_session_new(const kvc_bundle* bundle,
                                      const kvc_session_options* options,
                                      kvc_session** session);
KVC_PUBLIC kvc_status kvc_session_clone(const kvc_session* session, kvc_session** clone);
KVC_PUBLIC void kvc_session_free(kvc_session* session);

/* A wish to end calls, which any thread may utter at any time. It must outlive the calls. */
KVC_PUBLIC kvc_cancel* kvc_cancel_new(void);
KVC_PUBLIC void kvc_cancel_request(kvc_cancel* cancel);
KVC_PUBLIC void kvc_cancel_free(kvc_cancel* cancel);

/* Reads text, or ids, onto the cache. cancel: may be NULL; KVC_CANCELLED if it came first. */
KVC_PUBLIC kvc_status kvc_session_extend(kvc_session* session,
                                         const char* text,
                                         const kvc_cancel* cancel);
KVC_PUBLIC kvc_status kvc_session_extend_ids(kvc_session* session,
                                             const int32_t* ids,
                                             size_t count,
                                             const kvc_cancel* cancel);

typedef struct kvc_generate_options {
  int64_t max_new_tokens;
  double temperature;
  int64_t top_k;
  double top_p;
  uint64_t seed;
  const char* const* stop; /* [stop_count] texts that end the generation */
  size_t stop_count;
  const kvc_cancel* cancel; /* may be NULL */
} kvc_generate_options;

/* Returns the defaults: 64 tokens, each the most probable one. */
KVC_PUBLIC kvc_generate_options kvc_generate_defaults(void);

/* Called for each new token with its text, which ends with a zero byte and is valid until the call
 * returns; id is -1 for a rest of text that was held back. 0: the generation ends. */
typedef int (*kvc_token_callback)(int32_t id, const char* text, void* user);

typedef enum kvc_end {
  KVC_END_STOP_TOKEN = 0,
  KVC_END_STOP_TEXT = 1,
  KVC_END_LENGTH = 2,
  KVC_END_CONTEXT = 3,
  KVC_END_CALLBACK = 4,
  KVC_END_CANCELLED = 5
} kvc_end;

/* Reads text, or ids, and generates what follows. options: NULL for the defaults. on_token may be
 * NULL, as may generation where only the callback is wanted. */
KVC_PUBLIC kvc_status kvc_session_generate(kvc_session* session,
                                           const char* text,
                                           const kvc_generate_options* options,
                                           kvc_token_callback on_token,
                                           void* user,
                                           kvc_generation** generation);
KVC_PUBLIC kvc_status kvc_session_generate_ids(kvc_session* session,
                                               const int32_t* ids,
                                               size_t count,
                                               const kvc_generate_options* options,
                                               kvc_token_callback on_token,
                                               void* user,
                                               kvc_generation** generation);
KVC_PUBLIC void kvc_generation_free(kvc_generation* generation);
/* Belong to the generation. */
KVC_PUBLIC const char* kvc_generation_text(const kvc_generation* generation);
KVC_PUBLIC const int32_t* kvc_generation_ids(const kvc_generation* generation, size_t* count);
KVC_PUBLIC kvc_end kvc_generation_end(const kvc_generation* generation);

typedef struct kvc_cache_bytes {
  int64_t full;      /* of the original model, in its own type */
  int64_t held;      /* of what is kept */
  int64_t allocated; /* with room for what comes next */
  int64_t peak;      /* the most that was allocated at once */
} kvc_cache_bytes;

KVC_PUBLIC int64_t kvc_session_tokens(const kvc_session* session);
KVC_PUBLIC kvc_cache_bytes kvc_session_cache(const kvc_session* session);

/* NOLINTEND(readability-identifier-naming) */

#ifdef __cplusplus
}
#endif

#endif
