// What all blocks share: radial projections, harmonics, coefficients of quadruplets; and how
// gradients by them become gradients by distances, directions and weights.
#pragma once

#include "projection.h"

namespace {

class Bases {
 public:
  const Model& model;
  Graph& graph;
  const bool geometry;  // whether gradients by it are wanted
  const Gradients weights;
  Projection main, atom_edge, quad, near;
  real *C, *D, *C_ae, *D_ae;        // harmonics of main and atom-edge edges
  real *e2a, *e2a_moments;          // (E, cbf16) coefficients without the weight, and (n, LM, cbf16)
  real *P, *dP, *read_out, *close;  // by pairs: Legendre functions, (2S, sbf8) and (sbf8)
  real *P_t, *dP_t, *series, *filter;  // by triplets, (2S) weighted azimuths and (cbf16)
  real *g_e2a, *g_read_out, *g_close, *g_series, *g_filter;

  Bases(const Model& m, Graph& g, Arena& arena, int threads, bool by_geometry, Gradients by_weights)
      : model(m), graph(g), geometry(by_geometry), weights(by_weights), arena_(arena),
        threads_(threads) {
    const auto project = [&](const Linear& weight, const Edges& edges) {
      return Projection(model, weight, edges, arena, threads, geometry, bool(weights));
    };
    main = project(m.main, graph.main), atom_edge = project(m.atom_edge, graph.atom_edge);
    quad = project(m.quadruplet, graph.quad), near = project(m.near, graph.near);
    directions(graph.main, C, D);
    directions(graph.atom_edge, C_ae, D_ae);
    const Index n = graph.atoms, pairs = graph.pairs.back(), triplets = graph.triplets.back();
    e2a = arena.take(graph.main.n * m.cbf16), e2a_moments = arena.zeros(n * LM * m.cbf16);
    P = arena.take(pairs * S), dP = arena.take(pairs * S);
    read_out = arena.take(pairs * 2 * S * m.sbf8), close = arena.take(pairs * m.sbf8);
    P_t = arena.take(triplets * S), dP_t = arena.take(triplets * S);
    series = arena.take(triplets * 2 * S), filter = arena.take(triplets * m.cbf16);
    in_parallel(n, threads, [&](Index a) {
      edge_to_atom(a);
      for (Index q = graph.quad.start[a]; q < graph.quad.start[a + 1]; ++q) triplets_of(q);
    });
    in_parallel(n, threads, [&](Index a) { pairs_of(a); });
    if (!geometry && !weights) return;
    g_e2a = arena.zeros(graph.main.n * m.cbf16);
    g_read_out = arena.zeros(pairs * 2 * S * m.sbf8), g_close = arena.zeros(pairs * m.sbf8);
    g_series = arena.zeros(triplets * 2 * S), g_filter = arena.zeros(triplets * m.cbf16);
    g_frame_ = arena.zeros(graph.quad.n * 6);
  }

  // From the gradients by coefficients to those by geometry and weights; edges out of atoms are
  // given.
  void backward(const BySource& quad_from) {
    in_parallel(graph.atoms, threads_, [&](Index a) {
      edge_to_atom_backward(a);
      pairs_backward(a);
    });
    in_parallel(graph.atoms, threads_, [&](Index b) {
      for (Index i = quad_from.start[b]; i < quad_from.start[b + 1]; ++i)
        triplets_backward(quad_from.edge[i]);
    });
    if (!weights) return;
    main.learn(model, model.main, graph.main, weights, threads_);
    atom_edge.learn(model, model.atom_edge, graph.atom_edge, weights, threads_);
    quad.learn(model, model.quadruplet, graph.quad, weights, threads_);
    near.learn(model, model.near, graph.near, weights, threads_);
  }

 private:
  Arena& arena_;
  const int threads_;
  real* g_frame_;

  void directions(const Edges& edges, real*& values, real*& slopes) {
    real *c = values = arena_.take(edges.n * LM), *d = slopes = arena_.take(edges.n * 3 * LM);
    const Index step = 64;
    in_parallel((edges.n + step - 1) / step, threads_, [&](Index i) {
      for (Index e = i * step; e < std::min(edges.n, (i + 1) * step); ++e)
        harmonics(edges.unit + 3 * e, c + e * LM, d + e * 3 * LM);
    });
  }

