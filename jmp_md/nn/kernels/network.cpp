// The function that Python calls.

#include "block.h"
#include "block_backward.h"
#include "ends.h"

// Energies (atoms) and, where wanted, gradients of their sum, which are added to what is there: by
// the geometry, or, for each thread, by the weights (threads, size) of their sum times seeds.
// Returns 0, or 1 where memory is short.
extern "C" int jmp_network(const real* const* pointers, const Index* offsets, const Index* counts,
                           const double* numbers, const void* const* arrays, const Index* sizes,
                           int smooth, double inline_sin2, int threads, int geometry,
                           real* by_weights, Index size, const real* seeds, Index keep,
                           real* energies) {
  static thread_local Arena arena;
  arena.reset();
  try {
    const Model model(Reader{pointers, offsets, counts, numbers}, smooth, inline_sin2);
    Graph graph(arrays, sizes);
    const Gradients weights{by_weights, size};
    Network(model, graph, arena, threads, geometry, weights, seeds).run(energies);
    arena.shrink(keep / sizeof(real));
    return 0;
  } catch (const std::bad_alloc&) {
    arena.shrink(0);
    return 1;
  }
}
