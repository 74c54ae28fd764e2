// Energies of the folded network, and their gradient by the geometry: jmp_md/nn/folded.py on one
// processor, with the sums over triplets and quadruplets by moments about atoms.
//
// Every pass goes over tiles of whole atoms with some dozens of edges, which stay in the cache from
// one layer to the next. No sum depends on the number of threads.

#include "sums.h"

namespace {

constexpr Index EDGES = 48, ATOMS = 24;  // rows of a tile

// What one block keeps for the backward pass: values, and slopes of activations.
struct Kept {
  real *m, *z, *z_slope, *e2e_x, *e2e_slope, *quad_x, *quad_slope, *e2a_x, *e2a_slope;
  real *a2e_x, *a2e_slope, *e2e_moments, *a2e_moments, *e2e_up, *quad_up, *a2e_up;
  real *terms, *series, *before, *after, *updated, *residual, *concat;
  real *h, *h_slope, *e2a_up, *a2a_up, *atoms, *update;
};
struct KeptOutput {
  real *layers, *energy;
};

class Network {
 public:
  Network(const Model& m, Graph& g, Arena& arena, int threads, bool gradient)
      : model(m), graph(g), arena(arena), threads(threads), gradient(gradient),
        bases(m, g, arena, threads, gradient), n(g.atoms), E(g.main.n) {
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
    if (!gradient) return;
    const BySource ae_from(graph.atom_edge, n), near_from(graph.near, n), quad_from(graph.quad, n);
    real *gh = arena.zeros(n * model.atom), *gm = arena.zeros(E * model.edge);
    for (Index k = B; k >= 0; --k) {
      if (k < B) block_backward(k, gh, gm, ae_from, near_from, quad_from);
      output_backward(k, g_features, gh, gm, k < B ? kept[k].m : m);
    }
    for_edges([&](const Tile& t, Arena&) {
      const Index W = model.edge;
      for (Index e = t.edge; e < t.edge_end; ++e) {
        scale_by(W, gm + e * W, first_slope + e * W);
        graph.main.g_distance[e] += dot(W, gm + e * W, bases.main.slope_at(e, model.of_first));
      }
    });
    bases.backward(quad_from);
  }

 private:
  const Model& model;
  Graph& graph;
  Arena& arena;
  const int threads;
  const bool gradient;
  Bases bases;
  const Index n, E;
  std::vector<Tile> parts;
  std::vector<Kept> kept;
  std::vector<KeptOutput> outputs;

  template <class Body>
  void for_edges(Body body) {
    in_parallel(parts.size(), threads, [&](Index i) { body(parts[i], scratch()); });
  }
  template <class Body>
  void for_atoms(Body body) {
    in_parallel((n + ATOMS - 1) / ATOMS, threads, [&](Index i) {
      body(i * ATOMS, std::min(ATOMS, n - i * ATOMS), scratch());
    });
  }

