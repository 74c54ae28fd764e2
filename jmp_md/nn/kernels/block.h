// An interaction block, from embeddings to embeddings.
#pragma once

#include "network.h"

namespace {

inline void Network::block(Index k, real* h, real*& m) {
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
  s.e2a = arena.take(n * model.cbf * et), s.a2a = arena.take(n * model.rbf * model.aint);
  s.e2e_message = s.quad_message = s.a2e_message = nullptr;
  if (weights) {
    s.h_in = copied(n * model.atom, h);
    s.e2e_message = arena.take(E * b.e2e.bilinear.in);
    s.quad_message = arena.take(E * b.quad.bilinear.in);
    s.a2e_message = arena.take(E * b.a2e.bilinear.in);
  }
  atoms_forward(b, s, h);
  for_edges([&](const Tile& t, Arena& memory) { inputs(b, s, t, memory); });
  for (real** slopes : {&s.e2e_up, &s.quad_up, &s.a2e_up}) *slopes = arena.take(E * 2 * W);
  s.terms = arena.take(graph.triplets.back() * qe);
  s.series = arena.take(graph.quad.n * 2 * S * qe);
  real* up = arena.take(E * 2 * W);
  for_edges([&](const Tile& t, Arena& memory) { messages(b, s, t, up, memory); });
  const bool learning(weights);
  s.before = b.before_skip.trace(E, learning, arena);
  s.after = b.after_skip.trace(E, learning, arena);
  s.updated = arena.take(E * W), s.sums = arena.take(n * W);
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
    sum_to_atoms(t, 3 * model.rbf, b.update_filter, s.updated, s.sums, memory);
  });
  real* st = arena.take(n * 2 * W);
  s.e2a_up = arena.take(n * model.atom), s.a2a_up = arena.take(n * model.atom);
  s.atoms = b.atom_layers.trace(n, learning, arena), s.update = b.update.trace(n, learning, arena);
  for_atoms([&](Index first, Index rows, Arena& memory) {
    const Index A = model.atom;
    real *x = memory.take(rows * A), *spare = memory.take(2 * rows * A), *own = h + first * A;
    b.e2a_up(rows, s.e2a + first * b.e2a_up.in, x);
    activate(rows * A, x, s.e2a_up + first * A);
    add_scaled(rows * A, own, b.h_share, x);
    b.a2a_up(rows, s.a2a + first * b.a2a_up.in, x);
    activate(rows * A, x, s.a2a_up + first * A);
    add_scaled(rows * A, own, b.h_share, x);
    b.atom_layers.forward(rows, first, n, own, own, s.atoms, spare);
    b.update.forward(rows, first, n, s.sums + first * W, x, s.update, spare);
    add_scaled(rows * A, own, b.update_share, x);
    b.concat_atoms(rows, own, st + first * 2 * W);
  });
  if (weights) s.h_out = copied(n * model.atom, h);
  real* next = arena.take(E * W);
  s.concat = arena.take(E * W), s.residual = b.residual_m.trace(E, learning, arena);
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

inline void Network::atoms_forward(const Block& b, Kept& s, const real* h) {
  const Index width = b.on_atoms.out;
  s.h = arena.take(n * width), s.h_slope = arena.take(n * width);
  for_atoms([&](Index first, Index rows, Arena&) {
    b.on_atoms(rows, h + first * model.atom, s.h + first * width);
    activate(rows * width, s.h + first * width, s.h_slope + first * width);
  });
}

// What edges into some atoms give to the passes, summed over angles where that is local.
inline void Network::inputs(const Block& b, Kept& s, const Tile& t, Arena& memory) {
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
    real *to = s.e2a + a * model.cbf * et, *to_a = s.a2a + a * model.rbf * model.aint;
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

inline ReadOut Network::e2e_at(const Kept& s, Index c) const {
  return {model.cbf, model.trip, bases.C + c * LM, bases.main.at(c, model.of_e2e),
          s.e2e_moments + graph.main.target[c] * LM * model.trip, s.e2e_x + c * model.trip,
          graph.main.weight[c]};
}

inline ReadOut Network::a2e_at(const Kept& s, Index c) const {
  const Index t = graph.twin[c];
  return {model.cbf, model.trip, bases.C + c * LM, bases.main.at(c, model.of_a2e),
          s.a2e_moments + graph.main.target[c] * LM * model.trip,
          t < 0 ? nullptr : s.a2e_x + t * model.trip, t < 0 ? 0 : graph.atom_edge.weight[t]};
}

inline Quadruplets Network::quadruplets(const Block& b, const Kept& s) const {
  return {bases, b.quad_filter, model.quad, s.quad_x, s.terms, s.series};
}

// Both sides of each edge of the three passes, added up.
inline void Network::messages(const Block& b, Kept& s, const Tile& t, real* up, Arena& memory) {
  const Index W = model.edge, rows = t.rows();
  const Index most = std::max(b.e2e.bilinear.in, b.quad.bilinear.in);
  real *spare = memory.take(rows * most), *u = memory.take(rows * 2 * W);
  real* y = memory.take(rows * std::max(b.e2e.bilinear.out, std::max(b.quad.bilinear.out,
                                                                     b.a2e.bilinear.out)));
  const auto place = [&](const Pass& pass, real* kept) {
    return kept ? kept + t.edge * pass.bilinear.in : spare;
  };
  const auto upwards = [&](const Pass& pass, const real* M, real* to, real* slope) {
    pass.bilinear(rows, M, y);
    pass.up(rows, y, to);
    activate(rows * 2 * W, to, slope + t.edge * 2 * W);
  };
  real* M = place(b.e2e, s.e2e_message);
  for (Index r = 0; r < rows; ++r) e2e_at(s, t.edge + r).forward(M + r * b.e2e.bilinear.in);
  real* total = up + t.edge * 2 * W;
  upwards(b.e2e, M, total, s.e2e_up);
  M = place(b.a2e, s.a2e_message);
  for (Index r = 0; r < rows; ++r) a2e_at(s, t.edge + r).forward(M + r * b.a2e.bilinear.in);
  upwards(b.a2e, M, u, s.a2e_up);
  add_scaled(rows * 2 * W, total, 1, u);
  const Quadruplets four = quadruplets(b, s);
  for (Index a = t.atom; a < t.atom_end; ++a) four.series(a);
  M = place(b.quad, s.quad_message);
  for (Index r = 0; r < rows; ++r) four.read(t.edge + r, M + r * b.quad.bilinear.in);
  upwards(b.quad, M, u, s.quad_up);
  add_scaled(rows * 2 * W, total, 1, u);
}

}  // namespace
