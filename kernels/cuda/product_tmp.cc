#include "kernels/cuda/product.h"
#include "kernels/cuda/few_row_product.h"
#include <algorithm>
namespace kvc::cuda {
size_t ProductWorkspaceBytes(int64_t, int64_t) { return 256; }
struct ProductLibrary::Impl {};
ProductLibrary::ProductLibrary(void*, size_t) {}
ProductLibrary::~ProductLibrary() = default;
void ProductLibrary::Product(const ConstRows& x, const ConstRows& w, const float* bias, bool add, const Rows& y, StreamHandle stream) {
  for (int64_t t = 0; t < x.rows; t += 8) {
    ConstRows a = x; Rows b = y;
    a.rows = b.rows = std::min<int64_t>(8, x.rows - t);
    a.data = (const float*)x.data + t * x.stride; b.data = (float*)y.data + t * y.stride;
    FewRowProduct(a, w, bias, add, b, stream);
  }
}
}
