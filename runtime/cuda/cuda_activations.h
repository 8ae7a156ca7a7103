#pragma once
// The workspace of a pass on a CUDA device: floats throughout.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cuda/prefill_attention.h"
#include "kernels/cuda/product.h"
#include "kernels/cuda/rows.h"
#include "runtime/backend.h"
#include "runtime/cuda/cuda_device.h"
#include "runtime/cuda/cuda_model.h"
#include "runtime/device.h"

namespace kvc::runtime {

class DecodeStep;   // runtime/cuda/decode_step.h
struct StepCounts;  // likewise

class CudaActivations : public Activations {
 public:
  // `counts`: of steps; must outlive the object.
  CudaActivations(std::shared_ptr<const CudaModel> model,
                  const ActivationSize& size,
                  CudaDevice& device,
                  StepCounts& counts);
  ~CudaActivations() override;

  [[nodiscard]] const CudaModel& model() const { return *model_; }
  [[nodiscard]] const Plan& plan() const { return model_->plan(); }
  [[nodiscard]] CudaDevice& device() const { return device_; }
  // Takes the rows that are run next; ids and positions are uploaded where they changed. Throws
  // kBadShape for more than there is room for.
  void SetBatch(const RowBatch& batch);
  [[nodiscard]] int64_t first() const { return first_; }
  [[nodiscard]] int64_t batch_rows() const { return std::ssize(positions_); }
  // On the device [rows of the batch].
  [[nodiscard]] const int32_t* ids() const;
  [[nodiscard]] const int32_t* positions() const;
  // The activation between sections, all rows [rows, E].
  [[nodiscard]] cuda::Rows hidden() const;
  // Columns of a slot for the batch's rows.
  [[nodiscard]] cuda::Rows View(const Operand& operand) const;
  // Room for the logits of the batch's rows [rows, V]: a prompt's are read for its last token, or
  // chunk by chunk.
  Buffer& MakeLogits();
  // Room for the partial results of a prompt's attention where rows are split; counters are zero.
  [[nodiscard]] cuda::PrefillRoom MakeSplitRoom(const cuda::PrefillRoomSize& size);
  // Operand `index` of a layer's attention, and its output.
  [[nodiscard]] cuda::Rows AttentionIn(int64_t layer, size_t index) const;
  [[nodiscard]] cuda::Rows AttentionOut(int64_t layer) const;

  // Products run in memory of the activations' own.
  [[nodiscard]] cuda::ProductLibrary& products() { return products_; }
  // Null for prompts.
  [[nodiscard]] DecodeStep* step() const { return step_.get(); }

  // Keeps the batch's queries q [rows, H * W] among those of all rows, if they are asked for.
  void KeepQueries(const cuda::Rows& q);
  // Of the layer that was run last [T, H * W]; no rows where they are not asked for.
  [[nodiscard]] cuda::Rows prompt_queries() const;
  // The same brought to the host [T, H * W]; empty where they are not asked
  // for.
  [[nodiscard]] std::vector<float> DownloadQueries() const;

 private:
  std::shared_ptr<const CudaModel> model_;
  ActivationSize size_;
  CudaDevice& device_;
  int64_t first_ = 0;
  std::vector<int32_t> ids_, positions_;  // of the batch, as they are on the device
  std::vector<const Step*> attentions_;   // [L]
  Buffer tokens_;                         // int32: ids [chunk], positions [chunk]
  Buffer hidden_;                         // [rows, E]
  std::vector<Buffer> slots_;             // [slots]; the logits' is made when it is needed
  Buffer queries_;                        // [rows, widest H * W], dense rows of query_width_
  int64_t query_width_ = 0;
  Buffer split_partials_, split_arrived_;
  Buffer workspace_;  // before products_, which work there
  cuda::ProductLibrary products_;
  std::unique_ptr<DecodeStep> step_;
};

}  // namespace kvc::runtime
