#include <algorithm>
#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include <dlfcn.h>

#include <cublasLt.h>

#include "core/base/error.h"
#include "kernels/cuda/launches_nvcc.h"
#include "kernels/cuda/product_library.h"

namespace kvc::cuda {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what NVIDIA advises for sm_90
constexpr uint32_t kMostAlignment = 256;

// The calls of the library, found by name: a build needs its headers, a machine its file.
struct CublasLt {
  decltype(&cublasLtGetVersion) version = nullptr;
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtMatmul) multiply = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) choose = nullptr;
  decltype(&cublasLtMatmulDescCreate) create_product = nullptr;
  decltype(&cublasLtMatmulDescDestroy) destroy_product = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set_product = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) create_layout = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) destroy_layout = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) create_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) destroy_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;

  // Stays open: the library does not like to be closed.
  static const CublasLt& Get() {
    static const CublasLt library;
    return library;
  }

 private:
  CublasLt();
};

template <class Function>
void Find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  KVC_CHECK(function != nullptr, kDevice, "cuBLASLt: expected the call {}, got none", name);
}

CublasLt::CublasLt() {
  const std::string file = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  KVC_CHECK(library != nullptr, kDevice,
            "cuBLASLt: expected {} of CUDA {}, got {}; put its folder into LD_LIBRARY_PATH", file,
            CUBLAS_VER_MAJOR, dlerror());
  Find(library, "cublasLtGetVersion", version);
  constexpr size_t kLeast = CUBLAS_VER_MAJOR * 10000;
  KVC_CHECK(version() >= kLeast, kDevice, "cuBLASLt: expected version {} or later, got {}", kLeast,
            version());
  Find(library, "cublasLtCreate", create);
  Find(library, "cublasLtDestroy", destroy);
  Find(library, "cublasLtMatmul", multiply);
  Find(library, "cublasLtMatmulAlgoGetHeuristic", choose);
  Find(library, "cublasLtMatmulDescCreate", create_product);
  Find(library, "cublasLtMatmulDescDestroy", destroy_product);
  Find(library, "cublasLtMatmulDescSetAttribute", set_product);
  Find(library, "cublasLtMatrixLayoutCreate", create_layout);
  Find(library, "cublasLtMatrixLayoutDestroy", destroy_layout);
  Find(library, "cublasLtMatmulPreferenceCreate", create_preference);
  Find(library, "cublasLtMatmulPreferenceDestroy", destroy_preference);
  Find(library, "cublasLtMatmulPreferenceSetAttribute", set_preference);
}

void Check(cublasStatus_t status, const char* what) {
  KVC_CHECK(status == CUBLAS_STATUS_SUCCESS, kDevice, "{}: expected success, got status {}", what,
            static_cast<int>(status));
}

// What the library calls A, B and C = D. It counts by columns: a row-major matrix is its transpose,
// so Y^T [out, T] = W [out, in] x^T [in, T].
struct Layout {
  cublasLtMatrixLayout_t handle = nullptr;

  explicit Layout(const ConstRows& rows) {
    const cudaDataType_t type = rows.dtype == DType::kF32   ? CUDA_R_32F
                                : rows.dtype == DType::kF16 ? CUDA_R_16F
                                                            : CUDA_R_16BF;
    Check(CublasLt::Get().create_layout(&handle, type, static_cast<uint64_t>(rows.width),
                                        static_cast<uint64_t>(rows.rows), rows.stride),
          "cuBLASLt layout");
  }
  ~Layout() { CublasLt::Get().destroy_layout(handle); }
  Layout(Layout&&) = delete;
};

struct Preference {
  cublasLtMatmulPreference_t handle = nullptr;

  Preference() { Check(CublasLt::Get().create_preference(&handle), "cuBLASLt preference"); }
  ~Preference() { CublasLt::Get().destroy_preference(handle); }
  Preference(Preference&&) = delete;
  template <class T>
  void Set(cublasLtMatmulPreferenceAttributes_t attribute, const T& value) const {
    Check(CublasLt::Get().set_preference(handle, attribute, &value, sizeof(value)),
          "cuBLASLt preference");
  }
};

// The largest power of two up to 256 that divides an address.
uint32_t AlignmentOf(const void* address) {
  const auto bits = reinterpret_cast<uintptr_t>(address) | kMostAlignment;
  return static_cast<uint32_t>(bits & (~bits + 1));
}

