/* The C interface, as C sees it. usage: c_api_test BUNDLE */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvc/kvc_c.h"

#define CHECK(condition)                                                                 \
  do {                                                                                   \
    if (!(condition)) {                                                                  \
      fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, kvc_error_text()); \
      exit(1);                                                                           \
    }                                                                                    \
  } while (0)

struct heard {
  char text[4096];
  size_t tokens;
  size_t most;
};

static int hear(int32_t id, const char* text, void* user) {
  struct heard* heard = user;
  strncat(heard->text, text, sizeof heard->text - strlen(heard->text) - 1);
  if (id >= 0) ++heard->tokens;
  return heard->tokens < heard->most;
}

static void refuses(const kvc_bundle* bundle) {
  kvc_bundle* missing = NULL;
  kvc_session* session = NULL;
  kvc_session_options options = {"nonsense", 0, 0};
  CHECK(kvc_bundle_load("/no/such/bundle", NULL, &missing) == KVC_IO);
  CHECK(missing == NULL && strstr(kvc_error_text(), "/no/such/bundle") != NULL);
  CHECK(kvc_bundle_load(NULL, NULL, &missing) == KVC_USAGE);
  CHECK(kvc_session_new(bundle, &options, &session) == KVC_USAGE);
  CHECK(strstr(kvc_error_text(), "nonsense") != NULL);
  CHECK(kvc_session_new(bundle, NULL, &session) == KVC_OK);
  CHECK(kvc_session_extend(session, "\xff", NULL) == KVC_INPUT);
  CHECK(kvc_session_generate(session, "", NULL, NULL, NULL, NULL) == KVC_USAGE);
  CHECK(kvc_session_extend_ids(session, NULL, 3, NULL) == KVC_USAGE);
  kvc_session_free(session);
}

static void converses(const kvc_bundle* bundle) {
  kvc_session* session = NULL;
  kvc_session* clone = NULL;
  kvc_generation* one = NULL;
  kvc_generation* two = NULL;
  kvc_generate_options options = kvc_generate_defaults();
  struct heard heard = {"", 0, 100};
  size_t count = 0;
  size_t other = 0;
  kvc_cache_bytes cache;
  CHECK(kvc_session_new(bundle, NULL, &session) == KVC_OK);
  CHECK(kvc_session_extend(session, "Alice was beginning to get", NULL) == KVC_OK);
  CHECK(kvc_session_clone(session, &clone) == KVC_OK);
  options.max_new_tokens = 9;
  CHECK(kvc_session_generate(session, " very", &options, hear, &heard, &one) == KVC_OK);
  CHECK(kvc_session_generate(clone, " very", &options, NULL, NULL, &two) == KVC_OK);
  CHECK(strcmp(kvc_generation_text(one), heard.text) == 0);
  CHECK(strcmp(kvc_generation_text(one), kvc_generation_text(two)) == 0);
  CHECK(kvc_generation_ids(one, &count) != NULL && count == 9 && heard.tokens == 9);
  CHECK(memcmp(kvc_generation_ids(one, &count), kvc_generation_ids(two, &other),
               count * sizeof(int32_t)) == 0);
  CHECK(other == count && kvc_generation_end(one) == KVC_END_LENGTH);
  cache = kvc_session_cache(session);
  CHECK(cache.allocated > 0 && cache.full > 0 && cache.peak >= cache.allocated);
  CHECK(kvc_session_tokens(session) > 9 &&
        kvc_session_tokens(session) < kvc_bundle_context_length(bundle));
  kvc_generation_free(one);
  heard.most = heard.tokens + 2;
  CHECK(kvc_session_generate_ids(session, NULL, 0, &options, hear, &heard, &one) == KVC_OK);
  CHECK(kvc_generation_end(one) == KVC_END_CALLBACK);
  kvc_generation_free(one);
  kvc_generation_free(two);
  kvc_session_free(clone);
  kvc_session_free(session);
}

static void cancels(const kvc_bundle* bundle) {
  kvc_session* session = NULL;
  kvc_generation* result = NULL;
  kvc_cancel* cancel = kvc_cancel_new();
  kvc_generate_options options = kvc_generate_defaults();
  const char* stops[] = {"e"};
  CHECK(kvc_session_new(bundle, NULL, &session) == KVC_OK);
  kvc_cancel_request(cancel);
  CHECK(kvc_session_extend(session, "Alice was beginning", cancel) == KVC_CANCELLED);
  options.cancel = cancel;
  CHECK(kvc_session_generate(session, "", &options, NULL, NULL, &result) == KVC_OK);
  CHECK(kvc_generation_end(result) == KVC_END_CANCELLED);
  kvc_generation_free(result);
  options.cancel = NULL;
  options.stop = stops;
  options.stop_count = 1;
  CHECK(kvc_session_generate(session, "", &options, NULL, NULL, &result) == KVC_OK);
  CHECK(kvc_generation_end(result) == KVC_END_STOP_TEXT);
  CHECK(strchr(kvc_generation_text(result), 'e') == NULL);
  kvc_generation_free(result);
  kvc_cancel_free(cancel);
  kvc_session_free(session);
}

int main(int argc, char** argv) {
  kvc_load_options load = {NULL, 2, 1};
  kvc_bundle* bundle = NULL;
  CHECK(argc == 2);
  CHECK(strlen(kvc_version()) >= 5);
  CHECK(kvc_bundle_load(argv[1], &load, &bundle) == KVC_OK);
  CHECK(kvc_bundle_vocabulary(bundle) > 0);
  refuses(bundle);
  converses(bundle);
  cancels(bundle);
  kvc_bundle_free(bundle);
  kvc_bundle_free(NULL);
  return 0;
}
