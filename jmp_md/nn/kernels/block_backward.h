// The backward pass of an interaction block.
#pragma once

#include "network.h"

namespace {

// From the gradients by what a block returned, in place, to those by what it was given.
inline void Network::block_backward(Index k, real* gh, real* gm, const BySource& ae_from,
                                    const BySource& near_from, const BySource& quad_from) {
  const Block& b = model.blocks[k];
  const Kept& s = kept[k];
  const Index W = model.edge, A = model.atom, et = model.trip;
  real *gp = arena.take(E * W), *gz = arena.take(n * W);
  for_edges([&](const Tile& t, Arena& memory) {
    const Index rows = t.rows();
    real *g = gp + t.edge * W, *spare = memory.take(2 * rows * W);
    std::memset(g, 0, rows * W * sizeof(real));
    add_scaled(rows * W, g, b.residual_share, gm + t.edge * W);
    b.residual_m.backward(rows, t.edge, E, g, g, s.residual, spare, weights);
    scale_by(rows * W, g, s.concat + t.edge * W);
    if (weights) b.concat_edges.learn(weights, rows, s.updated + t.edge * W, W, g);
    b.concat_edges.transposed(rows, g, gm + t.edge * W, true);
  });
  real *g_e2a = arena.take(n * b.e2a_up.in), *g_a2a = arena.take(n * b.a2a_up.in);
  for_atoms([&](Index first, Index rows, Arena& memory) {
    real *st = memory.take(rows * 2 * W), *g = memory.take(rows * A), *own = gh + first * A;
    real* spare = memory.take(2 * rows * A);
    gather_backward(first, rows, gp, st);
    if (weights) b.concat_atoms.learn(weights, rows, s.h_out + first * A, A, st);
    b.concat_atoms.transposed(rows, st, own, true);
    std::memset(g, 0, rows * A * sizeof(real));
    add_scaled(rows * A, g, b.update_share, own);
    b.update.backward(rows, first, n, g, gz + first * W, s.update, spare, weights,
                      s.sums + first * W);
    b.atom_layers.backward(rows, first, n, own, own, s.atoms, spare, weights);
    const auto down = [&](const Linear& up, const real* slope, const real* x, real* to) {
      for (Index i = 0; i < rows * A; i += LANES)
        store(g + i, b.h_share * load(own + i) * load(slope + first * A + i));
      if (weights) up.learn(weights, rows, x + first * up.in, up.in, g);
      up.transposed(rows, g, to + first * up.in);
    };
    down(b.e2a_up, s.e2a_up, s.e2a, g_e2a), down(b.a2a_up, s.a2a_up, s.a2a, g_a2a);
  });
  real* gx = gp;  // by the merged message, before the skip connection
  for_edges([&](const Tile& t, Arena& memory) {
    const Index rows = t.rows();
    real *g = gm + t.edge * W, *x = gx + t.edge * W, *spare = memory.take(2 * rows * W);
    sum_to_atoms_backward(t, 3 * model.rbf, b.update_filter, s.updated, gz, gm, memory);
    b.after_skip.backward(rows, t.edge, E, g, g, s.after, spare, weights);
    std::memset(x, 0, rows * W * sizeof(real));
    add_scaled(rows * W, x, b.m_share, g);
    b.before_skip.backward(rows, t.edge, E, x, x, s.before, spare, weights);
  });
  real *g_e2e = arena.zeros(E * et), *g_ea = arena.take(E * et);
  real *g_ae = arena.zeros(graph.atom_edge.n * et);
  real *g_terms = arena.take(graph.triplets.back() * model.quad);
  real* g_source = arena.take(graph.atom_edge.n * A);
  real* g_near = arena.take(graph.near.n * model.aint);
  for_edges([&](const Tile& t, Arena& memory) {
    messages_backward(b, s, t, gx, g_e2e, g_ae, g_terms, memory);
    inputs_backward(b, s, t, g_e2a, g_a2a, g_ea, g_ae, g_source, g_near, memory);
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
    if (weights) b.on_atoms.learn(weights, rows, s.h_in + first * A, A, g);
    b.on_atoms.transposed(rows, g, gh + first * A, true);
  });
}

inline void Network::messages_backward(const Block& b, const Kept& s, const Tile& t, const real* gx,
                                       real* g_e2e, real* g_ae, real* g_terms, Arena& memory) {
  const Index W = model.edge, rows = t.rows(), et = model.trip;
  const Index most = std::max(b.e2e.bilinear.in, b.quad.bilinear.in);
  real *gM = memory.take(rows * most), *u = memory.take(rows * 2 * W);
  real* y = memory.take(rows * std::max(b.e2e.bilinear.out, std::max(b.quad.bilinear.out,
                                                                     b.a2e.bilinear.out)));
  const real half = std::sqrt(real(0.5));
  const auto downwards = [&](const Pass& pass, const real* slope, const real* message) {
    for (Index r = 0; r < rows; ++r) {
      const Index e = t.edge + r;
      const real* d = slope + e * 2 * W;
      for (Index v = 0; v < W; v += LANES) {
        store(u + r * 2 * W + v, half * load(gx + e * W + v) * load(d + v));
        store(u + r * 2 * W + W + v,
              half * load(gx + graph.swap[e] * W + v) * load(d + W + v));
      }
    }
    const Index in = pass.bilinear.in;
    if (weights) {
      pass.bilinear(rows, message + t.edge * in, y);
      pass.up.learn(weights, rows, y, pass.up.in, u);
    }
    pass.up.transposed(rows, u, y);
    if (weights) pass.bilinear.learn(weights, rows, message + t.edge * in, in, y);
    pass.bilinear.transposed(rows, y, gM);
  };
  Edges &main = graph.main, &ae = graph.atom_edge;
  real* gB = memory.take(t.atoms() * LM * et);
  for (const bool edges : {true, false}) {
    const Pass& pass = edges ? b.e2e : b.a2e;
    downwards(pass, edges ? s.e2e_up : s.a2e_up, edges ? s.e2e_message : s.a2e_message);
    std::memset(gB, 0, t.atoms() * LM * et * sizeof(real));
    for (Index c = t.edge; c < t.edge_end; ++c) {
      const ReadOut at = edges ? e2e_at(s, c) : a2e_at(s, c);
      const Index column = edges ? model.of_e2e : model.of_a2e, own = edges ? c : graph.twin[c];
      real* to = own < 0 ? nullptr : (edges ? g_e2e : g_ae) + own * et;
      const real* given = gM + (c - t.edge) * pass.bilinear.in;
      real* gB_a = gB + (main.target[c] - t.atom) * LM * et;
      ReadOut::Wanted wanted;
      if (weights) wanted.F = bases.main.gradient_at(c, column);
      if (geometry)
        wanted = {wanted.F, bases.D + c * 3 * LM, bases.main.slope_at(c, column),
                  main.g_distance + c, main.g_unit + 3 * c,
                  own < 0 ? nullptr : (edges ? main : ae).g_weight + own};
      if (geometry)
        at.backward<true>(given, gB_a, to, wanted);
      else
        at.backward<false>(given, gB_a, to, wanted);
    }
    Edges& from = edges ? main : ae;
    for (Index a = t.atom; a < t.atom_end; ++a)
      for (Index e = from.start[a]; e < from.start[a + 1]; ++e)
        moments_backward(et, (edges ? bases.C : bases.C_ae) + e * LM,
                         (edges ? bases.D : bases.D_ae) + e * 3 * LM,
                         gB + (a - t.atom) * LM * et, (edges ? s.e2e_x : s.a2e_x) + e * et,
                         from.weight[e], (edges ? g_e2e : g_ae) + e * et,
                         geometry ? from.g_unit + 3 * e : nullptr, from.g_weight + e);
  }
  downwards(b.quad, s.quad_up, s.quad_message);
  const Quadruplets four = quadruplets(b, s);
  for (Index a = t.atom; a < t.atom_end; ++a)
    four.backward(a, gM + (main.start[a] - t.edge) * b.quad.bilinear.in, g_terms, memory);
}

// The rest of what is local to the atoms of a tile: e2a, a2e from its down-projection on, a2a.
inline void Network::inputs_backward(const Block& b, const Kept& s, const Tile& t,
                                     const real* g_e2a, const real* g_a2a, real* g_ea, real* g_ae,
                                     real* g_source, real* g_near, Arena& memory) {
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
      const real* F = bases.near.at(e);
      const real* x = s.h + near.source[e] * width + A;
      real* to = g_near + e * aint;
      std::memset(to, 0, aint * sizeof(real)), std::memset(v, 0, aint * sizeof(real));
      combine(model.rbf, aint, F, g_a, to);
      if (geometry) {
        combine(model.rbf, aint, bases.near.slope_at(e), g_a, v);
        near.g_weight[e] += dot(aint, to, x);
        near.g_distance[e] += near.weight[e] * dot(aint, v, x);
      }
      if (weights)
        for (Index i = 0; i < model.rbf; ++i)
          bases.near.gradient_at(e)[i] += near.weight[e] * dot(aint, g_a + i * aint, x);
      for (Index i = 0; i < aint; ++i) to[i] *= near.weight[e];
    }
  }
  const Index first = ae.start[t.atom], more = ae.start[t.atom_end] - first;
  real *g = g_ae + first * et, *gp = g_source + first * A;
  scale_by(more * et, g, s.a2e_slope + first * et);
  real* x = memory.take(more * A);
  for (Index e = 0; e < more; ++e)
    std::memcpy(x + e * A, s.h + ae.source[first + e] * width, A * sizeof(real));
  if (weights) {
    filtered(more, bases.atom_edge.at(first), bases.atom_edge.width, b.a2e.filter, x, A, gp);
    b.a2e.down.learn(weights, more, gp, A, g);
  }
  b.a2e.down.transposed(more, g, gp);
  filtered_backward(bases.atom_edge, first, more, 0, b.a2e.filter, x, A, gp, ae.g_distance + first,
                    memory);
}