// What the choice of an algorithm depends on.
struct Shape {
  DType weights;
  int64_t rows, out, in, x_stride, w_stride, y_stride;
  uint32_t x_alignment, w_alignment, y_alignment;
  bool with_bias;

  explicit Shape(const ManyRowProduct& product)
      : weights(product.w.dtype),
        rows(product.y.rows),
        out(product.y.width),
        in(product.x.width),
        x_stride(product.x.stride),
        w_stride(product.w.stride),
        y_stride(product.y.stride),
        x_alignment(AlignmentOf(product.x.data)),
        w_alignment(AlignmentOf(product.w.data)),
        y_alignment(AlignmentOf(product.y.data)),
        with_bias(product.bias != nullptr) {}
  auto operator<=>(const Shape&) const = default;
};

// A shape's descriptors and, if the library has one, its algorithm.
class Prepared {
 public:
  Prepared(cublasLtHandle_t library, const ManyRowProduct& product)
      : w_(product.w), x_(product.x), y_(product.y) {
    Check(CublasLt::Get().create_product(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F),
          "cuBLASLt product");
    Set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    SetBias(product.bias);
    Choose(library, Shape(product));
  }
  ~Prepared() { CublasLt::Get().destroy_product(product_); }
  Prepared(Prepared&&) = delete;

  [[nodiscard]] bool found() const { return found_; }
  void Run(cublasLtHandle_t library,
           const ManyRowProduct& product,
           void* workspace,
           StreamHandle stream) const {
    SetBias(product.bias);
    const float one = 1.0F;
    const float beta = product.add ? 1.0F : 0.0F;
    Check(CublasLt::Get().multiply(library, product_, &one, product.w.data, w_.handle,
                                   product.x.data, x_.handle, &beta, product.y.data, y_.handle,
                                   product.y.data, y_.handle, &algorithm_, workspace,
                                   kWorkspaceBytes, reinterpret_cast<cudaStream_t>(stream)),
          "cuBLASLt product");
  }

 private:
  template <class T>
  void Set(cublasLtMatmulDescAttributes_t attribute, const T& value) const {
    Check(CublasLt::Get().set_product(product_, attribute, &value, sizeof(value)),
          "cuBLASLt product");
  }
  // A call has taken the pointer over when it returns.
  void SetBias(const float* bias) const {
    if (bias == nullptr) return;
    Set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
  void Choose(cublasLtHandle_t library, const Shape& shape) {
    const Preference preference;
    preference.Set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
    preference.Set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, shape.w_alignment);
    preference.Set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape.x_alignment);
    preference.Set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape.y_alignment);
    preference.Set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, shape.y_alignment);
    cublasLtMatmulHeuristicResult_t result = {};
    int count = 0;
    const cublasStatus_t status =
        CublasLt::Get().choose(library, product_, w_.handle, x_.handle, y_.handle, y_.handle,
                               preference.handle, 1, &result, &count);
    found_ = status == CUBLAS_STATUS_SUCCESS && count > 0 && result.state == CUBLAS_STATUS_SUCCESS;
    algorithm_ = result.algo;
  }

  Layout w_, x_, y_;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatmulAlgo_t algorithm_ = {};
  bool found_ = false;
};

class CublasLibrary final : public ManyRowLibrary {
 public:
  explicit CublasLibrary(void* workspace) : workspace_(workspace) {
    Check(CublasLt::Get().create(&handle_), "cuBLASLt");
  }
  ~CublasLibrary() override {
    prepared_.clear();
    CublasLt::Get().destroy(handle_);
  }
  CublasLibrary(CublasLibrary&&) = delete;

  bool Run(const ManyRowProduct& product, StreamHandle stream) override {
    std::unique_ptr<Prepared>& prepared = prepared_[Shape(product)];
    if (prepared == nullptr) prepared = std::make_unique<Prepared>(handle_, product);
    if (!prepared->found()) return false;
    prepared->Run(handle_, product, workspace_, stream);
    RememberLaunch("cuBLASLt product");
    WaitForLaunch("cuBLASLt product", stream);
    return true;
  }

 private:
  void* workspace_;
  cublasLtHandle_t handle_ = nullptr;
  // Prompts come in chunks of one size and a rest: shapes are few.
  std::map<Shape, std::unique_ptr<Prepared>> prepared_;
};

}  // namespace

size_t ManyRowWorkspaceBytes() { return kWorkspaceBytes; }

std::unique_ptr<ManyRowLibrary> OpenManyRowLibrary(void* workspace) {
  return std::make_unique<CublasLibrary>(workspace);
}

}  // namespace kvc::cuda
