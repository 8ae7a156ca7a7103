#include "linalg/blas_threads.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include <cblas.h>
#include <gtest/gtest.h>

#include "core/base/view.h"
#include "linalg/products.h"

namespace kvc::linalg {
namespace {

class BlasThreadsTest : public ::testing::Test {
 protected:
  ~BlasThreadsTest() override { SetBlasThreads(before_); }
  int before_ = BlasThreads();
};

TEST_F(BlasThreadsTest, SinglesNestAndBringTheNumberBack) {
  SetBlasThreads(3);
  EXPECT_EQ(BlasThreads(), 3);
  EXPECT_EQ(openblas_get_num_threads(), 3);
  {
    const SingleBlasThread outer;
    {
      const SingleBlasThread inner;
      EXPECT_EQ(openblas_get_num_threads(), 1);
    }
    EXPECT_EQ(BlasThreads(), 1);
    EXPECT_EQ(openblas_get_num_threads(), 1);
  }
  EXPECT_EQ(BlasThreads(), 3);
  EXPECT_EQ(openblas_get_num_threads(), 3);
}

TEST_F(BlasThreadsTest, OverlappingSinglesEndInAnyOrder) {
  SetBlasThreads(2);
  auto first = std::make_unique<SingleBlasThread>();
  auto second = std::make_unique<SingleBlasThread>();
  first.reset();
  EXPECT_EQ(openblas_get_num_threads(), 1);
  second.reset();
  EXPECT_EQ(openblas_get_num_threads(), 2);
}

TEST_F(BlasThreadsTest, ANumberThatIsSetInsideASingleHoldsAfterIt) {
  SetBlasThreads(2);
  {
    const SingleBlasThread single;
    SetBlasThreads(4);
    EXPECT_EQ(openblas_get_num_threads(), 1);
    EXPECT_EQ(BlasThreads(), 1);
  }
  EXPECT_EQ(openblas_get_num_threads(), 4);
  SetBlasThreads(0);
  EXPECT_EQ(BlasThreads(), 1);
}

// A product lets go of the one thread that it asked for.
TEST_F(BlasThreadsTest, ProductsLeaveTheNumberAsItWas) {
  SetBlasThreads(2);
  std::vector<float> a(16, 1.0F), b(16, 2.0F), c(16);
  GemmNT(1.0F, ConstMatrixF(a.data(), 4, 4), ConstMatrixF(b.data(), 4, 4), false,
         MatrixF(c.data(), 4, 4));
  EXPECT_EQ(c[5], 8.0F);
  EXPECT_EQ(openblas_get_num_threads(), 2);
}

TEST_F(BlasThreadsTest, HoldsInEveryThreadAtOnce) {
  SetBlasThreads(2);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20'000; ++i) {
        const SingleBlasThread single;
        if (openblas_get_num_threads() != 1) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(openblas_get_num_threads(), 2);
}

}  // namespace
}  // namespace kvc::linalg
