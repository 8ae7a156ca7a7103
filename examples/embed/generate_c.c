/* usage: generate_c BUNDLE PROMPT
 * Prints the prompt's continuation as it comes. */

#include <stdio.h>

#include <kvc/kvc_c.h>

static int print(int32_t id, const char* text, void* user) {
  (void)id;
  fputs(text, user);
  fflush(user);
  return 1;
}

int main(int argc, char** argv) {
  kvc_bundle* bundle = NULL;
  kvc_session* session = NULL;
  kvc_status status;
  if (argc != 3) {
    fputs("usage: generate_c BUNDLE PROMPT\n", stderr);
    return 2;
  }
  status = kvc_bundle_load(argv[1], NULL, &bundle);
  if (status == KVC_OK) status = kvc_session_new(bundle, NULL, &session);
  if (status == KVC_OK) status = kvc_session_generate(session, argv[2], NULL, print, stdout, NULL);
  if (status == KVC_OK) {
    putchar('\n');
  } else {
    fprintf(stderr, "generate_c: error: %s\n", kvc_error_text());
  }
  kvc_session_free(session);
  kvc_bundle_free(bundle);
  return status;
}