  // Circular factors of an atom-edge edge, (S, cbf16).
  const real* circular(Index c) const { return atom_edge.at(c, model.rbf); }

  void edge_to_atom(Index a) {
    const Index width = model.cbf16;
    real* A = e2a_moments + a * LM * width;
    for (Index c = graph.atom_edge.start[a]; c < graph.atom_edge.start[a + 1]; ++c)
      for (int l = 0; l < S; ++l)
        for (int lm = l * l; lm < (l + 1) * (l + 1); ++lm)
          add_scaled(width, A + lm * width, graph.atom_edge.weight[c] * C_ae[c * LM + lm],
                     circular(c) + l * width);
    for (Index b = graph.main.start[a]; b < graph.main.start[a + 1]; ++b) {
      real* out = e2a + b * width;
      std::memset(out, 0, width * sizeof(real));
      for (int lm = 0; lm < LM; ++lm) add_scaled(width, out, C[b * LM + lm], A + lm * width);
      if (const Index t = graph.twin[b]; t >= 0)
        for (int l = 0; l < S; ++l)
          add_scaled(width, out, -graph.atom_edge.weight[t], circular(t) + l * width);
    }
  }
  void edge_to_atom_backward(Index a) {
    const Index width = model.cbf16;
    Arena& memory = scratch();
    real *gA = memory.zeros(LM * width), *g = memory.take(width), *y = memory.take(width);
    const real* A = e2a_moments + a * LM * width;
    Edges &main_edges = graph.main, &others = graph.atom_edge;
    for (Index b = main_edges.start[a]; b < main_edges.start[a + 1]; ++b) {
      const real* given = g_e2a + b * width;
      for (Index i = 0; i < width; ++i) g[i] = main_edges.weight[b] * given[i];
      for (int lm = 0; lm < LM; ++lm)
        add_scaled(width, gA + lm * width, C[b * LM + lm], g);
      const Index t = graph.twin[b];
      if (weights && t >= 0)
        for (int l = 0; l < S; ++l)
          add_scaled(width, atom_edge.gradient_at(t, model.rbf) + l * width, -others.weight[t], g);
      if (!geometry) continue;
      main_edges.g_weight[b] += dot(width, given, e2a + b * width);
      for (int lm = 0; lm < LM; ++lm) {
        const real by_harmonic = dot(width, A + lm * width, g);
        for (int x = 0; x < 3; ++x)
          main_edges.g_unit[3 * b + x] += by_harmonic * D[(3 * b + x) * LM + lm];
      }
      if (t >= 0)
        for (int l = 0; l < S; ++l) {
          others.g_weight[t] -= dot(width, g, circular(t) + l * width);
          others.g_distance[t] -=
              others.weight[t] * dot(width, g, atom_edge.slope_at(t, model.rbf) + l * width);
        }
    }
    for (Index c = others.start[a]; c < others.start[a + 1]; ++c)
      for (int l = 0; l < S; ++l) {
        std::memset(y, 0, width * sizeof(real));
        for (int lm = l * l; lm < (l + 1) * (l + 1); ++lm) {
          const real* row = gA + lm * width;
          add_scaled(width, y, C_ae[c * LM + lm], row);
          if (!geometry) continue;
          const real by_harmonic = others.weight[c] * dot(width, circular(c) + l * width, row);
          for (int x = 0; x < 3; ++x)
            others.g_unit[3 * c + x] += by_harmonic * D_ae[(3 * c + x) * LM + lm];
        }
        if (weights)
          add_scaled(width, atom_edge.gradient_at(c, model.rbf) + l * width, others.weight[c], y);
        if (!geometry) continue;
        others.g_weight[c] += dot(width, y, circular(c) + l * width);
        others.g_distance[c] +=
            others.weight[c] * dot(width, y, atom_edge.slope_at(c, model.rbf) + l * width);
      }
  }

