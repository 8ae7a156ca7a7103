#include "kernels/elementwise.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.h"

namespace kvc::kernels {
namespace {

// Rows of one part: enough elements to be worth a thread.
int64_t RowGrain(int64_t cols) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(cols, 1)); }

}  // namespace

void RmsNorm(
    ConstMatrixF x, std::span<const float> weight, float epsilon, MatrixF y, ThreadPool& pool) {
  pool.ParallelFor(x.rows, RowGrain(x.cols), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* in = x.row(t);
      float sum = 0.0F;
      for (int64_t c = 0; c < x.cols; ++c) {
        sum += in[c] * in[c];
      }
      const float scale = 1.0F / std::sqrt(sum / static_cast<float>(x.cols) + epsilon);
      for (int64_t c = 0; c < x.cols; ++c) {
        y(t, c) = in[c] * scale * weight[static_cast<size_t>(c)];
      }
    }
  });
}

void LayerNorm(ConstMatrixF x,
               std::span<const float> weight,
               std::span<const float> bias,
               float epsilon,
               MatrixF y,
               ThreadPool& pool) {
  pool.ParallelFor(x.rows, RowGrain(x.cols), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* in = x.row(t);
      float sum = 0.0F;
      for (int64_t c = 0; c < x.cols; ++c) {
        sum += in[c];
      }
      const float mean = sum / static_cast<float>(x.cols);
      float squares = 0.0F;
      for (int64_t c = 0; c < x.cols; ++c) {
        squares += (in[c] - mean) * (in[c] - mean);
      }
      const float scale = 1.0F / std::sqrt(squares / static_cast<float>(x.cols) + epsilon);
      for (int64_t c = 0; c < x.cols; ++c) {
        const auto i = static_cast<size_t>(c);
        y(t, c) = (in[c] - mean) * scale * weight[i] + bias[i];
      }
    }
  });
}

void Add(ConstMatrixF x, MatrixF y, ThreadPool& pool) {
  pool.ParallelFor(x.rows, RowGrain(x.cols), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t c = 0; c < x.cols; ++c) {
        y(t, c) += x(t, c);
      }
    }
  });
}

void SiluMul(ConstMatrixF gate, ConstMatrixF up, MatrixF y, ThreadPool& pool) {
  pool.ParallelFor(y.rows, RowGrain(y.cols), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t c = 0; c < y.cols; ++c) {
        const float z = gate(t, c);
        y(t, c) = z / (1.0F + std::exp(-z)) * up(t, c);
      }
    }
  });
}

void GeluTanh(MatrixF x, ThreadPool& pool) {
  pool.ParallelFor(x.rows, RowGrain(x.cols), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t c = 0; c < x.cols; ++c) {
        const float z = x(t, c);
        const float u = 0.7978845608028654F * (z + 0.044715F * z * z * z);
        x(t, c) = 0.5F * z * (1.0F + std::tanh(u));
      }
    }
  });
}

void GeluExact(MatrixF x, ThreadPool& pool) {
  pool.ParallelFor(x.rows, RowGrain(x.cols), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t c = 0; c < x.cols; ++c) {
        const float z = x(t, c);
        x(t, c) = 0.5F * z * (1.0F + std::erf(z / std::numbers::sqrt2_v<float>));
      }
    }
  });
}

void Rope(MatrixF x,
          int64_t heads,
          std::span<const int32_t> positions,
          ConstMatrixF cos,
          ConstMatrixF sin,
          ThreadPool& pool) {
  const int64_t width = x.cols / heads;
  const int64_t half = width / 2;
  pool.ParallelFor(x.rows, RowGrain(x.cols), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* c = cos.row(positions[static_cast<size_t>(t)]);
      const float* s = sin.row(positions[static_cast<size_t>(t)]);
      for (int64_t h = 0; h < heads; ++h) {
        float* low = x.row(t) + h * width;
        float* high = low + half;
        for (int64_t j = 0; j < half; ++j) {
          const float a = low[j];
          const float b = high[j];
          low[j] = a * c[j] - b * s[j];
          high[j] = b * c[j] + a * s[j];
        }
      }
    }
  });
}

void SoftmaxRows(MatrixF x) {
  for (int64_t t = 0; t < x.rows; ++t) {
    float* row = x.row(t);
    float largest = -INFINITY;
    for (int64_t c = 0; c < x.cols; ++c) {
      largest = std::max(largest, row[c]);
    }
    float sum = 0.0F;
    for (int64_t c = 0; c < x.cols; ++c) {
      row[c] = std::exp(row[c] - largest);
      sum += row[c];
    }
    for (int64_t c = 0; c < x.cols; ++c) {
      row[c] /= sum;
    }
  }
}

}  // namespace kvc::kernels
