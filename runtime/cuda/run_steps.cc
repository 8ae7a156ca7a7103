#include "runtime/cuda/run_steps.h"

#include "core/base/error.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/heads.h"
#include "kernels/cuda/norm.h"

namespace kvc::runtime {
namespace {

using cuda::Activation;

// What a step has besides its data.
class StepRunner {
 public:
  StepRunner(const Step& step, const DeviceStepData& data, CudaActivations& x)
      : step_(step), data_(data), x_(x), out_(x.View(step.out)), stream_(x.device().stream()) {}

  void Run() const {
    switch (step_.kind) {
      case StepKind::kEmbedTokens:
        return cuda::Embed(x_.ids(), data_.table, out_, stream_);
      case StepKind::kEmbedPositions:
        return cuda::Embed(x_.positions(), data_.table, out_, stream_);
      case StepKind::kCopy:
        return Copy(0);
      case StepKind::kAdd:
        return Combine(cuda::Add);
      case StepKind::kMul:
        return Combine(cuda::Multiply);
      case StepKind::kSiluMul:
        return cuda::ActivateMul(Activation::kSilu, In(0), In(1), out_, stream_);
      case StepKind::kGeluTanh:
        return cuda::Activate(Activation::kGeluTanh, In(0), out_, stream_);
      case StepKind::kGeluExact:
        return cuda::Activate(Activation::kGeluExact, In(0), out_, stream_);
      case StepKind::kRmsNorm:
        return cuda::RmsNorm(In(0), step_.heads, data_.weight, step_.epsilon, out_, stream_);
      case StepKind::kLayerNorm:
        return cuda::LayerNorm(In(0), step_.heads, data_.weight, data_.bias, step_.epsilon, out_,
                               stream_);
      case StepKind::kRope:
        Copy(0);
        return cuda::Rotate(out_, step_.heads, x_.positions(), data_.rotation, stream_);
      case StepKind::kPairRope:
        Copy(0);
        return cuda::RotatePairs(out_, data_.pairs, x_.positions(), data_.rotation, stream_);
      case StepKind::kProjectHeads:
        return ProjectHeads();
      case StepKind::kLinear:
        return x_.products().Product(In(0), x_.model().linear(step_.linear), data_.bias, false,
                                     out_, stream_);
      case StepKind::kAttention:
        break;
    }
    KVC_THROW(kInternal, "node \"{}\": step without a kernel", step_.node);
  }

 private:
  [[nodiscard]] cuda::Rows In(size_t i) const { return x_.View(step_.in[i]); }

  void Copy(size_t i) const {
    const cuda::Rows in = In(i);
    if (in.data != out_.data) cuda::Copy(in, out_, stream_);
  }

  // Adds or multiplies both inputs: `into` takes one of them into the other.
  void Combine(void (*into)(const cuda::ConstRows&, const cuda::Rows&, cuda::StreamHandle)) const {
    const bool second_is_out = step_.out == step_.in[1];
    if (!second_is_out) Copy(0);
    into(In(second_is_out ? 0 : 1), out_, stream_);
  }

  void ProjectHeads() const {
    const int64_t rank = step_.out.width / step_.heads;  // R
    const int64_t head_width = step_.in[0].width / step_.heads;
    const cuda::ConstRows columns = {data_.columns, DType::kF32, step_.groups * head_width, rank,
                                     rank};
    cuda::ProjectHeads(In(0), step_.heads, columns, step_.groups, data_.bias, out_, stream_);
  }

  const Step& step_;
  const DeviceStepData& data_;
  CudaActivations& x_;
  cuda::Rows out_;
  cuda::StreamHandle stream_;
};

}  // namespace

void RunSteps(int64_t section, SectionPart part, CudaActivations& x) {
  const std::vector<Step>& steps = x.plan().sections[section];
  const size_t middle = AttentionIndex(steps);
  const size_t begin = part == SectionPart::kBehindAttention ? middle + 1 : 0;
  const size_t end = part == SectionPart::kBeforeAttention ? middle : steps.size();
  for (size_t i = begin; i < end; ++i) {
    StepRunner(steps[i], x.model().section(section)[i], x).Run();
  }
}

}  // namespace kvc::runtime
