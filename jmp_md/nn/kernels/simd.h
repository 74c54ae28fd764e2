// Vectors of numbers, the activation, products of matrices, memory and threads.
//
// All is local to the one file that is compiled: a process may load this code for several types, and
// what they call alike must not become one.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

namespace {

using real = REAL;
using Index = std::int64_t;

#if defined(__AVX512F__)
constexpr int BYTES = 64, REGISTERS = 32;
#elif defined(__AVX__)
constexpr int BYTES = 32, REGISTERS = 16;
#elif defined(__aarch64__)
constexpr int BYTES = 16, REGISTERS = 32;
#else
constexpr int BYTES = 16, REGISTERS = 16;
#endif
constexpr int LANES = BYTES / sizeof(real);
typedef real vec __attribute__((vector_size(BYTES), aligned(sizeof(real)), may_alias));
using bits = std::conditional_t<sizeof(real) == 4, std::int32_t, std::int64_t>;
typedef bits bitvec __attribute__((vector_size(BYTES), aligned(sizeof(real)), may_alias));

inline vec load(const real* p) { return *reinterpret_cast<const vec*>(p); }
inline void store(real* p, vec x) { *reinterpret_cast<vec*>(p) = x; }

// Eight numbers, whatever the length of a vector.
typedef real eight __attribute__((vector_size(8 * sizeof(real)), aligned(sizeof(real)), may_alias));
inline eight load8(const real* p) { return *reinterpret_cast<const eight*>(p); }
inline void store8(real* p, eight x) { *reinterpret_cast<eight*>(p) = x; }
inline real sum8(eight x) {
  return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
}

inline vec all(real x) { return x - vec{}; }
inline real sum(vec x) {
  real total = 0;
  for (int i = 0; i < LANES; ++i) total += x[i];
  return total;
}

// exp to the last digit or two: 2^n times a Taylor series on [-ln 2 / 2, ln 2 / 2].
inline vec exponential(vec x) {
  constexpr bool single = sizeof(real) == 4;
  constexpr int mantissa = single ? 23 : 52, degree = single ? 7 : 13;
  constexpr real most = single ? 87.0 : 708.0;
  const real magic = std::ldexp(real(1.5), mantissa);  // rounds what is added to it
  x = x < -most ? all(-most) : x;
  x = x > most ? all(most) : x;
  vec shifted = x * real(1.4426950408889634074) + magic;
  vec n = shifted - magic;
  constexpr real high = single ? 0.693359375 : 6.93147180369123816490e-01;
  constexpr real low = single ? -2.12194440e-4 : 1.90821492927058770002e-10;
  vec r = (x - n * high) - n * low;
  vec p = all(1);
  for (int k = degree; k > 0; --k) p = p * r * real(1.0 / k) + real(1);
  return (vec)((bitvec)p + ((bitvec)shifted << mantissa));
}

// x -> silu(x) in place; the derivative goes to slope.
inline void activate(Index n, real* x, real* slope) {
  for (Index i = 0; i < n; i += LANES) {
    vec v = load(x + i), s = real(1) / (real(1) + exponential(-v)), y = v * s;
    store(slope + i, s + y * (real(1) - s));
    store(x + i, y);
  }
}

inline void scale_by(Index n, real* x, const real* factor) {
  for (Index i = 0; i < n; i += LANES) store(x + i, load(x + i) * load(factor + i));
}
inline void add_scaled(Index n, real* x, real factor, const real* y) {
  for (Index i = 0; i < n; i += LANES) store(x + i, load(x + i) + factor * load(y + i));
}
inline real dot(Index n, const real* x, const real* y) {
  vec total{};
  for (Index i = 0; i < n; i += LANES) total += load(x + i) * load(y + i);
  return sum(total);
}

// A tile of R rows and V vectors of C = A B (or C += A B), held in registers; of A^T B where turned.
template <bool turned, int R, int V>
inline void tile(Index K, const real* A, Index lda, const real* B, Index ldb, real* C, Index ldc,
                 bool add) {
  vec c[R][V];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) c[i][j] = add ? load(C + i * ldc + j * LANES) : vec{};
  for (Index k = 0; k < K; ++k) {
    vec b[V];
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) b[j] = load(B + k * ldb + j * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < V; ++j) c[i][j] += A[turned ? k * lda + i : i * lda + k] * b[j];
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < V; ++j) store(C + i * ldc + j * LANES, c[i][j]);
}

