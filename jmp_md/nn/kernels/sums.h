// Sums over triplets and quadruplets about one atom, and their gradients.
#pragma once

#include "bases.h"

namespace {

// M[i] = sum_l F[i, l] (sum_m C_lm B[lm] - w x): moments of an atom, seen from one of its edges.
// The last term is the edge's own, none where x is null.
struct ReadOut {
  Index cbf, n;
  const real *C, *F, *B;
  const real* own = nullptr;
  real own_weight = 0;

  void degrees(Index v, vec* T) const {
    by_degree(C, B + v, n, T);
    if (own) {
      const vec x = own_weight * load(own + v);
      for (int l = 0; l < S; ++l) T[l] -= x;
    }
  }
  void forward(real* M) const {
    for (Index v = 0; v < n; v += LANES) {
      vec T[S];
      degrees(v, T);
      for (Index i = 0; i < cbf; ++i) {
        vec total{};
#pragma GCC unroll 8
        for (int l = 0; l < S; ++l) total += F[i * S + l] * T[l];
        store(M + i * n + v, total);
      }
    }
  }
  // Adds to gB (LM, n), to the gradient by the own edge's x, and to those that are wanted: by F or by
  // what was measured.
  struct Wanted {
    real* F = nullptr;
    const real *D = nullptr, *dF = nullptr;
    real *distance = nullptr, *unit = nullptr, *own_weight = nullptr;
  };
  template <bool geometry>
  void backward(const real* gM, real* gB, real* g_own, const Wanted& wanted) const {
    vec by_distance{}, by_unit[3] = {}, by_weight{};
    for (Index v = 0; v < n; v += LANES) {
      vec T[S], gT[S] = {}, hT[S] = {}, total{};
      degrees(v, T);
      for (Index i = 0; i < cbf; ++i) {
        const vec g = load(gM + i * n + v);
#pragma GCC unroll 8
        for (int l = 0; l < S; ++l) {
          gT[l] += F[i * S + l] * g;
          if constexpr (geometry)
            hT[l] += wanted.dF[i * S + l] * g;
          else
            wanted.F[i * S + l] += sum(g * T[l]);
        }
      }
#pragma GCC unroll 8
      for (int l = 0; l < S; ++l) {
        total += gT[l];
        if constexpr (geometry) by_distance += hT[l] * T[l];
        vec turned[3] = {};
#pragma GCC unroll 16
        for (int lm = l * l; lm < (l + 1) * (l + 1); ++lm) {
          real* to = gB + lm * n + v;
          store(to, load(to) + C[lm] * gT[l]);
          if constexpr (geometry) {
            const vec b = load(B + lm * n + v);
            for (int x = 0; x < 3; ++x) turned[x] += wanted.D[x * LM + lm] * b;
          }
        }
        if constexpr (geometry)
          for (int x = 0; x < 3; ++x) by_unit[x] += gT[l] * turned[x];
      }
      if (own) {
        store(g_own + v, load(g_own + v) - own_weight * total);
        by_weight += total * load(own + v);
      }
    }
    if constexpr (geometry) {
      *wanted.distance += sum(by_distance);
      for (int x = 0; x < 3; ++x) wanted.unit[x] += sum(by_unit[x]);
      if (own) *wanted.own_weight -= sum(by_weight);
    }
  }
};

// The gradient by x of an edge, and by its direction and weight where there is room for them, from
// that by moments of its atom.
inline void moments_backward(Index n, const real* C, const real* D, const real* gB, const real* x,
                             real w, real* gx, real* g_unit, real* g_weight) {
  vec by_weight{}, by_unit[3] = {};
  for (Index v = 0; v < n; v += LANES) {
    vec total{}, turned[3] = {};
#pragma GCC unroll 16
    for (int lm = 0; lm < LM; ++lm) {
      const vec g = load(gB + lm * n + v);
      total += C[lm] * g;
      if (g_unit)
        for (int i = 0; i < 3; ++i) turned[i] += D[i * LM + lm] * g;
    }
    const vec own = load(x + v);
    store(gx + v, load(gx + v) + w * total);
    by_weight += total * own;
    for (int i = 0; i < 3; ++i) by_unit[i] += turned[i] * own;
  }
  if (!g_unit) return;
  *g_weight += sum(by_weight);
  for (int i = 0; i < 3; ++i) g_unit[i] += w * sum(by_unit[i]);
}

// y (n) += sum_i a[i] B[i] for rows B[i] of n numbers.
inline void combine(Index rows, Index n, const real* a, const real* B, real* y) {
  for (Index v = 0; v < n; v += LANES) {
    vec total = load(y + v);
    for (Index i = 0; i < rows; ++i) total += a[i] * load(B + i * n + v);
    store(y + v, total);
  }
}

// The quadruplets d -> b -> a <- c about one atom a, of one block.
struct Quadruplets {
  const Bases& bases;
  const Linear& filter;    // from cbf16 to n
  Index n;                 // width of what is summed
  const real* x;           // (E, n), by edges d -> b
  real *terms, *moments;   // (triplets, n) filtered x; (Q, 2S, n) series of them by azimuth

