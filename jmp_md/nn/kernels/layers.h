// Layers of the folded network and the weights they are made of.
#pragma once

#include <omp.h>

#include "simd.h"

namespace {

// Gradients by the weights, for each thread its own: (threads, size), null where none are wanted.
struct Gradients {
  real* values = nullptr;
  Index size = 0;

  explicit operator bool() const { return values; }
  real* at(Index offset) const { return values + omp_get_thread_num() * size + offset; }
};

// W x and its transpose; weights as (in, out) and as (out, in), widths padded with zeros.
struct Linear {
  Index in = 0, out = 0, offset = 0;  // the last is that of the gradient, (in, out)
  const real *forward = nullptr, *backward = nullptr;

  void operator()(Index rows, const real* x, real* y) const { apply(rows, x, in, y); }
  void apply(Index rows, const real* x, Index stride, real* y, bool add = false) const {
    multiply(rows, in, out, x, stride, forward, y, out, add);
  }
  void transposed(Index rows, const real* g, real* gx, bool add = false) const {
    multiply(rows, out, in, g, out, backward, gx, in, add);
  }
  // Adds the gradient by the weight, from inputs x, rows stride apart, and the gradient by outputs.
  void learn(const Gradients& to, Index rows, const real* x, Index stride, const real* g) const {
    add_products(in, rows, out, x, stride, g, out, to.at(offset));
  }
};

// What Python packed: matrices, counts and factors, read in the order they were written.
struct Reader {
  const real* const* pointer;
  const Index* offset;
  const Index* integer;
  const double* number;

  Index count() { return *integer++; }
  Index unused = 0;

  real factor() { return static_cast<real>(*number++); }
  const real* values() { return values(unused); }
  const real* values(Index& place) {
    place = *offset++;
    return *pointer++;
  }
  Linear linear() {
    Linear w;
    w.in = count(), w.out = count();
    w.forward = values(w.offset), w.backward = values();
    return w;
  }
};

// What layers keep for the backward pass: slopes of activations, and inputs of linear layers but the
// first where gradients by weights are wanted.
struct Trace {
  real *slope = nullptr, *input = nullptr;
};

// Residual layers, after a dense one if there is one.
struct Layers {
  struct Residual {
    Linear inner, outer;
    real share;
  };
  bool has_dense = false;
  Linear dense;
  std::vector<Residual> residual;
  Index width = 0;  // of what they return

  void read(Reader& r) {
    width = r.count();
    has_dense = r.count();
    if (has_dense) dense = r.linear();
    residual.resize(r.count());
    for (Residual& layer : residual) {
      layer.inner = r.linear(), layer.outer = r.linear();
      layer.share = r.factor();
    }
  }
  // Room for so many rows; one number more, as there may be no layers.
  Trace trace(Index rows, bool learning, Arena& arena) const {
    const Index inputs = rows * width * 2 * residual.size();
    return {arena.take(inputs + has_dense * rows * width + 1),
            learning ? arena.take(inputs + 1) : nullptr};
  }

  // Rows first .. first + rows of `all` to y, which may be x where there is no dense layer.
  void forward(Index rows, Index first, Index all, const real* x, real* y, const Trace& kept,
               real* scratch) const {
    real *slope = kept.slope + first * width, *input = kept.input;
    const Index n = rows * width;
    if (input) input += first * width;
    if (has_dense) {
      dense(rows, x, y);
      activate(n, y, slope);
      slope += all * width;
    } else if (x != y) {
      std::memcpy(y, x, n * sizeof(real));
    }
    real *a = scratch, *b = scratch + n;
    for (const Residual& layer : residual) {
      layer.inner(rows, y, a);
      if (input) std::memcpy(input, y, n * sizeof(real));
      activate(n, a, slope);
      if (input) std::memcpy(input + all * width, a, n * sizeof(real)), input += 2 * all * width;
      layer.outer(rows, a, b);
      activate(n, b, slope + all * width);
      add_scaled(n, y, layer.share, b);
      slope += 2 * all * width;
    }
  }
  // The gradient of what was returned, in place, then by x: equal to g where there is no dense.
  // Of the rows x, those at hand are needed for the gradient by the weight of the dense layer.
  void backward(Index rows, Index first, Index all, real* g, real* gx, const Trace& kept,
                real* scratch, const Gradients& gradients, const real* x = nullptr) const {
    const Index n = rows * width, step = all * width;
    const real* slope = kept.slope + first * width + step * (has_dense + 2 * residual.size());
    const real* input = kept.input;
    if (input) input += first * width + 2 * step * residual.size();
    real *a = scratch, *b = scratch + n;
    for (Index i = residual.size() - 1; i >= 0; --i) {
      const Residual& layer = residual[i];
      slope -= 2 * step;
      if (input) input -= 2 * step;
      for (Index j = 0; j < n; j += LANES)
        store(a + j, layer.share * load(g + j) * load(slope + step + j));
      if (input) layer.outer.learn(gradients, rows, input + step, width, a);
      layer.outer.transposed(rows, a, b);
      scale_by(n, b, slope);
      if (input) layer.inner.learn(gradients, rows, input, width, b);
      layer.inner.transposed(rows, b, g, true);
    }
    if (has_dense) {
      scale_by(n, g, slope - step);
      if (input) dense.learn(gradients, rows, x, dense.in, g);
      dense.transposed(rows, g, gx);
    } else if (gx != g) {
      std::memcpy(gx, g, n * sizeof(real));
    }
  }
};

// A pass between edges or atoms: filter and down-projection, then bilinear layer and up-projection.
struct Pass {
  Linear filter, down, bilinear, up;

