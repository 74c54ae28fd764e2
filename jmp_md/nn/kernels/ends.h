// Before and after the blocks: first embeddings, output blocks, and the layers that make energies.
#pragma once

#include "network.h"

namespace {

inline void Network::begin(real* h, real* m, real* slope) {
  const Index W = model.edge;
  real* st = arena.take(n * 2 * W);
  for_atoms([&](Index first, Index rows, Arena&) {
    for (Index a = first; a < first + rows; ++a)
      std::memcpy(h + a * model.atom, model.embedding + (graph.numbers[a] - 1) * model.atom,
                  model.atom * sizeof(real));
    model.first_atoms(rows, h + first * model.atom, st + first * 2 * W);
  });
  for_edges([&](const Tile& t, Arena&) {
    gather(t, st, m + t.edge * W);
    for (Index e = t.edge; e < t.edge_end; ++e)
      add_scaled(W, m + e * W, 1, bases.main.at(e, model.of_first));
    activate(t.rows() * W, m + t.edge * W, slope + t.edge * W);
  });
}

// The last of the gradients by geometry and weights, from those by the first embeddings.
inline void Network::begin_backward(const real* gh, real* gm, const real* slope) {
  const Index W = model.edge, A = model.atom;
  for_edges([&](const Tile& t, Arena&) {
    for (Index e = t.edge; e < t.edge_end; ++e) {
      scale_by(W, gm + e * W, slope + e * W);
      if (geometry)
        graph.main.g_distance[e] += dot(W, gm + e * W, bases.main.slope_at(e, model.of_first));
      if (weights) add_scaled(W, bases.main.gradient_at(e, model.of_first), 1, gm + e * W);
    }
  });
  if (!weights) return;
  for_atoms([&](Index first, Index rows, Arena& memory) {
    real *st = memory.take(rows * 2 * W), *h = memory.take(rows * A), *g = memory.take(rows * A);
    gather_backward(first, rows, gm, st);
    for (Index r = 0; r < rows; ++r)
      std::memcpy(h + r * A, model.embedding + (graph.numbers[first + r] - 1) * A,
                  A * sizeof(real));
    model.first_atoms.learn(weights, rows, h, A, st);
    std::memcpy(g, gh + first * A, rows * A * sizeof(real));
    model.first_atoms.transposed(rows, st, g, true);
    for (Index r = 0; r < rows; ++r)
      add_scaled(A, weights.at(model.of_embedding) + (graph.numbers[first + r] - 1) * A, 1,
                 g + r * A);
  });
}

inline void Network::output(Index k, const real* h, const real* m, real* features) {
  const Output& o = model.outputs[k];
  const Index W = model.atom, wide = model.outputs.size() * W;
  real* z = arena.take(n * model.edge);
  outputs[k] = {z, o.layers.trace(n, bool(weights), arena), o.energy.trace(n, bool(weights), arena)};
  for_edges([&](const Tile& t, Arena& memory) {
    sum_to_atoms(t, 4 * model.rbf, o.filter, m, z, memory);
  });
  for_atoms([&](Index first, Index rows, Arena& memory) {
    real *y = memory.take(rows * W), *spare = memory.take(2 * rows * W);
    o.layers.forward(rows, first, n, z + first * model.edge, y, outputs[k].layers, spare);
    add_scaled(rows * W, y, o.share, h + first * W);
    o.energy.forward(rows, first, n, y, y, outputs[k].energy, spare);
    for (Index r = 0; r < rows; ++r)
      std::memcpy(features + (first + r) * wide + k * W, y + r * W, W * sizeof(real));
  });
}

inline void Network::output_backward(Index k, const real* g_features, real* gh, real* gm,
                                     const real* m) {
  const Output& o = model.outputs[k];
  const Index W = model.atom, wide = model.outputs.size() * W;
  real* gz = arena.take(n * model.edge);
  for_atoms([&](Index first, Index rows, Arena& memory) {
    real *y = memory.take(rows * W), *spare = memory.take(2 * rows * W);
    for (Index r = 0; r < rows; ++r)
      std::memcpy(y + r * W, g_features + (first + r) * wide + k * W, W * sizeof(real));
    o.energy.backward(rows, first, n, y, y, outputs[k].energy, spare, weights);
    add_scaled(rows * W, gh + first * W, o.share, y);
    o.layers.backward(rows, first, n, y, gz + first * model.edge, outputs[k].layers, spare, weights,
                      outputs[k].sums + first * model.edge);
  });
  for_edges([&](const Tile& t, Arena& memory) {
    sum_to_atoms_backward(t, 4 * model.rbf, o.filter, m, gz, gm, memory);
  });
}

inline void Network::finish(const real* features, real* g_features, real* energies) {
  const Index W = model.atom, wide = model.outputs.size() * W;
  for_atoms([&](Index first, Index rows, Arena& memory) {
    const Layers& layers = model.global_layers;
    real *y = memory.take(rows * W), *spare = memory.take(2 * rows * W);
    real* own = memory.take(rows * W);
    const Trace trace = layers.trace(rows, bool(weights), memory);
    model.global(rows, features + first * wide, y);
    activate(rows * W, y, own);
    layers.forward(rows, 0, rows, y, y, trace, spare);
    std::vector<real*> slopes, inputs;
    real* x = y;
    for (std::size_t i = 0; i + 1 < model.head.size(); ++i) {
      const Linear& w = model.head[i].linear;
      real* next = memory.take(rows * w.out);
      inputs.push_back(x);
      slopes.push_back(memory.take(rows * w.out));
      w(rows, x, next);
      for (Index r = 0; r < rows; ++r) add_scaled(w.out, next + r * w.out, 1, model.head[i].bias);
      activate(rows * w.out, next, slopes.back());
      x = next;
    }
    const Linear& last = model.head.back().linear;  // the first of its columns counts
    real* result = memory.take(rows * last.out);
    last(rows, x, result);
    for (Index r = 0; r < rows; ++r)
      energies[first + r] = result[r * last.out] + model.head.back().bias[0];
    if (!geometry && !weights) return;
    real* g = memory.zeros(rows * last.out);
    for (Index r = 0; r < rows; ++r) g[r * last.out] = seeds ? seeds[first + r] : 1;
    for (Index i = model.head.size() - 1; i >= 0; --i) {
      const Linear& w = model.head[i].linear;
      if (i < Index(slopes.size())) scale_by(rows * w.out, g, slopes[i]);
      if (weights) {
        w.learn(weights, rows, i < Index(inputs.size()) ? inputs[i] : x, w.in, g);
        for (Index r = 0; r < rows; ++r)
          add_scaled(w.out, weights.at(model.head[i].of_bias), 1, g + r * w.out);
      }
      real* next = memory.take(rows * w.in);
      w.transposed(rows, g, next);
      g = next;
    }
    layers.backward(rows, 0, rows, g, g, trace, spare, weights);
    scale_by(rows * W, g, own);
    if (weights) model.global.learn(weights, rows, features + first * wide, wide, g);
    model.global.transposed(rows, g, g_features + first * wide);
  });
}

}  // namespace
