// The four graphs, and the gradients by what was measured of them.
#pragma once

#include "angular.h"

namespace {

struct Edges {
  Index n, slots;
  const Index *source, *target;
  const real *distance, *unit, *weight;
  real *g_distance, *g_unit, *g_weight;  // null where no gradient by the geometry is wanted
  std::vector<Index> start;  // of the edges into each atom

  void read(const void* const*& p, const Index*& sizes, Index atoms) {
    n = *sizes++, slots = *sizes++;
    source = static_cast<const Index*>(*p++), target = static_cast<const Index*>(*p++);
    distance = static_cast<const real*>(*p++), unit = static_cast<const real*>(*p++);
    weight = static_cast<const real*>(*p++);
    g_distance = (real*)*p++, g_unit = (real*)*p++, g_weight = (real*)*p++;
    start.assign(atoms + 1, 0);
    for (Index e = 0; e < n; ++e) ++start[target[e] + 1];
    for (Index a = 0; a < atoms; ++a) start[a + 1] += start[a];
  }
  Index degree(Index atom) const { return start[atom + 1] - start[atom]; }
};

// The edges out of each atom, in order.
struct BySource {
  std::vector<Index> start, edge;

  BySource(const Edges& edges, Index atoms) : start(atoms + 1, 0), edge(edges.n) {
    for (Index e = 0; e < edges.n; ++e) ++start[edges.source[e] + 1];
    for (Index a = 0; a < atoms; ++a) start[a + 1] += start[a];
    std::vector<Index> next(start.begin(), start.end() - 1);
    for (Index e = 0; e < edges.n; ++e) edge[next[edges.source[e]]++] = e;
  }
};

// Some atoms and the main edges into them.
struct Tile {
  Index atom, atom_end, edge, edge_end;
  Index rows() const { return edge_end - edge; }
  Index atoms() const { return atom_end - atom; }
};

// Tiles of whole atoms with some `rows` edges each.
inline std::vector<Tile> tiles(const Edges& edges, Index atoms, Index rows) {
  std::vector<Tile> found;
  for (Index a = 0; a < atoms;) {
    Index end = a + 1;
    while (end < atoms && edges.start[end + 1] - edges.start[a] <= rows) ++end;
    found.push_back({a, end, edges.start[a], edges.start[end]});
    a = end;
  }
  return found;
}

struct Graph {
  Index atoms;
  const Index* numbers;
  Edges main, atom_edge, quad, near;
  const Index* swap;
  std::vector<Index> twin;      // of main edges, the atom-edge edge of the same pair, or -1
  std::vector<Index> back;      // of atom-edge edges, the main edge of the same pair, or -1
  std::vector<Index> triplets;  // of quadruplet edges b -> a, their first triplet d -> b -> a
  std::vector<Index> pairs;     // of main edges c -> a, their first pair with an edge b -> a
  std::vector<Index> closing;   // of such pairs, the triplet c -> b -> a, -1 without, -2: c is b
  std::vector<char> open;       // of triplets, whether d is not a

  Graph(const void* const* p, const Index* sizes) {
    atoms = *sizes++;
    numbers = static_cast<const Index*>(*p++);
    for (Edges* edges : {&main, &atom_edge, &quad, &near}) edges->read(p, sizes, atoms);
    swap = static_cast<const Index*>(*p++);
    auto differ_atom_edge = static_cast<const char*>(*p++);
    auto differ_quad = static_cast<const char*>(*p++);
    auto open_triplet = static_cast<const char*>(*p++);
    auto closing_at = static_cast<const Index*>(*p++);
    auto is_closing = static_cast<const char*>(*p++);
    find_twins(differ_atom_edge);
    find_triplets(differ_quad, open_triplet, closing_at, is_closing);
  }
  Index slot(const Edges& edges, Index e) const {
    return edges.target[e] * edges.slots + e - edges.start[edges.target[e]];
  }

 private:
  void find_twins(const char* differ) {
    twin.assign(main.n, -1), back.assign(atom_edge.n, -1);
    for (Index e = 0; e < main.n; ++e) {
      const Index a = main.target[e], first = atom_edge.start[a];
      const char* row = differ + slot(main, e) * atom_edge.slots;
      const void* found = std::memchr(row, 0, atom_edge.degree(a));
      if (found) twin[e] = first + (static_cast<const char*>(found) - row);
      if (found) back[twin[e]] = e;
    }
  }
  void find_triplets(const char* differ, const char* open_triplet, const Index* closing_at,
                     const char* is_closing) {
    const Index k = main.slots, kq = quad.slots;
    triplets.assign(1, 0), pairs.assign(1, 0);
    for (Index q = 0; q < quad.n; ++q) {
      const Index degree = main.degree(quad.source[q]);
      const char* row = open_triplet + slot(quad, q) * k;
      open.insert(open.end(), row, row + degree);
      triplets.push_back(triplets.back() + degree);
    }
    for (Index c = 0; c < main.n; ++c) {
      const Index a = main.target[c], row = slot(main, c) * kq;
      for (Index i = 0; i < quad.degree(a); ++i) {
        Index t = -1;
        if (!differ[row + i])
          t = -2;
        else if (is_closing[row + i])
          t = triplets[quad.start[a] + i] + closing_at[row + i] % k;
        closing.push_back(t);
      }
      pairs.push_back(pairs.back() + quad.degree(a));
    }
  }
};

}  // namespace
