#pragma once
// The tokens that the files beside a tokenizer add to it: added_tokens_decoder, added_tokens.json
// and the special tokens (bos_token, pad_token, ...).

#include <vector>

#include "core/tokenizer/added.h"
#include "core/tokenizer/config.h"
#include "core/tokenizer/vocab.h"

namespace kvc::tokenizer {

// Adds the configuration's tokens to `tokens`, those of the tokenizer itself, as transformers does.
// First come config.added_tokens in the order of the ids that they claim, then the special tokens
// in the order of their keys, then the extra ones. A token whose text the vocabulary or `tokens`
// has keeps that id; any other gets the next id behind all of them, whatever it claims. The flags
// of config.added_tokens replace those that `tokens` has for the same text.
void AddConfiguredTokens(const TokenizerConfig& config,
                         const Vocabulary& vocabulary,
                         std::vector<AddedToken>& tokens);

}  // namespace kvc::tokenizer