  // x times filters of radial functions; rows of x are x_stride apart.
  static void filtered(Index rows, const real* radial, Index stride, const Linear& filter,
                       const real* x, Index x_stride, real* out) {
    filter.apply(rows, radial, stride, out);
    for (Index r = 0; r < rows; ++r) scale_by(filter.out, out + r * filter.out, x + r * x_stride);
  }
  // From the gradient g by the product, to that by x, in its place, and to those by distances.
  static void filtered_backward(Index rows, const real* radial, const real* slope, Index stride,
                                const Linear& filter, const real* x, Index x_stride, real* g,
                                real* g_distance, Arena& memory) {
    const Index W = filter.out;
    real *f = memory.take(rows * W), *df = memory.take(rows * W);
    filter.apply(rows, radial, stride, f), filter.apply(rows, slope, stride, df);
    for (Index r = 0; r < rows; ++r) {
      vec total{};
      for (Index v = 0; v < W; v += LANES) {
        const vec given = load(g + r * W + v);
        total += given * load(x + r * x_stride + v) * load(df + r * W + v);
        store(g + r * W + v, given * load(f + r * W + v));
      }
      g_distance[r] += sum(total);
    }
  }
  // sum over edges into each atom of the tile of weight * x * filter(radial).
  void sum_to_atoms(const Tile& t, Index column, const Linear& filter, const real* x, real* z,
                    Arena& memory) {
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
  void sum_to_atoms_backward(const Tile& t, Index column, const Linear& filter, const real* x,
                             const real* gz, real* gx, Arena& memory) {
    const Index W = model.edge, rows = t.rows();
    Edges& edges = graph.main;
    real *f = memory.take(rows * W), *df = memory.take(rows * W);
    filter.apply(rows, bases.main.at(t.edge, column), bases.main.width, f);
    filter.apply(rows, bases.main.slope_at(t.edge, column), bases.main.width, df);
    for (Index e = t.edge; e < t.edge_end; ++e) {
      const Index r = (e - t.edge) * W;
      vec by_weight{}, by_distance{};
      for (Index v = 0; v < W; v += LANES) {
        const vec g = load(gz + edges.target[e] * W + v), gf = g * load(f + r + v);
        const vec own = load(x + e * W + v);
        by_weight += gf * own;
        by_distance += g * own * load(df + r + v);
        store(gx + e * W + v, load(gx + e * W + v) + edges.weight[e] * gf);
      }
      edges.g_weight[e] += sum(by_weight);
      edges.g_distance[e] += edges.weight[e] * sum(by_distance);
    }
  }
  // out (rows) = s[source] + t[target] for st = (s, t) side by side.
  void gather(const Tile& t, const real* st, real* out) {
    const Index W = model.edge;
    for (Index e = t.edge; e < t.edge_end; ++e, out += W) {
      const real *s = st + graph.main.source[e] * 2 * W, *u = st + graph.main.target[e] * 2 * W + W;
      for (Index v = 0; v < W; v += LANES) store(out + v, load(s + v) + load(u + v));
    }
  }

  void begin(real* h, real* m, real* slope) {
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

  void output(Index k, const real* h, const real* m, real* features) {
    const Output& o = model.outputs[k];
    const Index W = model.atom, wide = model.outputs.size() * W;
    outputs[k] = {arena.take(o.layers.slopes(n)), arena.take(o.energy.slopes(n))};
    real* z = arena.take(n * model.edge);
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
  void output_backward(Index k, const real* g_features, real* gh, real* gm, const real* m) {
    const Output& o = model.outputs[k];
    const Index W = model.atom, wide = model.outputs.size() * W;
    real* gz = arena.take(n * model.edge);
    for_atoms([&](Index first, Index rows, Arena& memory) {
      real *y = memory.take(rows * W), *spare = memory.take(2 * rows * W);
      for (Index r = 0; r < rows; ++r)
        std::memcpy(y + r * W, g_features + (first + r) * wide + k * W, W * sizeof(real));
      o.energy.backward(rows, first, n, y, y, outputs[k].energy, spare);
      add_scaled(rows * W, gh + first * W, o.share, y);
      o.layers.backward(rows, first, n, y, gz + first * model.edge, outputs[k].layers, spare);
    });
    for_edges([&](const Tile& t, Arena& memory) {
      sum_to_atoms_backward(t, 4 * model.rbf, o.filter, m, gz, gm, memory);
    });
  }

  void finish(const real* features, real* g_features, real* energies) {
    const Index W = model.atom, wide = model.outputs.size() * W;
    for_atoms([&](Index first, Index rows, Arena& memory) {
      const Layers& layers = model.global_layers;
      real *y = memory.take(rows * W), *spare = memory.take(2 * rows * W);
      real *own = memory.take(rows * W), *kept_slopes = memory.take(layers.slopes(rows) + 1);
      model.global(rows, features + first * wide, y);
      activate(rows * W, y, own);
      layers.forward(rows, 0, rows, y, y, kept_slopes, spare);
      std::vector<real*> slopes;
      real* x = y;
      for (std::size_t i = 0; i + 1 < model.head.size(); ++i) {
        const Linear& w = model.head[i].linear;
        real* next = memory.take(rows * w.out);
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
      if (!gradient) return;
      real* g = x;
      for (Index r = 0; r < rows; ++r)
        std::memcpy(g + r * last.in, last.backward, last.in * sizeof(real));
      for (Index i = model.head.size() - 2; i >= 0; --i) {
        const Linear& w = model.head[i].linear;
        scale_by(rows * w.out, g, slopes[i]);
        real* next = memory.take(rows * w.in);
        w.transposed(rows, g, next);
        g = next;
      }
      layers.backward(rows, 0, rows, g, g, kept_slopes, spare);
      scale_by(rows * W, g, own);
      model.global.transposed(rows, g, g_features + first * wide);
    });
  }

  void block(Index k, real* h, real*& m) {
    const Block& b = model.blocks[k];
    const Index W = model.edge, et = model.trip, qe = model.quad, EA = graph.atom_edge.n;
    Kept& s = kept[k];
    s.m = m;
    s.z = arena.take(E * 4 * W), s.z_slope = arena.take(E * 4 * W);
    s.e2e_x = arena.take(E * et), s.e2e_slope = arena.take(E * et);
    s.quad_x = arena.take(E * qe), s.quad_slope = arena.take(E * qe);
    s.e2a_x = arena.take(E * et), s.e2a_slope = arena.take(E * et);
    s.a2e_x = arena.take(EA * et), s.a2e_slope = arena.take(EA * et);
    s.e2e_moments = arena.take(n * LM * et), s.a2e_moments = arena.take(n * LM * et);
    real* e2a = arena.take(n * model.cbf * et);
    real* a2a = arena.take(n * model.rbf * model.aint);
    atoms_forward(b, s, h);
    for_edges([&](const Tile& t, Arena& memory) { inputs(b, s, t, e2a, a2a, memory); });
    for (real** slopes : {&s.e2e_up, &s.quad_up, &s.a2e_up}) *slopes = arena.take(E * 2 * W);
    s.terms = arena.take(graph.triplets.back() * qe);
    s.series = arena.take(graph.quad.n * 2 * S * qe);
    real* up = arena.take(E * 2 * W);
    for_edges([&](const Tile& t, Arena& memory) { messages(b, s, t, up, memory); });
    s.before = arena.take(b.before_skip.slopes(E)), s.after = arena.take(b.after_skip.slopes(E));
    s.updated = arena.take(E * W);
    real* z = arena.take(n * W);
    for_edges([&](const Tile& t, Arena& memory) {
      const Index rows = t.rows();
      real *x = memory.take(rows * W), *spare = memory.take(2 * rows * W);
      const real half = std::sqrt(real(0.5));
      for (Index e = t.edge; e < t.edge_end; ++e)
        for (Index v = 0; v < W; v += LANES)
          store(x + (e - t.edge) * W + v,
                load(s.z + e * 4 * W + v) + half * (load(up + e * 2 * W + v) +
                                                    load(up + graph.swap[e] * 2 * W + W + v)));
      b.before_skip.forward(rows, t.edge, E, x, x, s.before, spare);
      real* out = s.updated + t.edge * W;
      std::memcpy(out, m + t.edge * W, rows * W * sizeof(real));
      add_scaled(rows * W, out, b.m_share, x);
      b.after_skip.forward(rows, t.edge, E, out, out, s.after, spare);
      sum_to_atoms(t, 3 * model.rbf, b.update_filter, s.updated, z, memory);
    });
    real* st = arena.take(n * 2 * W);
    s.e2a_up = arena.take(n * model.atom), s.a2a_up = arena.take(n * model.atom);
    s.atoms = arena.take(b.atom_layers.slopes(n)), s.update = arena.take(b.update.slopes(n));
    for_atoms([&](Index first, Index rows, Arena& memory) {
      const Index A = model.atom;
      real *x = memory.take(rows * A), *spare = memory.take(2 * rows * A), *own = h + first * A;
      b.e2a_up(rows, e2a + first * b.e2a_up.in, x);
      activate(rows * A, x, s.e2a_up + first * A);
      add_scaled(rows * A, own, b.h_share, x);
      b.a2a_up(rows, a2a + first * b.a2a_up.in, x);
      activate(rows * A, x, s.a2a_up + first * A);
      add_scaled(rows * A, own, b.h_share, x);
      b.atom_layers.forward(rows, first, n, own, own, s.atoms, spare);
      b.update.forward(rows, first, n, z + first * W, x, s.update, spare);
      add_scaled(rows * A, own, b.update_share, x);
      b.concat_atoms(rows, own, st + first * 2 * W);
    });
    real* next = arena.take(E * W);
    s.concat = arena.take(E * W), s.residual = arena.take(b.residual_m.slopes(E));
    for_edges([&](const Tile& t, Arena& memory) {
      const Index rows = t.rows();
      real *y = memory.take(rows * W), *spare = memory.take(2 * rows * W), *out = next + t.edge * W;
      gather(t, st, y);
      b.concat_edges.apply(rows, s.updated + t.edge * W, W, y, true);
      activate(rows * W, y, s.concat + t.edge * W);
      b.residual_m.forward(rows, t.edge, E, y, y, s.residual, spare);
      std::memcpy(out, s.updated + t.edge * W, rows * W * sizeof(real));
      add_scaled(rows * W, out, b.residual_share, y);
    });
    m = next;
  }
  void atoms_forward(const Block& b, Kept& s, const real* h) {
    const Index width = b.on_atoms.out;
    s.h = arena.take(n * width), s.h_slope = arena.take(n * width);
    for_atoms([&](Index first, Index rows, Arena&) {
      b.on_atoms(rows, h + first * model.atom, s.h + first * width);
      activate(rows * width, s.h + first * width, s.h_slope + first * width);
    });
  }
  // What edges into some atoms give to the passes, summed over angles where that is local.
  void inputs(const Block& b, Kept& s, const Tile& t, real* e2a, real* a2a, Arena& memory) {
    const Index W = model.edge, rows = t.rows(), et = model.trip, width = b.on_atoms.out;
    real *z = s.z + t.edge * 4 * W, *p = memory.take(rows * W);
    b.on_edges(rows, s.m + t.edge * W, z);
    activate(rows * 4 * W, z, s.z_slope + t.edge * 4 * W);
    const auto down = [&](int part, const Linear& filter, const Linear& w, real* x, real* slope) {
      filtered(rows, bases.main.at(t.edge, (part - 1) * model.rbf), bases.main.width, filter,
               z + part * W, 4 * W, p);
      w(rows, p, x + t.edge * w.out);
      activate(rows * w.out, x + t.edge * w.out, slope + t.edge * w.out);
    };
    down(1, b.e2e.filter, b.e2e.down, s.e2e_x, s.e2e_slope);
    down(2, b.quad.filter, b.quad.down, s.quad_x, s.quad_slope);
    down(3, b.e2a_filter, b.e2a_down, s.e2a_x, s.e2a_slope);
    const Edges &main = graph.main, &ae = graph.atom_edge, &near = graph.near;
    const Index first = ae.start[t.atom], more = ae.start[t.atom_end] - first;
    real* y = memory.take(more * model.atom);
    b.a2e.filter.apply(more, bases.atom_edge.at(first), bases.atom_edge.width, y);
    for (Index e = 0; e < more; ++e)
      scale_by(model.atom, y + e * model.atom, s.h + ae.source[first + e] * width);
    b.a2e.down(more, y, s.a2e_x + first * et);
    activate(more * et, s.a2e_x + first * et, s.a2e_slope + first * et);
    for (Index a = t.atom; a < t.atom_end; ++a) {
      const Index e = main.start[a], c = ae.start[a];
      moments(main.degree(a), et, main.weight + e, bases.C + e * LM, s.e2e_x + e * et,
              s.e2e_moments + a * LM * et);
      moments(ae.degree(a), et, ae.weight + c, bases.C_ae + c * LM, s.a2e_x + c * et,
              s.a2e_moments + a * LM * et);
      real *to = e2a + a * model.cbf * et, *to_a = a2a + a * model.rbf * model.aint;
      std::memset(to, 0, model.cbf * et * sizeof(real));
      for (Index r = e; r < main.start[a + 1]; ++r)
        for (Index i = 0; i < model.cbf; ++i)
          add_scaled(et, to + i * et, main.weight[r] * bases.e2a[r * model.cbf16 + i],
                     s.e2a_x + r * et);
      std::memset(to_a, 0, model.rbf * model.aint * sizeof(real));
      for (Index r = near.start[a]; r < near.start[a + 1]; ++r)
        for (Index i = 0; i < model.rbf; ++i)
          add_scaled(model.aint, to_a + i * model.aint, near.weight[r] * bases.near.at(r)[i],
                     s.h + near.source[r] * width + model.atom);
    }
  }
  ReadOut e2e_at(const Kept& s, Index c) const {
    return {model.cbf, model.trip, bases.C + c * LM, bases.main.at(c, model.of_e2e),
            s.e2e_moments + graph.main.target[c] * LM * model.trip, s.e2e_x + c * model.trip,
            graph.main.weight[c]};
  }
  ReadOut a2e_at(const Kept& s, Index c) const {
    const Index t = graph.twin[c];
    return {model.cbf, model.trip, bases.C + c * LM, bases.main.at(c, model.of_a2e),
            s.a2e_moments + graph.main.target[c] * LM * model.trip,
            t < 0 ? nullptr : s.a2e_x + t * model.trip, t < 0 ? 0 : graph.atom_edge.weight[t]};
  }
  Quadruplets quadruplets(const Block& b, const Kept& s) const {
    return {bases, b.quad_filter, model.quad, s.quad_x, s.terms, s.series};
  }
  // Both sides of each edge of the three passes, added up.
  void messages(const Block& b, Kept& s, const Tile& t, real* up, Arena& memory) {
    const Index W = model.edge, rows = t.rows();
    const Index most = std::max(b.e2e.bilinear.in, b.quad.bilinear.in);
    real *M = memory.take(rows * most), *u = memory.take(rows * 2 * W);
    real* y = memory.take(rows * std::max(b.e2e.bilinear.out, std::max(b.quad.bilinear.out,
                                                                       b.a2e.bilinear.out)));
    const auto upwards = [&](const Pass& pass, real* to, real* slope) {
      pass.bilinear(rows, M, y);
      pass.up(rows, y, to);
      activate(rows * 2 * W, to, slope + t.edge * 2 * W);
    };
    for (Index r = 0; r < rows; ++r) e2e_at(s, t.edge + r).forward(M + r * b.e2e.bilinear.in);
    real* total = up + t.edge * 2 * W;
    upwards(b.e2e, total, s.e2e_up);
    for (Index r = 0; r < rows; ++r) a2e_at(s, t.edge + r).forward(M + r * b.a2e.bilinear.in);
    upwards(b.a2e, u, s.a2e_up);
    add_scaled(rows * 2 * W, total, 1, u);
    const Quadruplets four = quadruplets(b, s);
    for (Index a = t.atom; a < t.atom_end; ++a) four.series(a);
    for (Index r = 0; r < rows; ++r) four.read(t.edge + r, M + r * b.quad.bilinear.in);
    upwards(b.quad, u, s.quad_up);
    add_scaled(rows * 2 * W, total, 1, u);
  }

  // From the gradients by what a block returned, in place, to those by what it was given.
  void block_backward(Index k, real* gh, real* gm, const BySource& ae_from,
                      const BySource& near_from, const BySource& quad_from) {
    const Block& b = model.blocks[k];
    const Kept& s = kept[k];
    const Index W = model.edge, A = model.atom, et = model.trip;
    real *gp = arena.take(E * W), *gt = arena.take(n * W), *gz = arena.take(n * W);
    for_edges([&](const Tile& t, Arena& memory) {
      const Index rows = t.rows();
      real *g = gp + t.edge * W, *spare = memory.take(2 * rows * W);
      std::memset(g, 0, rows * W * sizeof(real));
      add_scaled(rows * W, g, b.residual_share, gm + t.edge * W);
      b.residual_m.backward(rows, t.edge, E, g, g, s.residual, spare);
      scale_by(rows * W, g, s.concat + t.edge * W);
      b.concat_edges.transposed(rows, g, gm + t.edge * W, true);
      for (Index a = t.atom; a < t.atom_end; ++a) {
        std::memset(gt + a * W, 0, W * sizeof(real));
        for (Index e = graph.main.start[a]; e < graph.main.start[a + 1]; ++e)
          add_scaled(W, gt + a * W, 1, gp + e * W);
      }
    });
    real *g_e2a = arena.take(n * b.e2a_up.in), *g_a2a = arena.take(n * b.a2a_up.in);
    for_atoms([&](Index first, Index rows, Arena& memory) {
      real *st = memory.take(rows * 2 * W), *g = memory.take(rows * A), *own = gh + first * A;
      real* spare = memory.take(2 * rows * A);
      for (Index r = 0; r < rows; ++r) {
        real* from = st + r * 2 * W;
        std::memset(from, 0, W * sizeof(real));
        for (Index e = graph.main.start[first + r]; e < graph.main.start[first + r + 1]; ++e)
          add_scaled(W, from, 1, gp + graph.swap[e] * W);
        std::memcpy(from + W, gt + (first + r) * W, W * sizeof(real));
      }
      b.concat_atoms.transposed(rows, st, own, true);
      std::memset(g, 0, rows * A * sizeof(real));
      add_scaled(rows * A, g, b.update_share, own);
      b.update.backward(rows, first, n, g, gz + first * W, s.update, spare);
      b.atom_layers.backward(rows, first, n, own, own, s.atoms, spare);
      const auto down = [&](const Linear& up, const real* slope, real* to) {
        for (Index i = 0; i < rows * A; i += LANES)
          store(g + i, b.h_share * load(own + i) * load(slope + first * A + i));
        up.transposed(rows, g, to + first * up.in);
      };
      down(b.e2a_up, s.e2a_up, g_e2a), down(b.a2a_up, s.a2a_up, g_a2a);
    });
    real* gx = gp;  // by the merged message, before the skip connection
    for_edges([&](const Tile& t, Arena& memory) {
      const Index rows = t.rows();
      real *g = gm + t.edge * W, *x = gx + t.edge * W, *spare = memory.take(2 * rows * W);
      sum_to_atoms_backward(t, 3 * model.rbf, b.update_filter, s.updated, gz, gm, memory);
      b.after_skip.backward(rows, t.edge, E, g, g, s.after, spare);
      std::memset(x, 0, rows * W * sizeof(real));
      add_scaled(rows * W, x, b.m_share, g);
      b.before_skip.backward(rows, t.edge, E, x, x, s.before, spare);
    });
    real *g_e2e = arena.zeros(E * et), *g_ea = arena.take(E * et);
    real *g_ae = arena.zeros(graph.atom_edge.n * et);
    real *g_terms = arena.take(graph.triplets.back() * model.quad);
    real *g_source = arena.take(graph.atom_edge.n * A), *g_near = arena.take(graph.near.n * model.aint);
    for_edges([&](const Tile& t, Arena& memory) {
      messages_backward(b, s, t, gx, g_e2e, g_ae, g_terms, memory);
      inputs_backward(b, s, t, g_e2a, g_a2a, g_e2e, g_ea, g_ae, g_source, g_near, memory);
    });
    for_edges([&](const Tile& t, Arena& memory) {
      edges_backward(b, s, t, gx, g_e2e, g_ea, g_terms, quad_from, gm, memory);
    });
    const Index width = b.on_atoms.out;
    for_atoms([&](Index first, Index rows, Arena& memory) {
      real* g = memory.zeros(rows * width);
      for (Index r = 0; r < rows; ++r) {
        const Index a = first + r;
        for (Index i = ae_from.start[a]; i < ae_from.start[a + 1]; ++i)
          add_scaled(A, g + r * width, 1, g_source + ae_from.edge[i] * A);
        for (Index i = near_from.start[a]; i < near_from.start[a + 1]; ++i)
          add_scaled(model.aint, g + r * width + A, 1, g_near + near_from.edge[i] * model.aint);
      }
      scale_by(rows * width, g, s.h_slope + first * width);
      b.on_atoms.transposed(rows, g, gh + first * A, true);
    });
  }
  void messages_backward(const Block& b, const Kept& s, const Tile& t, const real* gx, real* g_e2e,
                         real* g_ae, real* g_terms, Arena& memory) {
    const Index W = model.edge, rows = t.rows(), et = model.trip;
    const Index most = std::max(b.e2e.bilinear.in, b.quad.bilinear.in);
    real *gM = memory.take(rows * most), *u = memory.take(rows * 2 * W);
    real* y = memory.take(rows * std::max(b.e2e.bilinear.out, std::max(b.quad.bilinear.out,
                                                                       b.a2e.bilinear.out)));
    const real half = std::sqrt(real(0.5));
    const auto downwards = [&](const Pass& pass, const real* slope) {
      for (Index r = 0; r < rows; ++r) {
        const Index e = t.edge + r;
        const real* d = slope + e * 2 * W;
        for (Index v = 0; v < W; v += LANES) {
          store(u + r * 2 * W + v, half * load(gx + e * W + v) * load(d + v));
          store(u + r * 2 * W + W + v,
                half * load(gx + graph.swap[e] * W + v) * load(d + W + v));
        }
      }
      pass.up.transposed(rows, u, y);
      pass.bilinear.transposed(rows, y, gM);
    };
    Edges &main = graph.main, &ae = graph.atom_edge;
    real* gB = memory.take(t.atoms() * LM * et);
    real unused = 0;
    for (const bool edges : {true, false}) {
      const Pass& pass = edges ? b.e2e : b.a2e;
      downwards(pass, edges ? s.e2e_up : s.a2e_up);
      std::memset(gB, 0, t.atoms() * LM * et * sizeof(real));
      for (Index c = t.edge; c < t.edge_end; ++c) {
        const ReadOut at = edges ? e2e_at(s, c) : a2e_at(s, c);
        const Index column = edges ? model.of_e2e : model.of_a2e, own = edges ? c : graph.twin[c];
        real* to = own < 0 ? nullptr : (edges ? g_e2e : g_ae) + own * et;
        real& by_weight = own < 0 ? unused : (edges ? main : ae).g_weight[own];
        at.backward(bases.D + c * 3 * LM, bases.main.slope_at(c, column),
                    gM + (c - t.edge) * pass.bilinear.in, gB + (main.target[c] - t.atom) * LM * et,
                    to, main.g_distance[c], main.g_unit + 3 * c, by_weight);
      }
      Edges& from = edges ? main : ae;
      for (Index a = t.atom; a < t.atom_end; ++a)
        for (Index e = from.start[a]; e < from.start[a + 1]; ++e)
          moments_backward(et, (edges ? bases.C : bases.C_ae) + e * LM,
                           (edges ? bases.D : bases.D_ae) + e * 3 * LM,
                           gB + (a - t.atom) * LM * et, (edges ? s.e2e_x : s.a2e_x) + e * et,
                           from.weight[e], (edges ? g_e2e : g_ae) + e * et, from.g_unit + 3 * e,
                           from.g_weight[e]);
    }
    downwards(b.quad, s.quad_up);
    const Quadruplets four = quadruplets(b, s);
    for (Index a = t.atom; a < t.atom_end; ++a)
      four.backward(a, gM + (main.start[a] - t.edge) * b.quad.bilinear.in, g_terms, memory);
  }
  // The rest of what is local to the atoms of a tile: e2a, a2e from its down-projection on, a2a.
  void inputs_backward(const Block& b, const Kept& s, const Tile& t, const real* g_e2a,
                       const real* g_a2a, const real*, real* g_ea, real* g_ae, real* g_source,
                       real* g_near, Arena& memory) {
    const Index et = model.trip, A = model.atom, width = b.on_atoms.out, aint = model.aint;
    Edges &main = graph.main, &ae = graph.atom_edge, &near = graph.near;
    real* v = memory.take(aint);
    for (Index a = t.atom; a < t.atom_end; ++a) {
      const real *g = g_e2a + a * model.cbf * et, *g_a = g_a2a + a * model.rbf * aint;
      for (Index e = main.start[a]; e < main.start[a + 1]; ++e) {
        real* to = g_ea + e * et;
        std::memset(to, 0, et * sizeof(real));
        for (Index i = 0; i < model.cbf; ++i) {
          add_scaled(et, to, main.weight[e] * bases.e2a[e * model.cbf16 + i], g + i * et);
          bases.g_e2a[e * model.cbf16 + i] += dot(et, g + i * et, s.e2a_x + e * et);
        }
      }
      for (Index e = near.start[a]; e < near.start[a + 1]; ++e) {
        const real *F = bases.near.at(e), *dF = bases.near.slope_at(e);
        const real* x = s.h + near.source[e] * width + A;
        real* to = g_near + e * aint;
        std::memset(to, 0, aint * sizeof(real)), std::memset(v, 0, aint * sizeof(real));
        combine(model.rbf, aint, F, g_a, to), combine(model.rbf, aint, dF, g_a, v);
        near.g_weight[e] += dot(aint, to, x);
        near.g_distance[e] += near.weight[e] * dot(aint, v, x);
        for (Index i = 0; i < aint; ++i) to[i] *= near.weight[e];
      }
    }
    const Index first = ae.start[t.atom], more = ae.start[t.atom_end] - first;
    real *g = g_ae + first * et, *gp = g_source + first * A;
    scale_by(more * et, g, s.a2e_slope + first * et);
    b.a2e.down.transposed(more, g, gp);
    real *f = memory.take(more * A), *df = memory.take(more * A);
    b.a2e.filter.apply(more, bases.atom_edge.at(first), bases.atom_edge.width, f);
    b.a2e.filter.apply(more, bases.atom_edge.slope_at(first), bases.atom_edge.width, df);
    for (Index e = 0; e < more; ++e) {
      real* row = gp + e * A;
      const real* x = s.h + ae.source[first + e] * width;
      vec total{};
      for (Index i = 0; i < A; i += LANES) {
        total += load(row + i) * load(x + i) * load(df + e * A + i);
        store(row + i, load(row + i) * load(f + e * A + i));
      }
      ae.g_distance[first + e] += sum(total);
    }
  }
  // From the gradients by the inputs of the passes to that by the embeddings of edges.
  void edges_backward(const Block& b, const Kept& s, const Tile& t, const real* gx, real* g_e2e,
                      real* g_ea, const real* g_terms, const BySource& quad_from, real* gm,
                      Arena& memory) {
    const Index W = model.edge, rows = t.rows(), qe = model.quad;
    Edges& main = graph.main;
    real *g_quad = memory.zeros(rows * qe), *g = memory.take(rows * W);
    real* gz = memory.take(rows * 4 * W);
    for (Index a = t.atom; a < t.atom_end; ++a)
      for (Index i = quad_from.start[a]; i < quad_from.start[a + 1]; ++i)
        add_scaled(main.degree(a) * qe, g_quad + (main.start[a] - t.edge) * qe, 1,
                   g_terms + graph.triplets[quad_from.edge[i]] * qe);
    const auto into = [&](int part) {
      for (Index r = 0; r < rows; ++r)
        std::memcpy(gz + r * 4 * W + part * W, (part ? g : gx + t.edge * W) + r * W,
                    W * sizeof(real));
    };
    into(0);
    const auto down = [&](int part, const Linear& filter, const Linear& w, real* gy,
                          const real* slope) {
      scale_by(rows * w.out, gy, slope + t.edge * w.out);
      w.transposed(rows, gy, g);
      const Index column = (part - 1) * model.rbf;
      filtered_backward(rows, bases.main.at(t.edge, column), bases.main.slope_at(t.edge, column),
                        bases.main.width, filter, s.z + t.edge * 4 * W + part * W, 4 * W, g,
                        main.g_distance + t.edge, memory);
      into(part);
    };
    down(1, b.e2e.filter, b.e2e.down, g_e2e + t.edge * b.e2e.down.out, s.e2e_slope);
    down(2, b.quad.filter, b.quad.down, g_quad, s.quad_slope);
    down(3, b.e2a_filter, b.e2a_down, g_ea + t.edge * b.e2a_down.out, s.e2a_slope);
    scale_by(rows * 4 * W, gz, s.z_slope + t.edge * 4 * W);
    b.on_edges.transposed(rows, gz, gm + t.edge * W, true);
  }
};

}  // namespace

// Energies (atoms) and, where wanted, gradients of their sum, which are added to what is there.
// Returns 0, or 1 where memory is short.
extern "C" int jmp_network(const real* const* pointers, const Index* counts, const double* numbers,
                           const void* const* arrays, const Index* sizes, int smooth,
                           double inline_sin2, int threads, int gradient, Index keep,
                           real* energies) {
  static thread_local Arena arena;
  arena.reset();
  try {
    const Model model(Reader{pointers, counts, numbers}, smooth, inline_sin2);
    Graph graph(arrays, sizes);
    Network(model, graph, arena, threads, gradient).run(energies);
    arena.shrink(keep / sizeof(real));
    return 0;
  } catch (const std::bad_alloc&) {
    arena.shrink(0);
    return 1;
  }
}
