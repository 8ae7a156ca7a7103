#include "runtime/cpu/output_grams.h"

#include "core/base/dtype.h"
#include "core/base/error.h"
#include "linalg/products.h"

namespace kvc::runtime {

int64_t OutputProjection(const Plan& plan, int64_t layer) {
  const Step* attention = nullptr;
  for (const Step& step : plan.sections[1 + layer]) {
    if (step.kind == StepKind::kAttention) attention = &step;
    if (step.kind == StepKind::kLinear && attention != nullptr && step.in[0] == attention->out) {
      return step.linear;
    }
  }
  KVC_THROW(kUnsupported,
            "node \"{}\": expected the output projection behind it, which output-error needs, got "
            "none; use another --scorer",
            attention != nullptr ? attention->node : "");
}

OutputGrams MakeOutputGrams(const kernels::WeightView& weight,
                            int64_t num_heads,
                            ThreadPool& pool) {
  OutputGrams grams;
  const int64_t width = weight.in / num_heads;
  std::vector<float> rows(static_cast<size_t>(weight.out * weight.in));
  ConvertToFloat(weight.dtype, weight.data, weight.out * weight.in, rows.data());
  grams.storage.resize(static_cast<size_t>(num_heads * width * width));
  pool.ParallelFor(num_heads, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> columns(static_cast<size_t>(width * weight.out));
    const MatrixF transposed(columns.data(), width, weight.out);  // W_O^hT [D, E]
    for (int64_t h = begin; h < end; ++h) {
      for (int64_t e = 0; e < weight.out; ++e) {
        for (int64_t d = 0; d < width; ++d) {
          transposed(d, e) = rows[static_cast<size_t>(e * weight.in + h * width + d)];
        }
      }
      const MatrixF gram(grams.storage.data() + h * width * width, width, width);
      linalg::GemmNT(1.0F, transposed, transposed, false, gram);
    }
  });
  for (int64_t h = 0; h < num_heads; ++h) {
    grams.matrices.emplace_back(grams.storage.data() + h * width * width, width, width);
  }
  return grams;
}

}  // namespace kvc::runtime
