// GoogleTest's main, but a program in which a test was skipped and none failed exits with
// kSkippedExit: ctest then lists it as skipped instead of passed.

#include <gtest/gtest.h>

namespace {
constexpr int kSkippedExit = 77;  // SKIP_RETURN_CODE in cmake/KvcTargets.cmake
}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const int status = RUN_ALL_TESTS();
  const bool skipped = ::testing::UnitTest::GetInstance()->skipped_test_count() > 0;
  return status == 0 && skipped ? kSkippedExit : status;
}