  // d -> b seen from q = b -> a.
  void triplets_of(Index q) {
    const Index b = graph.quad.source[q], width = model.cbf16;
    const real* axis = graph.quad.unit + 3 * q;
    real frame[6];
    frame_of(axis, frame);
    for (Index d = graph.main.start[b], t = graph.triplets[q]; d < graph.main.start[b + 1];
         ++d, ++t) {
      const real* u = graph.main.unit + 3 * d;
      const Azimuth azimuth(u, frame, model.smooth, model.inline_sin2);
      const real w = graph.open[t] ? graph.main.weight[d] : 0;
      for (int i = 0; i < 2 * S; ++i) series[t * 2 * S + i] = w * azimuth.series[i];
      legendre(dot3(u, axis), P_t + t * S, dP_t + t * S);
      std::memset(filter + t * width, 0, width * sizeof(real));
      for (int l = 0; l < S; ++l)
        add_scaled(width, filter + t * width, P_t[t * S + l], quad.at(q, l * width));
    }
  }
  void triplets_backward(Index q) {
    const Index b = graph.quad.source[q], width = model.cbf16;
    Edges &edges = graph.main, &axes = graph.quad;
    const real* axis = axes.unit + 3 * q;
    real frame[6], *g_frame = g_frame_ + 6 * q;
    frame_of(axis, frame);
    for (Index d = edges.start[b], t = graph.triplets[q]; d < edges.start[b + 1]; ++d, ++t) {
      if (!graph.open[t]) continue;
      if (weights)
        for (int l = 0; l < S; ++l)
          add_scaled(width, quad.gradient_at(q, l * width), P_t[t * S + l], g_filter + t * width);
      if (!geometry) continue;
      const real *u = edges.unit + 3 * d, *g = g_series + t * 2 * S;
      const Azimuth azimuth(u, frame, model.smooth, model.inline_sin2);
      real by_azimuth[2 * S], by_cosine = 0;
      for (int i = 0; i < 2 * S; ++i) {
        edges.g_weight[d] += g[i] * azimuth.series[i];
        by_azimuth[i] = edges.weight[d] * g[i];
      }
      azimuth.backward(by_azimuth, u, frame, edges.g_unit + 3 * d, g_frame);
      for (int l = 0; l < S; ++l) {
        const real* by_filter = g_filter + t * width;
        by_cosine += dP_t[t * S + l] * dot(width, by_filter, quad.at(q, l * width));
        axes.g_distance[q] +=
            P_t[t * S + l] * dot(width, by_filter, quad.slope_at(q, l * width));
      }
      add3(edges.g_unit + 3 * d, by_cosine, axis), add3(axes.g_unit + 3 * q, by_cosine, u);
    }
    if (geometry) frame_backward(axis, g_frame, axes.g_unit + 3 * q);
  }

