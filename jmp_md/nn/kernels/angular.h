// Angular functions of unit vectors and their derivatives.
//
// P_l(u . v) = sum_m C_lm(u) C_lm(v) with real harmonics C in Racah's normalisation, so that a sum
// over neighbours of a Legendre function of an angle is made of moments about the atom.
#pragma once

#include "simd.h"

namespace {

constexpr int S = SPHERICAL;  // l = 0 .. S - 1
constexpr int LM = S * S;

// C_lm(u), and its derivatives by x, y and z, each LM numbers.
inline void harmonics(const real* u, real* C, real* D) {
  const real x = u[0], y = u[1], z = u[2];
  real a[S + 1] = {1}, b[S + 1] = {0};  // (x + iy)^m
  for (int m = 1; m <= S; ++m) {
    a[m] = x * a[m - 1] - y * b[m - 1];
    b[m] = x * b[m - 1] + y * a[m - 1];
  }
  real p[S + 1][S + 2] = {};  // m-th derivative of P_l
  p[0][0] = 1;
  for (int l = 1; l < S; ++l)
    for (int m = 0; m <= l; ++m) {
      if (m == l)
        p[l][m] = (2 * m - 1) * p[l - 1][m - 1];
      else
        p[l][m] = ((2 * l - 1) * z * p[l - 1][m] - (l > 1 ? (l + m - 1) * p[l - 2][m] : 0)) /
                  (l - m);
    }
  for (int l = 0; l < S; ++l) {
    const int middle = l * l + l;
    C[middle] = p[l][0];
    D[middle] = D[LM + middle] = 0;
    D[2 * LM + middle] = p[l][1];
    double ratio = 2;  // 2 (l - m)! / (l + m)!
    for (int m = 1; m <= l; ++m) {
      ratio /= double(l + m) * double(l - m + 1);
      const real norm = std::sqrt(ratio), q = norm * p[l][m], dq = norm * p[l][m + 1];
      const int plus = middle + m, minus = middle - m;
      C[plus] = q * a[m], C[minus] = q * b[m];
      D[plus] = m * q * a[m - 1], D[minus] = m * q * b[m - 1];
      D[LM + plus] = -m * q * b[m - 1], D[LM + minus] = m * q * a[m - 1];
      D[2 * LM + plus] = dq * a[m], D[2 * LM + minus] = dq * b[m];
    }
  }
}

// P_l(z) and P_l'(z).
inline void legendre(real z, real* P, real* D) {
  P[0] = 1, D[0] = 0;
  if (S > 1) P[1] = z, D[1] = 1;
  for (int l = 2; l < S; ++l) {
    P[l] = ((2 * l - 1) * z * P[l - 1] - (l - 1) * P[l - 2]) / l;
    D[l] = D[l - 2] + (2 * l - 1) * P[l - 1];
  }
}

inline real dot3(const real* a, const real* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
inline void add3(real* a, real factor, const real* b) {
  for (int i = 0; i < 3; ++i) a[i] += factor * b[i];
}

// Two unit vectors orthogonal to an axis and to each other (Duff et al. 2017).
inline void frame_of(const real* axis, real* e) {
  const real x = axis[0], y = axis[1], sign = axis[2] >= 0 ? 1 : -1;
  const real a = -1 / (sign + axis[2]), b = x * y * a;
  e[0] = 1 + sign * x * x * a, e[1] = sign * b, e[2] = -sign * x;
  e[3] = b, e[4] = sign + y * y * a, e[5] = -y;
}

// The gradient by the axis, from that by the frame.
inline void frame_backward(const real* axis, const real* g, real* g_axis) {
  const real x = axis[0], y = axis[1], sign = axis[2] >= 0 ? 1 : -1;
  const real a = -1 / (sign + axis[2]);
  const real gb = sign * g[1] + g[3], ga = g[0] * sign * x * x + g[4] * y * y + gb * x * y;
  g_axis[0] += 2 * sign * x * a * g[0] - sign * g[2] + gb * y * a;
  g_axis[1] += 2 * y * a * g[4] - g[5] + gb * x * a;
  g_axis[2] += ga * a * a;
}

// The azimuth of u in a frame: s cos(m alpha), m = 0 .. S - 1, then 1 and s sin(m alpha).
struct Azimuth {
  real series[2 * S];
  real p, q, sin2, s, slope;  // in the plane; s and its derivative by sin2
  bool defined;

  Azimuth(const real* u, const real* frame, bool smooth, real inline_sin2) {
    constexpr real threshold = sizeof(real) == 8 ? 1e-14 : 1e-8;
    p = dot3(u, frame), q = dot3(u, frame + 3);
    sin2 = p * p + q * q;
    defined = sin2 > threshold;
    s = defined, slope = 0;
    const real t = sin2 / inline_sin2;
    if (defined && smooth && t < 1) {
      s = t * t * t * (10 + t * (6 * t - 15));
      slope = 30 * t * t * (t - 1) * (t - 1) / inline_sin2;
    }
    const real norm = defined ? 1 / std::sqrt(sin2) : 1;
    const real c = p * norm, d = q * norm;
    real cosine = 1, sine = 0;
    series[0] = s, series[S] = 1;
    for (int m = 1; m < S; ++m) {
      const real next = cosine * c - sine * d;
      sine = sine * c + cosine * d;
      cosine = next;
      series[m] = s * cosine, series[S + m] = s * sine;
    }
  }

  // From the gradient by the series to those by u and by the frame.
  void backward(const real* g, const real* u, const real* frame, real* g_u, real* g_frame) const {
    if (!defined) return;
    real by_angle = 0, by_s = 0;
    for (int m = 1; m < S; ++m) {
      by_angle += m * (g[S + m] * series[m] - g[m] * series[S + m]);
      by_s += g[m] * series[m] + g[S + m] * series[S + m];
    }
    // slope / s is finite wherever s is not zero.
    const real by_sin2 = s > 0 ? slope * (g[0] + by_s / s) : 0;
    const real gp = 2 * p * by_sin2 - by_angle * q / sin2;
    const real gq = 2 * q * by_sin2 + by_angle * p / sin2;
    add3(g_u, gp, frame), add3(g_u, gq, frame + 3);
    add3(g_frame, gp, u), add3(g_frame + 3, gq, u);
  }
};

// B[lm] = sum over rows of w C[lm] x; B is (LM, n).
inline void moments(Index rows, Index n, const real* w, const real* C, const real* x, real* B) {
  for (Index v = 0; v < n; v += LANES) {
    vec total[LM] = {};
    for (Index r = 0; r < rows; ++r) {
      const vec weighted = w[r] * load(x + r * n + v);
#pragma GCC unroll 16
      for (int lm = 0; lm < LM; ++lm) total[lm] += C[r * LM + lm] * weighted;
    }
    for (int lm = 0; lm < LM; ++lm) store(B + lm * n + v, total[lm]);
  }
}

// sum over m of C_lm B[lm], by l, for a vector of columns of B.
inline void by_degree(const real* C, const real* B, Index n, vec* T) {
#pragma GCC unroll 8
  for (int l = 0; l < S; ++l) {
    vec total{};
#pragma GCC unroll 16
    for (int lm = l * l; lm < (l + 1) * (l + 1); ++lm) total += C[lm] * load(B + lm * n);
    T[l] = total;
  }
}

}  // namespace
