// Energies of the folded network, and their gradients by the geometry or the weights:
// jmp_md/nn/folded.py on one processor, with sums over triplets and quadruplets by moments of atoms.
//
// Every pass goes over tiles of whole atoms with some dozens of edges, which stay in the cache from
// one layer to the next. No sum depends on the number of threads but the gradients by weights.
#pragma once

#include "sums.h"

namespace {

constexpr Index EDGES = 48, ATOMS = 24;  // rows of a tile

// What one block keeps for the backward pass: values, and slopes of activations.
struct Kept {
  real *h_in, *h_out;  // embeddings of atoms, where gradients by weights are wanted
  real *m, *z, *z_slope, *e2e_x, *e2e_slope, *quad_x, *quad_slope, *e2a_x, *e2a_slope;
  real *a2e_x, *a2e_slope, *e2e_moments, *a2e_moments, *e2e_up, *quad_up, *a2e_up;
  real *e2e_message, *quad_message, *a2e_message;  // likewise
  real *terms, *series, *updated, *concat, *e2a, *a2a, *sums;
  real *h, *h_slope, *e2a_up, *a2a_up;
  Trace before, after, residual, atoms, update;
};
struct KeptOutput {
  real* sums;
  Trace layers, energy;
};

class Network {
 public:
  Network(const Model& m, Graph& g, Arena& arena, int threads, bool geometry, Gradients weights,
          const real* seeds)
      : model(m), graph(g), arena(arena), threads(threads), geometry(geometry), weights(weights),
        seeds(seeds), bases(m, g, arena, threads, geometry, weights), n(g.atoms), E(g.main.n) {
    const Index share = (E + 4 * threads - 1) / (4 * threads);
    parts = tiles(g.main, n, threads > 1 ? std::min(EDGES, std::max<Index>(share, 16)) : EDGES);
  }

  void run(real* energies) {
    const Index B = model.blocks.size(), wide = (B + 1) * model.atom;
    real *h = arena.take(n * model.atom), *m = arena.take(E * model.edge);
    real *features = arena.take(n * wide), *first_slope = arena.take(E * model.edge);
    kept.resize(B), outputs.resize(B + 1);
    begin(h, m, first_slope);
    for (Index k = 0; k <= B; ++k) {
      output(k, h, m, features);
      if (k < B) block(k, h, m);
    }
    real* g_features = arena.take(n * wide);
    finish(features, g_features, energies);
    if (!geometry && !weights) return;
    const BySource ae_from(graph.atom_edge, n), near_from(graph.near, n), quad_from(graph.quad, n);
    real *gh = arena.zeros(n * model.atom), *gm = arena.zeros(E * model.edge);
    for (Index k = B; k >= 0; --k) {
      if (k < B) block_backward(k, gh, gm, ae_from, near_from, quad_from);
      output_backward(k, g_features, gh, gm, k < B ? kept[k].m : m);
    }
    begin_backward(gh, gm, first_slope);
    bases.backward(quad_from);
  }

 private:
  const Model& model;
  Graph& graph;
  Arena& arena;
  const int threads;
  const bool geometry;  // whether gradients by it are wanted
  const Gradients weights;
  const real* seeds;  // (atoms) gradient by energies; null for ones
  Bases bases;
  const Index n, E;
  std::vector<Tile> parts;
  std::vector<Kept> kept;
  std::vector<KeptOutput> outputs;

