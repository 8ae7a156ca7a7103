#pragma once
// Text of files made harmless inside HTML, and the digests that a content security policy wants.

#include <string>
#include <string_view>

namespace kvc::report {

// Returns the text with &, <, >, " and ' as entities.
[[nodiscard]] std::string EscapeHtml(std::string_view text);

// Returns JSON text for a <script type="application/json"> element: '<' is written as \u003c, so
// that no value can end the element. The JSON is the same.
[[nodiscard]] std::string EscapeScriptJson(std::string_view json);

// Returns "'sha256-BASE64'" for the text of a <script>: the source that a content security policy
// names to let this script run and no other.
[[nodiscard]] std::string ScriptHash(std::string_view script);

}  // namespace kvc::report
