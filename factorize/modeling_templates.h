#pragma once
// The texts of factorize/modeling/*.py, which the build embeds (modeling_templates.cc.in).

#include <string_view>

namespace kvc::factorize {

extern const std::string_view kGpt2Template;    // modeling/gpt2.py
extern const std::string_view kRotaryTemplate;  // modeling/rotary.py

}  // namespace kvc::factorize
