#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include <dnnl.hpp>
#include <omp.h>

#include "core/base/error.h"
#include "kernels/cpu/block_product.h"
#include "kernels/cpu/scratch.h"

namespace kvc::kernels {
namespace {

// The products of every shape that a model asks for at a few lengths of a prompt.
constexpr int64_t kKnownProducts = 512;

// oneDNN decides when it makes a product how many OpenMP threads of its own will run it. This scope
// makes it one; the number belongs to the thread that calls.
class SingleOpenMpThread {
 public:
  SingleOpenMpThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~SingleOpenMpThread() { omp_set_num_threads(before_); }
  SingleOpenMpThread(const SingleOpenMpThread&) = delete;
  SingleOpenMpThread& operator=(const SingleOpenMpThread&) = delete;

 private:
  int before_;
};

const dnnl::engine& Processor() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

class OneDnnProduct : public BlockProduct {
 public:
  explicit OneDnnProduct(const dnnl::matmul::primitive_desc& desc)
      : x_(desc.src_desc()),
        weight_(desc.weights_desc()),
        y_(desc.dst_desc()),
        scratch_(desc.scratchpad_desc()),
        product_(desc) {}

  void Run(const void* x, const void* weight, float* y) const override {
    thread_local dnnl::stream stream(Processor());
    const auto floats = static_cast<int64_t>(scratch_.get_size() / sizeof(float)) + 1;
    const auto memory = [](const dnnl::memory::desc& desc, const void* data) {
      return dnnl::memory(desc, Processor(), const_cast<void*>(data));  // read only, if an input
    };
    product_.execute(
        stream, {{DNNL_ARG_SRC, memory(x_, x)},
                 {DNNL_ARG_WEIGHTS, memory(weight_, weight)},
                 {DNNL_ARG_DST, memory(y_, y)},
                 {DNNL_ARG_SCRATCHPAD, memory(scratch_, Scratch(ScratchUse::kLibrary, floats))}});
  }

 private:
  dnnl::memory::desc x_, weight_, y_, scratch_;
  dnnl::matmul product_;
};

std::shared_ptr<const BlockProduct> Make(const BlockShape& shape, DType dtype) {
  const SingleOpenMpThread single;
  using Desc = dnnl::memory::desc;
  const auto type =
      dtype == DType::kBF16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  const Desc x({shape.rows, shape.in}, type, dnnl::memory::dims{shape.in, 1});
  const Desc weight({shape.in, shape.out}, type, dnnl::memory::dims{1, shape.in});
  const Desc y({shape.rows, shape.out}, dnnl::memory::data_type::f32,
               dnnl::memory::dims{shape.out, 1});
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  try {
    const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(x, weight, y), attributes,
                                            Processor());
    // "brg": blocks in registers, written for this instruction set. What else it has here is slower
    // than the caller, and lets a row depend on the number of rows.
    if (std::strncmp(desc.impl_info_str(), "brg", 3) != 0) return nullptr;
    return std::make_shared<OneDnnProduct>(desc);
  } catch (const dnnl::error&) {
    return nullptr;  // this processor has no such product
  }
}

}  // namespace

std::shared_ptr<const BlockProduct> BlockProduct::Get(const BlockShape& shape, DType dtype) {
  static std::mutex mutex;
  static std::map<std::pair<BlockShape, DType>, std::shared_ptr<const BlockProduct>> known;
  if (shape.rows == 0 || shape.out == 0 || shape.in == 0) return nullptr;
  const std::lock_guard<std::mutex> guard(mutex);
  const auto [place, is_new] = known.try_emplace({shape, dtype});
  if (is_new) {
    place->second = Make(shape, dtype);
  }
  std::shared_ptr<const BlockProduct> product = place->second;
  if (std::ssize(known) > kKnownProducts) known.clear();
  return product;
}

}  // namespace kvc::kernels