// From the gradients by the inputs of the passes to that by the embeddings of edges.
inline void Network::edges_backward(const Block& b, const Kept& s, const Tile& t, const real* gx,
                                    real* g_e2e, real* g_ea, const real* g_terms,
                                    const BySource& quad_from, real* gm, Arena& memory) {
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
    const Index column = (part - 1) * model.rbf;
    const real* z = s.z + t.edge * 4 * W + part * W;
    if (weights) {
      filtered(rows, bases.main.at(t.edge, column), bases.main.width, filter, z, 4 * W, g);
      w.learn(weights, rows, g, W, gy);
    }
    w.transposed(rows, gy, g);
    filtered_backward(bases.main, t.edge, rows, column, filter, z, 4 * W, g,
                      main.g_distance + t.edge, memory);
    into(part);
  };
  down(1, b.e2e.filter, b.e2e.down, g_e2e + t.edge * b.e2e.down.out, s.e2e_slope);
  down(2, b.quad.filter, b.quad.down, g_quad, s.quad_slope);
  down(3, b.e2a_filter, b.e2a_down, g_ea + t.edge * b.e2a_down.out, s.e2a_slope);
  scale_by(rows * 4 * W, gz, s.z_slope + t.edge * 4 * W);
  if (weights) b.on_edges.learn(weights, rows, s.m + t.edge * W, W, gz);
  b.on_edges.transposed(rows, gz, gm + t.edge * W, true);
}

}  // namespace