  // Coefficients of c -> a that read out the series of q = b -> a; (S + 1, sbf8) of cosines.
  void cosines(Index c, Index q, Index pair, real* out) const {
    const Index width = (S + 1) * model.sbf8;
    const real* F = main.at(c, model.of_quad);
    for (Index j = 0; j < width; j += 8) {
      eight total{};
      for (int l = 0; l < S; ++l)
        total += graph.quad.weight[q] * P[pair * S + l] * load8(F + l * width + j);
      store8(out + j, total);
    }
  }
  void pairs_of(Index a) {
    const Index width = model.sbf8, first = graph.quad.start[a];
    real* own = scratch().take((S + 1) * width);
    for (Index q = first; q < graph.quad.start[a + 1]; ++q) {
      real frame[6];
      const real* axis = graph.quad.unit + 3 * q;
      frame_of(axis, frame);
      for (Index c = graph.main.start[a]; c < graph.main.start[a + 1]; ++c) {
        const Index pair = graph.pairs[c] + q - first, t = graph.closing[pair];
        if (t == -2) continue;
        const real* u = graph.main.unit + 3 * c;
        legendre(dot3(u, axis), P + pair * S, dP + pair * S);
        cosines(c, q, pair, own);
        const Azimuth azimuth(u, frame, model.smooth, model.inline_sin2);
        real* out = read_out + pair * 2 * S * width;
        for (int row = 0; row < 2 * S; ++row) {
          const real* from = own + (row <= S ? row : row - S) * width;
          for (Index j = 0; j < width; j += 8)
            store8(out + row * width + j, azimuth.series[row] * load8(from + j));
        }
        if (t < 0) continue;
        const real both = azimuth.s * series[t * 2 * S], weight = series[t * 2 * S + S];
        for (Index j = 0; j < width; ++j) {
          real total = 0;
          for (int m = 0; m < S; ++m) total += own[m * width + j];
          close[pair * width + j] = both * total + weight * own[S * width + j];
        }
      }
    }
  }
  void pairs_backward(Index a) {
    const Index width = model.sbf8, all_rows = (S + 1) * width, first = graph.quad.start[a];
    Arena& memory = scratch();
    real *own = memory.take(all_rows), *g = memory.take(all_rows);
    Edges &edges = graph.main, &axes = graph.quad;
    for (Index q = first; q < axes.start[a + 1]; ++q) {
      real frame[6];
      const real* axis = axes.unit + 3 * q;
      frame_of(axis, frame);
      for (Index c = edges.start[a]; c < edges.start[a + 1]; ++c) {
        const Index pair = graph.pairs[c] + q - first, t = graph.closing[pair];
        if (t == -2) continue;
        const real* u = edges.unit + 3 * c;
        cosines(c, q, pair, own);
        const Azimuth azimuth(u, frame, model.smooth, model.inline_sin2);
        real by_azimuth[2 * S];
        for (Index j = 0; j < all_rows; ++j) g[j] = 0;
        for (int row = 0; row < 2 * S; ++row) {
          const Index to = (row <= S ? row : row - S) * width;
          const real* given = g_read_out + (pair * 2 * S + row) * width;
          eight total{};
          for (Index j = 0; j < width; j += 8) {
            const eight by_row = load8(given + j);
            store8(g + to + j, load8(g + to + j) + azimuth.series[row] * by_row);
            total += by_row * load8(own + to + j);
          }
          by_azimuth[row] = sum8(total);
        }
        if (t >= 0) {
          const real s_d = series[t * 2 * S], w_d = series[t * 2 * S + S];
          real by_both = 0, by_weight = 0;
          for (Index j = 0; j < width; ++j) {
            const real given = g_close[pair * width + j];
            real total = 0;
            for (int m = 0; m < S; ++m) {
              total += own[m * width + j];
              g[m * width + j] += given * azimuth.s * s_d;
            }
            g[S * width + j] += given * w_d;
            by_both += given * total, by_weight += given * own[S * width + j];
          }
          by_azimuth[0] += by_both * s_d;
          g_series[t * 2 * S] += by_both * azimuth.s, g_series[t * 2 * S + S] += by_weight;
        }
        if (weights)
          for (int l = 0; l < S; ++l) {
            real* to = main.gradient_at(c, model.of_quad) + l * all_rows;
            for (Index j = 0; j < all_rows; j += 8)
              store8(to + j, load8(to + j) + axes.weight[q] * P[pair * S + l] * load8(g + j));
          }
        if (!geometry) continue;
        azimuth.backward(by_azimuth, u, frame, edges.g_unit + 3 * c, g_frame_ + 6 * q);
        real by_cosine = 0;
        for (int l = 0; l < S; ++l) {
          const real *F = main.at(c, model.of_quad) + l * all_rows;
          const real *dF = main.slope_at(c, model.of_quad) + l * all_rows;
          eight with_F{}, with_dF{};
          for (Index j = 0; j < all_rows; j += 8) {
            with_F += load8(g + j) * load8(F + j);
            with_dF += load8(g + j) * load8(dF + j);
          }
          const real p = P[pair * S + l], by_p = sum8(with_F);
          edges.g_distance[c] += axes.weight[q] * p * sum8(with_dF);
          axes.g_weight[q] += p * by_p;
          by_cosine += axes.weight[q] * dP[pair * S + l] * by_p;
        }
        add3(edges.g_unit + 3 * c, by_cosine, axis), add3(axes.g_unit + 3 * q, by_cosine, u);
      }
    }
  }
};

}  // namespace