template <bool turned, int R, int V>
inline void rows_of(Index M, Index K, const real* A, Index lda, const real* B, Index ldb, real* C,
                    Index ldc, bool add) {
  for (; M >= R; M -= R, A += turned ? R : R * lda, C += R * ldc)
    tile<turned, R, V>(K, A, lda, B, ldb, C, ldc, add);
  if constexpr (R > 1)
    if (M > 0) rows_of<turned, (R + 1) / 2, V>(M, K, A, lda, B, ldb, C, ldc, add);
}

template <bool turned>
inline void columns_of(Index M, Index K, Index N, const real* A, Index lda, const real* B,
                       Index ldb, real* C, Index ldc, bool add) {
  constexpr int W = REGISTERS == 32 ? 4 : 2;
  Index left = N / LANES;
  for (; left >= W; left -= W, B += W * LANES, C += W * LANES)
    rows_of<turned, 6, W>(M, K, A, lda, B, ldb, C, ldc, add);
  if constexpr (W == 4) {
    if (left == 3) rows_of<turned, 8, 3>(M, K, A, lda, B, ldb, C, ldc, add);
    if (left == 2) rows_of<turned, 12, 2>(M, K, A, lda, B, ldb, C, ldc, add);
  }
  if (left == 1) rows_of<turned, 12, 1>(M, K, A, lda, B, ldb, C, ldc, add);
}

// C (+)= A B for A (M, K), B (K, N), C (M, N), rows lda, N and ldc apart; N a multiple of 16.
inline void multiply(Index M, Index K, Index N, const real* A, Index lda, const real* B, real* C,
                     Index ldc, bool add = false) {
  columns_of<false>(M, K, N, A, lda, B, N, C, ldc, add);
}
// C += A^T B for A (K, M), B (K, N), C (M, N), rows lda, ldb and N apart; N a multiple of 16.
inline void add_products(Index M, Index K, Index N, const real* A, Index lda, const real* B,
                         Index ldb, real* C) {
  columns_of<true>(M, K, N, A, lda, B, ldb, C, N, true);
}

// Arrays that are taken one after the other and given back all at once.
class Arena {
 public:
  void reset() { next_ = 0; }
  real* take(Index n) {
    if (next_ == blocks_.size()) blocks_.push_back({});
    Block& block = blocks_[next_++];
    if (block.size < n) {
      std::free(block.data);
      block.size = 0;
      block.data = static_cast<real*>(std::aligned_alloc(64, (n * sizeof(real) / 64 + 1) * 64));
      if (!block.data) throw std::bad_alloc();
      block.size = n;
    }
    return block.data;
  }
  real* zeros(Index n) {
    real* data = take(n);
    std::memset(data, 0, n * sizeof(real));
    return data;
  }
  // Keep what small steps need for the next one, and no more.
  void shrink(Index most) {
    Index total = 0;
    for (const Block& block : blocks_) total += block.size;
    if (total > most) clear();
  }
  ~Arena() { clear(); }

 private:
  struct Block {
    real* data = nullptr;
    Index size = 0;
  };
  void clear() {
    for (Block& block : blocks_) std::free(block.data);
    blocks_.clear();
    next_ = 0;
  }
  std::vector<Block> blocks_;
  std::size_t next_ = 0;
};

// Scratch memory of a thread, for one tile.
inline Arena& scratch() {
  static thread_local Arena arena;
  arena.reset();
  return arena;
}

// body(i) for i = 0 .. n-1, on the threads of the caller's choice; no order is promised, but where
// fixed: which thread does what is the same each time.
template <class Body>
inline void in_parallel(Index n, int threads, Body body, bool fixed = false) {
  if (fixed) {
#pragma omp parallel for schedule(static, 1) num_threads(threads) if (threads > 1 && n > 1)
    for (Index i = 0; i < n; ++i) body(i);
  } else {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1 && n > 1)
    for (Index i = 0; i < n; ++i) body(i);
  }
}

}  // namespace