  template <class Body>
  void for_edges(Body body) {
    const auto each = [&](Index i) { body(parts[i], scratch()); };
    in_parallel(parts.size(), threads, each, bool(weights));
  }
  template <class Body>
  void for_atoms(Body body) {
    const auto each = [&](Index i) {
      body(i * ATOMS, std::min(ATOMS, n - i * ATOMS), scratch());
    };
    in_parallel((n + ATOMS - 1) / ATOMS, threads, each, bool(weights));
  }
  real* copied(Index size, const real* x) {
    real* copy = arena.take(size);
    std::memcpy(copy, x, size * sizeof(real));
    return copy;
  }
  static void filtered(Index rows, const real* radial, Index stride, const Linear& filter,
                       const real* x, Index x_stride, real* out);
  void filtered_backward(const Projection& radial, Index first, Index rows, Index column,
                         const Linear& filter, const real* x, Index x_stride, real* g,
                         real* g_distance, Arena& memory) const;
  void learn_filter(const Projection& radial, Index first, Index rows, Index column,
                    const Linear& filter, const real* g) const;
  void sum_to_atoms(const Tile& t, Index column, const Linear& filter, const real* x, real* z,
                    Arena& memory);
  void sum_to_atoms_backward(const Tile& t, Index column, const Linear& filter, const real* x,
                             const real* gz, real* gx, Arena& memory);
  void gather(const Tile& t, const real* st, real* out);
  void gather_backward(Index first, Index rows, const real* g, real* st) const;
  void begin(real* h, real* m, real* slope);
  void begin_backward(const real* gh, real* gm, const real* slope);
  void output(Index k, const real* h, const real* m, real* features);
  void output_backward(Index k, const real* g_features, real* gh, real* gm, const real* m);
  void finish(const real* features, real* g_features, real* energies);
  void block(Index k, real* h, real*& m);
  void atoms_forward(const Block& b, Kept& s, const real* h);
  void inputs(const Block& b, Kept& s, const Tile& t, Arena& memory);
  ReadOut e2e_at(const Kept& s, Index c) const;
  ReadOut a2e_at(const Kept& s, Index c) const;
  Quadruplets quadruplets(const Block& b, const Kept& s) const;
  void messages(const Block& b, Kept& s, const Tile& t, real* up, Arena& memory);
  void block_backward(Index k, real* gh, real* gm, const BySource& ae_from,
                      const BySource& near_from, const BySource& quad_from);
  void messages_backward(const Block& b, const Kept& s, const Tile& t, const real* gx, real* g_e2e,
                         real* g_ae, real* g_terms, Arena& memory);
  void inputs_backward(const Block& b, const Kept& s, const Tile& t, const real* g_e2a,
                       const real* g_a2a, real* g_ea, real* g_ae, real* g_source,
                       real* g_near, Arena& memory);
  void edges_backward(const Block& b, const Kept& s, const Tile& t, const real* gx, real* g_e2e,
                      real* g_ea, const real* g_terms, const BySource& quad_from, real* gm,
                      Arena& memory);
};

// x times filters of radial functions; rows of x are x_stride apart.
inline void Network::filtered(Index rows, const real* radial, Index stride, const Linear& filter,
                              const real* x, Index x_stride, real* out) {
  filter.apply(rows, radial, stride, out);
  for (Index r = 0; r < rows; ++r) scale_by(filter.out, out + r * filter.out, x + r * x_stride);
}

// The gradients by the weight of a filter and by its radial functions, from that by the filter.
inline void Network::learn_filter(const Projection& radial, Index first, Index rows, Index column,
                                  const Linear& filter, const real* g) const {
  filter.learn(weights, rows, radial.at(first, column), radial.width, g);
  multiply(rows, filter.out, filter.in, g, filter.out, filter.backward,
           radial.gradient_at(first, column), radial.width, true);
}

// From the gradient g by the product, to that by x, in its place, and to those by distances and
// weights.
inline void Network::filtered_backward(const Projection& radial, Index first, Index rows,
                                       Index column, const Linear& filter, const real* x,
                                       Index x_stride, real* g, real* g_distance,
                                       Arena& memory) const {
  const Index W = filter.out;
  real *f = memory.take(rows * W), *df = memory.take(rows * W);
  filter.apply(rows, radial.at(first, column), radial.width, f);
  if (geometry) {
    filter.apply(rows, radial.slope_at(first, column), radial.width, df);
    for (Index r = 0; r < rows; ++r) {
      vec total{};
      for (Index v = 0; v < W; v += LANES)
        total += load(g + r * W + v) * load(x + r * x_stride + v) * load(df + r * W + v);
      g_distance[r] += sum(total);
    }
  }
  if (weights) {
    for (Index r = 0; r < rows; ++r)
      for (Index v = 0; v < W; v += LANES)
        store(df + r * W + v, load(g + r * W + v) * load(x + r * x_stride + v));
    learn_filter(radial, first, rows, column, filter, df);
  }
  scale_by(rows * W, g, f);
}

// sum over edges into each atom of the tile of weight * x * filter(radial).
inline void Network::sum_to_atoms(const Tile& t, Index column, const Linear& filter, const real* x,
                                  real* z, Arena& memory) {
  const Index W = model.edge;
  real* y = memory.take(t.rows() * W);
  filtered(t.rows(), bases.main.at(t.edge, column), bases.main.width, filter, x + t.edge * W, W,
           y);
  for (Index a = t.atom; a < t.atom_end; ++a) {
    std::memset(z + a * W, 0, W * sizeof(real));
    for (Index e = graph.main.start[a]; e < graph.main.start[a + 1]; ++e)
      add_scaled(W, z + a * W, graph.main.weight[e], y + (e - t.edge) * W);
  }
}

// Adds to the gradient gx by x, and to those by what was measured.
inline void Network::sum_to_atoms_backward(const Tile& t, Index column, const Linear& filter,
                                           const real* x, const real* gz, real* gx,
                                           Arena& memory) {
  const Index W = model.edge, rows = t.rows();
  Edges& edges = graph.main;
  real *f = memory.take(rows * W), *df = memory.take(rows * W);
  filter.apply(rows, bases.main.at(t.edge, column), bases.main.width, f);
  if (geometry)
    filter.apply(rows, bases.main.slope_at(t.edge, column), bases.main.width, df);
  for (Index e = t.edge; e < t.edge_end; ++e) {
    const Index r = (e - t.edge) * W;
    vec by_weight{}, by_distance{};
    for (Index v = 0; v < W; v += LANES) {
      const vec g = load(gz + edges.target[e] * W + v), gf = g * load(f + r + v);
      const vec own = load(x + e * W + v);
      if (geometry) {
        by_weight += gf * own;
        by_distance += g * own * load(df + r + v);
      }
      if (weights) store(df + r + v, edges.weight[e] * g * own);
      store(gx + e * W + v, load(gx + e * W + v) + edges.weight[e] * gf);
    }
    if (!geometry) continue;
    edges.g_weight[e] += sum(by_weight);
    edges.g_distance[e] += edges.weight[e] * sum(by_distance);
  }
  if (weights) learn_filter(bases.main, t.edge, rows, column, filter, df);
}

// out (rows) = s[source] + t[target] for st = (s, t) side by side.
inline void Network::gather(const Tile& t, const real* st, real* out) {
  const Index W = model.edge;
  for (Index e = t.edge; e < t.edge_end; ++e, out += W) {
    const real *s = st + graph.main.source[e] * 2 * W, *u = st + graph.main.target[e] * 2 * W + W;
    for (Index v = 0; v < W; v += LANES) store(out + v, load(s + v) + load(u + v));
  }
}

// The gradient by st of some atoms, from that by what was gathered.
inline void Network::gather_backward(Index first, Index rows, const real* g, real* st) const {
  const Index W = model.edge;
  std::memset(st, 0, rows * 2 * W * sizeof(real));
  for (Index a = first; a < first + rows; ++a, st += 2 * W)
    for (Index e = graph.main.start[a]; e < graph.main.start[a + 1]; ++e) {
      add_scaled(W, st, 1, g + graph.swap[e] * W);
      add_scaled(W, st + W, 1, g + e * W);
    }
}

}  // namespace