  void series(Index a) const {
    const Graph& graph = bases.graph;
    for (Index q = graph.quad.start[a]; q < graph.quad.start[a + 1]; ++q) {
      const Index b = graph.quad.source[q], degree = graph.main.degree(b), t = graph.triplets[q];
      real *out = terms + t * n, *A = moments + q * 2 * S * n;
      filter(degree, bases.filter + t * bases.model.cbf16, out);
      scale_by(degree * n, out, x + graph.main.start[b] * n);
      for (Index v = 0; v < n; v += LANES) {
        vec total[2 * S] = {};
        for (Index d = 0; d < degree; ++d) {
          const vec term = load(out + d * n + v);
#pragma GCC unroll 16
          for (int i = 0; i < 2 * S; ++i) total[i] += bases.series[(t + d) * 2 * S + i] * term;
        }
#pragma GCC unroll 16
        for (int i = 0; i < 2 * S; ++i) store(A + i * n + v, total[i]);
      }
    }
  }
  // The message (sbf, n) to an edge c -> a.
  void read(Index c, real* message) const {
    const Graph& graph = bases.graph;
    const Index sbf = bases.model.sbf, width = bases.model.sbf8, a = graph.main.target[c];
    std::memset(message, 0, sbf * n * sizeof(real));
    for (Index pair = graph.pairs[c]; pair < graph.pairs[c + 1]; ++pair) {
      const Index q = graph.quad.start[a] + pair - graph.pairs[c], t = graph.closing[pair];
      if (t == -2) continue;
      const real *A = moments + q * 2 * S * n, *Q = bases.read_out + pair * 2 * S * width;
      for (Index v = 0; v < n; v += LANES) {
        vec series[2 * S];
#pragma GCC unroll 16
        for (int i = 0; i < 2 * S; ++i) series[i] = load(A + i * n + v);
        for (Index j = 0; j < sbf; ++j) {
          vec total = load(message + j * n + v);
#pragma GCC unroll 16
          for (int i = 0; i < 2 * S; ++i) total += Q[i * width + j] * series[i];
          store(message + j * n + v, total);
        }
      }
      if (t < 0) continue;
      for (Index v = 0; v < n; v += LANES) {
        const vec term = load(terms + t * n + v);
        for (Index j = 0; j < sbf; ++j) {
          real* to = message + j * n + v;
          store(to, load(to) - bases.close[pair * width + j] * term);
        }
      }
    }
  }
  // From the gradient by messages (rows, sbf, n) to all edges into a, to that by the terms' x, one
  // row for each triplet, and to those by the coefficients.
  void backward(Index a, const real* g, real* g_x, Arena& memory) const {
    const Graph& graph = bases.graph;
    const Model& model = bases.model;
    const Index sbf = model.sbf, width = model.sbf8, first = graph.quad.start[a];
    const Index q_end = graph.quad.start[a + 1], cbf = model.cbf16;
    if (first == q_end) return;
    real* turned = memory.take(n * width);
    real *gA = memory.zeros((q_end - first) * 2 * S * n), *gAt = memory.take(n * 2 * S);
    const Index none = graph.triplets[first];
    std::memset(g_x + none * n, 0, (graph.triplets[q_end] - none) * n * sizeof(real));
    for (Index c = graph.main.start[a]; c < graph.main.start[a + 1]; ++c, g += sbf * n) {
      for (Index e = 0; e < n; ++e)
        for (Index j = 0; j < width; ++j) turned[e * width + j] = j < sbf ? g[j * n + e] : 0;
      for (Index q = first; q < q_end; ++q) {
        const Index pair = graph.pairs[c] + q - first, t = graph.closing[pair];
        if (t == -2) continue;
        const real *A = moments + q * 2 * S * n, *Q = bases.read_out + pair * 2 * S * width;
        real *own = gA + (q - first) * 2 * S * n, *gQ = bases.g_read_out + pair * 2 * S * width;
        for (Index v = 0; v < n; v += LANES) {
          vec total[2 * S];
#pragma GCC unroll 16
          for (int i = 0; i < 2 * S; ++i) total[i] = load(own + i * n + v);
          for (Index j = 0; j < sbf; ++j) {
            const vec given = load(g + j * n + v);
#pragma GCC unroll 16
            for (int i = 0; i < 2 * S; ++i) total[i] += Q[i * width + j] * given;
          }
#pragma GCC unroll 16
          for (int i = 0; i < 2 * S; ++i) store(own + i * n + v, total[i]);
        }
        for (Index j = 0; j < width; j += 8) {
          eight total[2 * S];
#pragma GCC unroll 16
          for (int i = 0; i < 2 * S; ++i) total[i] = load8(gQ + i * width + j);
          for (Index e = 0; e < n; ++e) {
            const eight given = load8(turned + e * width + j);
#pragma GCC unroll 16
            for (int i = 0; i < 2 * S; ++i) total[i] += A[i * n + e] * given;
          }
#pragma GCC unroll 16
          for (int i = 0; i < 2 * S; ++i) store8(gQ + i * width + j, total[i]);
        }
        if (t < 0) continue;
        for (Index v = 0; v < n; v += LANES) {
          vec total = load(g_x + t * n + v);
          for (Index j = 0; j < sbf; ++j)
            total -= bases.close[pair * width + j] * load(g + j * n + v);
          store(g_x + t * n + v, total);
        }
        for (Index j = 0; j < width; j += 8) {
          real* to = bases.g_close + pair * width + j;
          eight total = load8(to);
          for (Index e = 0; e < n; ++e)
            total -= terms[t * n + e] * load8(turned + e * width + j);
          store8(to, total);
        }
      }
    }
    for (Index q = first; q < q_end; ++q) {
      const Index b = graph.quad.source[q], degree = graph.main.degree(b);
      const real *own = gA + (q - first) * 2 * S * n, *x_b = x + graph.main.start[b] * n;
      for (Index e = 0; e < n; ++e)
        for (int i = 0; i < 2 * S; ++i) gAt[e * 2 * S + i] = own[i * n + e];
      const Index t0 = graph.triplets[q];
      real *F = memory.take(degree * n), *gF = memory.take(degree * n);
      filter(degree, bases.filter + t0 * cbf, F);
      for (Index d = 0; d < degree; ++d) {
        const Index t = t0 + d;
        real* gx = g_x + t * n;
        combine(2 * S, n, bases.series + t * 2 * S, own, gx);
        real* g_series = bases.g_series + t * 2 * S;
        for (Index e = 0; bases.geometry && e < n; ++e)
          for (int i = 0; i < 2 * S; ++i) g_series[i] += terms[t * n + e] * gAt[e * 2 * S + i];
        for (Index v = 0; v < n; v += LANES) {
          const vec given = load(gx + v);
          store(gF + d * n + v, given * load(x_b + d * n + v));
          store(gx + v, given * load(F + d * n + v));
        }
      }
      if (bases.weights) filter.learn(bases.weights, degree, bases.filter + t0 * cbf, cbf, gF);
      filter.transposed(degree, gF, bases.g_filter + t0 * cbf, true);
    }
  }
};

}  // namespace
