// The radial basis of a graph times the weights of all that is made of it.
//
// A radial projection F is a function of one distance, so its derivative dF is kept beside it: what
// uses F adds its share to the gradient by the distance at once.
#pragma once

#include "graph.h"
#include "layers.h"

namespace {

// The radial basis (rows, radial) and, where there is room, its derivative (spec section 2).
inline void radial_basis(const Model& model, Index rows, const real* distance, real* value,
                         real* slope, Index stride) {
  for (Index r = 0; r < rows; ++r) {
    const real x = std::min(distance[r] / model.cutoff, real(1)), x2 = x * x;
    const real envelope = 1 + x2 * x2 * x * (x * (35 - 15 * x) - 21);
    const real decay = -105 * x2 * x2 * (1 - x) * (1 - x), scale = 1 / model.cutoff;
    for (Index i = 0; i < stride; i += LANES) {
      const vec gap = x - load(model.offset + i), t = load(model.temps + i) * gap;
      const vec power = -(gap * t), e = exponential(power < real(-60) ? all(-60) : power);
      store(value + r * stride + i, envelope * e);
      if (slope) store(slope + r * stride + i, scale * e * (decay - 2 * envelope * t));
    }
  }
}

class Projection {
 public:
  Index width = 0;

  Projection() = default;
  Projection(const Model& model, const Linear& weight, const Edges& edges, Arena& arena,
             int threads, bool with_slope, bool with_gradient)
      : width(weight.out), value_(arena.take(edges.n * weight.out)) {
    if (with_slope) slope_ = arena.take(edges.n * width);
    if (with_gradient) gradient_ = arena.zeros(edges.n * width);
    const Index stride = stride_of(model);
    in_parallel((edges.n + STEP - 1) / STEP, threads, [&](Index i) {
      const Index first = i * STEP, rows = std::min(STEP, edges.n - first);
      Arena& memory = scratch();
      real *value = memory.take(STEP * stride), *slope = memory.take(STEP * stride);
      radial_basis(model, rows, edges.distance + first, value, slope_ ? slope : nullptr, stride);
      weight.apply(rows, value, stride, value_ + first * width);
      if (slope_) weight.apply(rows, slope, stride, slope_ + first * width);
    });
  }
  const real* at(Index e, Index column = 0) const { return value_ + e * width + column; }
  const real* slope_at(Index e, Index column = 0) const { return slope_ + e * width + column; }
  real* gradient_at(Index e, Index column = 0) const { return gradient_ + e * width + column; }

  // Adds the gradient by the weight, from that by the projection.
  void learn(const Model& model, const Linear& weight, const Edges& edges, const Gradients& to,
             int threads) const {
    const Index stride = stride_of(model);
    const auto body = [&](Index i) {
      const Index first = i * STEP, rows = std::min(STEP, edges.n - first);
      real* value = scratch().take(STEP * stride);
      radial_basis(model, rows, edges.distance + first, value, nullptr, stride);
      weight.learn(to, rows, value, stride, gradient_at(first));
    };
    in_parallel((edges.n + STEP - 1) / STEP, threads, body, true);
  }

 private:
  static constexpr Index STEP = 48;
  real *value_ = nullptr, *slope_ = nullptr, *gradient_ = nullptr;

  static Index stride_of(const Model& model) { return (model.radial + 15) / 16 * 16; }
};

}  // namespace