  void read(Reader& r) {
    filter = r.linear(), down = r.linear();
    bilinear = r.linear(), up = r.linear();
  }
};

struct Block {
  Linear on_edges, on_atoms;
  Pass e2e, quad, a2e;
  Linear quad_filter, quad_filter_t;  // mlp_cbf, and its transpose
  Linear e2a_filter, e2a_down, e2a_up, a2a_up;
  Layers before_skip, after_skip, atom_layers, residual_m;
  Linear update_filter;
  Layers update;
  Linear concat_atoms, concat_edges;
  real h_share, m_share, update_share, residual_share;

  void read(Reader& r) {
    on_edges = r.linear(), on_atoms = r.linear();
    e2e.read(r), quad.read(r), a2e.read(r);
    quad_filter = r.linear();
    e2a_filter = r.linear(), e2a_down = r.linear(), e2a_up = r.linear(), a2a_up = r.linear();
    before_skip.read(r), after_skip.read(r), atom_layers.read(r), residual_m.read(r);
    update_filter = r.linear();
    update.read(r);
    concat_atoms = r.linear(), concat_edges = r.linear();
    h_share = r.factor(), m_share = r.factor();
    update_share = r.factor(), residual_share = r.factor();
  }
};

struct Output {
  Linear filter;
  Layers layers, energy;
  real share;

  void read(Reader& r) {
    filter = r.linear();
    layers.read(r), energy.read(r);
    share = r.factor();
  }
};

struct Model {
  Index atom, edge, trip, quad, aint, rbf, cbf, sbf, radial;  // widths; cbf and sbf not padded
  Index cbf16, sbf8;                                          // padded
  real cutoff, inline_sin2;
  bool smooth;  // of the graph, as inline_sin2 is
  const real *embedding, *offset, *temps;
  Index of_embedding;  // offset of its gradient
  Linear main, atom_edge, quadruplet, near;  // on the radial basis of each graph
  Linear first_atoms;
  std::vector<Block> blocks;
  std::vector<Output> outputs;
  Linear global;
  Layers global_layers;
  struct Head {
    Linear linear;
    const real* bias;
    Index of_bias;
  };
  std::vector<Head> head;
  // Columns of `main`: five filters, circular factors of e2e and a2e, spherical ones, embedding.
  Index of_e2e, of_a2e, of_quad, of_first;

  Model(Reader r, bool is_smooth, real sin2) {
    atom = r.count(), edge = r.count(), trip = r.count(), quad = r.count(), aint = r.count();
    rbf = r.count(), cbf = r.count(), sbf = r.count(), radial = r.count();
    cbf16 = (cbf + 15) / 16 * 16, sbf8 = (sbf + 7) / 8 * 8;
    smooth = is_smooth, inline_sin2 = sin2;
    cutoff = r.factor();
    embedding = r.values(of_embedding), offset = r.values(), temps = r.values();
    main = r.linear(), atom_edge = r.linear(), quadruplet = r.linear(), near = r.linear();
    first_atoms = r.linear();
    of_e2e = r.count(), of_a2e = r.count(), of_quad = r.count(), of_first = r.count();
    blocks.resize(r.count());
    outputs.resize(blocks.size() + 1);
    for (Block& block : blocks) block.read(r);
    for (Output& output : outputs) output.read(r);
    global = r.linear();
    global_layers.read(r);
    head.resize(r.count());
    for (Head& layer : head) {
      layer.linear = r.linear();
      layer.bias = r.values(layer.of_bias);
    }
  }
};

}  // namespace
