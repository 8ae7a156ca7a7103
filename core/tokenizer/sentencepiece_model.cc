#include "core/tokenizer/sentencepiece_model.h"

#include <dlfcn.h>

#include "core/base/error.h"

namespace kvc::tokenizer {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr int kBinding = 0;  // its run time refuses RTLD_DEEPBIND and ends the program
#else
constexpr int kBinding = RTLD_DEEPBIND;
#endif

SentencePieceEntry OpenModule() {
  // Found through the program's run path: build/lib.
  void* module = dlopen(KVC_SENTENCEPIECE_MODULE, RTLD_NOW | RTLD_LOCAL | kBinding);
  KVC_CHECK(module != nullptr, kInternal,
            "{}: expected on the program's run path, got {}; build kvc again",
            KVC_SENTENCEPIECE_MODULE, dlerror());
  void* entry = dlsym(module, kSentencePieceEntry);
  KVC_CHECK(entry != nullptr, kInternal, "{}: has no entry", KVC_SENTENCEPIECE_MODULE);
  return reinterpret_cast<SentencePieceEntry>(entry);
}

}  // namespace

std::unique_ptr<SentencePieceModel> OpenSentencePieceModel(const std::string& serialized,
                                                           const std::string& origin) {
  static const SentencePieceEntry entry = OpenModule();
  std::string error;
  std::unique_ptr<SentencePieceModel> model(entry(serialized, error));
  KVC_CHECK(model != nullptr && model->size() > 0, kBadInput,
            "{}: expected a SentencePiece model, got another file or a broken one: {}", origin,
            error);
  return model;
}

}  // namespace kvc::tokenizer
