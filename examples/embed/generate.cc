// usage: generate BUNDLE PROMPT...
// Says each prompt as a turn of one conversation, prints the answers as they come, and what the
// cache takes in the end.

#include <iostream>

#include <kvc/kvc.h>

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: generate BUNDLE PROMPT...\n";
    return 2;
  }
  try {
    const kvc::Bundle bundle = kvc::Bundle::Load(argv[1]);
    kvc::Session session(bundle);
    for (int i = 2; i < argc; ++i) {
      session.Generate(argv[i], {.max_new_tokens = 32, .stop = {"\n\n"}}, [](const auto& token) {
        std::cout << token.text << std::flush;
        return true;
      });
      std::cout << '\n';
    }
    const kvc::CacheUse cache = session.cache();
    std::cout << session.tokens() << " tokens: " << cache.held << " bytes of " << cache.full
              << '\n';
  } catch (const kvc::Exception& error) {
    std::cerr << "generate: error: " << error.what() << '\n';
    return static_cast<int>(error.code());
  }
}
