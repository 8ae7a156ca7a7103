#include "pipeline/recipe/junit.h"

#include <gtest/gtest.h>

namespace kvc::recipe {
namespace {

RecipeResult TwoStages() {
  RecipeResult result;
  result.stages = {{"full", "kvc-export", "kvc-export \"m & n\" -o full", "kept", 0.0},
                   {"kld", "kvc-eval kld", "kvc-eval kld quarter", "ran", 1.5}};
  result.gates = {
      {"kld", "max-ppl-increase", true, 0.01, 0.02, Json::object()},
      {"kld", "max-kld", false, 0.3, 0.1, {{"name", "max-kld"}, {"reason", "value > limit"}}}};
  result.gates_passed = false;
  return result;
}

TEST(JUnit, HasACaseForEachStageAndGate) {
  EXPECT_EQ(JUnitXml("a <recipe>", TwoStages()),
            R"(<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
<testsuite name="a &lt;recipe&gt;" tests="4" failures="1" errors="0" time="1.500">
<testcase classname="full" name="kvc-export" time="0.000">
<system-out>kept: kvc-export &quot;m &amp; n&quot; -o full</system-out>
</testcase>
<testcase classname="kld" name="kvc-eval kld" time="1.500">
<system-out>ran: kvc-eval kld quarter</system-out>
</testcase>
<testcase classname="kld" name="max-ppl-increase" time="0"/>
<testcase classname="kld" name="max-kld" time="0">
<failure message="max-kld: 0.3, limit 0.1; value &gt; limit" type="gate">{&#10;  &quot;name&quot;: &quot;max-kld&quot;,&#10;  &quot;reason&quot;: &quot;value &gt; limit&quot;&#10;}</failure>
</testcase>
</testsuite>
</testsuites>
)");
}

TEST(JUnit, OfAnErrorHasTheError) {
  const std::string xml = JUnitXml("r", "stage \"a\": expected\na file\x01");
  EXPECT_NE(xml.find(R"(errors="1")"), std::string::npos);
  EXPECT_NE(xml.find(R"(message="stage &quot;a&quot;: expected&#10;a file?")"), std::string::npos)
      << xml;
}

}  // namespace
}  // namespace kvc::recipe
